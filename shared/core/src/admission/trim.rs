//! What is cut out of a review before it is read.

use std::borrow::Cow;
use std::sync::LazyLock;

use memchr::memchr;
use memchr::memmem::Finder;

/// In the compact form that Go writes.
const KEY: &str = r#""managedFields":["#;
static KEYS: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(KEY));
/// Above this the copy would cost more memory than it saves time.
const LARGEST: usize = 256 * 1024;

/// `body` with every array under the key `managedFields` empty: half of a pod as the API server sends it, and nobody here
/// reads it.
pub(super) fn without_managed_fields(body: &[u8]) -> Cow<'_, [u8]> {
    if body.len() > LARGEST {
        return Cow::Borrowed(body);
    }
    let Some((before, mut rest)) = cut(body) else { return Cow::Borrowed(body) };
    let mut kept = Vec::with_capacity(before.len() + rest.len());
    kept.extend_from_slice(before);
    while let Some((before, after)) = cut(rest) {
        kept.extend_from_slice(before);
        rest = after;
    }
    kept.extend_from_slice(rest);
    Cow::Owned(kept)
}

/// What comes before the items of the next `managedFields`, and what comes after them.
fn cut(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut from = 0;
    loop {
        let key = from + KEYS.find(text.get(from..)?)?;
        from = key + KEY.len();
        // Within a string the quotes would be escaped, and what follows a comma or a brace doesn't close one: so it is
        // a key.
        if text.get(key.wrapping_sub(1)).is_some_and(|before| b",{".contains(before)) {
            let (before, items) = text.split_at_checked(from)?;
            return Some((before, items.get(end(items)?..)?));
        }
    }
}

/// Where the array ends whose items `text` begins with.
fn end(text: &[u8]) -> Option<usize> {
    simple_end(text).or_else(|| any_end(text))
}

/// Where it ends if the first bracket closes it, as is usual: told by counting, which has no branches to mispredict.
fn simple_end(text: &[u8]) -> Option<usize> {
    let end = memchr(b']', text)?;
    let items = text.get(..=end)?;
    let only_quotes_are_escaped = count(items, |byte, next| byte == b'\\' && next != b'"') == 0;
    // An escaped quote counts twice here, so it changes nothing: as it should.
    let no_string_is_open = count(items, |byte, _| matches!(byte, b'"' | b'\\')) % 2 == 0;
    let closes = only_quotes_are_escaped && no_string_is_open && memchr(b'[', items).is_none();
    closes.then_some(end)
}

/// How many bytes of `text` but the last, each with the next one, are as they are looked for: added up in chunks that a
/// byte can count, sixteen at a time.
fn count(text: &[u8], is: impl Fn(u8, u8) -> bool) -> usize {
    let next = text.get(1..).unwrap_or_default();
    let chunks = text.chunks(usize::from(u8::MAX)).zip(next.chunks(usize::from(u8::MAX)));
    chunks
        .map(|(chunk, next)| {
            usize::from(chunk.iter().zip(next).map(|(byte, next)| u8::from(is(*byte, *next))).sum::<u8>())
        })
        .sum()
}

/// Where it ends, whatever it holds.
fn any_end(text: &[u8]) -> Option<usize> {
    let mut depth = 0_usize;
    let mut bytes = text.iter();
    loop {
        // A byte at a time: strings and what is between them are a few bytes long.
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

    /// The same, done to the value.
    fn emptied(value: &mut Value) {
        match value {
            Value::Object(members) => {
                for (key, value) in members {
                    match value {
                        Value::Array(items) if key == "managedFields" => items.clear(),
                        value => emptied(value),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(emptied),
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
        fn only_managed_fields_go(value in values()) {
            let text = value.to_string();
            let mut expected = value;
            emptied(&mut expected);
            let read: Value = serde_json::from_str(str::from_utf8(&without_managed_fields(text.as_bytes())).unwrap()).unwrap();
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn any_text_comes_through(text in r#"(,"managedFields":\[|[\[\]{}"\\a:,é]){0,20}"#) {
            let _ = without_managed_fields(text.as_bytes());
        }
    }

    #[test]
    fn what_has_none_is_not_copied() {
        let large = json!({"a": "x".repeat(LARGEST), "managedFields": [1]}).to_string();
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
