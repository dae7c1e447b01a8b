//! What a look-up of an object found.

use std::sync::Arc;

/// An object that a decision needs.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<T> {
    /// Here it is.
    Object(Arc<T>),
    /// There is none.
    Nothing,
    /// Whether there is one couldn't be told in time.
    Unknown,
}

impl<T> Found<T> {
    /// The object, if it was found.
    pub fn object(self) -> Option<Arc<T>> {
        match self {
            Self::Object(object) => Some(object),
            Self::Nothing | Self::Unknown => None,
        }
    }
}

impl<T> From<Option<Arc<T>>> for Found<T> {
    fn from(object: Option<Arc<T>>) -> Self {
        object.map_or(Self::Nothing, Self::Object)
    }
}
