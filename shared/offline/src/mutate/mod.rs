//! `NAME mutate`: the decision without a cluster, on files.
//!
//! ```text
//! files ──▶ documents ──▶ subjects ──▶ AdmissionReview ──▶ admission::answer ──▶ output
//!             as text       pods                             as the server
//! ```

mod decide;
mod defaults;
mod output;
mod subjects;

pub use output::OutputFormat;

use std::fmt::Display;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::block_on;
use crate::console::{Console, USAGE, printable};
use crate::manifests::documents::Document;
use crate::manifests::{documents, file};
use crate::yaml::SyntaxError;
use decide::{Decision, apply, decide, rebase};
use output::{Fate, Output, Place};
use podshaper_core::admission::{Outcome, Webhook};
use podshaper_core::patch::Pointer;
use subjects::{Subject, subjects};

/// Decide offline about manifests, as the server would
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Mutate<O: clap::Args> {
    /// Manifests, YAML or JSON: a file, a folder, or - for standard input, which is read if none is given
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// What to print
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = OutputFormat::Yaml)]
    output: OutputFormat,
    /// The namespace of objects that name none
    #[arg(short, long, value_name = "NAME", default_value = "default")]
    namespace: String,
    #[command(flatten)]
    options: O,
}

const HELP: &str = "\
Decided are Pods, whatever holds a pod template (Deployment, StatefulSet, DaemonSet, Job, CronJob, Argo's Rollout, ...), \
the items of Lists, and AdmissionReviews. A template is decided as the pod that a controller would make of it. \
Everything else passes through as it is.

Requests that aren't given come from the limits, as in the API server. What else it fills in before it calls a webhook must \
stand in the manifest: defaults of a LimitRange, the overhead of a RuntimeClass.

An object that would be denied is left out of the output, as is a document that can't be read. A document that changes \
keeps the comments before and after it, not those inside.

YAML is read as kubectl reads it: yes, no, on and off are booleans and 010 is eight unless quoted; a key that stands twice \
is an error.

Exit status: 0 fine; 1 something would be denied, could not be decided or could not be read (standard error says what, \
with file and document); 2 bad usage.";

impl<O: clap::Args> Mutate<O> {
    /// Runs the command with the webhook that `webhook` makes of its options, and returns the exit status.
    pub fn run<W: Webhook>(
        self,
        console: &mut Console<'_>,
        webhook: impl FnOnce(O) -> anyhow::Result<W>,
    ) -> u8 {
        block_on(self.decide(console, webhook)).unwrap_or_else(|error| {
            console.message(format_args!("error: {error:#}"));
            USAGE
        })
    }

    async fn decide<W: Webhook>(
        self,
        console: &mut Console<'_>,
        webhook: impl FnOnce(O) -> anyhow::Result<W>,
    ) -> anyhow::Result<u8> {
        let Self { mut files, output, namespace, options } = self;
        if files.is_empty() {
            ensure!(!console.interactive, "nothing to read: name manifests by -f FILE, or pipe them in");
            files.push("-".into());
        }
        let webhook = webhook(options)?;
        let Console { stdin, stdout, color, stderr, .. } = console;
        let report = Report { stderr: &mut **stderr, failed: false };
        let mut run = Run { webhook, namespace, report, output: Output::new(output, *color, &mut **stdout) };
        match run.all(&files, &mut **stdin).await.and_then(|()| run.output.finish()) {
            Ok(()) => {}
            // Whoever read has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) => run.report.problem("can't write", &error),
        }
        Ok(run.report.failed.into())
    }
}

struct Run<'a, W> {
    webhook: W,
    namespace: String,
    report: Report<'a>,
    output: Output<'a>,
}

impl<W: Webhook> Run<'_, W> {
    async fn all(&mut self, paths: &[PathBuf], stdin: &mut dyn Read) -> io::Result<()> {
        for path in paths {
            match file::expand(path) {
                Ok(files) => {
                    for file in files {
                        self.file(&file, stdin).await?;
                    }
                }
                Err(error) => self.report.problem(&file::name(path), error),
            }
        }
        Ok(())
    }

    async fn file(&mut self, file: &Path, stdin: &mut dyn Read) -> io::Result<()> {
        let name = file::name(file);
        let text = match file::read(file, stdin) {
            Ok(text) => text,
            Err(reason) => {
                self.report.problem(&name, reason);
                return Ok(());
            }
        };
        self.output.next_file();
        for (index, document) in documents::split(&text).enumerate() {
            let place = Place { file: &name, document: index + 1 };
            match document.parse() {
                Ok(value) => self.document(place, &document, value).await?,
                Err(error) => self.unreadable(place, &document, &error).await?,
            }
        }
        Ok(())
    }

    async fn document(&mut self, place: Place<'_>, document: &Document<'_>, before: Value) -> io::Result<()> {
        let mut after = None;
        let mut refused = Vec::new();
        for subject in subjects(&before) {
            let label = place.of(&subject);
            match self.object(document, &before, &mut after, &subject).await {
                Ok(decision) => {
                    self.tell(&label, &decision);
                    self.output.object(
                        place,
                        &subject,
                        &decision,
                        &before,
                        after.as_ref().unwrap_or(&before),
                    )?;
                    if decision.outcome == Outcome::Denied {
                        refused.push(subject);
                    }
                }
                Err(error) => {
                    self.report.problem(&label, format!("error: {error:#}"));
                    refused.push(subject);
                }
            }
        }
        // From the last, so that the places of those before stay true.
        for subject in refused.iter().rev() {
            if !subject.take_out(after.get_or_insert_with(|| before.clone())) {
                return self.output.document(document, Fate::LeftOut);
            }
        }
        self.output.document(document, after.map_or(Fate::Kept(before), Fate::Changed))
    }

    /// Decides about `subject` of `before`, and makes `after` what it becomes.
    async fn object(
        &self,
        document: &Document<'_>,
        before: &Value,
        after: &mut Option<Value>,
        subject: &Subject,
    ) -> anyhow::Result<Decision> {
        let (review, filled) = match (&subject.review, document.json()) {
            // As it was written: the answer may depend on more than its meaning.
            (Some(review), Some(json)) if *review == Pointer::root() => (json.to_owned(), Vec::new()),
            (Some(review), _) => {
                (before.pointer(review.as_str()).map(Value::to_string).unwrap_or_default(), Vec::new())
            }
            // Its pods differ from each other.
            (None, _) if W::WORKLOADS && !subject.pod.as_str().is_empty() => {
                (decide::workload_review(before, subject, &self.namespace)?, Vec::new())
            }
            (None, _) => decide::review(before, subject, &self.namespace)?,
        };
        let mut decision = decide(&self.webhook, &review).await?;
        if decision.outcome == Outcome::Patched {
            decision.patch.splice(..0, filled);
            let operations = rebase(&decision.patch, &format!("{}{}", subject.at, subject.pod));
            let after = after.get_or_insert_with(|| before.clone());
            apply(&operations, after).context("the webhook's patch does not apply")?;
        }
        Ok(decision)
    }

    async fn unreadable(
        &mut self,
        place: Place<'_>,
        document: &Document<'_>,
        error: &SyntaxError,
    ) -> io::Result<()> {
        // What is nested too deep for a value is skipped in a review, so the server does answer it.
        if let (OutputFormat::Review, Some(json)) = (self.output.format(), document.json())
            && let Ok(decision) = decide(&self.webhook, json).await
        {
            self.tell(&place.to_string(), &decision);
            return self.output.review(&decision);
        }
        self.report.problem(&place.to_string(), error);
        self.output.document(document, Fate::LeftOut)
    }

    fn tell(&mut self, label: &str, decision: &Decision) {
        let mut warnings = decision.warnings.iter();
        if decision.outcome == Outcome::Undecided
            && let Some(reason) = warnings.next()
        {
            self.report.problem(label, format!("undecided: {reason}"));
        }
        if decision.outcome == Outcome::Denied {
            self.report.problem(label, format!("denied: {}", decision.denial.as_deref().unwrap_or_default()));
        }
        for warning in warnings {
            self.report.line(&format!("{label}: warning: {warning}"));
        }
    }
}

/// Tells problems.
struct Report<'a> {
    stderr: &'a mut dyn Write,
    failed: bool,
}

impl Report<'_> {
    fn problem(&mut self, place: &str, problem: impl Display) {
        self.failed = true;
        self.line(&format!("{place}: {problem}"));
    }

    fn line(&mut self, line: &str) {
        // There is nowhere to tell that this failed.
        let _ = writeln!(self.stderr, "{}", printable(line));
    }
}
