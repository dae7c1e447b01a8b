//! A pod that is admitted without the webhook is admitted with it: the API server decides twice about each generated pod, with its
//! plugins LimitRanger, ResourceQuota and `PodSecurity`.
//!
//! The requests are dry runs. ResourceQuota decides about them as about others and only leaves its status unchanged
//! (`quotaEvaluator.checkQuotas` of k8s.io/apiserver).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

mod daemon_sets;
mod namespaces;
mod peer_pods;
mod verdicts;

#[path = "../../../../webhooks/flexdaemonset/decision/tests/support/mod.rs"]
mod flexdaemonset_support;
#[path = "../../../../webhooks/peerpods/decision/tests/support/mod.rs"]
mod peerpods_support;

/// The number of generated pods.
fn pods() -> usize {
    std::env::var("PODSHAPER_TEST_PODS").ok().and_then(|text| text.parse().ok()).unwrap_or(60)
}
