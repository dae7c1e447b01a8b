//! Both clients on the registry of the CNCF (github.com/distribution/distribution), with TLS. It needs the programs of `ci/go/registry`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::net::TcpListener;

use arch::credentials::DockerConfig;
use arch::image_resolver::ImageResolver;
use arch_decision::config::Settings;
use e2e::registry::{Access, PASSWORD, Registry, USER};
use oci_client::Client;
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig};
use oci_client::secrets::RegistryAuth;
use serde_json::json;
use support::generated_images::{GeneratedImages, compare};

const ADDRESS: &str = "127.0.0.1";

/// The first of two free ports.
fn ports() -> u16 {
    let free = |port: u16| TcpListener::bind((ADDRESS, port)).ok();
    loop {
        let port = free(0).unwrap().local_addr().unwrap().port();
        if port < u16::MAX && free(port).is_some() && free(port + 1).is_some() {
            return port;
        }
    }
}

#[tokio::test]
async fn both_agree_on_the_registry_of_the_cncf() {
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let generated = GeneratedImages::new();
    for access in [Access::Anonymous, Access::Basic, Access::Token] {
        let registry = Registry::start_at(ADDRESS, ports(), access).await;
        let (auth, auths) = match access {
            Access::Anonymous => (RegistryAuth::Anonymous, json!({})),
            Access::Basic | Access::Token => (
                RegistryAuth::Basic(USER.to_owned(), PASSWORD.to_owned()),
                json!({&registry.host: {"username": USER, "password": PASSWORD}}),
            ),
        };
        let certificate =
            Certificate { encoding: CertificateEncoding::Pem, data: registry.ca.clone().into_bytes() };
        let client = Client::new(ClientConfig {
            extra_root_certificates: vec![certificate],
            use_monolithic_push: true,
            ..ClientConfig::default()
        });
        generated.push(&client, &registry.host, &auth).await;
        // An address of this machine is asked only if it is named.
        let settings = json!({"registries": {"caBundle": registry.ca, "allowPrivateRealms": [ADDRESS]}});
        let docker = DockerConfig::from_json(&json!({"auths": auths}).to_string()).unwrap();
        let images =
            ImageResolver::new(&Settings::from_value(settings).unwrap(), Some(docker), None).unwrap();
        compare(&images, &client, &registry.host, &auth).await;
    }
}
