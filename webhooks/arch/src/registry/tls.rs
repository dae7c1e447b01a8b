//! The certificate authorities of registries: those of Mozilla, and those of the settings.

use std::fs;
use std::sync::Arc;

use anyhow::Context;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use arch_decision::config::Registries;

pub(crate) fn client_config(settings: &Registries) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for file in &settings.ca_files {
        let place = format!("registries.caFiles: {file}");
        add(&mut roots, &fs::read(file).with_context(|| place.clone())?, &place)?;
    }
    if !settings.ca_bundle.is_empty() {
        add(&mut roots, settings.ca_bundle.as_bytes(), "registries.caBundle")?;
    }
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let tls = tls.with_safe_default_protocol_versions()?;
    Ok(tls.with_root_certificates(roots).with_no_client_auth())
}

fn add(roots: &mut RootCertStore, pem: &[u8], place: &str) -> anyhow::Result<()> {
    let mut found = false;
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate.with_context(|| place.to_owned())?).with_context(|| place.to_owned())?;
        found = true;
    }
    anyhow::ensure!(found, "{place}: no certificate in it");
    Ok(())
}
