//! `NetworkPolicy`s that cut the API server off from a webhook.
//!
//! The check reads objects: it cannot know which addresses the API server calls from. It fails where no rule admits any address
//! outside of pods, because an API server is no pod in most clusters.

use serde_json::Value;

use super::finding::Finding;
use super::hints::helm_upgrade;
use super::snapshot::{Read, Snapshot};
use super::webhook::{name, program, service};

/// Whether the policies that select the webhook's pods leave a way to its port.
pub(super) fn check(configuration: &Value, cluster: &Snapshot) -> Option<Finding> {
    let label = name(configuration).unwrap_or_default();
    let program = program(configuration);
    let namespace = service(configuration)?.namespace;
    let subject = format!("NetworkPolicies let the API server reach {label}");
    let policies = match &cluster.network_policies {
        Read::Hidden(reason) => return Some(Finding::skipped(&subject, reason)),
        Read::Found(policies) => policies,
    };
    let deployment = cluster.deployments.found().iter().find(|deployment| {
        super::webhook::program(deployment) == program
            && deployment.pointer("/metadata/namespace").and_then(Value::as_str) == Some(&namespace)
    })?;
    let template = deployment.pointer("/spec/template")?;
    let labels = template.pointer("/metadata/labels")?;
    let ports = webhook_ports(template);
    let selecting: Vec<_> = policies
        .iter()
        .filter(|policy| policy.pointer("/metadata/namespace").and_then(Value::as_str) == Some(&namespace))
        .filter(|policy| restricts_ingress(policy) && selects(policy, labels))
        .collect();
    if selecting.is_empty() {
        return None;
    }
    // Policies add up: one that admits is enough.
    if selecting.iter().any(|policy| admits(policy, &ports)) {
        return Some(Finding::passed(subject));
    }
    let names: Vec<_> = selecting.iter().filter_map(|policy| name(policy)).collect();
    Some(Finding::failed(
        format!("NetworkPolicies cut the API server off from {label}: {}", names.join(", ")),
        format!(
            "Admit the addresses of the API server to TCP port {}. A policy of the chart does so, and {program}.networkPolicy.webhookFrom \
             narrows it:\n{}",
            ports.number,
            helm_upgrade(configuration, &format!("--set {program}.networkPolicy.enabled=true"))
        ),
    ))
}

/// The port of the webhook, by number and by name: a policy may use either.
struct WebhookPort {
    number: u64,
    name: Option<String>,
}

fn webhook_ports(template: &Value) -> WebhookPort {
    let ports = template.pointer("/spec/containers/0/ports").and_then(Value::as_array);
    let port = ports.and_then(|ports| {
        ports.iter().find(|port| port.get("name").and_then(Value::as_str) == Some("webhook"))
    });
    WebhookPort {
        number: port.and_then(|port| port.get("containerPort")?.as_u64()).unwrap_or(9443),
        name: port.and_then(|port| Some(port.get("name")?.as_str()?.to_owned())),
    }
}

/// Without `policyTypes` a policy restricts ingress (`NetworkPolicySpec`).
fn restricts_ingress(policy: &Value) -> bool {
    let types = policy.pointer("/spec/policyTypes").and_then(Value::as_array);
    types.is_none_or(|types| types.iter().any(|kind| kind.as_str() == Some("Ingress")))
}

fn selects(policy: &Value, labels: &Value) -> bool {
    let selector = policy.pointer("/spec/podSelector").unwrap_or(&Value::Null);
    let matches_labels = selector
        .get("matchLabels")
        .and_then(Value::as_object)
        .is_none_or(|wanted| wanted.iter().all(|(key, value)| labels.get(key) == Some(value)));
    let expressions = selector.get("matchExpressions").and_then(Value::as_array);
    matches_labels && expressions.is_none_or(|all| all.iter().all(|expression| matches(expression, labels)))
}

/// A requirement of a label selector (`metav1.LabelSelectorRequirement`).
fn matches(expression: &Value, labels: &Value) -> bool {
    let field = |name: &str| expression.get(name).and_then(Value::as_str).unwrap_or_default();
    let value = labels.get(field("key"));
    let listed = expression
        .get("values")
        .and_then(Value::as_array)
        .is_some_and(|values| value.is_some_and(|value| values.contains(value)));
    match field("operator") {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}

/// Whether a rule admits some address that is not a pod's to the port.
fn admits(policy: &Value, port: &WebhookPort) -> bool {
    let rules = policy.pointer("/spec/ingress").and_then(Value::as_array);
    rules.is_some_and(|rules| rules.iter().any(|rule| admits_port(rule, port) && admits_addresses(rule)))
}

fn admits_port(rule: &Value, port: &WebhookPort) -> bool {
    let ports = rule.get("ports").and_then(Value::as_array).filter(|ports| !ports.is_empty());
    ports.is_none_or(|ports| {
        ports.iter().any(|allowed| {
            let protocol = allowed.get("protocol").and_then(Value::as_str).unwrap_or("TCP");
            let number = match allowed.get("port") {
                None => true,
                Some(Value::String(name)) => port.name.as_ref() == Some(name),
                Some(first) => {
                    let first = first.as_u64().unwrap_or_default();
                    let last = allowed.get("endPort").and_then(Value::as_u64).unwrap_or(first);
                    (first..=last).contains(&port.number)
                }
            };
            protocol == "TCP" && number
        })
    })
}

fn admits_addresses(rule: &Value) -> bool {
    let peers = rule.get("from").and_then(Value::as_array).filter(|peers| !peers.is_empty());
    peers.is_none_or(|peers| peers.iter().any(|peer| peer.get("ipBlock").is_some()))
}
