//! The webhook configurations: that there are some, and that each leads to a webhook that answers.

use serde_json::Value;

use super::finding::Finding;
use super::hints::helm_upgrade;
use super::snapshot::{Read, Snapshot};

/// Where a webhook configuration sends reviews.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Service {
    pub namespace: String,
    pub name: String,
    /// 443 if the configuration names none (`WebhookClientConfig` of `admissionregistration.k8s.io/v1`).
    pub port: u64,
    pub path: String,
}

/// `metadata.name`.
pub(super) fn name(object: &Value) -> Option<&str> {
    object.pointer("/metadata/name")?.as_str()
}

/// The name of the program: one of the five webhooks.
pub(super) fn program(configuration: &Value) -> &str {
    let labels = configuration.pointer("/metadata/labels").unwrap_or(&Value::Null);
    labels.get("app.kubernetes.io/name").and_then(Value::as_str).unwrap_or_default()
}

/// The Service of a configuration. All entries of one configuration share it.
pub(super) fn service(configuration: &Value) -> Option<Service> {
    let service = configuration.pointer("/webhooks/0/clientConfig/service")?;
    let text = |field: &str| service.get(field).and_then(Value::as_str);
    Some(Service {
        namespace: text("namespace")?.to_owned(),
        name: text("name")?.to_owned(),
        port: service.get("port").and_then(Value::as_u64).unwrap_or(443),
        path: text("path").unwrap_or("/").to_owned(),
    })
}

/// Whether any webhook is installed.
pub(super) fn installed(webhooks: &Read<Vec<Value>>) -> Option<Finding> {
    match webhooks {
        Read::Hidden(reason) => Some(Finding::skipped("webhook configurations", reason)),
        Read::Found(found) if found.is_empty() => Some(Finding::failed(
            "no webhook is installed: no MutatingWebhookConfiguration has the label app.kubernetes.io/part-of=podshaper",
            "helm install podshaper oci://ghcr.io/podshaper/charts/podshaper --namespace podshaper --create-namespace \
             --set peerpods.enabled=true",
        )),
        Read::Found(_) => None,
    }
}

/// The Service, its endpoints and an answer.
pub(super) fn check(configuration: &Value, cluster: &Snapshot) -> Vec<Finding> {
    let label = name(configuration).unwrap_or_default();
    let Some(service) = service(configuration) else {
        return vec![Finding::failed(format!("{label} names no Service"), helm_upgrade(configuration, ""))];
    };
    let mut findings = vec![exists(configuration, &service, cluster)];
    findings.push(endpoints(configuration, &service, cluster));
    findings.push(match cluster.answers.get(label) {
        Some(Read::Found(Ok(()))) => Finding::passed(format!("{label} answers a review")),
        Some(Read::Found(Err(reason))) => Finding::failed(
            format!("{label} does not answer a review: {reason}"),
            format!(
                "kubectl logs --namespace {} --selector app.kubernetes.io/name={} --tail 20",
                service.namespace,
                program(configuration)
            ),
        ),
        Some(Read::Hidden(reason)) => Finding::skipped(&format!("{label} answers a review"), reason),
        None => Finding::skipped(&format!("{label} answers a review"), "it was not called"),
    });
    findings
}

fn is(object: &Value, namespace: &str, name: &str) -> bool {
    object.pointer("/metadata/name").and_then(Value::as_str) == Some(name)
        && object.pointer("/metadata/namespace").and_then(Value::as_str) == Some(namespace)
}

fn exists(configuration: &Value, service: &Service, cluster: &Snapshot) -> Finding {
    let label = name(configuration).unwrap_or_default();
    let subject = format!("{label} has the Service {}/{}", service.namespace, service.name);
    match &cluster.services {
        Read::Hidden(reason) => Finding::skipped(&subject, reason),
        Read::Found(all) if all.iter().any(|object| is(object, &service.namespace, &service.name)) => {
            Finding::passed(subject)
        }
        Read::Found(_) => Finding::failed(
            format!("{label} names the Service {}/{}, which does not exist", service.namespace, service.name),
            format!(
                "{}\nIf the release is gone: kubectl delete mutatingwebhookconfiguration {label}",
                helm_upgrade(configuration, "")
            ),
        ),
    }
}

/// Counts ready endpoints. A condition that is absent means ready (`EndpointConditions` of `discovery.k8s.io/v1`).
fn endpoints(configuration: &Value, service: &Service, cluster: &Snapshot) -> Finding {
    let label = name(configuration).unwrap_or_default();
    let subject = format!("{label} has ready endpoints");
    let slices = match &cluster.endpoint_slices {
        Read::Hidden(reason) => return Finding::skipped(&subject, reason),
        Read::Found(slices) => slices,
    };
    let of_service = slices.iter().filter(|slice| {
        let label = slice.pointer("/metadata/labels/kubernetes.io~1service-name").and_then(Value::as_str);
        let namespace = slice.pointer("/metadata/namespace").and_then(Value::as_str);
        label == Some(&service.name) && namespace == Some(&service.namespace)
    });
    let endpoints: Vec<_> =
        of_service.filter_map(|slice| slice.get("endpoints")?.as_array()).flatten().collect();
    let is_ready =
        |endpoint: &&&Value| endpoint.pointer("/conditions/ready").and_then(Value::as_bool).unwrap_or(true);
    let ready = endpoints.iter().filter(is_ready).count();
    if ready > 0 {
        return Finding::passed(format!("{label} has ready endpoints: {ready} of {}", endpoints.len()));
    }
    Finding::failed(
        format!("{label} has no ready endpoint: pods that it selects are refused or created unchanged"),
        endpoints_hint(configuration, service, cluster),
    )
}

fn endpoints_hint(configuration: &Value, service: &Service, cluster: &Snapshot) -> String {
    let namespace = &service.namespace;
    let program = program(configuration);
    let deployment = cluster.deployments.found().iter().find(|deployment| {
        let of = |object: &Value| object.pointer("/metadata/labels/app.kubernetes.io~1instance").cloned();
        self::program(deployment) == program && of(deployment) == of(configuration)
    });
    if let Some(deployment) = deployment
        && deployment.pointer("/spec/replicas").and_then(Value::as_u64) == Some(0)
    {
        let name = name(deployment).unwrap_or_default();
        return format!(
            "The Deployment has no replicas:\nkubectl scale deployment {name} --namespace {namespace} --replicas=2"
        );
    }
    format!(
        "A pod that is not ready has the reason in its events:\nkubectl describe pods --show-events --namespace {namespace} --selector \
         app.kubernetes.io/name={program},app.kubernetes.io/component=webhook"
    )
}
