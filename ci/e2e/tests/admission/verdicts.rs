//! The API server's decisions about pods with the webhook and without it.

use futures::StreamExt;
use kube::{Client, Error};
use serde_json::{Value, json};

use super::namespaces::Namespaces;

/// Pods that the API server decides about at the same time.
const AT_ONCE: usize = 16;
/// Pods that the report of a failed test shows.
const SHOWN: usize = 5;

/// The number of pods, by the decisions about them.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    pub(super) admitted: usize,
    pub(super) refused: usize,
    /// Admitted only with the webhook.
    pub(super) only_with: usize,
    /// Refused only with the webhook.
    refused_with: Vec<String>,
    /// Refused both times, for other reasons.
    other_reasons: Vec<String>,
}

impl Verdicts {
    /// Creates each pod in its namespaces, in dry runs.
    pub(super) async fn of(client: &Client, pods: impl Iterator<Item = (&Namespaces, Value)>) -> Self {
        let decisions = pods.map(async |(namespaces, pod)| {
            let without = refusal(client, &namespaces.without, &pod).await;
            let with = refusal(client, &namespaces.with, &pod).await;
            let plain = match (&without, &with) {
                (Some(without), Some(with)) if words(without) != words(with) => {
                    refusal(client, &namespaces.plain, &pod).await
                }
                _ => None,
            };
            (pod, without, with, plain)
        });
        let mut decisions = futures::stream::iter(decisions).buffer_unordered(AT_ONCE);
        let mut verdicts = Self::default();
        while let Some((pod, without, with, plain)) = decisions.next().await {
            match (without, with) {
                (None, None) => verdicts.admitted += 1,
                (Some(_), None) => verdicts.only_with += 1,
                (None, Some(with)) => {
                    verdicts.refused_with.push(format!("refused because of the webhook: {with}\n{pod}"));
                }
                (Some(without), Some(with)) => {
                    verdicts.refused += 1;
                    // A pod that a LimitRange or the quota refuses may pass them with the webhook. The next plugin then refuses it as
                    // in a namespace without them.
                    let is_same = words(&without) == words(&with)
                        || plain.is_some_and(|plain| words(&plain) == words(&with));
                    if !is_same {
                        verdicts.other_reasons.push(format!("without: {without}\nwith: {with}\n{pod}"));
                    }
                }
            }
        }
        let Self { admitted, refused, only_with, refused_with, other_reasons } = &verdicts;
        println!(
            "{admitted} admitted, {refused} refused ({} for other reasons), {only_with} admitted only with the webhook, \
             {} refused only with it",
            other_reasons.len(),
            refused_with.len()
        );
        verdicts
    }

    /// Asserts that the webhook is the reason for no refusal, and that enough pods were decided either way.
    pub(super) fn assert_none_refused_by_webhook(&self) {
        let count = self.admitted + self.refused + self.only_with + self.refused_with.len();
        assert_empty(&self.refused_with, count);
        assert!(
            self.admitted * 10 > count,
            "only {} of {count} pods are admitted without the webhook",
            self.admitted
        );
        assert!(self.refused * 50 > count, "only {} of {count} pods are refused", self.refused);
    }

    /// Asserts that a pod that is refused both times is refused for the same reasons.
    pub(super) fn assert_same_reasons(&self) {
        assert_empty(&self.other_reasons, self.refused);
    }
}

fn assert_empty(problems: &[String], count: usize) {
    let shown = problems.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("\n\n");
    assert!(problems.is_empty(), "{} of {count} pods:\n{shown}", problems.len());
}

/// The message of the API server about a pod that it refuses.
async fn refusal(client: &Client, namespace: &str, pod: &Value) -> Option<String> {
    let request = http::Request::post(format!("/api/v1/namespaces/{namespace}/pods?dryRun=All"))
        .header("content-type", "application/json")
        .body(pod.to_string().into_bytes())
        .unwrap();
    match client.request::<Value>(request).await {
        Ok(_) => None,
        Err(Error::Api(status)) if (400..500).contains(&status.code) && status.code != 429 => {
            Some(status.message)
        }
        Err(error) => panic!("{error}\n{pod}"),
    }
}

/// LimitRanger lists its findings in any order.
fn words(message: &str) -> Vec<&str> {
    let mut words: Vec<_> =
        message.split([' ', ',', '[', ']', '\n']).filter(|word| !word.is_empty()).collect();
    words.sort_unstable();
    words
}

/// `pod` as `PodSecurity`'s level `restricted` demands it.
pub(super) fn restricted(mut pod: Value) -> Value {
    pod["spec"]["securityContext"] =
        json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
    for list in ["containers", "initContainers"] {
        for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            container["securityContext"] =
                json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
        }
    }
    pod
}
