//! Connections to checked addresses. A name is resolved once, its addresses are checked, and one of those is connected to, so that a second
//! answer of the name server has no effect.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use super::address::AddressPolicy;
use super::connection::{ConnectionLimit, CountedStream};
use super::hosts::Hosts;
use arch_decision::config::Proxy;

/// A registry that can't be connected to within this time can't be reached. It is less than the time of a request, so that a host
/// without connections differs from one that is slow.
const CONNECT: Duration = Duration::from_secs(4);
/// The time after which the next address of a host is tried too (RFC 8305 section 8).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// The largest number of addresses of a host that are tried.
const MAX_ATTEMPTS: usize = 8;
/// As much as a proxy may say before it lets anything through.
const PROXY_ANSWER: usize = 8 << 10;

/// Resolves the addresses of a host and port.
pub(crate) type Names = BoxCloneSyncService<(String, u16), Vec<SocketAddr>, io::Error>;

/// Names as this machine knows them.
pub(crate) fn names() -> Names {
    Names::new(tower::service_fn(|place: (String, u16)| async { Ok(lookup_host(place).await?.collect()) }))
}

/// The address isn't one that may be asked.
#[derive(Debug, thiserror::Error)]
#[error("{0} has no address that may be reached")]
pub(crate) struct Refused(pub(crate) String);

/// Connects to `uri`'s host as far as `reach` goes, or anywhere if the operator named the host.
pub(crate) async fn connect(
    uri: Uri,
    reach: AddressPolicy,
    hosts: Arc<Hosts>,
    names: Names,
    limit: ConnectionLimit,
) -> io::Result<TokioIo<CountedStream>> {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
    let permit = limit.permit().await?;
    let allowed = |to: &SocketAddr| hosts.names(&host, port) || reach.allows(to.ip());
    let stream = timeout(CONNECT, async {
        let known = resolve(names, &host, port).await;
        // Identity services of a node are behind no proxy.
        let is_direct = reach == AddressPolicy::Identity && host.parse::<IpAddr>().is_ok();
        match hosts.proxy_for(&host, port).filter(|_| !is_direct) {
            // A proxy resolves the name itself, also names that are unknown here. A name that resolves to a forbidden address here is
            // refused.
            Some(_) if !known.iter().flatten().all(allowed) => Err(io::Error::other(Refused(host.clone()))),
            Some(proxy) => {
                let credentials = proxy_credentials(proxy, &hosts).await?;
                through(proxy, credentials, &host, port).await
            }
            None => directly(&host, known?.into_iter().filter(allowed), &limit).await,
        }
    });
    let stream = stream.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(TokioIo::new(CountedStream::new(stream, permit)))
}

/// Connects to the first of these addresses that answers. They share the time: an address that does not answer delays the next one by
/// [`ATTEMPT_DELAY`] only.
async fn directly(
    host: &str,
    addresses: impl Iterator<Item = SocketAddr>,
    limit: &ConnectionLimit,
) -> io::Result<TcpStream> {
    let mut last = io::Error::other(Refused(host.to_owned()));
    let mut rest = interleaved(addresses).take(MAX_ATTEMPTS).peekable();
    let mut attempts = JoinSet::new();
    loop {
        // The caller has permission for one connection. An attempt beside another one needs its own.
        let permit = if attempts.is_empty() { Some(None) } else { limit.try_permit().map(Some) };
        if let Some(permit) = permit
            && let Some(address) = rest.next()
        {
            attempts.spawn(async move {
                let stream = TcpStream::connect(address).await;
                drop(permit);
                stream
            });
        }
        let ended = if rest.peek().is_some() {
            timeout(ATTEMPT_DELAY, attempts.join_next()).await
        } else {
            Ok(attempts.join_next().await)
        };
        match ended {
            Ok(Some(Ok(Ok(stream)))) => return Ok(stream),
            Ok(Some(Ok(Err(error)))) => last = error,
            Ok(Some(Err(error))) => last = io::Error::other(error),
            Ok(None) => return Err(last),
            // The next address is tried beside this one.
            Err(_) => {}
        }
    }
}

/// The addresses, those of the two families in turn (RFC 8305 section 4).
fn interleaved(addresses: impl Iterator<Item = SocketAddr>) -> impl Iterator<Item = SocketAddr> {
    let mut addresses = addresses.peekable();
    let first_is_v4 = addresses.peek().is_some_and(SocketAddr::is_ipv4);
    let (first, second): (Vec<_>, Vec<_>) = addresses.partition(|address| address.is_ipv4() == first_is_v4);
    let mut first = first.into_iter();
    let mut second = second.into_iter();
    let mut is_first = false;
    std::iter::from_fn(move || {
        is_first = !is_first;
        if is_first { first.next().or_else(|| second.next()) } else { second.next().or_else(|| first.next()) }
    })
}

/// User and password for the proxy. The files are read for each connection, because they may change.
async fn proxy_credentials(proxy: &Proxy, hosts: &Hosts) -> io::Result<Option<(String, String)>> {
    let Some(directory) = &hosts.settings().proxy_credentials_dir else {
        return Ok(proxy.credentials.clone());
    };
    let directory = directory.clone();
    let read = tokio::task::spawn_blocking(move || proxy_credentials_of(Path::new(&directory)));
    read.await.map_err(io::Error::other)?.map(Some)
}

/// The files of a mounted Secret of type `kubernetes.io/basic-auth`.
pub(crate) fn proxy_credentials_of(directory: &Path) -> io::Result<(String, String)> {
    let read = |name| {
        let path = directory.join(name);
        let text = fs::read_to_string(&path);
        let text = text.map_err(|error| io::Error::other(format!("{}: {error}", path.display())));
        text.map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
    };
    Ok((read("username")?, read("password")?))
}

/// Through an HTTP proxy (RFC 9110 §9.3.6).
async fn through(
    proxy: &Proxy,
    credentials: Option<(String, String)>,
    host: &str,
    port: u16,
) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(&proxy.authority).await?;
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let authorization = credentials.map_or_else(String::new, |(user, password)| {
        format!("Proxy-Authorization: Basic {}\r\n", STANDARD.encode(format!("{user}:{password}")))
    });
    let request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{authorization}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() == PROXY_ANSWER {
            return Err(io::Error::other("the proxy's answer has no end"));
        }
        answer.push(stream.read_u8().await?);
    }
    let status = answer.split(|byte| *byte == b' ').nth(1);
    let status =
        status.and_then(|status| str::from_utf8(status).ok()).and_then(|status| status.parse::<u16>().ok());
    match status {
        Some(200..300) => Ok(stream),
        Some(407) => Err(io::Error::other("the proxy requires other credentials")),
        _ => Err(io::Error::other("the proxy refuses the connection")),
    }
}

async fn resolve(names: Names, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    match host.parse::<IpAddr>() {
        Ok(address) => Ok(vec![SocketAddr::new(address, port)]),
        Err(_) => names.oneshot((host.to_owned(), port)).await,
    }
}

/// Whether the host is in a private network, by one of its addresses.
pub(crate) async fn is_private(names: Names, host: &str, port: u16) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let known = timeout(CONNECT, resolve(names, host, port)).await;
    known.is_ok_and(|known| known.iter().flatten().any(|to| !AddressPolicy::Internet.allows(to.ip())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An address that accepts no connection: its queue is full.
    async fn silent() -> (SocketAddr, Vec<TcpStream>) {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut queue = Vec::new();
        while let Ok(Ok(stream)) = timeout(Duration::from_millis(100), TcpStream::connect(address)).await {
            queue.push(stream);
        }
        // The queue stays full for as long as the listener is open.
        std::mem::forget(listener);
        (address, queue)
    }

    #[tokio::test]
    async fn silent_addresses_share_the_time() {
        let (silent, _queue) = silent().await;
        let open = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = open.local_addr().unwrap();
        let begun = std::time::Instant::now();
        let stream =
            directly("host", [silent, silent, open].into_iter(), &ConnectionLimit::default()).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), open);
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn refused_address_delays_no_other() {
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let open = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = open.local_addr().unwrap();
        let limit = ConnectionLimit::default();
        let begun = std::time::Instant::now();
        directly("host", [closed, closed, closed, address].into_iter(), &limit).await.unwrap();
        assert!(begun.elapsed() < ATTEMPT_DELAY, "{:?}", begun.elapsed());
        assert!(directly("host", [closed].into_iter(), &limit).await.is_err());
        let none = directly("host", std::iter::empty(), &limit).await.unwrap_err();
        assert!(none.to_string().contains("no address that may be reached"));
    }

    #[test]
    fn families_take_turns() {
        let all =
            ["[::1]:1", "[::2]:1", "[::3]:1", "127.0.0.1:1"].map(|text| text.parse::<SocketAddr>().unwrap());
        let order: Vec<_> = interleaved(all.into_iter()).map(|address| address.to_string()).collect();
        assert_eq!(order, ["[::1]:1", "127.0.0.1:1", "[::2]:1", "[::3]:1"]);
    }
}
