//! The flags for the serving certificate.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use kube::Client;
use rustls::server::danger::ClientCertVerifier;
use thiserror::Error;

use super::client_ca::{ClientCa, ClientCaError};
use super::files::{self, CertificateFiles};
use super::self_managed::{CertificateController, CertificateStore, Lifetimes, WebhookService};
use super::{ServingCertificate, TlsProfile, TlsProfileError};
use podshaper_core::duration;
use podshaper_kube::client;

/// The source of the serving certificate, files or a self-managed Secret, and its TLS profile.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Certificates")]
pub struct CertificateArgs {
    /// Directory with tls.crt, tls.key and, optionally, ca.crt; changed files are read again
    #[arg(
        long,
        value_name = "DIRECTORY",
        env = "PODSHAPER_CERT_DIR",
        default_value = "/tmp/k8s-webhook-server/serving-certs",
        conflicts_with = "self_managed_secret"
    )]
    cert_dir: PathBuf,

    /// Time from trusting a new CA to serving its first certificate, so that every API server trusts the CA by then
    #[arg(long, value_name = "DURATION", env = "PODSHAPER_CERT_HOLD", default_value = "60s", value_parser = duration::parse)]
    cert_hold: Duration,

    /// Secret for a self-managed CA and certificate, instead of --cert-dir
    #[arg(
        long,
        value_name = "NAME",
        env = "PODSHAPER_SELF_MANAGED_SECRET",
        requires_all = ["webhook_configuration", "service_name", "namespace"]
    )]
    self_managed_secret: Option<String>,

    /// MutatingWebhookConfiguration that trusts the self-managed CA in its caBundles
    #[arg(
        long,
        value_name = "NAME",
        env = "PODSHAPER_WEBHOOK_CONFIGURATION",
        requires = "self_managed_secret"
    )]
    webhook_configuration: Option<String>,

    /// Service that the API server calls; the self-managed certificate is issued for it
    #[arg(long, value_name = "NAME", env = "PODSHAPER_SERVICE_NAME", requires = "self_managed_secret")]
    service_name: Option<String>,

    /// Namespace of the Secret and the Service
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE")]
    namespace: Option<String>,

    /// Lifetime of a self-managed certificate; two thirds into it, the certificate is renewed
    #[arg(long, value_name = "DURATION", env = "PODSHAPER_LEAF_LIFETIME", default_value = "90d", value_parser = duration::parse)]
    leaf_lifetime: Duration,

    /// Lifetime of a self-managed CA; two thirds into it, the CA is replaced
    #[arg(long, value_name = "DURATION", env = "PODSHAPER_CA_LIFETIME", default_value = "365d", value_parser = duration::parse)]
    ca_lifetime: Duration,

    /// File with the CAs, as PEM, that issue the client certificates of the API servers; other clients are refused. A changed file is read
    /// again
    #[arg(long, value_name = "FILE", env = "PODSHAPER_CLIENT_CA")]
    client_ca: Option<PathBuf>,

    /// Minimum TLS version: `VersionTLS12` or `VersionTLS13`
    #[arg(long, value_name = "VERSION", env = "TLS_MIN_VERSION", default_value = "", hide = true)]
    tls_min_version: String,

    /// TLS 1.2 cipher suites, as a comma-separated list of IANA names
    #[arg(long, value_name = "NAMES", env = "TLS_CIPHER_SUITES", default_value = "", hide = true)]
    tls_cipher_suites: String,
}

/// An error that prevents the start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The durations don't leave time for a rotation.
    #[error("{0}")]
    Lifetimes(&'static str),
    /// The API server can't be reached.
    #[error("can't make a client of the Kubernetes API: {0}")]
    Client(#[from] client::Error),
}

impl CertificateArgs {
    /// Parses the TLS versions and cipher suites.
    pub fn tls_profile(&self) -> Result<TlsProfile, TlsProfileError> {
        TlsProfile::parse(&self.tls_min_version, &self.tls_cipher_suites)
    }

    /// Checks that the durations of a self-managed certificate leave time for a rotation.
    pub fn check_lifetimes(&self) -> Result<(), StartError> {
        if self.self_managed_secret.is_some() { self.lifetimes().map(drop) } else { Ok(()) }
    }

    fn lifetimes(&self) -> Result<Lifetimes, StartError> {
        Lifetimes::new(self.cert_hold, self.leaf_lifetime, self.ca_lifetime).map_err(StartError::Lifetimes)
    }

    /// Starts the verification of clients, if there is a CA for it, on a task that ends with the runtime.
    pub fn client_verifier(&self) -> Result<Option<Arc<dyn ClientCertVerifier>>, ClientCaError> {
        let Some(path) = &self.client_ca else { return Ok(None) };
        let ca = ClientCa::read(path.clone())?;
        tokio::spawn(Arc::clone(&ca).run());
        Ok(Some(ca))
    }

    /// Starts the source of certificates, on a task that ends with the runtime.
    ///
    /// Files are read before this returns. The first self-managed certificate comes later: see
    /// [`ServingCertificate::loaded`]. `client` is called only for a self-managed certificate.
    pub fn start(
        self,
        client: impl FnOnce() -> Result<Client, client::Error>,
    ) -> Result<Arc<ServingCertificate>, StartError> {
        let serving = ServingCertificate::new();
        let lifetimes = self.lifetimes();
        let names = (self.self_managed_secret, self.webhook_configuration, self.service_name, self.namespace);
        if let (Some(secret), Some(configuration), Some(service), Some(namespace)) = names {
            let lifetimes = lifetimes?;
            let store = CertificateStore::new(client()?, &namespace, secret, configuration);
            let service = WebhookService::new(service, namespace);
            let controller = CertificateController::new(store, service, lifetimes, Arc::clone(&serving));
            tokio::spawn(controller.run());
        } else {
            let mut files = CertificateFiles::new(self.cert_dir, self.cert_hold, Arc::clone(&serving));
            files.poll();
            tokio::spawn(files.run(files::POLL_INTERVAL));
        }
        Ok(serving)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        certificates: CertificateArgs,
    }

    fn parse(line: &str) -> Result<CertificateArgs, String> {
        let words = ["webhook"].into_iter().chain(line.split_whitespace());
        Command::try_parse_from(words).map(|command| command.certificates).map_err(|e| e.to_string())
    }

    const SELF_MANAGED: &str =
        "--self-managed-secret s --webhook-configuration c --service-name n --namespace ns";

    const DAY: Duration = Duration::from_hours(24);

    #[test]
    fn default_source_is_files() {
        let args = parse("").unwrap();
        assert_eq!(args.cert_dir, PathBuf::from("/tmp/k8s-webhook-server/serving-certs"));
        assert_eq!(args.cert_hold, Duration::from_mins(1));
        assert_eq!((args.leaf_lifetime, args.ca_lifetime), (90 * DAY, 365 * DAY));
    }

    #[test]
    fn invalid_duration_is_an_error_that_names_the_flag() {
        let hold = |text: &str| parse(&format!("--cert-hold={text}")).map(|args| args.cert_hold);
        assert_eq!(hold("1h30m"), Ok(Duration::from_mins(90)));
        assert_eq!(hold("90d"), Ok(90 * DAY));
        assert_eq!(hold("1500ms"), Ok(Duration::from_millis(1500)));
        for wrong in ["", "soon", "60", "-1s", "1y", "2mo"] {
            let error = parse(&format!("--cert-hold={wrong}")).unwrap_err();
            assert!(error.contains("--cert-hold"), "{error}");
        }
    }

    #[test]
    fn incompatible_flags_are_an_error_that_names_them() {
        parse(SELF_MANAGED).unwrap();
        for (line, named) in [
            ("--self-managed-secret s", "--webhook-configuration"),
            ("--service-name n", "--self-managed-secret"),
            (&format!("{SELF_MANAGED} --cert-dir d"), "--cert-dir"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(named), "{line}: {error}");
        }
    }

    #[test]
    fn lifetimes_too_short_for_a_rotation_are_an_error() {
        for times in ["--ca-lifetime 30d", "--ca-lifetime 2m --leaf-lifetime 1m", "--leaf-lifetime 1s"] {
            let args = parse(&format!("{SELF_MANAGED} {times}")).unwrap();
            let client = || unreachable!("rejected before");
            assert!(matches!(args.check_lifetimes(), Err(StartError::Lifetimes(_))), "{times}");
            assert!(matches!(args.start(client), Err(StartError::Lifetimes(_))), "{times}");
        }
    }
}
