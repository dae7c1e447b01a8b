//! Verification of clients: of the API servers, by a CA in a file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use thiserror::Error;
use tokio::time::sleep;

use crate::files::POLL_INTERVAL;

/// An error in the file with the CAs of clients.
#[derive(Debug, Error)]
pub enum ClientCaError {
    /// The file can't be read.
    #[error("--client-ca: {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the read.
        source: io::Error,
    },
    /// The file has no valid certificate.
    #[error("--client-ca: {}: {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The fault in it.
        problem: String,
    },
}

/// Accepts clients with a certificate by one of the CAs in a file. A changed file is read again.
#[derive(Debug)]
pub(crate) struct ClientCa {
    path: PathBuf,
    current: ArcSwap<Current>,
}

#[derive(Debug)]
struct Current {
    pem: Vec<u8>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl ClientCa {
    /// Reads the file.
    pub(crate) fn read(path: PathBuf) -> Result<Arc<Self>, ClientCaError> {
        let current = ArcSwap::from_pointee(Current::new(&path, read(&path)?)?);
        Ok(Arc::new(Self { path, current }))
    }

    /// Reads the file again whenever it may have changed; never returns.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            sleep(POLL_INTERVAL).await;
            self.poll();
        }
    }

    fn poll(&self) {
        let changed = read(&self.path).and_then(|pem| {
            let is_new = pem != self.current.load().pem;
            is_new.then(|| Current::new(&self.path, pem)).transpose()
        });
        match changed {
            Ok(None) => {}
            Ok(Some(current)) => {
                self.current.store(Arc::new(current));
                tracing::info!("replaced the CA of clients");
            }
            Err(error) => {
                tracing::warn!(%error, "cannot read the CA of clients; the previous CA stays in use");
            }
        }
    }

    fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.current.load().verifier)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ClientCaError> {
    fs::read(path).map_err(|source| ClientCaError::Read { path: path.into(), source })
}

impl Current {
    fn new(path: &Path, pem: Vec<u8>) -> Result<Self, ClientCaError> {
        let invalid = |problem: String| ClientCaError::Invalid { path: path.into(), problem };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| invalid(error.to_string()))?;
            roots.add(certificate).map_err(|error| invalid(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(invalid("has no certificate in PEM".to_owned()));
        }
        let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| invalid(error.to_string()))?;
        Ok(Self { pem, verifier })
    }
}

impl ClientCertVerifier for ClientCa {
    /// None: the names may change while a handshake reads them, and Go sends its certificate without them.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verifier().verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier().verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier().verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier().supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    };

    use super::*;

    fn ca() -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn client(ca: &CertifiedIssuer<'static, KeyPair>) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["kube-apiserver".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.signed_by(&KeyPair::generate().unwrap(), ca).unwrap().der().clone()
    }

    #[test]
    fn only_clients_of_the_current_ca_are_accepted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.crt");
        let old = ca();
        let new = ca();
        fs::write(&path, old.pem()).unwrap();
        let verifier = ClientCa::read(path.clone()).unwrap();
        let accepts = |certificate: &CertificateDer<'_>| {
            verifier.verify_client_cert(certificate, &[], UnixTime::now()).is_ok()
        };
        let by_old = client(&old);
        let by_new = client(&new);
        assert!(verifier.client_auth_mandatory());
        assert!(accepts(&by_old) && !accepts(&by_new));
        fs::write(&path, "no certificate").unwrap();
        verifier.poll();
        assert!(accepts(&by_old), "a broken file changes nothing");
        fs::write(&path, new.pem()).unwrap();
        verifier.poll();
        assert!(!accepts(&by_old) && accepts(&by_new));
    }

    #[test]
    fn file_without_a_certificate_is_an_error_that_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.crt");
        let error = |path: &Path| ClientCa::read(path.into()).map(drop).unwrap_err().to_string();
        assert!(error(&path).contains("ca.crt: No such file"), "{}", error(&path));
        fs::write(&path, "").unwrap();
        assert!(error(&path).contains("ca.crt: has no certificate"), "{}", error(&path));
    }
}
