//! From a value to text, in the layout of kubectl: a list starts in the column of its key, text of several lines is a block.

use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_saphyr::{LitStr, SingleQuoted, ser_options};

/// Writes one document, without `---`, ending in a line break.
pub fn to_string(value: &Value) -> String {
    let options = ser_options! { prefer_block_scalars: false };
    // If the serializer fails, the JSON of the value is valid YAML too.
    let text = serde_saphyr::to_string_with_options(&StyledValue(value), options)
        .unwrap_or_else(|_| format!("{value}\n"));
    // The serializer indents the empty lines of a block, kubectl doesn't. No other lines are blank: see `is_block`.
    let lines = text.split_inclusive('\n');
    lines.map(|line| if line.trim_start_matches(' ') == "\n" { "\n" } else { line }).collect()
}

/// A value, its strings in the styles that kubectl would choose.
struct StyledValue<'v>(&'v Value);

impl Serialize for StyledValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::String(text) if is_block(text) => LitStr(text).serialize(serializer),
            Value::String(text) if is_json(text) => SingleQuoted(text).serialize(serializer),
            Value::Array(items) => serializer.collect_seq(items.iter().map(StyledValue)),
            Value::Object(entries) => {
                serializer.collect_map(entries.iter().map(|(key, value)| (key, StyledValue(value))))
            }
            value => value.serialize(serializer),
        }
    }
}

/// go-yaml rejects a tab at the start of a block as wrong indentation.
fn is_block(text: &str) -> bool {
    let body = text.trim_start_matches('\n');
    let is_blank = |line: &str| !line.is_empty() && line.trim_start_matches(' ').is_empty();
    body.contains('\n') && !body.starts_with('\t') && !text.split('\n').any(is_blank)
}

/// Whether it is JSON, as annotations hold: it would need many escapes in double quotes.
fn is_json(text: &str) -> bool {
    text.starts_with(['{', '[', '"'])
        && text.contains('"')
        && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
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
            "---",
            "- a",
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
            "-1a",
            "--",
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
