//! What may be a label: the rules of k8s.io/apimachinery/pkg/util/validation.

/// Of what is wrong so many characters are repeated.
const EXCERPT: usize = 80;
/// The longest name and label value, in bytes.
const MAX_NAME: usize = 63;
/// The longest prefix of a label key, in bytes.
const MAX_PREFIX: usize = 253;

/// Why a label can't be one, if it can't.
pub fn check(key: &str, value: &str) -> Result<(), String> {
    check_key(key)?;
    if is_value(value) {
        return Ok(());
    }
    Err(format!(
        "{:?} is no label value: at most {MAX_NAME} of A-Z a-z 0-9 - _ . between letters or digits",
        excerpt(value)
    ))
}

/// Why a label key can't be one (`IsQualifiedName`).
pub fn check_key(key: &str) -> Result<(), String> {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    if is_name(name) && prefix.is_none_or(is_subdomain) {
        return Ok(());
    }
    Err(format!(
        "{:?} is no label key: [PREFIX/]NAME with at most {MAX_NAME} of A-Z a-z 0-9 - _ . between letters or digits, and a \
         DNS name as prefix",
        excerpt(key)
    ))
}

/// Whether it may be a label's value, which may be empty (`IsValidLabelValue`).
pub fn is_value(value: &str) -> bool {
    value.is_empty() || is_name(value)
}

/// As much of what is wrong as is repeated.
pub fn excerpt(text: &str) -> String {
    let mut excerpt: String = text.chars().take(EXCERPT).collect();
    if excerpt.len() < text.len() {
        excerpt.push('…');
    }
    excerpt
}

fn is_name(name: &str) -> bool {
    let ends = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let mut bytes = name.bytes();
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    name.len() <= MAX_NAME && ends(name.bytes().next()) && ends(name.bytes().next_back()) && bytes.all(inner)
}

/// RFC 1123, in lower case.
fn is_subdomain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let part = |part: &str| {
        part.bytes().all(|byte| plain(byte) || byte == b'-')
            && part.bytes().next().is_some_and(plain)
            && part.bytes().next_back().is_some_and(plain)
    };
    name.len() <= MAX_PREFIX && name.split('.').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels() {
        for (key, value, good) in [
            ("type", "spot", true),
            ("node.kubernetes.io/instance-type", "m5.large", true),
            ("node-role.kubernetes.io/x", "", true),
            ("a", &*"v".repeat(63), true),
            ("a", &*"v".repeat(64), false),
            (&*"k".repeat(64), "", false),
            ("", "x", false),
            ("/a", "x", false),
            ("a/", "x", false),
            ("a/b/c", "x", false),
            ("Upper/a", "x", false),
            ("a..b/c", "x", false),
            ("-a", "x", false),
            ("a_", "x", false),
            ("a", "-x", false),
            ("a", "x y", false),
            ("a", "é", false),
        ] {
            assert_eq!(check(key, value).is_ok(), good, "{key}={value}");
        }
    }
}
