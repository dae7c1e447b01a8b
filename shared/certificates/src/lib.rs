//! The serving certificate: from files (`files`) or kept by the webhook itself (`self_managed`), replaced while it
//! is served, and the TLS versions and suites that go with it ([`Profile`]).
#![forbid(unsafe_code)]

mod args;
mod certificate;
mod files;
mod profile;
mod self_managed;
mod serving;
mod standing;

pub use args::{CertificateArgs, StartError};
pub use profile::{Profile, ProfileError};
pub use serving::{Facts, Serving};
