//! Registries that behave.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arch::image_resolver::ImageResolver;
use arch_decision::config::Settings;
use arch_decision::images::{Knowledge, LookupError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Response;
use podshaper_core::admission::Verdict;
use serde_json::{Value, json};
use support::registry::{
    Asked, Registry, config, digest, entry, full, index, index_of, manifest, ok, status, with,
};
use support::resolver::{images, known, runs_on, token_server, with_tokens};

#[tokio::test]
async fn every_kind_of_manifest() {
    let arm = config("linux", "arm64");
    let amd = config("linux", "amd64");
    let arm_image = manifest(&arm);
    let amd_image = manifest(&amd);
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
    assert_eq!(runs_on(&images, &format!("{host}/a/b:none")).await, Err(LookupError::NotFound));
    assert_eq!(runs_on(&images, "NOT A NAME").await, Err(LookupError::Invalid));
}

/// The result for a pod with this image and this volume.
async fn becomes(images: &Arc<ImageResolver>, image: &str, volume: Option<&str>, budget: Duration) -> String {
    let volumes: Vec<_> =
        volume.iter().map(|volume| json!({"name": "v", "image": {"reference": volume}})).collect();
    let containers = json!([{"name": "c", "image": image, "imagePullPolicy": "IfNotPresent"}]);
    let pod = json!({"spec": {"containers": containers, "volumes": volumes, "nodeSelector": {"kubernetes.io/os": "linux"}}});
    let pod = pod.to_string();
    let settings = Settings::from_value(json!({"architectures": {"arm64": {}, "s390x": {}}})).unwrap();
    let webhook = arch_decision::Arch::new(settings, Arc::clone(images));
    let decision = webhook.decide(&pod, "ns", Instant::now() + budget).await;
    match decision.verdict {
        Verdict::Deny(_) => "denied".to_owned(),
        Verdict::Undecided(why) => why,
        Verdict::Admit if !decision.warnings.is_empty() => decision.warnings.join(", "),
        Verdict::Admit => String::from_utf8(decision.patch.to_json()).unwrap(),
    }
}

#[tokio::test]
async fn denial_asks_for_tags_again() {
    let mended = Arc::new(AtomicBool::new(false));
    let dead = Arc::new(AtomicBool::new(false));
    let switches = (Arc::clone(&mended), Arc::clone(&dead));
    let registry = Registry::start(move |asked: Asked| {
        let mended = switches.0.load(Ordering::Relaxed);
        let dead = switches.1.load(Ordering::Relaxed);
        async move {
            if dead {
                std::future::pending::<()>().await;
            }
            ok(&asked, index(if mended { &["linux/amd64", "linux/arm64"] } else { &["linux/amd64"] }))
        }
    })
    .await;
    let images = Arc::new(images(&[&registry], &json!({}), &[]));
    let name = format!("{}/a:1", registry.host());
    let becomes = async || becomes(&images, &name, None, Duration::from_secs(3)).await;
    assert_eq!(becomes().await, "denied");
    mended.store(true, Ordering::Relaxed);
    assert!(becomes().await.contains("arm64"), "what is remembered isn't so any more");
    let asked = registry.asked().len();
    assert!(becomes().await.contains("arm64"));
    assert_eq!(registry.asked().len(), asked, "what runs is believed");
    mended.store(false, Ordering::Relaxed);
    assert_eq!(
        known(&images, &name, true, Duration::from_secs(2)).await,
        known(&images, &name, false, Duration::from_secs(2)).await
    );
    dead.store(true, Ordering::Relaxed);
    let begun = Instant::now();
    assert_eq!(becomes().await, "denied", "no source has an answer");
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn volumes_restrict_where_their_index_does() {
    let blob = config("linux", "amd64");
    let single = manifest(&blob);
    let data = json!({"schemaVersion": 2, "layers": [], "config": {"mediaType": "x/y", "digest": "sha256:1", "size": 1}});
    let data = data.to_string().into_bytes();
    let (blob_path, data_path) =
        (format!("v/blobs/{}", digest(&blob)), format!("v/manifests/{}", digest(&data)));
    let registry = Registry::of(vec![
        ("v/manifests/both", index(&["linux/arm64", "linux/s390x"])),
        ("v/manifests/arm", index(&["linux/arm64"])),
        ("v/manifests/amd", index(&["linux/amd64"])),
        ("v/manifests/single", single),
        (&blob_path, blob.clone()),
        ("v/manifests/data", index_of(vec![entry(&digest(&data), Value::Null)])),
        (&data_path, data.clone()),
    ])
    .await;
    let images = Arc::new(images(&[&registry], &json!({}), &[]));
    let name = |tag: &str| format!("{}/v:{tag}", registry.host());
    let with = async |image: &str, volume: &str| {
        becomes(&images, &name(image), Some(&name(volume)), Duration::from_secs(3)).await
    };
    assert_eq!(with("both", "single").await, "[]");
    assert_eq!(with("both", "data").await, "[]");
    assert!(with("both", "arm").await.contains("arm64"));
    assert_eq!(with("both", "amd").await, "denied");
    assert_eq!(with("single", "single").await, "denied", "a container's counts");
    assert!(with("data", "data").await.contains("is an artifact without an architecture"));
    assert_eq!(runs_on(&images, &name("data")).await.as_deref(), Ok("any"));
}

#[tokio::test]
async fn tokens_are_asked_for_by_all_credentials_and_remembered() {
    let tokens = token_server().await;
    let registry = with_tokens(format!("http://{}/token?x=y", tokens.host()), &["good"]).await;
    let host = registry.host();
    let credentials = [(&*format!("{host}/team"), "bad:1"), (&*host, "good:2"), ("other.example", "never:3")];
    let images = images(&[&registry, &tokens], &json!({}), &credentials);
    assert_eq!(runs_on(&images, &format!("{host}/team/a:1")).await.as_deref(), Ok("linux/arm64"));
    let asked = registry.asked();
    let granted = tokens.asked();
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
    assert_eq!(runs_on(&wrong, &name).await, Err(LookupError::Unauthorized));
    let none = images(&[&registry], &json!({}), &[]);
    assert_eq!(runs_on(&none, &name).await, Err(LookupError::Unauthorized));
}

#[tokio::test]
async fn mirrors_come_first_and_get_no_credentials_but_their_own() {
    let mirror = Registry::start(|asked| async move {
        if asked.path.contains("/hub/mine/") {
            ok(&asked, index(&["linux/s390x"]))
        } else {
            with(401, &[("www-authenticate", "Basic realm=x")])
        }
    })
    .await;
    let registry = Registry::of(vec![("theirs/manifests/1", index(&["linux/amd64"]))]).await;
    let mirrors = json!({"mirrors": {registry.host(): [format!("http://{}/hub", mirror.host())]}});
    let images = images(&[&registry, &mirror], &mirrors, &[(&registry.host(), "u:p")]);
    let host = registry.host();
    assert_eq!(runs_on(&images, &format!("{host}/mine:1")).await.as_deref(), Ok("linux/s390x"));
    assert_eq!(registry.asked().len(), 0);
    assert_eq!(runs_on(&images, &format!("{host}/theirs:1")).await.as_deref(), Ok("linux/amd64"));
    assert_eq!(mirror.asked().len(), 2);
    assert!(mirror.asked().iter().all(|asked| asked.authorization.is_none()));
}

#[tokio::test]
async fn thousand_admissions_send_one_request() {
    let registry = Registry::start(|asked| async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        ok(&asked, index(&["linux/arm64"]))
    })
    .await;
    let images = Arc::new(images(&[&registry], &json!({}), &[]));
    let name = format!("{}/a:1", registry.host());
    // The first caller times out; its lookup continues.
    assert_eq!(
        known(&images, &name, false, Duration::from_millis(50)).await,
        Knowledge::Unknown(LookupError::Timeout)
    );
    let all = (0..1000).map(|_| {
        let images = Arc::clone(&images);
        let name = name.clone();
        tokio::spawn(async move { known(&images, &name, false, Duration::from_secs(5)).await })
    });
    for one in all.collect::<Vec<_>>() {
        assert!(matches!(one.await.unwrap(), Knowledge::Known(_)));
    }
    assert_eq!(registry.asked().len(), 1);
}

#[tokio::test]
async fn known_image_survives_registry_failure() {
    let dead = Arc::new(AtomicBool::new(false));
    let moved = Arc::new(AtomicBool::new(false));
    let switches = (Arc::clone(&dead), Arc::clone(&moved));
    let registry = Registry::start(move |asked: Asked| {
        let dead = switches.0.load(Ordering::Relaxed);
        let moved = switches.1.load(Ordering::Relaxed);
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
async fn head_without_digest_falls_back_to_get() {
    let moved = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&moved);
    let registry = Registry::start(move |asked: Asked| {
        let platform = if switch.load(Ordering::Relaxed) { "linux/s390x" } else { "linux/arm64" };
        let body = if asked.method == "HEAD" { Vec::new() } else { index(&[platform]) };
        async move { Response::new(full(body)) }
    })
    .await;
    let images = images(&[&registry], &json!({}), &[]);
    let name = format!("{}/a:1", registry.host());
    let on = async || match known(&images, &name, true, Duration::from_secs(2)).await {
        Knowledge::Known(platforms) => platforms.on("linux"),
        Knowledge::Unknown(why) => why.label().to_owned(),
    };
    assert_eq!((on().await.as_str(), registry.asked().len()), ("arm64", 1));
    assert_eq!(
        (on().await.as_str(), registry.asked().len()),
        ("arm64", 3),
        "HEAD, and GET because HEAD has no digest"
    );
    moved.store(true, Ordering::Relaxed);
    assert_eq!(on().await, "s390x");
}
