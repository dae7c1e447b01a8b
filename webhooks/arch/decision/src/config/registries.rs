//! How registries are asked.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::hosts::{HostPort, check_registry};
use super::mirrors::{MirrorSet, Mirrors};
use super::proxy::{NoProxy, Proxy};
use super::{ConfigError, wrong};

/// `registries`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registries {
    /// Hosts, with a port or without, that are asked without TLS.
    pub plain_http: Vec<String>,
    /// Other places of images.
    pub mirrors: Mirrors,
    /// The only registries that are asked; all if empty. `*` matches one label: `*.example.com`.
    pub allow: Vec<String>,
    /// Hosts of token servers that may have private addresses.
    pub allow_private_realms: Vec<String>,
    /// Files of further certificate authorities, PEM.
    pub ca_files: Vec<String>,
    /// Further certificate authorities themselves, PEM.
    pub ca_bundle: String,
    /// An HTTP proxy.
    pub proxy: Option<Proxy>,
    /// A directory with the files `username` and `password` for the proxy.
    pub proxy_credentials_dir: Option<String>,
    /// Hosts that are reached without the proxy.
    pub no_proxy: NoProxy,
}

/// `registries` as the file has them.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase", expecting = "settings of registries")]
pub(super) struct RegistriesFile {
    plain_http: Vec<String>,
    mirrors: BTreeMap<String, MirrorSet>,
    allow: Vec<String>,
    allow_private_realms: Vec<String>,
    ca_files: Vec<String>,
    ca_bundle: String,
    proxy: Option<Proxy>,
    proxy_credentials_dir: Option<String>,
    no_proxy: Vec<String>,
}

impl RegistriesFile {
    /// Checks that each key and pattern can match something.
    pub(super) fn validated(self) -> Result<Registries, ConfigError> {
        let item = |key: &str, index: usize, problem: String| {
            wrong(&["registries", key, &index.to_string()], problem)
        };
        for (key, hosts) in
            [("plainHttp", &self.plain_http), ("allowPrivateRealms", &self.allow_private_realms)]
        {
            if let Some((index, host)) =
                hosts.iter().enumerate().find(|(_, host)| HostPort::parse(host).is_none())
            {
                let problem = format!("{host:?} is no host: one is registry.example.com or localhost:5000");
                return Err(item(key, index, problem));
            }
        }
        let is_hub = |host: &str| {
            HostPort::parse(host).is_some_and(|parsed| parsed.host.eq_ignore_ascii_case("docker.io"))
        };
        if let Some(index) = self.plain_http.iter().position(|host| is_hub(host)) {
            let problem = "matches no host: images of docker.io are at registry-1.docker.io".to_owned();
            return Err(item("plainHttp", index, problem));
        }
        for (index, pattern) in self.allow.iter().enumerate() {
            check_pattern(pattern).map_err(|problem| item("allow", index, problem))?;
        }
        let mirrors = Mirrors::new(self.mirrors);
        let mirrors = mirrors.map_err(|(key, problem)| wrong(&["registries", "mirrors", &key], problem))?;
        let no_proxy = NoProxy::new(&self.no_proxy);
        let no_proxy = no_proxy.map_err(|(index, problem)| item("noProxy", index, problem))?;
        let has_credentials = self.proxy.as_ref().map(|proxy| proxy.credentials.is_some());
        for (key, is_set) in [
            ("noProxy", !self.no_proxy.is_empty()),
            ("proxyCredentialsDir", self.proxy_credentials_dir.is_some()),
        ] {
            if is_set && has_credentials.is_none() {
                return Err(wrong(&["registries", key], "has no effect without registries.proxy"));
            }
        }
        if self.proxy_credentials_dir.is_some() && has_credentials == Some(true) {
            return Err(wrong(
                &["registries", "proxyCredentialsDir"],
                "registries.proxy has credentials already",
            ));
        }
        let registries = Registries {
            plain_http: self.plain_http,
            mirrors,
            allow: self.allow,
            allow_private_realms: self.allow_private_realms,
            ca_files: self.ca_files,
            ca_bundle: self.ca_bundle,
            proxy: self.proxy,
            proxy_credentials_dir: self.proxy_credentials_dir,
            no_proxy,
        };
        let disallowed = registries
            .mirrors
            .disallowed(|registry| registries.allows(registry), |domain| registries.allows_below(domain));
        if let Some(key) = disallowed {
            let problem = "matches no image: its registry isn't among registries.allow";
            return Err(wrong(&["registries", "mirrors", &key], problem));
        }
        Ok(registries)
    }
}

impl Registries {
    /// Whether images of this registry may be looked up.
    pub fn allows(&self, registry: &str) -> bool {
        self.allow.is_empty() || self.allow.iter().any(|pattern| matches(pattern, registry))
    }

    /// Whether images of a registry below this domain may be looked up.
    fn allows_below(&self, domain: &str) -> bool {
        let domain: Vec<_> = domain.split('.').collect();
        let may_match = |pattern: &String| {
            let labels: Vec<_> = pattern.split('.').collect();
            let mut pairs = labels.iter().rev().zip(domain.iter().rev());
            labels.len() > domain.len()
                && pairs.all(|(own, label)| *own == "*" || own.eq_ignore_ascii_case(label))
        };
        self.allow.is_empty() || self.allow.iter().any(may_match)
    }

    /// The name of this registry in metrics: its key or pattern in the settings, or `other`.
    pub fn label(&self, registry: &str) -> &str {
        let plain = self.plain_http.iter().map(String::as_str);
        let patterns = plain.chain(self.mirrors.registries()).chain(self.allow.iter().map(String::as_str));
        patterns.into_iter().find(|name| matches(name, registry)).unwrap_or("other")
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

/// Checks that a pattern of `allow` matches registries that images can name.
fn check_pattern(pattern: &str) -> Result<(), String> {
    if pattern == "*" {
        return Err(
            "\"*\" matches hosts without a dot only: to allow all registries, leave allow empty".to_owned()
        );
    }
    // Any label does in the place of an asterisk.
    let host: Vec<_> = pattern.split('.').map(|label| if label == "*" { "a" } else { label }).collect();
    if host.iter().any(|label| label.contains('*')) {
        return Err(format!(
            "{pattern:?} matches no image: an asterisk is one whole label, as in *.example.com"
        ));
    }
    check_registry(&host.join(".")).map_err(|problem| {
        if pattern.contains('*') { format!("{pattern:?} is no pattern of hosts") } else { problem }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn registries(value: Value) -> Result<Registries, String> {
        let file: RegistriesFile = serde_json::from_value(value).map_err(|error| error.to_string())?;
        file.validated().map_err(|error| error.to_string())
    }

    #[test]
    fn settings_match_hosts() {
        let registries = registries(json!({
            "plainHttp": ["localhost:5000", "plain"],
            "mirrors": {"docker.io": ["https://mirror.example/hub"], "Upper.example.com": ["https://m.example"]},
            "allow": ["*.example.com", "docker.io"],
        }))
        .unwrap();
        for (registry, allowed, label) in [
            ("a.example.com", true, "*.example.com"),
            ("a.b.example.com", false, "other"),
            ("example.com", false, "other"),
            ("docker.io", true, "docker.io"),
            ("upper.example.com", true, "upper.example.com"),
            ("localhost:5000", false, "localhost:5000"),
            ("evil.example", false, "other"),
        ] {
            assert_eq!(
                (registries.allows(registry), registries.label(registry)),
                (allowed, label),
                "{registry}"
            );
        }
    }

    #[test]
    fn mirrors_of_subdomains_may_be_allowed() {
        for allow in
            [json!([]), json!(["*.example.com"]), json!(["*.*.com", "x.y"]), json!(["a.B.example.com"])]
        {
            let value = json!({"allow": allow, "mirrors": {"*.example.com": ["https://m.example"], "*": ["https://n.example"]}});
            assert!(registries(value).is_ok(), "{allow}");
        }
    }

    #[test]
    fn setting_without_effect_is_an_error() {
        for (value, expected) in [
            (json!({"plainHttp": ["*.example.com"]}), "registries.plainHttp.0: \"*.example.com\" is no host"),
            (json!({"plainHttp": ["a", "http://x"]}), "registries.plainHttp.1: \"http://x\" is no host"),
            (json!({"allowPrivateRealms": ["a/b"]}), "registries.allowPrivateRealms.0: \"a/b\" is no host"),
            (json!({"allow": ["harbor"]}), "registries.allow.0: \"harbor\" matches no image"),
            (json!({"allow": ["index.docker.io"]}), "registries.allow.0: matches no image"),
            (json!({"allow": ["docker.io/library"]}), "registries.allow.0: \"docker.io/library\" is no host"),
            (json!({"allow": ["reg*.example.com"]}), "an asterisk is one whole label"),
            (json!({"allow": ["*.example.com:5000x"]}), "is no pattern of hosts"),
            (json!({"allow": ["*"]}), "leave allow empty"),
            (json!({"noProxy": ["a.b"]}), "registries.noProxy: has no effect without registries.proxy"),
            (json!({"proxyCredentialsDir": "/d"}), "registries.proxyCredentialsDir: has no effect without"),
            (
                json!({"proxy": "http://u:p@p", "proxyCredentialsDir": "/d"}),
                "registries.proxyCredentialsDir: registries.proxy has credentials already",
            ),
            (
                json!({"proxy": "http://p", "noProxy": ["a.b", "10.0.0.0/99"]}),
                "registries.noProxy.1: \"10.0.0.0/99\" matches no host",
            ),
            (
                json!({"allow": ["docker.io"], "mirrors": {"quay.io": ["https://m.example"]}}),
                "registries.mirrors.quay.io: matches no image: its registry isn't among registries.allow",
            ),
            (
                json!({"allow": ["docker.io", "*.example.com"], "mirrors": {"*.quay.io": ["https://m.example"]}}),
                "registries.mirrors.*.quay.io: matches no image",
            ),
            (
                json!({"allow": ["*.example.com"], "mirrors": {"*.a.example.com": ["https://m.example"]}}),
                "registries.mirrors.*.a.example.com: matches no image",
            ),
            (json!({"plainHttp": ["Docker.io:80"]}), "registries.plainHttp.0: matches no host"),
            (json!({"plainHttp": ["10.0.0"]}), "registries.plainHttp.0: \"10.0.0\" is no host"),
            (
                json!({"mirrors": {"harbor": ["https://m.example"]}}),
                "registries.mirrors.harbor: \"harbor\" matches",
            ),
        ] {
            let error = registries(value.clone()).unwrap_err();
            assert!(error.contains(expected), "{value}: {error}");
        }
    }
}
