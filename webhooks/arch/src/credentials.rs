//! Docker's credentials, found for an image as the kubelet finds them (k8s.io/kubernetes/pkg/credentialprovider).

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, NO_PAD, PAD};
use ring::digest::{Context, SHA256};
use serde::Deserialize;

use arch_decision::pattern::glob;

/// The largest number of registries in one file.
const MAX_ENTRIES: usize = 4096;
/// The longest host, and the longest beginning of a repository, that can be an image's.
const MAX_PART: usize = 255;
/// The longest label of a host (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;
/// The longest credential: what goes into a header.
const MAX_CREDENTIAL: usize = 16 << 10;
/// Credentials that are tried for one image.
const MAX_TRIED: usize = 16;
/// Base64 as Go reads it (`Encoding.Decode` of encoding/base64), which skips line breaks and ignores unused bits.
const PADDED: GeneralPurpose = lenient(PAD);
const UNPADDED: GeneralPurpose = lenient(NO_PAD);
/// Bytes that an entry takes beside its text, roughly.
const ENTRY: usize = 200;

/// A user of a registry, with a password or token.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
    /// The identity token (`identitytoken`), if there is one.
    pub refresh_token: Option<String>,
    /// Identifies the credential without revealing it.
    identity: [u8; 16],
    /// Whether the credential is never sent to a token server on another host.
    pub own_host_only: bool,
}

/// The credentials of a docker configuration. Their scopes are `registry.example.com/path` or `*.example.com`; more specific ones come first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DockerConfig {
    entries: Vec<(Scope, Arc<Credential>)>,
    /// Whether the file names credential helpers.
    has_helpers: bool,
}

/// The warning about a file with credential helpers.
pub(crate) const HELPERS: &str = "credsStore and credHelpers aren't used: they are programs of another machine. Put credentials into auths, or use cloudCredentials";

/// The images that a credential is for: a host with its port, and a prefix of the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Scope {
    host: String,
    path: String,
}

/// A file that holds no credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The file is not a docker configuration in JSON. The message has line and column.
    #[error(transparent)]
    Syntax(#[from] serde_json::Error),
    /// The `auth` of an entry is not `USER:PASSWORD` in base64.
    #[error("auths: {0}: auth must be base64 of USER:PASSWORD")]
    Auth(String),
    /// An entry exceeds the limit.
    #[error("auths: {0}: longer than {MAX_CREDENTIAL} bytes")]
    TooLong(String),
    /// The file has too many entries.
    #[error("auths: more than {MAX_ENTRIES} entries")]
    TooMany,
}

const fn lenient(config: GeneralPurposeConfig) -> GeneralPurpose {
    GeneralPurpose::new(&alphabet::STANDARD, config.with_decode_allow_trailing_bits(true))
}

/// `auth` is not `USER:PASSWORD` in base64.
struct NotAuth;

/// As Go reads it: null is nothing.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", expecting = "a docker configuration")]
struct File {
    auths: Option<Auths>,
    creds_store: Option<String>,
    cred_helpers: Option<BTreeMap<String, String>>,
}

type Auths = BTreeMap<String, Option<AuthEntry>>;

#[derive(Default, Deserialize)]
#[serde(default, expecting = "auth, or username and password")]
struct AuthEntry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

impl DockerConfig {
    /// Reads `config.json` of Docker, or `.dockerconfigjson` of a Secret.
    pub fn from_json(text: &str) -> Result<Self, CredentialError> {
        let file: Option<File> = serde_json::from_str(text)?;
        let File { auths, creds_store, cred_helpers } = file.unwrap_or_default();
        let has_helpers = creds_store.is_some_and(|store| !store.is_empty())
            || cred_helpers.is_some_and(|helpers| !helpers.is_empty());
        Ok(Self { has_helpers, ..Self::new(auths.unwrap_or_default())? })
    }

    /// Reads `.dockercfg`, the older format.
    pub fn from_legacy_json(text: &str) -> Result<Self, CredentialError> {
        let auths: Option<Auths> = serde_json::from_str(text)?;
        Self::new(auths.unwrap_or_default())
    }

    fn new(auths: Auths) -> Result<Self, CredentialError> {
        if auths.len() > MAX_ENTRIES {
            return Err(CredentialError::TooMany);
        }
        let mut entries = Vec::new();
        for (place, entry) in auths.into_iter().filter_map(|(place, entry)| Some((place, entry?))) {
            let credential = entry.credential().map_err(|NotAuth| CredentialError::Auth(place.clone()))?;
            if credential.as_ref().is_some_and(|credential| credential.len() > MAX_CREDENTIAL) {
                return Err(CredentialError::TooLong(place));
            }
            let known = Scope::new(&place).zip(credential);
            entries.extend(known.map(|(scope, credential)| (scope, Arc::new(credential))));
        }
        // As the kubelet has it: in reverse, so that a longer path of a host comes before a shorter one.
        entries.sort_by_cached_key(|(Scope { host, path }, _)| {
            Reverse(if path.is_empty() { host.clone() } else { format!("{host}/{path}") })
        });
        Ok(Self { entries, has_helpers: false })
    }

    /// Whether it names programs that have further credentials, as Docker Desktop and cloud tools write it.
    pub(crate) fn has_helpers(&self) -> bool {
        self.has_helpers
    }

    /// How many credentials it holds.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The bytes that it takes, roughly.
    pub(crate) fn size(&self) -> usize {
        let text = |(scope, credential): &(Scope, Arc<Credential>)| {
            scope.host.len() + scope.path.len() + credential.len()
        };
        self.entries.iter().map(|entry| ENTRY + text(entry)).sum()
    }

    /// The credentials for an image of `repository` at `registry` (`docker.io` for Docker Hub), each to be tried.
    fn matching(&self, registry: &str, repository: &str) -> impl Iterator<Item = &Arc<Credential>> {
        let own = move |scope: &Scope| scope.covers(registry, repository);
        let hub = |scope: &Scope| scope.host == "index.docker.io" && scope.path.is_empty();
        let is_hub = registry == "docker.io" && !self.entries.iter().any(|(scope, _)| own(scope));
        let matching = move |scope: &Scope| if is_hub { hub(scope) } else { own(scope) };
        self.entries.iter().filter(move |(scope, _)| matching(scope)).map(|(_, credential)| credential)
    }
}

/// The first 16 credentials for an image of `repository` at `registry`, each once, in the order of these files.
pub fn matching<'c>(
    files: impl IntoIterator<Item = &'c DockerConfig>,
    registry: &str,
    repository: &str,
) -> Vec<Arc<Credential>> {
    let mut all: Vec<Arc<Credential>> = Vec::new();
    for credential in files.into_iter().flat_map(|file| file.matching(registry, repository)) {
        if all.len() == MAX_TRIED {
            break;
        }
        if !all.iter().any(|known| known.identity == credential.identity) {
            all.push(Arc::clone(credential));
        }
    }
    all
}

impl Credential {
    fn new(user: String, password: String, refresh_token: Option<String>) -> Self {
        let mut hash = Context::new(&SHA256);
        for part in [&*user, &*password, refresh_token.as_deref().unwrap_or_default()] {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        let identity = hash.finish().as_ref().first_chunk().copied().unwrap_or_default();
        Self { user, password, refresh_token, identity, own_host_only: false }
    }

    /// The credential of a cloud, which keeps its identity when it is renewed.
    pub(crate) fn of_cloud(
        user: String,
        password: String,
        refresh_token: Option<String>,
        identity: [u8; 16],
    ) -> Self {
        Self { user, password, refresh_token, identity, own_host_only: true }
    }

    fn len(&self) -> usize {
        self.user.len() + self.password.len() + self.refresh_token.as_ref().map_or(0, String::len)
    }

    /// Identifies the credential without revealing it: an answer is available only to pods with the same credential.
    pub(crate) fn identity(&self) -> [u8; 16] {
        self.identity
    }
}

impl AuthEntry {
    /// The credential; `None` if a helper has it.
    fn credential(self) -> Result<Option<Credential>, NotAuth> {
        let mut user = self.username.unwrap_or_default();
        let mut password = self.password.unwrap_or_default();
        if let Some(auth) = self.auth.filter(|auth| !auth.is_empty()) {
            let auth: String = auth.trim().chars().filter(|sign| !matches!(sign, '\r' | '\n')).collect();
            let decoded = if auth.ends_with('=') { PADDED.decode(auth) } else { UNPADDED.decode(auth) };
            let decoded = decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or(NotAuth)?;
            let (name, secret) = decoded.split_once(':').ok_or(NotAuth)?;
            (user, password) = (name.to_owned(), secret.trim_end_matches('\0').to_owned());
        }
        let refresh_token = self.identitytoken.filter(|token| !token.is_empty());
        let is_empty = user.is_empty() && password.is_empty() && refresh_token.is_none();
        Ok((!is_empty).then(|| Credential::new(user, password, refresh_token)))
    }
}

impl Scope {
    /// The scope of a key in `auths`; `None` if no image can match it.
    fn new(place: &str) -> Option<Self> {
        let place = place.strip_prefix("https://").or_else(|| place.strip_prefix("http://")).unwrap_or(place);
        let (host, path) = place.split_once('/').unwrap_or((place, ""));
        // Docker takes the roots of its API for the host.
        let path = path.strip_prefix("v1/").or_else(|| path.strip_prefix("v2/")).unwrap_or(path);
        // Names of images have their registry in lower case.
        let scope = || Self { host: host.to_ascii_lowercase(), path: path.to_owned() };
        (host.len() <= MAX_PART && path.len() <= MAX_PART).then(scope)
    }

    /// `URLsMatch`: the port, the path's beginning, and each label of the host by `*` and `?` of Go's `filepath.Match`.
    fn covers(&self, registry: &str, repository: &str) -> bool {
        let ((own, own_port), (host, port)) = (split(&self.host), split(registry));
        own_port == port
            && repository.starts_with(&self.path)
            && own.split('.').count() == host.split('.').count()
            && own
                .split('.')
                .zip(host.split('.'))
                .all(|(own, label)| label.len() <= MAX_LABEL && glob(own.as_bytes(), label.as_bytes()))
    }
}

/// Host and port.
fn split(host: &str) -> (&str, &str) {
    host.rsplit_once(':').unwrap_or((host, ""))
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({}, ...)", self.user)
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;

    use super::*;

    fn config(places: &[(&str, &str)]) -> DockerConfig {
        let auths: serde_json::Map<_, _> = places
            .iter()
            .map(|(place, user)| {
                ((*place).to_owned(), json!({"auth": STANDARD.encode(format!("{user}:secret"))}))
            })
            .collect();
        DockerConfig::from_json(&json!({"auths": auths, "HttpHeaders": {}}).to_string()).unwrap()
    }

    fn users(config: &DockerConfig, registry: &str, repository: &str) -> String {
        let found = matching([config], registry, repository);
        found.iter().map(|found| &*found.user).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn as_the_kubelet_matches() {
        let all = config(&[
            ("https://index.docker.io/v1/", "hub"),
            ("quay.io", "quay"),
            ("quay.io/coreos", "coreos"),
            ("https://quay.io/v2/", "root"),
            ("*.example.com", "wild"),
            ("reg*.example.com/team", "team"),
            ("localhost:5000", "local"),
            ("Upper.io", "upper"),
        ]);
        for (registry, repository, expected) in [
            ("docker.io", "library/nginx", "hub"),
            ("quay.io", "coreos/etcd", "coreos root quay"),
            ("quay.io", "other", "root quay"),
            ("registry.example.com", "team/app", "team wild"),
            ("registry.example.com", "other/app", "wild"),
            ("a.registry.example.com", "team/app", ""),
            ("example.com", "team/app", ""),
            ("localhost:5000", "a", "local"),
            ("localhost", "a", ""),
            ("localhost:5001", "a", ""),
            ("evil.io", "quay.io/coreos", ""),
            ("upper.io", "a", "upper"),
        ] {
            let found = users(&all, registry, repository);
            let sorted = |text: &str| {
                let mut words: Vec<_> = text.split(' ').map(str::to_owned).collect();
                words.sort();
                words
            };
            assert_eq!(sorted(&found), sorted(expected), "{registry}/{repository}");
        }
        assert!(users(&all, "quay.io", "coreos/etcd").starts_with("coreos"), "the longer path first");
    }

    #[test]
    fn pattern_matches_in_linear_time() {
        // A backtracking matcher would not finish with this input.
        let host = format!("{}.example.com", "a".repeat(60));
        let all = config(&[(&format!("{}b.example.com", "*a".repeat(40)), "greedy")]);
        assert_eq!(users(&all, &host, "x"), "");
    }

    #[test]
    fn overlong_values_are_ignored() {
        let host = format!("{}.io", "*".repeat(253));
        let path = format!("a.b/{}", "x".repeat(256));
        assert_eq!(config(&[(&host, "u"), (&path, "u")]), DockerConfig::default());
        let long = json!({"auths": {"a.b": {"username": "u", "password": "p".repeat(MAX_CREDENTIAL)}}});
        let error = DockerConfig::from_json(&long.to_string()).unwrap_err();
        assert!(matches!(error, CredentialError::TooLong(_)), "{error}");
        let many: serde_json::Map<_, _> = (0..=MAX_ENTRIES).map(|n| (format!("{n}.io"), json!({}))).collect();
        let many = json!({"auths": many}).to_string();
        assert!(matches!(DockerConfig::from_json(&many), Err(CredentialError::TooMany)));
    }

    #[test]
    fn number_of_tried_credentials_is_limited() {
        let user = |n: usize| format!("{n}");
        let files: Vec<_> = (0..100).map(|n| config(&[("a.b", &user(n / 2))])).collect();
        let found: Vec<_> = matching(&files, "a.b", "x").iter().map(|found| found.user.clone()).collect();
        assert_eq!(found, (0..MAX_TRIED).map(user).collect::<Vec<_>>(), "the first, each once");
    }

    #[test]
    fn of_several_files_in_order() {
        let files = [
            config(&[("a.b", "first")]),
            config(&[("a.b", "second"), ("c.d", "other")]),
            config(&[("a.b", "first")]),
        ];
        let found: Vec<_> = matching(&files, "a.b", "x").iter().map(|found| found.user.clone()).collect();
        assert_eq!(found, ["first", "second"]);
    }

    #[test]
    fn base64_is_read_as_go_reads_it() {
        for auth in ["dTpwYXNz", "dTpw\\r\\nYXNz\\n", "dTpw\\nYXM=\\n", "dTpwYXN=", "dTpwYXN"] {
            let file = format!(r#"{{"auths": {{"a.b": {{"auth": "{auth}"}}}}}}"#);
            assert_eq!(users(&DockerConfig::from_json(&file).unwrap(), "a.b", "x"), "u", "{auth}");
        }
    }

    #[test]
    fn credential_helpers_are_noticed() {
        for (text, expected) in [
            (r#"{"auths": {}}"#, false),
            (r#"{"auths": {}, "credsStore": "", "credHelpers": null}"#, false),
            (r#"{"credsStore": "desktop"}"#, true),
            (r#"{"credHelpers": {"123456789012.dkr.ecr.eu-west-1.amazonaws.com": "ecr-login"}}"#, true),
        ] {
            assert_eq!(DockerConfig::from_json(text).unwrap().has_helpers(), expected, "{text}");
        }
    }

    #[test]
    fn files_that_cannot_be_read() {
        for (text, expected) in [
            ("{\n \"auths\": 5}", "line 2 column 11"),
            (r#"{"auths": {"a.b": {"auth": "%%"}}}"#, "auths: a.b: auth must be base64"),
            (r#"{"auths": {"a.b": {"auth": "YQ=="}}}"#, "auths: a.b: auth must be base64"),
            ("", "EOF while parsing"),
        ] {
            let error = DockerConfig::from_json(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        for empty in
            [r#"{"auths": {"a.b": {}}}"#, r#"{"auths": {"a.b": null}}"#, r#"{"auths": null}"#, "null"]
        {
            assert_eq!(DockerConfig::from_json(empty).unwrap(), DockerConfig::default(), "{empty}");
        }
        let source =
            std::error::Error::source(&DockerConfig::from_json("5").unwrap_err()).map(ToString::to_string);
        assert_eq!(source, None, "the reason is named once");
        let plain = DockerConfig::from_legacy_json(r#"{"a.b": {"username": "u", "password": "p"}}"#).unwrap();
        assert_eq!(users(&plain, "a.b", "x"), "u");
        assert!(!format!("{plain:?}").contains("\"p\""), "no password in a log");
    }
}
