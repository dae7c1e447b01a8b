//! The HTTPS server for admission reviews: from its listener to the end of its last connection.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use podshaper_core::admission::Webhook;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::connection::{self, Stage};
use crate::connection_pool::{ConnectionPool, Slot};
use crate::drain::drain;
use crate::endpoint::Endpoint;
use crate::limits::Limits;
use crate::listen::ACCEPT_PAUSE;
use crate::metrics::ServerMetrics;

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
    /// The connections of the server: see [`ServerMetrics::connection_pool`].
    pub connections: Arc<ConnectionPool>,
    /// The metrics of the server.
    pub metrics: Arc<ServerMetrics>,
}

impl<W: Webhook> WebhookServer<W> {
    /// Serves `listener` until `shutdown` resolves, and then drains: no request is lost.
    pub async fn run(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let Self { webhook, paths, tls, limits, connections, metrics } = self;
        let endpoint = Arc::new(Endpoint::new(webhook, paths, &limits, metrics.admission()));
        let stage = watch::Sender::new(Stage::Serving);
        let tls = TlsAcceptor::from(tls);
        let serving = async {
            loop {
                let (tcp, peer) = accept(&listener).await;
                let slot = Arc::new(connections.admit(peer).await);
                let connection = connection::serve(
                    tcp,
                    tls.clone(),
                    Arc::clone(&endpoint),
                    Arc::clone(&slot),
                    stage.subscribe(),
                );
                tokio::spawn(run_connection(connection, Arc::clone(&metrics), slot));
            }
        };
        let draining = async {
            shutdown.await;
            tracing::info!("draining, and still answering requests");
            drain(&stage, endpoint.requests(), limits.drain_time).await;
        };
        tokio::select! {
            () = serving => {},
            () = draining => {},
        }
        drop(listener);
        if tokio::time::timeout(LAST_REQUESTS, connections.empty()).await.is_ok() {
            tracing::info!("shut down, with every request answered");
        } else {
            let requests = endpoint.requests().in_flight();
            tracing::warn!(requests, "shut down, with open connections");
        }
    }
}

async fn accept(listener: &TcpListener) -> (TcpStream, IpAddr) {
    loop {
        match listener.accept().await {
            Ok((tcp, peer)) => return (tcp, peer.ip()),
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
    slot: Arc<Slot>,
) {
    metrics.connection_opened();
    if let Err(error) = connection.await {
        metrics.handshake_failed();
        tracing::debug!(%error, "connection failed");
    }
    metrics.connection_closed();
    drop(slot);
}
