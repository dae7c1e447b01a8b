//! A client that authenticates with the service account of its pod.
//!
//! kube's own configuration also supports kubeconfig files, credential plugins and the system's trust store, which make up a quarter of
//! a binary. A pod needs a token and a CA. The kubelet replaces both while the pod runs, so the token is read for each request and the
//! CA for each connection.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use std::{env, fs, io};

use http::uri::{Authority, Scheme};
use http::{HeaderValue, Request, Uri, header};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use kube::Client;
use kube::client::Body;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::{Instant, timeout};
use tower::{BoxError, ServiceExt, service_fn};

use crate::metrics;

/// Where the kubelet mounts the service account (`DefaultAPITokenMountPath` of k8s.io/kubernetes/plugin/pkg/admission/serviceaccount).
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How long a connection may stay without an acknowledgement, that of a watch too.
const TCP_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the headers of a response may take: the default of the API server's `--request-timeout`. The body of a watch takes longer.
const HEADERS_TIMEOUT: Duration = Duration::from_mins(1);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A variable that the kubelet sets in every pod is missing or invalid.
    #[error(
        "not in a pod: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not the address of an API server"
    )]
    NotInPod,
    /// A file of the service account cannot be read.
    #[error("cannot read the service account (is automountServiceAccountToken false?): {}: {source}", path.display())]
    ServiceAccount {
        /// The file.
        path: PathBuf,
        /// The error of the read.
        source: io::Error,
    },
    /// A certificate of the CA is invalid.
    #[error("invalid CA certificate: {}: {reason}", path.display())]
    InvalidCa {
        /// The file.
        path: PathBuf,
        /// The error of the parser.
        reason: String,
    },
}

/// The `User-Agent` of every request, by which audit logs name the program.
static USER_AGENT: OnceLock<HeaderValue> = OnceLock::new();

/// Sets the `User-Agent` of this process to `podshaper-NAME/VERSION`. Only the first call has an effect.
pub fn set_user_agent(name: &str) {
    let user_agent = format!("podshaper-{name}/{}", env!("CARGO_PKG_VERSION"));
    if let Ok(value) = HeaderValue::try_from(user_agent) {
        let _ = USER_AGENT.set(value);
    }
}

/// Returns a client with the service account of this pod.
pub fn in_cluster() -> Result<Client, Error> {
    let variable = |name| env::var(name).map_err(|_| Error::NotInPod);
    let host = variable("KUBERNETES_SERVICE_HOST")?;
    let port = variable("KUBERNETES_SERVICE_PORT")?;
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    ServiceAccount::at(MOUNT_PATH.into()).client(authority.parse().map_err(|_| Error::NotInPod)?)
}

/// The directory of a service account.
#[derive(Clone)]
struct ServiceAccount(Arc<Path>);

impl ServiceAccount {
    fn at(directory: PathBuf) -> Self {
        Self(directory.into())
    }

    fn client(self, server: Authority) -> Result<Client, Error> {
        let namespace = String::from_utf8_lossy(&self.read("namespace")?).into_owned();
        self.token()?;
        self.tls()?;
        let account = self.clone();
        let connector = service_fn(move |uri: Uri| {
            let tls = account.tls();
            Box::pin(async move {
                let https = HttpsConnectorBuilder::new().with_tls_config(tls?).https_only().enable_http1();
                https.wrap_connector(tcp()).oneshot(uri).await
            })
        });
        let http = legacy::Client::builder(TokioExecutor::new()).build(connector);
        let service = service_fn(move |request: Request<Body>| {
            let http = http.clone();
            let method = request.method().clone();
            let request = self.authenticate(&server, request);
            async move {
                let started = Instant::now();
                let response = timeout(HEADERS_TIMEOUT, http.request(request?)).await;
                let status =
                    response.as_ref().ok().and_then(|response| Some(response.as_ref().ok()?.status()));
                metrics::record_request(&method, status, started.elapsed());
                Ok::<_, BoxError>(response??)
            }
        });
        Ok(Client::new(service, namespace))
    }

    /// Adds the server and the token to a request of kube. Its URI is only a path.
    fn authenticate(
        &self,
        server: &Authority,
        mut request: Request<Body>,
    ) -> Result<Request<Body>, BoxError> {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        (parts.scheme, parts.authority) = (Some(Scheme::HTTPS), Some(server.clone()));
        *request.uri_mut() = Uri::from_parts(parts)?;
        request.headers_mut().insert(header::AUTHORIZATION, self.token()?);
        if let Some(user_agent) = USER_AGENT.get() {
            request.headers_mut().insert(header::USER_AGENT, user_agent.clone());
        }
        Ok(request)
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, Error> {
        let path = self.0.join(name);
        fs::read(&path).map_err(|source| Error::ServiceAccount { path, source })
    }

    fn token(&self) -> Result<HeaderValue, Error> {
        let bearer = [b"Bearer ", self.read("token")?.trim_ascii()].concat();
        let mut value = HeaderValue::try_from(bearer).map_err(|error| Error::ServiceAccount {
            path: self.0.join("token"),
            source: io::Error::new(io::ErrorKind::InvalidData, error),
        })?;
        value.set_sensitive(true);
        Ok(value)
    }

    fn tls(&self) -> Result<ClientConfig, Error> {
        let invalid = |error: &dyn std::error::Error| Error::InvalidCa {
            path: self.0.join("ca.crt"),
            reason: error.to_string(),
        };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&self.read("ca.crt")?) {
            let certificate = certificate.map_err(|error| invalid(&error))?;
            roots.add(certificate).map_err(|error| invalid(&error))?;
        }
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| invalid(&error))?;
        Ok(tls.with_root_certificates(roots).with_no_client_auth())
    }
}

fn tcp() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(TCP_TIMEOUT / 3));
    tcp.set_keepalive(Some(TCP_TIMEOUT / 3));
    tcp.set_keepalive_interval(Some(TCP_TIMEOUT / 6));
    tcp.set_keepalive_retries(Some(4));
    #[cfg(target_os = "linux")]
    tcp.set_tcp_user_timeout(Some(TCP_TIMEOUT));
    tcp
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::net::Ipv4Addr;
    use std::sync::Mutex;

    use http::Response;
    use hyper::body::Incoming;
    use hyper::server::conn::http1;
    use hyper::service::service_fn as http_service;
    use hyper_util::rt::TokioIo;
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::ServerConfig;
    use rustls::pki_types::PrivateKeyDer;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// Serves one request per connection, with the latest certificate. The response repeats the authorization and the URI.
    async fn echo(listener: TcpListener, certificate: Arc<Mutex<Arc<ServerConfig>>>) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = TlsAcceptor::from(certificate.lock().unwrap().clone());
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let echo = http_service(async |request: Request<Incoming>| {
                let header = |name| request.headers()[name].to_str().unwrap();
                let authorization = header(header::AUTHORIZATION);
                let agent = header(header::USER_AGENT);
                Ok::<_, Infallible>(Response::new(format!("{authorization} {agent} {}", request.uri())))
            });
            let _ =
                http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), echo).await;
        }
    }

    fn issue(account: &Path, token: &str) -> Arc<ServerConfig> {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        for (name, content) in [("namespace", "here"), ("token", token), ("ca.crt", &cert.pem())] {
            fs::write(account.join(name), content).unwrap();
        }
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        Arc::new(config.with_single_cert(vec![cert.der().clone()], key).unwrap())
    }

    async fn get(client: &Client) -> Result<String, kube::Error> {
        client.request_text(Request::get("/version?x=y").body(Vec::new()).unwrap()).await
    }

    #[tokio::test]
    async fn new_token_and_new_ca_are_used() {
        let account = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let server = listener.local_addr().unwrap().to_string().parse().unwrap();
        let certificate = Arc::new(Mutex::new(issue(account.path(), "one\n")));
        tokio::spawn(echo(listener, certificate.clone()));

        set_user_agent("arch");
        let client = ServiceAccount::at(account.path().into()).client(server).unwrap();
        assert_eq!(client.default_namespace(), "here");
        let agent = concat!("podshaper-arch/", env!("CARGO_PKG_VERSION"));
        assert_eq!(get(&client).await.unwrap(), format!("Bearer one {agent} /version?x=y"));
        *certificate.lock().unwrap() = issue(account.path(), "two");
        assert_eq!(get(&client).await.unwrap(), format!("Bearer two {agent} /version?x=y"));

        let foreign = tempfile::tempdir().unwrap();
        *certificate.lock().unwrap() = issue(foreign.path(), "three");
        let error = format!("{:?}", get(&client).await.unwrap_err());
        assert!(error.contains("UnknownIssuer") || error.contains("BadSignature"), "{error}");
    }

    #[tokio::test]
    async fn request_without_response_times_out() {
        let account = tempfile::tempdir().unwrap();
        issue(account.path(), "one");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let server = listener.local_addr().unwrap().to_string().parse().unwrap();
        let client = ServiceAccount::at(account.path().into()).client(server).unwrap();
        let request = tokio::spawn(async move { get(&client).await.unwrap_err() });
        let _silent = listener.accept().await.unwrap();
        tokio::time::pause();
        let error = timeout(2 * HEADERS_TIMEOUT, request).await.expect("an error in time").unwrap();
        assert!(format!("{error:?}").contains("Elapsed"), "{error:?}");
    }

    #[test]
    fn error_names_the_file() {
        let account = tempfile::tempdir().unwrap();
        let error = |account: &Path| {
            let client = ServiceAccount::at(account.into()).client(Authority::from_static("127.0.0.1:1"));
            client.map(drop).unwrap_err().to_string()
        };
        assert!(error(account.path()).contains("namespace"));
        issue(account.path(), "line\nline");
        assert!(error(account.path()).contains("token: "));
        issue(account.path(), "one");
        fs::write(
            account.path().join("ca.crt"),
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        )
        .unwrap();
        assert!(error(account.path()).contains("ca.crt: "));
    }
}
