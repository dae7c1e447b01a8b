//! RFC 6902 operations, written straight into the JSON text that goes to the API server.
//!
//! A patch that doesn't apply makes the API server reject the pod even under `failurePolicy: Ignore`. So there is no
//! `replace`: it fails if the member is absent, and `add` replaces too (RFC 6902 §4.1). [`crate::pod::PodPatch`] builds on this; it
//! knows which parents exist, and removes only what exists.

use std::fmt;
use std::io::{self, Write};

use memchr::memchr2;
use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter};

/// A JSON pointer (RFC 6901).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pointer(String);

impl Pointer {
    /// The whole document.
    pub fn root() -> Self {
        Self(String::with_capacity(POINTER_CAPACITY))
    }

    /// The member `key` of the object pointed at; `~` and `/` in it are escaped.
    #[must_use]
    pub fn key(mut self, key: &str) -> Self {
        self.0.push('/');
        let mut rest = key;
        while let Some((plain, after)) =
            memchr2(b'~', b'/', rest.as_bytes()).and_then(|at| rest.split_at_checked(at))
        {
            self.0.push_str(plain);
            self.0.push_str(if after.starts_with('~') { "~0" } else { "~1" });
            rest = after.get(1..).unwrap_or_default();
        }
        self.0.push_str(rest);
        self
    }

    /// The item `index` of the array pointed at.
    #[must_use]
    pub fn index(mut self, index: usize) -> Self {
        self.0.push('/');
        self.0.push_str(&index.to_string());
        self
    }

    /// The text of RFC 6901.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Bytes that most patches fit in.
const PATCH_CAPACITY: usize = 2048;
/// Bytes that most pointers fit in.
const POINTER_CAPACITY: usize = 96;

/// A JSON patch, as the text of its operations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    /// The operations, comma separated, without the brackets around them.
    operations: Vec<u8>,
    /// Bytes that operations copy within the document.
    copied: usize,
}

impl Patch {
    /// Whether there are no operations.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Bytes of all operations.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// The most bytes by which the patch makes a document longer, as JSON.
    pub fn growth(&self) -> usize {
        // An operation is longer than the value that it adds.
        self.operations.len().saturating_add(self.copied)
    }

    /// Sets the member at `path`. Its parent must exist.
    pub fn add<V: Serialize + ?Sized>(&mut self, path: &Pointer, value: &V) {
        self.push(r#"{"op":"add","path":"#, path, |text| {
            text.extend_from_slice(br#","value":"#);
            serde_json::to_writer(text, value)
        });
    }

    /// Sets the member at `path` to the value at `from`, which has `bytes` as JSON. The parent of `path`, and `from`, must exist.
    pub fn copy(&mut self, from: &Pointer, path: &Pointer, bytes: usize) {
        self.copied = self.copied.saturating_add(bytes);
        self.push(r#"{"op":"copy","path":"#, path, |text| {
            text.extend_from_slice(br#","from":"#);
            serde_json::to_writer(text, from.as_str())
        });
    }

    /// Sets the member at `path` to a string that is the JSON of `value`. The parent of `path` must exist.
    pub fn add_json_text<V: Serialize>(&mut self, path: &Pointer, value: &V) {
        self.push(r#"{"op":"add","path":"#, path, |text| {
            text.extend_from_slice(br#","value":""#);
            value.serialize(&mut Serializer::with_formatter(&mut *text, Quoted))?;
            text.push(b'"');
            Ok(())
        });
    }

    /// Removes the member at `path`, which must exist.
    pub fn remove(&mut self, path: &Pointer) {
        self.push(r#"{"op":"remove","path":"#, path, |_| Ok(()));
    }

    fn push(
        &mut self,
        begin: &str,
        path: &Pointer,
        value: impl FnOnce(&mut Vec<u8>) -> serde_json::Result<()>,
    ) {
        let before = self.operations.len();
        if before > 0 {
            self.operations.push(b',');
        } else {
            self.operations.reserve(PATCH_CAPACITY);
        }
        self.operations.extend_from_slice(begin.as_bytes());
        let written = serde_json::to_writer(&mut self.operations, path.as_str())
            .and_then(|()| value(&mut self.operations));
        self.operations.push(b'}');
        // Only a map with other keys than strings fails. Half an operation must not remain.
        if written.is_err() {
            debug_assert!(false, "a value does not serialize as JSON");
            self.operations.truncate(before);
        }
    }

    /// The patch as a JSON array.
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = Vec::with_capacity(self.operations.len() + 2);
        json.push(b'[');
        json.extend_from_slice(&self.operations);
        json.push(b']');
        json
    }
}

/// Writes JSON inside a JSON string, with its quotes and backslashes escaped.
struct Quoted;

impl Formatter for Quoted {
    fn begin_string<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(br#"\""#)
    }

    fn end_string<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(br#"\""#)
    }

    #[cold]
    fn write_char_escape<W: ?Sized + Write>(&mut self, writer: &mut W, escape: CharEscape) -> io::Result<()> {
        let mut escaped = Vec::new();
        CompactFormatter.write_char_escape(&mut escaped, escape)?;
        for byte in escaped {
            if matches!(byte, b'"' | b'\\') {
                writer.write_all(b"\\")?;
            }
            writer.write_all(&[byte])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointer_escapes_keys() {
        let pointer = Pointer::root().key("metadata").key("a/b~c").index(3);
        assert_eq!(pointer.as_str(), "/metadata/a~1b~0c/3");
    }

    #[test]
    fn operations_become_an_array() {
        let mut patch = Patch::default();
        assert_eq!(patch.to_json(), b"[]");
        patch.add(&Pointer::root().key("a"), &1);
        patch.remove(&Pointer::root().key("b"));
        assert_eq!(
            String::from_utf8(patch.to_json()).unwrap(),
            r#"[{"op":"add","path":"/a","value":1},{"op":"remove","path":"/b"}]"#
        );
    }

    #[test]
    fn json_text_is_escaped_once() {
        for text in ["", "plain", "\"", "\\", "\n\t\u{1}", "/é\u{7f}"] {
            let value = serde_json::json!({text: [text, 1, null, {}]});
            let mut patch = Patch::default();
            patch.add_json_text(&Pointer::root().key("a"), &value);
            let patch: serde_json::Value =
                serde_json::from_str(&String::from_utf8(patch.to_json()).unwrap()).unwrap();
            assert_eq!(patch[0]["value"], value.to_string());
        }
    }
}
