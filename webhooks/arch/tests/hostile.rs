//! Registries that lie, and tenants who name them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use arch::image_resolver::ImageResolver;
use arch::secrets::PullSecrets;
use arch_decision::config::Settings;
use arch_decision::images::{Access, Images, Knowledge, Known, LookupError};
use arch_decision::platform::{Platform, Platforms};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use podshaper_testing::MockResponse;
use serde_json::{Value, json};
use support::registry::{Registry, config, digest, entry, index, index_of, manifest, ok, status, with};
use support::resolver::{BUDGET, image, images, known, runs_on, settings, token_server, with_tokens};
use tokio::time::timeout;

#[tokio::test]
async fn hanging_registry_costs_the_timeout() {
    let registry = Registry::start(|_| std::future::pending()).await;
    let images = images(&[&registry], &json!({}), &[]);
    let name = format!("{}/a:1", registry.host());
    for _ in 0..3 {
        assert_eq!(known(&images, &name, false, BUDGET).await, Knowledge::Unknown(LookupError::Timeout));
    }
    assert_eq!(registry.asked().len(), 1, "one lookup that all wait for");
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let registry = Registry::start(|_| async { with(429, &[("retry-after", "60")]) }).await;
    let images = images(&[&registry], &json!({}), &[]);
    for tag in 0..20 {
        let name = format!("{}/a:{tag}", registry.host());
        assert_eq!(known(&images, &name, false, BUDGET).await, Knowledge::Unknown(LookupError::RateLimited));
    }
    assert_eq!(registry.asked().len(), 1);
}

#[tokio::test]
async fn spellings_of_a_registry_share_a_pause() {
    let registry = Registry::start(|_| async { with(429, &[("retry-after", "60")]) }).await;
    let port = registry.address.port();
    let plain = format!("localhost:{}", registry.address.port());
    let settings = Settings::from_value(json!({"registries": {"plainHttp": [plain]}})).unwrap();
    let images = ImageResolver::new(&settings, None, None).unwrap();
    for (tag, host) in ["localhost", "LOCALHOST", "LocalHost", "localhosT"].iter().enumerate() {
        let name = format!("{host}:{port}/a:{tag}");
        assert_eq!(known(&images, &name, false, BUDGET).await, Knowledge::Unknown(LookupError::RateLimited));
    }
    assert_eq!(registry.asked().len(), 1);
}

#[tokio::test]
async fn hanging_registry_delays_its_namespace_only() {
    let (hangs, serves) = (
        Registry::start(|_| std::future::pending()).await,
        Registry::start(|asked| async move { ok(&asked, index(&["linux/arm64"])) }).await,
    );
    let images = images(&[&hangs, &serves], &json!({}), &[]);
    let names: Vec<_> = (0..128).map(|n| format!("{}/a{n}:1", hangs.host())).collect();
    let tarpits: Vec<_> = names.iter().map(|name| image(name, false)).collect();
    let of = |namespace| Access { namespace, ..Access::default() };
    let greedy = images.known(&tarpits, &of("greedy"), Instant::now() + BUDGET).await;
    assert_eq!(greedy.images, vec![Knowledge::Unknown(LookupError::Timeout); 128]);
    let names: Vec<_> = (0..128).map(|n| format!("{}/a{n}:1", serves.host())).collect();
    let many: Vec<_> = names.iter().map(|name| image(name, false)).collect();
    // Lookups over the limit of the namespace wait. Those that hang end after five seconds.
    let others = images.known(&many, &of("other"), Instant::now() + 4 * BUDGET).await;
    assert!(others.images.iter().all(|known| matches!(known, Knowledge::Known(_))), "{:?}", others.images);
}

#[tokio::test]
async fn bodies_without_end() {
    let registry = Registry::start(|_| async {
        let piece = Bytes::from(vec![b' '; 64 << 10]);
        let frames = futures_of(move || Ok(Frame::data(piece.clone())));
        Response::new(StreamBody::new(frames).boxed())
    })
    .await;
    let images = images(&[&registry], &json!({}), &[]);
    for tag in 0..5 {
        let name = format!("{}/a:{tag}", registry.host());
        assert_eq!(runs_on(&images, &name).await, Err(LookupError::Malformed));
    }
}

#[tokio::test]
async fn bodies_of_four_mebibytes_and_no_more() {
    let padded = |length| {
        let mut index = index(&["linux/amd64"]);
        index.resize(length, b' ');
        index
    };
    let most = padded(4 << 20);
    let more = padded((4 << 20) + 1);
    let registry = Registry::of(vec![("a/manifests/most", most), ("a/manifests/more", more)]).await;
    let images = images(&[&registry], &json!({}), &[]);
    let name = |tag: &str| format!("{}/a:{tag}", registry.host());
    assert_eq!(runs_on(&images, &name("most")).await.as_deref(), Ok("linux/amd64"));
    assert_eq!(runs_on(&images, &name("more")).await, Err(LookupError::Malformed));
}

/// A stream that never ends.
fn futures_of<T>(next: impl Fn() -> T) -> impl futures::Stream<Item = T> {
    futures::stream::repeat_with(next)
}

#[tokio::test]
async fn redirects_without_end() {
    let registry =
        Registry::start(|asked| async move { with(307, &[("location", &format!("{}x", asked.path))]) }).await;
    let images = images(&[&registry], &json!({}), &[]);
    assert_eq!(runs_on(&images, &format!("{}/a:1", registry.host())).await, Err(LookupError::Unavailable));
    assert!(registry.asked().len() < 8, "{}", registry.asked().len());
}

/// The answers for a namespace within the budget.
async fn known_in(images: &ImageResolver, namespace: &str, names: &[String]) -> Vec<Knowledge> {
    let wanted: Vec<_> = names.iter().map(|name| image(name, false)).collect();
    let access = Access { namespace, ..Access::default() };
    images.known(&wanted, &access, Instant::now() + BUDGET).await.images
}

fn arm64() -> Knowledge {
    Knowledge::Known(Arc::new(Platforms::Only([Platform::new("linux", "arm64", None)].into())))
}

#[tokio::test]
async fn lookup_that_waits_in_a_queue_delays_its_namespace_only() {
    let (hangs, serves) = (
        Registry::start(|_| std::future::pending()).await,
        Registry::start(|asked| async move { ok(&asked, index(&["linux/arm64"])) }).await,
    );
    let images = images(&[&hangs, &serves], &json!({}), &[]);
    let tarpits = (0..96).map(|n| format!("{}/a{n}:1", hangs.host()));
    let popular: Vec<_> = (0..28).map(|n| format!("{}/popular{n}:1", serves.host())).collect();
    let greedy: Vec<_> = tarpits.chain(popular.iter().cloned()).collect();
    let known = known_in(&images, "greedy", &greedy).await;
    assert_eq!(known.last(), Some(&Knowledge::Unknown(LookupError::Timeout)));
    for namespace in ["victim", "another"] {
        assert_eq!(known_in(&images, namespace, &popular).await, vec![arm64(); popular.len()], "{namespace}");
    }
}

#[tokio::test]
async fn errors_of_a_repository_pause_it_for_their_namespace_only() {
    let registry = Registry::start(|asked| async move {
        if asked.path.contains("/dead-proxy/") { status(502) } else { ok(&asked, index(&["linux/arm64"])) }
    })
    .await;
    let images = images(&[&registry], &json!({}), &[]);
    let name = |repository: &str, tag: usize| format!("{}/{repository}:{tag}", registry.host());
    for round in 0..4 {
        let dead: Vec<_> = (0..8).map(|n| name("dead-proxy/a", 8 * round + n)).collect();
        assert!(known_in(&images, "greedy", &dead).await.iter().all(|known| *known != arm64()));
        for namespace in ["victim", "greedy"] {
            let fresh = [name("app", round * 10 + namespace.len())];
            assert_eq!(known_in(&images, namespace, &fresh).await, [arm64()], "{namespace}");
        }
    }
    let dead = registry.asked().iter().filter(|asked| asked.path.contains("/dead-proxy/")).count();
    assert!(dead < 16, "{dead} requests for a repository that is paused");
}

#[tokio::test]
async fn repository_that_hangs_delays_its_namespace_only() {
    let registry = Registry::start(|asked| async move {
        if asked.path.contains("/hangs/") {
            std::future::pending::<()>().await;
        }
        ok(&asked, index(&["linux/arm64"]))
    })
    .await;
    let images = images(&[&registry], &json!({}), &[]);
    // The challenge of the registry is known: one request would find it, and the others would wait.
    assert_eq!(known_in(&images, "greedy", &[format!("{}/own:1", registry.host())]).await, [arm64()]);
    let hangs: Vec<_> = (0..100).map(|n| format!("{}/hangs/a{n}:1", registry.host())).collect();
    assert_eq!(
        known_in(&images, "greedy", &hangs).await,
        vec![Knowledge::Unknown(LookupError::Timeout); 100]
    );
    let own = [format!("{}/app:1", registry.host())];
    assert_eq!(known_in(&images, "victim", &own).await, [arm64()]);
}

#[tokio::test]
async fn too_many_requests_pause_their_credential_only() {
    let password = format!("Basic {}", STANDARD.encode("good:p"));
    let registry = Registry::start(move |asked| {
        let answer = match &asked.authorization {
            Some(own) if *own == password => ok(&asked, index(&["linux/arm64"])),
            Some(_) => with(429, &[("retry-after", "3600")]),
            None => with(401, &[("www-authenticate", "Basic realm=x")]),
        };
        async { answer }
    })
    .await;
    let all = &[("one", "limited:p"), ("two", "good:p")];
    let settings = settings(&[&registry], &json!({}));
    let images = ImageResolver::new(&settings, None, Some(secrets(all, registry.host()))).unwrap();
    let known = async |namespace, tag: usize| {
        let name = format!("{}/a:{tag}", registry.host());
        let access = Access { namespace, pull_secrets: vec!["pull"] };
        images.known(&[image(&name, false)], &access, Instant::now() + BUDGET).await.images.remove(0)
    };
    for tag in 0..3 {
        assert_eq!(known("one", tag).await, Knowledge::Unknown(LookupError::RateLimited));
        assert_eq!(known("two", tag).await, arm64());
    }
    let limited = registry.asked().iter().filter(|asked| asked.authorization.is_some()).count();
    assert_eq!(limited, 1 + 3, "one request of the limited credential");
}

#[tokio::test]
async fn absent_secrets_are_few_requests() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let client = podshaper_testing::client(move |request: Request<Value>| {
        count.fetch_add(1, Ordering::Relaxed);
        let response = if request.uri().path().ends_with("/pull") {
            let data = json!({".dockerconfigjson": STANDARD.encode("{}")});
            MockResponse::json(200, &json!({"type": "kubernetes.io/dockerconfigjson", "data": data}))
        } else {
            MockResponse::failure(404, "NotFound")
        };
        std::future::ready(response)
    });
    let images =
        ImageResolver::new(&settings(&[], &json!({})), None, Some(PullSecrets::new(client))).unwrap();
    let warnings = async |namespace, pod: usize| {
        let names: Vec<_> = (0..32).map(|n| format!("absent-{pod}-{n}")).chain(["pull".to_owned()]).collect();
        let pull_secrets = names.iter().rev().map(String::as_str).collect();
        let access = Access { namespace, pull_secrets };
        images.known(&[], &access, Instant::now() + BUDGET).await.warnings
    };
    let mut last = Vec::new();
    for pod in 0..10 {
        last = warnings("greedy", pod).await;
    }
    assert!(asked.load(Ordering::Relaxed) < 100, "{asked:?} requests for 320 names");
    assert!(
        last[0].contains("pods of this namespace name more than 64 Secrets that don't exist"),
        "{last:?}"
    );
    assert!(!last.iter().any(|warning| warning.contains("Secret pull:")), "{last:?}");
    let before = asked.load(Ordering::Relaxed);
    warnings("other", 0).await;
    assert_eq!(asked.load(Ordering::Relaxed), before + 32, "another namespace isn't affected");
}

#[tokio::test]
async fn indexes_of_every_size_and_depth() {
    let many: Vec<_> = (0..10_000)
        .map(|n| {
            entry(&format!("sha256:{n:064}"), json!({"os": "linux", "architecture": format!("a{}", n % 40)}))
        })
        .collect();
    let unnamed: Vec<_> = (0..10_000).map(|n| entry(&format!("sha256:{n:064}"), Value::Null)).collect();
    let mut deep = index(&["linux/amd64"]);
    let mut contents = Vec::new();
    for _ in 0..6 {
        let outer = index_of(vec![entry(&digest(&deep), Value::Null)]);
        contents.push((format!("a/manifests/{}", digest(&deep)), deep));
        deep = outer;
    }
    contents.push(("a/manifests/deep".to_owned(), deep));
    contents.push(("a/manifests/many".to_owned(), index_of(many)));
    contents.push(("a/manifests/unnamed".to_owned(), index_of(unnamed)));
    // An index within itself can't have its own digest: it is found out by that.
    contents.push((
        format!("a/manifests/sha256:{:064}", 1),
        index_of(vec![entry(&format!("sha256:{:064}", 1), Value::Null)]),
    ));
    let registry = Registry::of(contents.iter().map(|(path, body)| (&**path, body.clone())).collect()).await;
    let images = images(&[&registry], &json!({}), &[]);
    let name = |tag: &str| format!("{}/a{tag}", registry.host());
    assert_eq!(runs_on(&images, &name(":many")).await.unwrap().split(' ').count(), 40);
    assert_eq!(runs_on(&images, &name(":deep")).await, Err(LookupError::Malformed));
    let before = registry.asked().len();
    assert!(runs_on(&images, &name(":unnamed")).await.is_err());
    assert!(registry.asked().len() - before < 30);
    assert_eq!(runs_on(&images, &name(&format!("@sha256:{:064}", 1))).await, Err(LookupError::Malformed));
}

#[tokio::test]
async fn wrong_digests() {
    let (config, other) = (config("linux", "amd64"), config("linux", "arm64"));
    let image = manifest(&config);
    let blob = format!("a/blobs/{}", digest(&config));
    let right = format!("a/manifests/{}", digest(b"something else"));
    let registry =
        Registry::of(vec![("a/manifests/1", image), (&blob, other), (&right, index(&["linux/amd64"]))]).await;
    let images = images(&[&registry], &json!({}), &[]);
    for name in ["a:1".to_owned(), format!("a@{}", digest(b"something else"))] {
        assert_eq!(
            runs_on(&images, &format!("{}/{name}", registry.host())).await,
            Err(LookupError::Malformed),
            "{name}"
        );
    }
}

#[tokio::test]
async fn no_request_to_where_none_may_go() {
    let victim = Registry::start(|asked| async move { ok(&asked, index(&["linux/amd64"])) }).await;
    let port = victim.address.port();
    let images = images(&[], &json!({}), &[("127.0.0.1", "u:p"), (&victim.host(), "u:p")]);
    for host in ["127.0.0.1", "localhost", "0.0.0.0", "127.1.2.3", "169.254.169.254"] {
        let found = runs_on(&images, &format!("{host}:{port}/a:1")).await;
        assert_eq!(found, Err(LookupError::Refused), "{host}");
    }
    for host in ["[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::]"] {
        let found = runs_on(&images, &format!("{host}:{port}/a:1")).await;
        assert!(matches!(found, Err(LookupError::Refused | LookupError::Invalid)), "{host}: {found:?}");
    }
    assert_eq!(victim.asked().len(), 0);
}

#[tokio::test]
async fn no_redirect_to_where_none_may_go_and_no_credential_across_one() {
    let (victim, storage) = (
        Registry::start(|asked| async move { ok(&asked, index(&["linux/amd64"])) }).await,
        Registry::start(|asked| async move { ok(&asked, index(&["linux/s390x"])) }).await,
    );
    let named = Registry::start(|asked| async move { ok(&asked, index(&["linux/s390x"])) }).await;
    let places = [format!("http://{}/x", victim.host()), format!("http://{}/x", storage.host())];
    let further = [
        // It may be reached, but not without TLS.
        format!("http://{}/x", named.host()),
        format!("http://localhost:{}/x", victim.address.port()),
        format!("http://[::ffff:127.0.0.1]:{}/x", victim.address.port()),
        format!("https://{}/x", victim.host()),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "file:///etc/passwd".to_owned(),
        format!("http://user:pw@{}/x", storage.host()),
    ];
    let locations: Vec<_> = places.iter().chain(&further).cloned().collect();
    let all = locations.clone();
    let registry = Registry::start(move |asked| {
        let number: usize = asked.path.rsplit('/').next().unwrap().parse().unwrap();
        let location = all[number].clone();
        async move {
            match asked.authorization {
                None => with(401, &[("www-authenticate", "Basic realm=x")]),
                Some(_) => with(307, &[("location", &location)]),
            }
        }
    })
    .await;
    let plain = [&registry, &storage];
    let realms = json!({"allowPrivateRealms": [named.host()]});
    let images = images(&plain, &realms, &[(&registry.host(), "u:p"), (&storage.host(), "s:p")]);
    let name = |number: usize| format!("{}/a:{number}", registry.host());
    assert_eq!(runs_on(&images, &name(1)).await.as_deref(), Ok("linux/s390x"), "where it was named");
    assert!(storage.asked().iter().all(|asked| asked.authorization.is_none()), "{:?}", storage.asked());
    for number in (0..locations.len()).filter(|number| *number != 1) {
        let found = runs_on(&images, &name(number)).await;
        assert!(
            matches!(found, Err(LookupError::Refused | LookupError::Unavailable)),
            "{}: {found:?}",
            locations[number]
        );
    }
    assert_eq!((victim.asked().len(), named.asked().len(), storage.asked().len()), (0, 0, 1));
}

#[tokio::test]
async fn redirect_target_gets_no_credential() {
    let tokens = token_server().await;
    let storage = with_tokens(format!("http://{}/token", tokens.host()), &["u"]).await;
    let location = format!("http://{}/x", storage.host());
    let registry = Registry::start(move |_| {
        let location = location.clone();
        async move { with(307, &[("location", &location)]) }
    })
    .await;
    let plain = [&registry, &storage, &tokens];
    let images = images(&plain, &json!({}), &[(&registry.host(), "u:p"), (&storage.host(), "s:p")]);
    assert_eq!(runs_on(&images, &format!("{}/a:1", registry.host())).await, Err(LookupError::Unauthorized));
    let shown = |registry: &Registry| -> Vec<_> {
        registry.asked().iter().map(|asked| asked.authorization.clone().unwrap_or_default()).collect()
    };
    assert_eq!(shown(&storage), ["", "Bearer anonymous"]);
    assert_eq!(shown(&tokens), [""], "a token request without a credential");
}

#[tokio::test]
async fn redirect_target_names_no_token_server_where_none_may_be() {
    let victim = token_server().await;
    for realm in [
        format!("http://{}/token", victim.host()),
        format!("https://{}/token", victim.host()),
        "https://169.254.169.254/token".to_owned(),
    ] {
        let storage = with_tokens(realm.clone(), &["anonymous"]).await;
        let location = format!("http://{}/x", storage.host());
        let registry = Registry::start(move |_| {
            let location = location.clone();
            async move { with(307, &[("location", &location)]) }
        })
        .await;
        let images = images(&[&registry, &storage], &json!({}), &[]);
        let found = runs_on(&images, &format!("{}/a:1", registry.host())).await;
        assert_eq!(found, Err(LookupError::Refused), "{realm}");
    }
    assert_eq!(victim.asked().len(), 0);
}

#[tokio::test]
async fn no_credential_to_a_token_server_where_none_may_be() {
    let victim = token_server().await;
    for realm in [
        format!("http://{}/token", victim.host()),
        format!("https://{}/token", victim.host()),
        format!("https://localhost:{}/token", victim.address.port()),
        format!("https://[::ffff:127.0.0.1]:{}/token", victim.address.port()),
        "http://auth.example.com/token".to_owned(),
        "https://169.254.169.254/token".to_owned(),
        "not a url".to_owned(),
    ] {
        let registry = with_tokens(realm.clone(), &["u"]).await;
        let images = images(&[&registry], &json!({}), &[(&registry.host(), "u:p")]);
        assert_eq!(
            runs_on(&images, &format!("{}/a:1", registry.host())).await,
            Err(LookupError::Refused),
            "{realm}"
        );
    }
    // One that may be reached is still asked by TLS alone.
    let registry = with_tokens(format!("http://{}/token", victim.host()), &["u"]).await;
    let named = json!({"allowPrivateRealms": [victim.host()]});
    let images = images(&[&registry], &named, &[(&registry.host(), "u:p")]);
    assert_eq!(runs_on(&images, &format!("{}/a:1", registry.host())).await, Err(LookupError::Refused));
    assert_eq!(victim.asked().len(), 0);
}

#[tokio::test]
async fn only_registries_that_are_allowed() {
    let registry = Registry::of(vec![("a/manifests/1", index(&["linux/amd64"]))]).await;
    let images = images(&[&registry], &json!({"allow": ["*.example.com"]}), &[]);
    assert_eq!(runs_on(&images, &format!("{}/a:1", registry.host())).await, Err(LookupError::NotAllowed));
    assert_eq!(registry.asked().len(), 0);
}

/// Secrets named `pull` of these namespaces, with what is in each.
fn secrets(all: &'static [(&'static str, &'static str)], host: String) -> PullSecrets {
    PullSecrets::new(podshaper_testing::client(move |request: Request<Value>| {
        let secret = all.iter().find(|(namespace, _)| {
            request.uri().path() == format!("/api/v1/namespaces/{namespace}/secrets/pull")
        });
        let file = secret.map(|(_, pair)| json!({"auths": {&*host: {"auth": STANDARD.encode(pair)}}}));
        let response = match file {
            Some(file) => {
                let data = json!({".dockerconfigjson": STANDARD.encode(file.to_string())});
                MockResponse::json(200, &json!({"type": "kubernetes.io/dockerconfigjson", "data": data}))
            }
            None => MockResponse::failure(404, "NotFound"),
        };
        std::future::ready(response)
    }))
}

/// An API server that says this of any Secret, and how often it was asked.
fn api_server<A>(answer: impl Fn() -> A + Send + Sync + 'static) -> (PullSecrets, Arc<AtomicUsize>)
where
    A: Future<Output = Value> + Send + 'static,
{
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let client = podshaper_testing::client(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        let answer = answer();
        async move { MockResponse::json(200, &answer.await) }
    });
    (PullSecrets::new(client), asked)
}

/// A Secret with so many credentials for this host.
fn secret(host: &str, count: usize) -> Value {
    let entry = |n| (format!("{host}/{}", "a".repeat(n)), json!({"auth": STANDARD.encode(format!("{n}:p"))}));
    let auths: serde_json::Map<_, _> = (0..count).map(entry).collect();
    let file = json!({"auths": auths}).to_string();
    json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": STANDARD.encode(file)}})
}

#[tokio::test]
async fn number_of_secrets_is_limited() {
    let registry = Registry::start(|_| async { with(401, &[("www-authenticate", "Basic realm=x")]) }).await;
    let settings = settings(&[&registry], &json!({}));
    let name = format!("{}/{}:1", registry.host(), "a".repeat(200));
    let known = async |secrets, names: &[String]| {
        let images = ImageResolver::new(&settings, None, Some(secrets)).unwrap();
        let pull_secrets = names.iter().map(String::as_str).collect();
        let access = Access { namespace: "one", pull_secrets };
        let known = images.known(&[image(&name, false)], &access, Instant::now() + 10 * BUDGET).await;
        assert_eq!(known.images, [Knowledge::Unknown(LookupError::Unauthorized)]);
        known.warnings
    };
    let host = registry.host();
    let (secrets, asked) = api_server(move || std::future::ready(secret(&host, 100)));
    let same = vec!["pull".to_owned(); 1000];
    assert_eq!((known(secrets, &same).await, asked.load(Ordering::Relaxed)), (vec![], 1));
    // The first request finds the challenge.
    assert_eq!(registry.asked().len(), 1 + 16, "so many are tried, and each once");

    let host = registry.host();
    let (secrets, asked) = api_server(move || std::future::ready(secret(&host, 100)));
    let different: Vec<_> = (0..100).map(|n| format!("pull-{n}")).collect();
    let warnings = known(secrets, &different).await;
    assert_eq!(asked.load(Ordering::Relaxed), 32);
    let unused = warnings.iter().filter(|warning| warning.contains("may hold 256 credentials in all"));
    assert_eq!(unused.count(), 30);
    assert_eq!(warnings.last().unwrap(), "arch: only the first 32 of imagePullSecrets are read");

    let (secrets, _) = api_server(|| {
        let long = "x".repeat(1 << 20);
        std::future::ready(
            json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": long}}),
        )
    });
    assert_eq!(
        known(secrets, &same).await,
        ["arch: Secret pull: it is larger than any Docker configuration"]
    );
}

#[tokio::test]
async fn prefetches_are_limited() {
    let (secrets, asked) = api_server(std::future::pending);
    let images = ImageResolver::new(&settings(&[], &json!({})), None, Some(secrets)).unwrap();
    let name = "a".repeat(200);
    for _ in 0..1000 {
        let access = Access { namespace: "one", pull_secrets: vec!["pull"] };
        images.prefetch(&vec![image(&name, false); 1000], &access, "default");
    }
    let waiting = async {
        while asked.load(Ordering::Relaxed) < 16 {
            tokio::task::yield_now().await;
        }
    };
    timeout(10 * BUDGET, waiting).await.unwrap();
    for _ in 0..10_000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(asked.load(Ordering::Relaxed), 16);
}

#[tokio::test]
async fn answers_are_separated_by_credentials() {
    let tokens = token_server().await;
    let registry = with_tokens(format!("http://{}/token", tokens.host()), &["tenant"]).await;
    let of = &[("one", "tenant:1"), ("two", "other:1"), ("three", "tenant:1"), ("odd", "no pair")];
    let name = format!("{}/private:1", registry.host());
    let settings = settings(&[&registry, &tokens], &json!({}));
    let images = ImageResolver::new(&settings, None, Some(secrets(of, registry.host()))).unwrap();
    let known = async |namespace, pull_secrets: &[&'static str]| {
        let access = Access { namespace, pull_secrets: pull_secrets.to_vec() };
        let image = image(&name, false);
        let Known { mut images, warnings } = images.known(&[image], &access, Instant::now() + BUDGET).await;
        (images.remove(0), warnings)
    };
    let arm64 = Knowledge::Known(Arc::new(Platforms::Only([Platform::new("linux", "arm64", None)].into())));
    let unauthorized = Knowledge::Unknown(LookupError::Unauthorized);
    assert_eq!(known("one", &["pull"]).await.0, arm64);
    let asked = registry.asked().len();
    assert_eq!(known("two", &["pull"]).await.0, unauthorized, "another credential");
    assert_eq!(known("one", &[]).await.0, unauthorized, "the pod names none");
    assert_eq!(known("nowhere", &["pull"]).await.0, unauthorized, "there is none");
    assert!(registry.asked().len() > asked);
    let asked = registry.asked().len();
    assert_eq!(known("three", &["pull"]).await.0, arm64, "the same credential");
    assert_eq!(registry.asked().len(), asked, "and nothing is asked for twice");
    let warnings = vec!["arch: Secret pull: it isn't a Docker configuration".to_owned()];
    assert_eq!(known("odd", &["pull"]).await, (unauthorized, warnings));
}
