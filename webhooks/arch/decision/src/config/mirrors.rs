//! `registries.mirrors`: other places of the images of a registry, as the container runtime of the nodes knows them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::hosts::{HostPort, check_registry};
use crate::name::is_component;

/// The mirrors of all sources, the most specific source first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mirrors(Vec<(MirrorSource, MirrorSet)>);

/// A mirror, and the name of an image's repository there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirroredRepository<'m> {
    /// The mirror.
    pub mirror: &'m Mirror,
    /// The repository, as credentials and tokens name it.
    pub repository: String,
    /// The path of the repository's API, `/v2/NAME` unless the mirror overrides it.
    pub path: String,
}

/// The images that a set of mirrors has.
#[derive(Clone, Debug, PartialEq, Eq)]
struct MirrorSource {
    host: SourceHost,
    /// The beginning of the repositories, or empty.
    path: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum SourceHost {
    /// `registry.example.com`, with its port.
    Registry(String),
    /// `.example.com`, for `*.example.com`.
    Subdomains(String),
    /// `*`
    All,
}

/// The value of a key of `mirrors`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase", expecting = "mirrors and mirrorSourcePolicy")]
struct MirrorSetFields {
    mirrors: Vec<Mirror>,
    mirror_source_policy: MirrorSourcePolicy,
}

/// The mirrors of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MirrorSet(MirrorSetFields);

/// Whether the source itself is asked (`mirrorSourcePolicy` of OpenShift's `ImageDigestMirrorSet`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum MirrorSourcePolicy {
    /// After all mirrors.
    #[default]
    AllowContactingSource,
    /// Never.
    NeverContactSource,
}

/// Which names of images a mirror is asked for (`pull-from-mirror` of containers-registries.conf).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum PullFromMirror {
    /// All.
    #[default]
    All,
    /// Names with a digest.
    DigestOnly,
    /// Names with a tag.
    TagOnly,
}

/// A mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Whether the mirror uses TLS.
    pub tls: bool,
    /// `host` or `host:port`, in lower case.
    pub authority: String,
    /// The path of the URL, without slashes at its ends.
    path: String,
    override_path: bool,
    images: PullFromMirror,
    /// Whether requests have the query `ns`.
    pub ns: bool,
}

#[derive(Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "camelCase",
    expecting = "a URL, or url with overridePath, pullFromMirror and ns"
)]
struct MirrorFields {
    url: String,
    #[serde(default)]
    override_path: bool,
    #[serde(default)]
    pull_from_mirror: PullFromMirror,
    #[serde(default = "yes")]
    ns: bool,
}

fn yes() -> bool {
    true
}

impl Mirrors {
    /// The mirrors of these keys. An error has the key.
    pub(super) fn new(sets: BTreeMap<String, MirrorSet>) -> Result<Self, (String, String)> {
        let mut mirrors = Vec::new();
        let mut seen = BTreeSet::new();
        for (key, set) in sets {
            let source = MirrorSource::parse(&key).map_err(|problem| (key.clone(), problem))?;
            if !seen.insert(source.to_string()) {
                return Err((key, format!("is {source} once more")));
            }
            if set.0.mirrors.is_empty()
                && set.0.mirror_source_policy == MirrorSourcePolicy::AllowContactingSource
            {
                return Err((
                    key,
                    "has no mirror: remove it, or set mirrorSourcePolicy: NeverContactSource".to_owned(),
                ));
            }
            mirrors.push((source, set));
        }
        mirrors.sort_by_key(|(source, _)| Reverse(source.specificity()));
        Ok(Self(mirrors))
    }

    /// The mirrors that have an image, in the order in which they are asked, and whether the registry itself is asked after them.
    pub fn of(
        &self,
        registry: &str,
        repository: &str,
        by_digest: bool,
    ) -> (Vec<MirroredRepository<'_>>, MirrorSourcePolicy) {
        let found = self.0.iter().find_map(|(source, set)| Some((set, source.strip(registry, repository)?)));
        let Some((MirrorSet(set), rest)) = found else { return Default::default() };
        let mirrors = set.mirrors.iter().filter(|mirror| match mirror.images {
            PullFromMirror::All => true,
            PullFromMirror::DigestOnly => by_digest,
            PullFromMirror::TagOnly => !by_digest,
        });
        (mirrors.filter_map(|mirror| mirror.repository(rest)).collect(), set.mirror_source_policy)
    }

    /// The authorities of all mirrors.
    pub fn authorities(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|(_, set)| &set.0.mirrors).map(|mirror| &*mirror.authority)
    }

    /// A key for registries of which none is allowed. `allows` decides about a registry, `allows_below` about the subdomains of a domain.
    pub(super) fn disallowed(
        &self,
        allows: impl Fn(&str) -> bool,
        allows_below: impl Fn(&str) -> bool,
    ) -> Option<String> {
        let is_disallowed = |source: &&MirrorSource| match &source.host {
            SourceHost::Registry(host) => !allows(host),
            SourceHost::Subdomains(suffix) => !allows_below(suffix.trim_start_matches('.')),
            SourceHost::All => false,
        };
        self.0.iter().map(|(source, _)| source).find(is_disallowed).map(ToString::to_string)
    }

    /// Whether images of a registry are looked up there, and not only at its mirrors.
    pub(super) fn contact_source(&self, registry: &str) -> bool {
        for (source, MirrorSet(set)) in self.0.iter().filter(|(source, _)| source.has(registry)) {
            if set.mirror_source_policy == MirrorSourcePolicy::AllowContactingSource {
                return true;
            }
            if source.path.is_empty() {
                // The others are less specific.
                return false;
            }
        }
        true
    }

    /// The registries that have a key of their own.
    pub fn registries(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|(source, _)| match &source.host {
            SourceHost::Registry(host) => Some(&**host),
            SourceHost::Subdomains(_) | SourceHost::All => None,
        })
    }
}

impl MirrorSource {
    fn parse(key: &str) -> Result<Self, String> {
        if key == "*" {
            return Ok(Self { host: SourceHost::All, path: String::new() });
        }
        let (host, path) = key.split_once('/').map_or((key, None), |(host, path)| (host, Some(path)));
        let checked = host.strip_prefix("*.").unwrap_or(host);
        // `*.localhost` and `*.io` are patterns of hosts with a dot, whatever follows the dot.
        if checked.len() == host.len() {
            check_registry(host)
        } else {
            check_registry(&format!("a.{checked}"))
        }?;
        if let Some(component) =
            path.into_iter().flat_map(|path| path.split('/')).find(|part| !is_component(part))
        {
            return Err(format!("matches no image: {component:?} is no part of a repository"));
        }
        let host = host.to_ascii_lowercase();
        let host = match host.strip_prefix('*') {
            Some(suffix) => SourceHost::Subdomains(suffix.to_owned()),
            None => SourceHost::Registry(host),
        };
        Ok(Self { host, path: path.unwrap_or_default().to_owned() })
    }

    /// A registry comes before a pattern, then the longer one.
    fn specificity(&self) -> (bool, usize, usize) {
        let (is_registry, host) = match &self.host {
            SourceHost::Registry(host) => (true, host.len()),
            SourceHost::Subdomains(suffix) => (false, suffix.len()),
            SourceHost::All => (false, 0),
        };
        (is_registry, host, self.path.len())
    }

    /// Whether it is for images of a registry.
    fn has(&self, registry: &str) -> bool {
        match &self.host {
            SourceHost::Registry(host) => host == registry,
            SourceHost::Subdomains(suffix) => {
                registry.len() > suffix.len() && registry.ends_with(suffix.as_str())
            }
            SourceHost::All => true,
        }
    }

    /// The part of a repository's name behind the source; none if the source doesn't have the repository.
    fn strip<'r>(&self, registry: &str, repository: &'r str) -> Option<&'r str> {
        let has_host = self.has(registry);
        if !has_host || self.path.is_empty() {
            return has_host.then_some(repository);
        }
        let rest = repository.strip_prefix(self.path.as_str())?;
        if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
    }
}

impl fmt::Display for MirrorSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            SourceHost::Registry(host) => f.write_str(host)?,
            SourceHost::Subdomains(suffix) => write!(f, "*{suffix}")?,
            SourceHost::All => f.write_str("*")?,
        }
        if self.path.is_empty() { Ok(()) } else { write!(f, "/{}", self.path) }
    }
}

impl Mirror {
    fn new(fields: MirrorFields) -> Result<Self, String> {
        let MirrorFields { url, override_path, pull_from_mirror, ns } = fields;
        if url.contains('@') {
            // The URL isn't repeated: it has a password, as a rule.
            return Err(
                "a URL with a user: credentials of a mirror belong into the docker configuration".to_owned()
            );
        }
        let wrong = || format!("{url:?} is no URL: one is https://mirror.example.com");
        let rest = url.strip_prefix("https://").map(|rest| (true, rest));
        let (tls, rest) =
            rest.or_else(|| url.strip_prefix("http://").map(|rest| (false, rest))).ok_or_else(wrong)?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path = path.trim_matches('/');
        HostPort::parse(authority).ok_or_else(wrong)?;
        let allowed =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/');
        if !path.bytes().all(allowed)
            || path.split('/').any(|part| matches!(part, "." | ".."))
            || path.contains("//")
        {
            return Err(wrong());
        }
        if !override_path && path.split('/').any(|part| part == "v2") {
            return Err(format!(
                "{url:?} has the root of the API in its path: set overridePath: true, or remove v2 from the URL"
            ));
        }
        let authority = authority.to_ascii_lowercase();
        Ok(Self { tls, authority, path: path.to_owned(), override_path, images: pull_from_mirror, ns })
    }

    /// The repository here, by what follows the source in its name. None for the source itself at a mirror without a path.
    fn repository(&self, rest: &str) -> Option<MirroredRepository<'_>> {
        let join = |left: &str, right: &str| {
            let parts = [left, right].into_iter().filter(|part| !part.is_empty());
            parts.collect::<Vec<_>>().join("/")
        };
        let (root, name) = if self.override_path {
            // Registries put the repository behind `v2`, also if a part of it belongs to the root.
            let behind = self.path.strip_prefix("v2").filter(|rest| rest.is_empty() || rest.starts_with('/'));
            let behind = behind.or_else(|| self.path.split_once("/v2").map(|(_, behind)| behind));
            (self.path.as_str(), join(behind.unwrap_or_default().trim_matches('/'), rest))
        } else {
            ("v2", join(&self.path, rest))
        };
        let path = if self.override_path { join(root, rest) } else { join(root, &name) };
        (!name.is_empty()).then(|| MirroredRepository {
            mirror: self,
            repository: name,
            path: format!("/{path}"),
        })
    }
}

impl<'de> Deserialize<'de> for MirrorSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Set;

        impl<'de> Visitor<'de> for Set {
            type Value = MirrorSet;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of mirrors, or mirrors and mirrorSourcePolicy")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<MirrorSet, A::Error> {
                let mirrors = Vec::deserialize(SeqAccessDeserializer::new(items))?;
                Ok(MirrorSet(MirrorSetFields { mirrors, ..MirrorSetFields::default() }))
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<MirrorSet, A::Error> {
                MirrorSetFields::deserialize(MapAccessDeserializer::new(fields)).map(MirrorSet)
            }
        }

        deserializer.deserialize_any(Set)
    }
}

impl<'de> Deserialize<'de> for Mirror {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Place;

        impl<'de> Visitor<'de> for Place {
            type Value = Mirror;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a URL, or url with overridePath, pullFromMirror and ns")
            }

            fn visit_str<E: Error>(self, url: &str) -> Result<Mirror, E> {
                let override_path = false;
                let pull_from_mirror = PullFromMirror::All;
                let ns = true;
                let fields = MirrorFields { url: url.to_owned(), override_path, pull_from_mirror, ns };
                Mirror::new(fields).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Mirror, A::Error> {
                let fields = MirrorFields::deserialize(MapAccessDeserializer::new(fields))?;
                Mirror::new(fields).map_err(A::Error::custom)
            }
        }

        deserializer.deserialize_any(Place)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn mirrors(value: Value) -> Result<Mirrors, String> {
        let sets: BTreeMap<String, MirrorSet> =
            serde_json::from_value(value).map_err(|error| error.to_string())?;
        Mirrors::new(sets).map_err(|(key, problem)| format!("{key}: {problem}"))
    }

    /// `AUTHORITY PATH` of each mirror, and the registry itself.
    fn asked(mirrors: &Mirrors, registry: &str, repository: &str, by_digest: bool) -> Vec<String> {
        let (found, policy) = mirrors.of(registry, repository, by_digest);
        let found = found.iter().map(|found| format!("{}{}", found.mirror.authority, found.path));
        let source = (policy == MirrorSourcePolicy::AllowContactingSource).then(|| registry.to_owned());
        found.chain(source).collect()
    }

    #[test]
    fn most_specific_source_applies() {
        let mirrors = mirrors(json!({
            "*": ["https://all.example"],
            "*.redhat.io": ["https://subdomains.example/r"],
            "registry.redhat.io": ["https://host.example"],
            "registry.redhat.io/openshift4": ["https://path.example:5000/ocp"],
            "registry.redhat.io/openshift4/ose-cli": ["https://image.example/cli"],
            "Quay.IO": {"mirrorSourcePolicy": "NeverContactSource"},
        }))
        .unwrap();
        for (registry, repository, expected) in [
            ("docker.io", "library/nginx", vec!["all.example/v2/library/nginx", "docker.io"]),
            ("redhat.io", "a", vec!["all.example/v2/a", "redhat.io"]),
            ("a.redhat.io", "a", vec!["subdomains.example/v2/r/a", "a.redhat.io"]),
            ("a.b.redhat.io", "a", vec!["subdomains.example/v2/r/a", "a.b.redhat.io"]),
            ("evilredhat.io", "a", vec!["all.example/v2/a", "evilredhat.io"]),
            ("registry.redhat.io", "ubi9", vec!["host.example/v2/ubi9", "registry.redhat.io"]),
            ("registry.redhat.io", "openshift4/a", vec!["path.example:5000/v2/ocp/a", "registry.redhat.io"]),
            ("registry.redhat.io", "openshift4", vec!["path.example:5000/v2/ocp", "registry.redhat.io"]),
            (
                "registry.redhat.io",
                "openshift40/a",
                vec!["host.example/v2/openshift40/a", "registry.redhat.io"],
            ),
            ("registry.redhat.io", "openshift4/ose-cli", vec!["image.example/v2/cli", "registry.redhat.io"]),
            ("quay.io", "a", vec![]),
        ] {
            assert_eq!(asked(&mirrors, registry, repository, false), expected, "{registry}/{repository}");
        }
        let registries: BTreeSet<_> = mirrors.registries().collect();
        assert_eq!(registries, ["quay.io", "registry.redhat.io"].into());
        assert!(mirrors.authorities().any(|authority| authority == "path.example:5000"));
    }

    #[test]
    fn overridden_path_is_the_root_of_the_api() {
        let mirrors = mirrors(json!({
            "docker.io": [
                {"url": "https://harbor.example/v2/hub", "overridePath": true},
                {"url": "https://old.example/registry/v2", "overridePath": true},
                {"url": "https://odd.example/root/", "overridePath": true},
                {"url": "https://bare.example", "overridePath": true},
            ],
            "a.example/team": [{"url": "https://harbor.example/v2/a", "overridePath": true}],
        }))
        .unwrap();
        assert_eq!(
            asked(&mirrors, "docker.io", "library/nginx", false),
            [
                "harbor.example/v2/hub/library/nginx",
                "old.example/registry/v2/library/nginx",
                "odd.example/root/library/nginx",
                "bare.example/library/nginx",
                "docker.io"
            ]
        );
        let (found, _) = mirrors.of("docker.io", "library/nginx", false);
        let repositories: Vec<_> = found.iter().map(|found| &*found.repository).collect();
        assert_eq!(repositories, ["hub/library/nginx", "library/nginx", "library/nginx", "library/nginx"]);
        assert_eq!(asked(&mirrors, "a.example", "team/x", false), ["harbor.example/v2/a/x", "a.example"]);
    }

    #[test]
    fn mirrors_have_images_by_tag_or_digest() {
        let mirrors = mirrors(json!({"a.io": {
            "mirrors": [
                {"url": "https://d.example", "pullFromMirror": "digest-only"},
                {"url": "https://t.example", "pullFromMirror": "tag-only", "ns": false},
                "http://all.example",
            ],
            "mirrorSourcePolicy": "NeverContactSource",
        }}))
        .unwrap();
        assert_eq!(asked(&mirrors, "a.io", "a", false), ["t.example/v2/a", "all.example/v2/a"]);
        assert_eq!(asked(&mirrors, "a.io", "a", true), ["d.example/v2/a", "all.example/v2/a"]);
        let (found, _) = mirrors.of("a.io", "a", false);
        let options: Vec<_> = found.iter().map(|found| (found.mirror.tls, found.mirror.ns)).collect();
        assert_eq!(options, [(true, false), (false, true)]);
    }

    #[test]
    fn key_that_matches_no_image_is_an_error() {
        for (key, expected) in [
            ("harbor", "harbor/app is an image of docker.io"),
            ("index.docker.io", "the registry of Docker Hub is docker.io"),
            ("https://docker.io", "is no host"),
            ("docker.io/", "\"\" is no part of a repository"),
            ("docker.io/Library", "\"Library\" is no part of a repository"),
            ("docker.io/library/nginx:1", "\"nginx:1\" is no part"),
            ("*/library", "is no host"),
            ("*example.com", "is no host"),
            ("*.1.2.3", "is no host"),
            ("10.0.0.256", "is no host"),
            ("docker.io/a___b", "\"a___b\" is no part of a repository"),
            ("docker.io/a..b", "\"a..b\" is no part of a repository"),
            ("a.*.com", "is no host"),
            ("*.", "is no host"),
            ("_default", "is no host"),
        ] {
            let error = mirrors(json!({key: ["https://m.example"]})).unwrap_err();
            assert!(error.starts_with(&format!("{key}: ")) && error.contains(expected), "{error}");
        }
        let twice = mirrors(json!({"Docker.io": ["https://m.example"], "docker.io": ["https://m.example"]}));
        assert!(twice.unwrap_err().contains("is docker.io once more"));
        assert!(mirrors(json!({"docker.io": []})).unwrap_err().contains("has no mirror"));
        assert!(mirrors(json!({"docker.io": {}})).unwrap_err().contains("has no mirror"));
    }

    #[test]
    fn invalid_url_of_a_mirror_is_an_error() {
        for (mirror, expected) in [
            (json!("mirror.example"), "is no URL"),
            (json!("ftp://mirror.example"), "is no URL"),
            (json!("https://"), "is no URL"),
            (json!("https://m.example/a?b"), "is no URL"),
            (json!("https://m.example/a/../b"), "is no URL"),
            (json!("https://m.example/v2/hub"), "set overridePath: true"),
            (json!({"url": "https://m.example", "overridepath": true}), "unknown field `overridepath`"),
            (json!({"url": "https://m.example", "pullFromMirror": "tags"}), "unknown variant `tags`"),
            (json!({}), "missing field `url`"),
            (json!(5), "expected a URL, or url with overridePath"),
        ] {
            let error = mirrors(json!({"docker.io": [mirror]})).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let error = mirrors(json!({"docker.io": ["https://user:secret@m.example"]})).unwrap_err();
        assert!(error.contains("docker configuration") && !error.contains("secret"), "{error}");
        let error = mirrors(json!({"docker.io": {"mirrorSourcePolicy": "Never"}})).unwrap_err();
        assert!(error.contains("unknown variant `Never`"), "{error}");
    }
}
