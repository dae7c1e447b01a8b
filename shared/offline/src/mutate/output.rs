//! What is printed, in each of the formats.

use std::fmt;
use std::io::{self, Write};

use diffy::DiffOptions;
use serde::Serialize;
use serde_json::{Value, json};

use super::decide::{Decision, rebase};
use super::subjects::Subject;
use crate::console::printable;
use crate::manifests::documents::Document;
use crate::yaml;
use podshaper_core::admission::Outcome;

/// What to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputFormat {
    /// The documents; those that don't change pass through as they are
    Yaml,
    /// The object, or one List of all objects
    Json,
    /// The RFC 6902 operations on the object, or one line of JSON for each object: file, document, kind, name, patch
    Patch,
    /// What changes, for people
    Diff,
    /// The `AdmissionReview` that the server would answer, a line for each
    Review,
}

/// What becomes of a document.
pub(super) enum Fate {
    Kept(Value),
    Changed(Value),
    LeftOut,
}

/// The place of an object in the input, as messages and patches name it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) file: &'a str,
    pub(super) document: usize,
}

/// Prints to `out`.
pub(super) struct Output<'a> {
    format: OutputFormat,
    color: bool,
    out: &'a mut dyn Write,
    state: State,
}

#[derive(Default)]
struct State {
    /// The last document, or patch, where a second one changes how the first is printed.
    held: Option<Held>,
    /// Whether something has been printed.
    begun: bool,
    /// Whether that ended in the middle of a line.
    in_line: bool,
    /// Whether the next document of the input stands right behind what was printed last, in the input as well.
    adjoining: bool,
}

enum Held {
    Object { value: Value, raw: Option<String> },
    Patch { alone: String, line: String },
}

impl<'a> Output<'a> {
    pub(super) fn new(format: OutputFormat, color: bool, out: &'a mut dyn Write) -> Self {
        Self { format, color, out, state: State::default() }
    }

    pub(super) fn format(&self) -> OutputFormat {
        self.format
    }

    /// Another file begins.
    pub(super) fn next_file(&mut self) {
        self.state.adjoining = false;
    }

    /// One object that was decided about, in the document as it is and as it becomes.
    pub(super) fn object(
        &mut self,
        place: Place<'_>,
        subject: &Subject,
        decision: &Decision,
        before: &Value,
        after: &Value,
    ) -> io::Result<()> {
        match self.format {
            OutputFormat::Yaml | OutputFormat::Json => Ok(()),
            OutputFormat::Review => self.review(decision),
            OutputFormat::Patch | OutputFormat::Diff if decision.outcome == Outcome::Denied => Ok(()),
            OutputFormat::Patch => self.patch(place, subject, decision),
            OutputFormat::Diff => self.diff(place, subject, before, after),
        }
    }

    /// One document, after its objects.
    pub(super) fn document(&mut self, document: &Document<'_>, fate: Fate) -> io::Result<()> {
        match self.format {
            OutputFormat::Yaml => self.yaml(document, &fate),
            OutputFormat::Json => self.json(document, fate),
            OutputFormat::Patch | OutputFormat::Diff | OutputFormat::Review => Ok(()),
        }
    }

    /// The answer to a review.
    pub(super) fn review(&mut self, decision: &Decision) -> io::Result<()> {
        self.out.write_all(&decision.review)?;
        self.out.write_all(b"\n")
    }

    /// What was held back, and all that is buffered.
    pub(super) fn finish(mut self) -> io::Result<()> {
        match self.state.held.take() {
            Some(Held::Object { raw: Some(raw), .. }) => writeln!(self.out, "{raw}")?,
            Some(Held::Object { value, .. }) => writeln!(self.out, "{value:#}")?,
            Some(Held::Patch { alone, .. }) => writeln!(self.out, "{alone}")?,
            None if self.format == OutputFormat::Json && self.state.begun => writeln!(self.out, "\n]}}")?,
            None => {}
        }
        self.out.flush()
    }

    fn yaml(&mut self, document: &Document<'_>, fate: &Fate) -> io::Result<()> {
        let changed;
        let (text, adjoining) = match fate {
            Fate::Kept(_) => (document.text(), self.state.adjoining),
            Fate::Changed(value) => {
                changed = document.with_value(value);
                (changed.as_str(), false)
            }
            Fate::LeftOut => ("", false),
        };
        if self.state.begun && !text.is_empty() && !adjoining {
            if self.state.in_line {
                writeln!(self.out)?;
            }
            self.out.write_all(Document::separator(text).as_bytes())?;
        }
        self.out.write_all(text.as_bytes())?;
        if !text.is_empty() {
            self.state.begun = true;
            self.state.in_line = !text.ends_with('\n');
        }
        self.state.adjoining = matches!(fate, Fate::Kept(_));
        Ok(())
    }

    fn json(&mut self, document: &Document<'_>, fate: Fate) -> io::Result<()> {
        let (value, raw) = match fate {
            Fate::LeftOut | Fate::Kept(Value::Null) => return Ok(()),
            Fate::Kept(value) => (value, document.json().map(str::to_owned)),
            Fate::Changed(value) => (value, None),
        };
        let before = self.state.held.take();
        if before.is_none() && !self.state.begun {
            self.state.held = Some(Held::Object { value, raw });
            return Ok(());
        }
        if let Some(Held::Object { value, .. }) = before {
            write!(self.out, r#"{{"apiVersion":"v1","kind":"List","items":["#)?;
            self.items(value)?;
        }
        self.items(value)
    }

    /// `value`, or the items of the List that it is, in the List that is being printed.
    fn items(&mut self, mut value: Value) -> io::Result<()> {
        let says = |key, what| value.get(key).and_then(Value::as_str) == Some(what);
        if says("kind", "List")
            && says("apiVersion", "v1")
            && let Some(items) = value.get_mut("items").and_then(Value::as_array_mut)
        {
            return std::mem::take(items).into_iter().try_for_each(|item| self.items(item));
        }
        let comma = if self.state.begun { "," } else { "" };
        self.state.begun = true;
        write!(self.out, "{comma}\n{value:#}")
    }

    fn patch(&mut self, place: Place<'_>, subject: &Subject, decision: &Decision) -> io::Result<()> {
        let patch = rebase(&decision.patch, subject.pod.as_str());
        let line = serde_json::to_string(&PatchLine {
            file: place.file,
            document: place.document,
            item: subject.item,
            api_version: &subject.api_version,
            kind: &subject.kind,
            namespace: subject.namespace.as_deref(),
            name: &subject.name,
            patch: &patch,
        })?;
        match self.state.held.take() {
            None if !self.state.begun => {
                self.state.begun = true;
                self.state.held = Some(Held::Patch { alone: json!(patch).to_string(), line });
                Ok(())
            }
            Some(Held::Patch { line: first, .. }) => writeln!(self.out, "{first}\n{line}"),
            _ => writeln!(self.out, "{line}"),
        }
    }

    fn diff(&mut self, place: Place<'_>, subject: &Subject, before: &Value, after: &Value) -> io::Result<()> {
        let object =
            |document: &Value| document.pointer(subject.at.as_str()).map(yaml::to_string).unwrap_or_default();
        let (before, after) = (object(before), object(after));
        if before == after {
            return Ok(());
        }
        let name = place.of(subject);
        let diff = DiffOptions::new()
            .set_original_filename(name.clone())
            .set_modified_filename(name)
            .create_patch(&before, &after);
        let diff = diff.to_string();
        for line in diff.split_inclusive('\n') {
            let color = match line.as_bytes().first() {
                Some(b'+') => "\x1b[32m",
                Some(b'-') => "\x1b[31m",
                Some(b'@') => "\x1b[36m",
                _ => "",
            };
            if self.color && !color.is_empty() {
                writeln!(self.out, "{color}{}\x1b[0m", line.trim_end_matches('\n'))?;
            } else {
                self.out.write_all(line.as_bytes())?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: document {}", self.file, self.document)
    }
}

impl Place<'_> {
    /// `web.yaml: document 2, item 3: Deployment/web`
    pub(super) fn of(&self, subject: &Subject) -> String {
        let item = subject.item.map(|item| format!(", item {item}")).unwrap_or_default();
        printable(&format!("{self}{item}: {}/{}", subject.kind, subject.name))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PatchLine<'a> {
    file: &'a str,
    document: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    item: Option<usize>,
    api_version: &'a str,
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    name: &'a str,
    patch: &'a [Value],
}
