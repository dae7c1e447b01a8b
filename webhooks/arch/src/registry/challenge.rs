//! `WWW-Authenticate` (RFC 9110 §11.6.1), as registries use it.

use std::collections::BTreeMap;

/// How a registry wants to be shown who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// Not at all, so far.
    None,
    /// User and password.
    Basic,
    /// A token of this server.
    Bearer {
        /// The token server's URL.
        realm: String,
        /// The service.
        service: Option<String>,
    },
}

/// More of a header than any registry needs.
const MAX: usize = 4 << 10;

impl Challenge {
    /// The challenge in these headers; a token counts more than a password.
    pub(crate) fn of<'h>(headers: impl IntoIterator<Item = &'h str>) -> Option<Self> {
        let mut found = None;
        for header in headers.into_iter().filter(|header| header.len() <= MAX) {
            for (scheme, mut parameters) in challenges(header) {
                if scheme == "bearer" {
                    let realm = parameters.remove("realm")?;
                    return Some(Self::Bearer { realm, service: parameters.remove("service") });
                }
                if scheme == "basic" {
                    found = Some(Self::Basic);
                }
            }
        }
        found
    }
}

impl Challenge {
    /// Bytes of its text.
    pub(crate) fn text_len(&self) -> usize {
        match self {
            Self::Bearer { realm, service } => realm.len() + service.as_ref().map_or(0, String::len),
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
    fn what_registries_send() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Challenge::Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) })
        };
        for (header, expected) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
                bearer("https://auth.docker.io/token", Some("registry.docker.io")),
            ),
            (r#"Basic realm="Registry, \"x\"", Bearer realm=https://a/b"#, bearer("https://a/b", None)),
            (r#"BASIC realm="x""#, Some(Challenge::Basic)),
            ("Basic", Some(Challenge::Basic)),
            ("Negotiate", None),
            ("", None),
            (",,= =\"", None),
            ("Bearer service=x", None),
        ] {
            assert_eq!(Challenge::of([header]), expected, "{header}");
        }
        assert_eq!(Challenge::of(["Basic realm=x", "Bearer realm=\"https://t\""]), bearer("https://t", None));
        assert_eq!(Challenge::of([&*format!("Basic realm={}", "x".repeat(5000))]), None);
    }
}
