//! How registries are spoken to.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{ConfigError, wrong};

/// `registries`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase", expecting = "settings of registries")]
pub struct Registries {
    /// Hosts, with a port or without, that are spoken to without TLS.
    pub plain_http: Vec<String>,
    /// Where else the images of a registry are, by its host; tried in order, the registry itself last.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// The only registries that are asked; all if empty. `*` matches one label: `*.example.com`.
    pub allow: Vec<String>,
    /// Hosts of token servers that may have private addresses.
    pub allow_private_realms: Vec<String>,
    /// Files of further certificate authorities, PEM.
    pub ca_files: Vec<String>,
    /// Further certificate authorities themselves, PEM.
    pub ca_bundle: String,
    /// An HTTP proxy, `http://host:port`.
    pub proxy: Option<String>,
    /// Hosts that are reached without the proxy; `.example.com` matches all subdomains.
    pub no_proxy: Vec<String>,
}

impl Registries {
    /// Whether all that is named can be.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let hosts = [
            ("plainHttp", &self.plain_http),
            ("allowPrivateRealms", &self.allow_private_realms),
            ("allow", &self.allow),
        ];
        for (key, hosts) in hosts {
            if let Some((index, host)) = hosts.iter().enumerate().find(|(_, host)| !is_host(host)) {
                return Err(wrong(
                    &["registries", key, &index.to_string()],
                    format_args!("{host:?} is no host: one is registry.example.com or localhost:5000"),
                ));
            }
        }
        for (host, mirrors) in &self.mirrors {
            if !is_host(host) {
                return Err(wrong(&["registries", "mirrors", host], "is no host"));
            }
            let is_url = |url: &str| {
                let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
                rest.is_some_and(|rest| is_host(rest.split('/').next().unwrap_or_default()))
            };
            if let Some((index, url)) = mirrors.iter().enumerate().find(|(_, url)| !is_url(url)) {
                return Err(wrong(
                    &["registries", "mirrors", host, &index.to_string()],
                    format_args!("{url:?} is no URL: one is https://mirror.example.com"),
                ));
            }
        }
        if let Some(proxy) = &self.proxy
            && !proxy.strip_prefix("http://").is_some_and(|rest| is_host(rest.trim_end_matches('/')))
        {
            return Err(wrong(
                &["registries", "proxy"],
                format_args!("{proxy:?} is no proxy: one is http://proxy.example.com:3128"),
            ));
        }
        Ok(())
    }
}

/// A host, perhaps with a port, perhaps with `*`.
fn is_host(text: &str) -> bool {
    let host = text.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or_else(
        || text.split_once(':').unwrap_or((text, "1")),
        |(address, port)| (address, port.strip_prefix(':').unwrap_or("1")),
    );
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'*' | b'_' | b':');
    !host.0.is_empty() && host.0.bytes().all(allowed) && host.1.parse::<u16>().is_ok()
}
