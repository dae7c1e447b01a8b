//! The flags that say how the webhook decides.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow, ensure};
use podshaper_cli::{ServeContext, ServeOptions, WebhookOptions};
use podshaper_core::admission::Webhook;
use podshaper_core::object::is_name;
use podshaper_kube::client;
use podshaper_offline::manifests::FactFiles;
use podshaper_offline::yaml;

use crate::cluster::{ClusterArchitectures, GateController, OwnerEvents, WatchedNamespaces};
use crate::credentials::HELPERS;
use crate::docker_config_watch;
use crate::image_resolver::ImageResolver;
use crate::secrets::PullSecrets;
use arch_decision::config::{OnUnknown, Settings};
use arch_decision::learned::{ClusterObjects, LearnedArchitectures, NodeHistory, learn};
use arch_decision::webhook::Arch;

/// Options of the decision, with and without a cluster.
#[derive(Clone, Debug, clap::Args)]
pub struct ImageOptions {
    /// YAML file with the settings
    #[arg(long, env = "ARCH_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// File with credentials of registries, as docker login writes it; the default file may be absent
    #[arg(long, env = "ARCH_DOCKER_CONFIG", value_name = "FILE", default_value = docker_config_watch::DEFAULT_PATH)]
    docker_config: PathBuf,
}

/// How the server works.
#[derive(Clone, Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct Options {
    #[command(flatten)]
    images: ImageOptions,
    /// Read the Secrets that pods name in imagePullSecrets; the service account must be allowed to get them
    #[arg(long, env = "ARCH_PULL_SECRETS")]
    pull_secrets: bool,
    /// Remove the scheduling gates of pods that still have one after onUnknown has changed from gate; the service account must be
    /// allowed to get, list, watch and patch pods
    #[arg(long, env = "ARCH_LIFT_GATED")]
    lift_gated: bool,
    /// Read the annotations of namespaces; the service account must be allowed to list and watch namespaces
    #[arg(long, env = "ARCH_NAMESPACE_ANNOTATIONS")]
    namespace_annotations: bool,
    /// Publish an Event about the controller of a pod that gets a warning; the service account must be allowed to create and patch
    /// Events
    #[arg(long, env = "ARCH_EVENTS")]
    events: bool,
    /// ConfigMap that records the last node of each architecture, for architecturesFrom: Cluster; the service account must be allowed to
    /// get and patch it
    #[arg(long, env = "ARCH_NODE_RECORD", value_name = "NAME")]
    node_record: Option<String>,
    /// Name of this pod, for Events
    #[arg(long, env = "HOSTNAME", value_name = "NAME", default_value = "replica")]
    pod_name: String,
}

impl ServeOptions for Options {
    /// If pods may get a scheduling gate, the webhook also removes it.
    fn webhook(self, ServeContext { metrics, .. }: ServeContext<'_>) -> anyhow::Result<impl Webhook + use<>> {
        let client = || client::in_cluster().context("no access to the API server");
        let secrets = self.pull_secrets.then(client).transpose()?.map(PullSecrets::new);
        let (settings, images) = self.images.images(secrets)?;
        images.check_identities()?;
        if let Some(mounted) = images.mounted() {
            docker_config_watch::warn_of_helpers(&self.images.docker_config, &mounted);
        }
        let images = Arc::new(images);
        images.register(metrics);
        tokio::spawn(docker_config_watch::follow(self.images.docker_config, Arc::clone(&images)));
        let record = node_record(self.node_record.as_deref(), &settings)?;
        let architectures = match settings.learned_taint_keys.clone() {
            Some(keys) => Some(ClusterArchitectures::start(&client()?, &settings, keys, record)),
            None => None,
        };
        let new = |settings, images| match &architectures {
            Some(architectures) => {
                Arch::new(settings, images).with_settings_from(Arc::clone(architectures) as _)
            }
            None => Arch::new(settings, images),
        };
        let gates = settings.on_unknown == OnUnknown::Gate;
        if gates || self.lift_gated {
            let arch = new(settings.clone(), Arc::clone(&images));
            // Where none has to wait, those that do have waited for long enough.
            let max_age = if gates { settings.gate_max_age } else { Duration::ZERO };
            let (controller, architectures) =
                (GateController::new(client()?, arch, max_age), architectures.clone());
            tokio::spawn(async move {
                if let Some(architectures) = architectures {
                    architectures.synced().await;
                }
                controller.run().await;
            });
        }
        let mut arch = new(settings, images);
        if self.namespace_annotations {
            arch = arch.with_namespaces(Arc::new(WatchedNamespaces::start(&client()?)));
        }
        if self.events {
            arch = arch.with_notices(Arc::new(OwnerEvents::start(client()?, self.pod_name)));
        }
        Ok(arch)
    }
}

impl WebhookOptions for ImageOptions {
    fn webhook(self) -> anyhow::Result<impl Webhook> {
        let (settings, images) = self.offline()?;
        Ok(Arch::new(settings, images))
    }
}

impl ImageOptions {
    /// The same for a command without a server, which warns on standard error.
    pub fn offline(&self) -> anyhow::Result<(Settings, ImageResolver)> {
        let (settings, images) = self.images(None)?;
        if images.mounted().is_some_and(|mounted| mounted.has_helpers()) {
            // An error on standard error can't be reported.
            let _ = writeln!(io::stderr(), "warning: {}: {HELPERS}", self.docker_config.display());
        }
        Ok((settings, images))
    }

    /// The settings, and what knows images.
    pub fn images(&self, secrets: Option<PullSecrets>) -> anyhow::Result<(Settings, ImageResolver)> {
        let settings = match &self.config {
            Some(path) => settings(path).with_context(|| format!("configuration {}", path.display()))?,
            None => Settings::default(),
        };
        let mounted = docker_config_watch::read(&self.docker_config);
        let mounted =
            mounted.with_context(|| format!("docker configuration {}", self.docker_config.display()))?;
        let images = ImageResolver::new(&settings, mounted, secrets)?;
        Ok((settings, images))
    }
}

/// The name of the ConfigMap that records nodes; an empty name is none.
fn node_record<'n>(name: Option<&'n str>, settings: &Settings) -> anyhow::Result<Option<&'n str>> {
    let name = name.filter(|name| !name.is_empty());
    if let Some(name) = name {
        ensure!(is_name(name), "--node-record: {name:?} is no name of a ConfigMap");
        let is_used = settings.learned_taint_keys.is_some();
        ensure!(is_used, "--node-record has no effect: the configuration lacks architecturesFrom: Cluster");
    }
    Ok(name)
}

/// Options of commands that decide by files.
#[derive(Clone, Debug, clap::Args)]
pub struct FileOptions {
    #[command(flatten)]
    images: ImageOptions,
    #[command(flatten)]
    facts: FactFiles,
}

impl WebhookOptions for FileOptions {
    fn webhook(self) -> anyhow::Result<impl Webhook> {
        let (settings, images) = self.images.offline()?;
        let learned = learned(&settings, &self.facts)?;
        if learned.as_ref().is_some_and(|learned| learned.iter().next().is_none()) {
            // An error on standard error can't be reported.
            let _ = writeln!(
                io::stderr(),
                "warning: architecturesFrom is Cluster, and --facts names no Node or NodePool: every architecture may exist"
            );
        }
        let settings = learned.map_or_else(|| settings.clone(), |learned| settings.with_learned(&learned));
        Ok(Arch::new(settings, images))
    }
}

/// The architectures of the Nodes and NodePools in files; none if the settings do not learn them.
pub(crate) fn learned(
    settings: &Settings,
    facts: &FactFiles,
) -> anyhow::Result<Option<LearnedArchitectures>> {
    let objects = facts.read()?;
    let Some(keys) = &settings.learned_taint_keys else {
        ensure!(
            objects.is_empty(),
            "--facts has no effect: the configuration lacks architecturesFrom: Cluster"
        );
        return Ok(None);
    };
    let objects = ClusterObjects::from_facts(&objects).context("--facts")?;
    Ok(Some(learn(&objects, keys, &mut NodeHistory::new(), SystemTime::now())))
}

fn settings(path: &Path) -> anyhow::Result<Settings> {
    let text = fs::read_to_string(path)?;
    Settings::from_value(yaml::parse(&text)?).map_err(|error| match yaml::line_of(&text, &error.path) {
        Some(line) => anyhow!("line {line}: {error}"),
        None => anyhow!(error),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: ImageOptions,
    }

    fn started(config: &str, docker: &str) -> Result<(), String> {
        let file = |text: &str| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file
        };
        let config_file = file(config);
        let docker_file = file(docker);
        let config = format!("--config={}", config_file.path().display());
        let docker = format!("--docker-config={}", docker_file.path().display());
        let options = Cli::parse_from(["arch", &config, &docker]).options;
        options.webhook().map(drop).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn node_record_without_effect_is_an_error() {
        let settings = |value| Settings::from_value(value).unwrap();
        let cluster = settings(serde_json::json!({"architecturesFrom": "Cluster"}));
        assert_eq!(node_record(Some("nodes"), &cluster).unwrap(), Some("nodes"));
        assert_eq!(node_record(Some(""), &Settings::default()).unwrap(), None);
        let error = |name, settings| node_record(Some(name), settings).unwrap_err().to_string();
        assert!(error("../secrets/x", &cluster).contains("is no name of a ConfigMap"));
        assert!(error("nodes", &Settings::default()).contains("has no effect"));
    }

    #[test]
    fn error_names_the_line() {
        assert_eq!(started("architectures: {amd64: {}}", "{}"), Ok(()));
        for (config, docker, expected) in [
            ("\n\nfoo: 1", "{}", "line 3: foo: unknown field `foo`"),
            (
                "pullAlwaysCacheTime: null\nifNotPresentCacheTime: 7",
                "{}",
                "line 2: ifNotPresentCacheTime: invalid type",
            ),
            ("ifNotPresentCacheTime: 7x", "{}", "line 1: ifNotPresentCacheTime: \"7x\" is not a duration"),
            (
                "architectures:\n  arm64:\n    taintsToTolerate:\n    - key: a\n      effect: x",
                "{}",
                "line 5: architectures.arm64.taintsToTolerate.0.effect: unknown variant `x`",
            ),
            ("a: [", "{}", "line "),
            ("", "{\n\"auths\": []}", "docker configuration /"),
            ("", "{\n\"auths\": 5}", "line 2 column 10"),
            ("registries: {caFiles: [/no/such.pem]}", "{}", "registries.caFiles: /no/such.pem"),
        ] {
            let error = started(config, docker).unwrap_err();
            assert!(error.contains(expected), "{config:?} {docker:?}: {error}");
        }
        let missing =
            Cli::parse_from(["arch", "--docker-config=/no/such.json"]).options.webhook().err().unwrap();
        assert!(format!("{missing:#}").contains("/no/such.json: No such file"), "{missing:#}");
    }
}
