//! Listen addresses of flags.
//!
//! The syntax is that of controller-runtime, which most of the replaced webhooks use: `:9443`, `0.0.0.0:9443`,
//! `[::1]:9443`, and `0` to disable a server.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use rustix::net::sockopt::set_ipv6_v6only;
use tokio::net::{TcpListener, TcpSocket};

/// Connections that wait in the kernel, enough that a burst isn't refused.
const BACKLOG: u32 = 1024;
/// The pause after a failed accept. The usual cause is the limit of open files.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The address that a server listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// The server is disabled.
    Disabled,
    /// Every address of the host, IPv6 and IPv4.
    AnyAddress(u16),
    /// One address.
    Address(SocketAddr),
}

/// A text that isn't a listen address.
#[derive(Debug, thiserror::Error)]
#[error("expected :PORT, ADDRESS:PORT or [IPV6]:PORT, or 0 to disable the server")]
pub struct ListenAddressError;

impl FromStr for ListenAddress {
    type Err = ListenAddressError;
    fn from_str(text: &str) -> Result<Self, ListenAddressError> {
        match text.strip_prefix(':') {
            Some(port) => port.parse().map(Self::AnyAddress).map_err(|_| ListenAddressError),
            None if text == "0" => Ok(Self::Disabled),
            None => text.parse().map(Self::Address).map_err(|_| ListenAddressError),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disabled => f.write_str("0"),
            Self::AnyAddress(port) => write!(f, ":{port}"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl ListenAddress {
    /// The port, or 0 if the server is disabled.
    pub fn port(self) -> u16 {
        match self {
            Self::Disabled => 0,
            Self::AnyAddress(port) => port,
            Self::Address(address) => address.port(),
        }
    }

    /// Listens on the address. Returns `None` if the server is disabled. The error contains the address.
    pub fn bind(self) -> io::Result<Option<TcpListener>> {
        let bound = match self {
            Self::Disabled => return Ok(None),
            Self::Address(address) => listen(address),
            // [::] accepts IPv4, too. A host without IPv6 has only 0.0.0.0.
            Self::AnyAddress(port) => listen((IpAddr::from(Ipv6Addr::UNSPECIFIED), port).into())
                .or_else(|_| listen((IpAddr::from(Ipv4Addr::UNSPECIFIED), port).into())),
        };
        bound.map(Some).map_err(|e| io::Error::new(e.kind(), format!("failed to listen on {self}: {e}")))
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    if address.is_ipv6() {
        // The default is that of the host (`net.ipv6.bindv6only`).
        set_ipv6_v6only(&socket, false)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_parse_and_display() {
        for (text, listen) in [
            (":9443", ListenAddress::AnyAddress(9443)),
            ("0", ListenAddress::Disabled),
            ("127.0.0.1:8080", ListenAddress::Address(([127, 0, 0, 1], 8080).into())),
            ("[::1]:1", ListenAddress::Address((Ipv6Addr::LOCALHOST, 1).into())),
        ] {
            assert_eq!(text.parse::<ListenAddress>().unwrap(), listen);
            assert_eq!(listen.to_string(), text);
        }
        for text in ["", ":", "9443", ":70000", "localhost:1", "1.2.3.4"] {
            assert!(text.parse::<ListenAddress>().is_err(), "{text}");
        }
    }

    /// Where it can, the test runs itself in a network namespace in which sockets for IPv6 exclude IPv4.
    #[tokio::test]
    async fn any_address_accepts_ipv4_also_with_bindv6only() {
        const INSIDE: &str = "PODSHAPER_TEST_BINDV6ONLY";
        let listener = ListenAddress::AnyAddress(0).bind().unwrap().unwrap();
        if listener.local_addr().unwrap().is_ipv6() {
            assert!(!rustix::net::sockopt::ipv6_v6only(&listener).unwrap());
        }
        if std::env::var_os(INSIDE).is_some() {
            return;
        }
        let set = "echo 1 >/proc/sys/net/ipv6/bindv6only";
        let unshare = |namespaces: &[&str], script: &str| {
            std::process::Command::new("unshare")
                .args(namespaces)
                .args(["sh", "-c", script])
                .arg(std::env::current_exe().unwrap())
                .env(INSIDE, "1")
                .output()
                .is_ok_and(|output| output.status.success())
        };
        let ways = [&["--net"][..], &["--net", "--user", "--map-root-user"]];
        if let Some(namespaces) = ways.into_iter().find(|namespaces| unshare(namespaces, set)) {
            let test = "listen::tests::any_address_accepts_ipv4_also_with_bindv6only";
            assert!(unshare(namespaces, &format!("{set} && exec \"$0\" --exact {test}")));
        }
    }
}
