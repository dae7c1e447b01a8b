//! `NAME serve`: the webhook server, what the chart runs.

use std::sync::Arc;

use anyhow::Context;
use clap::{Args, ValueEnum};
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use super::runtime::runtime;
use super::shutdown_signal;
use podshaper_certificates::CertificateArgs;
use podshaper_core::admission::Webhook;
use podshaper_kube::client;
use podshaper_server::{Limits, ListenAddress, LogArgs, MetricsPage, ServerMetrics, WebhookServer, admin};

/// The port on which originals serve metrics to the authorised alone.
const SECURE_METRICS_PORT: u16 = 8443;

/// Answer the API server's admission reviews (the default)
#[derive(Debug, Args)]
pub(crate) struct Serve<O: Args> {
    #[command(flatten)]
    options: O,
    /// Where admission reviews are answered, over HTTPS
    #[arg(
        long,
        env = "PODSHAPER_WEBHOOK_BIND_ADDRESS",
        value_name = "ADDRESS",
        default_value = ":9443",
        help_heading = "Addresses"
    )]
    webhook_bind_address: ListenAddress,
    /// Where /healthz, /livez and /readyz are answered; 0 for nowhere
    #[arg(
        long,
        env = "PODSHAPER_HEALTH_PROBE_BIND_ADDRESS",
        value_name = "ADDRESS",
        default_value = ":8081",
        help_heading = "Addresses"
    )]
    health_probe_bind_address: ListenAddress,
    /// Where /metrics is answered; 0 for nowhere
    #[arg(
        long,
        env = "PODSHAPER_METRICS_BIND_ADDRESS",
        value_name = "ADDRESS",
        default_value = ":8080",
        help_heading = "Addresses"
    )]
    metrics_bind_address: ListenAddress,
    /// Metrics over HTTPS, to those alone whom RBAC allows to get /metrics; auto does so on port 8443
    #[arg(
        long,
        env = "PODSHAPER_METRICS_AUTH",
        value_name = "WHEN",
        default_value = "auto",
        help_heading = "Addresses"
    )]
    metrics_auth: MetricsAuth,
    #[command(flatten)]
    certificates: CertificateArgs,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    logs: LogArgs,
}

/// The process that a webhook serves in.
pub struct ServeContext<'m> {
    /// The registry of the metrics that the server exposes.
    pub metrics: &'m mut Registry,
    /// True after the signal to terminate. The last requests come later.
    pub terminating: watch::Receiver<bool>,
}

/// Whether a scraper must show who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum MetricsAuth {
    Auto,
    Always,
    Never,
}

impl<O: Args> Serve<O> {
    /// Serves the webhook that `webhook` makes of its options under `paths`, until SIGTERM.
    pub(crate) fn run<W: Webhook>(
        self,
        name: &'static str,
        paths: &'static [&'static str],
        webhook: impl FnOnce(O, ServeContext<'_>) -> anyhow::Result<W>,
    ) -> anyhow::Result<()> {
        self.logs.start();
        runtime()?.block_on(self.serve(name, paths, webhook))
    }

    async fn serve<W: Webhook>(
        self,
        name: &'static str,
        paths: &'static [&'static str],
        webhook: impl FnOnce(O, ServeContext<'_>) -> anyhow::Result<W>,
    ) -> anyhow::Result<()> {
        let shutdown = shutdown_signal().context("can't wait for signals")?;
        let profile = self.certificates.tls_profile()?;
        let certificate = self.certificates.start(client::in_cluster)?;
        let mut metrics = ServerMetrics::new(name);
        certificate.register(metrics.registry());
        let (terminate, terminating) = watch::channel(false);
        let leaving = terminating.clone();
        let context = ServeContext { metrics: metrics.registry(), terminating };
        let webhook = Arc::new(webhook(self.options, context)?);
        let metrics = Arc::new(metrics);
        let shutdown = async move {
            shutdown.await;
            terminate.send_replace(true);
        };
        let tls = Arc::new(profile.server_config(certificate.clone())?);

        if let Some(listener) = self.health_probe_bind_address.bind()? {
            let (certificate, webhook) = (certificate.clone(), Arc::clone(&webhook));
            let not_ready = move || {
                if *leaving.borrow() {
                    Some("leaving".to_owned())
                } else if certificate.is_ready() {
                    webhook.not_ready()
                } else {
                    Some("no serving certificate yet".to_owned())
                }
            };
            tokio::spawn(admin::serve(listener, None, admin::Probes { not_ready }));
        }
        if let Some(listener) = self.metrics_bind_address.bind()? {
            let auth = match self.metrics_auth {
                MetricsAuth::Always => true,
                MetricsAuth::Never => false,
                MetricsAuth::Auto => self.metrics_bind_address.port() == SECURE_METRICS_PORT,
            };
            let page = MetricsPage::new(metrics.clone(), auth);
            tokio::spawn(admin::serve(listener, auth.then(|| tls.clone()), page));
        }

        // Before there is a certificate a connection could only fail, so there is nothing to connect to.
        let mut shutdown = std::pin::pin!(shutdown);
        tokio::select! {
            () = certificate.loaded() => {},
            () = shutdown.as_mut() => return Ok(()),
        }
        let listener = self.webhook_bind_address.bind()?.context("--webhook-bind-address can't be 0")?;
        tracing::info!(webhook = name, address = %listener.local_addr()?, ?paths, version = env!("CARGO_PKG_VERSION"), "serving");
        WebhookServer { webhook, paths, tls, limits: self.limits, metrics }.run(listener, shutdown).await;
        Ok(())
    }
}
