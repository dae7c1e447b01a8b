//! Statements of the operator about images, which replace lookups.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;

use super::hosts::check_registry;
use super::{ConfigError, wrong};
use crate::name::{ImageName, Version, is_component, is_digest, is_tag};
use crate::pattern::glob;
use crate::platform::{Architecture, Platform, Platforms};
use crate::table::Table;

/// The longest pattern, in bytes.
const MAX_PATTERN: usize = 512;
/// The largest number of rules: each is compared with each image.
const MAX_RULES: usize = 256;

/// `images`: the first rule that matches an image applies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageRules(Vec<ImageRule>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct ImageRule {
    /// Compared with `REGISTRY/REPOSITORY`, or with the tag or digest as well.
    pattern: String,
    with_version: bool,
    statement: Statement,
}

/// The statement of a rule about an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// The image restricts nothing.
    Ignore,
    /// The image supports these platforms.
    Supports(Arc<Platforms>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "match, and ignore: true or architectures")]
pub(super) struct RuleSettings {
    r#match: String,
    #[serde(default)]
    ignore: bool,
    architectures: Option<Vec<String>>,
}

impl ImageRules {
    pub(super) fn new(rules: Vec<RuleSettings>, table: &Table) -> Result<Self, ConfigError> {
        if rules.len() > MAX_RULES {
            return Err(wrong(&["images"], format_args!("has more than {MAX_RULES} entries")));
        }
        let mut all: Vec<ImageRule> = Vec::new();
        for (index, settings) in rules.into_iter().enumerate() {
            let index = index.to_string();
            let rule = settings.rule(&index, table)?;
            if let Some(earlier) = all.iter().find(|earlier| earlier.covers(&rule)) {
                let problem =
                    format!("has no effect, because {:?} before it matches the same images", earlier.pattern);
                return Err(wrong(&["images", &index, "match"], problem));
            }
            all.push(rule);
        }
        Ok(Self(all))
    }

    /// The statement about an image, as a pod names it.
    pub fn statement(&self, reference: &str) -> Option<&Statement> {
        if self.0.is_empty() {
            return None;
        }
        let name = ImageName::parse(reference)?;
        let repository = format!("{}/{}", name.registry, name.repository);
        let full = name.to_string();
        // The tag beside a digest has no meaning for a runtime, but people write patterns for it.
        let tagged = reference.split_once('@').filter(|_| matches!(name.version, Version::Digest(_)));
        let tagged = tagged.map(|(tagged, _)| tagged).filter(|tagged| !split_version(tagged).1.is_empty());
        let tagged = tagged.and_then(ImageName::parse).map(|name| name.to_string());
        let matches = |rule: &&ImageRule| {
            let is = |text: &str| glob(rule.pattern.as_bytes(), text.as_bytes());
            if rule.with_version { is(&full) || tagged.as_deref().is_some_and(is) } else { is(&repository) }
        };
        self.0.iter().find(matches).map(|rule| &rule.statement)
    }
}

impl ImageRule {
    /// Whether the rule matches all images that `later` matches. Only an asterisk matches the asterisk of another pattern.
    fn covers(&self, later: &Self) -> bool {
        let (repository, _) = split_version(&later.pattern);
        let text = match (self.with_version, later.with_version) {
            // The colon of a pattern without a slash may be that of a port.
            (false, true) if !later.pattern.contains('/') => return false,
            (false, true) => repository,
            (true, false) => return false,
            (true, true) | (false, false) => &later.pattern,
        };
        self.pattern == later.pattern
            || (!self.pattern.contains('?') && glob(self.pattern.as_bytes(), text.as_bytes()))
    }
}

impl RuleSettings {
    fn rule(self, index: &str, table: &Table) -> Result<ImageRule, ConfigError> {
        let at = |key: &str, problem: String| wrong(&["images", index, key], problem);
        let pattern = checked(&self.r#match).map_err(|problem| at("match", problem))?;
        let statement = match (self.ignore, self.architectures) {
            (true, None) => Statement::Ignore,
            (false, Some(names)) if !names.is_empty() => {
                let mut platforms = BTreeSet::new();
                for name in &names {
                    let architecture: Architecture =
                        name.parse().map_err(|error| at("architectures", format!("{error}")))?;
                    if !table.knows(&architecture) {
                        return Err(at("architectures", format!("no node has the architecture {name}")));
                    }
                    platforms.insert(Platform { os: "linux".into(), architecture });
                }
                Statement::Supports(Arc::new(Platforms::Only(platforms)))
            }
            _ => {
                return Err(at("match", "needs either ignore: true or a list of architectures".to_owned()));
            }
        };
        let with_version = !split_version(&pattern).1.is_empty();
        Ok(ImageRule { pattern, with_version, statement })
    }
}

/// The pattern, with the registry in lower case.
///
/// # Errors
/// No full name of an image matches the pattern.
fn checked(pattern: &str) -> Result<String, String> {
    let never = |why: &str| {
        format!("{pattern:?} matches no image: {why}. A pattern is registry.example.com/team/* for instance")
    };
    if pattern.is_empty() || pattern.len() > MAX_PATTERN {
        return Err(never(&format!("it has between 1 and {MAX_PATTERN} characters")));
    }
    if pattern.contains("://") {
        return Err(never("a name has no scheme"));
    }
    let allowed = |byte: u8| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'.' | b'-' | b'_' | b'/' | b':' | b'@' | b'*' | b'?' | b'[' | b']' | b'+')
    };
    if !pattern.bytes().all(allowed) {
        return Err(never("it has a character that no name has"));
    }
    let Some((registry, rest)) = pattern.split_once('/') else {
        // A star may stand for the registry and a part of the repository.
        if !pattern.contains('*') {
            return Err(never("it lacks the registry, such as docker.io/library/nginx"));
        }
        check_path(pattern).map_err(|why| never(&why))?;
        return Ok(pattern.to_owned());
    };
    check_host(registry, rest).and_then(|()| check_path(rest)).map_err(|why| never(&why))?;
    Ok(format!("{}/{rest}", registry.to_ascii_lowercase()))
}

/// Whether the text has a wildcard.
fn is_open(text: &str) -> bool {
    text.contains(['*', '?'])
}

/// Checks that a name can begin with this registry; `rest` follows it.
fn check_host(registry: &str, rest: &str) -> Result<(), String> {
    if is_open(registry) {
        return Ok(());
    }
    if registry.eq_ignore_ascii_case("index.docker.io") {
        return Err("the registry is called docker.io".to_owned());
    }
    check_registry(registry).map_err(|_| {
        if registry.contains(['.', ':']) {
            format!("{registry:?} is no host of a registry")
        } else {
            "it lacks the registry, such as docker.io/library/nginx".to_owned()
        }
    })?;
    if registry.eq_ignore_ascii_case("docker.io") && !split_version(rest).0.contains(['/', '*']) {
        return Err("the repository is docker.io/library/NAME".to_owned());
    }
    Ok(())
}

/// The repository, and the sign with the tag or digest.
fn split_version(path: &str) -> (&str, &str) {
    let last = path.rfind('/').map_or(0, |slash| slash + 1);
    let end = path.get(last..).and_then(|last| last.find([':', '@'])).map_or(path.len(), |sign| last + sign);
    path.split_at(end)
}

/// Checks that a name can have this repository, and this tag or digest.
fn check_path(path: &str) -> Result<(), String> {
    let (repository, version) = split_version(path);
    for part in repository.split('/') {
        if part.contains(char::is_uppercase) {
            return Err("repositories are in lower case".to_owned());
        }
        if !is_open(part) && !is_component(part) {
            return Err(format!("{part:?} is no part of a repository"));
        }
    }
    let is_valid = match version.split_at_checked(1) {
        Some((":", tag)) => is_tag(tag) || (is_open(tag) && !tag.contains([':', '@', '[', ']', '+'])),
        Some((_, digest)) => {
            is_digest(digest) || (is_open(digest) && !digest.contains('@') && digest.split(':').count() <= 2)
        }
        None => true,
    };
    if is_valid { Ok(()) } else { Err(format!("{version:?} is no tag or digest, of which it has one")) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rules(rules: Value) -> Result<ImageRules, ConfigError> {
        ImageRules::new(serde_json::from_value(rules).unwrap(), &Table::default())
    }

    #[test]
    fn first_matching_rule_applies() {
        let rules = rules(json!([
            {"match": "quay.io/org/*-bundle*", "ignore": true},
            {"match": "Registry.example.com:5000/team/app:v1*", "architectures": ["arm64"]},
            {"match": "registry.example.com:5000/team/*", "architectures": ["amd64", "s390x"]},
            {"match": "registry.example.com:5000/latest/app:latest", "architectures": ["s390x"]},
            {"match": "docker.io/library/nginx", "architectures": ["amd64"]},
            {"match": "*/data:*", "ignore": true},
        ]))
        .unwrap();
        let digest = format!("sha256:{}", "0".repeat(64));
        for (reference, expected) in [
            ("quay.io/org/a-bundle:v1", "ignore"),
            ("quay.io/org/a-bundle-x@sha256:0", "-"),
            ("quay.io/other/a-bundle", "-"),
            ("registry.example.com:5000/team/app:v1.2", "arm64"),
            (&format!("registry.example.com:5000/team/app:v1@{digest}"), "arm64"),
            ("registry.example.com:5000/team/app:v2", "amd64, s390x"),
            (&format!("registry.example.com:5000/team/deep/app@{digest}"), "amd64, s390x"),
            ("registry.example.com:5000/latest/app", "s390x"),
            (&format!("registry.example.com:5000/latest/app@{digest}"), "-"),
            ("nginx", "amd64"),
            ("docker.io/nginx:1.29", "amd64"),
            ("nginx/other", "-"),
            ("r.io/data:1", "ignore"),
            ("NOT A NAME", "-"),
        ] {
            let stated = match rules.statement(reference) {
                Some(Statement::Ignore) => "ignore".to_owned(),
                Some(Statement::Supports(platforms)) => platforms.on("linux"),
                None => "-".to_owned(),
            };
            assert_eq!(stated, expected, "{reference}");
        }
    }

    #[test]
    fn pattern_that_never_matches_is_an_error() {
        for (rule, expected) in [
            (json!({"match": "", "ignore": true}), "images.0.match: \"\" matches no image"),
            (json!({"match": "nginx", "ignore": true}), "lacks the registry"),
            (json!({"match": "team/app", "ignore": true}), "lacks the registry"),
            (json!({"match": "https://quay.io/a", "ignore": true}), "a name has no scheme"),
            (json!({"match": "quay.io/Team/*", "ignore": true}), "in lower case"),
            (json!({"match": "docker.io/nginx", "ignore": true}), "docker.io/library/NAME"),
            (json!({"match": "index.docker.io/a/b", "ignore": true}), "is called docker.io"),
            (json!({"match": "docker.io/nginx:*", "ignore": true}), "docker.io/library/NAME"),
            (json!({"match": "quay.io/a b", "ignore": true}), "no name has"),
            (json!({"match": "quay.io/", "ignore": true}), "\"\" is no part of a repository"),
            (json!({"match": "quay.io/a/", "ignore": true}), "\"\" is no part of a repository"),
            (json!({"match": "quay.io//a*", "ignore": true}), "\"\" is no part of a repository"),
            (json!({"match": "quay.io/-a/*", "ignore": true}), "\"-a\" is no part"),
            (json!({"match": "quay.io/a:v1/b*", "ignore": true}), "\"a:v1\" is no part"),
            (json!({"match": "quay.io:abc/a", "ignore": true}), "\"quay.io:abc\" is no host"),
            (json!({"match": "quay.io/a:", "ignore": true}), "\":\" is no tag or digest"),
            (json!({"match": "quay.io/a:b:c", "ignore": true}), "\":b:c\" is no tag or digest"),
            (json!({"match": "quay.io/a:v1@sha256:*", "ignore": true}), "is no tag or digest"),
            (json!({"match": "*:latest@sha256*", "ignore": true}), "is no tag or digest"),
            (json!({"match": "quay.io/a@sha256:0", "ignore": true}), "is no tag or digest"),
            (json!({"match": "quay.io/a@*:a:b", "ignore": true}), "is no tag or digest"),
            (json!({"match": "quay.io/a:[a-z]*", "ignore": true}), "is no tag or digest"),
            (
                json!({"match": "quay.io/a", "architectures": ["wasm"]}),
                "images.0.architectures: no node has the architecture wasm",
            ),
            (json!({"match": "quay.io/a"}), "images.0.match: needs either"),
            (json!({"match": "quay.io/a", "ignore": true, "architectures": ["arm64"]}), "needs either"),
            (json!({"match": "quay.io/a", "architectures": []}), "needs either"),
            (
                json!({"match": "quay.io/a", "architectures": ["ARM"]}),
                "images.0.architectures: \"ARM\" is no",
            ),
        ] {
            let error = rules(json!([rule])).unwrap_err().to_string();
            assert!(error.contains(expected), "{rule}: {error}");
        }
    }

    #[test]
    fn rule_behind_one_for_the_same_images_is_an_error() {
        for (first, second, expected) in [
            ("quay.io/a", "QUAY.io/a", false),
            ("*", "quay.io/a:v1", false),
            ("quay.io/*", "quay.io/team/*-data", false),
            ("quay.io/*", "quay.io/a:v1*", false),
            ("quay.io/a:v*", "quay.io/a:v1", false),
            ("quay.io/a:v*", "quay.io/a", true),
            ("quay.io/*-data", "quay.io/*", true),
            ("quay.io/a:*", "quay.io/a@*", true),
            ("quay.io/?", "quay.io/*", true),
            ("*.io", "*.io:5000*", true),
        ] {
            let both =
                json!([{"match": first, "ignore": true}, {"match": second, "architectures": ["arm64"]}]);
            let rules = rules(both);
            assert_eq!(rules.is_ok(), expected, "{first} {second}: {rules:?}");
            if let Err(error) = rules {
                assert!(error.to_string().contains("images.1.match: has no effect"), "{error}");
            }
        }
    }
}
