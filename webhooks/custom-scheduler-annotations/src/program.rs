//! The commands of the binary.

use clap::Subcommand;
use podshaper_cli::Program;
use podshaper_offline::console::Console;

use crate::options::{OfflineOptions, Options, SelftestOptions};
use crate::plan::StrategyPlan;

/// Generated from the types; a test compares.
const CRD: &str = include_str!("../../../charts/podshaper/files/crds/placements.yaml");

/// The commands that only `custom-scheduler-annotations` has.
#[derive(Subcommand)]
#[expect(missing_docs, reason = "each command documents itself, for --help")]
pub enum CustomSchedulerCommand {
    Plan(StrategyPlan),
    /// Print the CustomResourceDefinition of Placement
    Crd,
}

impl Program for CustomSchedulerCommand {
    const NAME: &'static str = "custom-scheduler-annotations";
    const ABOUT: &'static str =
        "Distributes the pods of workloads over groups of nodes, as an annotation of the workload says";
    const PATHS: &'static [&'static str] = &["/mutate"];
    type Serve = Options;
    type Mutate = OfflineOptions;
    type Selftest = SelftestOptions;

    fn run(self, console: &mut Console<'_>) -> anyhow::Result<()> {
        match self {
            Self::Plan(plan) => plan.run(console),
            Self::Crd => Ok(console.stdout.write_all(CRD.as_bytes())?),
        }
    }
}
