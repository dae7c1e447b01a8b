//! Whether a workload can move to an architecture, by the rules of the decision.

use podshaper_core::pod::Pod;

use crate::assess::{Assessment, UnknownReason, assess, runnable};
use crate::config::Settings;
use crate::images::{Image, Knowledge};
use crate::platform::Architecture;
use crate::table::Nodes;

/// Whether a workload can move to the architecture.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Readiness {
    /// These images don't run there; each with its architectures.
    Blocked(Vec<(String, String)>),
    /// The workload's own node selector or affinity excludes these nodes.
    Pinned,
    /// Images without a known architecture, with the reason.
    Unknown(Vec<(String, UnknownReason)>),
    /// All images run there.
    Ready,
    /// The workload is for nodes of this operating system.
    NotApplicable(String),
}

/// Assesses a pod. `unpulled` are images with the pull policy Never.
pub fn readiness(
    settings: &Settings,
    pod: &Pod<'_>,
    images: &[(Image<'_>, Knowledge)],
    unpulled: &[&str],
    target: &Architecture,
) -> Readiness {
    let linux = match assess(&settings.table, pod, images) {
        Assessment::OtherOs(os) => return Readiness::NotApplicable(os.into_owned()),
        Assessment::Linux(linux) => linux,
    };
    let configured = settings.table.listed().find(|nodes| nodes.architecture == *target);
    let target = configured.cloned().unwrap_or_else(|| Nodes::labelled(target.clone()));
    let others = settings.table.nodes_for(pod);
    let mut all = vec![target.clone()];
    all.extend(others.iter().filter(|nodes| nodes.architecture != target.architecture).cloned());
    let runnable = runnable(&settings.table, &all, pod, &linux.known);
    let runs = runnable.iter().any(|nodes| nodes.architecture == target.architecture);
    if !runs {
        let selected =
            |platforms: &crate::platform::Platforms| platforms.are_selected_on("linux", &target.architecture);
        let blocking = linux.known.iter().filter(|(_, platforms)| !selected(platforms));
        return Readiness::Blocked(
            blocking.map(|(image, platforms)| ((*image).to_owned(), platforms.on("linux"))).collect(),
        );
    }
    if !pod.may_run_on(target.known_labels()) {
        return Readiness::Pinned;
    }
    let mut unknown: Vec<_> = linux.unknown.into_iter().map(|(image, why)| (image.to_owned(), why)).collect();
    unknown.extend(unpulled.iter().map(|image| ((*image).to_owned(), UnknownReason::NeverPulled)));
    if unknown.is_empty() { Readiness::Ready } else { Readiness::Unknown(unknown) }
}
