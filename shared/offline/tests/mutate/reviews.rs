//! Reviews in place of manifests.

use std::time::Instant;

use podshaper_core::admission::answer;
use serde_json::{Value, json};

use crate::marker::{DEPLOYMENT, Marker, fine, pod, run};

fn review(object: &str) -> String {
    format!(
        r#"{{"apiVersion":"admission.k8s.io/v1", "kind":"AdmissionReview","request":{{"uid":"u\n1","kind":{{"group":"","version":"v1","kind":"Pod"}},"namespace":"shop","operation":"CREATE","object":{object}}}}}"#
    )
}

/// The answer of the server.
fn served(review: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let answer = runtime
        .block_on(answer(&Marker { mark: "marked".into() }, review.as_bytes(), Instant::now()))
        .unwrap();
    String::from_utf8(answer.body).unwrap() + "\n"
}

#[test]
fn reviews_are_answered_as_the_server_does() {
    let deep = format!("{{\"x\": {}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    for object in [
        "{}",
        r#"{"metadata":{"annotations":{"do":"deny"}}}"#,
        r#"{"metadata":1}"#,
        r#"{"metadata":{"annotations":null},"metadata":{}}"#,
        &deep,
    ] {
        let review = review(object);
        assert_eq!(run(&["-o", "review"], &review).out, served(&review));
    }
    let both = format!("{}\n---\nkind: Service\n---\n{}\n", review("{}"), review("{\"a\": 1}"));
    assert_eq!(fine(&["-o", "review"], &both), served(&review("{}")).repeat(2));

    let answer: Value = serde_json::from_str(&fine(&["-o", "review"], DEPLOYMENT)).unwrap();
    assert_eq!(answer["response"]["patchType"], "JSONPatch");
    let denied = run(&["-o", "review"], &pod("a", "deny"));
    assert_eq!((denied.status, denied.out.contains("\"allowed\":false")), (1, true));
}

#[test]
fn review_is_printed_in_each_format() {
    let review = review("{}");
    let after: Value = serde_json::from_str(&fine(&["-o", "json"], &review)).unwrap();
    assert_eq!(after["request"]["object"], json!({"metadata": {"annotations": {"mark": "marked-shop"}}}));
    let patch: Value = serde_json::from_str(&fine(&["-o", "patch"], &review)).unwrap();
    assert_eq!(patch[0]["path"], "/metadata");
    let ran = run(&[], r#"{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview"}"#);
    assert_eq!((ran.status, ran.out.as_str()), (1, ""));
    assert!(ran.err.contains("v1beta1"), "{}", ran.err);
}
