//! Any object of a review gets an answer that the API server can read, with a patch that applies to the object.
#![no_main]

use std::pin::pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use json_patch::{Patch, patch};
use libfuzzer_sys::fuzz_target;
use peerpods_decision::PeerPods;
use peerpods_decision::config::Config;
use podshaper_core::admission::answer;
use serde_json::Value;

static WEBHOOK: LazyLock<PeerPods> = LazyLock::new(|| {
    PeerPods::new(Config::default(), ["kata-remote"], "kata.peerpods.io/vm").expect("the default settings")
});

fuzz_target!(|object: &str| {
    let body = format!(
        r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{{"uid":"u","kind":{{"group":"","version":"v1","kind":"Pod"}},"namespace":"ns","operation":"CREATE","object":{object}}}}}"#
    );
    let answering = pin!(answer(&*WEBHOOK, body.as_bytes(), Instant::now()));
    let Poll::Ready(answered) = answering.poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("peerpods never waits");
    };
    let Ok(answer) = answered else { return };
    let response = answer.response().expect("an AdmissionReview");
    let Ok(mut object) = serde_json::from_str::<Value>(object) else { return };
    let operations: Patch = serde_json::from_value(response.patch.into()).expect("a JSON patch");
    patch(&mut object, &operations).expect("the patch applies");
});
