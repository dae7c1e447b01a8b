//! A namespace, as far as selectors depend on it.

use podshaper_core::object::{FromObject, Object};
use serde::de::IgnoredAny;

/// The labels of a namespace, without that of its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    labels: Box<[(Box<str>, Box<str>)]>,
}

impl Namespace {
    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(own, _)| **own == *key).map(|(_, value)| &**value)
    }
}

impl FromObject for Namespace {
    type Spec = IgnoredAny;
    type Status = IgnoredAny;
    const PLURAL: &'static str = "namespaces";
    const API: &'static str = "/api/v1";

    fn from_object(object: Object<IgnoredAny, IgnoredAny>) -> Option<Self> {
        let labels = object.metadata.labels.unwrap_or_default().into_iter();
        let labels = labels.filter(|(key, _)| key != "kubernetes.io/metadata.name");
        Some(Self { labels: labels.map(|(key, value)| (key.into(), value.into())).collect() })
    }
}
