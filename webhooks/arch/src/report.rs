//! `arch report`: which workloads could run on another architecture today, and what keeps the others.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use podshaper_core::object::{OwnerReference, controller_of};
use podshaper_core::pod::Pod;
use podshaper_core::workload::pod_template;
use podshaper_offline::block_on;
use podshaper_offline::console::{Console, printable};
use podshaper_offline::manifests::read_objects;
use podshaper_offline::table::{ReportFormat, Table};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::image_resolver::ImageResolver;
use crate::options::ImageOptions;
use arch_decision::images::{Access, Image, Images, Knowledge, LookupError, images_of};
use arch_decision::platform::Architecture;

/// Images that are asked for at a time.
const BATCH: usize = 16;
/// How long one batch may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Show which workloads could move to another architecture today
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub struct Report {
    /// Manifests, YAML or JSON: a file, a folder, or - for standard input, which is read if none is given
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The architecture to move to
    #[arg(long = "for", value_name = "ARCH", default_value = "arm64")]
    target: Architecture,
    /// Output format
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = ReportFormat::Table)]
    output: ReportFormat,
    #[command(flatten)]
    options: ImageOptions,
}

const HELP: &str = "\
For all workloads of a cluster:

  kubectl get --all-namespaces --output yaml deployments,statefulsets,daemonsets,jobs,cronjobs | arch report

Registries are asked with the credentials of --docker-config. A workload is ready if all its images run on the architecture; \
blocked if one does not (the reason names it and its architectures); unknown if a registry does not answer. The images to rebuild \
follow the workloads, those of most workloads first.";

/// Whether a workload can move to the architecture.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Readiness {
    /// These images don't run there; each with what it runs on.
    Blocked(Vec<(String, String)>),
    /// Images without an answer, with the reason.
    Unknown(Vec<(String, LookupError)>),
    /// All images run there.
    Ready,
}

/// A workload.
#[derive(Debug)]
struct ReportedWorkload {
    namespace: String,
    name: String,
    images: Vec<String>,
}

impl Report {
    /// Runs the command.
    pub fn run(mut self, console: &mut Console<'_>) -> anyhow::Result<()> {
        if self.files.is_empty() {
            if console.interactive {
                bail!("nothing to read: name manifests by -f FILE, or pipe them in (see --help)");
            }
            self.files.push("-".into());
        }
        let workloads = workloads(&read_objects(&self.files)?);
        if workloads.is_empty() {
            bail!("no workload in there: nothing that has a pod template, and no pod");
        }
        let (_, images) = self.options.images(None)?;
        let known = block_on(start_lookup(&images, &workloads))?;
        let mut rows: Vec<_> =
            workloads.iter().map(|workload| (workload.readiness(&known, &self.target), workload)).collect();
        rows.sort_by(|(a, one), (b, other)| {
            (a.word(), &one.namespace, &one.name).cmp(&(b.word(), &other.namespace, &other.name))
        });
        match self.output {
            ReportFormat::Table => self.print(console.stdout, &rows),
            ReportFormat::Json => print_json(console.stdout, &rows),
        }
    }

    fn print(&self, out: &mut dyn Write, rows: &[(Readiness, &ReportedWorkload)]) -> anyhow::Result<()> {
        let target = self.target.to_string();
        let mut table = Table::new(["NAMESPACE", "WORKLOAD", &target.to_uppercase(), "WHY"]);
        for (readiness, workload) in rows {
            let (namespace, name) = (workload.namespace.clone(), workload.name.clone());
            table.row([namespace, name, readiness.word().to_owned(), readiness.reason()]);
        }
        table.print(out)?;
        let mut blocking: BTreeMap<&str, usize> = BTreeMap::new();
        for (readiness, _) in rows {
            if let Readiness::Blocked(images) = readiness {
                for (image, _) in images {
                    *blocking.entry(image).or_default() += 1;
                }
            }
        }
        let count = |word: &str| rows.iter().filter(|(readiness, _)| readiness.word() == word).count();
        let (ready, blocked, unknown) = (count("ready"), count("blocked"), count("unknown"));
        writeln!(
            out,
            "\n{} workloads: {ready} ready for {target}, {blocked} blocked, {unknown} unknown",
            rows.len()
        )?;
        if !blocking.is_empty() {
            let mut images: Vec<_> = blocking.into_iter().collect();
            images.sort_by_key(|(image, count)| (std::cmp::Reverse(*count), *image));
            writeln!(out, "\nTo rebuild for {target}:")?;
            for (image, count) in images {
                let plural = if count == 1 { "" } else { "s" };
                writeln!(out, "  {} ({count} workload{plural})", printable(image))?;
            }
        }
        Ok(())
    }
}

fn print_json(out: &mut dyn Write, rows: &[(Readiness, &ReportedWorkload)]) -> anyhow::Result<()> {
    let items = rows.iter().map(|(readiness, workload)| {
        let mut item =
            json!({"namespace": workload.namespace, "workload": workload.name, "standing": readiness.word()});
        if let Some(item) = item.as_object_mut() {
            match readiness {
                Readiness::Ready => None,
                Readiness::Blocked(images) => item.insert(
                    "images".to_owned(),
                    images.iter().map(|(image, runs)| json!({"image": image, "runsOn": runs})).collect(),
                ),
                Readiness::Unknown(images) => item.insert(
                    "images".to_owned(),
                    images
                        .iter()
                        .map(|(image, why)| json!({"image": image, "unknown": why.label()}))
                        .collect(),
                ),
            };
        }
        item
    });
    Ok(writeln!(out, "{:#}", items.collect::<Value>())?)
}

impl Readiness {
    fn word(&self) -> &'static str {
        match self {
            Self::Blocked(_) => "blocked",
            Self::Ready => "ready",
            Self::Unknown(_) => "unknown",
        }
    }

    fn reason(&self) -> String {
        let parts: Vec<_> = match self {
            Self::Ready => Vec::new(),
            Self::Blocked(images) => {
                images.iter().map(|(image, runs)| format!("{image} runs on {runs}")).collect()
            }
            // Many images of one registry have the same reason, which is listed once.
            Self::Unknown(images) => {
                let mut by_reason: BTreeMap<LookupError, Vec<&str>> = BTreeMap::new();
                for (image, why) in images {
                    by_reason.entry(*why).or_default().push(image);
                }
                by_reason.iter().map(|(why, images)| format!("{} {why}", images.join(", "))).collect()
            }
        };
        parts.join("; ")
    }
}

impl ReportedWorkload {
    fn readiness(&self, known: &BTreeMap<String, Knowledge>, target: &Architecture) -> Readiness {
        let (mut blocked, mut unknown) = (Vec::new(), Vec::new());
        for image in &self.images {
            match known.get(image) {
                Some(Knowledge::Known(platforms)) if platforms.run_on("linux", target) => {}
                Some(Knowledge::Known(platforms)) => {
                    blocked.push((image.clone(), platforms.on("linux")));
                }
                Some(Knowledge::Unknown(why)) => unknown.push((image.clone(), *why)),
                None => unknown.push((image.clone(), LookupError::Timeout)),
            }
        }
        match (blocked.is_empty(), unknown.is_empty()) {
            (false, _) => Readiness::Blocked(blocked),
            (true, false) => Readiness::Unknown(unknown),
            (true, true) => Readiness::Ready,
        }
    }
}

/// Objects that are pods or have a template of some; of a Deployment, its `ReplicaSet`s and their pods the Deployment alone, if it
/// is here.
fn workloads(objects: &[Value]) -> Vec<ReportedWorkload> {
    let all: Vec<_> = objects.iter().filter_map(|object| Some((object, workload(object)?))).collect();
    let uids = all.iter().filter_map(|(object, _)| object.pointer("/metadata/uid")?.as_str());
    let here: HashSet<_> = uids.collect();
    let is_own =
        |(object, _): &(&Value, ReportedWorkload)| controller(object).is_none_or(|uid| !here.contains(&*uid));
    all.into_iter().filter(is_own).map(|(_, workload)| workload).collect()
}

/// The UID of what manages an object.
fn controller(object: &Value) -> Option<String> {
    let owners = object.pointer("/metadata/ownerReferences").map(Vec::<OwnerReference>::deserialize)?.ok()?;
    controller_of(Some(&owners)).map(|owner| owner.uid.clone())
}

/// The pod that an object is, or has a template of.
fn workload(object: &Value) -> Option<ReportedWorkload> {
    let kind = object.get("kind").and_then(Value::as_str)?;
    let is_pod = kind == "Pod" && object.get("apiVersion").and_then(Value::as_str) == Some("v1");
    let pod = if is_pod { object } else { object.pointer(pod_template(object)?.as_str())? };
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let pod = pod.to_string();
    let pod: Pod<'_> = serde_json::from_str(&pod).ok()?;
    let images = images_of(&pod).ok()?.iter().map(|image| image.reference.to_owned()).collect();
    Some(ReportedWorkload {
        namespace: text("/metadata/namespace").to_owned(),
        name: format!("{kind}/{}", text("/metadata/name")),
        images,
    })
}

/// Asks for every image once, a few at a time; progress goes to a terminal.
async fn start_lookup(
    images: &ImageResolver,
    workloads: &[ReportedWorkload],
) -> anyhow::Result<BTreeMap<String, Knowledge>> {
    let names: Vec<_> =
        workloads.iter().flat_map(|workload| &workload.images).collect::<BTreeSet<_>>().into_iter().collect();
    let (mut known, mut progress) = (BTreeMap::new(), io::stderr());
    let shown = progress.is_terminal();
    for (index, batch) in names.chunks(BATCH).enumerate() {
        if shown {
            write!(progress, "\r{} of {} images ...\x1b[K", index * BATCH, names.len())
                .context("standard error")?;
        }
        let wanted: Vec<_> = batch
            .iter()
            .map(|name| Image { reference: name, always: false, anew: false, volume: false })
            .collect();
        let answers = images.known(&wanted, &Access::default(), Instant::now() + PATIENCE).await;
        known.extend(batch.iter().map(|name| (*name).clone()).zip(answers.images));
    }
    if shown {
        write!(progress, "\r\x1b[K").context("standard error")?;
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        report: Report,
    }

    #[test]
    fn owned_objects_count_with_their_owner() {
        let template = json!({"spec": {"containers": [{"image": "a"}]}});
        let object = |api: &str, kind: &str, owner: Option<&str>, spec: Value| {
            let owners: Vec<_> =
                owner.map(|uid| json!({"uid": uid, "controller": true})).into_iter().collect();
            let metadata = json!({"name": "x", "uid": kind, "ownerReferences": owners});
            json!({"apiVersion": api, "kind": kind, "metadata": metadata, "spec": spec})
        };
        let objects = [
            object("apps/v1", "Deployment", None, json!({"template": template})),
            object("apps/v1", "ReplicaSet", Some("Deployment"), json!({"template": template})),
            object("v1", "Pod", Some("ReplicaSet"), template["spec"].clone()),
            // Its owner has no pods of its own.
            object("example.com/v1", "Database", None, json!({})),
            object("apps/v1", "StatefulSet", Some("Database"), json!({"template": template})),
            object("batch/v1", "Job", Some("elsewhere"), json!({"template": template})),
        ];
        let names: Vec<_> = workloads(&objects).into_iter().map(|workload| workload.name).collect();
        assert_eq!(names, ["Deployment/x", "StatefulSet/x", "Job/x"]);
    }

    #[test]
    fn control_characters_are_escaped() {
        let workload =
            ReportedWorkload { namespace: "n".into(), name: "Pod/\u{1b}[2J".into(), images: Vec::new() };
        let blocked = Readiness::Blocked(vec![("a\u{1b}]0;x\u{7}".into(), "amd64".into())]);
        let mut out = Vec::new();
        Cli::parse_from(["report"]).report.print(&mut out, &[(blocked, &workload)]).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains("To rebuild for arm64:\n  a ]0;x  (1 workload)"), "{out}");
        assert!(!out.contains(|c: char| c.is_control() && c != '\n'), "{out:?}");
    }
}
