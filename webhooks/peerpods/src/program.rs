//! The commands of the binary.

use clap::Subcommand;
use podshaper_cli::Program;
use podshaper_offline::console::Console;

use crate::advertise::Advertise;
use crate::options::Options;

/// The commands that only `peerpods` has.
#[derive(Subcommand)]
#[expect(missing_docs, reason = "each command documents itself, for --help")]
pub enum PeerPodsCommand {
    Advertise(Advertise),
}

impl Program for PeerPodsCommand {
    const NAME: &'static str = "peerpods";
    const ABOUT: &'static str =
        "Sizes the VM of a Kata peer pod at admission: one extended resource in place of the containers' own";
    const PATHS: &'static [&'static str] = &["/mutate-v1-pod"];
    type Serve = Options;
    type Mutate = Options;
    type Selftest = Options;

    fn run(self, _: &mut Console<'_>) -> anyhow::Result<()> {
        let Self::Advertise(advertise) = self;
        advertise.run()
    }
}
