//! Statements of the operator about images, which replace lookups.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;

use super::{ConfigError, wrong};
use crate::name::{ImageName, Version};
use crate::pattern::glob;
use crate::platform::{Architecture, Platform, Platforms};

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
    pub(super) fn new(rules: Vec<RuleSettings>) -> Result<Self, ConfigError> {
        if rules.len() > MAX_RULES {
            return Err(wrong(&["images"], format_args!("has more than {MAX_RULES} entries")));
        }
        let mut all: Vec<ImageRule> = Vec::new();
        for (index, settings) in rules.into_iter().enumerate() {
            let index = index.to_string();
            let rule = settings.rule(&index)?;
            if all.iter().any(|earlier| earlier.pattern == rule.pattern) {
                return Err(wrong(
                    &["images", &index, "match"],
                    "has no effect, because an earlier entry has the same pattern",
                ));
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
        let tagged = reference.split_once('@').and_then(|(tagged, _)| ImageName::parse(tagged));
        let tagged =
            tagged.map(|name| name.to_string()).filter(|_| matches!(name.version, Version::Digest(_)));
        let matches = |rule: &&ImageRule| {
            let is = |text: &str| glob(rule.pattern.as_bytes(), text.as_bytes());
            if rule.with_version { is(&full) || tagged.as_deref().is_some_and(is) } else { is(&repository) }
        };
        self.0.iter().find(matches).map(|rule| &rule.statement)
    }
}

impl RuleSettings {
    fn rule(self, index: &str) -> Result<ImageRule, ConfigError> {
        let at = |key: &str, problem: String| wrong(&["images", index, key], problem);
        let pattern = checked(&self.r#match).map_err(|problem| at("match", problem))?;
        let statement = match (self.ignore, self.architectures) {
            (true, None) => Statement::Ignore,
            (false, Some(names)) if !names.is_empty() => {
                let mut platforms = BTreeSet::new();
                for name in &names {
                    let architecture: Architecture =
                        name.parse().map_err(|error| at("architectures", format!("{error}")))?;
                    platforms.insert(Platform { os: "linux".into(), architecture });
                }
                Statement::Supports(Arc::new(Platforms::Only(platforms)))
            }
            _ => {
                return Err(at("match", "needs either ignore: true or a list of architectures".to_owned()));
            }
        };
        let last = pattern.rsplit('/').next().unwrap_or_default();
        Ok(ImageRule { with_version: last.contains([':', '@']), pattern, statement })
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
        let whole = pattern.contains('*');
        let lower = !pattern.split([':', '@']).next().unwrap_or_default().contains(char::is_uppercase);
        return match (whole, lower) {
            (true, true) => Ok(pattern.to_owned()),
            (true, false) => Err(never("repositories are in lower case")),
            (false, _) => Err(never("it lacks the registry, such as docker.io/library/nginx")),
        };
    };
    let open = registry.contains('*');
    let registry = registry.to_ascii_lowercase();
    if !open && registry != "localhost" && !registry.contains(['.', ':']) {
        return Err(never("it lacks the registry, such as docker.io/library/nginx"));
    }
    if registry == "index.docker.io" {
        return Err(never("the registry is called docker.io"));
    }
    if registry == "docker.io" && !rest.contains(['/', '*']) {
        return Err(never("the repository is docker.io/library/NAME"));
    }
    let repository = rest.split('@').next().unwrap_or_default();
    let repository = repository.rsplit_once(':').map_or(repository, |(repository, _)| repository);
    if repository.is_empty() || repository.contains(char::is_uppercase) {
        return Err(never("repositories are in lower case and not empty"));
    }
    if rest.ends_with(['/', ':', '@']) || rest.starts_with('/') || rest.contains("//") {
        return Err(never("a part of it is empty"));
    }
    Ok(format!("{registry}/{rest}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rules(rules: Value) -> Result<ImageRules, ConfigError> {
        ImageRules::new(serde_json::from_value(rules).unwrap())
    }

    #[test]
    fn first_matching_rule_applies() {
        let rules = rules(json!([
            {"match": "quay.io/org/*-bundle*", "ignore": true},
            {"match": "Registry.example.com:5000/team/app:v1*", "architectures": ["arm64"]},
            {"match": "registry.example.com:5000/team/*", "architectures": ["amd64", "s390x"]},
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
            (json!({"match": "quay.io/a b", "ignore": true}), "no name has"),
            (json!({"match": "quay.io/", "ignore": true}), "not empty"),
            (json!({"match": "quay.io/a/", "ignore": true}), "is empty"),
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
        let twice = json!([{"match": "quay.io/a", "ignore": true}, {"match": "QUAY.io/a", "architectures": ["arm64"]}]);
        assert!(rules(twice).unwrap_err().to_string().contains("images.1.match: has no effect"));
    }
}
