//! A webhook binary as a process of its own, as a container runs it, with a certificate from files.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

use crate::authority::{Authority, SERVER_NAME};
use crate::client::Client;

/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running webhook. It is killed when this is dropped.
pub struct Webhook {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
    /// Where it serves admission reviews.
    pub address: SocketAddr,
    certificates: Certificates,
}

/// A certificate directory and the CA to trust.
pub struct Certificates {
    /// Holds `tls.crt` and `tls.key`.
    pub directory: TempDir,
    /// The CA, as PEM.
    pub ca: String,
}

impl Certificates {
    /// A new CA and a serving certificate by it.
    pub fn new() -> Self {
        let authority = Authority::new();
        let (certificate, key) = authority.issue(SERVER_NAME);
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("tls.crt"), certificate).unwrap();
        std::fs::write(directory.path().join("tls.key"), key).unwrap();
        Self { directory, ca: authority.pem().to_owned() }
    }
}

impl Default for Certificates {
    fn default() -> Self {
        Self::new()
    }
}

impl Webhook {
    /// Starts `binary serve` with `arguments` beside the addresses and certificates, and waits until it serves.
    pub async fn start(binary: impl AsRef<Path>, arguments: &[&str]) -> Self {
        let certificates = Certificates::new();
        let mut child = Command::new(binary.as_ref())
            .env("PODSHAPER_HEALTH_PROBE_BIND_ADDRESS", "0")
            .env("PODSHAPER_METRICS_BIND_ADDRESS", "0")
            .env("PODSHAPER_DRAIN_TIME", "0s")
            .args(["serve", "--webhook-bind-address=127.0.0.1:0"])
            .args(["--log-format=json", "--cert-dir"])
            .arg(certificates.directory.path())
            .args(arguments)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|e| panic!("can't start {}: {e}", binary.as_ref().display()));
        let log = BufReader::new(child.stderr.take().expect("piped")).lines();
        let mut webhook = Self { child, log, address: ([127, 0, 0, 1], 0).into(), certificates };
        let serving = webhook.logged("serving").await;
        webhook.address = serving["address"].as_str().expect("an address").parse().expect("an address");
        webhook
    }

    /// The next line of the log with this message.
    pub async fn logged(&mut self, message: &str) -> Value {
        let mut seen = Vec::new();
        let find = async {
            while let Some(line) = self.log.next_line().await.unwrap() {
                let event: Value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if event["message"].as_str().is_some_and(|m| m == message) {
                    return Some(event);
                }
                seen.push(event);
            }
            None
        };
        timeout(PATIENCE, find)
            .await
            .ok()
            .flatten()
            .unwrap_or_else(|| panic!("no line {message:?} in {seen:#?}"))
    }

    /// A client that trusts the webhook's CA.
    pub fn client(&self) -> Client {
        Client::new(self.address, &self.certificates.ca)
    }

    /// The CA of the webhook's certificate, as PEM.
    pub fn ca(&self) -> &str {
        &self.certificates.ca
    }

    /// A client of another port of the webhook, which has the same certificate.
    pub fn client_of(&self, address: SocketAddr) -> Client {
        Client::new(address, &self.certificates.ca)
    }

    /// Sends SIGTERM, as the kubelet does.
    pub async fn terminate(&self) {
        let pid = self.child.id().expect("running").to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        timeout(PATIENCE, self.child.wait()).await.expect("it ends").unwrap()
    }

    /// A figure of `/proc/PID/status` in KiB, such as `VmRSS` or `VmHWM`.
    pub fn memory_kib(&self, figure: &str) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.child.id().expect("running"))).unwrap();
        let line = status.lines().find(|l| l.starts_with(figure)).expect("a figure of /proc/PID/status");
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}
