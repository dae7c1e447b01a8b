//! The webhook changes no pod's validity: Kubernetes' validation accepts a generated pod before the patch exactly if it accepts it after.
//!
//! `PODSHAPER_VALIDATION_ORACLE` is the path of the binary of `ci/go/validation-oracle`, and `PROPTEST_CASES` the number of pods.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::env;
use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use podshaper_core::admission::Verdict;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, TestRng, TestRunner};
use serde::Deserialize;
use serde_json::{Value, json};
use support::generated::{pods, settings};
use support::{VM, decide, patched, webhook};

/// Pods without `PROPTEST_CASES`.
const DEFAULT_PODS: usize = 1_000;

#[derive(Debug, Deserialize)]
#[serde(default)]
struct Validated {
    pod: Value,
    errors: Vec<String>,
    undecodable: String,
}

impl Default for Validated {
    fn default() -> Self {
        Self { pod: Value::Null, errors: Vec::new(), undecodable: String::new() }
    }
}

struct Oracle {
    process: Child,
    pods: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Oracle {
    fn start() -> Self {
        let program = env::var_os("PODSHAPER_VALIDATION_ORACLE")
            .expect("PODSHAPER_VALIDATION_ORACLE must name the binary of ci/go/validation-oracle");
        let mut process = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let pods = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, pods, answers }
    }

    fn validate(&mut self, pod: &Value) -> Validated {
        writeln!(self.pods, "{pod}").unwrap();
        serde_json::from_str(&self.answers.next().expect("an answer for each pod").unwrap()).unwrap()
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn pod_is_valid_exactly_if_it_is_valid_without_the_webhook() {
    let count = env::var("PROPTEST_CASES").map_or(DEFAULT_PODS, |count| count.parse().unwrap());
    let config = Config::default();
    let mut runner =
        TestRunner::new_with_rng(config.clone(), TestRng::deterministic_rng(config.rng_algorithm));
    let mut oracle = Oracle::start();
    let mut valid = 0;
    let mut invalid = 0;
    for _ in 0..count {
        let (settings, pod) = (settings(), pods()).new_tree(&mut runner).unwrap().current();
        let without = oracle.validate(&pod);
        // A pod that can't be decoded reaches no webhook.
        if !without.undecodable.is_empty() {
            continue;
        }
        let context = || format!("settings {settings}\npod {pod}\nwithout the webhook {:?}", without.errors);
        let decision = decide(&webhook(&settings), &without.pod);
        assert_eq!(decision.verdict, Verdict::Admit, "{}", context());
        let after = patched(&without.pod, &decision);
        let with = oracle.validate(&after);
        let comparison = || format!("{}\nwith it {:?} {:?}", context(), with.errors, decision.warnings);
        assert_eq!(with.undecodable, "", "{}", comparison());
        assert_eq!(without.errors.is_empty(), with.errors.is_empty(), "{}", comparison());
        let is_sized = after["spec"]["containers"][0]["resources"]["limits"][VM] == "1";
        if without.errors.is_empty() {
            valid += 1;
            assert!(is_sized, "{}", comparison());
            dependent_fields_have_what_they_need(&settings, &after);
        } else {
            invalid += 1;
            // Another field may be invalid.
            assert!(is_sized || !decision.warnings.is_empty(), "{}", comparison());
        }
    }
    println!("{valid} valid pods, {invalid} invalid ones");
    assert!(valid * 4 > count && invalid * 4 > count, "{valid} valid pods, {invalid} invalid ones");
}

/// Claims stay only with those of the containers, and each volume of hugepages has a container with hugepages.
fn dependent_fields_have_what_they_need(settings: &Value, pod: &Value) {
    let spec = &pod["spec"];
    assert!(spec.get("resources").is_none(), "{pod}");
    let keeps_claims =
        settings["keepResources"].as_array().is_some_and(|keep| keep.contains(&json!("claims")));
    assert!(keeps_claims || spec.get("resourceClaims").is_none(), "{pod}");
    let Some(medium) = spec["volumes"][0]["emptyDir"]["medium"].as_str() else { return };
    let Some(size) = medium.strip_prefix("HugePages") else { return };
    let pages = format!("hugepages{size}");
    let lists = [&spec["containers"], &spec["initContainers"]];
    let mut containers = lists.iter().flat_map(|list| list.as_array().into_iter().flatten());
    let has_pages = containers.any(|container| {
        let requests = container["resources"]["requests"].as_object();
        requests.is_some_and(|requests| requests.keys().any(|name| name.starts_with(&pages)))
    });
    assert!(has_pages, "{pod}");
}
