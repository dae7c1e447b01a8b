//! Registries that redirect to other registries, and their tokens.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use http::Response;
use serde_json::json;
use support::registry::{Asked, Registry, full, index, ok, status, with};
use support::resolver::{images, runs_on};

/// The repository in a path of the registry API.
fn repository(path: &str) -> String {
    path.strip_prefix("/v2/").unwrap().rsplit_once("/manifests/").unwrap().0.to_owned()
}

/// A token server that grants the first scope as the token.
async fn token_server() -> Registry {
    Registry::start(|asked| async move {
        let query = asked.path.split_once('?').unwrap().1.to_owned();
        let scope =
            form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "scope").unwrap().1.into_owned();
        Response::new(full(json!({"token": scope, "expires_in": -1}).to_string().into_bytes()))
    })
    .await
}

/// A registry that wants a token even for public images, by a scope with this beginning of the repository.
async fn with_scope(realm: String, prefix: &'static str) -> Registry {
    Registry::start(move |asked: Asked| {
        let scope = format!("repository:{prefix}{}:pull", repository(&asked.path));
        let challenge = format!("Bearer realm=\"{realm}\",service=\"test\",scope=\"{scope}\"");
        async move {
            if asked.authorization == Some(format!("Bearer {scope}")) {
                ok(&asked, index(&["linux/amd64", "linux/arm64"]))
            } else {
                with(401, &[("www-authenticate", &challenge)])
            }
        }
    })
    .await
}

#[tokio::test]
async fn redirect_to_a_registry_is_followed_with_an_anonymous_token() {
    let tokens = token_server().await;
    let target = with_scope(format!("http://{}/token", tokens.host()), "").await;
    let to = target.host();
    let vanity = Registry::start(move |asked: Asked| {
        let location = format!("http://{to}{}", asked.path);
        async move { with(307, &[("location", &location)]) }
    })
    .await;
    let images = images(&[&vanity, &target, &tokens], &json!({}), &[(&vanity.host(), "u:p")]);
    for tag in 1..=2 {
        let found = runs_on(&images, &format!("{}/org/app:{tag}", vanity.host())).await;
        assert_eq!(found.as_deref(), Ok("linux/amd64 linux/arm64"));
    }
    assert_eq!(tokens.asked().len(), 1, "the token is cached");
    assert!(tokens.asked().iter().all(|asked| asked.authorization.is_none()));
}

#[tokio::test]
async fn challenge_of_another_registry_before_the_redirect_is_met() {
    let tokens = token_server().await;
    let realm = format!("http://{}/token", tokens.host());
    let target = with_scope(realm.clone(), "").await;
    let to = target.host();
    let vanity = Registry::start(move |asked: Asked| {
        let location = format!("http://{to}{}", asked.path);
        let scope = format!("repository:{}:pull", repository(&asked.path));
        let challenge = format!("Bearer realm=\"{realm}\",service=\"test\",scope=\"{scope}\"");
        async move {
            match asked.authorization {
                None => with(401, &[("www-authenticate", &challenge)]),
                Some(_) => with(307, &[("location", &location)]),
            }
        }
    })
    .await;
    let images = images(&[&vanity, &target, &tokens], &json!({}), &[]);
    let found = runs_on(&images, &format!("{}/org/app:1", vanity.host())).await;
    assert_eq!(found.as_deref(), Ok("linux/amd64 linux/arm64"));
}

#[tokio::test]
async fn scope_of_the_challenge_is_asked_for_beside_that_of_the_path() {
    let tokens = token_server().await;
    let registry = with_scope(format!("http://{}/token", tokens.host()), "docker-remote/").await;
    let images = images(&[&registry, &tokens], &json!({}), &[]);
    for name in ["org/app:1", "org/other:1", "org/app:2"] {
        let found = runs_on(&images, &format!("{}/{name}", registry.host())).await;
        assert_eq!(found.as_deref(), Ok("linux/amd64 linux/arm64"), "{name}");
    }
    let first = &tokens.asked()[0].path;
    assert_eq!(
        first,
        "/token?service=test&scope=repository%3Adocker-remote%2Forg%2Fapp%3Apull&scope=repository%3Aorg%2Fapp%3Apull"
    );
}

#[tokio::test]
async fn location_may_be_relative() {
    let target = Registry::of(vec![("org/app/manifests/1", index(&["linux/arm64"]))]).await;
    let to = target.host();
    let registry = Registry::start(move |asked: Asked| {
        let location = match asked.path.split('/').nth(2).unwrap() {
            "network" => format!("//{to}/v2/org/app/manifests/1"),
            "relative" => "../../real/manifests/1".to_owned(),
            "query" => "?here".to_owned(),
            _ => String::new(),
        };
        let is_here = asked.path.ends_with("?here") || asked.path == "/v2/relative/real/manifests/1";
        async move {
            if is_here { ok(&asked, index(&["linux/arm64"])) } else { with(307, &[("location", &location)]) }
        }
    })
    .await;
    let images = images(&[&registry, &target], &json!({}), &[(&registry.host(), "u:p")]);
    for name in ["network/app:1", "relative/app:1", "query/app:1"] {
        let found = runs_on(&images, &format!("{}/{name}", registry.host())).await;
        assert_eq!(found.as_deref(), Ok("linux/arm64"), "{name}");
    }
    let nowhere = runs_on(&images, &format!("{}/nowhere/app:1", registry.host())).await;
    assert_eq!(nowhere, Err(arch_decision::images::LookupError::Unavailable));
}

#[tokio::test]
async fn password_is_posted_to_a_token_server_that_refuses_get() {
    let tokens = Registry::start(|asked| async move {
        if asked.method == "POST" && asked.authorization.is_none() {
            Response::new(full(json!({"access_token": "t"}).to_string().into_bytes()))
        } else {
            status(405)
        }
    })
    .await;
    let challenge = format!("Bearer realm=\"http://{}/token\",service=\"s\"", tokens.host());
    let registry = Registry::start(move |asked: Asked| {
        let challenge = challenge.clone();
        async move {
            match asked.authorization.as_deref() {
                Some("Bearer t") => ok(&asked, index(&["linux/arm64"])),
                _ => with(401, &[("www-authenticate", &challenge)]),
            }
        }
    })
    .await;
    let name = format!("{}/a:1", registry.host());
    let own = images(&[&registry, &tokens], &json!({}), &[(&registry.host(), "u:p")]);
    assert_eq!(runs_on(&own, &name).await.as_deref(), Ok("linux/arm64"));
    let before = tokens.asked().len();
    let anonymous = images(&[&registry, &tokens], &json!({}), &[]);
    assert_eq!(runs_on(&anonymous, &name).await, Err(arch_decision::images::LookupError::Unauthorized));
    assert_eq!(tokens.asked().len(), before + 1, "GET alone");
}

#[tokio::test]
async fn redirect_target_without_a_token_server_is_unauthorized() {
    let storage = Registry::start(|_| async { status(401) }).await;
    let location = format!("http://{}/x", storage.host());
    let registry = Registry::start(move |_| {
        let location = location.clone();
        async move { with(302, &[("location", &location)]) }
    })
    .await;
    let images = images(&[&registry, &storage], &json!({}), &[]);
    let found = runs_on(&images, &format!("{}/a:1", registry.host())).await;
    assert_eq!(found, Err(arch_decision::images::LookupError::Unauthorized));
}
