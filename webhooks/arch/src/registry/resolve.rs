//! From an image's name to what it runs on.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;

use form_urlencoded::Serializer;
use http::{HeaderValue, Method, StatusCode, Uri, header};
use oci_client::Reference;
use ring::digest::{Context, SHA256, SHA512, digest};
use tokio::task::spawn_blocking;

use super::address::AddressPolicy;
use super::challenge::Challenge;
use super::cloud::{CloudKeyring, CloudSource};
use super::exchange::Exchange;
use super::hosts::Hosts;
use super::manifest::{ACCEPT, Config, MAX_PLATFORMS, Manifest};
use super::token::Tokens;
use super::{RegistryRequest, RegistryResponse, Scope, host_and_port};
use crate::credentials::{Credential, DockerConfig, matching};
use crate::reference::version;
use arch_decision::config::{Mirror, MirrorSourcePolicy, MirroredRepository};
use arch_decision::images::LookupError;
use arch_decision::platform::{Platform, Platforms};

/// Indexes within indexes.
const MAX_DEPTH: usize = 3;
/// Manifests and configurations that are fetched for one image.
const MAX_FETCHES: usize = 24;

/// The current answer for a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// The digest of its manifest or index.
    pub(crate) digest: Box<str>,
    /// The platforms that it supports.
    pub(crate) platforms: Arc<Platforms>,
    /// Whether that is an index, of which a node takes the entry for its own platform. A manifest that a name leads to without
    /// one it takes as it is (`Manifest` of github.com/containerd/containerd/core/images).
    pub(crate) index: bool,
    /// The host that answered: the registry, or a mirror.
    pub(crate) from: Box<str>,
}

/// Credentials, in the order in which they are tried.
pub(crate) type Keyring = [Arc<DockerConfig>];

/// Where an image may be, in the order in which it is asked for there, and by which credentials.
pub(crate) struct Plan {
    /// None without credentials: the endpoints are then computed when they are needed, which is rare.
    endpoints: Option<Vec<RegistryEndpoint>>,
    /// Identifies the credentials without revealing them: an answer is available only to pods with the same credentials.
    identity: [u8; 16],
}

impl Plan {
    pub(crate) fn identity(&self) -> [u8; 16] {
        self.identity
    }
}

/// Asks registries.
pub(crate) struct Resolver {
    exchange: Exchange,
    tokens: Tokens,
    cloud: CloudKeyring,
}

/// The question about an image.
#[derive(Clone, Copy)]
enum Question {
    Platforms,
    Digest,
}

/// A mirror, or the image's registry.
struct RegistryEndpoint {
    /// `https://host:port`.
    base: Uri,
    /// The host as credentials name it.
    registry: String,
    /// The repository there.
    repository: String,
    /// The path of its API, `/v2/REPOSITORY` as a rule.
    path: String,
    /// The query of each request, with its question mark; empty for none.
    query: String,
    credentials: Vec<Arc<Credential>>,
    /// The credential of the cloud, tried after these.
    cloud: Option<Arc<CloudSource>>,
}

/// Where the credential of an attempt comes from.
enum CredentialSource<'p> {
    Known(Arc<Credential>),
    Cloud(&'p CloudSource),
    Anonymous,
}

/// One attempt at one place, by one credential.
struct Attempt<'a> {
    resolver: &'a Resolver,
    place: &'a RegistryEndpoint,
    scope: Scope<'a>,
    fetches: usize,
    /// Whether an entry without a platform is an OLM bundle.
    has_bundle: bool,
}

impl Resolver {
    pub(crate) fn new(exchange: Exchange, cloud: CloudKeyring) -> Self {
        Self { exchange, tokens: Tokens::default(), cloud }
    }

    /// Checks that the pod has the identities that the settings need.
    pub(crate) fn check_identities(&self) -> anyhow::Result<()> {
        self.cloud.check()
    }

    /// The word for a registry in metrics.
    pub(crate) fn label<'r>(&'r self, registry: &'r str) -> &'r str {
        self.hosts().settings().label(registry)
    }

    fn hosts(&self) -> &Hosts {
        self.exchange.hosts()
    }

    /// Finds the credentials for an image: what it takes to ask for it.
    pub(crate) fn plan(
        &self,
        image: &Reference,
        keyring: &Keyring,
        namespace: Option<&str>,
    ) -> Result<Plan, LookupError> {
        let cloud = self.cloud.source(image.registry(), namespace);
        if keyring.is_empty() && cloud.is_none() {
            return Ok(Plan { endpoints: None, identity: [0; 16] });
        }
        let endpoints = self.endpoints(image, keyring, cloud)?;
        let mut hash = Context::new(&SHA256);
        for place in &endpoints {
            for credential in &place.credentials {
                hash.update(&credential.identity());
            }
            if let Some(cloud) = &place.cloud {
                hash.update(&cloud.identity());
            }
            hash.update(b"/");
        }
        let anonymous = endpoints.iter().all(|place| place.credentials.is_empty() && place.cloud.is_none());
        let identity = if anonymous {
            [0; 16]
        } else {
            hash.finish().as_ref().first_chunk().copied().unwrap_or_default()
        };
        Ok(Plan { endpoints: Some(endpoints), identity })
    }

    /// Asks the mirrors, then the registry, each by all credentials that match, for what `image` is.
    pub(crate) async fn resolve(
        &self,
        image: &Reference,
        plan: &Plan,
        namespace: &Arc<str>,
    ) -> Result<Resolved, LookupError> {
        self.ask(image, plan, namespace, Question::Platforms).await
    }

    /// Asks for the digest alone: a small request, as a rule, that registries don't count.
    pub(crate) async fn digest(
        &self,
        image: &Reference,
        plan: &Plan,
        namespace: &Arc<str>,
    ) -> Result<Box<str>, LookupError> {
        self.ask(image, plan, namespace, Question::Digest).await.map(|resolved| resolved.digest)
    }

    async fn ask(
        &self,
        image: &Reference,
        plan: &Plan,
        namespace: &Arc<str>,
        question: Question,
    ) -> Result<Resolved, LookupError> {
        if !self.hosts().settings().allows(image.registry()) {
            return Err(LookupError::NotAllowed);
        }
        let found;
        let endpoints = if let Some(endpoints) = &plan.endpoints {
            endpoints
        } else {
            found = self.endpoints(image, &[], None)?;
            &found
        };
        let mut last = LookupError::Unavailable;
        for place in endpoints {
            for source in place.sources() {
                match self.attempt(place, source, image, namespace, question).await {
                    Ok(resolved) => return Ok(resolved),
                    Err(why) => {
                        let registry = &*place.registry;
                        tracing::debug!(
                            registry,
                            repository = place.repository,
                            error = why.label(),
                            "no answer for an image"
                        );
                        last = why;
                    }
                }
                // Another credential helps against nothing else.
                if !matches!(last, LookupError::Unauthorized | LookupError::NotFound) {
                    break;
                }
            }
        }
        Err(last)
    }

    /// Asks one place, by one credential.
    async fn attempt(
        &self,
        place: &RegistryEndpoint,
        source: CredentialSource<'_>,
        image: &Reference,
        namespace: &Arc<str>,
        question: Question,
    ) -> Result<Resolved, LookupError> {
        let credential = source.credential().await?;
        let credential = credential.as_deref();
        let identity = credential.map(Credential::identity).unwrap_or_default();
        let registry = &place.base;
        let repository = &*place.repository;
        let scope = Scope { registry, repository, credential, identity, namespace };
        let mut attempt = Attempt { resolver: self, place, scope, fetches: 0, has_bundle: false };
        let (digest, platforms, index) = match question {
            Question::Platforms => attempt.image(image).await?,
            Question::Digest => (attempt.digest(image).await?, Platforms::Any, false),
        };
        Ok(Resolved { digest, platforms: Arc::new(platforms), index, from: place.registry.as_str().into() })
    }

    fn endpoints(
        &self,
        image: &Reference,
        keyring: &Keyring,
        cloud: Option<&Arc<CloudSource>>,
    ) -> Result<Vec<RegistryEndpoint>, LookupError> {
        let registry = image.registry();
        let repository = image.repository();
        let files = || keyring.iter().map(|file| &**file);
        let by_digest = image.digest().is_some();
        let (mirrors, policy) = self.hosts().settings().mirrors.of(registry, repository, by_digest);
        let mut endpoints = Vec::new();
        for MirroredRepository { mirror, repository, path } in mirrors {
            endpoints.push(RegistryEndpoint {
                base: base(if mirror.tls { "https" } else { "http" }, &mirror.authority)?,
                registry: mirror.authority.clone(),
                credentials: matching(files(), &mirror.authority, &repository),
                repository,
                path,
                query: namespace_query(mirror, registry),
                cloud: None,
            });
        }
        if policy == MirrorSourcePolicy::NeverContactSource {
            return if endpoints.is_empty() { Err(LookupError::NotAllowed) } else { Ok(endpoints) };
        }
        // `docker.io` is a name; what answers to it is elsewhere.
        let authority = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        let uri = base("https", authority)?;
        let (host, port) = host_and_port(&uri);
        let plain =
            self.hosts().is_plain(host, port) || (uri.port().is_none() && self.hosts().is_plain(host, 80));
        let base = if plain { base("http", authority)? } else { uri };
        let credentials = matching(files(), registry, repository);
        endpoints.push(RegistryEndpoint {
            base,
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            path: format!("/v2/{repository}"),
            query: String::new(),
            credentials,
            cloud: cloud.cloned(),
        });
        Ok(endpoints)
    }
}

impl CredentialSource<'_> {
    async fn credential(self) -> Result<Option<Arc<Credential>>, LookupError> {
        match self {
            Self::Known(credential) => Ok(Some(credential)),
            Self::Anonymous => Ok(None),
            Self::Cloud(cloud) => cloud.credential().await.map(Some),
        }
    }
}

impl RegistryEndpoint {
    /// The credentials, in the order in which they are tried.
    fn sources(&self) -> impl Iterator<Item = CredentialSource<'_>> {
        let known = self.credentials.iter().map(|own| CredentialSource::Known(Arc::clone(own)));
        let cloud = self.cloud.iter().map(|cloud| CredentialSource::Cloud(cloud));
        let none = self.credentials.is_empty() && self.cloud.is_none();
        known.chain(cloud).chain(none.then_some(CredentialSource::Anonymous))
    }
}

impl Attempt<'_> {
    /// The digest and platforms of an image, and whether it is an index.
    async fn image(&mut self, image: &Reference) -> Result<(Box<str>, Platforms, bool), LookupError> {
        let (digest, manifest) = self.manifest(version(image)).await?;
        let index = matches!(manifest, Manifest::Index { .. });
        let platforms = match manifest {
            Manifest::Artifact => Platforms::Any,
            Manifest::Old(platform) => Platforms::Only([platform].into()),
            Manifest::Image(config) => self.config(&config).await?.into(),
            Manifest::Undeclared(config) => {
                self.undeclared(&config).await?.map_or(Platforms::Any, Into::into)
            }
            Manifest::Index { platforms, attested, unnamed, has_more } => match attested {
                Some(only) if self.is_bundle(&only).await => Platforms::OlmBundle,
                _ => self.platforms_of_index(platforms, unnamed, has_more).await?,
            },
        };
        Ok((digest, platforms, index))
    }

    /// Whether an image is an OLM bundle. An image that cannot be read is none: the platform that its index names counts.
    async fn is_bundle(&mut self, digest: &str) -> bool {
        match self.manifest(digest).await {
            Ok((_, Manifest::Image(config))) => matches!(self.config(&config).await, Ok(Config::OlmBundle)),
            _ => false,
        }
    }

    /// The platforms that an index names, and those of its other entries. A node selects an entry without a platform only if none with
    /// its own is there (`Manifest` of github.com/containerd/containerd/core/images), so unreadable ones don't lose the others.
    async fn platforms_of_index(
        &mut self,
        mut platforms: BTreeSet<Platform>,
        unnamed: Vec<String>,
        has_more: bool,
    ) -> Result<Platforms, LookupError> {
        let are_named = !platforms.is_empty();
        let resolved = self.resolve_unnamed(unnamed, &mut platforms).await;
        if platforms.len() > MAX_PLATFORMS {
            return Err(LookupError::Malformed);
        }
        match resolved {
            Ok(()) if platforms.is_empty() && self.has_bundle => Ok(Platforms::OlmBundle),
            Ok(()) if platforms.is_empty() && !has_more => Ok(Platforms::Any),
            Ok(()) if !has_more || are_named => Ok(Platforms::Only(platforms)),
            Ok(()) => Err(LookupError::Malformed),
            Err(_) if are_named => Ok(Platforms::Only(platforms)),
            Err(error) => Err(error),
        }
    }

    /// Adds the platforms of entries that name none, those of nested indexes too; each manifest once. An entry that can't be read is
    /// left out if another one can.
    async fn resolve_unnamed(
        &mut self,
        unnamed: Vec<String>,
        platforms: &mut BTreeSet<Platform>,
    ) -> Result<(), LookupError> {
        let mut seen = BTreeSet::new();
        let mut failure = None;
        let mut next: Vec<_> = unnamed.into_iter().rev().map(|digest| (digest, 1)).collect();
        while let Some((digest, depth)) = next.pop() {
            if !seen.insert(digest.clone()) {
                continue;
            }
            let found = if depth > MAX_DEPTH {
                Err(LookupError::Malformed)
            } else {
                self.unnamed(&digest, depth, platforms, &mut next).await
            };
            match found {
                Ok(()) => {}
                Err(LookupError::NotFound | LookupError::Malformed | LookupError::Unauthorized) => {
                    failure = failure.or(found.err());
                }
                // The registry may answer later.
                Err(_) => return found,
            }
            if platforms.len() > MAX_PLATFORMS {
                return Err(LookupError::Malformed);
            }
        }
        failure.filter(|_| platforms.is_empty()).map_or(Ok(()), Err)
    }

    /// Adds the platforms of one entry that names none.
    async fn unnamed(
        &mut self,
        digest: &str,
        depth: usize,
        platforms: &mut BTreeSet<Platform>,
        next: &mut Vec<(String, usize)>,
    ) -> Result<(), LookupError> {
        let config = match self.manifest(digest).await?.1 {
            Manifest::Artifact => None,
            Manifest::Old(platform) => Some(Config::Image(platform)),
            Manifest::Image(config) => Some(self.config(&config).await?),
            Manifest::Undeclared(config) => self.undeclared(&config).await?,
            Manifest::Index { platforms: more, unnamed, .. } => {
                platforms.extend(more);
                next.extend(unnamed.into_iter().rev().map(|digest| (digest, depth + 1)));
                None
            }
        };
        match config {
            Some(Config::Image(platform)) => drop(platforms.insert(platform)),
            Some(Config::OlmBundle) => self.has_bundle = true,
            None => {}
        }
        Ok(())
    }

    async fn manifest(&mut self, wanted: &str) -> Result<(Box<str>, Manifest), LookupError> {
        let answer = self.get(Method::GET, "manifests", wanted, ACCEPT).await?;
        if !answer.body.is_large() {
            return understood(wanted, &answer);
        }
        // It takes long enough for others to notice.
        let wanted = wanted.to_owned();
        spawn_blocking(move || understood(&wanted, &answer)).await.map_err(|_| LookupError::Malformed)?
    }

    async fn config(&mut self, wanted: &str) -> Result<Config, LookupError> {
        self.blob(wanted, Config::of_image).await?
    }

    /// The configuration of an unusual media type. None if it is no image's.
    async fn undeclared(&mut self, wanted: &str) -> Result<Option<Config>, LookupError> {
        match self.blob(wanted, Config::of_undeclared).await {
            // Artifacts may have anything in its place.
            Err(LookupError::NotFound | LookupError::Malformed) => Ok(None),
            found => found,
        }
    }

    async fn blob<T>(&mut self, wanted: &str, read: impl FnOnce(&str) -> T) -> Result<T, LookupError> {
        let answer = self.get(Method::GET, "blobs", wanted, "*/*").await?;
        if !is_digest_of(wanted, &answer.body) {
            return Err(LookupError::Malformed);
        }
        str::from_utf8(&answer.body).map(read).map_err(|_| LookupError::Malformed)
    }

    /// The digest alone. A registry should send it in the response to HEAD (OCI distribution, "Checking if content exists in the
    /// registry"), but need not.
    async fn digest(&mut self, image: &Reference) -> Result<Box<str>, LookupError> {
        let wanted = version(image);
        let answer = self.get(Method::HEAD, "manifests", wanted, ACCEPT).await?;
        let answered = answer.headers.get("docker-content-digest").and_then(|digest| digest.to_str().ok());
        match answered.filter(|digest| digest.len() <= 256) {
            Some(digest) => Ok(digest.into()),
            None => Ok(self.manifest(wanted).await?.0),
        }
    }

    /// Asks, and shows who asks where the registry wants to know.
    async fn get(
        &mut self,
        method: Method,
        kind: &str,
        wanted: &str,
        accept: &'static str,
    ) -> Result<RegistryResponse, LookupError> {
        self.fetches += 1;
        if self.fetches > MAX_FETCHES || !is_reference(wanted) {
            return Err(LookupError::Malformed);
        }
        let path = format!("{}/{kind}/{wanted}{}", self.place.path, self.place.query);
        let base = &self.place.base;
        let uri = Uri::builder().scheme(base.scheme_str().unwrap_or("https"));
        let uri =
            uri.authority(base.authority().map_or("", |authority| authority.as_str())).path_and_query(path);
        let uri = uri.build().map_err(|_| LookupError::Invalid)?;
        let Resolver { exchange, tokens, .. } = self.resolver;
        let scope = &self.scope;
        let ask = |authorization: Option<HeaderValue>| {
            let method = method.clone();
            let uri = uri.clone();
            let reach = AddressPolicy::Registry;
            let requester = scope.requester();
            RegistryRequest { method, uri, accept, authorization, form: None, reach, requester }
        };
        let finding = tokens.wait_for_challenge(&self.scope).await;
        // The known challenge may be outdated; the response has the current one.
        let known = tokens.known(exchange, &self.scope).await.unwrap_or_default();
        let mut answer = exchange.send(ask(known.clone())).await?;
        let challenge = challenge_of(&answer)?;
        tokens.learn(&self.scope, challenge.as_ref());
        drop(finding);
        if let Some(challenge) = challenge {
            let authorization = tokens.answer(exchange, &self.scope, &challenge).await?;
            // The same credential would be refused again.
            let other = authorization
                .filter(|other| known.as_ref() != Some(other))
                .ok_or(LookupError::Unauthorized)?;
            answer = exchange.send(ask(Some(other))).await?;
        }
        if answer.redirected && answer.status == StatusCode::UNAUTHORIZED {
            answer = self.get_anonymously(method, accept, answer).await?;
        }
        match answer.status.as_u16() {
            200 => Ok(answer),
            401 | 403 => Err(LookupError::Unauthorized),
            404 => Err(LookupError::NotFound),
            _ => Err(LookupError::Unavailable),
        }
    }

    /// Repeats a request at the registry that a redirect leads to, which requires a token even for public images (containerd#5503). The
    /// token is anonymous: credentials are for their own host only.
    async fn get_anonymously(
        &self,
        method: Method,
        accept: &'static str,
        refused: RegistryResponse,
    ) -> Result<RegistryResponse, LookupError> {
        let Resolver { exchange, tokens, .. } = self.resolver;
        let challenge = challenge_in(&refused)?;
        let repository = repository_of(&refused.uri).unwrap_or(self.scope.repository);
        let registry = &refused.uri;
        let namespace = self.scope.namespace;
        let scope = Scope { registry, repository, credential: None, identity: [0; 16], namespace };
        for anew in [false, true] {
            let authorization = tokens.anonymous(exchange, &scope, &challenge, anew).await?;
            let authorization = Some(authorization.ok_or(LookupError::Unauthorized)?);
            let method = method.clone();
            let uri = refused.uri.clone();
            let reach = refused.reach;
            let requester = scope.requester();
            let ask = RegistryRequest { method, uri, accept, authorization, form: None, reach, requester };
            let answer = exchange.send(ask).await?;
            if answer.status != StatusCode::UNAUTHORIZED {
                return Ok(answer);
            }
        }
        Err(LookupError::Unauthorized)
    }
}

/// The challenge of the registry, if it requires authentication. That of the target of a redirect is another registry's.
fn challenge_of(answer: &RegistryResponse) -> Result<Option<(Challenge, AddressPolicy)>, LookupError> {
    if answer.status != StatusCode::UNAUTHORIZED || answer.redirected {
        return Ok(None);
    }
    challenge_in(answer).map(Some)
}

fn challenge_in(answer: &RegistryResponse) -> Result<(Challenge, AddressPolicy), LookupError> {
    let headers = answer.headers.get_all(header::WWW_AUTHENTICATE).iter();
    let challenge =
        Challenge::of(headers.filter_map(|value| value.to_str().ok())).ok_or(LookupError::Unauthorized)?;
    Ok((challenge, answer.reach))
}

/// The repository in the path of a request to a registry.
fn repository_of(uri: &Uri) -> Option<&str> {
    let path = uri.path().strip_prefix("/v2/")?;
    let (repository, _) = path.rsplit_once("/manifests/").or_else(|| path.rsplit_once("/blobs/"))?;
    Some(repository).filter(|repository| !repository.is_empty())
}

/// The document for a tag or digest, with its digest.
fn understood(wanted: &str, answer: &RegistryResponse) -> Result<(Box<str>, Manifest), LookupError> {
    let text = str::from_utf8(&answer.body).map_err(|_| LookupError::Malformed)?;
    let digest = if wanted.contains(':') { wanted.to_owned() } else { sha256(&answer.body) };
    if !is_digest_of(&digest, &answer.body) {
        return Err(LookupError::Malformed);
    }
    let content_type = answer.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let content_type = content_type.map(|kind| kind.split(';').next().unwrap_or(kind).trim());
    Ok((digest.into(), Manifest::read(content_type, text)?))
}

/// The registry of the image, for a mirror of several (`addNamespace` and `isProxy` of
/// github.com/containerd/containerd/core/remotes/docker).
fn namespace_query(mirror: &Mirror, registry: &str) -> String {
    let is_source = mirror.authority == registry
        || (registry == "docker.io" && mirror.authority == "registry-1.docker.io");
    if !mirror.ns || is_source {
        return String::new();
    }
    format!("?{}", Serializer::new(String::new()).append_pair("ns", registry).finish())
}

impl From<Config> for Platforms {
    fn from(config: Config) -> Self {
        match config {
            Config::Image(platform) => Self::Only([platform].into()),
            Config::OlmBundle => Self::OlmBundle,
        }
    }
}

fn base(scheme: &str, authority: &str) -> Result<Uri, LookupError> {
    let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query("/").build();
    uri.ok().filter(|uri| uri.host().is_some_and(|host| !host.is_empty())).ok_or(LookupError::Invalid)
}

/// A tag or a digest, and nothing that would lead elsewhere.
fn is_reference(wanted: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'+' | b'=');
    !wanted.is_empty() && wanted.len() <= 256 && wanted.bytes().all(allowed)
}

fn sha256(body: &[u8]) -> String {
    format!("sha256:{}", hex(digest(&SHA256, body).as_ref()))
}

fn is_digest_of(wanted: &str, body: &[u8]) -> bool {
    match wanted.split_once(':') {
        Some(("sha256", hash)) => hash == hex(digest(&SHA256, body).as_ref()),
        Some(("sha512", hash)) => hash == hex(digest(&SHA512, body).as_ref()),
        _ => false,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
