//! Commands that repair an installation, for hints.

use serde_json::Value;

use super::webhook::service;

const CHART: &str = "oci://ghcr.io/podshaper/charts/podshaper";

/// `helm upgrade` of the release of an object, with the values that it has and these options.
pub(super) fn helm_upgrade(configuration: &Value, options: &str) -> String {
    let label = |name: &str| {
        let labels = configuration.pointer("/metadata/labels").and_then(|labels| labels.get(name));
        labels.and_then(Value::as_str)
    };
    let release = label("app.kubernetes.io/instance").unwrap_or("RELEASE");
    let namespace =
        service(configuration).map_or_else(|| "NAMESPACE".to_owned(), |service| service.namespace);
    let version = label("app.kubernetes.io/version").map(|version| format!(" --version {version}"));
    let version = version.unwrap_or_default();
    let options = if options.is_empty() { String::new() } else { format!(" {options}") };
    format!("helm upgrade {release} {CHART}{version} --namespace {namespace} --reuse-values{options}")
}
