//! Serving certificates, read from files or self-managed in a Secret, and the TLS profile that they are served with.
#![forbid(unsafe_code)]

mod args;
mod ca_hold;
pub mod certificate;
mod client_ca;
mod files;
mod self_managed;
mod serving_certificate;
mod tls_profile;

pub use args::{CertificateArgs, StartError};
pub use client_ca::ClientCaError;
pub use serving_certificate::ServingCertificate;
pub use tls_profile::{TlsProfile, TlsProfileError};
