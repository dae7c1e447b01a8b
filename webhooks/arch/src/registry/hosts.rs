//! The settings of hosts.

use arch_decision::config::{Proxy, Registries};

/// The hosts that the settings name, and how they are reached.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    settings: Registries,
    /// `host` or `host:port` of each of them.
    named: Vec<String>,
}

impl Hosts {
    pub(crate) fn new(settings: Registries) -> Self {
        let named = settings.plain_http.iter().chain(&settings.allow_private_realms).map(|host| &**host);
        let named = named.chain(settings.mirrors.authorities()).map(str::to_ascii_lowercase).collect();
        Self { settings, named }
    }

    /// The settings.
    pub(crate) fn settings(&self) -> &Registries {
        &self.settings
    }

    /// Whether the settings name this host. It may then have any address.
    pub(crate) fn names(&self, host: &str, port: u16) -> bool {
        self.named.iter().any(|named| is(named, host, port))
    }

    /// Whether this host is asked without TLS.
    pub(crate) fn is_plain(&self, host: &str, port: u16) -> bool {
        self.settings.plain_http.iter().any(|named| is(named, host, port))
    }

    /// Whether the token server of this name may have a private address, whatever registry refers to it.
    pub(crate) fn allows_private_realm(&self, host: &str, port: u16) -> bool {
        self.settings.allow_private_realms.iter().any(|named| is(named, host, port))
    }

    /// The proxy to this host.
    pub(crate) fn proxy_for(&self, host: &str, port: u16) -> Option<&Proxy> {
        self.settings.proxy.as_ref().filter(|_| !self.settings.no_proxy.matches(host, port))
    }
}

fn is(named: &str, host: &str, port: u16) -> bool {
    match named.rsplit_once(':').and_then(|(name, own)| Some((name, own.parse::<u16>().ok()?))) {
        Some((name, own)) => {
            own == port && name.trim_start_matches('[').trim_end_matches(']').eq_ignore_ascii_case(host)
        }
        None => named.eq_ignore_ascii_case(host),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use arch_decision::config::Settings;

    #[test]
    fn hosts_are_found_by_name_and_port() {
        let settings = Settings::from_value(json!({"registries": {
            "plainHttp": ["localhost:5000", "plain"],
            "mirrors": {"docker.io": ["https://Mirror.example/hub"]},
            "allowPrivateRealms": ["auth.example"],
            "proxy": "http://proxy",
            "noProxy": [".internal", "plain", "10.0.0.0/8"],
        }}));
        let hosts = Hosts::new(settings.unwrap().registries);
        assert!(hosts.names("localhost", 5000) && !hosts.names("localhost", 5001));
        assert!(hosts.is_plain("PLAIN", 80) && hosts.is_plain("plain", 5000));
        assert!(!hosts.is_plain("mirror.example", 80));
        assert!(hosts.names("mirror.example", 443) && !hosts.names("example", 443));
        assert!(hosts.allows_private_realm("auth.example", 443) && !hosts.allows_private_realm("plain", 80));
        let proxy = |host| hosts.proxy_for(host, 443).map(|proxy| &*proxy.authority);
        assert_eq!(proxy("a.b"), Some("proxy:3128"));
        assert_eq!((proxy("a.internal"), proxy("plain"), proxy("10.1.2.3")), (None, None, None));
    }
}
