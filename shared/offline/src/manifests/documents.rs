//! The documents of a file, as text, so that unchanged ones are printed byte for byte.
//!
//! A line that starts with `---` or `...` and a blank ends a document everywhere: YAML forbids it inside scalars, too
//! (YAML 1.2.2, production `c-forbidden`). Where a document is JSON, values may follow one another without
//! separators, as `jq` prints them.

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::string::FromUtf8Error;

use serde::Serialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::yaml;
use crate::yaml::SyntaxError;

/// The largest document: more than any list of objects in etcd, and a bound for mistakes such as `-f /dev/zero`.
const MAX_BYTES: u64 = 512 << 20;
/// Bytes of one read.
const READ_BYTES: usize = 64 << 10;

/// One document of a file. All texts of a file make up the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Document<'a> {
    /// From the separator before it, and comments before that, to the next document.
    text: &'a str,
    /// The value alone, if it is JSON.
    json: Option<&'a str>,
    /// Lines of the file before `json`, or else before `text`.
    line: usize,
}

/// A document of the input, as messages and patches name it.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Location<'a> {
    file: &'a str,
    /// The number of the document in the file, from 1.
    document: usize,
}

impl<'a> Location<'a> {
    /// The document of this index, from 0.
    pub(crate) fn new(file: &'a str, index: usize) -> Self {
        Self { file, document: index + 1 }
    }
}

impl fmt::Display for Location<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: document {}", self.file, self.document)
    }
}

/// The text of a document, or of several JSON values without separators, in a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct DocumentText {
    text: String,
    /// Lines of the file before it.
    line: usize,
}

impl DocumentText {
    /// The document, or the JSON values.
    pub(crate) fn documents(&self) -> Vec<Document<'_>> {
        let document = Document { text: &self.text, json: None, line: self.line };
        json_values(document).unwrap_or_else(|| vec![document])
    }
}

/// Reads the texts of a file one after the other, so that the memory is that of the largest.
pub(crate) struct TextReader<'r> {
    source: BufReader<Box<dyn Read + 'r>>,
    /// The first line of the next text, if it was read.
    ahead: Vec<u8>,
    /// Bytes and lines before the next text.
    offset: usize,
    line: usize,
}

impl<'r> TextReader<'r> {
    /// Reads from the source.
    pub(crate) fn new(source: Box<dyn Read + 'r>) -> Self {
        Self { source: BufReader::with_capacity(READ_BYTES, source), ahead: Vec::new(), offset: 0, line: 0 }
    }

    /// The next text, or the reason why it can't be read.
    pub(crate) fn next_text(&mut self) -> Result<Option<DocumentText>, String> {
        let mut bytes = std::mem::take(&mut self.ahead);
        let mut begun = !bytes.is_empty() && !is_prelude(&String::from_utf8_lossy(&bytes));
        loop {
            let start = bytes.len();
            let limit = (MAX_BYTES + 1).saturating_sub(start as u64);
            let read = self.source.by_ref().take(limit).read_until(b'\n', &mut bytes);
            if read.map_err(|error| error.to_string())? == 0 {
                break;
            }
            if bytes.len() as u64 > MAX_BYTES {
                return Err(format!("a document is larger than {} MiB", MAX_BYTES >> 20));
            }
            let line = String::from_utf8_lossy(bytes.get(start..).unwrap_or_default());
            let starts_next = begun && is_marker(&line, "---");
            let ends = begun && is_marker(&line, "...");
            begun |= !is_prelude(&line);
            if starts_next {
                self.ahead = bytes.split_off(start);
                break;
            }
            if ends {
                break;
            }
        }
        if bytes.is_empty() {
            return Ok(None);
        }
        let offset = self.offset;
        let line = self.line;
        self.offset += bytes.len();
        let text = String::from_utf8(bytes).map_err(|error| not_utf8(offset, &error))?;
        self.line += text.matches('\n').count();
        Ok(Some(DocumentText { text, line }))
    }
}

fn not_utf8(offset: usize, error: &FromUtf8Error) -> String {
    let at = offset + error.utf8_error().valid_up_to();
    let utf16 = error.as_bytes().starts_with(&[0xff, 0xfe]) || error.as_bytes().starts_with(&[0xfe, 0xff]);
    let hint = if at == 0 && utf16 { "; it looks like UTF-16, save it as UTF-8" } else { "" };
    format!("not UTF-8 at byte {at}{hint}")
}

fn is_marker(line: &str, marker: &str) -> bool {
    without_bom(line)
        .strip_prefix(marker)
        .is_some_and(|after| after.is_empty() || after.starts_with([' ', '\t', '\r', '\n']))
}

/// Whether a line can precede the `---` of a document: a comment, a directive, or an empty line.
fn is_prelude(line: &str) -> bool {
    let line = without_bom(line);
    line.starts_with('%') || is_blank(line) || is_marker(line, "...")
}

fn is_blank(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#')
}

fn without_bom(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// The JSON values of the document; `None` if it isn't JSON.
fn json_values(document: Document<'_>) -> Option<Vec<Document<'_>>> {
    let text = document.text;
    let body = without_bom(text.get(document.header().len()..)?).trim_start();
    if !body.starts_with('{') {
        return None;
    }
    let before = text.len() - body.len();
    let mut documents: Vec<Document<'_>> = Vec::new();
    let mut values = serde_json::Deserializer::from_str(body).into_iter::<IgnoredAny>();
    let mut line = document.line;
    let mut from = 0;
    while let Some(value) = values.next() {
        value.ok()?;
        let to = before + values.byte_offset();
        let json = text.get(usize::max(from, before)..to)?.trim_start();
        line += text.get(from..to - json.len())?.matches('\n').count();
        documents.push(Document { text: text.get(from..to)?, json: Some(json), line });
        line += json.matches('\n').count();
        from = to;
    }
    // Only white space remains.
    let last = documents.last_mut()?;
    last.text = text.get(from - last.text.len()..)?;
    Some(documents)
}

impl<'a> Document<'a> {
    /// Its text, with the separator and comments before it.
    pub(crate) fn text(&self) -> &'a str {
        self.text
    }

    /// The text of the value alone, if it is JSON.
    pub(crate) fn json(&self) -> Option<&'a str> {
        self.json
    }

    /// `value` between the comments around the document, with the line breaks of the document.
    pub(crate) fn with_value(&self, value: &Value) -> String {
        let mut yaml = yaml::to_string(value);
        if self.text.split_inclusive('\n').next().is_some_and(|line| line.ends_with("\r\n")) {
            yaml = yaml.replace('\n', "\r\n");
        }
        let header = self.header();
        // A document may start on the line of its separator. That line is then not part of the header.
        let inline = self.text.get(header.len()..).is_some_and(|body| body.starts_with("---"));
        [header, if inline { "---\n" } else { "" }, &yaml, self.trailer()].concat()
    }

    /// The value.
    pub(crate) fn parse(&self) -> Result<Value, SyntaxError> {
        let value = match self.json {
            Some(json) => serde_json::from_str(json).map_err(|error| {
                let reason = error.to_string();
                let reason =
                    reason.rsplit_once(" at line ").map_or(reason.as_str(), |(reason, _)| reason).to_owned();
                SyntaxError { line: error.line(), column: error.column(), reason }
            }),
            None => yaml::parse(without_bom(self.text)),
        };
        value.map_err(|error| SyntaxError { line: self.line + error.line, ..error })
    }

    /// The comments and the separator at its start.
    fn header(&self) -> &'a str {
        let mut offset = 0;
        let mut separated = false;
        for line in self.text.split_inclusive('\n') {
            let separator = !separated && is_marker(line, "---");
            let header = match without_bom(line).strip_prefix("---") {
                Some(after) if separator => is_blank(after),
                _ => is_blank(line) || !separated && is_prelude(line),
            };
            if !header {
                break;
            }
            separated |= separator;
            offset += line.len();
        }
        self.text.get(..offset).unwrap_or_default()
    }

    /// The separator before `text`, if another document precedes it.
    pub(crate) fn separator(text: &str) -> &'static str {
        let mut directive = false;
        for line in text.split_inclusive('\n') {
            directive |= line.starts_with('%');
            if !is_prelude(line) {
                return match is_marker(line, "---") {
                    true if directive => "...\n",
                    true => "",
                    false => "---\n",
                };
            }
        }
        "---\n"
    }

    /// The comments and the end marker at its end.
    fn trailer(&self) -> &'a str {
        let mut from = self.text.len();
        let mut offset = from;
        for line in self.text.split_inclusive('\n').rev() {
            offset -= line.len();
            if line.starts_with('#') || is_marker(line, "...") {
                from = offset;
            } else if !line.trim().is_empty() {
                break;
            }
        }
        self.text.get(usize::max(from, self.header().len())..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(file: &str) -> Vec<DocumentText> {
        let mut reader = TextReader::new(Box::new(file.as_bytes()));
        std::iter::from_fn(|| reader.next_text().unwrap()).collect()
    }

    fn texts(file: &str) -> Vec<String> {
        let read = read(file);
        read.iter().flat_map(DocumentText::documents).map(|document| document.text.to_owned()).collect()
    }

    #[test]
    fn separators() {
        assert!(texts("").is_empty());
        assert_eq!(texts("a: 1"), ["a: 1"]);
        assert_eq!(texts("---\na: 1\n---\nb: 2\n"), ["---\na: 1\n", "---\nb: 2\n"]);
        assert_eq!(
            texts("# c\n\n--- # d\na: 1\r\n---\r\n---\n"),
            ["# c\n\n--- # d\na: 1\r\n", "---\r\n", "---\n"]
        );
        assert_eq!(
            texts("a: 1\n...\n# c\n...\n%YAML 1.1\n---\nb: 2\n"),
            ["a: 1\n...\n", "# c\n...\n%YAML 1.1\n---\nb: 2\n"]
        );
        assert_eq!(texts("\u{feff}---\na\n\u{feff}---\nb"), ["\u{feff}---\na\n", "\u{feff}---\nb"]);
        assert_eq!(texts("--- |\n---a\n--- b\n----\n"), ["--- |\n---a\n", "--- b\n----\n"]);
        assert_eq!(texts("a: |\n  ---\n  b\n"), ["a: |\n  ---\n  b\n"]);
    }

    #[test]
    fn json_needs_no_separator() {
        let file = "# c\n{\"a\": 1}\n\n{\"b\":\n2} {}\n---\n{a: 1}\n---\n{\"a\"}\n";
        let read = read(file);
        let documents: Vec<_> = read.iter().flat_map(DocumentText::documents).collect();
        assert_eq!(texts(file).concat(), file);
        let json: Vec<_> = documents.iter().map(|document| (document.json, document.line)).collect();
        assert_eq!(
            json,
            [(Some("{\"a\": 1}"), 1), (Some("{\"b\":\n2}"), 3), (Some("{}"), 4), (None, 5), (None, 7)]
        );
        assert_eq!(documents[1].parse().unwrap(), json!({"b": 2}));
        assert_eq!(documents[3].parse().unwrap(), json!({"a": 1}));
        assert_eq!(texts("\u{feff} {}{}"), ["\u{feff} {}", "{}"]);
    }

    #[test]
    fn errors_count_the_lines_of_the_file() {
        let error = |file: &str| {
            let read = read(file);
            read.iter().flat_map(DocumentText::documents).find_map(|document| document.parse().err()).unwrap()
        };
        assert_eq!(error("a: 1\n---\n# c\n'b\n").line, 4);
        assert_eq!((error("a: 1\n---\nb: 1\nb: 2\n").line, error("b: 1\n  c: 2").column), (4, 4));
        let deep = format!("{{}}\n{{\"a\":\n\n{}{}}}", "[".repeat(200), "]".repeat(200));
        let error = error(&deep);
        assert_eq!((error.line, error.reason.as_str()), (4, "recursion limit exceeded"));
    }

    #[test]
    fn headers_and_trailers() {
        for (text, header, trailer) in [
            ("a: 1\n", "", ""),
            ("---\n# Source: x\na: 1\n\n# next\n\n", "---\n# Source: x\n", "# next\n\n"),
            ("# c\n%YAML 1.1\n--- # d\n\na: |+\n  # text\n\n...\n", "# c\n%YAML 1.1\n--- # d\n\n", "...\n"),
            ("--- {a: 1}\n", "", ""),
            ("# only\n", "# only\n", ""),
            ("\u{feff}# c\r\na: 1\r\n", "\u{feff}# c\r\n", ""),
        ] {
            let document = Document { text, json: None, line: 0 };
            assert_eq!((document.header(), document.trailer()), (header, trailer), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_byte_is_lost(file in "((---|\\.\\.\\.|#|%|a: |\\{\\}|\\{\"a\":1\\}|\u{feff})?[ a{}\"\r]?\n?){0,12}") {
            prop_assert_eq!(texts(&file).concat(), file);
        }
    }
}
