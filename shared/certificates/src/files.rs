//! Certificates from a directory with `tls.crt`, `tls.key` and, optionally, `ca.crt`.
//!
//! The kubelet and cert-manager replace these files while the server runs, and a leaf of a new CA may arrive before the API
//! server trusts that CA. Therefore:
//!
//! - The content is polled. The kubelet swaps a symlink above the files, which a watch on the files misses.
//! - An invalid or expired pair is logged and ignored. The last valid pair stays in service.
//! - A leaf of the CA that signed the served leaf is served at once. Any other leaf is served when its CA (the leaf itself,
//!   without `ca.crt`) has been in the files for the hold, or when the served leaf has expired.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::time::{Duration, Instant, sleep};
use tracing::{info, warn};

use super::ServingCertificate;
use super::ca_hold::CaHold;
use super::certificate::{Certificate, format_time, unix_now};

/// The kubelet itself takes up to a minute or so to update a mounted Secret.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_secs(10);
/// The interval until the first certificate is served.
const FIRST_POLL_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) struct CertificateFiles {
    directory: PathBuf,
    hold_period: Duration,
    hold: CaHold,
    serving: Arc<ServingCertificate>,
    served: Option<ServedLeaf>,
    /// The last message that was logged. A message is logged again only after another one.
    logged: String,
}

struct ServedLeaf {
    leaf: Certificate,
    issuers: Vec<Certificate>,
}

/// A certificate that is valid and fits its key.
struct ValidCertificate {
    key: CertifiedKey,
    leaf: Certificate,
    cas: Vec<Certificate>,
}

impl CertificateFiles {
    pub(crate) fn new(directory: PathBuf, hold_period: Duration, serving: Arc<ServingCertificate>) -> Self {
        let hold = CaHold::new(hold_period);
        Self { directory, hold_period, hold, serving, served: None, logged: String::new() }
    }

    /// Polls forever.
    pub(crate) async fn run(mut self, interval: Duration) {
        loop {
            sleep(if self.served.is_some() { interval } else { interval.min(FIRST_POLL_INTERVAL) }).await;
            self.poll();
        }
    }

    /// Reads the files once and serves them if that is safe.
    pub(crate) fn poll(&mut self) {
        let now = unix_now();
        match read(&self.directory, now) {
            Ok(candidate) => {
                self.serving.record_sync(now);
                self.offer(candidate, now, Instant::now());
            }
            Err(problem) => {
                self.serving.record_error();
                let consequence = match self.served {
                    Some(_) => "the last valid pair stays in service",
                    None => "the webhook isn't ready until --cert-dir contains a valid pair",
                };
                self.log_once(format!("{problem}: {consequence}"), |message| warn!("{message}"));
            }
        }
    }

    fn offer(&mut self, candidate: ValidCertificate, now: i64, clock: Instant) {
        let ValidCertificate { key, leaf, cas } = candidate;
        self.hold.observe(cas.iter().chain([&leaf]), clock);
        let issuers: Vec<_> = cas.into_iter().filter(|ca| ca.verifies(&key.cert, None, now)).collect();
        match &self.served {
            Some(served) if served.leaf == leaf => self.logged.clear(),
            Some(served) if !self.may_replace(served, &leaf, &issuers, now, clock) => {
                let message = format!(
                    "a new certificate (expires {}) isn't signed by the CA of the one in service: it is served after {:?}",
                    format_time(leaf.not_after()),
                    self.hold_period
                );
                self.log_once(message, |message| info!("{message}"));
            }
            _ => {
                let expiry = leaf.not_after();
                info!(directory = %self.directory.display(), expires = %format_time(expiry), "serving a certificate");
                let ca_expiry = issuers.iter().map(Certificate::not_after).max();
                self.serving.set(Arc::new(key), expiry, ca_expiry.unwrap_or(0));
                self.served = Some(ServedLeaf { leaf, issuers });
                self.logged.clear();
            }
        }
    }

    fn may_replace(
        &self,
        served: &ServedLeaf,
        leaf: &Certificate,
        issuers: &[Certificate],
        now: i64,
        clock: Instant,
    ) -> bool {
        served.leaf.is_expired(now)
            || issuers.iter().any(|ca| served.issuers.contains(ca))
            || issuers.iter().chain([leaf]).any(|certificate| self.hold.is_over(certificate, clock))
    }

    fn log_once(&mut self, message: String, log: impl FnOnce(&str)) {
        if self.logged != message {
            log(&message);
            self.logged = message;
        }
    }
}

/// Reads one consistent version of the files. The error names the file.
fn read(directory: &Path, now: i64) -> Result<ValidCertificate, String> {
    // In a mounted volume all files of one version are behind this symlink, which changes between two reads.
    let directory = fs::canonicalize(directory.join("..data")).unwrap_or_else(|_| directory.to_owned());
    let path = |name| directory.join(name);
    let crt = path("tls.crt");
    let key = path("tls.key");
    let ca = path("ca.crt");
    let file = |path: &Path| fs::read(path).map_err(|e| format!("{}: {e}", path.display()));

    let chain = Certificate::parse_pem(&file(&crt)?).map_err(|e| format!("{}: {e}", crt.display()))?;
    let leaf = chain.first().ok_or_else(|| format!("{}: contains no certificate", crt.display()))?.clone();
    if leaf.is_expired(now) {
        return Err(format!("{}: expired at {}", crt.display(), format_time(leaf.not_after())));
    }
    let private = PrivateKeyDer::from_pem_slice(&file(&key)?)
        .map_err(|_| format!("{}: contains no private key", key.display()))?;
    let chain = chain.iter().map(|certificate| certificate.der().clone()).collect();
    let certified =
        CertifiedKey::from_der(chain, private, &ring::default_provider()).map_err(|e| match e {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                format!("{}: isn't the key of {}", key.display(), crt.display())
            }
            other => format!("{}: {other}", key.display()),
        })?;
    let cas = match fs::read(&ca) {
        Err(e) if e.kind() == ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(format!("{}: {e}", ca.display())),
        Ok(pem) => Certificate::parse_pem(&pem).map_err(|e| format!("{}: {e}", ca.display()))?,
    };
    Ok(ValidCertificate { key: certified, leaf, cas })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
    use rustls_pki_types::CertificateDer;
    use tempfile::TempDir;

    use super::*;

    const HOLD: Duration = Duration::from_mins(1);

    struct Ca(CertifiedIssuer<'static, KeyPair>);

    /// The files, as PEM.
    #[derive(Clone)]
    struct Content {
        crt: String,
        key: String,
        ca: Option<String>,
    }

    impl Ca {
        fn new(name: &str) -> Self {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
        }

        fn issue(&self) -> Content {
            self.issue_until(2200)
        }

        fn issue_until(&self, year: i32) -> Content {
            let mut params = CertificateParams::new(["a.b.svc".to_owned()]).unwrap();
            params.not_after = date_time_ymd(year, 1, 1);
            let key = KeyPair::generate().unwrap();
            let crt = params.signed_by(&key, &self.0).unwrap().pem();
            Content { crt, key: key.serialize_pem(), ca: Some(self.0.pem()) }
        }
    }

    impl Content {
        fn leaf(&self) -> Vec<u8> {
            CertificateDer::from_pem_slice(self.crt.as_bytes()).unwrap().to_vec()
        }
    }

    /// A volume as the kubelet mounts it: the files are links through `..data`, which is replaced atomically.
    struct Volume {
        directory: TempDir,
        versions: usize,
    }

    impl Volume {
        fn new() -> Self {
            let directory = TempDir::new().unwrap();
            for file in ["tls.crt", "tls.key", "ca.crt"] {
                symlink(Path::new("..data").join(file), directory.path().join(file)).unwrap();
            }
            Self { directory, versions: 0 }
        }

        fn put(&mut self, content: &Content) {
            self.versions += 1;
            let path = |name: &str| self.directory.path().join(name);
            let version = format!("..version_{}", self.versions);
            fs::create_dir(path(&version)).unwrap();
            let files = [
                ("tls.crt", Some(&content.crt)),
                ("tls.key", Some(&content.key)),
                ("ca.crt", content.ca.as_ref()),
            ];
            for (file, text) in files {
                if let Some(text) = text {
                    fs::write(path(&version).join(file), text).unwrap();
                }
            }
            symlink(&version, path("..data_tmp")).unwrap();
            fs::rename(path("..data_tmp"), path("..data")).unwrap();
        }
    }

    fn start(volume: &Volume) -> Arc<ServingCertificate> {
        let serving = ServingCertificate::new();
        let mut files = CertificateFiles::new(volume.directory.path().to_owned(), HOLD, serving.clone());
        files.poll();
        tokio::spawn(files.run(POLL_INTERVAL));
        serving
    }

    /// Whether `content` is served after a poll that is due now.
    async fn serves(serving: &ServingCertificate, content: &Content) -> bool {
        sleep(Duration::from_millis(1)).await;
        serving.leaf() == Some(content.leaf())
    }

    #[tokio::test(start_paused = true)]
    async fn files_are_served_when_start_returns() {
        let mut volume = Volume::new();
        volume.put(&Ca::new("a").issue());
        let serving = start(&volume);
        assert!(serving.is_ready());
        let (leaf_expiry, ca_expiry) = serving.expiries();
        assert!(leaf_expiry > unix_now() && ca_expiry > leaf_expiry);
        assert_eq!((serving.replacements(), serving.errors()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn late_files_are_served_when_they_arrive() {
        let mut volume = Volume::new();
        let serving = start(&volume);
        sleep(HOLD).await;
        assert!(!serving.is_ready() && serving.errors() > 0);
        let content = Ca::new("a").issue();
        volume.put(&content);
        serving.loaded().await;
        assert!(serves(&serving, &content).await && serving.is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn leaf_of_the_same_ca_is_served_at_the_next_poll() {
        let mut volume = Volume::new();
        let ca = Ca::new("a");
        volume.put(&ca.issue());
        let serving = start(&volume);
        let renewed = ca.issue();
        volume.put(&renewed);
        sleep(POLL_INTERVAL).await;
        assert!(serves(&serving, &renewed).await);
        assert_eq!(serving.replacements(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn leaf_of_another_ca_is_served_after_the_hold() {
        for with_ca in [true, false] {
            let mut volume = Volume::new();
            let content =
                |name| Content { ca: Ca::new(name).issue().ca.filter(|_| with_ca), ..Ca::new(name).issue() };
            let old = content("a");
            let new = content("b");
            volume.put(&old);
            let serving = start(&volume);
            volume.put(&new);
            sleep(HOLD).await;
            assert!(serves(&serving, &old).await);
            sleep(POLL_INTERVAL).await;
            assert!(serves(&serving, &new).await);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn leaf_of_a_ca_that_was_added_earlier_is_served_at_the_next_poll() {
        let mut volume = Volume::new();
        let a = Ca::new("a");
        let b = Ca::new("b");
        let both = Some(a.0.pem() + &b.0.pem());
        volume.put(&a.issue());
        let serving = start(&volume);
        volume.put(&Content { ca: both.clone(), ..a.issue() });
        sleep(POLL_INTERVAL + HOLD).await;
        let new = Content { ca: both, ..b.issue() };
        volume.put(&new);
        sleep(POLL_INTERVAL).await;
        assert!(serves(&serving, &new).await);
    }

    #[tokio::test(start_paused = true)]
    async fn invalid_pair_is_named_and_the_last_valid_one_stays() {
        let mut volume = Volume::new();
        let ca = Ca::new("a");
        let good = ca.issue();
        volume.put(&good);
        let serving = start(&volume);
        let half = good.crt[..good.crt.len() / 2].to_owned();
        let other = ca.issue();
        let none = String::new();
        for (invalid, named) in [
            (Content { key: other.key.clone(), ..good.clone() }, "tls.key: isn't the key of"),
            (Content { key: none.clone(), ..good.clone() }, "tls.key: contains no private key"),
            (Content { crt: none, ..good.clone() }, "tls.crt: contains no certificate"),
            (Content { crt: half, ..good.clone() }, "tls.crt: "),
            (Content { ca: Some("-----BEGIN CERTIFICATE-----\n!".into()), ..good.clone() }, "ca.crt: "),
            (ca.issue_until(2020), "tls.crt: expired at 2020-01-01T00:00:00Z"),
        ] {
            volume.put(&invalid);
            let problem = read(volume.directory.path(), unix_now()).err().unwrap();
            assert!(problem.contains(named), "{problem}");
            let errors = serving.errors();
            sleep(POLL_INTERVAL + Duration::from_secs(1)).await;
            assert!(serves(&serving, &good).await && serving.is_ready() && serving.errors() > errors);
        }
        volume.put(&other);
        sleep(POLL_INTERVAL).await;
        assert!(serves(&serving, &other).await);
    }

    #[tokio::test(start_paused = true)]
    async fn expired_leaf_is_replaced_without_a_hold() {
        let mut volume = Volume::new();
        volume.put(&Ca::new("a").issue_until(2100));
        let serving = ServingCertificate::new();
        let mut files = CertificateFiles::new(volume.directory.path().to_owned(), HOLD, serving.clone());
        files.poll();
        let new = Ca::new("b").issue();
        volume.put(&new);
        let in_2101 = 131 * 366 * 24 * 3600;
        files.offer(read(volume.directory.path(), in_2101).unwrap(), in_2101, Instant::now());
        assert!(serves(&serving, &new).await);
    }

    #[test]
    fn files_without_a_data_symlink_are_read() {
        let directory = TempDir::new().unwrap();
        let content = Ca::new("a").issue();
        fs::write(directory.path().join("tls.crt"), &content.crt).unwrap();
        let missing = read(directory.path(), unix_now()).err().unwrap();
        assert!(missing.contains("tls.key: No such file"), "{missing}");
        fs::write(directory.path().join("tls.key"), &content.key).unwrap();
        assert_eq!(read(directory.path(), unix_now()).ok().unwrap().leaf.der().to_vec(), content.leaf());
    }
}
