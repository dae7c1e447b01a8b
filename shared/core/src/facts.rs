//! Facts: objects of files, which take the place of those that a watch delivers.
//!
//! Both go through one [`FromObject`], so that an offline command decides as the server does.

use serde::Deserialize;
use serde_json::Value;

use crate::object::{FromObject, Object, OwnerReference, group_of};

/// The namespace of objects without one, as for `kubectl`.
pub const DEFAULT_NAMESPACE: &str = "default";

/// An object of a file.
#[derive(Clone, Copy, Debug)]
pub struct Fact<'v>(&'v Value);

/// The namespace and the name of an object. The namespace counts only if the kind has namespaces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FactKey {
    /// `metadata.namespace`, or `default`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

/// A fact that can't be parsed as its kind.
#[derive(Debug, thiserror::Error)]
#[error("{kind} {name}: {error}")]
pub struct FactError {
    kind: String,
    name: String,
    error: serde_json::Error,
}

impl<'v> Fact<'v> {
    /// The fact that a document is; `None` if it has no metadata, and thus is not an object of the API server.
    pub fn new(document: &'v Value) -> Option<Self> {
        document.get("metadata").is_some_and(Value::is_object).then_some(Self(document))
    }

    /// The object as JSON.
    pub fn object(self) -> &'v Value {
        self.0
    }

    /// Whether the object is of this kind, in any version of its group.
    pub fn is_kind(self, group: &str, kind: &str) -> bool {
        group_of(self.text("/apiVersion")) == group && self.text("/kind") == kind
    }

    /// A reference to the object.
    pub fn reference(self) -> OwnerReference {
        let name = self.text("/metadata/name");
        OwnerReference::new(self.text("/apiVersion"), self.text("/kind"), name, self.text("/metadata/uid"))
    }

    /// The object's key.
    pub fn key(self) -> FactKey {
        let namespace = match self.text("/metadata/namespace") {
            "" => DEFAULT_NAMESPACE,
            namespace => namespace,
        };
        FactKey { namespace: namespace.to_owned(), name: self.text("/metadata/name").to_owned() }
    }

    /// Parses the object.
    pub fn parse<S, T>(self) -> Result<Object<S, T>, FactError>
    where
        Object<S, T>: Deserialize<'v>,
    {
        let mut object = Object::deserialize(self.0).map_err(|error| FactError {
            kind: self.text("/kind").to_owned(),
            name: self.text("/metadata/name").to_owned(),
            error,
        })?;
        object.metadata.namespace = Some(self.key().namespace);
        Ok(object)
    }

    /// Parses and projects the object, as a watch does; `None` if it is of no interest.
    pub fn project<O: FromObject>(self) -> Result<Option<(FactKey, O)>, FactError> {
        Ok(O::from_object(self.parse()?).map(|object| (self.key(), object)))
    }

    fn text(self, pointer: &str) -> &'v str {
        self.0.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn document_without_metadata_is_no_fact() {
        for document in [json!(null), json!([]), json!({}), json!({"kind": "Pod", "metadata": "x"})] {
            assert!(Fact::new(&document).is_none(), "{document}");
        }
    }

    #[test]
    fn kind_is_matched_in_any_version() {
        let document = json!({"apiVersion": "apps/v1beta1", "kind": "DaemonSet", "metadata": {}});
        let fact = Fact::new(&document).unwrap();
        assert!(fact.is_kind("apps", "DaemonSet"));
        assert!(!fact.is_kind("", "DaemonSet") && !fact.is_kind("apps", "Deployment"));
    }

    #[test]
    fn parse_error_names_the_object() {
        let document = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a", "labels": 3}});
        let error = Fact::new(&document).unwrap().parse::<Value, Value>().unwrap_err().to_string();
        assert!(error.starts_with("Node a: invalid type: integer `3`"), "{error}");
    }
}
