//! A test double for images, and pods with such images.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value
)]

pub(crate) mod generated;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arch_decision::affinity::Stage;
use arch_decision::config::Settings;
use arch_decision::images::{Access, Image, Images, Knowledge, Known, LookupError};
use arch_decision::platform::{Platform, Platforms};
use podshaper_core::admission::{Decision, Verdict};
use serde_json::{Value, json};

/// An image is called what it runs on: `amd64_arm64`; `any` is data, `unknown` and what else is one of [`LookupError`] isn't known.
#[derive(Debug)]
pub(crate) struct ByName;

impl Images for ByName {
    async fn known(&self, images: &[Image<'_>], _: &Access<'_>, _: Instant) -> Known {
        let images = images.iter().map(|image| knowledge(image.reference)).collect();
        Known { images, warnings: Vec::new() }
    }
}

pub(crate) fn knowledge(name: &str) -> Knowledge {
    if name == "any" {
        return Knowledge::Known(Arc::new(Platforms::Any));
    }
    if let Some(why) = LookupError::ALL.into_iter().find(|why| why.label() == name) {
        return Knowledge::Unknown(why);
    }
    let platforms = name.split('_').map(|platform| match platform.split_once('-') {
        Some((os, architecture)) => Platform::new(os, architecture, None),
        None => match platform.split_once('.') {
            Some((architecture, variant)) => Platform::new("linux", architecture, Some(variant)),
            None => Platform::new("linux", platform, None),
        },
    });
    Knowledge::Known(Arc::new(Platforms::Only(platforms.collect())))
}

pub(crate) type Arch = arch_decision::Arch<ByName>;

/// The webhook with these settings.
pub(crate) fn webhook(settings: Value) -> Arch {
    arch_decision::Arch::new(Settings::from_value(settings).unwrap(), ByName)
}

/// A pod of these images.
pub(crate) fn pod(images: &[&str], spec: Value) -> Value {
    let containers: Vec<_> = images
        .iter()
        .enumerate()
        .map(|(index, image)| json!({"name": format!("c{index}"), "image": image, "imagePullPolicy": "IfNotPresent"}))
        .collect();
    let mut pod = json!({"metadata": {"name": "p"}, "spec": {"containers": containers}});
    pod["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    pod
}

/// A spec with these terms in its required node affinity.
pub(crate) fn terms(terms: Value) -> Value {
    json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
}

/// The terms of the required node affinity.
pub(crate) fn terms_of(pod: &Value) -> Value {
    let required = &pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    required["nodeSelectorTerms"].clone()
}

/// The decision about the creation of `pod`.
pub(crate) fn decide(webhook: &Arch, pod: &Value) -> Decision {
    let pod = pod.to_string();
    block_on(webhook.decide(&pod, "ns", soon()))
}

/// The decision about a gated pod once more.
pub(crate) fn decide_gated(webhook: &Arch, pod: &Value) -> Decision {
    let pod = pod.to_string();
    block_on(webhook.judge(&pod, "ns", soon(), Stage::Gated)).decision
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// `pod` after the decision's patch, which must apply.
pub(crate) fn patched(pod: &Value, decision: &Decision) -> Value {
    let patch = String::from_utf8(decision.patch.to_json()).unwrap();
    let patch: json_patch::Patch = serde_json::from_str(&patch).unwrap();
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &patch).unwrap_or_else(|e| panic!("{e}\npatch {patch}\npod {pod}"));
    pod
}

/// `pod` after one pass, which must admit it.
pub(crate) fn pass(webhook: &Arch, pod: &Value) -> Value {
    let decision = decide(webhook, pod);
    assert_eq!(decision.verdict, Verdict::Admit, "{pod}");
    patched(pod, &decision)
}

pub(crate) fn denial(decision: &Decision) -> &str {
    match &decision.verdict {
        Verdict::Deny(reason) => reason,
        other => panic!("{other:?}"),
    }
}
