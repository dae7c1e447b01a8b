//! Empties `managedFields` before a review is parsed.

use std::borrow::Cow;
use std::sync::LazyLock;

use memchr::memchr;
use memchr::memmem::Finder;

/// The key in the compact form that Go writes.
const KEY: &str = r#""managedFields":["#;
static KEYS: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(KEY));
/// Bytes of a body above which the copy would cost more memory than it saves time.
const MAX_BODY: usize = 256 * 1024;

/// Empties every array under the key `managedFields`. They are half of a pod as the API server sends it, and no decision reads them.
pub(super) fn without_managed_fields(body: &[u8]) -> Cow<'_, [u8]> {
    if body.len() > MAX_BODY {
        return Cow::Borrowed(body);
    }
    let Some((before, mut rest)) = split(body) else { return Cow::Borrowed(body) };
    let mut kept = Vec::with_capacity(before.len() + rest.len());
    kept.extend_from_slice(before);
    while let Some((before, after)) = split(rest) {
        kept.extend_from_slice(before);
        rest = after;
    }
    kept.extend_from_slice(rest);
    Cow::Owned(kept)
}

/// The text before the items of the next `managedFields`, and the text after them.
fn split(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut from = 0;
    loop {
        let key = from + KEYS.find(text.get(from..)?)?;
        from = key + KEY.len();
        // Within a string the quotes would be escaped, and a quote after a comma or a brace opens a string: so this is a key.
        if text.get(key.wrapping_sub(1)).is_some_and(|before| b",{".contains(before)) {
            let (before, items) = text.split_at_checked(from)?;
            return Some((before, items.get(end(items)?..)?));
        }
    }
}

/// The index of the bracket that closes the array; `text` begins with its items.
fn end(text: &[u8]) -> Option<usize> {
    simple_end(text).or_else(|| any_end(text))
}

/// The same if the first bracket closes the array, as is usual. It counts instead of parsing, so no branch is mispredicted.
fn simple_end(text: &[u8]) -> Option<usize> {
    let end = memchr(b']', text)?;
    let items = text.get(..=end)?;
    let only_quotes_are_escaped = count(items, |byte, next| byte == b'\\' && next != b'"') == 0;
    // An escaped quote counts twice, so it does not change the parity.
    let no_string_is_open = count(items, |byte, _| matches!(byte, b'"' | b'\\')) % 2 == 0;
    let closes = only_quotes_are_escaped && no_string_is_open && memchr(b'[', items).is_none();
    closes.then_some(end)
}

/// The number of pairs of neighbouring bytes that match. Chunks are short enough for a sum in one byte, which the compiler turns into
/// SIMD.
fn count(text: &[u8], matches: impl Fn(u8, u8) -> bool) -> usize {
    let next = text.get(1..).unwrap_or_default();
    let chunks = text.chunks(usize::from(u8::MAX)).zip(next.chunks(usize::from(u8::MAX)));
    chunks
        .map(|(chunk, next)| {
            usize::from(
                chunk.iter().zip(next).map(|(byte, next)| u8::from(matches(*byte, *next))).sum::<u8>(),
            )
        })
        .sum()
}

/// The same for any content.
fn any_end(text: &[u8]) -> Option<usize> {
    let mut depth = 0_usize;
    let mut bytes = text.iter();
    loop {
        // Byte by byte: strings and the text between them are a few bytes long.
        match bytes.find(|byte| matches!(byte, b'"' | b'[' | b']'))? {
            b'[' => depth += 1,
            b']' if depth == 0 => return text.len().checked_sub(bytes.len() + 1),
            b']' => depth -= 1,
            _ => {
                while *bytes.find(|byte| matches!(byte, b'"' | b'\\'))? == b'\\' {
                    bytes.next()?;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// The reference: the same on a parsed value.
    fn empty(value: &mut Value) {
        match value {
            Value::Object(members) => {
                for (key, value) in members {
                    match value {
                        Value::Array(items) if key == "managedFields" => items.clear(),
                        value => empty(value),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(empty),
            _ => {}
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            Just("managedFields".to_owned()),
            r#"[a\\"\[\]{},:é]{0,4}"#,
            Just(r#","managedFields":["#.to_owned()),
            Just(r#"\"managedFields\":["#.to_owned()),
            Just(r#"{"managedFields":[{"#.to_owned()),
            Just(r#"k:{"name":"app"}"#.to_owned()),
        ];
        let leaf = prop_oneof![
            text.clone().prop_map(Value::from),
            any::<i8>().prop_map(Value::from),
            Just(Value::Null)
        ];
        leaf.prop_recursive(6, 48, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec((text.clone(), inner), 0..5)
                    .prop_map(|members| members.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn only_managed_fields_are_emptied(value in values()) {
            let text = value.to_string();
            let mut expected = value;
            empty(&mut expected);
            let read: Value = serde_json::from_str(str::from_utf8(&without_managed_fields(text.as_bytes())).unwrap()).unwrap();
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn any_text_is_handled(text in r#"(,"managedFields":\[|[\[\]{}"\\a:,é]){0,20}"#) {
            let _ = without_managed_fields(text.as_bytes());
        }
    }

    #[test]
    fn body_without_managed_fields_is_not_copied() {
        let large = json!({"a": "x".repeat(MAX_BODY), "managedFields": [1]}).to_string();
        for body in
            [r#"{"managedFields":"label"}"#, r#"{"managedFields": [1]}"#, r#"{"managedFields":["#, &large]
        {
            assert!(matches!(without_managed_fields(body.as_bytes()), Cow::Borrowed(_)));
        }
        assert_eq!(
            &*without_managed_fields(br#"{"managedFields":[{"a":"]"}],"b":1}"#),
            br#"{"managedFields":[],"b":1}"#
        );
    }
}
