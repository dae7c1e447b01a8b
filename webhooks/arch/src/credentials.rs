//! Docker's credentials, found for an image as the kubelet finds them (k8s.io/kubernetes/pkg/credentialprovider).

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;

/// More registries in one file than anybody has.
const MAX_ENTRIES: usize = 4096;

/// Whom a registry knows.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
    /// What tokens are had for instead, if anything (`identitytoken`).
    pub refresh_token: Option<String>,
}

/// One file of credentials: scopes, as `registry.example.com/path` or `*.example.com`, the more specific first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DockerConfig {
    entries: Vec<(Scope, Credential)>,
}

/// The images that a credential is for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Scope {
    host: String,
    path: String,
}

/// A file that holds no credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// It isn't JSON of that shape; the message says line and column.
    #[error("{0}")]
    Syntax(#[from] serde_json::Error),
    /// An entry's `auth` isn't `USER:PASSWORD` in base64.
    #[error("auths: {0}: auth must be base64 of USER:PASSWORD")]
    Auth(String),
    /// There are too many.
    #[error("auths: more than {MAX_ENTRIES} entries")]
    TooMany,
}

/// What stands in `auth` isn't `USER:PASSWORD` in base64.
struct NotAuth;

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

impl DockerConfig {
    /// Reads `config.json` of Docker, or `.dockerconfigjson` of a Secret.
    pub fn from_json(text: &str) -> Result<Self, CredentialError> {
        Self::new(serde_json::from_str::<File>(text)?.auths)
    }

    /// Reads `.dockercfg`, the older format.
    pub fn from_legacy_json(text: &str) -> Result<Self, CredentialError> {
        Self::new(serde_json::from_str(text)?)
    }

    fn new(auths: BTreeMap<String, Entry>) -> Result<Self, CredentialError> {
        if auths.len() > MAX_ENTRIES {
            return Err(CredentialError::TooMany);
        }
        let mut entries = Vec::new();
        for (place, entry) in auths {
            let credential = entry.credential().map_err(|NotAuth| CredentialError::Auth(place.clone()))?;
            entries.extend(credential.map(|credential| (Scope::new(&place), credential)));
        }
        // As the kubelet has it: in reverse, so that a longer path of a host comes before a shorter one.
        entries.sort_by_key(|(scope, _)| std::cmp::Reverse(format!("{}{}", scope.host, scope.path)));
        Ok(Self { entries })
    }

    /// The credentials for an image of `repository` at `registry` (`docker.io` for Docker Hub), each to be tried.
    fn matching<'c>(&'c self, registry: &str, repository: &str) -> Vec<&'c Credential> {
        let path = format!("/{repository}");
        let own = self.entries.iter().filter(|(scope, _)| scope.covers(registry, &path));
        let own: Vec<_> = own.map(|(_, credential)| credential).collect();
        if !own.is_empty() || registry != "docker.io" {
            return own;
        }
        let hub =
            self.entries.iter().filter(|(scope, _)| scope.host == "index.docker.io" && scope.path.is_empty());
        hub.map(|(_, credential)| credential).collect()
    }
}

/// The credentials for an image of `repository` at `registry`, of all these files in order, each once.
pub fn matching<'c>(
    files: impl IntoIterator<Item = &'c DockerConfig>,
    registry: &str,
    repository: &str,
) -> Vec<&'c Credential> {
    let mut all: Vec<&Credential> = Vec::new();
    for credential in files.into_iter().flat_map(|file| file.matching(registry, repository)) {
        if !all.contains(&credential) {
            all.push(credential);
        }
    }
    all
}

impl Entry {
    /// None for one without a credential: a helper keeps it.
    fn credential(self) -> Result<Option<Credential>, NotAuth> {
        let (mut user, mut password) = (self.username.unwrap_or_default(), self.password.unwrap_or_default());
        if let Some(auth) = self.auth.filter(|auth| !auth.is_empty()) {
            let auth = auth.trim();
            let decoded =
                if auth.ends_with('=') { STANDARD.decode(auth) } else { STANDARD_NO_PAD.decode(auth) };
            let decoded = decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or(NotAuth)?;
            let (name, secret) = decoded.split_once(':').ok_or(NotAuth)?;
            (user, password) = (name.to_owned(), secret.trim_end_matches('\0').to_owned());
        }
        let refresh_token = self.identitytoken.filter(|token| !token.is_empty());
        let is_empty = user.is_empty() && password.is_empty() && refresh_token.is_none();
        Ok((!is_empty).then_some(Credential { user, password, refresh_token }))
    }
}

impl Scope {
    fn new(place: &str) -> Self {
        let place = place.strip_prefix("https://").or_else(|| place.strip_prefix("http://")).unwrap_or(place);
        let (host, path) = place.find('/').map_or((place, ""), |at| place.split_at(at));
        // Docker takes the roots of its API for the host.
        let path = path
            .strip_prefix("/v1")
            .or_else(|| path.strip_prefix("/v2"))
            .filter(|rest| rest.starts_with('/'))
            .unwrap_or(path);
        Self { host: host.to_owned(), path: if path == "/" { String::new() } else { path.to_owned() } }
    }

    /// `URLsMatch`: the port, the path's beginning, and each label of the host.
    fn covers(&self, registry: &str, path: &str) -> bool {
        let split = |host: &'_ str| -> (String, String) {
            host.rsplit_once(':')
                .map_or((host.to_owned(), String::new()), |(host, port)| (host.to_owned(), port.to_owned()))
        };
        let ((own, own_port), (host, port)) = (split(&self.host), split(registry));
        let (own, host): (Vec<_>, Vec<_>) = (own.split('.').collect(), host.split('.').collect());
        own_port == port
            && own.len() == host.len()
            && path.starts_with(&self.path)
            && own.iter().zip(&host).all(|(pattern, label)| glob(pattern, label))
    }
}

/// `*` and `?` of Go's `filepath.Match`, which is what hosts are written with.
fn glob(pattern: &str, label: &str) -> bool {
    let mut characters = pattern.chars();
    match characters.next() {
        None => label.is_empty(),
        Some('*') => {
            let rest = characters.as_str();
            label
                .char_indices()
                .map(|(at, _)| at)
                .chain([label.len()])
                .any(|at| label.get(at..).is_some_and(|tail| glob(rest, tail)))
        }
        Some('?') => {
            label.chars().next().is_some_and(|first| glob(characters.as_str(), &label[first.len_utf8()..]))
        }
        Some(own) => label.strip_prefix(own).is_some_and(|tail| glob(characters.as_str(), tail)),
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({}, ...)", self.user)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(places: &[(&str, &str)]) -> DockerConfig {
        let auths: serde_json::Map<_, _> = places
            .iter()
            .map(|(place, user)| {
                ((*place).to_owned(), json!({"auth": STANDARD.encode(format!("{user}:secret"))}))
            })
            .collect();
        DockerConfig::from_json(&json!({"auths": auths, "credsStore": "x", "HttpHeaders": {}}).to_string())
            .unwrap()
    }

    fn users(config: &DockerConfig, registry: &str, repository: &str) -> String {
        let found: Vec<_> =
            matching([config], registry, repository).iter().map(|found| &*found.user).collect();
        found.join(" ")
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
    fn of_several_files_in_order() {
        let files = [
            config(&[("a.b", "first")]),
            config(&[("a.b", "second"), ("c.d", "other")]),
            config(&[("a.b", "first")]),
        ];
        let found: Vec<_> = matching(&files, "a.b", "x").iter().map(|found| &*found.user).collect();
        assert_eq!(found, ["first", "second"]);
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
        assert_eq!(DockerConfig::from_json(r#"{"auths": {"a.b": {}}}"#).unwrap(), DockerConfig::default());
        let plain = DockerConfig::from_legacy_json(r#"{"a.b": {"username": "u", "password": "p"}}"#).unwrap();
        assert_eq!(users(&plain, "a.b", "x"), "u");
        assert!(!format!("{plain:?}").contains("\"p\""), "no password in a log");
    }
}
