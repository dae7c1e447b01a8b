//! `distributor plan`: who goes where, for so many pods.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::ValueEnum;
use podshaper::cli::mutate::read_objects;
use podshaper::placement::rules::locked;
use podshaper::placement::sequence::MAX_SLOTS;
use serde_json::{Value, json};

use crate::distributor::Distributor;
use crate::offline::Offline;

/// So many pods are listed one by one for people.
const LISTED: u32 = 50;

/// Shows which groups the pods of a workload go to, one after the other.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Plan {
    /// Distributors: YAML or JSON, a file, a folder, or - for standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// How many pods the workload has
    #[arg(short, long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=i64::from(MAX_SLOTS)))]
    replicas: u32,
    /// What to print
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Table,
    /// One JSON document a PodDistributor
    Json,
}

const HELP: &str = "\
  distributor plan -f poddistributor.yaml --replicas 10

Each pod takes the first place that is free, so that a workload that grows or shrinks keeps its shares: of the first N places \
none of the groups has a pod too many or too few, for every N. Pods whose own node selector leaves a group out go to the others.

Exit status: 0 fine; 1 a PodDistributor makes no sense, or there is none; 2 bad usage.";

impl Plan {
    /// Prints the plan.
    pub fn run(self) -> anyhow::Result<()> {
        let mut objects = Vec::new();
        for file in &self.files {
            objects.extend(read_objects(file)?);
        }
        let facts = Offline::new(&objects);
        if facts.all().is_empty() {
            bail!("there is no PodDistributor in what was given by -f");
        }
        let mut out = io::stdout().lock();
        for (index, distributor) in facts.all().iter().enumerate() {
            let planned = planned(distributor, self.replicas)
                .with_context(|| format!("PodDistributor {}", distributor.name))?;
            match self.output {
                Output::Table => {
                    if index > 0 {
                        writeln!(out)?;
                    }
                    table(distributor, &planned, &mut out)?;
                }
                Output::Json => writeln!(out, "{planned:#}")?,
            }
        }
        Ok(())
    }
}

/// `{"replicas", "groups": [{"name", "nodeLabels", "pods"}], "sequence": [index of the group of each pod]}`
fn planned(distributor: &Distributor, replicas: u32) -> anyhow::Result<Value> {
    let plan = distributor.plan.as_ref().map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut rules = locked(&plan.rules);
    let sequence: Vec<_> = (0..replicas).map_while(|slot| rules.group(slot)).collect();
    let due = rules.due(replicas);
    let groups = rules.policy().groups().iter().zip(due);
    let groups: Vec<_> = groups
        .map(|(group, pods)| json!({"name": *group.name, "nodeLabels": group.node_labels, "pods": pods}))
        .collect();
    Ok(json!({"replicas": replicas, "groups": groups, "sequence": sequence}))
}

fn table(distributor: &Distributor, planned: &Value, out: &mut impl Write) -> io::Result<()> {
    let target = &distributor.target;
    let list = |field: &str| planned[field].as_array().map(Vec::as_slice).unwrap_or_default();
    let (groups, sequence) = (list("groups"), list("sequence"));
    let replicas = &planned["replicas"];
    writeln!(out, "PodDistributor {}: {replicas} pods of {} {}", distributor.name, target.kind, target.name)?;
    let name = |group: &Value| group["name"].as_str().unwrap_or_default().to_owned();
    let width = groups.iter().map(|group| name(group).chars().count()).chain(["GROUP".len()]).max();
    let width = width.unwrap_or_default();
    writeln!(out, "{:width$}  PODS", "GROUP")?;
    for group in groups {
        writeln!(out, "{:width$}  {}", name(group), group["pods"])?;
    }
    let unplaced = replicas.as_u64().unwrap_or_default() - sequence.len() as u64;
    if unplaced > 0 {
        writeln!(out, "{unplaced} pods are left unplaced: every group is full")?;
    }
    let order = sequence.iter().take(LISTED as usize).filter_map(|index| {
        let index = usize::try_from(index.as_u64()?).ok()?;
        groups.get(index).map(name)
    });
    let order = order.collect::<Vec<_>>().join(" ");
    let more = if sequence.len() > LISTED as usize { " ..." } else { "" };
    writeln!(out, "in the order {order}{more}")
}
