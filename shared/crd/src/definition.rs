//! The object of `apiextensions.k8s.io/v1` around the schemas of one kind.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use crate::schema::structural_schema;

/// A kind with one version, which is served and stored, and a status subresource.
#[derive(Debug)]
pub struct CustomResource {
    /// API group and version, such as `podshaper.dev/v1alpha1`.
    pub api_version: &'static str,
    /// Whether objects belong to a namespace.
    pub scope: ResourceScope,
    /// The kind, such as `PodDistributor`.
    pub kind: &'static str,
    /// The plural, such as `poddistributors`.
    pub plural: &'static str,
    /// Short names, such as `pd`.
    pub short_names: &'static [&'static str],
    /// Description of the kind.
    pub description: &'static str,
    /// Columns of `kubectl get` between the name and the age.
    pub columns: &'static [PrinterColumn],
    /// Whether the API server rejects an object without a `spec`.
    pub requires_spec: bool,
}

/// `spec.scope`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the API's own words")]
pub enum ResourceScope {
    Cluster,
    Namespaced,
}

/// Title, type and JSON path of a column.
pub type PrinterColumn = (&'static str, &'static str, &'static str);

const AGE: PrinterColumn = ("Age", "date", ".metadata.creationTimestamp");

impl CustomResource {
    /// The `CustomResourceDefinition`, with the schemas of these types.
    pub fn definition<Spec: JsonSchema, Status: JsonSchema>(&self) -> Value {
        let Self { kind, plural, .. } = self;
        let (group, version) = self.api_version.split_once('/').unwrap_or_default();
        let mut names = json!({
            "kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": kind.to_lowercase(),
            "categories": ["podshaper"],
        });
        insert_list(&mut names, "shortNames", self.short_names);
        let columns = self.columns.iter().chain([&AGE]);
        let columns: Vec<Value> =
            columns.map(|(name, kind, path)| json!({"name": name, "type": kind, "jsonPath": path})).collect();
        let mut schema = json!({
            "description": self.description,
            "type": "object",
            "properties": {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": {"type": "object"},
                "spec": structural_schema::<Spec>(),
                "status": structural_schema::<Status>(),
            },
        });
        insert_list(&mut schema, "required", if self.requires_spec { &["spec"] } else { &[] });
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{group}")},
            "spec": {
                "group": group,
                "scope": self.scope,
                "names": names,
                "versions": [{
                    "name": version,
                    "served": true,
                    "storage": true,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": columns,
                    "schema": {"openAPIV3Schema": schema},
                }],
            },
        })
    }
}

/// Adds a list to an object, unless it is empty.
fn insert_list(object: &mut Value, key: &str, list: &[&str]) {
    if let (Value::Object(object), false) = (object, list.is_empty()) {
        object.insert(key.to_owned(), json!(list));
    }
}
