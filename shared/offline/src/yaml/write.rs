//! From a value to text, in kubectl's layout: lists start where their key does, strings of several lines are blocks.
//!
//! A string is plain only where no reader of YAML 1.1 or 1.2 could take it for anything else.

use std::fmt::Write;

use serde_json::{Map, Number, Value};

/// Writes one document, without `---`, ending in a line break.
pub fn to_string(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(entries) if !entries.is_empty() => mapping(&mut out, entries, 0),
        Value::Array(items) if !items.is_empty() => sequence(&mut out, items, 0),
        Value::String(text) => {
            line(&mut out, text);
            out.push('\n');
        }
        value => scalar(&mut out, value, 0),
    }
    out
}

/// Entries at column `indent`, where `out` already stands.
fn mapping(out: &mut String, entries: &Map<String, Value>, indent: usize) {
    for (n, (key, value)) in entries.iter().enumerate() {
        if n > 0 {
            pad(out, indent);
        }
        let start = out.len();
        line(out, key);
        // A key without `?` is at most 1024 characters long.
        if out.len() - start > 1000 {
            out.insert_str(start, "? ");
            out.push('\n');
            pad(out, indent);
        }
        out.push(':');
        match value {
            Value::Object(entries) if !entries.is_empty() => {
                out.push('\n');
                pad(out, indent + 2);
                mapping(out, entries, indent + 2);
            }
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                pad(out, indent);
                sequence(out, items, indent);
            }
            value => {
                out.push(' ');
                scalar(out, value, indent);
            }
        }
    }
}

/// Items at column `indent`, where `out` already stands.
fn sequence(out: &mut String, items: &[Value], indent: usize) {
    for (n, item) in items.iter().enumerate() {
        if n > 0 {
            pad(out, indent);
        }
        out.push_str("- ");
        match item {
            Value::Object(entries) if !entries.is_empty() => mapping(out, entries, indent + 2),
            Value::Array(items) if !items.is_empty() => sequence(out, items, indent + 2),
            item => scalar(out, item, indent),
        }
    }
}

/// What fits behind a key or a dash that stands at column `indent`, and the end of the line.
fn scalar(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(value) => number(out, value),
        Value::String(text) if is_block(text) => return block(out, text, indent),
        Value::String(text) => line(out, text),
        Value::Array(_) => out.push_str("[]"),
        Value::Object(_) => out.push_str("{}"),
    }
    out.push('\n');
}

/// Readers of YAML 1.1 know a float by its point and its exponent by the sign.
fn number(out: &mut String, value: &Number) {
    let text = value.to_string();
    match text.split_once('e') {
        Some((mantissa, exponent)) => {
            out.push_str(mantissa);
            if !mantissa.contains('.') {
                out.push_str(".0");
            }
            out.push('e');
            if !exponent.starts_with(['+', '-']) {
                out.push('+');
            }
            out.push_str(exponent);
        }
        None => out.push_str(&text),
    }
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn is_block(text: &str) -> bool {
    text.contains('\n')
        && text.contains(|c| c != '\n')
        && text.chars().all(|c| matches!(c, '\n' | '\t') || is_printable(c))
}

fn block(out: &mut String, text: &str, indent: usize) {
    out.push('|');
    // Readers take the indentation from the first line, unless told.
    if text.starts_with([' ', '\t', '\n']) {
        out.push('2');
    }
    let lines = match text.strip_suffix('\n') {
        None => {
            out.push('-');
            text
        }
        Some(rest) if rest.ends_with('\n') => {
            out.push('+');
            rest
        }
        Some(rest) => rest,
    };
    for line in lines.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            pad(out, indent + 2);
            out.push_str(line);
        }
    }
    out.push('\n');
}

/// A string within one line: plain, or in the quotes that need fewer escapes.
fn line(out: &mut String, text: &str) {
    if is_plain(text) {
        out.push_str(text);
    } else if text.contains(['"', '\\']) && text.chars().all(is_printable) {
        out.push('\'');
        out.push_str(&text.replace('\'', "''"));
        out.push('\'');
    } else {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' | '\\' => out.extend(['\\', c]),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                c if is_printable(c) => out.push(c),
                // All that isn't printable is within the first plane.
                c => {
                    let _ = write!(out, "\\u{:04X}", u32::from(c));
                }
            }
        }
        out.push('"');
    }
}

/// Characters that stand for themselves everywhere; line breaks of either version of YAML aren't among them.
fn is_printable(c: char) -> bool {
    matches!(c, ' '..='~' | '\u{A0}'..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..)
        && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{FEFF}')
}

fn is_plain(text: &str) -> bool {
    let mut chars = text.chars();
    let starts_well = match chars.next() {
        Some('-') => chars.find(|c| *c != '-').is_some_and(|c| c.is_ascii_alphabetic()),
        Some(first) => {
            first.is_alphanumeric() || matches!(first, '/' | '_' | '.' | '$' | '(' | '+' | '^' | ';' | '\\')
        }
        None => false,
    };
    starts_well
        && !text.starts_with("...")
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
        && text.chars().all(is_printable)
        && !is_number_or_date(text)
        && !is_word(text)
}

/// Wider than any reader's rules: integers of all bases, sexagesimals, floats, dates and times, with what go-yaml drops.
fn is_number_or_date(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'))
        && text.chars().all(|c| {
            c.is_ascii_hexdigit()
                || matches!(
                    c,
                    'x' | 'X' | 'o' | 'O' | '_' | '.' | ':' | '+' | '-' | ',' | ' ' | 't' | 'T' | 'z' | 'Z'
                )
        })
}

/// Booleans, nulls, infinities.
fn is_word(text: &str) -> bool {
    const WORDS: [&str; 17] = [
        "y", "n", "yes", "no", "on", "off", "true", "false", "null", "nil", "nan", "inf", "infinity", ".nan",
        ".inf", "+.inf", "+inf",
    ];
    WORDS.iter().any(|word| word.eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::parse;
    use super::*;

    #[test]
    fn layout_is_kubectls() {
        let value = json!({
            "apiVersion": "v1",
            "spec": {"containers": [{"name": "a", "args": ["-v", "--x=1", "*"], "env": []}, [["x"], {}]], "m": 1, "f": 0.5},
            "script": "#!/bin/sh\n\nexit 0\n",
            "bare": "a\nb",
            "kept": "a\n\n",
            "indented": "  a\nb\n",
        });
        let text = "\
apiVersion: v1
spec:
  containers:
  - name: a
    args:
    - -v
    - --x=1
    - \"*\"
    env: []
  - - - x
    - {}
  m: 1
  f: 0.5
script: |
  #!/bin/sh

  exit 0
bare: |-
  a
  b
kept: |+
  a

indented: |2
    a
  b
";
        assert_eq!(to_string(&value), text);
        assert_eq!(parse(text).unwrap(), value);
    }

    #[test]
    fn strings_stay_strings() {
        for text in [
            "",
            " ",
            "~",
            "y",
            "No",
            "on",
            "TRUE",
            "null",
            "1",
            "-1",
            "+1",
            "1e3",
            "0x1F",
            "0o7",
            "010",
            "1_000",
            "1:30",
            ".5",
            ".inf",
            "-.Inf",
            ".nan",
            "2001-01-01",
            "2001-12-14 21:59:43.10",
            "1.2.3",
            "<<",
            "=",
            "-",
            "--",
            "---",
            "- a",
            "-1a",
            "?",
            ": a",
            "a:",
            "a: b",
            "a #b",
            "#a",
            "&a",
            "*a",
            "!a",
            "|",
            ">",
            "%a",
            "@a",
            "`a",
            "'a'",
            "\"",
            "[a",
            "{a",
            "}",
            ",",
            " a",
            "a ",
            "a\tb",
            "a\r\n",
            "\n",
            "\u{85}",
            "\u{feff}",
            "\u{2028}",
            "\u{7f}",
            "\u{0}",
            "0b-1",
            "...",
            "... a'",
        ] {
            let emitted = to_string(&json!([text]));
            assert!(emitted.starts_with("- \"") || emitted.starts_with("- '"), "{text:?}: {emitted}");
            assert_eq!(parse(&emitted).unwrap(), json!([text]));
        }
        for text in [
            "a",
            "500m",
            "1Gi",
            "a:b",
            "nginx:1.25",
            "/x y",
            "-v",
            "--a=b",
            "a#b",
            "yesno",
            "äöü",
            "$(HOME)",
            "../x",
        ] {
            assert_eq!(to_string(&json!(text)), format!("{text}\n"));
        }
        assert_eq!(to_string(&json!("{\"a\": 'b'}")), "'{\"a\": ''b''}'\n");
    }

    #[test]
    fn numbers_stay_numbers() {
        for (value, text) in [
            (json!(1), "1\n"),
            (json!(u64::MAX), "18446744073709551615\n"),
            (json!(i64::MIN), "-9223372036854775808\n"),
            (json!(1.0), "1.0\n"),
            (json!(1e22), "1.0e+22\n"),
            (json!(1.5e-7), "1.5e-7\n"),
            (json!(0.1), "0.1\n"),
        ] {
            assert_eq!(to_string(&value), text);
            assert_eq!(parse(text).unwrap(), value);
        }
    }

    #[test]
    fn long_keys() {
        let long = "k".repeat(2000);
        for value in [json!("v"), json!(["v"]), json!({"a": ["v"]}), json!("a\nb\n")] {
            let value = json!({"x": [{long.as_str(): value, "y": 1}]});
            assert_eq!(parse(&to_string(&value)).unwrap(), value);
        }
    }
}
