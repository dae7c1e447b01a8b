//! The plan of a placement policy: the group of each pod of a workload, for `PROGRAM plan`.

use std::io::{self, Write};

use serde_json::{Value, json};

use crate::table::{ReportFormat, Table};
use podshaper_placement::allocator::SlotAllocator;
use podshaper_placement::policy::Group;
use podshaper_placement::sequence::MAX_SLOTS;

/// Pods that a table lists one by one.
const LISTED: usize = 50;

/// The flags of a plan.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct PlanArgs {
    /// Number of pods
    #[arg(short, long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=i64::from(MAX_SLOTS)))]
    pub replicas: u32,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: ReportFormat,
}

impl PlanArgs {
    /// Whether the output is a table.
    pub fn is_table(self) -> bool {
        self.output == ReportFormat::Table
    }

    /// Prints the group of each pod. A table has the title, and a JSON object the fields of `subject`.
    pub fn print(
        self,
        title: &str,
        subject: &Value,
        allocator: &SlotAllocator,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let sequence: Vec<_> = (0..self.replicas).map_while(|slot| allocator.group_of(slot)).collect();
        let due = allocator.desired(self.replicas);
        let groups: Vec<(&Group, u32)> = allocator.policy().groups().iter().zip(due).collect();
        match self.output {
            ReportFormat::Table => table(title, self.replicas, &groups, &sequence, out),
            ReportFormat::Json => {
                let mut plan = object(self.replicas, &groups, &sequence);
                if let (Some(plan), Some(subject)) = (plan.as_object_mut(), subject.as_object()) {
                    plan.extend(subject.clone());
                }
                writeln!(out, "{plan:#}")
            }
        }
    }
}

/// `{"replicas", "groups": [{"name", "nodeLabels", "pods"}], "sequence": [index of the group of each pod]}`
fn object(replicas: u32, groups: &[(&Group, u32)], sequence: &[usize]) -> Value {
    let group = |(group, pods): &(&Group, u32)| json!({"name": *group.name, "nodeLabels": group.node_labels, "pods": pods});
    json!({"replicas": replicas, "groups": groups.iter().map(group).collect::<Vec<_>>(), "sequence": sequence})
}

fn table(
    title: &str,
    replicas: u32,
    groups: &[(&Group, u32)],
    sequence: &[usize],
    out: &mut dyn Write,
) -> io::Result<()> {
    writeln!(out, "{title}")?;
    let mut table = Table::new(["GROUP", "PODS"]);
    for (group, pods) in groups {
        table.row([group.name.to_string(), pods.to_string()]);
    }
    table.print(out)?;
    let unplaced = replicas as usize - sequence.len();
    if unplaced > 0 {
        writeln!(out, "{unplaced} pods are left unplaced: every group is full")?;
    }
    let order = sequence.iter().take(LISTED).filter_map(|index| Some(&*groups.get(*index)?.0.name));
    let order = order.collect::<Vec<_>>().join(" ");
    let more = if sequence.len() > LISTED { " ..." } else { "" };
    writeln!(out, "in the order {order}{more}")
}
