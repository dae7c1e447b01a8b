//! Which TLS versions and cipher suites the server accepts.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{NoServerSessionStorage, ResolvesServerCert, ServerConfig};
use rustls::version::{TLS12, TLS13};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};
use thiserror::Error;

/// The TLS versions and cipher suites that the server accepts: TLS 1.2 and 1.3 with every suite, unless told otherwise.
#[derive(Clone, Debug)]
pub struct TlsProfile {
    versions: Vec<&'static SupportedProtocolVersion>,
    suites: Vec<SupportedCipherSuite>,
}

/// A version or a cipher suite that can't be had.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TlsProfileError {
    /// The minimum version is neither of the two.
    #[error("TLS minimum version {0:?}: use VersionTLS12 or VersionTLS13")]
    Version(String),
    /// Suites were chosen, but nothing below TLS 1.3 is accepted.
    #[error(
        "TLS cipher suites can be chosen for TLS 1.2 alone: leave them out with VersionTLS13, which accepts all of its own"
    )]
    SuitesWithTls13,
    /// No suite that the server has is called so.
    #[error(
        "TLS cipher suite {0:?} is unknown or not offered (only suites with forward secrecy and authenticated \
         encryption are); valid names: {names}",
        names = names()
    )]
    Suite(String),
}

impl TlsProfile {
    /// Reads a minimum version (`VersionTLS12`, `VersionTLS13`) and a comma list of IANA suite names, as the
    /// variables `TLS_MIN_VERSION` and `TLS_CIPHER_SUITES` give them; empty means unset.
    ///
    /// The list chooses among the suites of TLS 1.2. The names of TLS 1.3's are accepted in it and change nothing, as
    /// in Go, whose lists often hold them.
    pub fn parse(min_version: &str, suites: &str) -> Result<Self, TlsProfileError> {
        let chosen: Vec<_> = suites.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        let mut versions = match min_version.trim() {
            "VersionTLS13" if !chosen.is_empty() => return Err(TlsProfileError::SuitesWithTls13),
            "VersionTLS13" => vec![&TLS13],
            "" | "VersionTLS12" => vec![&TLS13, &TLS12],
            other => return Err(TlsProfileError::Version(other.to_owned())),
        };
        let mut suites = ring::ALL_CIPHER_SUITES.to_vec();
        if !chosen.is_empty() {
            let chosen = chosen.iter().map(|name| find(name)).collect::<Result<Vec<_>, _>>()?;
            suites.retain(|suite| suite.tls13().is_some() || chosen.contains(suite));
        }
        // Without a suite of its own, TLS 1.2 could be negotiated and then go nowhere.
        if suites.iter().all(|suite| suite.tls13().is_some()) {
            versions = vec![&TLS13];
        }
        Ok(Self { versions, suites })
    }

    /// The server's configuration: h2 and HTTP/1.1, certificates from `resolver`.
    ///
    /// Sessions are never resumed: the API server doesn't ask for it, and a ticket is work for each handshake.
    pub fn server_config(
        &self,
        resolver: Arc<dyn ResolvesServerCert>,
    ) -> Result<ServerConfig, rustls::Error> {
        let provider = CryptoProvider { cipher_suites: self.suites.clone(), ..ring::default_provider() };
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&self.versions)?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

/// rustls calls `TLS13_AES_128_GCM_SHA256` what IANA calls `TLS_AES_128_GCM_SHA256`.
fn iana_name(suite: &SupportedCipherSuite) -> String {
    format!("{:?}", suite.suite()).replacen("TLS13_", "TLS_", 1)
}

fn find(name: &str) -> Result<SupportedCipherSuite, TlsProfileError> {
    let by_name = |suite: &&SupportedCipherSuite| {
        let iana = iana_name(suite);
        // Go also knows the two ChaCha suites by the names of their draft.
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
    fn nothing_set_means_both_versions_and_every_suite() {
        let profile = TlsProfile::parse("", " , ").unwrap();
        assert_eq!(profile.versions, [&TLS13, &TLS12]);
        assert_eq!(profile.suites.len(), ring::ALL_CIPHER_SUITES.len());
    }

    #[test]
    fn the_minimum_version_is_one_of_two() {
        assert_eq!(TlsProfile::parse(" VersionTLS12 ", "").unwrap().versions.len(), 2);
        assert_eq!(TlsProfile::parse("VersionTLS13", "").unwrap().versions, [&TLS13]);
        for other in ["VersionTLS10", "VersionTLS11", "TLS1.2", "1.3", "versiontls12"] {
            let error = TlsProfile::parse(other, "").unwrap_err();
            assert_eq!(error, TlsProfileError::Version(other.to_owned()));
            assert!(error.to_string().contains("use VersionTLS12 or VersionTLS13"), "{error}");
        }
    }

    #[test]
    fn a_list_chooses_among_the_suites_of_tls_1_2() {
        let list = " TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 ,TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305";
        let chosen = suites(&TlsProfile::parse("", list).unwrap());
        assert_eq!(chosen.iter().filter(|name| name.contains("_WITH_")).count(), 2, "{chosen:?}");
        assert_eq!(chosen.len(), 5, "the three of TLS 1.3 stay: {chosen:?}");
    }

    #[test]
    fn names_of_tls_1_3_alone_leave_no_tls_1_2() {
        assert_eq!(TlsProfile::parse("VersionTLS12", "TLS_AES_128_GCM_SHA256").unwrap().versions, [&TLS13]);
    }

    #[test]
    fn no_list_with_tls_1_3() {
        let error = TlsProfile::parse("VersionTLS13", "TLS_AES_128_GCM_SHA256").unwrap_err();
        assert_eq!(error, TlsProfileError::SuitesWithTls13);
    }

    #[test]
    fn what_is_unknown_or_only_go_has_is_refused_with_the_valid_names() {
        for name in ["TLS_RSA_WITH_AES_128_CBC_SHA", "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", "bogus"] {
            let error = TlsProfile::parse("", name).unwrap_err().to_string();
            assert!(
                error.contains(name) && error.contains("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
                "{error}"
            );
        }
    }

    #[test]
    fn the_configuration_never_resumes_sessions() {
        let config = TlsProfile::parse("", "")
            .unwrap()
            .server_config(super::super::ServingCertificate::new())
            .unwrap();
        assert_eq!(config.send_tls13_tickets, 0);
        assert!(!config.ticketer.enabled() && !config.session_storage.can_cache());
        assert_eq!(config.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    }
}
