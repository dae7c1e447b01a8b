//! `arch report`: the workloads that could run on another architecture today, and the reasons that keep the others.

mod input;
mod lookups;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{bail, ensure};
use clap::Args;
use podshaper_core::pod::Pod;
use podshaper_offline::block_on;
use podshaper_offline::console::{Console, printable};
use podshaper_offline::manifests::read_objects;
use podshaper_offline::table::{ReportFormat, Table};
use serde_json::{Value, json};

use crate::options::ImageOptions;
use arch_decision::platform::{Architecture, KUBERNETES_ARCHITECTURES};
use arch_decision::readiness::Readiness;
use arch_decision::{Arch, UnknownReason};
use input::select;
use lookups::{BATCH_TIMEOUT, CollectedImages};

/// Show which workloads could move to another architecture today
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub struct Report {
    /// Manifests in YAML or JSON: a file, a directory, or - for standard input (default)
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The architecture to move to
    #[arg(long = "for", value_name = "ARCH", default_value = "arm64", value_parser = known_architecture)]
    target: Architecture,
    /// Fail if a workload is not ready, or if a pod is on a node where an image does not run
    #[arg(long)]
    exit_code: bool,
    /// Output format
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = ReportFormat::Table)]
    output: ReportFormat,
    #[command(flatten)]
    options: ImageOptions,
}

const HELP: &str = "\
For all workloads of a cluster:

  kubectl get --all-namespaces --output yaml deployments,statefulsets,daemonsets,jobs,cronjobs | arch report

For all pods, and where they run:

  kubectl get --all-namespaces --output yaml nodes,pods | arch report

The command decides as the webhook does, with the same configuration file, and asks registries with the credentials of \
--docker-config. A workload is ready if all its images run on the architecture; blocked if one does not (the reason names it and its \
architectures); pinned if its node selector or affinity excludes the architecture; unknown if an image has no known architecture; not \
applicable if it is for another operating system. The images to rebuild follow the workloads, those of most workloads first. Pods \
with a node in the input follow, if an image does not run there.

Exit status: 0 success; 1 the input can't be read, or with --exit-code a workload is not ready; 2 wrong usage.";

/// A pod, or the pod template of a workload.
#[derive(Debug)]
struct ReportedPod {
    namespace: String,
    /// `KIND/NAME`.
    name: String,
    /// JSON.
    pod: String,
}

/// The objects of the input that a report is about.
#[derive(Debug, Default)]
struct Input {
    /// Pods and objects with a pod template. Objects that another one of them controls are left out.
    workloads: Vec<ReportedPod>,
    /// Pods on one of `nodes`.
    placed: Vec<ReportedPod>,
    /// The architecture of each Linux node.
    nodes: BTreeMap<String, Architecture>,
}

/// A pod on a node where images of it don't run.
struct Misplaced<'i> {
    pod: &'i ReportedPod,
    node: &'i str,
    architecture: &'i Architecture,
    images: Vec<(String, String)>,
}

fn known_architecture(text: &str) -> Result<Architecture, String> {
    let architecture: Architecture = text.parse().map_err(|error| format!("{error}"))?;
    if architecture.is_known() {
        return Ok(architecture);
    }
    let known = KUBERNETES_ARCHITECTURES.join(", ");
    Err(format!("no Kubernetes node has this architecture; those of nodes are {known}"))
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
        let input = select(&read_objects(&self.files)?);
        if input.workloads.is_empty() && input.placed.is_empty() {
            bail!("no workload in there: nothing that has a pod template, and no pod");
        }
        let (settings, images) = self.options.offline()?;
        let pods = input.workloads.iter().chain(&input.placed);
        let collected = block_on(CollectedImages::look_up(&images, &settings, pods))?;
        let arch = Arch::new(settings, collected);
        let (mut rows, misplaced) = block_on(self.assess(&arch, &input))?;
        rows.sort_by(|(a, one), (b, other)| {
            (word(a), &one.namespace, &one.name).cmp(&(word(b), &other.namespace, &other.name))
        });
        match self.output {
            ReportFormat::Table => self.print(console.stdout, &rows, &misplaced)?,
            ReportFormat::Json => print_json(console.stdout, &rows, &misplaced)?,
        }
        let is_fine =
            |readiness: &Readiness| matches!(readiness, Readiness::Ready | Readiness::NotApplicable(_));
        let open = rows.iter().filter(|(readiness, _)| !is_fine(readiness)).count();
        ensure!(
            !self.exit_code || (open == 0 && misplaced.is_empty()),
            "{open} of {} not ready for {}, {} where an image does not run",
            count(rows.len(), "workload"),
            self.target,
            count(misplaced.len(), "pod")
        );
        Ok(())
    }

    async fn assess<'i>(
        &self,
        arch: &Arch<CollectedImages>,
        input: &'i Input,
    ) -> anyhow::Result<(Vec<(Readiness, &'i ReportedPod)>, Vec<Misplaced<'i>>)> {
        let deadline = Instant::now() + BATCH_TIMEOUT;
        let mut rows = Vec::new();
        for workload in &input.workloads {
            let pod: Pod<'_> = serde_json::from_str(&workload.pod)?;
            rows.push((arch.readiness(&pod, &workload.namespace, &self.target, deadline).await?, workload));
        }
        let mut misplaced = Vec::new();
        for placed in &input.placed {
            let pod: Pod<'_> = serde_json::from_str(&placed.pod)?;
            let Some((node, architecture)) = pod.node().and_then(|name| input.nodes.get_key_value(name))
            else {
                continue;
            };
            if let Readiness::Blocked(images) =
                arch.readiness(&pod, &placed.namespace, architecture, deadline).await?
            {
                misplaced.push(Misplaced { pod: placed, node, architecture, images });
            }
        }
        Ok((rows, misplaced))
    }

    fn print(
        &self,
        out: &mut dyn Write,
        rows: &[(Readiness, &ReportedPod)],
        misplaced: &[Misplaced<'_>],
    ) -> anyhow::Result<()> {
        let target = self.target.to_string();
        if !rows.is_empty() {
            let mut table = Table::new(["NAMESPACE", "WORKLOAD", &target.to_uppercase(), "WHY"]);
            for (readiness, workload) in rows {
                let namespace = workload.namespace.clone();
                let name = workload.name.clone();
                table.row([namespace, name, word(readiness).to_owned(), reason(readiness)]);
            }
            table.print(out)?;
            let of = |own: &str| rows.iter().filter(|(readiness, _)| word(readiness) == own).count();
            let mut parts = vec![format!("{} ready for {target}", of(READY))];
            parts.push(format!("{} blocked", of(BLOCKED)));
            parts.extend(
                Some(of(PINNED)).filter(|pinned| *pinned > 0).map(|pinned| format!("{pinned} pinned")),
            );
            parts.push(format!("{} unknown", of(UNKNOWN)));
            let others = Some(of(NOT_APPLICABLE)).filter(|others| *others > 0);
            parts.extend(others.map(|others| format!("{others} not applicable")));
            writeln!(out, "\n{}: {}", count(rows.len(), "workload"), parts.join(", "))?;
        }
        self.print_images(out, rows)?;
        if !misplaced.is_empty() {
            writeln!(out, "\nOn nodes where an image does not run:")?;
            let mut table = Table::new(["NAMESPACE", "POD", "NODE", "ARCH", "WHY"]);
            for Misplaced { pod, node, architecture, images } in misplaced {
                let name = pod.name.strip_prefix("Pod/").unwrap_or(&pod.name).to_owned();
                let node = (*node).to_owned();
                let architecture = architecture.to_string();
                table.row([pod.namespace.clone(), name, node, architecture, runs_on(images)]);
            }
            table.print(out)?;
        }
        Ok(())
    }

    fn print_images(&self, out: &mut dyn Write, rows: &[(Readiness, &ReportedPod)]) -> anyhow::Result<()> {
        let mut blocking: BTreeMap<&str, usize> = BTreeMap::new();
        for (readiness, _) in rows {
            if let Readiness::Blocked(images) = readiness {
                for image in images.iter().map(|(image, _)| &**image).collect::<BTreeSet<_>>() {
                    *blocking.entry(image).or_default() += 1;
                }
            }
        }
        if !blocking.is_empty() {
            let mut images: Vec<_> = blocking.into_iter().collect();
            images.sort_by_key(|(image, count)| (std::cmp::Reverse(*count), *image));
            writeln!(out, "\nTo rebuild for {}:", self.target)?;
            for (image, workloads) in images {
                writeln!(out, "  {} ({})", printable(image), count(workloads, "workload"))?;
            }
        }
        Ok(())
    }
}

/// A number and its noun.
fn count(number: usize, noun: impl Display) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn print_json(
    out: &mut dyn Write,
    rows: &[(Readiness, &ReportedPod)],
    misplaced: &[Misplaced<'_>],
) -> anyhow::Result<()> {
    let runs_on = |images: &[(String, String)]| -> Value {
        images.iter().map(|(image, runs)| json!({"image": image, "runsOn": runs})).collect()
    };
    let items = rows.iter().map(|(readiness, workload)| {
        let mut item =
            json!({"namespace": workload.namespace, "workload": workload.name, "result": word(readiness)});
        let (key, value) = match readiness {
            Readiness::Ready | Readiness::Pinned => return item,
            Readiness::Blocked(images) => ("images", runs_on(images)),
            Readiness::NotApplicable(os) => ("os", json!(os)),
            Readiness::Unknown(images) => (
                "images",
                images.iter().map(|(image, why)| json!({"image": image, "unknown": why.label()})).collect(),
            ),
        };
        if let Some(item) = item.as_object_mut() {
            item.insert(key.to_owned(), value);
        }
        item
    });
    let misplaced = misplaced.iter().map(|Misplaced { pod, node, architecture, images }| {
        json!({"namespace": pod.namespace, "workload": pod.name, "result": "misplaced", "node": node,
            "architecture": architecture.to_string(), "images": runs_on(images)})
    });
    Ok(writeln!(out, "{:#}", items.chain(misplaced).collect::<Value>())?)
}

const READY: &str = "ready";
const BLOCKED: &str = "blocked";
const PINNED: &str = "pinned";
const UNKNOWN: &str = "unknown";
const NOT_APPLICABLE: &str = "not-applicable";

fn word(readiness: &Readiness) -> &'static str {
    match readiness {
        Readiness::Blocked(_) => BLOCKED,
        Readiness::Pinned => PINNED,
        Readiness::Ready => READY,
        Readiness::Unknown(_) => UNKNOWN,
        Readiness::NotApplicable(_) => NOT_APPLICABLE,
    }
}

fn reason(readiness: &Readiness) -> String {
    match readiness {
        Readiness::Ready => String::new(),
        Readiness::Blocked(images) => runs_on(images),
        Readiness::Pinned => "its node selector or affinity excludes the architecture".to_owned(),
        Readiness::NotApplicable(os) => format!("runs on {os}"),
        // Many images of one registry have the same reason, which is listed once.
        Readiness::Unknown(images) => {
            let mut by_reason: BTreeMap<&UnknownReason, Vec<&str>> = BTreeMap::new();
            for (image, why) in images {
                by_reason.entry(why).or_default().push(image);
            }
            let parts = by_reason.iter().map(|(why, images)| format!("{} {why}", images.join(", ")));
            parts.collect::<Vec<_>>().join("; ")
        }
    }
}

fn runs_on(images: &[(String, String)]) -> String {
    let parts = images.iter().map(|(image, runs)| format!("{image} runs on {runs}"));
    parts.collect::<Vec<_>>().join("; ")
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
        let input = select(&objects);
        let names: Vec<_> = input.workloads.into_iter().map(|workload| workload.name).collect();
        assert_eq!(names, ["Deployment/x", "StatefulSet/x", "Job/x"]);
    }

    #[test]
    fn control_characters_are_escaped() {
        let namespace = "n".to_owned();
        let name = "Pod/\u{1b}[2J".to_owned();
        let workload = ReportedPod { namespace, name, pod: String::new() };
        let blocked = Readiness::Blocked(vec![("a\u{1b}]0;x\u{7}".into(), "amd64".into())]);
        let mut out = Vec::new();
        Cli::parse_from(["report"]).report.print(&mut out, &[(blocked, &workload)], &[]).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains("To rebuild for arm64:\n  a ]0;x  (1 workload)"), "{out}");
        assert!(!out.contains(|c: char| c.is_control() && c != '\n'), "{out:?}");
    }

    #[test]
    fn architecture_must_be_one_of_nodes() {
        for (name, expected) in [
            ("arm64", true),
            ("arm/v7", true),
            ("riscv64", true),
            ("amd46", false),
            ("wasm", false),
            ("ARM", false),
        ] {
            assert_eq!(Cli::try_parse_from(["report", "--for", name]).is_ok(), expected, "{name}");
        }
    }
}
