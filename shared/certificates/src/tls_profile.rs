//! The TLS versions and cipher suites of the server.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert, ServerConfig};
use rustls::version::{TLS12, TLS13};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};
use thiserror::Error;

/// The accepted TLS versions and cipher suites: by default TLS 1.2 and 1.3 with every suite of rustls.
#[derive(Clone, Debug)]
pub struct TlsProfile {
    versions: Vec<&'static SupportedProtocolVersion>,
    suites: Vec<SupportedCipherSuite>,
}

/// An unsupported version or cipher suite.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TlsProfileError {
    /// The minimum version is neither TLS 1.2 nor TLS 1.3.
    #[error("minimum TLS version {0:?}: use VersionTLS12 or VersionTLS13")]
    Version(String),
    /// Suites are listed, but only TLS 1.3 is accepted.
    #[error(
        "TLS cipher suites can be selected for TLS 1.2 only: omit them with VersionTLS13, which accepts every suite"
    )]
    SuitesWithTls13,
    /// The server has no such suite.
    #[error(
        "TLS cipher suite {0:?} is unknown or unsupported (only suites with forward secrecy and authenticated \
         encryption are supported); valid names: {names}",
        names = names()
    )]
    Suite(String),
}

impl TlsProfile {
    /// Parses the values of `TLS_MIN_VERSION` (`VersionTLS12` or `VersionTLS13`) and `TLS_CIPHER_SUITES`, a
    /// comma-separated list of IANA names. An empty value means the default.
    ///
    /// The list selects suites of TLS 1.2. Suites of TLS 1.3 in it are ignored, as in Go, where such lists are common.
    pub fn parse(min_version: &str, suites: &str) -> Result<Self, TlsProfileError> {
        let names: Vec<_> = suites.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        let mut versions = match min_version.trim() {
            "VersionTLS13" if !names.is_empty() => return Err(TlsProfileError::SuitesWithTls13),
            "VersionTLS13" => vec![&TLS13],
            "" | "VersionTLS12" => vec![&TLS13, &TLS12],
            other => return Err(TlsProfileError::Version(other.to_owned())),
        };
        let mut suites = ring::ALL_CIPHER_SUITES.to_vec();
        if !names.is_empty() {
            let selected = names.iter().map(|name| find(name)).collect::<Result<Vec<_>, _>>()?;
            suites.retain(|suite| suite.tls13().is_some() || selected.contains(suite));
        }
        // Without a suite of TLS 1.2, its handshake would fail after the negotiation of the version.
        if suites.iter().all(|suite| suite.tls13().is_some()) {
            versions = vec![&TLS13];
        }
        Ok(Self { versions, suites })
    }

    /// Makes a configuration of a server that offers h2 and HTTP/1.1, and accepts only clients that `clients` verifies, if it is given.
    ///
    /// Sessions are never resumed: the API server doesn't resume any, and a ticket costs time in each handshake.
    pub fn server_config(
        &self,
        resolver: Arc<dyn ResolvesServerCert>,
        clients: Option<Arc<dyn ClientCertVerifier>>,
    ) -> Result<ServerConfig, rustls::Error> {
        let mut config = self.http1_server_config(resolver, clients)?;
        config.alpn_protocols.insert(0, b"h2".to_vec());
        Ok(config)
    }

    /// The same for a server that speaks HTTP/1.1 only. A client that offers h2 too must not get it.
    pub fn http1_server_config(
        &self,
        resolver: Arc<dyn ResolvesServerCert>,
        clients: Option<Arc<dyn ClientCertVerifier>>,
    ) -> Result<ServerConfig, rustls::Error> {
        let provider = CryptoProvider { cipher_suites: self.suites.clone(), ..ring::default_provider() };
        let config =
            ServerConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&self.versions)?;
        let config = match clients {
            Some(clients) => config.with_client_cert_verifier(clients),
            None => config.with_no_client_auth(),
        };
        let mut config = config.with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

/// rustls prefixes suites of TLS 1.3 with `TLS13_`, IANA with `TLS_`.
fn iana_name(suite: &SupportedCipherSuite) -> String {
    format!("{:?}", suite.suite()).replacen("TLS13_", "TLS_", 1)
}

fn find(name: &str) -> Result<SupportedCipherSuite, TlsProfileError> {
    let by_name = |suite: &&SupportedCipherSuite| {
        let iana = iana_name(suite);
        // Go also accepts the draft's names of the two ChaCha suites.
        iana == name
            || (iana.ends_with("_WITH_CHACHA20_POLY1305_SHA256")
                && iana.strip_suffix("_SHA256") == Some(name))
    };
    ring::ALL_CIPHER_SUITES
        .iter()
        .find(by_name)
        .copied()
        .ok_or_else(|| TlsProfileError::Suite(name.to_owned()))
}

fn names() -> String {
    ring::ALL_CIPHER_SUITES.iter().map(iana_name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suites(profile: &TlsProfile) -> Vec<String> {
        profile.suites.iter().map(iana_name).collect()
    }

    #[test]
    fn default_is_both_versions_and_every_suite() {
        let profile = TlsProfile::parse("", " , ").unwrap();
        assert_eq!(profile.versions, [&TLS13, &TLS12]);
        assert_eq!(profile.suites.len(), ring::ALL_CIPHER_SUITES.len());
    }

    #[test]
    fn other_minimum_versions_are_errors() {
        assert_eq!(TlsProfile::parse(" VersionTLS12 ", "").unwrap().versions.len(), 2);
        assert_eq!(TlsProfile::parse("VersionTLS13", "").unwrap().versions, [&TLS13]);
        for other in ["VersionTLS10", "VersionTLS11", "TLS1.2", "1.3", "versiontls12"] {
            let error = TlsProfile::parse(other, "").unwrap_err();
            assert_eq!(error, TlsProfileError::Version(other.to_owned()));
            assert!(error.to_string().contains("use VersionTLS12 or VersionTLS13"), "{error}");
        }
    }

    #[test]
    fn list_selects_suites_of_tls_1_2() {
        let list = " TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 ,TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305";
        let chosen = suites(&TlsProfile::parse("", list).unwrap());
        assert_eq!(chosen.iter().filter(|name| name.contains("_WITH_")).count(), 2, "{chosen:?}");
        assert_eq!(chosen.len(), 5, "the three of TLS 1.3 are included: {chosen:?}");
    }

    #[test]
    fn list_without_suites_of_tls_1_2_disables_tls_1_2() {
        assert_eq!(TlsProfile::parse("VersionTLS12", "TLS_AES_128_GCM_SHA256").unwrap().versions, [&TLS13]);
    }

    #[test]
    fn list_with_tls_1_3_only_is_an_error() {
        let error = TlsProfile::parse("VersionTLS13", "TLS_AES_128_GCM_SHA256").unwrap_err();
        assert_eq!(error, TlsProfileError::SuitesWithTls13);
    }

    #[test]
    fn unknown_suite_is_an_error_that_lists_valid_names() {
        for name in ["TLS_RSA_WITH_AES_128_CBC_SHA", "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", "bogus"] {
            let error = TlsProfile::parse("", name).unwrap_err().to_string();
            assert!(
                error.contains(name) && error.contains("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
                "{error}"
            );
        }
    }

    #[test]
    fn server_config_never_resumes_sessions() {
        let config = TlsProfile::parse("", "")
            .unwrap()
            .server_config(super::super::ServingCertificate::new(), None)
            .unwrap();
        assert_eq!(config.send_tls13_tickets, 0);
        assert!(!config.ticketer.enabled() && !config.session_storage.can_cache());
        assert_eq!(config.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    }
}
