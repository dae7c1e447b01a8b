//! The least that an HTTPS webhook can cost: reads the body to its end, and answers the same each time.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use clap::Parser;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::{ServerConfig, version};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As long as a webhook's answer with a patch.
const ANSWER: &[u8] = include_bytes!("answer.json");

#[derive(Parser)]
struct Options {
    #[arg(long, default_value = "127.0.0.1:9443")]
    listen: SocketAddr,
    /// Certificate, PEM
    #[arg(long)]
    cert: PathBuf,
    /// Its key, PEM
    #[arg(long)]
    key: PathBuf,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let tls = TlsAcceptor::from(Arc::new(tls(&options)?));
    let listener = TcpListener::bind(options.listen).await.with_context(|| options.listen.to_string())?;
    loop {
        let (tcp, _) = listener.accept().await?;
        let tls = tls.clone();
        tokio::spawn(async move {
            // The client closed the connection or speaks no HTTP, so there is no one to respond to.
            let _ = serve(tcp, tls).await;
        });
    }
}

fn tls(options: &Options) -> anyhow::Result<ServerConfig> {
    let certificates = CertificateDer::pem_file_iter(&options.cert)
        .and_then(Iterator::collect)
        .with_context(|| options.cert.display().to_string())?;
    let key =
        PrivateKeyDer::from_pem_file(&options.key).with_context(|| options.key.display().to_string())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(certificates, key)?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(tls)
}

async fn serve(tcp: TcpStream, tls: TlsAcceptor) -> anyhow::Result<()> {
    tcp.set_nodelay(true)?;
    let tls = tls.accept(tcp).await?;
    http1::Builder::new().serve_connection(TokioIo::new(tls), service_fn(answer)).await?;
    Ok(())
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    request.into_body().collect().await?;
    let mut response = Response::new(Full::new(Bytes::from_static(ANSWER)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
