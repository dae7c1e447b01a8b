//! Images of workloads, which are looked up before their pods exist.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arch::image_resolver::ImageResolver;
use arch::secrets::PullSecrets;
use arch_decision::images::{Access, Images, Knowledge};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use podshaper_testing::MockResponse;
use serde_json::{Value, json};
use support::registry::{Registry, index, ok, with};
use support::resolver::{image, settings};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// A registry that wants a password. It sends the path of each request that has one, and `refused` for each that has none.
async fn registry() -> (Registry, mpsc::UnboundedReceiver<String>) {
    let (sender, asked) = mpsc::unbounded_channel();
    let registry = Registry::start(move |request| {
        let sender = sender.clone();
        async move {
            let expected = format!("Basic {}", STANDARD.encode("user:secret"));
            if request.authorization.as_ref() != Some(&expected) {
                let _ = sender.send("refused".to_owned());
                return with(401, &[("www-authenticate", "Basic realm=x")]);
            }
            let _ = sender.send(request.path.clone());
            ok(&request, index(&["linux/arm64"]))
        }
    })
    .await;
    (registry, asked)
}

/// Namespaces with the ServiceAccount `default`: `team` has a Secret that opens the registry, `closed` may not be read.
fn secrets(host: String) -> PullSecrets {
    PullSecrets::new(podshaper_testing::client(move |request: Request<Value>| {
        let response = match request.uri().path() {
            "/api/v1/namespaces/team/serviceaccounts/default" => {
                MockResponse::json(200, &json!({"imagePullSecrets": [{"name": "pull"}]}))
            }
            "/api/v1/namespaces/closed/serviceaccounts/default" => MockResponse::failure(403, "Forbidden"),
            "/api/v1/namespaces/team/secrets/pull" => {
                let file = json!({"auths": {&*host: {"auth": STANDARD.encode("user:secret")}}}).to_string();
                let data = json!({".dockerconfigjson": STANDARD.encode(file)});
                MockResponse::json(200, &json!({"type": "kubernetes.io/dockerconfigjson", "data": data}))
            }
            _ => MockResponse::failure(404, "NotFound"),
        };
        std::future::ready(response)
    }))
}

#[tokio::test]
async fn prefetch_uses_the_pull_secrets_of_the_service_account_or_does_not_ask() {
    let (registry, mut asked) = registry().await;
    let secrets = secrets(registry.host());
    let resolver = ImageResolver::new(&settings(&[&registry], &json!({})), None, Some(secrets)).unwrap();
    let resolver = Arc::new(resolver);
    let names = ["a", "b"].map(|name| format!("{}/{name}:1", registry.host()));
    let prefetch = |namespace: &str, name: &str, account: &str| {
        let access = Access { namespace, ..Access::default() };
        resolver.prefetch(&[image(name, false)], &access, account);
    };
    prefetch("closed", &names[0], "default");
    prefetch("team", &names[0], "missing");
    prefetch("team", &names[1], "default");
    let mut next = async || timeout(Duration::from_secs(10), asked.recv()).await.unwrap().unwrap();
    // The first request finds out what the registry wants.
    let first = next().await;
    let path = if first == "refused" { next().await } else { first };
    assert!(path.starts_with("/v2/b/"), "{path}");
    let access = Access { namespace: "team", pull_secrets: vec!["pull"] };
    let known =
        resolver.known(&[image(&names[1], false)], &access, Instant::now() + Duration::from_secs(10)).await;
    assert!(matches!(known.images[0], Knowledge::Known(_)), "{known:?}");
    assert!(registry.asked().iter().all(|asked| asked.path.starts_with("/v2/b/")), "{:?}", registry.asked());
}
