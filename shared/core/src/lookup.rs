//! The result of looking one object up.

use std::sync::Arc;

/// The object, or why there is none.
#[derive(Debug, PartialEq, Eq)]
pub enum Lookup<T> {
    /// The object exists.
    Found(Arc<T>),
    /// The API server has no such object.
    NotFound,
    /// The API server refuses the read (403).
    Forbidden,
    /// The API server did not answer in time, or with an error.
    Unavailable,
}

impl<T> Lookup<T> {
    /// The object, if there is one.
    pub fn found(self) -> Option<Arc<T>> {
        match self {
            Self::Found(object) => Some(object),
            Self::NotFound | Self::Forbidden | Self::Unavailable => None,
        }
    }
}

// Derived, it would ask for `T: Clone`.
impl<T> Clone for Lookup<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Found(object) => Self::Found(Arc::clone(object)),
            Self::NotFound => Self::NotFound,
            Self::Forbidden => Self::Forbidden,
            Self::Unavailable => Self::Unavailable,
        }
    }
}

impl<T> From<Option<Arc<T>>> for Lookup<T> {
    fn from(object: Option<Arc<T>>) -> Self {
        object.map_or(Self::NotFound, Self::Found)
    }
}
