//! Generated pods, admitted or refused by LimitRanger and by the validation of Kubernetes.
//!
//! `PODSHAPER_LIMIT_RANGE_ORACLE` names the binary of `ci/go/limit-range-oracle`. `PODSHAPER_ORACLE_PODS` and `PODSHAPER_SEED` say
//! how many pods, and which.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::env;
use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::str::FromStr;

use podshaper_core::admission::Verdict;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, RngSeed, TestRng, TestRunner};
use serde::Deserialize;
use serde_json::{Value, json};
use support::generated::{limit_ranges, nodes, pods_with_pod_level, templates};
use support::{daemon_set, decide, patched, template};

/// A pod after the defaults of the API server.
#[derive(Debug, Deserialize)]
struct Answer {
    /// The pod with defaults.
    pod: Value,
    problems: Vec<String>,
}

struct Oracle {
    child: Child,
    input: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Oracle {
    fn start() -> Self {
        let program = env::var_os("PODSHAPER_LIMIT_RANGE_ORACLE")
            .expect("PODSHAPER_LIMIT_RANGE_ORACLE must name the binary of ci/go/limit-range-oracle");
        let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, input, answers }
    }

    fn admit(&mut self, limit_ranges: &[Value], pod: &Value) -> Answer {
        writeln!(self.input, "{}", json!({"limitRanges": limit_ranges, "pod": pod})).unwrap();
        serde_json::from_str(&self.answers.next().expect("an answer for each pod").unwrap()).unwrap()
    }
}

fn number_from_env<N: FromStr>(name: &str, default: N) -> N {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn pod_that_is_admitted_without_webhook_is_admitted_with_it() {
    let count: u32 = number_from_env("PODSHAPER_ORACLE_PODS", 2000);
    let seed: u64 = number_from_env("PODSHAPER_SEED", 1);
    println!("{count} pods, PODSHAPER_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner =
        TestRunner::new_with_rng(Config { rng_seed: RngSeed::Fixed(seed), ..Config::default() }, rng);
    let cases = (templates(), nodes(), limit_ranges(), pods_with_pod_level());
    let mut oracle = Oracle::start();
    let mut admitted = 0;
    let mut sized = 0;
    let mut rescued = 0;
    for _ in 0..count {
        let (spec, node, ranges, mut pod) = cases.new_tree(&mut runner).unwrap().current();
        pod["metadata"]["namespace"] = json!("ns");
        let facts = [vec![node, template(spec), daemon_set()], ranges.clone()].concat();
        let without = oracle.admit(&ranges, &pod);
        let decision = decide(&facts, &without.pod);
        let with = oracle.admit(&ranges, &patched(&without.pod, &decision));
        let context = || {
            let before = &without.pod["spec"];
            let warnings = &decision.warnings;
            let after = &with.pod["spec"];
            format!("{}\nbefore {before}\nafter {after}\n{warnings:?}", json!(facts))
        };
        if without.problems.is_empty() {
            assert!(with.problems.is_empty(), "{:?}\n{}", with.problems, context());
            let again = decide(&facts, &with.pod);
            assert_eq!(again.verdict, Verdict::Admit);
            assert!(
                again.patch.is_empty(),
                "{}\n{}",
                String::from_utf8(again.patch.to_json()).unwrap(),
                context()
            );
            admitted += 1;
            sized += u32::from(!decision.patch.is_empty());
        } else {
            rescued += u32::from(with.problems.is_empty());
        }
    }
    println!(
        "admitted without the webhook {admitted}, of these sized {sized}; admitted only with it {rescued}"
    );
    assert!(admitted > count / 10 && sized > admitted / 2, "admitted {admitted}, sized {sized} of {count}");
    drop(oracle.input);
    assert!(oracle.child.wait().unwrap().success());
}
