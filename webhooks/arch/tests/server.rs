//! The real binary: bad configuration ends it at start, and registries that lie cost it neither its budget nor its memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use e2e::client::post;
use http::Response;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use podshaper_core::admission::Request;
use serde_json::json;
use support::registry::{Registry, digest, entry, full, index, index_of, ok, with};
use support::server::{BINARY, PATH, file, flag, review, start};

#[test]
fn bad_configuration_ends_the_process_with_the_line_and_the_reason() {
    let run = |config: &str, docker: &str| -> Output {
        let config = file(config);
        let docker = file(docker);
        let arguments = [flag("config", config.path()), flag("docker-config", docker.path())];
        let output = Command::new(BINARY)
            .arg("serve")
            .arg("--cert-dir=/nonexistent")
            .args(&arguments)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        output
    };
    for (config, docker, expected) in [
        ("onUnknown: skip\nonImposible: deny\n", "{}", "line 2: onImposible: unknown field"),
        (
            "ifNotPresentCacheTime: 7 days",
            "{}",
            "line 1: ifNotPresentCacheTime: \"7 days\" is not a duration",
        ),
        ("onUnknown: skip", "{\n\"auths\": {\"a\": 7}}", "line 2 column"),
    ] {
        let output = run(config, docker);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains(expected), "{stderr}");
    }
}

#[tokio::test]
async fn lying_registry_is_bounded() {
    let hangs = Registry::start(|_| std::future::pending()).await;
    let endless = Registry::start(|_| async {
        let piece = Bytes::from(vec![b' '; 64 << 10]);
        let frames = futures::stream::repeat_with(move || Ok(Frame::data(piece.clone())));
        Response::new(StreamBody::new(frames).boxed())
    })
    .await;
    let circles = Registry::start(|asked| async move { with(302, &[("location", &asked.path)]) }).await;
    let limits = Registry::start(|_| async { with(429, &[("retry-after", "30")]) }).await;
    // One names more platforms than are remembered of an image, the other as many, of each image others.
    let [large, greedy] = [10_000, 256].map(|count| {
        let platforms: Vec<_> = (0..count).map(|n| format!("linux/IMAGE{n}")).collect();
        let index = index(&platforms.iter().map(String::as_str).collect::<Vec<_>>());
        let index = String::from_utf8(index).unwrap();
        Registry::start(move |asked| {
            let image = asked.path.replace(['/', ':', '.'], "");
            let index = index.replace("IMAGE", &image).into_bytes();
            async { Response::new(full(index)) }
        })
    });
    let large = large.await;
    let greedy = greedy.await;
    let right = Registry::start(|asked| async move { ok(&asked, index(&["linux/arm64"])) }).await;
    let liars = [&hangs, &endless, &circles, &limits, &large, &greedy];
    let hosts: Vec<_> = liars.iter().chain([&&right]).map(|registry| registry.host()).collect();
    let settings = json!({"registries": {"plainHttp": hosts}, "lookupTimeout": "1s"});
    let webhook = start(&settings, &json!({})).await;
    let client = webhook.client();
    let resting = webhook.memory_kib("VmHWM");
    for round in 0..4 {
        let begun = Instant::now();
        let answers = (0..25).map(|pod| {
            let lies = liars.iter().map(move |liar| format!("{}/a{pod}:{round}", liar.host()));
            let images: Vec<_> = lies.chain([format!("{}/a:1", right.host())]).collect();
            let client = client.clone();
            tokio::spawn(async move { client.send(post(PATH, &review(&images))).await.unwrap() })
        });
        for answer in answers.collect::<Vec<_>>() {
            let answer = answer.await.unwrap();
            assert_eq!(answer.status, 200);
            assert!(answer.body.contains(r#""allowed":"#) && answer.body.contains("warnings"), "{answer:?}");
        }
        assert!(begun.elapsed() < Duration::from_millis(2500), "{:?}", begun.elapsed());
    }
    // Unoptimized, the program itself has several times its size.
    let program = if cfg!(debug_assertions) { webhook.memory_kib("RssFile") } else { 0 };
    let most = webhook.memory_kib("VmHWM") - program;
    println!("{resting} KiB at rest; at most {most} KiB, without {program} KiB of the program");
    assert!(most <= 40 << 10, "{most} KiB");
    let answer = client.send(post(PATH, &review(&[format!("{}/a:1", right.host())]))).await.unwrap();
    assert!(answer.body.contains(r#""patchType":"JSONPatch""#), "{answer:?}");
}

/// A map that keeps 380,000 annotations takes 35 MiB.
#[tokio::test]
async fn annotations_of_an_index_are_not_kept() {
    let annotations: serde_json::Map<_, _> = (0..380_000).map(|n| (format!("{n:x}"), json!(""))).collect();
    let many = serde_json::Value::Object(annotations);
    let one = json!({"a": "b".repeat(many.to_string().len())});
    let peak = async |annotations: serde_json::Value| {
        let mut amd64 = entry(&digest(b"amd64"), json!({"os": "linux", "architecture": "amd64"}));
        amd64["annotations"] = annotations;
        let index = Bytes::from(index_of(vec![amd64]));
        let registry = Registry::start(move |asked| {
            let index = index.clone();
            async move { ok(&asked, index.to_vec()) }
        })
        .await;
        let webhook = start(&json!({"registries": {"plainHttp": [registry.host()]}}), &json!({})).await;
        let review = review(&[format!("{}/a:1", registry.host())]);
        let answer = webhook.client().send(post(PATH, &review)).await.unwrap();
        assert!(answer.body.contains(r#""patchType":"JSONPatch""#), "{answer:?}");
        webhook.memory_kib("VmHWM")
    };
    let one = peak(one).await;
    let many = peak(many).await;
    println!("{one} KiB with one annotation, {many} KiB with 380,000");
    assert!(many <= one + (4 << 10), "{one} KiB, {many} KiB");
}

#[tokio::test]
async fn nested_lists_do_not_multiply_in_memory() {
    let silent = Registry::start(|_| std::future::pending()).await;
    let settings = json!({"registries": {"plainHttp": [silent.host()]}, "lookupTimeout": "1s"});
    let webhook = start(&settings, &json!({})).await;
    let requirement = json!({"key": "a", "operator": "In", "values": vec![""; 1000]});
    let terms = json!([{"matchExpressions": vec![requirement; 900]}]);
    let required = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
    let container = json!({"name": "c", "image": format!("{}/a:1", silent.host())});
    let spec = json!({"affinity": {"nodeAffinity": required}, "containers": [container]});
    let review = Request::create("v1", "Pod", "default", json!({"metadata": {"name": "p"}, "spec": spec}));
    let review = Arc::new(review.to_review().unwrap().into_bytes());
    let client = webhook.client();
    let resting = webhook.memory_kib("VmHWM");
    let answers = (0..8).map(|_| {
        let client = client.clone();
        let review = Arc::clone(&review);
        tokio::spawn(async move { client.send(post(PATH, &review)).await.unwrap() })
    });
    for answer in answers.collect::<Vec<_>>() {
        let answer = answer.await.unwrap();
        assert!(answer.status == 429 || answer.body.contains("can't be read"), "{answer:?}");
    }
    let more = webhook.memory_kib("VmHWM") - resting;
    println!("{more} KiB more than at rest");
    assert!(more <= 64 << 10, "{more} KiB");
}
