//! The settings of hosts.

use arch_decision::config::Registries;

/// The hosts that were named, and how they are reached.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    settings: Registries,
    /// `host` or `host:port` of all that was named.
    named: Vec<String>,
    proxy: Option<String>,
}

impl Hosts {
    pub(crate) fn new(mut settings: Registries) -> Self {
        // As names of images have it.
        let mirrors = std::mem::take(&mut settings.mirrors).into_iter();
        settings.mirrors = mirrors.map(|(host, urls)| (host.to_ascii_lowercase(), urls)).collect();
        let mirrors = settings.mirrors.values().flatten().map(|url| authority_of(url));
        let named = settings.plain_http.iter().chain(&settings.allow_private_realms).map(|host| &**host);
        let named = named.chain(mirrors).map(str::to_ascii_lowercase).collect();
        let proxy = settings.proxy.as_deref().map(|proxy| {
            let authority = authority_of(proxy);
            if authority.rsplit(':').next().is_some_and(|port| port.parse::<u16>().is_ok()) {
                authority.to_owned()
            } else {
                format!("{authority}:3128")
            }
        });
        Self { settings, named, proxy }
    }

    /// Whether the operator named this host: what it leads to is the operator's business.
    pub(crate) fn names(&self, host: &str, port: u16) -> bool {
        self.named.iter().any(|named| is(named, host, port))
    }

    /// Whether TLS isn't spoken to this host.
    pub(crate) fn is_plain(&self, host: &str, port: u16) -> bool {
        self.settings.plain_http.iter().any(|named| is(named, host, port))
    }

    /// Whether the token server of this name may be in a private network, whatever registry points to it.
    pub(crate) fn allows_private_realm(&self, host: &str, port: u16) -> bool {
        self.settings.allow_private_realms.iter().any(|named| is(named, host, port))
    }

    /// Whether images of this registry may be asked for.
    pub(crate) fn allows(&self, registry: &str) -> bool {
        self.settings.allow.is_empty() || self.settings.allow.iter().any(|pattern| matches(pattern, registry))
    }

    /// Where else the images of a registry are.
    pub(crate) fn mirrors(&self, registry: &str) -> &[String] {
        self.settings.mirrors.get(registry).map_or(&[], Vec::as_slice)
    }

    /// The proxy to this host, `host:port`.
    pub(crate) fn proxy_for(&self, host: &str) -> Option<&str> {
        let direct = |own: &String| own == host || (own.starts_with('.') && host.ends_with(own.as_str()));
        self.proxy.as_deref().filter(|_| !self.settings.no_proxy.iter().any(direct))
    }

    /// The word for this registry in metrics: those alone that were configured have one of their own.
    pub(crate) fn label<'r>(&'r self, registry: &'r str) -> &'r str {
        let configured =
            self.settings.plain_http.iter().chain(self.settings.mirrors.keys()).chain(&self.settings.allow);
        configured.map(String::as_str).find(|name| matches(name, registry)).unwrap_or("other")
    }
}

/// `host:port` of a URL.
pub(crate) fn authority_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

fn is(named: &str, host: &str, port: u16) -> bool {
    match named.rsplit_once(':').and_then(|(name, own)| Some((name, own.parse::<u16>().ok()?))) {
        Some((name, own)) => {
            own == port && name.trim_start_matches('[').trim_end_matches(']').eq_ignore_ascii_case(host)
        }
        None => named.eq_ignore_ascii_case(host),
    }
}

/// Whether a host matches a pattern, in which `*` matches one label.
fn matches(pattern: &str, registry: &str) -> bool {
    let mut labels = registry.split('.');
    pattern
        .split('.')
        .all(|part| labels.next().is_some_and(|label| part == "*" || part.eq_ignore_ascii_case(label)))
        && labels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_names_the_images() {
        let hosts = Hosts::new(Registries {
            plain_http: vec!["localhost:5000".into(), "plain".into()],
            mirrors: [("docker.io", "https://mirror.example/hub"), ("Upper.io", "https://mirror.example")]
                .map(|(host, mirror)| (host.to_owned(), vec![mirror.to_owned()]))
                .into(),
            allow: vec!["*.example.com".into(), "docker.io".into()],
            proxy: Some("http://proxy".into()),
            no_proxy: vec![".internal".into(), "plain".into()],
            ..Registries::default()
        });
        assert!(hosts.names("localhost", 5000) && !hosts.names("localhost", 5001));
        assert!(
            hosts.is_plain("PLAIN", 80)
                && hosts.is_plain("plain", 5000)
                && !hosts.is_plain("mirror.example", 80)
        );
        assert!(hosts.names("mirror.example", 443) && !hosts.names("example", 443));
        assert!(
            hosts.allows("a.example.com") && !hosts.allows("a.b.example.com") && !hosts.allows("example.com")
        );
        assert_eq!(hosts.mirrors("docker.io"), ["https://mirror.example/hub"]);
        assert_eq!(hosts.proxy_for("a.b"), Some("proxy:3128"));
        assert_eq!((hosts.proxy_for("a.internal"), hosts.proxy_for("plain")), (None, None));
        assert_eq!((hosts.label("docker.io"), hosts.label("evil.example")), ("docker.io", "other"));
        assert_eq!(
            (hosts.label("a.example.com"), hosts.label("a.b.example.com")),
            ("*.example.com", "other")
        );
        assert_eq!(hosts.mirrors("upper.io"), ["https://mirror.example"]);
    }
}
