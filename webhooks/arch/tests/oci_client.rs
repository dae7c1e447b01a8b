//! The client of `oci-client` as the second opinion on images, and the promises that it does not give yet.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};

use arch::image_resolver::ImageResolver;
use arch::reference;
use arch_decision::images::LookupError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Response;
use oci_client::Client;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use serde_json::{Value, json};
use support::generated_images::{GeneratedImages, compare};
use support::registry::{Asked, Registry, full, index, ok, with};
use support::resolver::{images, runs_on};

/// A client as it comes, which speaks HTTP.
fn client() -> Client {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| rustls::crypto::ring::default_provider().install_default().unwrap());
    Client::new(ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() })
}

/// A registry with these images that wants this authorization.
async fn registry(contents: Arc<GeneratedImages>, wants: Option<(&'static str, String)>) -> Registry {
    Registry::start(move |asked: Asked| {
        let found = contents.at(&asked.path).map(<[u8]>::to_vec);
        let refused =
            wants.as_ref().filter(|(authorization, _)| asked.authorization.as_deref() != Some(authorization));
        let challenge = refused.map(|(_, challenge)| challenge.clone());
        async move {
            match (challenge, found) {
                (Some(challenge), _) => with(401, &[("www-authenticate", &challenge)]),
                (None, Some(body)) => {
                    let value: Value = serde_json::from_str(str::from_utf8(&body).unwrap()).unwrap();
                    let kind = value["mediaType"].as_str().unwrap_or("application/octet-stream").to_owned();
                    let mut answer = ok(&asked, body);
                    answer.headers_mut().insert("content-type", kind.parse().unwrap());
                    answer
                }
                (None, None) => with(if asked.path == "/v2/" { 200 } else { 404 }, &[]),
            }
        }
    })
    .await
}

#[tokio::test]
async fn both_agree_on_digest_and_platforms() {
    let contents = Arc::new(GeneratedImages::new());
    let tokens =
        Registry::start(|_| async { Response::new(full(json!({"token": "t"}).to_string().into_bytes())) })
            .await;
    let bearer = format!("Bearer realm=\"http://{}/token\",service=\"s\"", tokens.host());
    let pair: &str = Box::leak(format!("Basic {}", STANDARD.encode("u:p")).into_boxed_str());
    for (wants, auth) in [
        (None, RegistryAuth::Anonymous),
        (Some((pair, "Basic realm=\"r\"".to_owned())), RegistryAuth::Basic("u".to_owned(), "p".to_owned())),
        (Some(("Bearer t", bearer)), RegistryAuth::Anonymous),
    ] {
        let registry = registry(Arc::clone(&contents), wants).await;
        let credentials = [(registry.host(), "u:p")];
        let own: &[_] = if matches!(auth, RegistryAuth::Anonymous) { &[] } else { &credentials };
        let own: Vec<_> = own.iter().map(|(host, pair)| (&**host, *pair)).collect();
        let images = images(&[&registry, &tokens], &json!({}), &own);
        let client = client();
        compare(&images, &client, &registry.host(), &auth).await;
    }
}

fn password() -> RegistryAuth {
    RegistryAuth::Basic("u".to_owned(), "p".to_owned())
}

fn with_password(plain: &[&Registry], registry: &Registry) -> ImageResolver {
    images(plain, &json!({}), &[(&registry.host(), "u:p")])
}

async fn redirecting_to(location: String) -> Registry {
    Registry::start(move |asked: Asked| {
        let location = format!("{location}{}", asked.path);
        async move { with(307, &[("location", &location)]) }
    })
    .await
}

#[tokio::test]
async fn client_follows_a_redirect_to_any_address() {
    let victim = Registry::start(|asked| async move { ok(&asked, index(&["linux/amd64"])) }).await;
    let registry = redirecting_to(format!("http://{}", victim.host())).await;
    let name = format!("{}/a:1", registry.host());
    let found = client().pull_manifest(&reference::parse(&name).unwrap(), &RegistryAuth::Anonymous).await;
    assert!(found.is_ok() && !victim.asked().is_empty(), "{found:?}");
    let before = victim.asked().len();
    let own = images(&[&registry], &json!({}), &[]);
    assert_eq!(runs_on(&own, &name).await, Err(LookupError::Refused));
    assert_eq!(victim.asked().len(), before);
}

#[tokio::test]
async fn client_shows_a_password_to_the_token_server_of_a_redirect_target() {
    let tokens = support::resolver::token_server().await;
    let target =
        support::resolver::with_tokens(format!("http://{}/token", tokens.host()), &["u", "anonymous"]).await;
    let registry = redirecting_to(format!("http://{}", target.host())).await;
    let name = format!("{}/a:1", registry.host());
    let _ = client().pull_manifest(&reference::parse(&name).unwrap(), &password()).await;
    let shown =
        |tokens: &Registry| tokens.asked().iter().filter(|asked| asked.authorization.is_some()).count();
    assert!(shown(&tokens) > 0, "{:?}", tokens.asked());
    let before = shown(&tokens);
    let own = with_password(&[&registry, &target, &tokens], &registry);
    assert_eq!(runs_on(&own, &name).await.as_deref(), Ok("linux/arm64"));
    assert_eq!(shown(&tokens), before);
}

#[tokio::test]
async fn client_reads_a_manifest_of_any_size() {
    let mut body = index(&["linux/amd64"]);
    body.resize(9 << 20, b' ');
    let registry = Registry::start(move |asked| {
        let body = body.clone();
        async move {
            let mut answer = ok(&asked, body);
            answer
                .headers_mut()
                .insert("content-type", "application/vnd.oci.image.index.v1+json".parse().unwrap());
            answer
        }
    })
    .await;
    let name = format!("{}/a:1", registry.host());
    assert!(
        client().pull_manifest(&reference::parse(&name).unwrap(), &RegistryAuth::Anonymous).await.is_ok()
    );
    let own = images(&[&registry], &json!({}), &[]);
    assert_eq!(runs_on(&own, &name).await, Err(LookupError::Malformed));
}

#[tokio::test]
async fn client_asks_again_before_retry_after() {
    let registry = Registry::start(|asked: Asked| async move {
        if asked.path == "/v2/" { with(200, &[]) } else { with(429, &[("retry-after", "60")]) }
    })
    .await;
    let manifests =
        |registry: &Registry| registry.asked().iter().filter(|asked| asked.path != "/v2/").count();
    let name = format!("{}/a:1", registry.host());
    let client = client();
    for _ in 0..2 {
        let found = client.pull_manifest(&reference::parse(&name).unwrap(), &RegistryAuth::Anonymous).await;
        assert!(found.is_err());
    }
    assert_eq!(manifests(&registry), 2);
    let own = images(&[&registry], &json!({}), &[]);
    for tag in 1..=3 {
        let found = runs_on(&own, &format!("{}/a:{tag}", registry.host())).await;
        assert_eq!(found, Err(LookupError::RateLimited));
    }
    assert_eq!(manifests(&registry), 3, "one request of ours");
}

/// A registry with a token server of tokens `1`, `2`, ..., of which only the last is good.
async fn with_revoked_tokens() -> Registry {
    let granted = Arc::new(AtomicUsize::new(0));
    let address = Arc::new(std::sync::OnceLock::<String>::new());
    let place = Arc::clone(&address);
    let registry = Registry::start(move |asked: Asked| {
        let host = place.get().cloned().unwrap_or_default();
        let granted = Arc::clone(&granted);
        async move {
            if asked.path.starts_with("/token") {
                let token = (granted.fetch_add(1, Ordering::Relaxed) + 1).to_string();
                return Response::new(full(
                    json!({"token": token, "expires_in": 3600}).to_string().into_bytes(),
                ));
            }
            if asked.path.ends_with("/revoke") {
                granted.fetch_add(1, Ordering::Relaxed);
            }
            if asked.authorization == Some(format!("Bearer {}", granted.load(Ordering::Relaxed))) {
                let mut answer = ok(&asked, index(&["linux/amd64"]));
                answer
                    .headers_mut()
                    .insert("content-type", "application/vnd.oci.image.index.v1+json".parse().unwrap());
                return answer;
            }
            with(401, &[("www-authenticate", &format!("Bearer realm=\"http://{host}/token\",service=\"s\""))])
        }
    })
    .await;
    address.set(registry.host()).unwrap();
    registry
}

#[tokio::test]
async fn client_takes_a_revoked_token_as_final() {
    let registry = with_revoked_tokens().await;
    let image = |tag: &str| format!("{}/a:{tag}", registry.host());
    let client = client();
    let own = images(&[&registry], &json!({}), &[]);
    let pull = async |tag: &str| {
        client.pull_manifest(&reference::parse(&image(tag)).unwrap(), &RegistryAuth::Anonymous).await.is_ok()
    };
    assert!(pull("1").await);
    // The token is revoked by the request that shows it.
    assert!(!pull("revoke").await);
    assert!(!pull("1").await, "the client still shows the revoked token");
    assert_eq!(runs_on(&own, &image("1")).await.as_deref(), Ok("linux/amd64"));
    let _ = runs_on(&own, &image("revoke")).await;
    assert_eq!(runs_on(&own, &image("1")).await.as_deref(), Ok("linux/amd64"));
}

#[tokio::test]
async fn client_panics_at_a_token_with_a_line_break() {
    let tokens =
        Registry::start(|_| async { Response::new(full(json!({"token": "a\nb"}).to_string().into_bytes())) })
            .await;
    let challenge = format!("Bearer realm=\"http://{}/token\",service=\"s\"", tokens.host());
    let registry = Registry::start(move |_| {
        let challenge = challenge.clone();
        async move { with(401, &[("www-authenticate", &challenge)]) }
    })
    .await;
    let name = format!("{}/a:1", registry.host());
    let image = reference::parse(&name).unwrap();
    let client = client();
    let pulled =
        tokio::spawn(async move { client.pull_manifest(&image, &RegistryAuth::Anonymous).await.is_ok() });
    assert!(pulled.await.unwrap_err().is_panic());
    let own = images(&[&registry, &tokens], &json!({}), &[]);
    assert_eq!(runs_on(&own, &name).await, Err(LookupError::Malformed));
}
