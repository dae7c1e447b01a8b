//! From text to a value.

use std::collections::{HashMap, HashSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use granit_parser::{Event, Marker, Options, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};
use serde_json::{Map, Number, Value};

use super::scalar::resolve;

/// As deep as `serde_json` reads JSON.
const MAX_DEPTH: usize = 128;
/// The most that aliases may copy in one document, in bytes of strings and [`NODE`] for each node.
const MAX_COPIES: usize = 64 << 20;
const NODE: usize = 64;

/// A syntax error and its position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {reason}")]
pub struct SyntaxError {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The cause.
    pub reason: String,
}

impl SyntaxError {
    fn new(at: Marker, reason: impl Into<String>) -> Self {
        Self { line: at.line(), column: at.col() + 1, reason: reason.into() }
    }
}

impl From<ScanError> for SyntaxError {
    fn from(error: ScanError) -> Self {
        Self::new(*error.marker(), error.info())
    }
}

/// Reads one document. A document of comments alone is null.
///
/// A duplicate key is an error. Numbers and booleans as keys become strings. Values that JSON cannot represent (infinities,
/// maps as keys) are errors. Memory and stack are bounded by a multiple of the text, for any aliases.
pub fn parse(text: &str) -> Result<Value, SyntaxError> {
    Reader::new(text, &[]).document()
}

/// The line (from 1) of the value that `path` leads to, or of the last value on the way that exists. Items of lists are named
/// by their index. None if the first key doesn't exist.
pub fn line_of(text: &str, path: &[String]) -> Option<usize> {
    let mut reader = Reader::new(text, path);
    // After a syntax error, the lines before it are known.
    let _ = reader.document();
    reader.line
}

struct Reader<'a> {
    text: &'a str,
    parser: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Value>,
    copies_left: usize,
    /// The keys and indices on the way to the value that [`line_of`] looks for.
    path: &'a [String],
    /// How many of them lead to the value that is being read.
    matched: usize,
    /// The line of the value at the longest part of `path` so far.
    line: Option<usize>,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str, path: &'a [String]) -> Self {
        let mut options = Options::default();
        options.set_emit_comments(false);
        let parser = Parser::new_from_str_with_options(text, options);
        Self { text, parser, anchors: HashMap::new(), copies_left: MAX_COPIES, path, matched: 0, line: None }
    }

    fn document(&mut self) -> Result<Value, SyntaxError> {
        let mut document = None;
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(document.unwrap_or_default()),
                (Event::DocumentStart(..), at) if document.is_some() => {
                    return Err(SyntaxError::new(
                        at.start,
                        "a second document starts here without `---` before it",
                    ));
                }
                (Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd, _) => {}
                event => document = Some(self.node(event, 0)?),
            }
        }
    }

    /// Reads the value of `key` in a map or list at `depth`, which begins with `event`.
    fn child(
        &mut self,
        key: &str,
        line: usize,
        event: (Event<'a>, Span),
        depth: usize,
    ) -> Result<Value, SyntaxError> {
        let on_path = self.matched == depth && self.path.get(depth).is_some_and(|step| step == key);
        if on_path {
            self.matched += 1;
            self.line = Some(line);
        }
        let value = self.node(event, depth + 1)?;
        if on_path {
            // Nothing after it is on the path.
            self.matched = usize::MAX;
        }
        Ok(value)
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), SyntaxError> {
        match self.parser.next_event() {
            Some(event) => Ok(event?),
            None => Ok((Event::StreamEnd, Span::empty(Marker::new(0, 1, 0)))),
        }
    }

    fn node(&mut self, (event, at): (Event<'a>, Span), depth: usize) -> Result<Value, SyntaxError> {
        if depth > MAX_DEPTH {
            return Err(SyntaxError::new(at.start, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let text = if self.is_cut_off(style, at) { text.trim_end_matches('\n') } else { &text };
                let value = scalar(text, style, tag.as_deref())
                    .map_err(|reason| SyntaxError::new(at.start, reason))?;
                (anchor, value)
            }
            Event::SequenceStart(_, anchor, _) => (anchor, self.sequence(depth)?),
            Event::MappingStart(_, anchor, _) => (anchor, self.mapping(depth)?),
            Event::Alias(anchor) => return self.alias(anchor, at.start, depth),
            _ => return Err(SyntaxError::new(at.start, "expected a value")),
        };
        if anchor != 0 {
            let copy = self.copy(&value, at.start, 0)?;
            self.anchors.insert(anchor, copy);
        }
        Ok(value)
    }

    /// Whether a block ends with the text, in the middle of a line: the parser adds a line break then, but there is none
    /// (YAML 1.2.2, production `b-chomped-last`).
    fn is_cut_off(&self, style: ScalarStyle, at: Span) -> bool {
        matches!(style, ScalarStyle::Literal | ScalarStyle::Folded)
            && at.end.byte_offset() == Some(self.text.len())
            && self.text.rsplit(['\n', '\r']).next().is_some_and(|line| !line.trim().is_empty())
    }

    fn sequence(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::Array(items)),
                event => {
                    let line = event.1.start.line();
                    items.push(self.child(&items.len().to_string(), line, event, depth)?);
                }
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        let mut entries = Map::new();
        let mut merged = HashSet::new();
        loop {
            let event = self.next()?;
            let at = event.1.start;
            if matches!(event.0, Event::MappingEnd) {
                return Ok(Value::Object(entries));
            }
            if is_merge(&event.0) {
                let event = self.next()?;
                let value = self.node(event, depth + 1)?;
                let maps =
                    maps(value).ok_or_else(|| SyntaxError::new(at, "`<<` takes a map or a list of maps"))?;
                // The first of several maps wins, and a key below `<<` wins over all of them. As in go-yaml v2, a key above it does not.
                for (key, value) in maps.into_iter().rev().flatten() {
                    merged.insert(key.clone());
                    entries.insert(key, value);
                }
                continue;
            }
            let key = key(self.node(event, depth + 1)?).map_err(|reason| SyntaxError::new(at, reason))?;
            let event = self.next()?;
            let value = self.child(&key, at.line(), event, depth)?;
            if entries.contains_key(&key) && !merged.remove(&key) {
                return Err(SyntaxError::new(at, format!("key {key:?} already set in map")));
            }
            entries.insert(key, value);
        }
    }

    fn alias(&mut self, anchor: usize, at: Marker, depth: usize) -> Result<Value, SyntaxError> {
        // A node is inserted after it was read, so an alias inside it finds nothing.
        let Some(value) = self.anchors.remove(&anchor) else {
            return Err(SyntaxError::new(at, "an alias inside its own anchor"));
        };
        let copy = self.copy(&value, at, depth)?;
        self.anchors.insert(anchor, value);
        Ok(copy)
    }

    fn copy(&mut self, value: &Value, at: Marker, depth: usize) -> Result<Value, SyntaxError> {
        let (size, height) = measure(value);
        if depth + height > MAX_DEPTH {
            return Err(SyntaxError::new(at, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let Some(left) = self.copies_left.checked_sub(size) else {
            return Err(SyntaxError::new(
                at,
                format!("aliases expand to more than {} MiB", MAX_COPIES >> 20),
            ));
        };
        self.copies_left = left;
        Ok(value.clone())
    }
}

/// The approximate size in bytes, and the number of levels below.
fn measure(value: &Value) -> (usize, usize) {
    let below = |(size, height), child| {
        let (more, deeper) = measure(child);
        (size + more, usize::max(height, deeper + 1))
    };
    match value {
        Value::String(text) => (NODE + text.len(), 0),
        Value::Array(items) => items.iter().fold((NODE, 0), below),
        Value::Object(entries) => {
            let keys: usize = entries.keys().map(|key| NODE + key.len()).sum();
            entries.values().fold((NODE + keys, 0), below)
        }
        _ => (NODE, 0),
    }
}

fn is_merge(key: &Event<'_>) -> bool {
    match key {
        Event::Scalar(text, style, _, tag) if text == "<<" => match tag {
            None => *style == ScalarStyle::Plain,
            Some(tag) => tag.suffix_in_namespace(YAML).as_deref() == Some("merge"),
        },
        _ => false,
    }
}

fn maps(value: Value) -> Option<Vec<Map<String, Value>>> {
    let map = |value| if let Value::Object(map) = value { Some(map) } else { None };
    match value {
        Value::Array(items) => items.into_iter().map(map).collect(),
        value => Some(vec![map(value)?]),
    }
}

/// `convertToJSONableObject` of sigs.k8s.io/yaml.
fn key(value: Value) -> Result<String, &'static str> {
    match value {
        Value::String(text) => Ok(text),
        Value::Bool(key) => Ok(key.to_string()),
        #[expect(clippy::cast_possible_truncation, reason = "so does sigs.k8s.io/yaml")]
        Value::Number(key) if key.is_f64() => Ok((key.as_f64().unwrap_or_default() as f32).to_string()),
        Value::Number(key) => Ok(key.to_string()),
        Value::Null => Err("a key must not be null; put quotes around it"),
        Value::Array(_) | Value::Object(_) => Err("a key must be a string, not a list or a map"),
    }
}

const YAML: &str = "tag:yaml.org,2002:";

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    let Some(tag) = tag else {
        return match style {
            ScalarStyle::Plain => resolve(text).ok_or_else(|| format!("{text} has no form in JSON")),
            _ => Ok(Value::from(text)),
        };
    };
    let kind = tag.suffix_in_namespace(YAML);
    let value = match kind.as_deref() {
        Some("int" | "float" | "bool" | "null") => {
            resolve(text).ok_or_else(|| format!("{text} has no form in JSON"))?
        }
        Some("binary") => {
            let bytes = STANDARD.decode(text.replace(char::is_whitespace, "")).ok();
            let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
            return text.map(Value::String).ok_or_else(|| "this !!binary is not base64 of text".to_owned());
        }
        _ => return Ok(Value::from(text)),
    };
    match (kind.as_deref(), value) {
        (Some("float"), Value::Number(number)) => Ok(number.as_f64().and_then(Number::from_f64).into()),
        (Some("int"), value @ Value::Number(_)) if !value.is_f64() => Ok(value),
        (Some("bool"), value @ Value::Bool(_)) | (Some("null"), value @ Value::Null) => Ok(value),
        _ => Err(format!("{text} is no {}", tag.original())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn error(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn documents() {
        assert_eq!(parse("").unwrap(), json!(null));
        assert_eq!(parse("# only\n---\n# comments\n").unwrap(), json!(null));
        assert_eq!(parse("%YAML 1.1\n---\na: 1\n...\n").unwrap(), json!({"a": 1}));
        assert_eq!(parse("a: |\n  x\n   y\nb: >-\n  x\n  y\n").unwrap(), json!({"a": "x\n y\n", "b": "x y"}));
        assert_eq!(parse("a:\n- 1\n-\n- [b, {c: d}]\n").unwrap(), json!({"a": [1, null, ["b", {"c": "d"}]]}));
    }

    #[test]
    fn block_scalar_ends_as_the_text_does() {
        for (text, value) in [
            ("a: |\n  x", "x"),
            ("a: |+\n  x", "x"),
            ("a: >\n  x\n  y ", "x y "),
            ("a: |\n  x\n  ", "x\n"),
            ("a: |+\n  x\n\n", "x\n\n"),
            ("a: |\n  x\r", "x\n"),
            ("a: |\n  x\n# c", "x\n"),
        ] {
            assert_eq!(parse(text).unwrap(), json!({"a": value}), "{text:?}");
        }
    }

    #[test]
    fn error_has_its_position() {
        assert_eq!(error("a: 1\nb: 2\na: 3\n"), "line 3, column 1: key \"a\" already set in map");
        assert_eq!(error("a: .inf"), "line 1, column 4: .inf has no form in JSON");
        assert_eq!(error("a: 1\n~: 2"), "line 2, column 1: a key must not be null; put quotes around it");
        assert!(error("[a]: 1").contains("a key must be a string"));
        assert!(error("a: 'b").starts_with("line 1, column"), "{}", error("a: 'b"));
        assert!(error("a: *b").contains("line 1, column 4"), "{}", error("a: *b"));
        assert!(error("a: b: c").contains("mapping values are not allowed"), "{}", error("a: b: c"));
        assert!(error("a: &a [*a]").contains("an alias inside its own anchor"), "{}", error("a: &a [*a]"));
        assert!(error("a\n---\nb\n").contains("second document"));
        assert_eq!(error("a: !!int b"), "line 1, column 10: b is no !!int");
    }

    #[test]
    fn keys_become_strings() {
        assert_eq!(
            parse("{1: a, yes: b, 1.50: c, 010: d, 'no': e}").unwrap(),
            json!({"1": "a", "true": "b", "1.5": "c", "8": "d", "no": "e"})
        );
    }

    #[test]
    fn tags() {
        let text =
            "[!!str 1, !!float 1, !!int '7', !!binary aGk=, !mine 1, !!timestamp 2001-01-01, !!null '']";
        assert_eq!(parse(text).unwrap(), json!(["1", 1.0, 7, "hi", "1", "2001-01-01", null]));
    }

    #[test]
    fn merges_as_kubectl_does() {
        let bases = "x: &x {a: 1, b: 1}\ny: &y {b: 2, c: 2}\n";
        let merged = |text: &str| parse(&format!("{bases}z:\n{text}")).unwrap()["z"].clone();
        assert_eq!(merged("  <<: *x\n  a: 3\n"), json!({"a": 3, "b": 1}));
        assert_eq!(merged("  <<: [*x, *y]\n"), json!({"b": 1, "c": 2, "a": 1}));
        assert_eq!(merged("  a: 3\n  <<: *x\n"), json!({"a": 1, "b": 1}));
        assert_eq!(merged("  \"<<\": 3\n"), json!({"<<": 3}));
        assert!(error("<<: 1").contains("`<<` takes a map"));
        assert!(error(&format!("{bases}z:\n  <<: *x\n  a: 1\n  a: 2\n")).contains("already set"));
    }

    #[test]
    fn aliases_are_bounded() {
        assert_eq!(parse("a: &a [1]\nb: [*a, *a]").unwrap(), json!({"a": [1], "b": [[1], [1]]}));
        let nested = |copies| -> String {
            let levels = (1..200)
                .map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); copies].join(", ")));
            std::iter::once("a0: &a0 [lol]\n".to_owned()).chain(levels).collect()
        };
        assert!(error(&nested(4)).contains("aliases expand to more than 64 MiB"));
        assert!(error(&nested(1)).contains("nested deeper than 128 levels"));
        let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), "*a,".repeat(100));
        assert!(error(&text).contains("aliases expand"));
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(parse(&nested(MAX_DEPTH)).is_ok());
        for n in [MAX_DEPTH + 2, 1000, 100_000] {
            assert!(parse(&nested(n)).is_err());
            assert!(parse(&"- ".repeat(n)).is_err());
            assert!(parse(&"[".repeat(n)).is_err());
            assert!(parse(&"{a: ".repeat(n)).is_err());
        }
    }

    #[test]
    fn line_of_a_path() {
        let text = "# a comment\na: 1\nb:\n  x.y/z:\n  - one\n  - {k: v,\n     l: w}\nc: [1,\n 2]\n";
        for (path, line) in [
            (&["a"][..], Some(2)),
            (&["b", "x.y/z", "1", "l"], Some(7)),
            (&["b", "x.y/z", "1", "missing"], Some(6)),
            (&["b", "x.y/z", "0"], Some(5)),
            (&["a", "x.y/z", "1", "l"], Some(2)),
            (&["c", "1"], Some(9)),
            (&["d"], None),
            (&[], None),
        ] {
            let path: Vec<_> = path.iter().map(|&step| step.to_owned()).collect();
            assert_eq!(line_of(text, &path), line, "{path:?}");
        }
        assert_eq!(line_of("a: [", &["a".to_owned()]), Some(1));
    }
}
