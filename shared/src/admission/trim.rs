//! What is cut out of a review before it is read.

use std::borrow::Cow;
use std::sync::LazyLock;

use memchr::memchr;
use memchr::memmem::Finder;

/// In the compact form that Go writes.
const KEY: &str = r#""managedFields":["#;
static KEYS: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(KEY));
static ESCAPED_QUOTES: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(r#"\""#));
/// Above this the copy would cost more memory than it saves time.
const LARGEST: usize = 256 * 1024;

/// `body` with every array under the key `managedFields` empty: half of a pod as the API server sends it, and nobody here
/// reads it.
pub(super) fn without_managed_fields(body: &str) -> Cow<'_, str> {
    if body.len() > LARGEST {
        return Cow::Borrowed(body);
    }
    let Some((before, mut rest)) = cut(body) else { return Cow::Borrowed(body) };
    let mut kept = String::with_capacity(before.len() + rest.len());
    kept.push_str(before);
    while let Some((before, after)) = cut(rest) {
        kept.push_str(before);
        rest = after;
    }
    kept.push_str(rest);
    Cow::Owned(kept)
}

/// What comes before the items of the next `managedFields`, and what comes after them.
fn cut(text: &str) -> Option<(&str, &str)> {
    // Within a string the quotes would be escaped, and what follows a comma or a brace doesn't close one: so it is a key.
    let is_key =
        |at: &usize| text.as_bytes().get(at.wrapping_sub(1)).is_some_and(|before| b",{".contains(before));
    let key = KEYS.find_iter(text.as_bytes()).find(is_key)?;
    let (before, items) = text.split_at_checked(key + KEY.len())?;
    Some((before, items.get(end(items.as_bytes())?..)?))
}

/// Where the array ends whose items `text` begins with.
fn end(text: &[u8]) -> Option<usize> {
    simple_end(text).or_else(|| any_end(text))
}

/// Where it ends if the first bracket closes it, as is usual: told by counting, which has no branches to mispredict.
fn simple_end(text: &[u8]) -> Option<usize> {
    let end = memchr(b']', text)?;
    let items = text.get(..end)?;
    let (quotes, backslashes) = (count(items, b'"'), count(items, b'\\'));
    let only_quotes_are_escaped = backslashes == 0 || ESCAPED_QUOTES.find_iter(items).count() == backslashes;
    let closes = only_quotes_are_escaped && (quotes - backslashes) % 2 == 0 && memchr(b'[', items).is_none();
    closes.then_some(end)
}

/// How often `byte` stands in `text`: added up in chunks that a byte can count, sixteen at a time.
fn count(text: &[u8], byte: u8) -> usize {
    let chunks = text.chunks(usize::from(u8::MAX));
    chunks.map(|chunk| usize::from(chunk.iter().map(|b| u8::from(*b == byte)).sum::<u8>())).sum()
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
            let read: Value = serde_json::from_str(&without_managed_fields(&text)).unwrap();
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn any_text_comes_through(text in r#"(,"managedFields":\[|[\[\]{}"\\a:,é]){0,20}"#) {
            let _ = without_managed_fields(&text);
        }
    }

    #[test]
    fn what_has_none_is_not_copied() {
        let large = json!({"a": "x".repeat(LARGEST), "managedFields": [1]}).to_string();
        for body in
            [r#"{"managedFields":"label"}"#, r#"{"managedFields": [1]}"#, r#"{"managedFields":["#, &large]
        {
            assert!(matches!(without_managed_fields(body), Cow::Borrowed(_)));
        }
        assert_eq!(
            without_managed_fields(r#"{"managedFields":[{"a":"]"}],"b":1}"#),
            r#"{"managedFields":[],"b":1}"#
        );
    }
}
