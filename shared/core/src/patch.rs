//! RFC 6902 operations, written straight into the JSON text that goes to the API server.
//!
//! A patch that doesn't apply makes the API server reject the pod even under `failurePolicy: Ignore`. So there is no
//! `replace` (it fails where the member is absent; `add` replaces as well, RFC 6902 §4.1) and `remove` is for what a
//! view has seen. [`crate::pod::PodPatch`] builds on this and knows which parents stand.

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
        Self(String::with_capacity(PATH))
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

    /// As RFC 6901 spells it.
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
const USUAL: usize = 2048;
/// Bytes that most pointers fit in.
const PATH: usize = 96;

/// A JSON patch, kept as the text of its operations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    /// The operations, comma separated, without the brackets around them.
    operations: Vec<u8>,
}

impl Patch {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Bytes of all operations.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Sets the member at `path`, whose parent must stand.
    pub fn add<V: Serialize + ?Sized>(&mut self, path: &Pointer, value: &V) {
        self.push(r#"{"op":"add","path":"#, path, |text| {
            text.extend_from_slice(br#","value":"#);
            serde_json::to_writer(text, value)
        });
    }

    /// Sets the member at `path`, whose parent must stand, to what stands at `from`.
    pub fn copy(&mut self, from: &Pointer, path: &Pointer) {
        self.push(r#"{"op":"copy","path":"#, path, |text| {
            text.extend_from_slice(br#","from":"#);
            serde_json::to_writer(text, from.as_str())
        });
    }

    /// Sets the member at `path`, whose parent must stand, to a string: the JSON of `value`.
    pub fn add_as_text<V: Serialize>(&mut self, path: &Pointer, value: &V) {
        self.push(r#"{"op":"add","path":"#, path, |text| {
            text.extend_from_slice(br#","value":""#);
            value.serialize(&mut Serializer::with_formatter(&mut *text, Quoted))?;
            text.push(b'"');
            Ok(())
        });
    }

    /// Removes the member at `path`, which must stand.
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
            self.operations.reserve(USUAL);
        }
        self.operations.extend_from_slice(begin.as_bytes());
        let written = serde_json::to_writer(&mut self.operations, path.as_str())
            .and_then(|()| value(&mut self.operations));
        self.operations.push(b'}');
        // Only a map with keys that aren't strings can fail here, and then nothing half-written may stay.
        if written.is_err() {
            debug_assert!(false, "an operation that isn't JSON");
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

/// JSON that stands in a JSON string: its quotes and backslashes escaped as it is written.
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
    fn pointers_escape() {
        let pointer = Pointer::root().key("metadata").key("a/b~c").index(3);
        assert_eq!(pointer.as_str(), "/metadata/a~1b~0c/3");
    }

    #[test]
    fn operations_are_joined() {
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
    fn json_within_a_string() {
        for text in ["", "plain", "\"", "\\", "\n\t\u{1}", "/é\u{7f}"] {
            let value = serde_json::json!({text: [text, 1, null, {}]});
            let mut patch = Patch::default();
            patch.add_as_text(&Pointer::root().key("a"), &value);
            let patch: serde_json::Value =
                serde_json::from_str(&String::from_utf8(patch.to_json()).unwrap()).unwrap();
            assert_eq!(patch[0]["value"], value.to_string());
        }
    }
}
