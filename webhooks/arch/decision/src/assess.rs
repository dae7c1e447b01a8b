//! The images of a pod by the nodes that they are for.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use podshaper_core::pod::Pod;

use crate::images::{Image, Knowledge, LookupError};
use crate::platform::Platforms;
use crate::table::{Nodes, Table};
use crate::truncate::listed;

/// The labels that every kubelet gives its node for its operating system.
const OS_LABELS: [&str; 2] = ["kubernetes.io/os", "beta.kubernetes.io/os"];
/// The label of Windows nodes alone.
const WINDOWS_BUILD: &str = "node.kubernetes.io/windows-build";

/// The reason why an image restricts nothing although its pod runs it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum UnknownReason {
    /// There is no answer.
    Lookup(LookupError),
    /// It is an artifact, such as a chart: no architecture applies.
    Artifact,
    /// It is for these platforms, which no node has, such as WebAssembly.
    OtherPlatform(String),
    /// The kubelet does not pull it: the image on the node may be another one.
    NeverPulled,
}

impl fmt::Display for UnknownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lookup(error) => error.fmt(f),
            Self::Artifact => f.write_str("is an artifact without an architecture"),
            Self::OtherPlatform(platforms) => {
                write!(f, "is for {platforms}, which is no platform of Kubernetes nodes")
            }
            Self::NeverPulled => f.write_str("has the pull policy Never"),
        }
    }
}

impl UnknownReason {
    /// The word for programs.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Lookup(error) => error.label(),
            Self::Artifact => "artifact",
            Self::OtherPlatform(_) => "other-platform",
            Self::NeverPulled => "never-pulled",
        }
    }
}

/// The images of a pod by their operating system.
#[derive(Debug)]
pub(crate) enum Assessment<'c> {
    /// The pod runs on nodes of this operating system, which have one architecture.
    OtherOs(Cow<'c, str>),
    /// The pod runs on Linux nodes.
    Linux(LinuxImages<'c>),
}

/// The images of a pod for Linux nodes.
#[derive(Debug, Default)]
pub(crate) struct LinuxImages<'c> {
    /// Images with an architecture, and the platforms of each.
    pub(crate) known: Vec<(&'c str, &'c Platforms)>,
    /// Images that restrict nothing.
    pub(crate) unknown: Vec<(&'c str, UnknownReason)>,
}

/// Assesses the images of a pod.
pub(crate) fn assess<'c>(
    table: &Table,
    pod: &'c Pod<'_>,
    images: &'c [(Image<'c>, Knowledge)],
) -> Assessment<'c> {
    let stated = stated_os(pod);
    if let Some(os) = stated.filter(|os| *os != "linux") {
        return Assessment::OtherOs(Cow::Borrowed(os));
    }
    let mut linux = LinuxImages::default();
    let mut windows_only = false;
    for (image, knowledge) in images {
        let platforms = match knowledge {
            Knowledge::Unknown(why) => {
                linux.unknown.push((image.reference, UnknownReason::Lookup(*why)));
                continue;
            }
            Knowledge::Known(platforms) => &**platforms,
        };
        match kind_of(table, platforms) {
            Kind::Anything if image.volume => {}
            Kind::OlmBundle => {}
            Kind::Anything => linux.unknown.push((image.reference, UnknownReason::Artifact)),
            Kind::Other(names) => linux.unknown.push((image.reference, UnknownReason::OtherPlatform(names))),
            Kind::Linux => linux.known.push((image.reference, platforms)),
            Kind::Windows => {
                windows_only = true;
                linux.known.push((image.reference, platforms));
            }
        }
    }
    let runs_on_windows =
        windows_only && linux.known.iter().all(|(_, platforms)| is_for(platforms, "windows"));
    if stated.is_none() && runs_on_windows {
        return Assessment::OtherOs(Cow::Borrowed("windows"));
    }
    Assessment::Linux(linux)
}

/// The nodes that run all of these images: if the pod may use some that are known to exist, the ones on which every container runtime
/// selects the images; or else, as a variant never makes a pod impossible, the ones of their architectures.
pub(crate) fn runnable<'n>(
    table: &Table,
    all: &'n [Nodes],
    pod: &Pod<'_>,
    known: &[(&str, &Platforms)],
) -> Vec<&'n Nodes> {
    let by = |run: &dyn Fn(&Platforms, &Nodes) -> bool| -> Vec<&'n Nodes> {
        all.iter().filter(|nodes| known.iter().all(|(_, platforms)| run(platforms, nodes))).collect()
    };
    let selected = by(&|platforms, nodes| platforms.are_selected_on("linux", &nodes.architecture));
    if selected.iter().any(|nodes| table.has(nodes) && pod.may_run_on(nodes.known_labels())) {
        return selected;
    }
    by(&|platforms, nodes| platforms.run_on("linux", &nodes.architecture))
}

/// The operating system that the pod states by `spec.os`, node selector or node affinity. None if it may run on both.
pub(crate) fn stated_os<'p>(pod: &'p Pod<'_>) -> Option<&'p str> {
    let named = pod.spec.as_ref().and_then(|spec| spec.os.as_ref()).map(|os| &*os.name);
    if let Some(os) = named.filter(|os| !os.is_empty()) {
        return Some(os);
    }
    let labels = |os: &str| BTreeMap::from(OS_LABELS.map(|key| (key.to_owned(), os.to_owned())));
    match ["linux", "windows"].map(|os| pod.may_run_on(&labels(os))) {
        [true, true] => pod.node_selector(WINDOWS_BUILD).map(|_| "windows"),
        [true, false] => Some("linux"),
        [false, true] => Some("windows"),
        [false, false] => {
            let selected = OS_LABELS.into_iter().find_map(|key| pod.node_selector(key));
            Some(selected.filter(|os| !os.is_empty()).unwrap_or("linux"))
        }
    }
}

/// The nodes that an image is for.
enum Kind {
    Anything,
    OlmBundle,
    Linux,
    /// Windows, and not Linux.
    Windows,
    /// None, with the names of its platforms.
    Other(String),
}

fn kind_of(table: &Table, platforms: &Platforms) -> Kind {
    let own = match platforms {
        Platforms::Any => return Kind::Anything,
        Platforms::OlmBundle => return Kind::OlmBundle,
        Platforms::Only(own) => own,
    };
    let for_linux = own.iter().any(|own| &*own.os == "linux" && table.knows(&own.architecture));
    if own.is_empty() || for_linux {
        Kind::Linux
    } else if is_for(platforms, "windows") {
        Kind::Windows
    } else {
        Kind::Other(listed(", ", own))
    }
}

fn is_for(platforms: &Platforms, os: &str) -> bool {
    match platforms {
        Platforms::Any | Platforms::OlmBundle => true,
        Platforms::Only(own) => own.iter().any(|own| &*own.os == os),
    }
}
