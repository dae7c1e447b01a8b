//! Names of images, as the kubelet understands them: `ParseNormalizedNamed` of github.com/distribution/reference, against
//! which a test holds this. Here the registry is in lower case.

use std::fmt;

/// Bytes of the longest valid name, with its registry, a tag and a digest.
const MAX_NAME: usize = 255 + 255 + 128 + 140;
/// Bytes of the longest repository (`RepositoryNameTotalLengthMax`).
const MAX_REPOSITORY: usize = 255;
/// Bytes of the longest tag.
const MAX_TAG: usize = 128;
/// The registry of names that name none.
const DOCKER: &str = "docker.io";

/// The full name of an image: `docker.io/library/nginx:latest` where a pod says `nginx`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageName {
    /// The registry's host in lower case, with its port if it has one: however it is written, it is one registry.
    pub registry: Box<str>,
    /// The repository there.
    pub repository: Box<str>,
    /// Which of its images.
    pub version: Version,
}

/// Which image of a repository is meant. A tag beside a digest means nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Version {
    /// The image that the tag currently refers to.
    Tag(Box<str>),
    /// This one for ever.
    Digest(Box<str>),
}

impl ImageName {
    /// Reads a name; none if it isn't one.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_NAME || is_identifier(text) {
            return None;
        }
        let (registry, rest) = registry_of(text);
        let (name, digest) = split(rest, '@');
        let (path, tag) = split(name, ':');
        let official = registry == DOCKER && !rest.contains('/');
        let repository = if official { format!("library/{path}") } else { path.to_owned() };
        let valid = is_host(registry)
            && repository.len() <= MAX_REPOSITORY
            && repository.split('/').all(is_component)
            && tag.is_none_or(is_tag)
            && digest.is_none_or(is_digest);
        let version = digest.map_or_else(
            || Version::Tag(tag.unwrap_or("latest").into()),
            |digest| Version::Digest(digest.into()),
        );
        valid.then(|| Self {
            registry: registry.to_ascii_lowercase().into(),
            repository: repository.into(),
            version,
        })
    }

    /// The same repository's image of this digest.
    #[must_use]
    pub fn with_digest(&self, digest: &str) -> Self {
        Self { version: Version::Digest(digest.into()), ..self.clone() }
    }
}

impl Version {
    /// The tag or the digest, as registries are asked for it.
    pub fn as_str(&self) -> &str {
        let (Self::Tag(text) | Self::Digest(text)) = self;
        text
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { registry, repository, version } = self;
        let sign = if matches!(version, Version::Tag(_)) { ':' } else { '@' };
        for part in [registry, "/", repository] {
            f.write_str(part)?;
        }
        write!(f, "{sign}{}", version.as_str())
    }
}

/// The registry that a name begins with, or the usual one, and what follows (`splitDockerDomain`).
fn registry_of(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some(("index.docker.io", rest)) => (DOCKER, rest),
        Some((first, rest)) if first == "localhost" || first.contains(['.', ':']) || has_upper(first) => {
            (first, rest)
        }
        _ => (DOCKER, name),
    }
}

fn split(text: &str, sign: char) -> (&str, Option<&str>) {
    text.split_once(sign).map_or((text, None), |(before, after)| (before, Some(after)))
}

fn has_upper(text: &str) -> bool {
    text.chars().any(char::is_uppercase)
}

/// Whether it has the form of a container ID, which is not a valid name.
fn is_identifier(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(is_lower_hex)
}

/// A host name or an IPv6 address in brackets, and a port.
fn is_host(host: &str) -> bool {
    let (named, port) = if let Some(rest) = host.strip_prefix('[') {
        let Some((address, rest)) = rest.split_once(']') else { return false };
        let port = (!rest.is_empty()).then(|| rest.strip_prefix(':').unwrap_or_default());
        (some(address, |byte| byte.is_ascii_hexdigit() || byte == b':'), port)
    } else {
        let (name, port) = split(host, ':');
        (name.split('.').all(is_label), port)
    };
    named && port.is_none_or(|port| some(port, |byte| byte.is_ascii_digit()))
}

/// Letters, digits and hyphens, which are neither first nor last.
fn is_label(label: &str) -> bool {
    some(label, |byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Lower-case words, joined by a point, one or two underscores, or hyphens.
pub(crate) fn is_component(component: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = [component.bytes().next(), component.bytes().next_back()];
    ends.into_iter().all(|end| end.is_some_and(word))
        && component
            .split(|sign: char| sign.is_ascii_lowercase() || sign.is_ascii_digit())
            .all(|joint| matches!(joint, "" | "." | "_" | "__") || joint.bytes().all(|byte| byte == b'-'))
}

pub(crate) fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

/// Of the algorithms that there are (`Validate` of github.com/opencontainers/go-digest).
pub(crate) fn is_digest(digest: &str) -> bool {
    let length = match digest.split_once(':') {
        Some(("sha256", hex)) => (hex, 64),
        Some(("sha384", hex)) => (hex, 96),
        Some(("sha512", hex)) => (hex, 128),
        _ => return false,
    };
    length.0.len() == length.1 && length.0.bytes().all(is_lower_hex)
}

fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

fn some(text: &str, allowed: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_full() {
        let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
        for (name, full) in [
            ("nginx", "docker.io/library/nginx:latest".to_owned()),
            ("docker.io/nginx", "docker.io/library/nginx:latest".to_owned()),
            ("index.docker.io/a/b:1", "docker.io/a/b:1".to_owned()),
            ("a/b", "docker.io/a/b:latest".to_owned()),
            ("localhost:5000", "docker.io/library/localhost:5000".to_owned()),
            ("localhost/a", "localhost/a:latest".to_owned()),
            ("Registry/a", "registry/a:latest".to_owned()),
            ("QUAY.io:80/a:V", "quay.io:80/a:V".to_owned()),
            ("[::1]:5000/a", "[::1]:5000/a:latest".to_owned()),
            ("r.io:5000/a/b__c/d--e:X_1.2", "r.io:5000/a/b__c/d--e:X_1.2".to_owned()),
            (&format!("r.io/a:1@{digest}"), format!("r.io/a@{digest}")),
        ] {
            assert_eq!(ImageName::parse(name).unwrap().to_string(), full);
        }
    }

    #[test]
    fn invalid_names_are_errors() {
        let identifier = "a1".repeat(32);
        let long = "a".repeat(256);
        for name in [
            "",
            "/",
            "a/",
            "/a",
            "A",
            "a/B",
            "a b",
            "a:",
            "a:-",
            "a@",
            "a@sha256:0",
            "a@md5:0",
            "a:1:2",
            "a___b",
            "a..b",
            "-a",
            "a-",
            "_.",
            "r.io/",
            "r.io:/a",
            "r.io:x/a",
            "-r.io/a",
            "r..io/a",
            "r_.io/a",
            "[::1/a",
            "[]/a",
            "[::1]x/a",
            "[::1]:/a",
            "é",
            "É/a",
            &identifier,
            &long,
            &format!("a:{}", "1".repeat(129)),
        ] {
            assert_eq!(ImageName::parse(name), None, "{name}");
        }
    }
}
