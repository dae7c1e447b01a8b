//! `kubectl podshaper check`: whether the installation works, and what to do where it does not.
//!
//! ```text
//! cluster ──▶ snapshot ──▶ findings ──▶ lines, exit status
//!   reads      objects     pure functions
//! ```
//!
//! A check that lacks a permission of the user is skipped, and its line says so.

mod certificates;
mod definitions;
mod finding;
mod hints;
mod network;
mod owners;
mod policies;
mod snapshot;
mod version;
mod webhook;

use std::time::SystemTime;

use clap::Args;
use podshaper_offline::block_on;
use podshaper_offline::console::{Console, FAILURE};

use crate::kubeconfig::ClusterArgs;
use finding::{Finding, Level};
use snapshot::Snapshot;

/// Check the installation: API server, certificates, endpoints, definitions, permissions and conditions
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub(crate) struct Check {
    #[command(flatten)]
    cluster: ClusterArgs,
}

const HELP: &str = "\
Every line is a check: √ passed, × failed, ! warning, - skipped because you lack a permission. The lines after a failed check say what \
to do. The command changes nothing; it sends one AdmissionReview to each webhook, through the API server's proxy.

Exit status: 0 no check fails; 1 a check fails, or the cluster cannot be reached; 2 wrong usage.";

impl Check {
    /// Runs all checks, prints them and returns the exit status.
    pub(crate) fn run(self, console: &mut Console<'_>) -> u8 {
        let read = block_on(async {
            let client = self.cluster.connect().await?.client;
            let mut snapshot = Snapshot::read(&client).await?;
            snapshot.probe(&client).await;
            anyhow::Ok(snapshot)
        });
        let findings = match read {
            Ok(snapshot) => findings(&snapshot, SystemTime::now()),
            Err(error) => return console.exit_status(Err(error)),
        };
        let failed = findings.iter().any(|finding| finding.level == Level::Failed);
        let printed = findings.iter().try_for_each(|finding| finding.print(console.stdout, console.color));
        match console.exit_status(printed.map_err(Into::into)) {
            0 if failed => FAILURE,
            status => status,
        }
    }
}

/// All findings about a cluster, in the order in which a request passes its parts.
fn findings(cluster: &Snapshot, now: SystemTime) -> Vec<Finding> {
    let mut findings = vec![version::check(&cluster.version)];
    findings.extend(webhook::installed(&cluster.webhooks));
    for webhook in cluster.webhooks.found() {
        findings.extend(webhook::check(webhook, cluster));
        findings.extend(certificates::check(webhook, cluster, now));
        findings.extend(network::check(webhook, cluster));
        findings.extend(definitions::check(webhook, cluster));
    }
    findings.extend(owners::check(cluster));
    findings.extend(policies::check(cluster));
    findings
}

#[cfg(test)]
mod tests;
