//! `custom-scheduler-annotations plan`: who goes where, for so many pods.

use anyhow::anyhow;
use podshaper_offline::console::Console;
use podshaper_offline::plan::PlanArgs;

use custom_scheduler_annotations_decision::strategies::Strategies;

/// Show which groups the pods of a workload go to, one after the other.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct StrategyPlan {
    /// LABEL[,base=B][,weight=W][:...], as the annotation has it
    strategy: String,
    #[command(flatten)]
    plan: PlanArgs,
}

const HELP: &str = "\
  custom-scheduler-annotations plan 'nodesize=od,base=1:nodesize=spot4,weight=1:nodesize=spot8,weight=1' --replicas 10

Groups are separated by colons. Each is a label of its nodes, KEY=VALUE, with a base, so many of the first pods, and a weight, its \
share of the others; both are 0 if not given, and one group may have a base.

Each pod takes the first place that is free, so that a workload that grows or shrinks keeps its shares: of the first N places \
none of the groups has a pod too many or too few, for every N.

Exit status: 0 fine; 1 the strategy makes no sense; 2 bad usage.";

impl StrategyPlan {
    /// Prints the plan.
    pub fn run(self, console: &mut Console<'_>) -> anyhow::Result<()> {
        let allocator = Strategies::default().allocator(&self.strategy).map_err(|error| {
            let [line, mark] = error.pointing(&self.strategy);
            anyhow!("{error}\n  {line}\n  {mark}")
        })?;
        let title = format!("{} pods", self.plan.replicas);
        Ok(self.plan.print(&title, &allocator, console.stdout)?)
    }
}
