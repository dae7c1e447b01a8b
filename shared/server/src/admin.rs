//! Probes and metrics, on ports of their own.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
pub use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

pub use super::endpoint::text;
use super::limits::{ACCEPT_PAUSE, HANDSHAKE};

/// Probes and scrapers are few; more connections than these wait.
const CONNECTIONS: usize = 64;
/// How long a connection may stay without a request.
const IDLE: Duration = Duration::from_secs(30);

/// What a browser may do with a page: take scripts, styles and data from where it came from, and nothing else from anywhere.
const SECURITY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
                        form-action 'none'; frame-ancestors 'none'";

/// An answer.
pub type Answer = Response<Full<Bytes>>;

/// What an admin server answers with.
pub trait Pages: Send + Sync + 'static {
    /// The answer to a GET of `path` with this `Authorization` header.
    fn get(&self, path: &str, authorization: Option<&str>) -> impl Future<Output = Answer> + Send;
}

/// Serves `pages` on `listener` for ever, over TLS if `tls` is given.
pub async fn serve<P: Pages>(listener: TcpListener, tls: Option<Arc<rustls::ServerConfig>>, pages: P) {
    let pages = Arc::new(pages);
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        let Ok((tcp, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (pages, tls) = (Arc::clone(&pages), tls.clone());
        tokio::spawn(async move {
            match tls {
                None => connection(tcp, pages).await,
                Some(tls) => {
                    let accepting = TlsAcceptor::from(tls).accept(tcp);
                    if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, accepting).await {
                        connection(stream, pages).await;
                    }
                }
            }
            drop(permit);
        });
    }
}

async fn connection<P: Pages>(stream: impl AsyncRead + AsyncWrite + Unpin, pages: Arc<P>) {
    let service = service_fn(|request: Request<Incoming>| {
        let pages = Arc::clone(&pages);
        async move { Ok::<_, Infallible>(page(&*pages, &request).await) }
    });
    // Its error is the client's business.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn page<P: Pages>(pages: &P, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "GET only");
    }
    let authorization = request.headers().get(http::header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    pages.get(request.uri().path(), authorization).await
}

/// `/healthz`, `/livez` and `/readyz`.
pub struct Probes<R> {
    /// Why the server isn't ready, if it isn't.
    pub not_ready: R,
}

impl<R: Fn() -> Option<String> + Send + Sync + 'static> Pages for Probes<R> {
    async fn get(&self, path: &str, _: Option<&str>) -> Response<Full<Bytes>> {
        match path {
            "/healthz" | "/livez" => text(StatusCode::OK, "ok"),
            "/health" => Response::new(Full::from("OK")),
            "/readyz" => match (self.not_ready)() {
                None => text(StatusCode::OK, "ok"),
                Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, &reason),
            },
            _ => text(StatusCode::NOT_FOUND, "try /healthz, /livez or /readyz"),
        }
    }
}

/// Something for a browser, of this content type.
pub fn document(media: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    for (name, value) in [
        (CONTENT_TYPE, media),
        (CONTENT_SECURITY_POLICY, SECURITY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CACHE_CONTROL, "no-store"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A page in the format that Prometheus reads.
pub(crate) fn metrics_page(body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    let format = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, format);
    response
}
