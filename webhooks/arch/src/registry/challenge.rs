//! `WWW-Authenticate` (RFC 9110 §11.6.1), as registries use it.

use std::collections::BTreeMap;

/// The authentication that a registry asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// None so far.
    None,
    /// User and password (RFC 7617).
    Basic,
    /// A token of a token server.
    Bearer {
        /// The token server's URL.
        realm: String,
        /// The service.
        service: Option<String>,
        /// The scopes, with the action `pull` only: a registry may know a repository by another name than its path.
        scopes: Vec<String>,
    },
}

/// The longest header in bytes that is read.
const MAX: usize = 4 << 10;
/// The largest number of scopes of a challenge.
const MAX_SCOPES: usize = 4;

impl Challenge {
    /// The challenge in the values of these headers. A token is preferred to a password.
    pub fn of<'h>(headers: impl IntoIterator<Item = &'h str>) -> Option<Self> {
        let mut found = None;
        for header in headers.into_iter().filter(|header| header.len() <= MAX) {
            for (scheme, mut parameters) in challenges(header) {
                if scheme == "bearer" {
                    // Only a challenge with a token server can be met.
                    let Some(realm) = parameters.remove("realm").filter(|realm| !realm.is_empty()) else {
                        continue;
                    };
                    let scopes =
                        parameters.remove("scope").map_or_else(Vec::new, |scope| pull_scopes(&scope));
                    return Some(Self::Bearer { realm, service: parameters.remove("service"), scopes });
                }
                if scheme == "basic" {
                    found = Some(Self::Basic);
                }
            }
        }
        found
    }

    /// The challenge for any repository of the registry.
    #[must_use]
    pub fn without_scopes(&self) -> Self {
        match self {
            Self::Bearer { realm, service, .. } => {
                Self::Bearer { realm: realm.clone(), service: service.clone(), scopes: Vec::new() }
            }
            other => other.clone(),
        }
    }
}

/// The scopes of repositories that may be pulled (<https://distribution.github.io/distribution/spec/auth/scope/>). Other actions are
/// left out, because a lookup needs none.
fn pull_scopes(text: &str) -> Vec<String> {
    let scope = |scope: &str| {
        let (kind, rest) = scope.split_once(':')?;
        let (name, actions) = rest.rsplit_once(':')?;
        let may_pull = actions.split(',').any(|action| action == "pull");
        (kind == "repository" && !name.is_empty() && may_pull).then(|| format!("repository:{name}:pull"))
    };
    text.split(' ').filter_map(scope).take(MAX_SCOPES).collect()
}

impl Challenge {
    /// Bytes of its text.
    pub fn text_len(&self) -> usize {
        match self {
            Self::Bearer { realm, service, scopes } => {
                let scopes: usize = scopes.iter().map(String::len).sum();
                realm.len() + service.as_ref().map_or(0, String::len) + scopes
            }
            Self::None | Self::Basic => 0,
        }
    }
}

fn challenges(header: &str) -> Vec<(String, BTreeMap<String, String>)> {
    let mut all: Vec<(String, BTreeMap<String, String>)> = Vec::new();
    let mut rest = header.trim();
    while !rest.is_empty() {
        let end = rest.find([' ', ',', '=', '\t']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let after = after.trim_start();
        if let (Some(value), Some((_, parameters))) = (after.strip_prefix('='), all.last_mut()) {
            let (value, after) = value_of(value.trim_start());
            parameters.insert(word.to_ascii_lowercase(), value);
            rest = after;
        } else if !word.is_empty() {
            all.push((word.to_ascii_lowercase(), BTreeMap::new()));
            rest = after;
        } else {
            rest = after.strip_prefix('=').unwrap_or(after);
        }
        rest = rest.trim_start_matches([',', ' ', '\t']);
    }
    all
}

fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return (value.to_owned(), rest);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, quoted.get(at + 1..).unwrap_or_default()),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_of_known_registries_parse() {
        let scoped = |realm: &str, service: Option<&str>, scopes: &[&str]| {
            let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
            Some(Challenge::Bearer { realm: realm.to_owned(), service: service.map(str::to_owned), scopes })
        };
        let bearer = |realm: &str, service: Option<&str>| scoped(realm, service, &[]);
        for (header, expected) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
                scoped("https://auth.docker.io/token", Some("registry.docker.io"), &["repository:a/b:pull"]),
            ),
            (
                r#"Bearer realm="https://t",scope="repository:r.io:5000/a:pull repository:b:push registry:catalog:* x""#,
                scoped("https://t", None, &["repository:r.io:5000/a:pull"]),
            ),
            (r#"Basic realm="Registry, \"x\"", Bearer realm=https://a/b"#, bearer("https://a/b", None)),
            (r#"BASIC realm="x""#, Some(Challenge::Basic)),
            ("Basic", Some(Challenge::Basic)),
            ("Negotiate", None),
            ("", None),
            (",,= =\"", None),
            ("Bearer service=x", None),
            ("Bearer realm=\"\"", None),
            (r#"Bearer error="invalid_token", Basic realm="x""#, Some(Challenge::Basic)),
        ] {
            assert_eq!(Challenge::of([header]), expected, "{header}");
        }
        assert_eq!(Challenge::of(["Basic realm=x", "Bearer realm=\"https://t\""]), bearer("https://t", None));
        assert_eq!(Challenge::of([&*format!("Basic realm={}", "x".repeat(5000))]), None);
    }
}
