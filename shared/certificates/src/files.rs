//! Certificates from a directory: `tls.crt`, `tls.key` and, where there is one, `ca.crt`.
//!
//! kubelet and cert-manager replace these files while we run, and a leaf under a new CA may reach us before the API
//! server has that CA. So:
//!
//! - the content is polled: kubelet swaps a symlink above the files, which a watch on the files misses;
//! - a pair that is broken or expired is named in the log and left alone, and the last good one stays;
//! - a leaf under the CA of the one served now is served at once, any other when its CA (or the leaf itself, where
//!   `ca.crt` doesn't tell) has been seen for the hold, or when the one served now has expired.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::{Duration, Instant, sleep};
use tracing::{info, warn};

use super::Serving;
use super::certificate::{Certificate, time, unix_now, verify};
use super::standing::Standing;

/// How often the files are looked at; kubelet itself takes up to a minute or so to bring a change.
pub(super) const INTERVAL: Duration = Duration::from_secs(10);
/// How often while there is nothing to serve.
const FIRST_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Files {
    directory: PathBuf,
    hold: Duration,
    serving: Arc<Serving>,
    served: Option<Served>,
    standing: Standing,
    /// What the log said last, so that a state is told once.
    said: String,
}

struct Served {
    leaf: Certificate,
    issuers: Vec<CertificateDer<'static>>,
}

/// A pair that could be served.
struct Pair {
    key: CertifiedKey,
    leaf: Certificate,
    cas: Vec<Certificate>,
}

impl Files {
    pub(super) fn new(directory: PathBuf, hold: Duration, serving: Arc<Serving>) -> Self {
        Self { directory, hold, serving, served: None, standing: Standing::default(), said: String::new() }
    }

    /// Polls for ever.
    pub(super) async fn run(mut self, interval: Duration) {
        loop {
            sleep(if self.served.is_some() { interval } else { interval.min(FIRST_INTERVAL) }).await;
            self.poll();
        }
    }

    /// Looks at the files once, and serves what may be served.
    pub(super) fn poll(&mut self) {
        let now = unix_now();
        match read(&self.directory, now) {
            Ok(pair) => {
                self.serving.synced(now);
                self.offer(pair, now, Instant::now());
            }
            Err(problem) => {
                self.serving.failed();
                let then = match self.served {
                    Some(_) => "the last good pair stays in service",
                    None => "not ready until --cert-dir has a pair that can be served",
                };
                self.say(format!("{problem}: {then}"), |message| warn!("{message}"));
            }
        }
    }

    fn offer(&mut self, pair: Pair, now: i64, clock: Instant) {
        let Pair { key, leaf, cas } = pair;
        let issuers = cas.iter().filter(|ca| verify(&key.cert, ca, None, now).is_ok());
        let issuers: Vec<_> = issuers.map(|ca| ca.der.clone()).collect();
        self.standing.observe(cas.iter().map(|ca| &ca.der).chain([&leaf.der]), clock);

        if let Some(served) = &self.served {
            if served.leaf == leaf {
                self.said.clear();
                return;
            }
            let known = served.leaf.expired(now) || issuers.iter().any(|ca| served.issuers.contains(ca));
            let seen = issuers.iter().chain([&leaf.der]);
            let held = seen.filter_map(|der| self.standing.remaining(der, self.hold, clock)).min();
            if !known && held > Some(Duration::ZERO) {
                let message = format!(
                    "a new certificate (expires {}) isn't known to come from the CA of the one in service: served in {:?}",
                    time(leaf.not_after),
                    self.hold
                );
                self.say(message, |message| info!("{message}"));
                return;
            }
        }
        info!(directory = %self.directory.display(), expires = %time(leaf.not_after), "serving a certificate");
        let ca_not_after = cas.iter().filter(|ca| issuers.contains(&ca.der)).map(|ca| ca.not_after).max();
        self.serving.serve(Arc::new(key), leaf.not_after, ca_not_after.unwrap_or(0));
        self.served = Some(Served { leaf, issuers });
        self.said.clear();
    }

    fn say(&mut self, message: String, log: impl FnOnce(&str)) {
        if self.said != message {
            log(&message);
            self.said = message;
        }
    }
}

/// Reads one consistent state of the directory; the error names the file.
fn read(directory: &Path, now: i64) -> Result<Pair, String> {
    // In a mounted volume all files of one state are behind this symlink: resolving it once keeps them together.
    let directory = fs::canonicalize(directory.join("..data")).unwrap_or_else(|_| directory.to_owned());
    let path = |name| directory.join(name);
    let (crt, key, ca) = (path("tls.crt"), path("tls.key"), path("ca.crt"));
    let file = |path: &Path| fs::read(path).map_err(|e| format!("{}: {e}", path.display()));

    let chain = Certificate::parse_pem(&file(&crt)?).map_err(|e| format!("{}: {e}", crt.display()))?;
    let leaf = chain.first().ok_or_else(|| format!("{}: no certificate in it", crt.display()))?.clone();
    if leaf.expired(now) {
        return Err(format!("{}: expired at {}", crt.display(), time(leaf.not_after)));
    }
    let private = PrivateKeyDer::from_pem_slice(&file(&key)?)
        .map_err(|_| format!("{}: no private key in it", key.display()))?;
    let chain = chain.into_iter().map(|certificate| certificate.der).collect();
    let certified =
        CertifiedKey::from_der(chain, private, &ring::default_provider()).map_err(|e| match e {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                format!("{}: not the key of {}", key.display(), crt.display())
            }
            other => format!("{}: {other}", key.display()),
        })?;
    let cas = match fs::read(&ca) {
        Err(e) if e.kind() == ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(format!("{}: {e}", ca.display())),
        Ok(pem) => Certificate::parse_pem(&pem).map_err(|e| format!("{}: {e}", ca.display()))?,
    };
    Ok(Pair { key: certified, leaf, cas })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
    use tempfile::TempDir;

    use super::*;

    const HOLD: Duration = Duration::from_mins(1);

    struct Ca(CertifiedIssuer<'static, KeyPair>);

    /// A leaf with its key, and the CA that signed it, as PEM.
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

    /// A volume as kubelet mounts it: files are links through `..data`, which is swapped as a whole.
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

    fn start(volume: &Volume) -> Arc<Serving> {
        let serving = Serving::new();
        let mut files = Files::new(volume.directory.path().to_owned(), HOLD, serving.clone());
        files.poll();
        tokio::spawn(files.run(INTERVAL));
        serving
    }

    /// Whether `content` is served, after what is due now.
    async fn serves(serving: &Serving, content: &Content) -> bool {
        sleep(Duration::from_millis(1)).await;
        serving.leaf() == Some(content.leaf())
    }

    #[tokio::test(start_paused = true)]
    async fn the_files_are_served_when_start_returns() {
        let mut volume = Volume::new();
        volume.put(&Ca::new("a").issue());
        let serving = start(&volume);
        assert!(serving.ready());
        let facts = serving.facts();
        assert!(facts.leaf_not_after > unix_now() && facts.ca_not_after > facts.leaf_not_after);
        assert_eq!((facts.replacements, facts.errors), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn without_files_it_waits_and_takes_them_when_they_come() {
        let mut volume = Volume::new();
        let serving = start(&volume);
        sleep(HOLD).await;
        assert!(!serving.ready() && serving.facts().errors > 0);
        let content = Ca::new("a").issue();
        volume.put(&content);
        serving.loaded().await;
        assert!(serves(&serving, &content).await && serving.ready());
    }

    #[tokio::test(start_paused = true)]
    async fn a_leaf_under_the_same_ca_is_served_at_the_next_look() {
        let (mut volume, ca) = (Volume::new(), Ca::new("a"));
        volume.put(&ca.issue());
        let serving = start(&volume);
        let renewed = ca.issue();
        volume.put(&renewed);
        sleep(INTERVAL).await;
        assert!(serves(&serving, &renewed).await);
        assert_eq!(serving.facts().replacements, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_leaf_under_another_ca_waits_for_the_hold() {
        for with_ca in [true, false] {
            let mut volume = Volume::new();
            let content =
                |name| Content { ca: Ca::new(name).issue().ca.filter(|_| with_ca), ..Ca::new(name).issue() };
            let (old, new) = (content("a"), content("b"));
            volume.put(&old);
            let serving = start(&volume);
            volume.put(&new);
            sleep(HOLD).await;
            assert!(serves(&serving, &old).await);
            sleep(INTERVAL).await;
            assert!(serves(&serving, &new).await);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_ca_that_was_announced_in_time_needs_no_more_hold() {
        let (mut volume, a, b) = (Volume::new(), Ca::new("a"), Ca::new("b"));
        let both = Some(a.0.pem() + &b.0.pem());
        volume.put(&a.issue());
        let serving = start(&volume);
        volume.put(&Content { ca: both.clone(), ..a.issue() });
        sleep(INTERVAL + HOLD).await;
        let new = Content { ca: both, ..b.issue() };
        volume.put(&new);
        sleep(INTERVAL).await;
        assert!(serves(&serving, &new).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_broken_pair_is_named_and_the_last_good_one_stays() {
        let (mut volume, ca) = (Volume::new(), Ca::new("a"));
        let good = ca.issue();
        volume.put(&good);
        let serving = start(&volume);
        let half = good.crt[..good.crt.len() / 2].to_owned();
        let other = ca.issue();
        let none = String::new();
        for (broken, named) in [
            (Content { key: other.key.clone(), ..good.clone() }, "tls.key: not the key of"),
            (Content { key: none.clone(), ..good.clone() }, "tls.key: no private key"),
            (Content { crt: none, ..good.clone() }, "tls.crt: no certificate"),
            (Content { crt: half, ..good.clone() }, "tls.crt: "),
            (Content { ca: Some("-----BEGIN CERTIFICATE-----\n!".into()), ..good.clone() }, "ca.crt: "),
            (ca.issue_until(2020), "tls.crt: expired at 2020-01-01T00:00:00Z"),
        ] {
            volume.put(&broken);
            let problem = read(volume.directory.path(), unix_now()).err().unwrap();
            assert!(problem.contains(named), "{problem}");
            let errors = serving.facts().errors;
            sleep(INTERVAL + Duration::from_secs(1)).await;
            assert!(serves(&serving, &good).await && serving.ready() && serving.facts().errors > errors);
        }
        volume.put(&other);
        sleep(INTERVAL).await;
        assert!(serves(&serving, &other).await);
    }

    #[tokio::test(start_paused = true)]
    async fn an_expired_leaf_is_replaced_without_a_hold() {
        let mut volume = Volume::new();
        volume.put(&Ca::new("a").issue_until(2100));
        let serving = Serving::new();
        let mut files = Files::new(volume.directory.path().to_owned(), HOLD, serving.clone());
        files.poll();
        let new = Ca::new("b").issue();
        volume.put(&new);
        let in_2101 = 131 * 366 * 24 * 3600;
        files.offer(read(volume.directory.path(), in_2101).unwrap(), in_2101, Instant::now());
        assert!(serves(&serving, &new).await);
    }

    #[test]
    fn plain_files_do_as_well() {
        let directory = TempDir::new().unwrap();
        let content = Ca::new("a").issue();
        fs::write(directory.path().join("tls.crt"), &content.crt).unwrap();
        let missing = read(directory.path(), unix_now()).err().unwrap();
        assert!(missing.contains("tls.key: No such file"), "{missing}");
        fs::write(directory.path().join("tls.key"), &content.key).unwrap();
        assert_eq!(read(directory.path(), unix_now()).ok().unwrap().leaf.der.to_vec(), content.leaf());
    }
}
