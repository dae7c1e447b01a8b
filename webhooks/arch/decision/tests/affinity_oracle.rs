//! Decisions about generated pods, evaluated by the node affinity and tolerations of Kubernetes.
//!
//! `PODSHAPER_AFFINITY_ORACLE` names the binary of `ci/go/affinity-oracle`. `PODSHAPER_ORACLE_PODS` and `PODSHAPER_SEED` say
//! how many pods, and which.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeMap;
use std::env;
use std::io::{self, BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::str::FromStr;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

use arch_decision::images::Knowledge;
use podshaper_core::admission::Verdict;
use serde::Deserialize;
use serde_json::{Value, json};
use support::generated::{every_node, pod_of};
use support::{decide, knowledge, patched, webhook};

/// What Kubernetes makes of one pod, by node.
#[derive(Debug, Deserialize)]
struct Answer {
    selected: Vec<bool>,
    tolerated: Vec<bool>,
}

/// Questions are written by a thread of their own: whoever reads answers never waits for one to be taken.
struct Oracle {
    child: Child,
    questions: Sender<String>,
    writer: JoinHandle<io::Result<()>>,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Oracle {
    fn start(nodes: &[Value]) -> Self {
        let program = env::var_os("PODSHAPER_AFFINITY_ORACLE")
            .expect("PODSHAPER_AFFINITY_ORACLE must name the binary of ci/go/affinity-oracle");
        let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (questions, asked) = channel::<String>();
        let mut input = child.stdin.take().unwrap();
        let writer = thread::spawn(move || asked.iter().try_for_each(|line| writeln!(input, "{line}")));
        questions.send(Value::from(nodes).to_string()).unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, questions, writer, answers }
    }

    fn ask(&self, pod: &Value) {
        self.questions.send(pod.to_string()).unwrap();
    }

    fn answer(&mut self) -> Answer {
        serde_json::from_str(&self.answers.next().expect("an answer for each pod").unwrap()).unwrap()
    }
}

/// Nodes with all labels there are, each without taints and with those that an architecture may have.
fn nodes() -> Vec<Value> {
    let taint =
        |key: String, value: &str, effect: &str| json!([{"key": key, "value": value, "effect": effect}]);
    let tainted = |labels: &BTreeMap<String, String>| {
        let arch = labels.get("kubernetes.io/arch").map_or("none", String::as_str);
        [
            json!([]),
            taint(format!("only-{arch}"), arch, "NoSchedule"),
            taint("arch".to_owned(), arch, "NoExecute"),
        ]
        .map(|taints| json!({"metadata": {"name": "n", "labels": labels}, "spec": {"taints": taints}}))
    };
    every_node().iter().flat_map(tainted).collect()
}

/// The configured architectures with labels that a node has.
fn architectures<'s>(settings: &'s Value, node: &'s Value) -> Vec<&'s str> {
    let labels = node["metadata"]["labels"].as_object().unwrap();
    let table = settings["architectures"].as_object().unwrap();
    if table.is_empty() {
        return labels.get("kubernetes.io/arch").and_then(Value::as_str).into_iter().collect();
    }
    let has_labels = |(name, own): &(&'s String, &'s Value)| match own["requireNodeLabels"].as_array() {
        Some(required) => required
            .iter()
            .flat_map(|map| map.as_object().unwrap())
            .all(|(key, value)| labels.get(key) == Some(value)),
        None => labels.get("kubernetes.io/arch").and_then(Value::as_str) == Some(name.as_str()),
    };
    table.iter().filter(has_labels).map(|(name, _)| name.as_str()).collect()
}

#[test]
fn agrees_with_kubernetes() {
    let count = number_from_env("PODSHAPER_ORACLE_PODS", 2000);
    let seed = number_from_env("PODSHAPER_SEED", 1);
    println!("{count} pods, PODSHAPER_SEED={seed}");
    let nodes = nodes();
    let mut oracle = Oracle::start(&nodes);
    let mut outcomes = BTreeMap::<&str, u64>::new();
    // A batch at a time, so that both work at once and little is kept.
    for batch in (0..count).step_by(50) {
        let cases: Vec<_> = (batch..count.min(batch + 50))
            .map(|number| pod_of(seed.wrapping_mul(1 << 32) + number))
            .collect();
        let mut after = Vec::new();
        for (settings, pod) in &cases {
            let decision = decide(&webhook(settings.clone()), pod);
            let changed = patched(pod, &decision);
            oracle.ask(pod);
            oracle.ask(&changed);
            after.push((changed, decision));
        }
        for ((settings, pod), (changed, decision)) in cases.iter().zip(&after) {
            let [before, now] = [oracle.answer(), oracle.answer()];
            let outcome = match &decision.verdict {
                Verdict::Deny(_) => "denied",
                _ if decision.patch.is_empty() => "unchanged",
                _ if changed["spec"]["schedulingGates"] != Value::Null => "gated",
                _ => "changed",
            };
            *outcomes.entry(outcome).or_default() += 1;
            check(settings, pod, changed, outcome, &nodes, &before, &now).unwrap_or_else(|problem| {
                panic!("{problem}\nsettings {settings}\nbefore {pod}\nafter {changed}")
            });
        }
    }
    println!("{outcomes:?}");
    assert!(outcomes.len() == 4 && outcomes.values().all(|number| *number > count / 50), "{outcomes:?}");
    drop(oracle.questions);
    oracle.writer.join().unwrap().unwrap();
    assert!(oracle.child.wait().unwrap().success());
}

fn check(
    settings: &Value,
    pod: &Value,
    changed: &Value,
    outcome: &str,
    nodes: &[Value],
    before: &Answer,
    now: &Answer,
) -> Result<(), String> {
    let images: Vec<_> =
        pod["spec"]["containers"].as_array().unwrap().iter().map(|c| c["image"].as_str().unwrap()).collect();
    let complete = images.iter().all(|image| matches!(knowledge(image), Knowledge::Known(_)));
    let runs = |name: &str| {
        images.iter().all(|image| match knowledge(image) {
            Knowledge::Known(platforms) => platforms.run_on("linux", &FromStr::from_str(name).unwrap()),
            Knowledge::Unknown(_) => true,
        })
    };
    let defaulted = !complete && settings["onUnknown"] == "default-architectures";
    if let Some(index) = (0..nodes.len()).find(|index| now.selected[*index] && !before.selected[*index]) {
        return Err(format!("{} came in", nodes[index]));
    }
    if outcome != "changed" {
        return Ok(());
    }
    let mut known = BTreeMap::new();
    for (index, node) in nodes.iter().enumerate() {
        let was = before.selected[index];
        let is = now.selected[index];
        let kinds = architectures(settings, node);
        let right = kinds.iter().any(|kind| *known.entry(*kind).or_insert_with(|| runs(kind)));
        // A node without the labels of a configured architecture has an unknown architecture.
        if is && !right && !kinds.is_empty() {
            return Err(format!("{node} is still there"));
        }
        if was && !is && right && !defaulted {
            return Err(format!("{node} was lost"));
        }
        if now.tolerated[index] && !before.tolerated[index] && !complete {
            return Err(format!("{node} is tolerated without knowing every image"));
        }
        if before.tolerated[index] && !now.tolerated[index] {
            return Err(format!("{node} isn't tolerated any more"));
        }
        // Of nodes of one architecture, the configured taints are no hindrance.
        let taints = node["spec"]["taints"].as_array().unwrap();
        let [kind] = kinds[..] else { continue };
        let own = settings["architectures"][kind]["taintsToTolerate"].as_array().cloned().unwrap_or_default();
        if is && complete && taints.iter().all(|taint| own.contains(taint)) && !now.tolerated[index] {
            return Err(format!("{node} isn't tolerated by {}", changed["spec"]["tolerations"]));
        }
    }
    Ok(())
}

fn number_from_env(name: &str, default: u64) -> u64 {
    env::var(name)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}
