//! `PROGRAM serve` runs the webhook server. The chart starts it in every pod.

use std::sync::Arc;

use anyhow::Context;
use clap::{Args, ValueEnum};
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use super::check::CheckArgs;
use super::runtime::runtime;
use super::shutdown_signal;
use podshaper_certificates::{CertificateArgs, ServingCertificate};
use podshaper_core::admission::Webhook;
use podshaper_kube::client;
use podshaper_server::{
    ConnectionPool, Limits, ListenAddress, LogArgs, MetricsPage, ServerMetrics, WebhookServer, admin,
};

/// The port on which the original webhooks serve metrics to authorized clients only.
const SECURE_METRICS_PORT: u16 = 8443;

/// Serve the admission webhook (default)
#[derive(Debug, Args)]
pub(crate) struct Serve<O: Args> {
    #[command(flatten)]
    options: O,
    /// Address of the admission webhook (HTTPS)
    #[arg(
        long,
        env = "PODSHAPER_WEBHOOK_BIND_ADDRESS",
        value_name = "ADDRESS",
        default_value = ":9443",
        help_heading = "Addresses"
    )]
    webhook_bind_address: ListenAddress,
    /// Address of /healthz, /livez and /readyz; 0 disables them
    #[arg(
        long,
        env = "PODSHAPER_HEALTH_PROBE_BIND_ADDRESS",
        value_name = "ADDRESS",
        default_value = ":8081",
        help_heading = "Addresses"
    )]
    health_probe_bind_address: ListenAddress,
    /// Address of /metrics; 0 disables it
    #[arg(
        long,
        env = "PODSHAPER_METRICS_BIND_ADDRESS",
        value_name = "ADDRESS",
        default_value = ":8080",
        help_heading = "Addresses"
    )]
    metrics_bind_address: ListenAddress,
    /// Serve metrics over HTTPS, to clients that RBAC allows to get /metrics; auto: on port 8443 only
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
    #[command(flatten)]
    check: CheckArgs,
}

/// The process that a webhook serves in.
pub struct ServeContext<'m> {
    /// The registry of the metrics that the server exposes.
    pub metrics: &'m mut Registry,
    /// Whether only clients that RBAC allows to can read the metrics. False if there is no page of metrics.
    pub metrics_auth: bool,
    /// True after SIGTERM. Requests still arrive while the server drains.
    pub terminating: watch::Receiver<bool>,
}

/// The option of webhooks with metrics that may name the objects of tenants.
#[derive(Clone, Copy, Debug, Args)]
pub struct ObjectMetrics {
    /// Count pods by namespace, workload and group, too. Everyone who reads the metrics then sees these names, so clients must
    /// authenticate: see --metrics-auth
    #[arg(long, env = "PODSHAPER_METRICS_PER_OBJECT")]
    metrics_per_object: bool,
}

impl ObjectMetrics {
    /// Whether the option is set. An error says that clients don't authenticate.
    pub fn per_object(self, context: &ServeContext<'_>) -> anyhow::Result<bool> {
        anyhow::ensure!(
            context.metrics_auth || !self.metrics_per_object,
            "--metrics-per-object needs --metrics-auth=always: the metrics would show the names of objects to everyone who can connect"
        );
        Ok(self.metrics_per_object)
    }
}

/// Whether clients of `/metrics` authenticate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum MetricsAuth {
    Auto,
    Always,
    Never,
}

impl MetricsAuth {
    fn applies_to(self, address: ListenAddress) -> bool {
        match self {
            _ if address == ListenAddress::Disabled => false,
            Self::Always => true,
            Self::Never => false,
            Self::Auto => address.port() == SECURE_METRICS_PORT,
        }
    }
}

impl<O: Args> Serve<O> {
    /// Serves the webhook that `webhook` builds under `paths`, until SIGTERM.
    pub(crate) fn run<W: Webhook>(
        self,
        name: &'static str,
        paths: &'static [&'static str],
        webhook: impl FnOnce(O, ServeContext<'_>) -> anyhow::Result<W>,
    ) -> anyhow::Result<()> {
        self.logs.start();
        if self.check.is_wanted() {
            return runtime()?.block_on(self.check(name, webhook));
        }
        runtime()?.block_on(self.serve(name, paths, webhook))
    }

    /// Finds what would end the start. Certificates are not read: they may come later.
    async fn check<W: Webhook>(
        self,
        name: &'static str,
        webhook: impl FnOnce(O, ServeContext<'_>) -> anyhow::Result<W>,
    ) -> anyhow::Result<()> {
        self.certificates.tls_profile()?;
        self.certificates.check_lifetimes()?;
        self.check.check_configuration().await?;
        let mut metrics = Registry::default();
        let (_terminate, terminating) = watch::channel(false);
        let metrics_auth = self.metrics_auth.applies_to(self.metrics_bind_address);
        webhook(self.options, ServeContext { metrics: &mut metrics, metrics_auth, terminating })?;
        tracing::info!(webhook = name, "the settings are valid");
        Ok(())
    }

    async fn serve<W: Webhook>(
        self,
        name: &'static str,
        paths: &'static [&'static str],
        webhook: impl FnOnce(O, ServeContext<'_>) -> anyhow::Result<W>,
    ) -> anyhow::Result<()> {
        let shutdown = shutdown_signal().context("can't install signal handlers")?;
        let profile = self.certificates.tls_profile()?;
        let clients = self.certificates.client_verifier()?;
        let certificate = self.certificates.start(client::in_cluster)?;
        let mut metrics = ServerMetrics::new(name);
        certificate.register(metrics.registry());
        podshaper_kube::metrics::register(metrics.registry());
        let (terminate, terminating) = watch::channel(false);
        let is_terminating = terminating.clone();
        let metrics_auth = self.metrics_auth.applies_to(self.metrics_bind_address);
        let context = ServeContext { metrics: metrics.registry(), metrics_auth, terminating };
        let webhook = Arc::new(webhook(self.options, context)?);
        let metrics = Arc::new(metrics);
        let shutdown = async move {
            shutdown.await;
            terminate.send_replace(true);
        };
        let tls = Arc::new(profile.server_config(certificate.clone(), clients)?);
        let connections = metrics.connection_pool(&self.limits);

        if let Some(listener) = self.health_probe_bind_address.bind()? {
            let certificate = certificate.clone();
            let webhook = Arc::clone(&webhook);
            let connections = Arc::clone(&connections);
            let not_ready = move || {
                if *is_terminating.borrow() {
                    return Some("terminating".to_owned());
                }
                not_ready(&certificate, &connections, &*webhook)
            };
            tokio::spawn(admin::serve(listener, None, admin::Probes { not_ready }));
        }
        if let Some(listener) = self.metrics_bind_address.bind()? {
            let page = MetricsPage::new(metrics.clone(), metrics_auth);
            let tls =
                metrics_auth.then(|| profile.http1_server_config(certificate.clone(), None)).transpose()?;
            tokio::spawn(admin::serve(listener, tls.map(Arc::new), page));
        }

        // Without a certificate every TLS handshake would fail, so the port opens later.
        let mut shutdown = std::pin::pin!(shutdown);
        tokio::select! {
            () = certificate.loaded() => {},
            () = shutdown.as_mut() => return Ok(()),
        }
        let listener = self.webhook_bind_address.bind()?.context("--webhook-bind-address can't be 0")?;
        tracing::info!(webhook = name, address = %listener.local_addr()?, ?paths, version = env!("CARGO_PKG_VERSION"), "serving");
        let server = WebhookServer { webhook, paths, tls, limits: self.limits, connections, metrics };
        server.run(listener, shutdown).await;
        Ok(())
    }
}

/// The reason why reviews can't be answered now.
fn not_ready(
    certificate: &ServingCertificate,
    connections: &ConnectionPool,
    webhook: &impl Webhook,
) -> Option<String> {
    if !certificate.is_ready() {
        Some("no serving certificate yet".to_owned())
    } else if connections.is_full() {
        Some("every connection has a request in flight".to_owned())
    } else {
        webhook.not_ready()
    }
}
