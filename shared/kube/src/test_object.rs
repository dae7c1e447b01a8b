//! A kind for the tests of this crate.

use podshaper_core::object::{FromObject, Object};
use serde::de::IgnoredAny;

/// Its spec is a number, of no interest if it is zero.
#[derive(Debug, PartialEq)]
pub(crate) struct Thing(pub(crate) u32);

impl FromObject for Thing {
    type Spec = u32;
    type Status = IgnoredAny;
    const PLURAL: &'static str = "things";
    const API: &'static str = "/apis/x/v1";

    fn from_object(object: Object<u32, IgnoredAny>) -> Option<Self> {
        object.spec.filter(|spec| *spec > 0).map(Self)
    }
}
