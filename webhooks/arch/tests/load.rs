//! The real binary, asked by many at once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use e2e::client::{Answer, Client, Connection, post};
use futures::future::join_all;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use support::registry::{Asked, Registry, config, digest, index, manifest, ok, status, with};
use support::server::{PATH, review, start};
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

/// A registry of indexes and single images, for those who know the password; it can die.
async fn registry(alive: watch::Receiver<bool>) -> Registry {
    let config = config("linux", "arm64");
    let single = manifest(&config);
    let blob = format!("/blobs/{}", digest(&config));
    let password = format!("Basic {}", STANDARD.encode("u:p"));
    Registry::start(move |asked: Asked| {
        let body = match &asked.path {
            path if path.ends_with(&blob) => config.clone(),
            path if path.contains("/single") => single.clone(),
            _ => index(&["linux/arm64"]),
        };
        let mut alive = alive.clone();
        let known = asked.authorization.as_ref() == Some(&password);
        async move {
            alive.wait_for(|alive| *alive).await.unwrap();
            if known { ok(&asked, body) } else { with(401, &[("www-authenticate", "Basic realm=x")]) }
        }
    })
    .await
}

/// Sends 200 pods a second for a second; all must be decided by complete knowledge.
async fn pods(client: &Client, review: &Arc<Vec<u8>>, phase: &str) {
    let mut pace = interval(Duration::from_millis(5));
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut answers = Vec::new();
    for _ in 0..200 {
        pace.tick().await;
        let client = client.clone();
        let review = Arc::clone(review);
        answers.push(tokio::spawn(async move { client.send(post(PATH, &review)).await.unwrap() }));
    }
    for answer in join_all(answers).await {
        decided(&answer.unwrap(), phase);
    }
}

fn decided(answer: &Answer, when: &str) {
    assert!(answer.body.contains("JSONPatch") && !answer.body.contains("warnings"), "{when}: {answer:?}");
}

#[tokio::test]
async fn pods_of_fifty_images_cost_two_requests_an_image() {
    let (life, alive) = watch::channel(true);
    let registry = registry(alive).await;
    let host = registry.host();
    let credentials = json!({"auths": {&host: {"auth": STANDARD.encode("u:p")}}});
    let settings = json!({"registries": {"plainHttp": [&host]}, "lookupTimeout": "9s"});
    let webhook = start(&settings, &credentials).await;
    let kinds = ["single", "index"].iter().cycle().enumerate();
    let images: Vec<_> = kinds.map(|(n, kind)| format!("{host}/{kind}{n}:1")).take(50).collect();
    let review = Arc::new(review(&images));
    let client = webhook.client();
    pods(&client, &review, "cold").await;
    let mut asked = BTreeMap::<_, u32>::new();
    for Asked { path, .. } in registry.asked() {
        *asked.entry(path.split('/').nth(2).unwrap().to_owned()).or_default() += 1;
    }
    // The first request finds the challenge.
    let found_out = registry.asked().iter().filter(|asked| asked.authorization.is_none()).count();
    assert_eq!(found_out, 1);
    assert_eq!(asked.len(), 50);
    assert!(asked.values().sum::<u32>() == 25 * 2 + 25 + 1, "{asked:?}");
    pods(&client, &review, "warm").await;
    life.send_replace(false);
    pods(&client, &review, "dead").await;
    assert_eq!(registry.asked().len(), 25 * 2 + 25 + 1, "what is known is asked for once");
}

#[tokio::test]
async fn thousand_admissions_share_one_lookup() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let (life, alive) = watch::channel(false);
    let registry = Registry::start(move |asked| {
        let mut alive = alive.clone();
        async move {
            alive.wait_for(|alive| *alive).await.unwrap();
            if asked.path == "/v2/a/manifests/1" { ok(&asked, index(&["linux/arm64"])) } else { status(404) }
        }
    })
    .await;
    let settings = json!({"registries": {"plainHttp": [registry.host()]}, "lookupTimeout": "20s"});
    let webhook = start(&settings, &json!({})).await;
    let review = review(&[format!("{}/a:1", registry.host())]);
    let client = webhook.client();
    // That takes longer than a registry is waited for.
    let mut connections = Vec::new();
    while connections.len() < 1000 {
        let opened = join_all((0..50).map(|_| client.connect())).await;
        let mut opened: Vec<_> = opened.into_iter().map(Result::unwrap).collect();
        // The server closes connections that never had a review if one client has many of them.
        for connection in &mut opened {
            connection.0.write_all(&post(PATH, &self::review(&[]))).await.unwrap();
            connection.receive().await.unwrap();
        }
        connections.extend(opened);
    }
    // The first caller times out.
    let in_haste = String::from_utf8(post(PATH, &review)).unwrap().replacen("timeout=10s", "timeout=1s", 1);
    let first = client.send(in_haste).await.unwrap();
    assert!(first.body.contains("couldn't be read in time"), "{first:?}");
    let request = post(PATH, &review);
    for Connection(stream) in &mut connections {
        stream.write_all(&request).await.unwrap();
        stream.flush().await.unwrap();
    }
    // All were sent, and none can be answered before.
    life.send_replace(true);
    for answer in join_all(connections.iter_mut().map(Connection::receive)).await {
        decided(&answer.unwrap(), "of a thousand");
    }
    assert_eq!(registry.asked().len(), 1);
}
