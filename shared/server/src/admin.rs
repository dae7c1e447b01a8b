//! The HTTP servers for probes, metrics and web pages, on ports of their own.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

pub use crate::response::{HttpResponse, document, text};
pub use http::StatusCode;

use crate::connection_pool::{ConnectionPool, Slot};
use crate::listen::ACCEPT_PAUSE;

/// The connections at a time, for probes and scrapers. A further one replaces the oldest idle one.
const MAX_CONNECTIONS: usize = 64;
/// The longest time until a request has arrived.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest time of a connection, from its handshake to the end of its one response. It is Prometheus' default for a scrape.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// A GET request.
#[derive(Clone, Copy, Debug)]
pub struct Get<'r> {
    /// The path of its URL.
    pub path: &'r str,
    /// Its `Host` header.
    pub host: Option<&'r str>,
    /// Its `Authorization` header.
    pub authorization: Option<&'r str>,
    /// Its `Accept` header.
    pub accept: Option<&'r str>,
}

/// The pages of an admin server.
pub trait Pages: Send + Sync + 'static {
    /// Answers a request.
    fn get(&self, request: Get<'_>) -> impl Future<Output = HttpResponse> + Send;
}

/// Serves `pages` on `listener` forever, over TLS if `tls` is given. It must not offer HTTP/2.
///
/// A connection carries one request, so that no client keeps one from others.
pub async fn serve<P: Pages>(listener: TcpListener, tls: Option<Arc<rustls::ServerConfig>>, pages: P) {
    let pages = Arc::new(pages);
    let tls = tls.map(TlsAcceptor::from);
    let connections = ConnectionPool::new(MAX_CONNECTIONS);
    loop {
        let Ok((tcp, peer)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let slot = connections.admit(peer.ip()).await;
        let pages = Arc::clone(&pages);
        let tls = tls.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = timeout(CONNECTION_TIMEOUT, serve_connection(tcp, tls, &*pages, &slot)) => {},
                () = slot.evicted() => {},
            }
        });
    }
}

async fn serve_connection<P: Pages>(tcp: TcpStream, tls: Option<TlsAcceptor>, pages: &P, slot: &Slot) {
    match tls {
        None => serve_request(tcp, pages, slot).await,
        Some(tls) => {
            // An error concerns the client only.
            if let Ok(stream) = tls.accept(tcp).await {
                serve_request(stream, pages, slot).await;
            }
        }
    }
}

async fn serve_request<P: Pages>(stream: impl AsyncRead + AsyncWrite + Unpin, pages: &P, slot: &Slot) {
    let service = service_fn(|request: Request<Incoming>| async move {
        let _in_flight = slot.requests().begin();
        Ok::<_, Infallible>(respond(pages, &request).await)
    });
    // An error concerns the client only.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn respond<P: Pages>(pages: &P, request: &Request<Incoming>) -> HttpResponse {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed: use GET");
    }
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let host = header(header::HOST);
    let authorization = header(header::AUTHORIZATION);
    let accept = header(header::ACCEPT);
    pages.get(Get { path: request.uri().path(), host, authorization, accept }).await
}

/// `/healthz`, `/livez` and `/readyz`.
pub struct Probes<R> {
    /// Returns the reason if the server isn't ready.
    pub not_ready: R,
}

impl<R: Fn() -> Option<String> + Send + Sync + 'static> Pages for Probes<R> {
    async fn get(&self, request: Get<'_>) -> HttpResponse {
        match request.path {
            "/healthz" | "/livez" => text(StatusCode::OK, "ok"),
            // For probes that were written for webhooks which this project replaces.
            "/health" => Response::new(Full::from("OK")),
            "/readyz" => match (self.not_ready)() {
                None => text(StatusCode::OK, "ok"),
                Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, &reason),
            },
            _ => text(StatusCode::NOT_FOUND, "not found: use /healthz, /livez or /readyz"),
        }
    }
}
