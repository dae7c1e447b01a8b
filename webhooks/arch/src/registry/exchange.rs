//! One request and its answer, bounded in every way: time, bytes, redirects, and where it leads.

use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpInfo;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use tokio::time::timeout;
use tower::util::BoxCloneSyncService;

use super::address::AddressPolicy;
use super::body::{Bodies, Body};
use super::connect::{Names, Refused, connect, is_private};
use super::connection::{ConnectionLimit, CountedStream};
use super::host_limiter::{HostLimiters, RequestResult};
use super::hosts::Hosts;
use super::{RegistryRequest, RegistryResponse, authority, host_and_port};
use arch_decision::images::LookupError;

/// The longest that one request may take, redirects included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection stays open without a request: the requests of a lookup follow each other.
const IDLE: Duration = Duration::from_secs(2);
/// More redirects than any registry sends.
const MAX_REDIRECTS: usize = 4;

type Connector = BoxCloneSyncService<Uri, hyper_util::rt::TokioIo<CountedStream>, std::io::Error>;
type Http = Client<HttpsConnector<Connector>, Full<Bytes>>;

/// The client of all registries.
pub(crate) struct Exchange {
    registry: Http,
    internet: Http,
    hosts: Arc<Hosts>,
    names: Names,
    limiters: HostLimiters,
    bodies: Bodies,
}

impl Exchange {
    pub(crate) fn new(hosts: Arc<Hosts>, names: Names, tls: &ClientConfig) -> Self {
        let limit = ConnectionLimit::default();
        let http = |reach| {
            let hosts = Arc::clone(&hosts);
            let names = names.clone();
            let limit = limit.clone();
            let tcp = tower::service_fn(move |uri: Uri| {
                connect(uri, reach, Arc::clone(&hosts), names.clone(), limit.clone())
            });
            let https =
                HttpsConnectorBuilder::new().with_tls_config(tls.clone()).https_or_http().enable_http1();
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(4)
                .http1_max_buf_size(64 << 10)
                .build(https.wrap_connector(BoxCloneSyncService::new(tcp)))
        };
        let registry = http(AddressPolicy::Registry);
        let internet = http(AddressPolicy::Internet);
        Self {
            registry,
            internet,
            hosts,
            names,
            limiters: HostLimiters::default(),
            bodies: Bodies::default(),
        }
    }

    pub(crate) fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    /// Sends `ask` and follows where the answer points to, without the authorization: it is for the first host.
    pub(super) async fn send(&self, ask: RegistryRequest) -> Result<RegistryResponse, LookupError> {
        timeout(REQUEST_TIMEOUT, self.follow(ask)).await.unwrap_or(Err(LookupError::Timeout))
    }

    async fn follow(&self, mut ask: RegistryRequest) -> Result<RegistryResponse, LookupError> {
        for hop in 0..=MAX_REDIRECTS {
            let mut answer = self.once(&ask).await?;
            answer.redirected = hop > 0;
            let redirects = matches!(answer.status.as_u16(), 301 | 302 | 303 | 307 | 308);
            if !redirects || ask.method == Method::POST {
                return Ok(answer);
            }
            let target = answer
                .headers
                .get(header::LOCATION)
                .and_then(|to| to.to_str().ok())
                .ok_or(LookupError::Unavailable)?;
            let target = resolve(&ask.uri, target).ok_or(LookupError::Unavailable)?;
            self.check_scheme(&target, Some(&ask.uri))?;
            ask.reach = answer.reach;
            ask.authorization = None;
            ask.requester.identity = Default::default();
            ask.uri = target;
        }
        Err(LookupError::Unavailable)
    }

    /// The addresses that this host may refer to: private ones only if its own address is private. The address that answered counts,
    /// not a new resolution of the name. Through a proxy only the name is available.
    async fn address_policy_of(&self, ask: &RegistryRequest, peer: Option<IpAddr>) -> AddressPolicy {
        let (host, port) = host_and_port(&ask.uri);
        let private = match peer.filter(|_| self.hosts.proxy_for(host, port).is_none()) {
            Some(peer) => !AddressPolicy::Internet.allows(peer),
            None => is_private(self.names.clone(), host, port).await,
        };
        if ask.reach == AddressPolicy::Registry && private {
            AddressPolicy::Registry
        } else {
            AddressPolicy::Internet
        }
    }

    /// Whether this may be asked without TLS, if it would be: the operator named the host, or it is where one already is.
    pub(crate) fn check_scheme(&self, uri: &Uri, from: Option<&Uri>) -> Result<(), LookupError> {
        let (host, port) = host_and_port(uri);
        let same =
            from.is_some_and(|from| from.scheme() == uri.scheme() && from.authority() == uri.authority());
        match uri.scheme_str() {
            Some("https") => Ok(()),
            Some("http") if same || self.hosts.is_plain(host, port) => Ok(()),
            _ => Err(LookupError::Refused),
        }
    }

    async fn once(&self, ask: &RegistryRequest) -> Result<RegistryResponse, LookupError> {
        let (host, _) = host_and_port(&ask.uri);
        let permit = self.limiters.permit(&authority(&ask.uri), &ask.requester).await?;
        let mut request =
            Request::builder().method(&ask.method).uri(&ask.uri).header(header::ACCEPT, ask.accept);
        request = request.header(header::USER_AGENT, concat!("podshaper-arch/", env!("CARGO_PKG_VERSION")));
        if let Some(authorization) = &ask.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if ask.form.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        let body = Full::new(ask.form.clone().unwrap_or_default());
        let request = request.body(body).map_err(|_| LookupError::Invalid)?;
        let http = match ask.reach {
            AddressPolicy::Registry => &self.registry,
            AddressPolicy::Internet | AddressPolicy::Identity => &self.internet,
        };
        let sent = timeout(REQUEST_TIMEOUT / 2, http.request(request)).await;
        let answer = match sent {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) if is_refusal(&error) => return Err(LookupError::Refused),
            Ok(Err(error)) => {
                tracing::debug!(%host, error = root_cause(&error), "can't send a request to a registry");
                // A response that breaks off may be that of one repository.
                let result = if error.is_connect() {
                    RequestResult::NotConnected
                } else {
                    RequestResult::ServerError(None)
                };
                permit.record(result);
                return Err(LookupError::Unavailable);
            }
            Err(_) => {
                permit.record(RequestResult::TimedOut);
                return Err(LookupError::Timeout);
            }
        };
        let peer = answer.extensions().get::<HttpInfo>().map(|info| info.remote_addr().ip());
        let (parts, body) = answer.into_parts();
        let retry_after = parts.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        match parts.status.as_u16() {
            429 => {
                permit.record(RequestResult::TooManyRequests(retry_after));
                return Err(LookupError::RateLimited);
            }
            500.. => {
                let retry_after = retry_after.filter(|_| parts.status == StatusCode::SERVICE_UNAVAILABLE);
                permit.record(RequestResult::ServerError(retry_after));
                return Err(LookupError::Unavailable);
            }
            _ => permit.record(RequestResult::Answered),
        }
        let body = if parts.status.is_success() { self.bodies.read(body).await? } else { Body::default() };
        let points = parts.status == StatusCode::UNAUTHORIZED || parts.status.is_redirection();
        let reach = if points { self.address_policy_of(ask, peer).await } else { AddressPolicy::Internet };
        let status = parts.status;
        let headers = parts.headers;
        let uri = ask.uri.clone();
        Ok(RegistryResponse { status, headers, body, reach, uri, redirected: false })
    }
}

/// Where a `Location` leads from `base` (RFC 3986 section 5.2).
fn resolve(base: &Uri, target: &str) -> Option<Uri> {
    let target = target.split('#').next().unwrap_or_default();
    let scheme = base.scheme_str()?;
    let authority = base.authority()?;
    let has_scheme = target.split(['/', '?']).next().is_some_and(|first| first.contains(':'));
    let text = if has_scheme {
        target.to_owned()
    } else if target.starts_with("//") {
        format!("{scheme}:{target}")
    } else {
        let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
        let path = match (path.is_empty(), path.starts_with('/')) {
            (true, _) if query.is_empty() => return None,
            (true, _) => base.path().to_owned(),
            (false, true) => without_dots(path),
            (false, false) => {
                let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
                without_dots(&format!("{folder}/{path}"))
            }
        };
        format!("{scheme}://{authority}{path}{query}")
    };
    let uri: Uri = text.parse().ok()?;
    let is_absolute = uri.scheme().is_some();
    uri.authority().is_some_and(|own| is_absolute && !own.as_str().contains('@')).then_some(uri)
}

/// An absolute path without `.` and `..` (RFC 3986 section 5.2.4).
fn without_dots(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').skip(1) {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    if path.ends_with("/.") || path.ends_with("/..") {
        parts.push("");
    }
    format!("/{}", parts.join("/"))
}

/// The message of the first error of a chain: the others say `client error (Connect)`.
pub(super) fn root_cause(error: &dyn Error) -> String {
    error.source().map_or_else(|| error.to_string(), root_cause)
}

fn is_refusal(error: &(dyn Error + 'static)) -> bool {
    let mut error = Some(error);
    while let Some(cause) = error {
        let inner = cause.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref());
        if inner.is_some_and(<dyn Error + Send + Sync>::is::<Refused>) || cause.is::<Refused>() {
            return true;
        }
        error = cause.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::sync::Mutex;

    use tokio::net::TcpListener;

    use super::*;
    use crate::registry::Requester;
    use crate::registry::connect::names;
    use crate::registry::tls::client_config;
    use arch_decision::config::Registries;

    fn exchange(names: Names) -> Exchange {
        let settings = Registries::default();
        Exchange::new(Arc::new(Hosts::new(settings.clone())), names, &client_config(&settings).unwrap())
    }

    fn ask(uri: &str) -> RegistryRequest {
        let method = Method::GET;
        let uri = uri.parse().unwrap();
        let reach = AddressPolicy::Registry;
        let requester = Requester::default();
        RegistryRequest { method, uri, accept: "*/*", authorization: None, form: None, reach, requester }
    }

    #[test]
    fn spellings_of_a_host_are_equal() {
        for uri in
            ["https://Registry.Example/v2/", "https://registry.example:443/", "https://REGISTRY.example"]
        {
            assert_eq!(authority(&uri.parse().unwrap()), "registry.example:443");
        }
    }

    #[test]
    fn location_is_resolved() {
        let base: Uri = "https://r.example:5000/v2/a/manifests/1?ns=x".parse().unwrap();
        for (target, expected) in [
            ("http://other.example/x?y=/z", Some("http://other.example/x?y=/z")),
            ("HTTPS://other.example", Some("https://other.example/")),
            ("//other.example:80/x", Some("https://other.example:80/x")),
            ("/x/../y/./z?a=../b", Some("https://r.example:5000/y/z?a=../b")),
            ("2", Some("https://r.example:5000/v2/a/manifests/2")),
            ("../blobs/sha256/x", Some("https://r.example:5000/v2/a/blobs/sha256/x")),
            ("../../../../../x", Some("https://r.example:5000/x")),
            ("./..", Some("https://r.example:5000/v2/a/")),
            ("?ns=y", Some("https://r.example:5000/v2/a/manifests/1?ns=y")),
            ("/x#part", Some("https://r.example:5000/x")),
            ("//u:p@other.example/x", None),
            ("http://u@other.example/x", None),
            ("", None),
            ("#part", None),
            ("//", None),
            ("file:///etc/passwd", None),
            ("mailto:a", None),
            ("other.example:80", None),
            ("/a b", None),
        ] {
            let found = resolve(&base, target).map(|uri| uri.to_string());
            assert_eq!(found.as_deref(), expected, "{target}");
        }
    }

    #[tokio::test]
    async fn peer_address_decides_about_redirects() {
        let exchange = exchange(names());
        // By now, this name leads here.
        let mut ask = ask("https://localhost/v2/");
        let [public, private] = ["8.8.8.8", "10.0.0.1"].map(|peer| peer.parse().ok());
        assert_eq!(exchange.address_policy_of(&ask, public).await, AddressPolicy::Internet);
        assert_eq!(exchange.address_policy_of(&ask, private).await, AddressPolicy::Registry);
        ask.reach = AddressPolicy::Internet;
        assert_eq!(
            exchange.address_policy_of(&ask, private).await,
            AddressPolicy::Internet,
            "never further again"
        );
    }

    /// The clock is paused and advances while no address answers: `100::/64` is the discard prefix (RFC 6666).
    #[tokio::test(start_paused = true)]
    async fn rebound_name_is_refused() {
        let victim = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = victim.local_addr().unwrap().port();
        let address = |ip: &str| SocketAddr::new(ip.parse().unwrap(), port);
        let discarded = address("100::1");
        let here = address("127.0.0.1");
        let answers =
            Arc::new(Mutex::new(vec![vec![discarded], vec![here], vec![here, discarded]].into_iter()));
        let next = Arc::clone(&answers);
        let exchange = exchange(Names::new(tower::service_fn(move |_| {
            let addresses = next.lock().unwrap().next();
            async { Ok(addresses.expect("each connection has one answer")) }
        })));
        let ask = ask(&format!("https://rebound.example:{port}/v2/"));
        for expected in [LookupError::Unavailable, LookupError::Refused, LookupError::Unavailable] {
            assert_eq!(exchange.send(ask.clone()).await.err(), Some(expected));
        }
        assert_eq!(answers.lock().unwrap().next(), None, "a name is looked up once for each connection");
        let connected = timeout(Duration::from_secs(1), victim.accept()).await;
        assert!(connected.is_err(), "somebody was let in");
    }
}
