//! A way to the API server on which watches are slow, and nothing else is.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Bytes of one read.
const CHUNK: usize = 16 * 1024;
/// The query parameter that marks a watch request.
const WATCH: &[u8] = b"watch=true&";

/// A proxy before the API server. It goes when this is dropped.
pub struct Lag {
    /// Where it listens, on every address of this machine.
    pub port: u16,
    task: tokio::task::JoinHandle<()>,
}

impl Lag {
    /// Passes on everything to the API server at `address` (`IP:PORT`), but what watches say only after `delay`. It shows the API
    /// server's own certificate, from the folder where `ci/cluster` keeps its keys.
    pub async fn start(pki: &Path, address: String, delay: Duration) -> Self {
        let certificates = |name: &str| {
            CertificateDer::pem_file_iter(pki.join(name)).unwrap().map(Result::unwrap).collect::<Vec<_>>()
        };
        let key = PrivateKeyDer::from_pem_file(pki.join("apiserver.key")).unwrap();
        let provider = Arc::new(ring::default_provider());
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let server = server.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let server = server.with_single_cert(certificates("apiserver.crt"), key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates("ca.crt"));
        let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let client = client.unwrap().with_root_certificates(roots).with_no_client_auth();
        let (acceptor, connector) =
            (TlsAcceptor::from(Arc::new(server)), TlsConnector::from(Arc::new(client)));

        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                let connector = connector.clone();
                let address = address.clone();
                // A connection that fails is its client's to notice.
                tokio::spawn(async move { pass(stream, &acceptor, &connector, &address, delay).await.ok() });
            }
        });
        Self { port, task }
    }
}

impl Drop for Lag {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    connector: &TlsConnector,
    address: &str,
    delay: Duration,
) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = split(acceptor.accept(stream).await?);
    let name = ServerName::try_from("kubernetes").unwrap();
    let (mut from_server, mut to_server) =
        split(connector.connect(name, TcpStream::connect(address).await?).await?);
    let watches = AtomicBool::new(false);
    let (late, mut due) = mpsc::unbounded_channel();
    let ask = async {
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = from_client.read(&mut chunk).await?;
            if read == 0 {
                return to_server.shutdown().await;
            }
            if chunk[..read].windows(WATCH.len()).any(|text| text == WATCH) {
                watches.store(true, Ordering::Release);
            }
            to_server.write_all(&chunk[..read]).await?;
        }
    };
    let answer = async {
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = from_server.read(&mut chunk).await?;
            let wait = if watches.load(Ordering::Acquire) { delay } else { Duration::ZERO };
            late.send((Instant::now() + wait, chunk[..read].to_vec())).unwrap();
            if read == 0 {
                return Ok(());
            }
        }
    };
    let deliver = async {
        while let Some((at, chunk)) = due.recv().await {
            sleep_until(at).await;
            if chunk.is_empty() {
                break;
            }
            to_client.write_all(&chunk).await?;
        }
        to_client.shutdown().await
    };
    tokio::select! {
        ended = ask => ended,
        ended = async { tokio::try_join!(answer, deliver) } => ended.map(drop),
    }
}
