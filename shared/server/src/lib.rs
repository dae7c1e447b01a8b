//! The servers of a webhook: HTTPS for the API server, plain HTTP for probes, and metrics.
//!
//! ```text
//! listen ─▶ connection (TLS, HTTP/1.1 or h2, timeouts) ─▶ endpoint (limits, deadline) ─▶ admission::answer
//! ```
#![forbid(unsafe_code)]

mod activity;
pub mod admin;
mod body;
mod connection;
mod drain;
mod endpoint;
mod limits;
mod listen;
mod open_files;
mod records;
pub mod telemetry;
mod timeout;

pub use limits::Limits;
pub use listen::{Listen, ListenError};

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;

use crate::telemetry::Metrics;
use connection::HandshakeError;
use drain::Drain;
use endpoint::Endpoint;
use limits::ACCEPT_PAUSE;
use podshaper_core::admission::Webhook;

/// How long nothing may have come before a leaving server closes its idle connections.
const QUIET: Duration = Duration::from_secs(3);
/// How long leaving may take; the chart's `terminationGracePeriodSeconds` is longer.
const LONGEST_DRAIN: Duration = Duration::from_secs(25);
/// How long requests begun before the end may still take.
const LAST_REQUESTS: Duration = Duration::from_secs(10);

/// The HTTPS server of one webhook.
pub struct WebhookServer<W> {
    /// What decides.
    pub webhook: Arc<W>,
    /// The paths that reviews are posted to.
    pub paths: &'static [&'static str],
    /// The certificate and what may be negotiated.
    pub tls: Arc<rustls::ServerConfig>,
    /// What it takes on at a time.
    pub limits: Limits,
    /// Where it counts.
    pub metrics: Arc<Metrics>,
}

impl<W: Webhook> WebhookServer<W> {
    /// Serves `listener` until `shutdown` resolves and then leaves in peace: no request is cut.
    pub async fn run(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let drain = Arc::new(Drain::new());
        let endpoint = Arc::new(Endpoint::new(
            self.webhook,
            self.paths,
            &self.limits,
            Arc::clone(&drain),
            self.metrics.admission.clone(),
        ));
        let tls = TlsAcceptor::from(self.tls);
        let max_connections = open_files::room_for(self.limits.max_connections);
        let connections = Arc::new(Semaphore::new(max_connections));
        let accepting = async {
            loop {
                // Never closed, so there is always a permit to come.
                let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
                let tcp = match listener.accept().await {
                    Ok((tcp, _)) => tcp,
                    Err(error) => {
                        tracing::warn!(%error, "can't accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                };
                let served = connection::serve(tcp, tls.clone(), Arc::clone(&endpoint), drain.subscribe());
                let metrics = Arc::clone(&self.metrics);
                tokio::spawn(count(served, metrics, permit));
            }
        };
        let leaving = async {
            shutdown.await;
            tracing::info!("leaving, and answering what still comes");
            drain.run(QUIET, LONGEST_DRAIN).await;
        };
        tokio::select! {
            () = accepting => {},
            () = leaving => {},
        }
        drop(listener);
        let all = u32::try_from(max_connections).unwrap_or(u32::MAX);
        if tokio::time::timeout(LAST_REQUESTS, connections.acquire_many(all)).await.is_ok() {
            tracing::info!("left: every request was answered");
        } else {
            tracing::warn!(requests = drain.in_flight(), "left with connections still open");
        }
    }
}

async fn count(
    served: impl Future<Output = Result<(), HandshakeError>>,
    metrics: Arc<Metrics>,
    permit: OwnedSemaphorePermit,
) {
    metrics.connections.inc();
    if let Err(error) = served.await {
        metrics.handshake_errors.inc();
        tracing::debug!(%error, "connection refused");
    }
    metrics.connections.dec();
    drop(permit);
}
