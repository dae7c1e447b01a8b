//! `distributor plan` prints the group of each pod of a workload.

use std::path::PathBuf;

use anyhow::{anyhow, bail};
use podshaper_offline::console::Console;
use podshaper_offline::manifests::read_objects;
use podshaper_offline::plan::PlanArgs;
use serde_json::Value;

use distributor_decision::crd::crd;
use distributor_decision::offline::Offline;

/// Show the groups of a workload's pods, in order.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct DistributionPlan {
    /// PodDistributors in YAML or JSON: a file, a directory, or - for standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    plan: PlanArgs,
}

const HELP: &str = "\
  distributor plan -f poddistributor.yaml --replicas 10

A pod takes the first free slot, so a workload that grows or shrinks keeps its shares: among the first N slots, each group has \
its exact share, for every N. A pod with a node selector of its own takes slots of matching groups only.

Exit status: 0 success; 1 a PodDistributor is invalid or missing; 2 wrong usage.";

impl DistributionPlan {
    /// Prints the plan.
    pub fn run(self, console: &mut Console<'_>) -> anyhow::Result<()> {
        let facts = Offline::new(&read_objects(&self.files)?)?;
        if facts.all().is_empty() {
            bail!("there is no PodDistributor in what was given by -f");
        }
        let definition = crd();
        let schema = definition.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec");
        let schema = schema.cloned().unwrap_or_default();
        for (index, distributor) in facts.all().iter().enumerate() {
            let (name, target) = (&distributor.name, &distributor.target);
            let valid =
                distributor.spec.as_ref().map_err(|error| anyhow!("PodDistributor {name}: {error}"))?;
            if let Some(field) = stray(&distributor.raw_spec, &schema, "spec") {
                bail!("PodDistributor {name}: {field}: there is no such field");
            }
            if index > 0 {
                writeln!(console.stdout)?;
            }
            let replicas = self.plan.replicas;
            let title = format!("PodDistributor {name}: {replicas} pods of {} {}", target.kind, target.name);
            self.plan.print(&title, &valid.allocator, console.stdout)?;
        }
        Ok(())
    }
}

/// The first field of `value` that `schema` doesn't have: the API server refuses it, or drops it.
fn stray(value: &Value, schema: &Value, path: &str) -> Option<String> {
    if let (Some(items), Some(schema)) = (value.as_array(), schema.get("items")) {
        return items
            .iter()
            .enumerate()
            .find_map(|(index, item)| stray(item, schema, &format!("{path}[{index}]")));
    }
    let (fields, known) = (value.as_object()?, schema.get("properties")?.as_object()?);
    fields.iter().find_map(|(name, field)| {
        let path = format!("{path}.{name}");
        known.get(name).map_or_else(|| Some(path.clone()), |schema| stray(field, schema, &path))
    })
}
