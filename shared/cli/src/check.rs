//! `PROGRAM serve --check` checks settings before pods are replaced; the chart runs it before an upgrade.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use clap::Args;
use podshaper_kube::client;
use podshaper_kube::error::describe;
use podshaper_kube::request::{MediaType, send};
use serde_json::Value;

/// The flags of the check.
#[derive(Debug, Args)]
#[command(next_help_heading = "Check")]
pub(crate) struct CheckArgs {
    /// Check the settings and end; nothing is served and nothing is written
    #[arg(long)]
    check: bool,
    /// MutatingWebhookConfiguration, in JSON, that the API server checks in a dry run
    #[arg(long, value_name = "FILE", requires = "check")]
    check_configuration: Option<PathBuf>,
}

impl CheckArgs {
    pub(crate) fn is_wanted(&self) -> bool {
        self.check
    }

    /// Fails if the API server rejects the configuration. An API server that cannot be reached, or that forbids the dry run, proves
    /// nothing about the configuration.
    pub(crate) async fn check_configuration(&self) -> anyhow::Result<()> {
        let Some(path) = &self.check_configuration else { return Ok(()) };
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let configuration: Value =
            serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))?;
        let name = configuration.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        ensure!(!name.is_empty(), "{} has no metadata.name", path.display());
        let client = client::in_cluster()?;
        let uri = format!(
            "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{name}?dryRun=All&fieldManager=podshaper-check&force=true"
        );
        match send(&client, "PATCH", &uri, MediaType::ApplyPatch, &configuration).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if matches!(status.code, 400 | 422) => {
                bail!("the API server rejects the MutatingWebhookConfiguration: {}", status.message)
            }
            Err(error) => {
                tracing::warn!(
                    error = describe(&error),
                    "the API server did not check the MutatingWebhookConfiguration"
                );
                Ok(())
            }
        }
    }
}
