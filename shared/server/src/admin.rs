//! The HTTP servers for probes, metrics and web pages, on ports of their own.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

pub use crate::response::{HttpResponse, document, text};
pub use http::StatusCode;

use crate::connection::HANDSHAKE_TIMEOUT;
use crate::listen::ACCEPT_PAUSE;

/// The connections at a time, for probes and scrapers. Others wait.
const MAX_CONNECTIONS: usize = 64;
/// The longest time of a connection without a request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The pages of an admin server.
pub trait Pages: Send + Sync + 'static {
    /// Answers a GET of `path` with this `Authorization` header.
    fn get(&self, path: &str, authorization: Option<&str>) -> impl Future<Output = HttpResponse> + Send;
}

/// Serves `pages` on `listener` forever, over TLS if `tls` is given.
pub async fn serve<P: Pages>(listener: TcpListener, tls: Option<Arc<rustls::ServerConfig>>, pages: P) {
    let pages = Arc::new(pages);
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        let Ok((tcp, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (pages, tls) = (Arc::clone(&pages), tls.clone());
        tokio::spawn(async move {
            match tls {
                None => serve_connection(tcp, pages).await,
                Some(tls) => {
                    let handshake = TlsAcceptor::from(tls).accept(tcp);
                    if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
                        serve_connection(stream, pages).await;
                    }
                }
            }
            drop(permit);
        });
    }
}

async fn serve_connection<P: Pages>(stream: impl AsyncRead + AsyncWrite + Unpin, pages: Arc<P>) {
    let service = service_fn(|request: Request<Incoming>| {
        let pages = Arc::clone(&pages);
        async move { Ok::<_, Infallible>(respond(&*pages, &request).await) }
    });
    // An error concerns the client only.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn respond<P: Pages>(pages: &P, request: &Request<Incoming>) -> HttpResponse {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed: use GET");
    }
    let authorization = request.headers().get(http::header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    pages.get(request.uri().path(), authorization).await
}

/// `/healthz`, `/livez` and `/readyz`.
pub struct Probes<R> {
    /// Returns the reason if the server isn't ready.
    pub not_ready: R,
}

impl<R: Fn() -> Option<String> + Send + Sync + 'static> Pages for Probes<R> {
    async fn get(&self, path: &str, _: Option<&str>) -> HttpResponse {
        match path {
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
