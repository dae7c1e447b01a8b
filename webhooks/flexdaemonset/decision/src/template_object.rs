//! A `FlexDaemonsetTemplate` object.

use podshaper_core::object::{FromObject, Object};
use serde::Deserialize;
use serde_json::Value;

use crate::rules::{Template, TemplateError};
use crate::template::TemplateStatus;

/// A template object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateObject {
    /// `metadata.uid`.
    pub uid: Box<str>,
    /// `metadata.generation`.
    pub generation: i64,
    /// The parsed `spec`.
    pub rules: Result<Template, TemplateError>,
    /// Its `status`.
    pub status: TemplateStatus,
}

impl FromObject for TemplateObject {
    type Spec = Value;
    type Status = Value;
    const PLURAL: &'static str = crate::template::PLURAL;
    const API: &'static str = "/apis/flexdaemonsets.xai/v1alpha1";

    fn from_object(object: Object<Value, Value>) -> Option<Self> {
        Some(Self {
            uid: object.metadata.uid.into(),
            generation: object.metadata.generation,
            rules: Template::from_spec(&object.spec.unwrap_or_default()),
            // A status that doesn't parse, as of another version, is replaced.
            status: TemplateStatus::deserialize(object.status.unwrap_or_default()).unwrap_or_default(),
        })
    }
}
