//! `PROGRAM mutate` decides about the objects in files, without a cluster.
//!
//! ```text
//! files ──▶ documents ──▶ subjects ──▶ AdmissionReview ──▶ admission::answer ──▶ output
//!             as text       pods                             as the server
//! ```

mod defaults;
mod output;
mod subject;

pub use output::OutputFormat;

use std::fmt::Display;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::block_on;
use crate::console::{Console, USAGE, printable};
use crate::manifests::documents::{Document, Location};
use crate::manifests::file;
use crate::yaml::SyntaxError;
use output::{Fate, Printer};
use podshaper_core::admission::{Answer, Outcome, Response, Webhook, answer};
use subject::Subject;

/// How long one decision may take. The API server's own timeout is at most 30 s.
const TIMEOUT: Duration = Duration::from_mins(1);

/// Mutate manifests offline, as the server would
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Mutate<O: clap::Args> {
    /// Manifests in YAML or JSON: a file, a directory, or - for standard input (default)
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Output format
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = OutputFormat::Yaml)]
    output: OutputFormat,
    /// Namespace of objects that name none
    #[arg(short, long, value_name = "NAME", default_value = "default")]
    namespace: String,
    #[command(flatten)]
    options: O,
}

const HELP: &str = "\
The command mutates Pods, objects with a pod template (Deployment, StatefulSet, DaemonSet, Job, CronJob, Argo's Rollout, ...), \
items of Lists, and AdmissionReviews. A template is treated as the pod that its controller would create. All other objects are \
printed unchanged.

Absent requests equal the limits, as in the API server. The manifest must contain the other defaults that the API server adds \
before it calls a webhook: those of a LimitRange, and the overhead of a RuntimeClass.

The output omits objects that would be denied, and documents that can't be read. A changed document keeps the comments before \
and after it, not those inside.

YAML is read as kubectl reads it: unquoted yes, no, on and off are booleans, and 010 is eight. A duplicate key is an error.

Exit status: 0 success; 1 an object would be denied, is undecided or can't be read (standard error names file, document and \
reason); 2 wrong usage.";

impl<O: clap::Args> Mutate<O> {
    /// Runs the command with the webhook that `webhook` makes of its options, and returns the exit status.
    pub fn run<W: Webhook>(
        self,
        console: &mut Console<'_>,
        webhook: impl FnOnce(O, &str) -> anyhow::Result<W>,
    ) -> u8 {
        block_on(self.decide(console, webhook)).unwrap_or_else(|error| {
            console.message(format_args!("error: {error:#}"));
            USAGE
        })
    }

    async fn decide<W: Webhook>(
        self,
        console: &mut Console<'_>,
        webhook: impl FnOnce(O, &str) -> anyhow::Result<W>,
    ) -> anyhow::Result<u8> {
        let Self { mut files, output: format, namespace, options } = self;
        if files.is_empty() {
            ensure!(!console.interactive, "nothing to read: name manifests by -f FILE, or pipe them in");
            files.push("-".into());
        }
        let webhook = webhook(options, &namespace)?;
        let printer = Printer::new(format);
        let mut run = Run { webhook, namespace, format, printer, console, failed: false };
        match run.files(&files).await {
            Ok(()) => {}
            // The reader of a pipe may close it early.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) => run.problem("can't write", error),
        }
        Ok(run.failed.into())
    }
}

struct Run<'r, 'c, W> {
    webhook: W,
    namespace: String,
    format: OutputFormat,
    printer: Printer,
    console: &'r mut Console<'c>,
    /// Whether there was a problem.
    failed: bool,
}

/// These functions return errors of writing the result only. They report all other problems, and the run continues.
impl<W: Webhook> Run<'_, '_, W> {
    async fn files(&mut self, paths: &[PathBuf]) -> io::Result<()> {
        for path in paths {
            match file::expand(path) {
                Ok(files) => {
                    for file in files {
                        self.file(&file).await?;
                    }
                }
                Err(error) => self.problem(&file::name(path), error),
            }
        }
        self.printer.finish(self.console.stdout)
    }

    async fn file(&mut self, file: &Path) -> io::Result<()> {
        let name = file::name(file);
        let mut texts = match file::open(file, &mut self.console.stdin) {
            Ok(texts) => texts,
            Err(error) => {
                self.problem(&name, error);
                return Ok(());
            }
        };
        self.printer.next_file();
        let mut index = 0;
        loop {
            let text = match texts.next_text() {
                Ok(Some(text)) => text,
                Ok(None) => return Ok(()),
                Err(reason) => {
                    self.problem(&name, reason);
                    return Ok(());
                }
            };
            for document in text.documents() {
                let location = Location::new(&name, index);
                match document.parse() {
                    Ok(value) => self.document(location, &document, value).await?,
                    Err(error) => self.invalid_document(location, &document, &error).await?,
                }
                index += 1;
            }
        }
    }

    async fn document(
        &mut self,
        location: Location<'_>,
        document: &Document<'_>,
        mut value: Value,
    ) -> io::Result<()> {
        let mut fate = Fate::Unchanged;
        let mut removed = Vec::new();
        for subject in Subject::find(&value) {
            self.console.count_object();
            let label = subject.label(location);
            // A patch changes the value in place. Only a diff needs the object from before.
            let before = (self.format == OutputFormat::Diff).then(|| subject.object(&value).clone());
            let denied = match self.subject(&subject, document, &mut value).await {
                Ok((answer, response)) => {
                    self.report(&label, &answer, &response);
                    if answer.outcome == Outcome::Patched {
                        fate = Fate::Changed;
                    }
                    let denied = answer.outcome == Outcome::Denied;
                    let out = &mut *self.console.stdout;
                    match self.format {
                        OutputFormat::Review => write_line(&answer, out)?,
                        OutputFormat::Patch if !denied => {
                            self.printer.patch(location, &subject, &response.patch, out)?;
                        }
                        OutputFormat::Diff if !denied => {
                            let before = before.as_ref().unwrap_or(&Value::Null);
                            output::diff(&label, before, subject.object(&value), self.console.color, out)?;
                        }
                        _ => {}
                    }
                    denied
                }
                Err(error) => {
                    self.problem(&label, format!("error: {error:#}"));
                    true
                }
            };
            if denied {
                removed.push(subject);
            }
        }
        // Backwards, so that the indices of the others stay valid.
        for subject in removed.iter().rev() {
            fate = Fate::Changed;
            if !subject.remove(&mut value) {
                self.printer.removed();
                return Ok(());
            }
        }
        self.printer.document(document, fate, value, self.console.stdout)
    }

    /// Decides about `subject` of `value`, and applies the patch.
    async fn subject(
        &self,
        subject: &Subject,
        document: &Document<'_>,
        value: &mut Value,
    ) -> anyhow::Result<(Answer, Response)> {
        self.webhook.observe(subject.object(value), &self.namespace);
        let (review, defaults) = subject.review(value, document.json(), &self.namespace, W::WORKLOADS)?;
        let (answer, mut response) = self.decide(&review).await?;
        if answer.outcome == Outcome::Patched {
            response.patch.splice(..0, defaults);
            subject.patch(&response.patch, value).context("the webhook's patch does not apply")?;
        }
        Ok((answer, response))
    }

    async fn decide(&self, review: &str) -> anyhow::Result<(Answer, Response)> {
        let answer = answer(&self.webhook, review.as_bytes(), Instant::now() + TIMEOUT).await?;
        let response = answer.response()?;
        Ok((answer, response))
    }

    async fn invalid_document(
        &mut self,
        location: Location<'_>,
        document: &Document<'_>,
        error: &SyntaxError,
    ) -> io::Result<()> {
        // JSON that is nested too deep for a value: the server skips it and does answer the review.
        if let (OutputFormat::Review, Some(json)) = (self.format, document.json())
            && let Ok((answer, response)) = self.decide(json).await
        {
            self.report(&location.to_string(), &answer, &response);
            return write_line(&answer, self.console.stdout);
        }
        self.problem(&location.to_string(), error);
        self.printer.removed();
        Ok(())
    }

    fn report(&mut self, label: &str, answer: &Answer, response: &Response) {
        let outcome = answer.outcome;
        let mut warnings = response.warnings.iter();
        if outcome == Outcome::Undecided
            && let Some(reason) = warnings.next()
        {
            self.problem(label, format!("undecided: {reason}"));
        }
        if outcome == Outcome::Denied {
            self.problem(label, format!("denied: {}", response.denial.as_deref().unwrap_or_default()));
        }
        for warning in warnings {
            self.console.message(printable(&format!("{label}: warning: {warning}")));
        }
        for note in &answer.notes {
            self.console.message(printable(&format!("{label}: {note}")));
        }
    }

    fn problem(&mut self, label: &str, problem: impl Display) {
        self.failed = true;
        self.console.message(printable(&format!("{label}: {problem}")));
    }
}

fn write_line(answer: &Answer, out: &mut dyn Write) -> io::Result<()> {
    out.write_all(&answer.body)?;
    out.write_all(b"\n")
}
