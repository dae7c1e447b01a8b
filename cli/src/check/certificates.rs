//! The CA bundle of a webhook configuration, and the certificate that the webhook serves.

use std::collections::BTreeSet;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::finding::Finding;
use super::hints::helm_upgrade;
use super::snapshot::{Read, Snapshot};
use super::webhook::{name, program, service};

/// A certificate that expires sooner gets a warning. All modes renew long before.
const SOON_DAYS: i64 = 14;

/// The Secrets with serving certificates that Deployments name, as `NAMESPACE/NAME`.
pub(super) fn secrets(deployments: &[Value]) -> BTreeSet<String> {
    let names = deployments.iter().filter_map(|deployment| {
        let namespace = deployment.pointer("/metadata/namespace")?.as_str()?;
        Some(format!("{namespace}/{}", secret_of(deployment)?))
    });
    names.collect()
}

/// The Secret that a Deployment of a webhook serves from: of an argument with self-managed certificates, of a volume otherwise.
fn secret_of(deployment: &Value) -> Option<&str> {
    if deployment.pointer("/metadata/labels/app.kubernetes.io~1part-of")?.as_str()? != "podshaper" {
        return None;
    }
    self_managed_secret(deployment).or_else(|| {
        let volumes = deployment.pointer("/spec/template/spec/volumes")?.as_array()?;
        volumes.iter().find_map(|volume| {
            let name = volume.get("name")?.as_str()?;
            if !name.contains("cert") && !name.contains("tls") {
                return None;
            }
            volume.pointer("/secret/secretName")?.as_str()
        })
    })
}

fn self_managed_secret(deployment: &Value) -> Option<&str> {
    let arguments = deployment.pointer("/spec/template/spec/containers/0/args")?.as_array()?;
    arguments.iter().find_map(|text| text.as_str()?.strip_prefix("--self-managed-secret="))
}

/// Checks the bundle by itself, and the served certificate by the bundle.
pub(super) fn check(configuration: &Value, cluster: &Snapshot, now: SystemTime) -> Vec<Finding> {
    let label = name(configuration).unwrap_or_default();
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed());
    let bundle = configuration.pointer("/webhooks/0/clientConfig/caBundle").and_then(Value::as_str);
    let bundle = bundle.and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
    let authorities: Vec<Pem> = Pem::iter_from_buffer(&bundle).filter_map(Result::ok).collect();
    let source = Source::of(configuration, cluster);
    let hint = source.bundle_hint(configuration);
    if authorities.is_empty() {
        return vec![Finding::failed(
            format!("{label} has no CA in its caBundle: the API server trusts no certificate"),
            hint,
        )];
    }
    let mut findings = vec![age(&format!("the CA of {label}"), &authorities, now, &hint, Last::Counts)];
    findings.push(serving(configuration, &authorities, cluster, now, &source));
    findings
}

/// The source of the certificates, `tls.mode` of the chart.
enum Source<'c> {
    SelfManaged { secret: &'c str },
    CertManager,
    ExistingSecret { secret: &'c str },
}

impl<'c> Source<'c> {
    fn of(configuration: &Value, cluster: &'c Snapshot) -> Self {
        let annotations = configuration.pointer("/metadata/annotations");
        if annotations.and_then(|all| all.get("cert-manager.io/inject-ca-from")).is_some() {
            return Self::CertManager;
        }
        let mut deployments = cluster.deployments.found().iter();
        let deployment = deployments.find(|deployment| is_of(deployment, configuration));
        match deployment.map(|deployment| (self_managed_secret(deployment), secret_of(deployment))) {
            Some((None, Some(secret))) => Self::ExistingSecret { secret },
            Some((Some(secret), _)) => Self::SelfManaged { secret },
            // The Deployment may not be readable: this is the default of the chart.
            _ => Self::SelfManaged { secret: "RELEASE-WEBHOOK-self-managed" },
        }
    }

    /// How to get a bundle with the CA of the serving certificate.
    fn bundle_hint(&self, configuration: &Value) -> String {
        let namespace = service(configuration).map(|service| service.namespace).unwrap_or_default();
        match self {
            Self::CertManager => format!(
                "cert-manager's cainjector fills the caBundle:\nkubectl get certificate,certificaterequest --namespace {namespace}"
            ),
            Self::SelfManaged { .. } => format!(
                "The webhook fills the caBundle within seconds; its log says why not:\nkubectl logs --namespace {namespace} \
                 --selector app.kubernetes.io/name={}",
                program(configuration)
            ),
            Self::ExistingSecret { secret } => format!(
                "Set tls.existingSecret.caBundle to the CA that signed the certificate, for example to ca.crt of the Secret:\n\
                 kubectl get secret {secret} --namespace {namespace} --output 'jsonpath={{.data.ca\\.crt}}' | base64 --decode > ca.crt\n{}",
                helm_upgrade(configuration, "--set-file tls.existingSecret.caBundle=ca.crt")
            ),
        }
    }

    /// How to get a serving certificate that is valid.
    fn certificate_hint(&self, configuration: &Value) -> String {
        let Some(service) = service(configuration) else { return String::new() };
        let namespace = &service.namespace;
        let name = &service.name;
        match self {
            Self::CertManager => format!(
                "cert-manager issues the certificate:\nkubectl get certificate,certificaterequest --namespace {namespace}"
            ),
            Self::SelfManaged { secret } => format!(
                "The webhook issues the certificate; this has it issue a new one, and its log says why not:\n\
                 kubectl annotate secret {secret} --namespace {namespace} podshaper.dev/rotate=leaf\n\
                 kubectl logs --namespace {namespace} --selector app.kubernetes.io/name={}",
                program(configuration)
            ),
            Self::ExistingSecret { secret } => format!(
                "Replace the certificate by one for {name}.{namespace}.svc of a CA in the caBundle; the webhook reads it within a minute:\n\
                 kubectl create secret tls {secret} --namespace {namespace} --cert=tls.crt --key=tls.key --dry-run=client --output=yaml | \
                 kubectl apply --server-side --force-conflicts --filename -"
            ),
        }
    }
}

/// Which certificate of several decides about the age.
#[derive(Clone, Copy)]
enum Last {
    /// The one that expires last: a bundle may keep expired CAs.
    Counts,
    /// The one that expires first: every certificate of a chain must be valid.
    DoesNotCount,
}

fn age(subject: &str, certificates: &[Pem], now: i64, hint: &str, last: Last) -> Finding {
    let ends =
        certificates.iter().filter_map(|pem| Some(pem.parse_x509().ok()?.validity().not_after.timestamp()));
    let end = match last {
        Last::Counts => ends.max(),
        Last::DoesNotCount => ends.min(),
    };
    let Some(end) = end else {
        return Finding::failed(format!("{subject} is no valid certificate"), hint);
    };
    let days = (end - now).div_euclid(24 * 60 * 60);
    if end <= now {
        return Finding::failed(format!("{subject} expired {} days ago", -days), hint);
    }
    if days < SOON_DAYS {
        return Finding::warning(format!("{subject} expires in {days} days"), hint);
    }
    Finding::passed(format!("{subject} is valid for {days} days"))
}

/// The certificate in the Secret of the webhook.
fn serving(
    configuration: &Value,
    authorities: &[Pem],
    cluster: &Snapshot,
    now: i64,
    source: &Source<'_>,
) -> Finding {
    let label = name(configuration).unwrap_or_default();
    let hint = &source.certificate_hint(configuration);
    let subject = format!("the serving certificate of {label}");
    let deployment = match &cluster.deployments {
        Read::Hidden(reason) => return Finding::skipped(&subject, reason),
        Read::Found(all) => all.iter().find(|deployment| is_of(deployment, configuration)),
    };
    let Some(deployment) = deployment else {
        return Finding::failed(format!("{label} has no Deployment"), helm_upgrade(configuration, ""));
    };
    let namespace = deployment.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
    let Some(secret) = secret_of(deployment) else {
        return Finding::skipped(&subject, "its Deployment names no Secret");
    };
    let object = match cluster.secrets.get(&format!("{namespace}/{secret}")) {
        Some(Read::Found(Some(object))) => object,
        Some(Read::Hidden(reason)) => return Finding::skipped(&subject, reason),
        _ => {
            return Finding::failed(
                format!("{subject}: the Secret {namespace}/{secret} does not exist"),
                hint,
            );
        }
    };
    let chain = object.pointer("/data/tls.crt").and_then(Value::as_str);
    let chain = chain.and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
    let chain: Vec<Pem> = Pem::iter_from_buffer(&chain).filter_map(Result::ok).collect();
    let aged = age(&subject, &chain, now, hint, Last::DoesNotCount);
    if aged.level == super::Level::Failed || is_trusted(&chain, authorities) {
        return aged;
    }
    Finding::failed(
        format!("{subject} is not of a CA in the caBundle: every call fails"),
        source.bundle_hint(configuration),
    )
}

fn is_of(deployment: &Value, configuration: &Value) -> bool {
    let same = |pointer: &str| {
        deployment.pointer(pointer).is_some() && deployment.pointer(pointer) == configuration.pointer(pointer)
    };
    same("/metadata/labels/app.kubernetes.io~1name")
        && same("/metadata/labels/app.kubernetes.io~1instance")
        && same("/metadata/labels/app.kubernetes.io~1component")
}

/// Whether a CA of the bundle signed a certificate of the chain, or is one itself (RFC 5280 section 6.1: the first certificate is
/// signed by the trust anchor).
fn is_trusted(chain: &[Pem], authorities: &[Pem]) -> bool {
    chain.iter().any(|pem| {
        authorities.iter().any(|authority| {
            if pem.contents == authority.contents {
                return true;
            }
            let (Ok((_, certificate)), Ok((_, authority))) =
                (X509Certificate::from_der(&pem.contents), X509Certificate::from_der(&authority.contents))
            else {
                return false;
            };
            certificate.verify_signature(Some(authority.public_key())).is_ok()
        })
    })
}
