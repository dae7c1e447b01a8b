//! A `CustomResourceDefinition`, around what is its kind's own.
#![forbid(unsafe_code)]

use serde_json::{Value, json};

/// One kind, of one version that is served and stored, with a status.
#[derive(Debug)]
pub struct Definition<'a> {
    /// API group and version, as in `podshaper.dev/v1alpha1`.
    pub api_version: &'a str,
    /// `Cluster` or `Namespaced`.
    pub scope: &'a str,
    /// Its name, as in `PodDistributor`.
    pub kind: &'a str,
    /// As in `poddistributors`.
    pub plural: &'a str,
    /// What it may be called at the command line besides.
    pub short_names: &'a [&'a str],
    /// What it is for.
    pub description: &'a str,
    /// What `kubectl get` shows of each before its age: title, type and JSON path.
    pub columns: &'a [(&'a str, &'a str, &'a str)],
    /// Whether an object without a `spec` is refused.
    pub needs_spec: bool,
    /// The schema of `spec`.
    pub spec: Value,
    /// The schema of `status`.
    pub status: Value,
}

impl Definition<'_> {
    /// The object of `apiextensions.k8s.io/v1`.
    pub fn into_object(self) -> Value {
        let Self { kind, plural, scope, short_names, description, .. } = self;
        let (group, version) = self.api_version.split_once('/').unwrap_or_default();
        let mut names = json!({
            "kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": kind.to_lowercase(),
            "categories": ["podshaper"],
        });
        if !short_names.is_empty() {
            insert(&mut names, "shortNames", json!(short_names));
        }
        let age = ("Age", "date", ".metadata.creationTimestamp");
        let columns = self.columns.iter().chain([&age]);
        let column =
            |(name, kind, path): &(&str, &str, &str)| json!({"name": name, "type": kind, "jsonPath": path});
        let mut schema = json!({
            "description": description,
            "type": "object",
            "properties": {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": {"type": "object"},
                "spec": self.spec,
                "status": self.status,
            },
        });
        if self.needs_spec {
            insert(&mut schema, "required", json!(["spec"]));
        }
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{group}")},
            "spec": {
                "group": group,
                "scope": scope,
                "names": names,
                "versions": [{
                    "name": version,
                    "served": true,
                    "storage": true,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": columns.map(column).collect::<Vec<_>>(),
                    "schema": {"openAPIV3Schema": schema},
                }],
            },
        })
    }
}

/// A rule in CEL, and what is said where it doesn't hold.
pub fn rule(rule: &str, message: &str) -> Value {
    json!({"rule": rule, "message": message})
}

/// The same of the field at this path, as in `.max`.
pub fn rule_of(rule: &str, message: &str, field: &str) -> Value {
    json!({"rule": rule, "message": message, "fieldPath": field})
}

/// The schema of conditions (`metav1.Condition`) of these types; `told` says what each means.
pub fn conditions(types: &str, told: &str) -> Value {
    json!({
        "type": "array",
        "description": told,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {"type": "string", "description": types},
                "status": {
                    "type": "string", "enum": ["True", "False", "Unknown"], "description": "Whether that holds now",
                },
                "observedGeneration": {
                    "type": "integer", "format": "int64",
                    "description": "metadata.generation of the object that this is about",
                },
                "lastTransitionTime": {
                    "type": "string", "format": "date-time", "description": "Since when it has had this status",
                },
                "reason": {"type": "string", "description": "Why, in one word for programs"},
                "message": {"type": "string", "description": "Why, for people"},
            },
        },
    })
}

fn insert(object: &mut Value, key: &str, value: Value) {
    if let Value::Object(object) = object {
        object.insert(key.to_owned(), value);
    }
}
