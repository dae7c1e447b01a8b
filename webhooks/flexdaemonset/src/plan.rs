//! `flexdaemonset plan`: the size of a `DaemonSet`'s pod on each node.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use podshaper_core::facts::{Fact, FactKey};
use podshaper_core::object::group_of;
use podshaper_core::pod::Pod;
use podshaper_offline::console::{Console, printable};
use podshaper_offline::manifests::{FactFiles, read_objects};
use podshaper_offline::table::{ReportFormat, Table};
use serde_json::{Value, json};

use crate::options::{SelectionOptions, set_namespace};
use flexdaemonset_decision::daemon_set::named_template;
use flexdaemonset_decision::facts::SizingFacts;
use flexdaemonset_decision::namespace_limits::NamespaceLimits;
use flexdaemonset_decision::node::Node;
use flexdaemonset_decision::offline::OfflineCluster;
use flexdaemonset_decision::resource::{PerResource, SizedResource};
use flexdaemonset_decision::rules::Template;
use flexdaemonset_decision::size_range::{REMEDY, SizeRange};
use flexdaemonset_decision::sizing::{Sizing, size};
use flexdaemonset_decision::webhook::foreign_daemon_set;

/// Show the size of a DaemonSet's pod on each node.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct SizePlan {
    /// DaemonSets in YAML or JSON, and any objects of --facts: a file, a directory, or - for standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    facts: FactFiles,
    /// Namespace of objects that name none
    #[arg(short, long, value_name = "NAME", default_value = "default")]
    namespace: String,
    #[command(flatten)]
    selection: SelectionOptions,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: ReportFormat,
}

const HELP: &str = "\
Example:
  kubectl get nodes,namespaces,flexdaemonsettemplates,limitranges,resourcequotas -A -o yaml > cluster.yaml
  flexdaemonset plan -f daemonset.yaml --facts cluster.yaml

A pod's size is its total request by Kubernetes' formula. The table has the nodes that the DaemonSet's nodeSelector \
selects; taints and affinity are ignored.

Standard error says why the pods of a DaemonSet are not sized.

Exit status: 0 success; 1 no DaemonSet is sized, or a template is missing or invalid; 2 wrong usage.";

/// The size on one node.
struct Row<'a> {
    name: &'a str,
    node: &'a Node,
    sizing: Sizing<'a>,
}

impl SizePlan {
    /// Prints the plan.
    pub fn run(self, console: &mut Console<'_>) -> anyhow::Result<()> {
        let mut objects = self.facts.read()?;
        let mut files = read_objects(&self.files)?;
        set_namespace(&mut objects, &self.namespace);
        set_namespace(&mut files, &self.namespace);
        let facts = OfflineCluster::with_selection(objects.iter().chain(&files), self.selection.selection)?;
        let daemon_sets = files.iter().filter_map(Fact::new);
        let daemon_sets =
            daemon_sets.filter(|fact| fact.reference().kind == "DaemonSet" || facts.reads(*fact));
        let daemon_sets: Vec<_> = daemon_sets.collect();
        if daemon_sets.is_empty() {
            bail!("the files of -f contain no DaemonSet");
        }
        let mut planned = 0;
        for fact in daemon_sets {
            match Plan::of(&facts, fact)? {
                Ok(plan) => {
                    if planned > 0 && self.output == ReportFormat::Table {
                        writeln!(console.stdout)?;
                    }
                    plan.print(&facts, self.output, console.stdout)?;
                    planned += 1;
                }
                Err(reason) => {
                    let FactKey { namespace, name } = fact.key();
                    let line =
                        format!("DaemonSet {namespace}/{name}: its pods keep their own resources: {reason}");
                    console.message(printable(&line));
                }
            }
        }
        if planned == 0 {
            bail!("no DaemonSet in the files of -f is sized");
        }
        Ok(())
    }
}

/// A DaemonSet with pods that are sized.
struct Plan {
    key: FactKey,
    template: String,
    /// The pod template as JSON, with the DaemonSet as its controller.
    pod: String,
}

impl Plan {
    /// Or the reason why the pods of the DaemonSet aren't sized.
    fn of(facts: &OfflineCluster, fact: Fact<'_>) -> anyhow::Result<Result<Self, String>> {
        let key = fact.key();
        let FactKey { namespace, name } = &key;
        let mut pod = fact.object().pointer("/spec/template").cloned().unwrap_or_else(|| json!({}));
        let owner = fact.reference();
        let owner = json!({"apiVersion": owner.api_version, "kind": owner.kind, "name": name, "uid": "", "controller": true});
        if let Some(pod) = pod.as_object_mut() {
            let metadata = pod.entry("metadata").or_insert_with(|| json!({}));
            if metadata.is_null() {
                *metadata = json!({});
            }
            if let Some(metadata) = metadata.as_object_mut() {
                metadata.insert("ownerReferences".to_owned(), json!([owner]));
            }
        }
        let pod = pod.to_string();
        let view: Pod<'_> =
            serde_json::from_str(&pod).with_context(|| format!("DaemonSet {name}: its pod template"))?;
        if let Some(reason) = facts.exclusion(namespace, &view) {
            return Ok(Err(reason));
        }
        let own = named_template(|key| view.annotation(key)).map(str::to_owned);
        let reference = fact.reference();
        let group = group_of(&reference.api_version);
        let template = if facts.reads(fact) {
            let daemon_set = facts.daemon_set_named(group, &reference.kind, key.clone());
            own.or_else(|| Some(daemon_set?.template.as_deref()?.to_owned()))
        } else if own.is_none() {
            return Ok(Err(foreign_daemon_set(group)));
        } else {
            own
        };
        let Some(template) = template else { return Ok(Err("it names no template".to_owned())) };
        Ok(Ok(Self { key, template, pod }))
    }

    fn print(&self, facts: &OfflineCluster, output: ReportFormat, out: &mut dyn Write) -> anyhow::Result<()> {
        let FactKey { namespace, name } = &self.key;
        let template_name = &self.template;
        let template = facts
            .template_named(template_name)
            .with_context(|| {
                format!("DaemonSet {name}: there is no FlexDaemonsetTemplate {template_name} in --facts")
            })?
            .rules
            .as_ref()
            .map_err(|error| anyhow::anyhow!("FlexDaemonsetTemplate {template_name}: {error}"))?;
        let pod: Pod<'_> = serde_json::from_str(&self.pod)?;
        let selector = pod.spec.as_ref().and_then(|spec| spec.node_selector.as_ref());
        let selects = |node: &Node| {
            selector.is_none_or(|selector| selector.iter().all(|(key, value)| node.label(key) == Some(value)))
        };
        let limits = facts.namespace_limits(namespace);
        let mut rows = Vec::new();
        for (node_name, node) in facts.nodes().filter(|(_, node)| selects(node)) {
            let sizing = size(template, node, &limits, &pod, None)
                .map_err(|error| anyhow::anyhow!("DaemonSet {name}: {error}"))?;
            rows.push(Row { name: node_name, node, sizing });
        }
        let assumed =
            AssumedSizes::new(&rows, &pod).map_err(|error| anyhow::anyhow!("DaemonSet {name}: {error}"))?;
        match output {
            ReportFormat::Table => {
                table(namespace, name, template_name, &rows, out)?;
                assumed.print(out)?;
            }
            ReportFormat::Json => {
                let nodes: Vec<_> = rows.iter().map(Row::json).collect();
                let plan = json!({
                    "daemonSet": name, "namespace": namespace, "template": template_name, "nodes": nodes,
                    "autoscalers": assumed.json(),
                });
                writeln!(out, "{plan:#}")?;
            }
        }
        Ok(())
    }
}

/// The sizes that autoscalers assume for nodes that don't exist yet.
struct AssumedSizes {
    /// Karpenter: the size of one of these pods, whichever is the newest.
    pods: SizeRange,
    /// The cluster autoscaler: the requests of the pod template.
    template: PerResource<i64>,
}

impl AssumedSizes {
    fn new(rows: &[Row<'_>], pod: &Pod<'_>) -> Result<Self, String> {
        let mut pods = SizeRange::default();
        for row in rows {
            pods.add(&row.sizing.effective);
        }
        // A template without sizes leaves the requests as they are.
        let own = size(&Template::default(), &Node::default(), &NamespaceLimits::default(), pod, None)?;
        Ok(Self { pods, template: own.effective })
    }

    fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut template = SizeRange::default();
        template.add(&self.template);
        let pods = self.pods.describe();
        let template = template.describe();
        writeln!(out, "Karpenter assumes the newest pod's requests for every instance type: {pods}")?;
        writeln!(
            out,
            "The cluster autoscaler assumes the pod template's requests for a node group without nodes: {template}"
        )?;
        if self.pods.is_wide() {
            writeln!(out, "The sizes differ by more than a factor of two. For autoscalers, {REMEDY}")?;
        }
        Ok(())
    }

    fn json(&self) -> Value {
        let ends = |end: fn((i64, i64)) -> i64| {
            totals(&PerResource::from_fn(|resource| self.pods.of(resource).map_or(0, end)))
        };
        json!({
            "karpenter": {"smallest": ends(|(least, _)| least), "largest": ends(|(_, most)| most)},
            "clusterAutoscaler": totals(&self.template),
            "wideSpread": self.pods.is_wide(),
        })
    }
}

/// Amounts by the name of the resource.
fn amounts(of: &dyn Fn(SizedResource) -> Option<i64>) -> Value {
    let named = SizedResource::ALL
        .into_iter()
        .filter_map(|resource| Some((resource.name().to_owned(), resource.format(of(resource)?).into())));
    Value::Object(named.collect())
}

/// The same for totals, in which zero is no request.
fn totals(total: &PerResource<i64>) -> Value {
    amounts(&|resource| Some(*total.get(resource)).filter(|amount| *amount > 0))
}

fn table(
    namespace: &str,
    name: &str,
    template: &str,
    rows: &[Row<'_>],
    out: &mut dyn Write,
) -> io::Result<()> {
    writeln!(out, "DaemonSet {namespace}/{name}, template {template}")?;
    let mut table = Table::new(["NODE", "CPU", "SHARE", "MEMORY", "SHARE", "STORAGE", "SHARE", "NOTE"]);
    for row in rows {
        table.row([
            row.name.to_owned(),
            row.amount(SizedResource::Cpu),
            row.share(SizedResource::Cpu),
            row.amount(SizedResource::Memory),
            row.share(SizedResource::Memory),
            row.amount(SizedResource::Storage),
            row.share(SizedResource::Storage),
            row.sizing.warnings.join("; "),
        ]);
    }
    table.print(out)
}

impl Row<'_> {
    fn amount(&self, resource: SizedResource) -> String {
        match *self.sizing.effective.get(resource) {
            0 => "-".to_owned(),
            amount => resource.rounded(amount),
        }
    }

    /// Percent of the node's allocatable, to a tenth.
    fn share(&self, resource: SizedResource) -> String {
        match *self.node.allocatable.get(resource) {
            Some(allocatable) if allocatable > 0 => {
                let allocatable = i128::from(allocatable);
                let amount = i128::from(*self.sizing.effective.get(resource));
                let tenths = (amount * 1000 + allocatable / 2) / allocatable;
                format!("{}.{}%", tenths / 10, tenths % 10)
            }
            _ => "-".to_owned(),
        }
    }

    fn json(&self) -> Value {
        let containers = self.sizing.containers.iter().map(|container| {
            json!({
                "name": *container.container.name,
                "requests": amounts(&|resource| container.target(resource).request),
                "limits": amounts(&|resource| container.target(resource).limit),
            })
        });
        let containers: Vec<_> = containers.collect();
        json!({
            "node": self.name,
            "allocatable": amounts(&|resource| *self.node.allocatable.get(resource)),
            "requests": totals(&self.sizing.effective),
            "containers": containers,
            "warnings": self.sizing.warnings,
        })
    }
}
