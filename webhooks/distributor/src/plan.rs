//! `distributor plan`: the group of each pod of a workload.

use std::path::PathBuf;

use anyhow::{anyhow, bail};
use podshaper_core::facts::Fact;
use podshaper_offline::console::Console;
use podshaper_offline::manifests::read_objects;
use podshaper_offline::plan::PlanArgs;
use podshaper_placement::namespace::ExcludedGroup;
use serde_json::{Value, json};

use distributor_decision::crd::{GROUP, KIND, crd};
use distributor_decision::distributor::{Distributor, ValidSpec};
use distributor_decision::facts::DistributorFacts;
use distributor_decision::offline::FileFacts;
use distributor_decision::status::GroupState;

/// Show the group of each pod of a workload, in the order of creation
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
Example:
  distributor plan -f poddistributor.yaml --replicas 10

Each pod takes the first free slot, so that a workload keeps its shares when it grows and shrinks: at no number of pods is a group \
off its share by a whole pod. Pods with a node selector that excludes a group go to the other groups.

Exit status: 0 success; 1 a PodDistributor is invalid, or there is none; 2 wrong usage.";

impl DistributionPlan {
    /// Prints the plan.
    pub fn run(self, console: &mut Console<'_>) -> anyhow::Result<()> {
        let objects = read_objects(&self.files)?;
        let facts = FileFacts::new(&objects)?;
        if facts.distributors().is_empty() {
            bail!("no PodDistributor in the files of -f");
        }
        let definition = crd();
        let schema = definition.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec");
        let schema = schema.cloned().unwrap_or_default();
        for (index, distributor) in facts.distributors().iter().enumerate() {
            let name = &distributor.name;
            let target = &distributor.target;
            let spec =
                distributor.spec.as_ref().map_err(|error| anyhow!("PodDistributor {name}: {error}"))?;
            let fields = raw_spec(&objects, distributor).and_then(|raw| unknown_field(raw, &schema, "spec"));
            if let Some(field) = fields {
                bail!("PodDistributor {name}: {field}: unknown field");
            }
            if index > 0 && self.plan.is_table() {
                writeln!(console.stdout)?;
            }
            let replicas = self.plan.replicas;
            let title = format!("PodDistributor {name}: {replicas} pods of {target}");
            let subject = json!({
                "podDistributor": name, "namespace": distributor.namespace,
                "target": match &target.selector {
                    Some(_) => json!({"selector": target.text()}),
                    None => json!({"kind": target.kind(), "name": target.name()}),
                },
            });
            self.plan.print(&title, &subject, &spec.allocator, console.stdout)?;
            for note in notes(&facts, distributor, spec) {
                writeln!(console.stderr, "note: PodDistributor {name}: {note}")?;
            }
        }
        Ok(())
    }
}

/// The spec of a distributor as it is in the files.
fn raw_spec<'o>(objects: &'o [Value], distributor: &Distributor) -> Option<&'o Value> {
    let mut facts = objects.iter().filter_map(Fact::new).filter(|fact| fact.is_kind(GROUP, KIND));
    let found = facts.find(|fact| {
        let key = fact.key();
        (&key.namespace, &key.name) == (&distributor.namespace, &distributor.name)
    });
    found?.object().get("spec")
}

/// Notes beside the shares: groups that the namespace excludes, groups that are closed in the status, and stand-ins.
fn notes(facts: &FileFacts, distributor: &Distributor, spec: &ValidSpec) -> Vec<String> {
    let policy = spec.allocator.policy();
    let mut notes = Vec::new();
    let restrictions = facts.namespace_restrictions(&distributor.namespace).unwrap_or_default();
    for ExcludedGroup { group, annotation } in restrictions.excluded(policy) {
        let name = policy.groups().get(group).map(|group| &*group.name).unwrap_or_default();
        notes.push(format!("{name} gets no pods: the annotation {annotation} of the namespace excludes it"));
    }
    for (index, group) in policy.groups().iter().enumerate() {
        let status = distributor.status.group(policy, index).filter(|status| status.is_closed());
        match status.map(|status| (status.state, &status.next_probe)) {
            Some((Some(GroupState::Probing), _)) => {
                notes.push(format!(
                    "{} is closed: one pod tries it, the others go to open groups",
                    group.name
                ));
            }
            Some((_, next)) => {
                let next = next.as_ref().map(|next| format!("; the next pod tries it at {next}"));
                let next = next.unwrap_or_default();
                notes.push(format!("{} is closed: its pods go to open groups{next}", group.name));
            }
            None if group.stand_in => {
                notes.push(format!("{} gets pods only while no other group is open", group.name));
            }
            None => {}
        }
    }
    notes
}

/// The first field of `value` that is not in `schema`. The API server rejects or drops it.
fn unknown_field(value: &Value, schema: &Value, path: &str) -> Option<String> {
    if let (Some(items), Some(schema)) = (value.as_array(), schema.get("items")) {
        return items
            .iter()
            .enumerate()
            .find_map(|(index, item)| unknown_field(item, schema, &format!("{path}[{index}]")));
    }
    let fields = value.as_object()?;
    let known = schema.get("properties")?.as_object()?;
    fields.iter().find_map(|(name, field)| {
        let path = format!("{path}.{name}");
        known.get(name).map_or_else(|| Some(path.clone()), |schema| unknown_field(field, schema, &path))
    })
}
