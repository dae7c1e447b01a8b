//! The commands of the binary.

use clap::Subcommand;
use podshaper_cli::Program;
use podshaper_offline::console::Console;

use crate::options::{AssumedTemplate, OfflineOptions, Options};
use crate::plan::SizePlan;

/// Derived from the types; a test keeps the file current.
const CRD: &str = include_str!("../../../charts/podshaper/files/crds/flexdaemonsettemplates.yaml");

/// The commands that only `flexdaemonset` has.
#[derive(Subcommand)]
#[expect(missing_docs, reason = "each command documents itself, for --help")]
pub enum FlexDaemonsetCommand {
    Plan(Box<SizePlan>),
    /// Print the CustomResourceDefinition of FlexDaemonsetTemplate
    Crd,
}

impl Program for FlexDaemonsetCommand {
    const NAME: &'static str = "flexdaemonset";
    const ABOUT: &'static str = "Sizes the pods of DaemonSets in proportion to their node";
    const PATHS: &'static [&'static str] = &["/mutate-v1-pod"];
    type Serve = Options;
    type Mutate = OfflineOptions;
    type Selftest = AssumedTemplate;

    fn run(self, console: &mut Console<'_>) -> anyhow::Result<()> {
        match self {
            Self::Plan(plan) => plan.run(console),
            Self::Crd => Ok(console.stdout.write_all(CRD.as_bytes())?),
        }
    }
}
