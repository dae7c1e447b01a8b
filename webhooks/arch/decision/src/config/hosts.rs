//! Names of hosts in the settings of registries.

use std::net::{Ipv4Addr, Ipv6Addr};

/// A host with or without a port, in lower case, without brackets around an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HostPort<'t> {
    pub(super) host: &'t str,
    pub(super) port: Option<u16>,
}

impl<'t> HostPort<'t> {
    /// Reads `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`.
    pub(super) fn parse(text: &'t str) -> Option<Self> {
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']')?;
            host.parse::<Ipv6Addr>().ok()?;
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
        } else {
            let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
            (Some(host).filter(|host| is_host(host))?, port)
        };
        let port = match port {
            Some(port) => Some(number(port).filter(|port| *port != 0)?),
            None => None,
        };
        Some(Self { host, port })
    }
}

/// The name of a host, or an IPv4 address. A name with a number as its last label is neither (RFC 3696 section 2): `10.0.0` and `010.0.0.1`
/// lead nowhere.
fn is_host(host: &str) -> bool {
    let is_number =
        host.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    host.split('.').all(is_label) && (!is_number || host.parse::<Ipv4Addr>().is_ok())
}

/// A label of a host. Underscores aren't allowed by RFC 1123, but names of services on private networks have them.
fn is_label(label: &str) -> bool {
    !label.is_empty()
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// A decimal number without a sign.
pub(super) fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
}

/// Checks that the name of an image can begin with this host (`ParseNormalizedNamed` of github.com/distribution/reference).
pub(super) fn check_registry(host: &str) -> Result<(), String> {
    if HostPort::parse(host).is_none_or(|parsed| parsed.host.contains('_')) {
        return Err(format!("{host:?} is no host: one is registry.example.com or localhost:5000"));
    }
    if host.eq_ignore_ascii_case("index.docker.io") {
        return Err("matches no image: the registry of Docker Hub is docker.io".to_owned());
    }
    let is_component = !host.contains(['.', ':', '[']) && host.to_ascii_lowercase() == host;
    if is_component && host != "localhost" {
        return Err(format!(
            "{host:?} matches no image: {host}/app is an image of docker.io; the host of a registry has a dot or a port, or is localhost"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_are_parsed() {
        for (text, expected) in [
            ("a.b", Some(("a.b", None))),
            ("a_b:80", Some(("a_b", Some(80)))),
            ("[::1]:80", Some(("::1", Some(80)))),
            ("[::1]", Some(("::1", None))),
            ("", None),
            ("a:", None),
            ("a:0", None),
            ("a:65536", None),
            ("a:1:2", None),
            ("::1", None),
            ("[::1", None),
            ("[a]", None),
            ("[::1]80", None),
            ("a..b", None),
            ("a/b", None),
            ("u@a", None),
            ("a:+80", None),
            ("-a", None),
            ("a-.b", None),
            ("10.0.0.1", Some(("10.0.0.1", None))),
            ("10.0.0.256", None),
            ("010.0.0.1", None),
            ("10.0.0", None),
            ("10.0.0.1-10.0.0.9", None),
            ("1.2.3.a:80", Some(("1.2.3.a", Some(80)))),
        ] {
            assert_eq!(HostPort::parse(text), expected.map(|(host, port)| HostPort { host, port }), "{text}");
        }
    }

    #[test]
    fn registry_is_a_host_that_images_can_name() {
        for host in
            ["docker.io", "localhost", "localhost:5000", "harbor:443", "Harbor", "[::1]:5000", "10.0.0.1"]
        {
            assert_eq!(check_registry(host), Ok(()), "{host}");
        }
        for host in
            ["harbor", "index.docker.io", "Index.Docker.IO", "a_b.io", "-a.io", "https://a.io", "a.io/", ""]
        {
            assert!(check_registry(host).is_err(), "{host}");
        }
    }
}
