//! The commands of the binary.

use clap::Subcommand;
use podshaper_cli::Program;
use podshaper_offline::console::Console;

use crate::options::{AssumedDistributor, FileOptions, Options};
use crate::plan::DistributionPlan;

/// Generated from the types; a test of `podshaper-crd` compares.
const CRDS: [&str; 2] = [
    include_str!("../../../charts/podshaper/files/crds/poddistributors.yaml"),
    include_str!("../../../charts/podshaper/files/crds/placements.yaml"),
];

/// The commands that only `distributor` has.
#[derive(Subcommand)]
#[expect(missing_docs, reason = "each command documents itself, for --help")]
pub enum DistributorCommand {
    Plan(DistributionPlan),
    /// Print the CustomResourceDefinitions of PodDistributor and Placement
    Crd,
}

impl Program for DistributorCommand {
    const NAME: &'static str = "distributor";
    const ABOUT: &'static str = "Distributes the pods of workloads over groups of nodes by exact shares";
    const PATHS: &'static [&'static str] = &["/mutate"];
    type Serve = Options;
    type Mutate = FileOptions;
    type Selftest = AssumedDistributor;

    fn run(self, console: &mut Console<'_>) -> anyhow::Result<()> {
        match self {
            Self::Plan(plan) => plan.run(console),
            Self::Crd => Ok(console.stdout.write_all(CRDS.join("---\n").as_bytes())?),
        }
    }
}
