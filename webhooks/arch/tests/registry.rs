//! Registries that behave, and such that lie.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arch::config::Settings;
use arch::credentials::DockerConfig;
use arch::images::{Access, Image, Images, Knowledge, Why};
use arch::known::KnownImages;
use arch::platform::Platforms;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use support::registry::{
    Asked, Registry, config, digest, entry, full, index, index_of, manifest, ok, status, with,
};

/// Settings by which these hosts are spoken to without TLS.
fn settings(plain: &[&Registry], more: &Value) -> Settings {
    let hosts: Vec<_> = plain.iter().map(|registry| registry.host()).collect();
    let mut registries = json!({"plainHttp": hosts});
    registries.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Settings::from_value(json!({"registries": registries})).unwrap()
}

fn images(plain: &[&Registry], more: &Value, credentials: &[(&str, &str)]) -> KnownImages {
    let auths: serde_json::Map<_, _> = credentials
        .iter()
        .map(|(place, pair)| ((*place).to_owned(), json!({"auth": STANDARD.encode(pair)})))
        .collect();
    let config = DockerConfig::from_json(&json!({"auths": auths}).to_string()).unwrap();
    KnownImages::new(&settings(plain, more), Some(config), None).unwrap()
}

async fn runs_on(images: &KnownImages, name: &str) -> Result<String, Why> {
    let explained = images.explain(name).await?;
    Ok(match &*explained.platforms {
        Platforms::Any => "any".to_owned(),
        Platforms::Only(platforms) => platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
    })
}

fn image(reference: &str, always: bool) -> Image<'_> {
    Image { reference, always, volume: false }
}

/// What admission knows within this time.
async fn known(images: &KnownImages, name: &str, always: bool, budget: Duration) -> Knowledge {
    let begun = Instant::now();
    let mut known = images.known(&[image(name, always)], &Access::default(), begun + budget).await;
    assert!(begun.elapsed() < budget + Duration::from_millis(250), "{name}: {:?}", begun.elapsed());
    known.images.remove(0)
}

const BUDGET: Duration = Duration::from_millis(700);

#[tokio::test]
async fn every_kind_of_manifest() {
    let (arm, amd) = (config("linux", "arm64"), config("linux", "amd64"));
    let (arm_image, amd_image) = (manifest(&arm), manifest(&amd));
    let inner = index(&["linux/s390x"]);
    let nested = index_of(vec![
        entry(&digest(&inner), Value::Null),
        entry(&digest(&amd_image), Value::Null),
        entry("sha256:00", json!({"os": "unknown", "architecture": "unknown"})),
    ]);
    let old = json!({"schemaVersion": 1, "name": "a", "architecture": "ppc64le", "fsLayers": []}).to_string();
    let chart = json!({"schemaVersion": 2, "layers": [], "config": {"mediaType": "x/y", "digest": "sha256:1", "size": 1}});
    let paths = [&arm, &amd].map(|blob| format!("a/b/blobs/{}", digest(blob)));
    let manifests = [&inner, &amd_image, &arm_image].map(|body| format!("a/b/manifests/{}", digest(body)));
    let registry = Registry::of(vec![
        ("a/b/manifests/index", index(&["linux/amd64", "linux/arm/v6", "windows/amd64"])),
        ("a/b/manifests/single", arm_image.clone()),
        ("a/b/manifests/nested", nested),
        ("a/b/manifests/old", old.into_bytes()),
        ("a/b/manifests/chart", chart.to_string().into_bytes()),
        (&paths[0], arm.clone()),
        (&paths[1], amd.clone()),
        (&manifests[0], inner.clone()),
        (&manifests[1], amd_image.clone()),
        (&manifests[2], arm_image.clone()),
    ])
    .await;
    let images = images(&[&registry], &json!({}), &[]);
    let host = registry.host();
    let by_digest = format!("single@{}", digest(&arm_image));
    for (tag, expected) in [
        ("index", "linux/amd64 linux/arm/v6 windows/amd64"),
        ("single", "linux/arm64"),
        ("nested", "linux/amd64 linux/s390x"),
        ("old", "linux/ppc64le"),
        ("chart", "any"),
        (&by_digest, "linux/arm64"),
        (&format!("index@{}", digest(&arm_image)), "linux/arm64"),
    ] {
        assert_eq!(runs_on(&images, &format!("{host}/a/b:{tag}")).await.as_deref(), Ok(expected), "{tag}");
    }
    assert_eq!(runs_on(&images, &format!("{host}/a/b:none")).await, Err(Why::NotFound));
    assert_eq!(runs_on(&images, "NOT A NAME").await, Err(Why::Invalid));
}

/// A registry whose token server is `realm`, for these users; content for all who have a token of theirs.
async fn with_tokens(realm: String, users: &'static [&'static str]) -> Registry {
    Registry::start(move |asked| {
        let challenge = format!("Bearer realm=\"{realm}\",service=\"test\",scope=\"repository:x:push\"");
        async move {
            let token = asked.authorization.as_deref().and_then(|own| own.strip_prefix("Bearer "));
            match token {
                Some(token) if users.contains(&token) => ok(&asked, index(&["linux/arm64"])),
                Some(_) => status(403),
                None => with(401, &[("www-authenticate", &challenge)]),
            }
        }
    })
    .await
}

/// Gives everybody a token that is their name.
async fn token_server() -> Registry {
    Registry::start(|asked| async move {
        let user = asked.authorization.as_deref().and_then(|own| own.strip_prefix("Basic ")).map_or_else(
            || "anonymous".to_owned(),
            |pair| {
                String::from_utf8(STANDARD.decode(pair).unwrap())
                    .unwrap()
                    .split(':')
                    .next()
                    .unwrap()
                    .to_owned()
            },
        );
        Response::new(full(json!({"token": user, "expires_in": 300}).to_string().into_bytes()))
    })
    .await
}

#[tokio::test]
async fn tokens_are_asked_for_by_all_credentials_and_remembered() {
    let tokens = token_server().await;
    let registry = with_tokens(format!("http://{}/token?x=y", tokens.host()), &["good"]).await;
    let host = registry.host();
    let credentials = [(&*format!("{host}/team"), "bad:1"), (&*host, "good:2"), ("other.example", "never:3")];
    let images = images(&[&registry, &tokens], &json!({}), &credentials);
    assert_eq!(runs_on(&images, &format!("{host}/team/a:1")).await.as_deref(), Ok("linux/arm64"));
    let (asked, granted) = (registry.asked(), tokens.asked());
    assert_eq!(granted.len(), 2, "{granted:?}");
    assert_eq!(granted[0].path, "/token?x=y&service=test&scope=repository%3Ateam%2Fa%3Apull");
    assert!(
        granted
            .iter()
            .all(|asked| asked.authorization.as_deref().is_some_and(|own| own.starts_with("Basic ")))
    );
    assert!(
        asked.iter().all(|asked| asked.authorization.as_deref().is_none_or(|own| own.starts_with("Bearer ")))
    );

    assert_eq!(runs_on(&images, &format!("{host}/team/a:2")).await.as_deref(), Ok("linux/arm64"));
    assert_eq!(tokens.asked().len(), 2, "tokens are remembered");
    assert_eq!(registry.asked().len(), asked.len() + 2, "one try by each, and nothing beside");
    assert_eq!(runs_on(&images, &format!("{host}/team/a:2")).await.as_deref(), Ok("linux/arm64"));
}

#[tokio::test]
async fn passwords_where_a_registry_wants_them() {
    let registry = Registry::start(|asked| async move {
        match &asked.authorization {
            Some(own) if *own == format!("Basic {}", STANDARD.encode("u:p")) => {
                ok(&asked, index(&["linux/amd64"]))
            }
            Some(_) => status(401),
            None => with(401, &[("www-authenticate", "Basic realm=\"x\"")]),
        }
    })
    .await;
    let host = registry.host();
    let name = format!("{host}/a:1");
    let right = images(&[&registry], &json!({}), &[(&host, "u:p")]);
    assert_eq!(runs_on(&right, &name).await.as_deref(), Ok("linux/amd64"));
    assert_eq!(registry.asked().len(), 2);
    assert_eq!(runs_on(&right, &name).await.as_deref(), Ok("linux/amd64"));
    assert_eq!(registry.asked().len(), 3, "what the registry wants is remembered");
    let wrong = images(&[&registry], &json!({}), &[(&host, "u:wrong")]);
    assert_eq!(runs_on(&wrong, &name).await, Err(Why::Unauthorized));
    let none = images(&[&registry], &json!({}), &[]);
    assert_eq!(runs_on(&none, &name).await, Err(Why::Unauthorized));
}

#[tokio::test]
async fn mirrors_come_first_and_get_no_credentials_but_their_own() {
    let mirror = Registry::start(|asked| async move {
        if asked.path.contains("/hub/mine/") { ok(&asked, index(&["linux/s390x"])) } else { status(404) }
    })
    .await;
    let registry = Registry::of(vec![("theirs/manifests/1", index(&["linux/amd64"]))]).await;
    let mirrors = json!({"mirrors": {registry.host(): [format!("http://{}/hub", mirror.host())]}});
    let images = images(&[&registry, &mirror], &mirrors, &[(&registry.host(), "u:p")]);
    let host = registry.host();
    assert_eq!(runs_on(&images, &format!("{host}/mine:1")).await.as_deref(), Ok("linux/s390x"));
    assert_eq!(registry.asked().len(), 0);
    assert_eq!(runs_on(&images, &format!("{host}/theirs:1")).await.as_deref(), Ok("linux/amd64"));
    assert!(mirror.asked().iter().all(|asked| asked.authorization.is_none()));
}

#[tokio::test]
async fn a_registry_that_hangs_costs_the_budget_and_no_more() {
    let registry = Registry::start(|_| std::future::pending()).await;
    let images = images(&[&registry], &json!({}), &[]);
    let name = format!("{}/a:1", registry.host());
    for _ in 0..3 {
        assert_eq!(known(&images, &name, false, BUDGET).await, Knowledge::Unknown(Why::Timeout));
    }
    assert_eq!(registry.asked().len(), 1, "one look-up that all wait for");
}

#[tokio::test]
async fn a_registry_that_wants_to_be_left_alone_is() {
    let registry = Registry::start(|_| async { with(429, &[("retry-after", "60")]) }).await;
    let images = images(&[&registry], &json!({}), &[]);
    for tag in 0..20 {
        let name = format!("{}/a:{tag}", registry.host());
        assert_eq!(known(&images, &name, false, BUDGET).await, Knowledge::Unknown(Why::RateLimited));
    }
    assert_eq!(registry.asked().len(), 1);
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
        assert_eq!(runs_on(&images, &name).await, Err(Why::Malformed));
    }
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
    assert_eq!(runs_on(&images, &format!("{}/a:1", registry.host())).await, Err(Why::Unavailable));
    assert!(registry.asked().len() < 8, "{}", registry.asked().len());
}

#[tokio::test]
async fn indexes_of_every_size_and_depth() {
    let many: Vec<_> = (0..10_000)
        .map(|n| {
            entry(&format!("sha256:{n:064}"), json!({"os": "linux", "architecture": format!("a{}", n % 40)}))
        })
        .collect();
    let untold: Vec<_> = (0..10_000).map(|n| entry(&format!("sha256:{n:064}"), Value::Null)).collect();
    let mut deep = index(&["linux/amd64"]);
    let mut contents = Vec::new();
    for _ in 0..6 {
        let outer = index_of(vec![entry(&digest(&deep), Value::Null)]);
        contents.push((format!("a/manifests/{}", digest(&deep)), deep));
        deep = outer;
    }
    contents.push(("a/manifests/deep".to_owned(), deep));
    contents.push(("a/manifests/many".to_owned(), index_of(many)));
    contents.push(("a/manifests/untold".to_owned(), index_of(untold)));
    // An index within itself can't have its own digest: it is found out by that.
    contents.push((
        format!("a/manifests/sha256:{:064}", 1),
        index_of(vec![entry(&format!("sha256:{:064}", 1), Value::Null)]),
    ));
    let registry = Registry::of(contents.iter().map(|(path, body)| (&**path, body.clone())).collect()).await;
    let images = images(&[&registry], &json!({}), &[]);
    let name = |tag: &str| format!("{}/a{tag}", registry.host());
    assert_eq!(runs_on(&images, &name(":many")).await.unwrap().split(' ').count(), 40);
    assert_eq!(runs_on(&images, &name(":deep")).await, Err(Why::Malformed));
    let before = registry.asked().len();
    assert!(runs_on(&images, &name(":untold")).await.is_err());
    assert!(registry.asked().len() - before < 30);
    assert_eq!(runs_on(&images, &name(&format!("@sha256:{:064}", 1))).await, Err(Why::Malformed));
}

#[tokio::test]
async fn wrong_digests() {
    let (config, other) = (config("linux", "amd64"), config("linux", "arm64"));
    let image = manifest(&config);
    let blob = format!("a/blobs/{}", digest(&config));
    let right = format!("a/manifests/{}", digest(b"something else"));
    let registry =
        Registry::of(vec![("a/manifests/1", image.clone()), (&blob, other), (&right, image)]).await;
    let images = images(&[&registry], &json!({}), &[]);
    for name in ["a:1".to_owned(), format!("a@{}", digest(b"something else"))] {
        assert_eq!(
            runs_on(&images, &format!("{}/{name}", registry.host())).await,
            Err(Why::Malformed),
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
        assert_eq!(found, Err(Why::Refused), "{host}");
    }
    for host in ["[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::]"] {
        let found = runs_on(&images, &format!("{host}:{port}/a:1")).await;
        assert!(matches!(found, Err(Why::Refused | Why::Invalid)), "{host}: {found:?}");
    }
    assert_eq!(victim.asked().len(), 0);
}

#[tokio::test]
async fn no_redirect_to_where_none_may_go_and_no_credential_across_one() {
    let (victim, storage) = (
        Registry::start(|asked| async move { ok(&asked, index(&["linux/amd64"])) }).await,
        Registry::start(|asked| async move { ok(&asked, index(&["linux/s390x"])) }).await,
    );
    let places = [format!("http://{}/x", victim.host()), format!("http://{}/x", storage.host())];
    let further = [
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
    let images =
        images(&[&registry, &storage], &json!({}), &[(&registry.host(), "u:p"), (&storage.host(), "s:p")]);
    let name = |number: usize| format!("{}/a:{number}", registry.host());
    assert_eq!(runs_on(&images, &name(1)).await.as_deref(), Ok("linux/s390x"), "where it was named");
    assert!(storage.asked().iter().all(|asked| asked.authorization.is_none()), "{:?}", storage.asked());
    for number in (0..locations.len()).filter(|number| *number != 1) {
        let found = runs_on(&images, &name(number)).await;
        assert!(matches!(found, Err(Why::Refused | Why::Unavailable)), "{}: {found:?}", locations[number]);
    }
    assert_eq!((victim.asked().len(), storage.asked().len()), (0, 1));
}

#[tokio::test]
async fn no_credential_for_whom_a_redirect_leads_to() {
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
    assert_eq!(runs_on(&images, &format!("{}/a:1", registry.host())).await, Err(Why::Unauthorized));
    assert_eq!((storage.asked().len(), tokens.asked().len()), (1, 0));
    assert_eq!(storage.asked()[0].authorization, None);
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
        assert_eq!(runs_on(&images, &format!("{}/a:1", registry.host())).await, Err(Why::Refused), "{realm}");
    }
    assert_eq!(victim.asked().len(), 0);
}

#[tokio::test]
async fn only_registries_that_are_allowed() {
    let registry = Registry::of(vec![("a/manifests/1", index(&["linux/amd64"]))]).await;
    let images = images(&[&registry], &json!({"allow": ["*.example.com"]}), &[]);
    assert_eq!(runs_on(&images, &format!("{}/a:1", registry.host())).await, Err(Why::NotAllowed));
    assert_eq!(registry.asked().len(), 0);
}

#[tokio::test]
async fn a_thousand_admissions_of_one_image_ask_once() {
    let registry = Registry::start(|asked| async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        ok(&asked, index(&["linux/arm64"]))
    })
    .await;
    let images = Arc::new(images(&[&registry], &json!({}), &[]));
    let name = format!("{}/a:1", registry.host());
    // Who came first has no time, and leaves; what was begun goes on.
    assert_eq!(
        known(&images, &name, false, Duration::from_millis(50)).await,
        Knowledge::Unknown(Why::Timeout)
    );
    let all = (0..1000).map(|_| {
        let (images, name) = (Arc::clone(&images), name.clone());
        tokio::spawn(async move { known(&images, &name, false, Duration::from_secs(5)).await })
    });
    for one in all.collect::<Vec<_>>() {
        assert!(matches!(one.await.unwrap(), Knowledge::Known(_)));
    }
    assert_eq!(registry.asked().len(), 1);
}

#[tokio::test]
async fn a_registry_that_dies_is_not_noticed_where_the_image_is_known() {
    let (dead, moved) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let switches = (Arc::clone(&dead), Arc::clone(&moved));
    let registry = Registry::start(move |asked: Asked| {
        let (dead, moved) = (switches.0.load(Ordering::Relaxed), switches.1.load(Ordering::Relaxed));
        async move {
            if dead {
                std::future::pending::<()>().await;
            }
            ok(&asked, index(&[if moved { "linux/s390x" } else { "linux/arm64" }]))
        }
    })
    .await;
    let images = images(&[&registry], &json!({}), &[]);
    let name = format!("{}/a:1", registry.host());
    let on = async |always| match known(&images, &name, always, Duration::from_secs(2)).await {
        Knowledge::Known(platforms) => platforms.on("linux"),
        Knowledge::Unknown(why) => why.label().to_owned(),
    };
    assert_eq!(on(false).await, "arm64");
    assert_eq!(
        (on(true).await.as_str(), registry.asked().last().unwrap().method.as_str()),
        ("arm64", "HEAD")
    );
    moved.store(true, Ordering::Relaxed);
    assert_eq!(on(false).await, "arm64", "what is on the node is used");
    assert_eq!(on(true).await, "s390x", "what is pulled anew is looked at anew");
    let asked = registry.asked().len();
    dead.store(true, Ordering::Relaxed);
    assert_eq!((on(false).await.as_str(), registry.asked().len()), ("s390x", asked));
    assert_eq!(on(true).await, "s390x", "the last word is good enough when there is no other");
}

#[tokio::test]
async fn what_one_tenant_may_read_another_may_not() {
    let tokens = token_server().await;
    let registry = with_tokens(format!("http://{}/token", tokens.host()), &["tenant"]).await;
    let name = format!("{}/private:1", registry.host());
    let plain = [&registry, &tokens];
    let tenant = images(&plain, &json!({}), &[(&registry.host(), "tenant:1")]);
    assert!(matches!(known(&tenant, &name, false, BUDGET).await, Knowledge::Known(_)));
    let other = images(&plain, &json!({}), &[(&registry.host(), "other:1")]);
    assert_eq!(known(&other, &name, false, BUDGET).await, Knowledge::Unknown(Why::Unauthorized));
}
