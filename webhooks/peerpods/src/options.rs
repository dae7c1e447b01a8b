//! The flags of the decision.

use std::path::{Path, PathBuf};

use anyhow::Context;
use podshaper_cli::{ServeContext, ServeOptions, WebhookOptions};
use podshaper_core::admission::Webhook;
use podshaper_offline::yaml;

use peerpods_decision::config::Config;
use peerpods_decision::runtime_class::{DEFAULT_RUNTIME_CLASS, DEFAULT_VM_RESOURCE};
use peerpods_decision::webhook::PeerPods;

/// The runtime classes of peer pods, and their settings.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Runtime classes of peer pods, separated by commas. The configuration file may add more
    #[arg(long, env = "TARGET_RUNTIMECLASS", value_name = "NAMES", default_value = DEFAULT_RUNTIME_CLASS)]
    target_runtimeclass: String,

    /// The extended resource of a VM
    #[arg(long, env = "POD_VM_EXTENDED_RESOURCE", value_name = "NAME", default_value = DEFAULT_VM_RESOURCE)]
    pod_vm_extended_resource: String,

    /// A YAML file with more settings
    #[arg(long, env = "PEERPODS_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// Deny a peer pod that has more than the webhook reads, or would be too large with its changes, instead of admitting it unchanged
    #[arg(long, env = "PEERPODS_DENY_UNREADABLE")]
    deny_unreadable: bool,
}

impl Options {
    fn peer_pods(self) -> anyhow::Result<PeerPods> {
        let config = match &self.config {
            Some(path) => read(path).with_context(|| format!("configuration {}", path.display()))?,
            None => Config::default(),
        };
        // To cloud-api-adaptor's webhook an empty variable is one that isn't set.
        let names = self.target_runtimeclass.split(',').map(str::trim).filter(|name| !name.is_empty());
        let resource = match self.pod_vm_extended_resource.trim() {
            "" => DEFAULT_VM_RESOURCE,
            resource => resource,
        };
        let webhook = PeerPods::new(config, names, resource).context("configuration")?;
        Ok(webhook.denying_unreadable(self.deny_unreadable))
    }
}

impl ServeOptions for Options {
    fn webhook(self, _: ServeContext<'_>) -> anyhow::Result<impl Webhook + use<>> {
        self.peer_pods()
    }
}

impl WebhookOptions for Options {
    fn webhook(self) -> anyhow::Result<impl Webhook> {
        self.peer_pods()
    }
}

fn read(path: &Path) -> anyhow::Result<Config> {
    let value = yaml::parse(&std::fs::read_to_string(path)?)?;
    Ok(Config::from_value(value)?)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    fn configured(arguments: &[&str], yaml: &str) -> Result<String, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(yaml.as_bytes()).unwrap();
        let config = format!("--config={}", file.path().display());
        let options = Cli::parse_from(["peerpods", &config].iter().chain(arguments)).options;
        options.peer_pods().map(|webhook| format!("{webhook:?}")).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn flags_and_file_add_classes() {
        let flags = &["--target-runtimeclass= a, b,", "--pod-vm-extended-resource=x.y/z"];
        let webhook = configured(flags, "runtimeClasses: {c: {resource: x.y/c}}").unwrap();
        for expected in
            [r#""a", resource: "x.y/z""#, r#""b", resource: "x.y/z""#, r#""c", resource: "x.y/c""#]
        {
            assert!(webhook.contains(expected), "{webhook}");
        }
        let file_alone = configured(&["--target-runtimeclass="], "runtimeClasses: {c: {}}").unwrap();
        assert!(
            file_alone.contains(r#""c", resource"#) && !file_alone.contains("kata-remote"),
            "{file_alone}"
        );
        for yaml in ["", "# nothing", "null", "runtimeClasses:"] {
            let empty = configured(&["--target-runtimeclass=", "--pod-vm-extended-resource="], yaml).unwrap();
            assert!(empty.contains(r#""kata-remote", resource: "kata.peerpods.io/vm""#), "{empty}");
        }
    }

    #[test]
    fn numbers_need_no_quotes() {
        let yaml = "{headroom: {vcpus: +1}, fallback: {vcpus: 2, memory: 2Gi}}";
        let webhook = configured(&[], yaml).unwrap();
        for expected in ["vcpu_headroom: Amount(1000)", "vcpus: 2, memory: 2048"] {
            assert!(webhook.contains(expected), "{webhook}");
        }
    }

    #[test]
    fn error_names_the_key_or_line() {
        for (yaml, expected) in [
            ("headroom: 5", "headroom: invalid type: integer `5`, expected vcpus and memory"),
            ("mode: audit\nsizings: x", "sizings: unknown field `sizings`"),
            (
                "catalogue:\n- {name: a, vcpus: x, memory: 1}",
                "catalogue[0].vcpus: invalid type: string \"x\"",
            ),
            ("fallback: {memory: 1, memory: 2}", "line 1, column 23"),
            ("fallback: {memory: -1}", "fallback.memory: must not be negative"),
        ] {
            let error = configured(&[], yaml).unwrap_err();
            assert!(error.contains(expected), "{yaml}: {error}");
        }
    }
}
