//! The types that decisions use: admission reviews, the pod, patches that always apply, objects, quantities. Nothing here does I/O.
#![forbid(unsafe_code)]

pub mod admission;
pub mod duration;
pub mod facts;
pub mod json;
pub mod label;
pub mod object;
pub mod patch;
pub mod pod;
pub mod quantity;
pub mod selector;
pub mod workload;
