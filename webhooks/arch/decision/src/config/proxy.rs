//! `registries.proxy` and `registries.noProxy`, as programs in Go read them (`golang.org/x/net/http/httpproxy`).

use std::fmt;
use std::net::IpAddr;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::hosts::{HostPort, number};

/// The port of a proxy without one.
const PORT: u16 = 3128;

/// An HTTP proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// `host:port`.
    pub authority: String,
    /// User and password.
    pub credentials: Option<(String, String)>,
}

/// The hosts that are reached without the proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NoProxy(Vec<Bypass>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Bypass {
    All,
    /// Addresses with the first bits of this one.
    Network(IpAddr, u8),
    Address(IpAddr, Option<u16>),
    /// Subdomains of `.example.com`, and perhaps the domain itself.
    Domain {
        suffix: String,
        itself: bool,
        port: Option<u16>,
    },
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({})", self.authority)
    }
}

impl Proxy {
    fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("http://")?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, authority) = rest.rsplit_once('@').map_or((None, rest), |(user, rest)| (Some(user), rest));
        let parsed = HostPort::parse(authority)?;
        let credentials = match user {
            Some(pair) => {
                let (user, password) = pair.split_once(':').unwrap_or((pair, ""));
                Some((percent_decoded(user)?, percent_decoded(password)?))
            }
            None => None,
        };
        let authority = match parsed.port {
            Some(_) => authority.to_owned(),
            None => format!("{authority}:{PORT}"),
        };
        Some(Self { authority, credentials })
    }
}

impl<'de> Deserialize<'de> for Proxy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            // Everything before the sign may be a password.
            let shown = text.rsplit_once('@').map_or(&*text, |(_, rest)| rest);
            D::Error::custom(format_args!("{shown:?} is no proxy: one is http://proxy.example.com:3128"))
        })
    }
}

/// The text of a part of a URL (RFC 3986 §2.1).
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let high = digit(bytes.next()?)?;
        let low = digit(bytes.next()?)?;
        decoded.push(high << 4 | low);
    }
    String::from_utf8(decoded).ok()
}

impl NoProxy {
    /// The entries, or the index of an invalid one and the reason.
    pub(super) fn new(entries: &[String]) -> Result<Self, (usize, String)> {
        let parse =
            |(index, entry): (usize, &String)| Bypass::parse(entry).map_err(|problem| (index, problem));
        entries.iter().enumerate().map(parse).collect::<Result<_, _>>().map(Self)
    }

    /// Whether the proxy is left out for this host, which may be an address. This machine is never reached through a proxy.
    pub fn matches(&self, host: &str, port: u16) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let address = host.parse::<IpAddr>().ok().map(|address| address.to_canonical());
        host == "localhost"
            || address.is_some_and(|address| address.is_loopback())
            || self.0.iter().any(|bypass| bypass.matches(&host, port, address))
    }
}

impl Bypass {
    fn parse(entry: &str) -> Result<Self, String> {
        if entry == "*" {
            return Ok(Self::All);
        }
        let matches_nothing = |why: &str| format!("{entry:?} matches no host: {why}");
        if entry.contains(|sign: char| sign.is_whitespace() || sign == ',') {
            return Err(matches_nothing("it is a list; each item is one host"));
        }
        if let Some((address, bits)) = entry.split_once('/') {
            let (address, bits) = network(address, bits)
                .ok_or_else(|| matches_nothing("it has a slash and is no network such as 10.0.0.0/8"))?;
            return Ok(Self::Network(address, bits));
        }
        if let Ok(address) = entry.trim_start_matches('[').trim_end_matches(']').parse() {
            return Ok(Self::Address(address, None));
        }
        let name = entry.strip_prefix("*.").or_else(|| entry.strip_prefix('.'));
        let parsed = HostPort::parse(name.unwrap_or(entry)).ok_or_else(|| {
            matches_nothing(
                "an entry is a host, .example.com, an address or a network, with or without a port",
            )
        })?;
        if let Ok(address) = parsed.host.parse() {
            return Ok(Self::Address(address, parsed.port));
        }
        let suffix = format!(".{}", parsed.host.to_ascii_lowercase());
        Ok(Self::Domain { suffix, itself: name.is_none(), port: parsed.port })
    }

    fn matches(&self, host: &str, port: u16, address: Option<IpAddr>) -> bool {
        let is_port = |own: &Option<u16>| own.is_none_or(|own| own == port);
        match (self, address) {
            (Self::All, _) => true,
            (Self::Network(network, bits), Some(address)) => contains(*network, *bits, address),
            (Self::Address(own, at), Some(address)) => own.to_canonical() == address && is_port(at),
            (Self::Domain { suffix, itself, port }, None) => {
                (host.ends_with(suffix.as_str()) || (*itself && suffix.get(1..) == Some(host)))
                    && is_port(port)
            }
            _ => false,
        }
    }
}

/// A network. The IPv6 notation of an IPv4 network is one of IPv4 (`networkNumberAndMask` of package net of Go).
fn network(address: &str, bits: &str) -> Option<(IpAddr, u8)> {
    let (address, bits): (IpAddr, u8) = (address.parse().ok()?, number(bits)?);
    match (address, address.to_canonical()) {
        (IpAddr::V4(_), _) => (bits <= 32).then_some((address, bits)),
        (IpAddr::V6(_), IpAddr::V6(_)) => (bits <= 128).then_some((address, bits)),
        (IpAddr::V6(_), mapped) => Some((mapped, bits.checked_sub(96).filter(|bits| *bits <= 32)?)),
    }
}

/// Whether a network has an address. `net.IPNet.Contains` of Go compares IPv4 with IPv4 only, and mapped addresses are IPv4.
fn contains(network: IpAddr, bits: u8, address: IpAddr) -> bool {
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(u32::from(bits))).unwrap_or(0);
            u32::from(network) & mask == u32::from(address) & mask
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(u32::from(bits))).unwrap_or(0);
            u128::from(network) & mask == u128::from(address) & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_proxy(entries: &[&str]) -> Result<NoProxy, (usize, String)> {
        NoProxy::new(&entries.iter().map(|&entry| entry.to_owned()).collect::<Vec<_>>())
    }

    /// The cases of `UseProxyTests` of golang.org/x/net/http/httpproxy, and further ones.
    #[test]
    fn hosts_are_matched_as_go_does() {
        let entries = [
            "foobar.com",
            ".barbaz.net",
            "*.baz.org",
            "192.168.1.1",
            "192.168.1.2:81",
            "192.168.1.3:80",
            "10.0.0.0/30",
            "2001:db8::52:0:1",
            "[2001:db8::52:0:2]:443",
            "[2001:db8::52:0:3]:80",
            "2002:db8:a::45/64",
            "Port.example:8080",
        ];
        let list = no_proxy(&entries).unwrap();
        for (host, port, bypassed) in [
            ("localhost", 80, true),
            ("127.0.0.1", 80, true),
            ("127.0.0.2", 80, true),
            ("[::1]", 80, true),
            ("::ffff:127.0.0.1", 80, true),
            ("[::2]", 80, false),
            ("192.168.1.1", 80, true),
            ("192.168.1.2", 80, false),
            ("192.168.1.2", 81, true),
            ("192.168.1.3", 80, true),
            ("192.168.1.4", 80, false),
            ("10.0.0.2", 80, true),
            ("10.0.0.4", 80, false),
            ("::ffff:10.0.0.2", 80, true),
            ("[2001:db8::52:0:1]", 80, true),
            ("[2001:db8::52:0:2]", 443, true),
            ("[2001:db8::52:0:2]", 80, false),
            ("[2001:db8::52:0:3]", 80, true),
            ("2002:db8:a::123", 80, true),
            ("2002:db8:b::123", 80, false),
            ("www.barbaz.net", 80, true),
            ("barbaz.net", 80, false),
            ("foobar.com", 80, true),
            ("www.foobar.com", 80, true),
            ("foofoobar.com", 80, false),
            ("baz.com", 80, false),
            ("a.baz.org", 80, true),
            ("baz.org", 80, false),
            ("localhost.net", 80, false),
            ("PORT.example", 8080, true),
            ("a.port.example", 8080, true),
            ("port.example", 443, false),
        ] {
            assert_eq!(list.matches(host, port), bypassed, "{host}:{port}");
        }
        assert!(no_proxy(&["*"]).unwrap().matches("anything", 1));
        assert!(no_proxy(&["0.0.0.0/0"]).unwrap().matches("8.8.8.8", 1));
        assert!(no_proxy(&["::/0"]).unwrap().matches("::2", 1));
        let mapped = no_proxy(&["::ffff:10.0.0.0/104"]).unwrap();
        assert!(mapped.matches("10.9.9.9", 1) && !mapped.matches("11.0.0.0", 1));
    }

    #[test]
    fn entry_that_matches_no_host_is_an_error() {
        for entry in [
            "",
            "a.b, c.d",
            "a.b,c.d",
            "http://a.b",
            "a.b/",
            "10.0.0.0/33",
            "10.0.0/8",
            "10.0.0.0/+8",
            "10.0.0.0/8:443",
            "10.0.0.0/255.0.0.0",
            "::ffff:10.0.0.0/8",
            "10.*",
            "10.0.0",
            "10.0.0.256",
            "010.0.0.1",
            "10.0.0.1-10.0.0.9",
            "example.com.",
            "b\u{fc}cher.example",
            "*example.com",
            "*:443",
            "a.b:+80",
            "-",
            "a.*.b",
            "a:0",
            "a:http",
            ".",
            "*.",
            ":80",
            "user@a.b",
        ] {
            let error = no_proxy(&["a.b", entry]).unwrap_err();
            assert_eq!(error.0, 1, "{entry}");
            assert!(error.1.contains("matches no host"), "{error:?}");
        }
    }

    #[test]
    fn proxy_may_have_credentials() {
        let parsed = |text: &str| Proxy::parse(text).map(|proxy| (proxy.authority, proxy.credentials));
        let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        for (text, expected) in [
            ("http://proxy", Some(("proxy:3128", None))),
            ("http://proxy:1/", Some(("proxy:1", None))),
            ("http://u:p@proxy:1", Some(("proxy:1", pair("u", "p")))),
            ("http://u@proxy:1", Some(("proxy:1", pair("u", "")))),
            ("http://u%40d:p%3a%20@[::1]:1", Some(("[::1]:1", pair("u@d", "p: ")))),
            ("http://u:p@q@proxy", Some(("proxy:3128", pair("u", "p@q")))),
            ("https://proxy", None),
            ("proxy:1", None),
            ("http://proxy/path", None),
            ("http://u:%zz@proxy", None),
            ("http://u:%e9@proxy", None),
            ("http://", None),
        ] {
            let expected = expected.map(|(authority, credentials)| (authority.to_owned(), credentials));
            assert_eq!(parsed(text), expected, "{text}");
        }
        let proxy = Proxy::parse("http://user:secret@proxy").unwrap();
        assert_eq!(format!("{proxy:?}"), "Proxy(proxy:3128)");
        let error = serde_json::from_str::<Proxy>("\"https://user:secret@proxy\"").unwrap_err().to_string();
        assert!(error.contains("is no proxy") && !error.contains("secret"), "{error}");
    }
}
