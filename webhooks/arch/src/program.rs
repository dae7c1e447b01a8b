//! The commands of the binary.

use clap::Subcommand;
use podshaper_cli::Program;
use podshaper_offline::console::Console;

use crate::explain::Explain;
use crate::options::{FileOptions, ImageOptions, Options};
use crate::report::Report;

/// The commands that only `arch` has.
#[derive(Subcommand)]
#[expect(missing_docs, reason = "each command documents itself, for --help")]
pub enum ArchCommand {
    Explain(Explain),
    Report(Report),
}

impl Program for ArchCommand {
    const NAME: &'static str = "arch";
    const ABOUT: &'static str =
        "Restricts pods to nodes with a CPU architecture that all of their images support";
    const PATHS: &'static [&'static str] = &["/mutate-v1-pod"];
    type Serve = Options;
    type Mutate = FileOptions;
    type Selftest = ImageOptions;

    fn run(self, console: &mut Console<'_>) -> anyhow::Result<()> {
        match self {
            Self::Explain(explain) => explain.run(console),
            Self::Report(report) => report.run(console),
        }
    }
}
