//! The output formats.

use std::io::{self, Write};

use diffy::DiffOptions;
use serde::Serialize;
use serde_json::{Value, json};

use super::subject::Subject;
use crate::manifests::documents::{Document, Location};
use crate::yaml;

/// The format of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputFormat {
    /// All documents; unchanged ones byte for byte
    Yaml,
    /// The object, or a List of all objects
    Json,
    /// The JSON patch (RFC 6902) of the object; for several objects, one JSON line each, with file, document, kind, name and patch
    Patch,
    /// A diff of each object, for people
    Diff,
    /// The AdmissionReview responses of the server, one line each
    Review,
}

/// Whether a document differs from its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Unchanged,
    Changed,
}

/// Prints documents in one of the formats.
pub(super) struct Printer {
    format: OutputFormat,
    /// The last object or patch, if a second one would change the format of the first.
    held: Option<Held>,
    /// Whether something was printed.
    begun: bool,
    /// Whether the last printed line lacks its line break.
    in_line: bool,
    /// Whether the next document follows the last printed one in the input as well.
    adjoining: bool,
}

enum Held {
    Object { value: Value, raw: Option<String> },
    Patch { alone: String, line: String },
}

/// A line of `-o patch`.
#[derive(Serialize)]
struct PatchLine<'a> {
    #[serde(flatten)]
    location: Location<'a>,
    #[serde(flatten)]
    subject: &'a Subject,
    patch: &'a [Value],
}

impl Printer {
    pub(super) fn new(format: OutputFormat) -> Self {
        Self { format, held: None, begun: false, in_line: false, adjoining: false }
    }

    /// Starts another file.
    pub(super) fn next_file(&mut self) {
        self.adjoining = false;
    }

    /// Prints one document, after its objects were decided about.
    pub(super) fn document(
        &mut self,
        document: &Document<'_>,
        fate: Fate,
        value: Value,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        match self.format {
            OutputFormat::Yaml => self.yaml(document, fate, &value, out),
            OutputFormat::Json => self.json(document, fate, value, out),
            OutputFormat::Patch | OutputFormat::Diff | OutputFormat::Review => Ok(()),
        }
    }

    /// Omits a document.
    pub(super) fn removed(&mut self) {
        self.adjoining = false;
    }

    /// Prints the object or patch that waits for a second one, and flushes.
    pub(super) fn finish(&mut self, out: &mut dyn Write) -> io::Result<()> {
        match self.held.take() {
            Some(Held::Object { raw: Some(raw), .. }) => writeln!(out, "{raw}")?,
            Some(Held::Object { value, .. }) => writeln!(out, "{value:#}")?,
            Some(Held::Patch { alone, .. }) => writeln!(out, "{alone}")?,
            None if self.format == OutputFormat::Json && self.begun => writeln!(out, "\n]}}")?,
            None => {}
        }
        out.flush()
    }

    fn yaml(
        &mut self,
        document: &Document<'_>,
        fate: Fate,
        value: &Value,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let changed;
        let (text, adjoining) = match fate {
            Fate::Unchanged => (document.text(), self.adjoining),
            Fate::Changed => {
                changed = document.with_value(value);
                (changed.as_str(), false)
            }
        };
        if self.begun && !text.is_empty() && !adjoining {
            if self.in_line {
                writeln!(out)?;
            }
            out.write_all(Document::separator(text).as_bytes())?;
        }
        out.write_all(text.as_bytes())?;
        if !text.is_empty() {
            self.begun = true;
            self.in_line = !text.ends_with('\n');
        }
        self.adjoining = fate == Fate::Unchanged;
        Ok(())
    }

    fn json(
        &mut self,
        document: &Document<'_>,
        fate: Fate,
        value: Value,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        if fate == Fate::Unchanged && value.is_null() {
            return Ok(());
        }
        let before = self.held.take();
        if before.is_none() && !self.begun {
            let raw = document.json().filter(|_| fate == Fate::Unchanged).map(str::to_owned);
            self.held = Some(Held::Object { value, raw });
            return Ok(());
        }
        if let Some(Held::Object { value, .. }) = before {
            write!(out, r#"{{"apiVersion":"v1","kind":"List","items":["#)?;
            self.items(value, out)?;
        }
        self.items(value, out)
    }

    /// Prints `value`, or its items if it is a List, as items of the List in the output.
    fn items(&mut self, mut value: Value, out: &mut dyn Write) -> io::Result<()> {
        let has = |key, text| value.get(key).and_then(Value::as_str) == Some(text);
        if has("kind", "List")
            && has("apiVersion", "v1")
            && let Some(items) = value.get_mut("items").and_then(Value::as_array_mut)
        {
            return std::mem::take(items).into_iter().try_for_each(|item| self.items(item, out));
        }
        let comma = if self.begun { "," } else { "" };
        self.begun = true;
        write!(out, "{comma}\n{value:#}")
    }

    /// Prints the patch of one object.
    pub(super) fn patch(
        &mut self,
        location: Location<'_>,
        subject: &Subject,
        operations: &[Value],
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let patch = &*subject.patch_of_object(operations);
        let line = serde_json::to_string(&PatchLine { location, subject, patch })?;
        match self.held.take() {
            None if !self.begun => {
                self.begun = true;
                self.held = Some(Held::Patch { alone: json!(patch).to_string(), line });
                Ok(())
            }
            Some(Held::Patch { line: first, .. }) => writeln!(out, "{first}\n{line}"),
            _ => writeln!(out, "{line}"),
        }
    }
}

/// Prints the difference between one object and what it becomes.
pub(super) fn diff(
    label: &str,
    before: &Value,
    after: &Value,
    color: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let before = yaml::to_string(before);
    let after = yaml::to_string(after);
    if before == after {
        return Ok(());
    }
    let diff = DiffOptions::new()
        .set_original_filename(label.to_owned())
        .set_modified_filename(label.to_owned())
        .create_patch(&before, &after);
    for line in diff.to_string().split_inclusive('\n') {
        let escape = match line.as_bytes().first() {
            Some(b'+') => "\x1b[32m",
            Some(b'-') => "\x1b[31m",
            Some(b'@') => "\x1b[36m",
            _ => "",
        };
        if color && !escape.is_empty() {
            writeln!(out, "{escape}{}\x1b[0m", line.trim_end_matches('\n'))?;
        } else {
            out.write_all(line.as_bytes())?;
        }
    }
    Ok(())
}
