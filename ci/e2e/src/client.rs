//! An HTTPS client that sends exactly the given bytes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::authority::SERVER_NAME;

/// Connects to one webhook.
#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    source: IpAddr,
    tls: TlsConnector,
}

/// One connection.
pub struct Connection(pub TlsStream<TcpStream>);

/// An HTTP/1.1 answer.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Status line and headers, in lower case.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Client {
    /// A client of `address` that trusts the CA in `ca`.
    pub fn new(address: SocketAddr, ca: &str) -> Self {
        let config = config(ca).with_no_client_auth();
        Self { address, source: Ipv4Addr::LOCALHOST.into(), tls: TlsConnector::from(Arc::new(config)) }
    }

    /// The same client at another loopback address, 127.0.0.`number`.
    #[must_use]
    pub fn at(&self, number: u8) -> Self {
        Self { source: Ipv4Addr::new(127, 0, 0, number).into(), ..self.clone() }
    }

    /// The same client, which offers these protocols in ALPN.
    #[must_use]
    pub fn offering(&self, protocols: &[&str]) -> Self {
        let mut config = ClientConfig::clone(self.tls.config());
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Self { tls: TlsConnector::from(Arc::new(config)), ..self.clone() }
    }

    /// The same client with a certificate, as PEM, of which `ca` is the CA of the server.
    #[must_use]
    pub fn with_certificate(&self, ca: &str, certificate: &str, key: &str) -> Self {
        let config = config(ca)
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap();
        Self { tls: TlsConnector::from(Arc::new(config)), ..self.clone() }
    }

    /// A new connection without TLS.
    pub async fn connect_tcp(&self) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((self.source, 0).into())?;
        let tcp = socket.connect(self.address).await?;
        tcp.set_nodelay(true)?;
        Ok(tcp)
    }

    /// A new connection, its handshake done.
    pub async fn connect(&self) -> std::io::Result<Connection> {
        let tcp = self.connect_tcp().await?;
        let name = ServerName::try_from(SERVER_NAME).unwrap();
        Ok(Connection(self.tls.connect(name, tcp).await?))
    }

    /// Sends one request on a connection of its own.
    pub async fn send(&self, request: impl AsRef<[u8]>) -> std::io::Result<Answer> {
        self.connect().await?.send(request).await
    }
}

fn config(ca: &str) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
}

/// A POST of `body` to `path` as the API server sends it.
pub fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut request = format!(
        "POST {path}?timeout=10s HTTP/1.1\r\nHost: {SERVER_NAME}:443\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

impl Connection {
    /// Sends bytes and reads an answer. Both at once: a server may answer before it has read all.
    pub async fn send(&mut self, request: impl AsRef<[u8]>) -> std::io::Result<Answer> {
        let (mut reader, mut writer) = tokio::io::split(&mut self.0);
        let write = async {
            // A server that has answered may close without reading the rest.
            let _ = writer.write_all(request.as_ref()).await;
            let _ = writer.flush().await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            answer = read(&mut reader) => answer,
            () = write => unreachable!("pending"),
        }
    }

    /// Reads an answer.
    pub async fn receive(&mut self) -> std::io::Result<Answer> {
        read(&mut self.0).await
    }
}

async fn read(stream: &mut (impl AsyncReadExt + Unpin)) -> std::io::Result<Answer> {
    let mut bytes = Vec::new();
    let (head, length) = loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length =
                head.lines().find_map(|l| l.strip_prefix("content-length: ")).and_then(|l| l.parse().ok());
            break (head, end + 4 + length.unwrap_or(0));
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    };
    while bytes.len() < length {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_default();
    let body_at = head.len() + 4;
    Ok(Answer { status, head, body: String::from_utf8_lossy(&bytes[body_at..length]).into_owned() })
}
