//! `flexdaemonset plan`: the size of a `DaemonSet`'s pod on each node.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use podshaper_core::facts::{Fact, FactKey};
use podshaper_core::pod::Pod;
use podshaper_offline::console::Console;
use podshaper_offline::manifests::{FactFiles, read_objects};
use podshaper_offline::table::{ReportFormat, Table};
use serde_json::{Value, json};

use flexdaemonset_decision::facts::SizingFacts;
use flexdaemonset_decision::node::Node;
use flexdaemonset_decision::offline::OfflineCluster;
use flexdaemonset_decision::resource::SizedResource;
use flexdaemonset_decision::sizing::{Sizing, size};

/// Show the size of a DaemonSet's pod on each node.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct SizePlan {
    /// DaemonSets, and any facts: a file or folder of YAML or JSON, or - for standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    facts: FactFiles,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: ReportFormat,
}

const HELP: &str = "\
  kubectl get nodes,flexdaemonsettemplates,limitranges -A -o yaml > cluster.yaml
  flexdaemonset plan -f daemonset.yaml --facts cluster.yaml

A pod's size is its total request by Kubernetes' formula. The table has the nodes that the DaemonSet's nodeSelector \
selects; taints and affinity are ignored.

Exit status: 0 success; 1 a DaemonSet names no template, or a missing or invalid one; 2 invalid usage.";

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
        objects.extend(read_objects(&self.files)?);
        let facts = OfflineCluster::new(&objects)?;
        let daemon_sets =
            objects.iter().filter_map(Fact::new).filter(|fact| fact.is_kind("apps", "DaemonSet"));
        let daemon_sets: Vec<_> = daemon_sets.collect();
        if daemon_sets.is_empty() {
            bail!("the files of -f contain no DaemonSet");
        }
        for (index, daemon_set) in daemon_sets.into_iter().enumerate() {
            if index > 0 && self.output == ReportFormat::Table {
                writeln!(console.stdout)?;
            }
            print_plan(&facts, daemon_set, self.output, console.stdout)?;
        }
        Ok(())
    }
}

fn print_plan(
    facts: &OfflineCluster,
    fact: Fact<'_>,
    output: ReportFormat,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let (daemon_set, FactKey { namespace, name }) = (fact.object(), fact.key());
    let template_name = facts
        .daemon_set_named(&namespace, &name)
        .and_then(|daemon_set| daemon_set.template.clone())
        .with_context(|| format!("DaemonSet {name} names no template"))?;
    let template = facts
        .template_named(&template_name)
        .with_context(|| {
            format!("DaemonSet {name}: there is no FlexDaemonsetTemplate {template_name} in --facts")
        })?
        .rules
        .as_ref()
        .map_err(|error| anyhow::anyhow!("FlexDaemonsetTemplate {template_name}: {error}"))?;
    let pod = daemon_set.pointer("/spec/template").unwrap_or(&Value::Null).to_string();
    let pod: Pod<'_> =
        serde_json::from_str(&pod).with_context(|| format!("DaemonSet {name}: its pod template"))?;
    let selector = pod.spec.as_ref().and_then(|spec| spec.node_selector.as_ref());
    let selects = |node: &Node| {
        selector.is_none_or(|selector| selector.iter().all(|(key, value)| node.label(key) == Some(value)))
    };
    let limits = facts.namespace_limits(&namespace);
    let mut rows = Vec::new();
    for (node_name, node) in facts.nodes().filter(|(_, node)| selects(node)) {
        let sizing = size(template, node, &limits, &pod, None)
            .map_err(|error| anyhow::anyhow!("DaemonSet {name}: {error}"))?;
        rows.push(Row { name: node_name, node, sizing });
    }
    match output {
        ReportFormat::Table => table(&namespace, &name, &template_name, &rows, out)?,
        ReportFormat::Json => {
            let nodes: Vec<_> = rows.iter().map(Row::json).collect();
            let plan =
                json!({"daemonSet": name, "namespace": namespace, "template": template_name, "nodes": nodes});
            writeln!(out, "{plan:#}")?;
        }
    }
    Ok(())
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
            amount => resource.format(amount),
        }
    }

    /// Percent of the node's allocatable, to a tenth.
    fn share(&self, resource: SizedResource) -> String {
        match *self.node.allocatable.get(resource) {
            Some(allocatable) if allocatable > 0 => {
                let tenths =
                    i128::from(*self.sizing.effective.get(resource)) * 1000 / i128::from(allocatable);
                format!("{}.{}%", tenths / 10, tenths % 10)
            }
            _ => "-".to_owned(),
        }
    }

    fn json(&self) -> Value {
        let amounts = |of: &dyn Fn(SizedResource) -> Option<i64>| {
            let named = SizedResource::ALL
                .into_iter()
                .filter_map(|r| Some((r.name().to_owned(), r.format(of(r)?).into())));
            Value::Object(named.collect())
        };
        let containers = self.sizing.containers.iter().map(|container| {
            json!({
                "name": *container.container.name,
                "requests": amounts(&|resource| container.target(resource).request),
                "limits": amounts(&|resource| container.target(resource).limit),
            })
        });
        let containers: Vec<_> = containers.collect();
        let effective = &self.sizing.effective;
        json!({
            "node": self.name,
            "allocatable": amounts(&|resource| *self.node.allocatable.get(resource)),
            "requests": amounts(&|resource| Some(*effective.get(resource)).filter(|amount| *amount > 0)),
            "containers": containers,
            "warnings": self.sizing.warnings,
        })
    }
}
