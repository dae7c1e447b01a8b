//! Validation of a PodDistributor.

use e2e::cluster::{create, kubectl};
use serde_json::{Value, json};

use crate::fixture::install;

/// A group of the nodes `type=a`, with more fields.
fn group_with(more: &Value) -> Value {
    let mut group = json!({"nodeLabel": {"type": "a"}, "weight": 1});
    group.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    group
}

/// A PodDistributor of the workload `web`, with more fields of its spec.
fn distributor(namespace: &str, distribution: &Value, more: &Value) -> Value {
    let mut spec = json!({"distribution": distribution, "target": {"name": "web"}});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({
        "apiVersion": "versprei.versprei.io/v1beta1", "kind": "PodDistributor",
        "metadata": {"generateName": "d-", "namespace": namespace}, "spec": spec,
    })
}

/// Before 1.35 the error of a rule names the type of the value.
fn without_type(error: &str) -> String {
    ["array", "object", "string"].iter().fold(error.to_owned(), |error, kind| {
        error.replace(&format!("Invalid value: \"{kind}\": "), "Invalid value: ")
    })
}

#[tokio::test]
async fn definition_refuses_invalid_fields() {
    let release = install("refusals", &json!({"replicas": 1})).await;
    let group = |more: Value| group_with(&more);
    let of = |distribution: Value, more: Value| distributor(&release.pods, &distribution, &more);
    let one = |more: Value| of(json!([group(more)]), json!({}));
    let term = |requirement: Value| one(json!({"nodeAffinity": [{"matchExpressions": [requirement]}]}));
    let with = |more: Value| of(json!([group(json!({}))]), more);
    let labels: Value =
        (0..9).map(|n| (format!("l{n}"), json!(""))).collect::<serde_json::Map<_, _>>().into();
    for (object, said) in [
        (
            of(json!([]), json!({})),
            "spec.distribution: Invalid value: 0: spec.distribution in body should have at least 1",
        ),
        (one(json!({"weight": -1})), "spec.distribution[0].weight: Invalid value: -1"),
        (one(json!({"weight": 2_000_000})), "spec.distribution[0].weight"),
        (one(json!({"weight": 0})), "at least one group must have a weight or a base"),
        (one(json!({"nodeLabel": {}})), "must have a label unless nodeAffinity has a term"),
        (one(json!({"nodeLabel": labels})), "spec.distribution[0].nodeLabel: Too many: 9"),
        (one(json!({"nodeLabel": {"a b": "c"}})), "keys must have the form [PREFIX/]NAME"),
        (one(json!({"nodeLabel": {"a": "b c"}})), "spec.distribution[0].nodeLabel.a"),
        (one(json!({"base": 3, "max": 2})), "spec.distribution[0].max: Invalid value: must be at least base"),
        (
            of(json!([group(json!({"name": "x"})), group(json!({"name": "x"}))]), json!({})),
            "names must be unique",
        ),
        (
            of(json!([group(json!({})), group(json!({}))]), json!({})),
            "groups with the same labels must have names",
        ),
        (one(json!({"tolerations": [{}]})), "must be Exists if key is empty"),
        (
            one(json!({"tolerations": [{"key": "a", "operator": "Exists", "value": "x"}]})),
            "must be empty with operator Exists",
        ),
        (one(json!({"tolerations": [{"key": "a", "tolerationSeconds": 3}]})), "requires effect NoExecute"),
        (one(json!({"nodeAffinity": [{}]})), "must have a requirement: an empty term matches no node"),
        (
            term(json!({"key": "a", "operator": "In"})),
            "must be set for In, NotIn, Gt and Lt, and only for those",
        ),
        (term(json!({"key": "a", "operator": "Gt", "values": ["x"]})), "must be one integer for Gt and Lt"),
        (term(json!({"key": "a", "operator": "In", "values": ["x y"]})), "matchExpressions[0].values[0]"),
        (with(json!({"target": {}})), "spec.target: Invalid value: must have either a name or a selector"),
        (
            with(json!({"target": {"name": "web", "selector": {}}})),
            "spec.target: Invalid value: must have either a name or a selector",
        ),
        (
            with(json!({"target": {"selector": {}}, "rebalance": {"mode": "Always"}})),
            "spec.rebalance: Invalid value: mode must be Never with target.selector",
        ),
        (
            with(json!({"target": {"kind": "DaemonSet", "name": "web"}})),
            "spec.target.kind: Invalid value: a DaemonSet runs one pod on each node",
        ),
        (
            with(json!({"target": {"apiVersion": "apps/v1", "kind": "Job", "name": "web"}})),
            "spec.target.apiVersion: Invalid value: must be batch/v1 for Job and CronJob",
        ),
        (
            with(json!({"target": {"kind": "deployment", "name": "web"}})),
            "spec.target.kind: Invalid value: \"deployment\"",
        ),
        (with(json!({"whenUnavailable": "Panic"})), "spec.whenUnavailable: Unsupported value"),
        (with(json!({"unschedulableAfter": "soon"})), "spec.unschedulableAfter"),
        (
            with(json!({"whenUnavailable": "Wait", "unschedulableAfter": "5m"})),
            "unschedulableAfter has no effect with whenUnavailable: Wait",
        ),
        (
            with(json!({"whenUnavailable": "Wait", "takeBack": "Safe"})),
            "takeBack has no effect with whenUnavailable: Wait",
        ),
        (
            of(
                json!([group(json!({})), {"nodeLabel": {"type": "other"}, "weight": 1, "standIn": true}]),
                json!({}),
            ),
            "spec.distribution[1].standIn: Invalid value: requires weight 0 and base 0",
        ),
        (with(json!({"rebalance": {"maxUnavailable": "0%"}})), "must be a number of at least 1"),
    ] {
        let refused = without_type(&create(&object, &["--dry-run=server"]).await.unwrap_err());
        assert!(refused.contains(said), "{said}: {refused}");
    }
    definition_accepts_and_describes_its_fields(&release.pods).await;
}

/// A part of the same test, because an installation takes longer than all requests.
async fn definition_accepts_and_describes_its_fields(namespace: &str) {
    let full = group_with(&json!({
        "name": "spot nodes", "base": 1, "max": 5, "preferred": true,
        "tolerations": [{"operator": "Exists"}, {"key": "spot", "value": "true", "effect": "NoExecute", "tolerationSeconds": 30}],
        "nodeAffinity": [
            {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}, {"key": "cpus", "operator": "Gt", "values": ["4"]}]},
            {"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["node"]}]},
        ],
    }));
    let more = json!({
        "unschedulableAfter": "5m", "availability": "Nodes", "takeBack": "Always", "rebalance": {"mode": "OnRecovery", "maxUnavailable": "10%"},
    });
    let made =
        create(&distributor(namespace, &json!([full, group_with(&json!({}))]), &more), &["--dry-run=server"])
            .await
            .unwrap();
    assert_eq!(made["spec"]["target"], json!({"name": "web"}));
    for field in [
        "spec.distribution.weight",
        "spec.rebalance.maxUnavailable",
        "status.groups.deviation",
        "spec.target.kind",
        "spec.target.selector",
    ] {
        let output = kubectl(&["explain", &format!("poddistributors.{field}")]).await;
        let (_, description) = output.split_once("DESCRIPTION:").unwrap();
        assert!(description.trim().len() > 20 && !description.contains("<empty>"), "{field}: {output}");
    }
}
