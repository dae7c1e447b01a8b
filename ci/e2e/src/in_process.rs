//! A webhook in the process of its test, behind the real server.

use std::sync::Arc;

use clap::Parser;
use podshaper_certificates::CertificateArgs;
use podshaper_core::admission::Webhook;
use podshaper_server::{Limits, ServerMetrics, WebhookServer};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::client::{Client, post};
use crate::process::Certificates;

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    certificates: CertificateArgs,
    #[command(flatten)]
    limits: Limits,
}

/// Serves `webhook` on loopback, posts each review on a connection of its own, and returns the responses' bodies.
///
/// `PODSHAPER_REVIEWS` limits the number of reviews: `ci/request-path` compares the coverage of two reviews with that of three.
pub async fn answer<W: Webhook>(webhook: W, path: &'static str, reviews: &[Value]) -> Vec<Value> {
    let files = Certificates::new();
    let directory = files.directory.path().display().to_string();
    let Flags { certificates, limits } =
        Flags::parse_from(["test", "--drain-time=0s", "--cert-dir", &directory]);
    let profile = certificates.tls_profile().unwrap();
    let certificate = certificates.start(|| unreachable!("the certificate is in files")).unwrap();
    let tls = Arc::new(profile.server_config(certificate, None).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(listener.local_addr().unwrap(), &files.ca);
    let (stop, stopped) = oneshot::channel::<()>();
    let paths: &'static [&'static str] = Box::leak(Box::new([path]));
    let metrics = Arc::new(ServerMetrics::new("test"));
    let connections = metrics.connection_pool(&limits);
    let server = WebhookServer { webhook: Arc::new(webhook), paths, tls, limits, connections, metrics };
    let server = tokio::spawn(server.run(listener, async {
        let _ = stopped.await;
    }));
    let most = std::env::var("PODSHAPER_REVIEWS").map_or(reviews.len(), |number| number.parse().unwrap());
    let mut answers = Vec::new();
    for review in reviews.iter().take(most) {
        let answer = client.send(post(path, review.to_string().as_bytes())).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        answers.push(serde_json::from_str(&answer.body).unwrap());
    }
    stop.send(()).unwrap();
    server.await.unwrap();
    answers
}
