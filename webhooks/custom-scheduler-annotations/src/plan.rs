//! `custom-scheduler-annotations plan` prints the group of each pod of a workload.

use anyhow::anyhow;
use podshaper_offline::console::Console;
use podshaper_offline::plan::PlanArgs;
use serde_json::json;

use custom_scheduler_annotations_decision::strategies::Strategies;

/// Show the groups of a workload's pods, in order.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct StrategyPlan {
    /// Value of the annotation: LABEL[,base=B][,weight=W][:...]
    strategy: String,
    #[command(flatten)]
    plan: PlanArgs,
}

const HELP: &str = "\
Example:
  custom-scheduler-annotations plan 'nodesize=od,base=1:nodesize=spot4,weight=1:nodesize=spot8,weight=1' --replicas 10

Groups are separated by colons. Each is a node label, KEY=VALUE, with a base (the number of first pods) and a weight (the share \
of the other pods). Both default to 0, and only one group may have a base.

A pod takes the first free slot, so a workload that grows or shrinks keeps its shares: among the first N slots, each group has \
its exact share, for every N.

Exit status: 0 success; 1 the strategy is invalid; 2 wrong usage.";

impl StrategyPlan {
    /// Prints the plan.
    pub fn run(self, console: &mut Console<'_>) -> anyhow::Result<()> {
        let allocator = Strategies::default().allocator(&self.strategy).map_err(|error| {
            let [line, mark] = error.pointing(&self.strategy);
            anyhow!("{error}\n  {line}\n  {mark}")
        })?;
        let title = format!("{} pods", self.plan.replicas);
        let subject = json!({"strategy": self.strategy});
        Ok(self.plan.print(&title, &subject, &allocator, console.stdout)?)
    }
}
