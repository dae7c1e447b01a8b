//! The syntax of labels (k8s.io/apimachinery/pkg/util/validation).

/// Characters of an invalid text that an error message repeats.
const MAX_EXCERPT: usize = 80;
/// Bytes of the longest name and label value.
const MAX_NAME: usize = 63;
/// Bytes of the longest prefix of a label key.
const MAX_PREFIX: usize = 253;

/// Checks a label.
pub fn check(key: &str, value: &str) -> Result<(), String> {
    check_key(key)?;
    if is_value(value) {
        return Ok(());
    }
    Err(format!(
        "{:?} is not a label value, which has at most {MAX_NAME} of A-Z a-z 0-9 - _ . and begins and ends with a letter or digit",
        excerpt(value)
    ))
}

/// Checks the key of a label (`IsQualifiedName`).
pub fn check_key(key: &str) -> Result<(), String> {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    if is_name(name) && prefix.is_none_or(is_subdomain) {
        return Ok(());
    }
    Err(format!(
        "{:?} is not a label key, which is [PREFIX/]NAME: the prefix is a DNS name; the name has at most {MAX_NAME} of A-Z a-z 0-9 - _ . \
         and begins and ends with a letter or digit",
        excerpt(key)
    ))
}

/// Whether `value` is the value of a label, which may be empty (`IsValidLabelValue`).
pub fn is_value(value: &str) -> bool {
    value.is_empty() || is_name(value)
}

/// The text as error messages repeat it: truncated.
pub fn excerpt(text: &str) -> String {
    let mut excerpt: String = text.chars().take(MAX_EXCERPT).collect();
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

/// Whether `name` is an RFC 1123 subdomain.
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
    fn check_accepts_what_kubernetes_accepts() {
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
