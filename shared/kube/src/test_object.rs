//! A kind for tests.

use podshaper_core::object::{FromObject, Object};
use serde::de::IgnoredAny;

/// The spec is a number. An object with the number 0 has no projection.
#[derive(Debug, PartialEq)]
pub(crate) struct TestObject(pub(crate) u32);

impl FromObject for TestObject {
    type Spec = u32;
    type Status = IgnoredAny;
    const PLURAL: &'static str = "things";
    const API: &'static str = "/apis/x/v1";

    fn from_object(object: Object<u32, IgnoredAny>) -> Option<Self> {
        object.spec.filter(|spec| *spec > 0).map(Self)
    }
}
