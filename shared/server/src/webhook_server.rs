//! The HTTPS server for admission reviews: from its listener to the end of its last connection.

use std::sync::Arc;
use std::time::Duration;

use podshaper_core::admission::Webhook;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use crate::connection::{self, Stage};
use crate::drain::drain;
use crate::endpoint::Endpoint;
use crate::limits::Limits;
use crate::listen::ACCEPT_PAUSE;
use crate::metrics::ServerMetrics;
use crate::open_files;

/// The time without a request after which a draining server closes idle connections.
const QUIET: Duration = Duration::from_secs(3);
/// The longest drain. The chart's `terminationGracePeriodSeconds` is longer.
const MAX_DRAIN: Duration = Duration::from_secs(25);
/// The longest time that requests take after the drain.
const LAST_REQUESTS: Duration = Duration::from_secs(10);

/// The HTTPS server of one webhook.
pub struct WebhookServer<W> {
    /// The webhook that decides.
    pub webhook: Arc<W>,
    /// The paths that reviews are posted to.
    pub paths: &'static [&'static str],
    /// The certificate and the TLS versions and cipher suites.
    pub tls: Arc<rustls::ServerConfig>,
    /// The limits on requests and connections.
    pub limits: Limits,
    /// The metrics of the server.
    pub metrics: Arc<ServerMetrics>,
}

impl<W: Webhook> WebhookServer<W> {
    /// Serves `listener` until `shutdown` resolves, and then drains: no request is lost.
    pub async fn run(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let Self { webhook, paths, tls, limits, metrics } = self;
        let endpoint = Arc::new(Endpoint::new(webhook, paths, &limits, metrics.admission()));
        let stage = watch::Sender::new(Stage::Serving);
        let tls = TlsAcceptor::from(tls);
        let max_connections = open_files::raise_limit(limits.max_connections);
        let permits = Arc::new(Semaphore::new(max_connections));
        let serving = async {
            // The semaphore is never closed.
            while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
                let tcp = accept(&listener).await;
                let connection =
                    connection::serve(tcp, tls.clone(), Arc::clone(&endpoint), stage.subscribe());
                tokio::spawn(run_connection(connection, Arc::clone(&metrics), permit));
            }
        };
        let draining = async {
            shutdown.await;
            tracing::info!("draining, and still answering requests");
            drain(&stage, endpoint.requests(), QUIET, MAX_DRAIN).await;
        };
        tokio::select! {
            () = serving => {},
            () = draining => {},
        }
        drop(listener);
        let all = u32::try_from(max_connections).unwrap_or(u32::MAX);
        if tokio::time::timeout(LAST_REQUESTS, permits.acquire_many(all)).await.is_ok() {
            tracing::info!("shut down, with every request answered");
        } else {
            let requests = endpoint.requests().in_flight();
            tracing::warn!(requests, "shut down, with open connections");
        }
    }
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((tcp, _)) => return tcp,
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn run_connection(
    connection: impl Future<Output = Result<(), connection::HandshakeError>>,
    metrics: Arc<ServerMetrics>,
    permit: OwnedSemaphorePermit,
) {
    metrics.connection_opened();
    if let Err(error) = connection.await {
        metrics.handshake_failed();
        tracing::debug!(%error, "connection failed");
    }
    metrics.connection_closed();
    drop(permit);
}
