//! The flags that say how the webhook decides.

use std::path::PathBuf;

use anyhow::Context;

use crate::class;
use crate::config::Settings;
use crate::webhook::PeerPods;

/// How peer pods are recognised and sized.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Runtime classes of peer pods, separated by commas [default: kata-remote, unless the configuration names some]
    #[arg(long, env = "TARGET_RUNTIMECLASS", value_name = "NAMES", value_delimiter = ',')]
    target_runtimeclass: Vec<String>,

    /// The extended resource that stands for one VM [default: kata.peerpods.io/vm]
    #[arg(long, env = "POD_VM_EXTENDED_RESOURCE", value_name = "NAME")]
    pod_vm_extended_resource: Option<String>,

    /// A file of settings beyond these, in YAML
    #[arg(long, env = "PEERPODS_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Options {
    /// The webhook that these options ask for.
    pub fn webhook(self) -> anyhow::Result<PeerPods> {
        let settings = match &self.config {
            Some(path) => read(path).with_context(|| format!("configuration {}", path.display()))?,
            None => Settings::default(),
        };
        // The original takes a variable that is set but empty for one that isn't set.
        let names: Vec<_> =
            self.target_runtimeclass.iter().map(|name| name.trim()).filter(|n| !n.is_empty()).collect();
        let default =
            if names.is_empty() && !settings.names_classes() { &[class::RUNTIME_CLASS][..] } else { &names };
        let resource =
            self.pod_vm_extended_resource.as_deref().map(str::trim).filter(|name| !name.is_empty());
        let resource = resource.unwrap_or(class::VM_RESOURCE);
        PeerPods::configured(settings, default.iter().copied(), resource).context("configuration")
    }
}

fn read(path: &std::path::Path) -> anyhow::Result<Settings> {
    let text = std::fs::read_to_string(path)?;
    if text.trim().is_empty() {
        return Ok(Settings::default());
    }
    Ok(serde_saphyr::from_str(&text)?)
}
