//! What is cut out of a review before it is read.

use std::borrow::Cow;

use memchr::memmem;

/// In the compact form that Go writes. Within a JSON string the quotes would be escaped, and after a comma or a brace none
/// closes one: so in a valid document this is a key.
const KEYS: [&str; 2] = [r#","managedFields":["#, r#"{"managedFields":["#];
/// Above this the copy would cost more memory than it saves time.
const LARGEST: usize = 256 * 1024;

/// `body` with every array under the key `managedFields` empty: half of a pod as the API server sends it, and nobody here
/// reads it.
pub(super) fn without_managed_fields(body: &str) -> Cow<'_, str> {
    if body.len() > LARGEST {
        return Cow::Borrowed(body);
    }
    let mut kept = String::new();
    let mut rest = body;
    while let Some((before, after)) = cut(rest) {
        kept.push_str(before);
        rest = after;
    }
    if kept.is_empty() { Cow::Borrowed(body) } else { Cow::Owned(kept + rest) }
}

/// What comes before the items of the next `managedFields`, and what comes after them.
fn cut(text: &str) -> Option<(&str, &str)> {
    let items = KEYS
        .iter()
        .filter_map(|key| Some(memmem::find(text.as_bytes(), key.as_bytes())? + key.len()))
        .min()?;
    let (before, items) = text.split_at_checked(items)?;
    Some((before, items.get(end(items.as_bytes())?..)?))
}

/// Where the array ends whose items `text` begins with.
fn end(text: &[u8]) -> Option<usize> {
    let mut depth = 0_usize;
    let mut bytes = text.iter().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' if depth == 0 => return Some(at),
            b']' | b'}' => depth = depth.checked_sub(1)?,
            b'"' => loop {
                match bytes.next()?.1 {
                    b'"' => break,
                    b'\\' => drop(bytes.next()?),
                    _ => {}
                }
            },
            _ => {}
        }
    }
    None
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
