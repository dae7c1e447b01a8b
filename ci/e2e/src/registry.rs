//! A real registry (github.com/distribution/distribution) with TLS, for tests in a cluster: its address is one that pods reach.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::authority::Authority;
use crate::cluster::{eventually, get, output};

/// Whom the registries know.
pub const USER: &str = "tester";
/// By this password.
pub const PASSWORD: &str = "s3cret";
/// The service name of the registry at the token server.
const SERVICE: &str = "podshaper-test";

/// How a registry wants to be shown who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Not at all.
    Anonymous,
    /// By user and password.
    Basic,
    /// By a token of a token server, which asks for user and password.
    Token,
}

/// A running registry. It ends when this is dropped.
pub struct Registry {
    /// `ADDRESS:PORT`, as images name it.
    pub host: String,
    /// The CA of its certificate, PEM.
    pub ca: String,
    files: TempDir,
    server: Child,
    _tokens: Option<Child>,
}

/// A program of `ci/go/registry`.
fn program(name: &str) -> PathBuf {
    let folder = std::env::var_os("PODSHAPER_REGISTRY")
        .expect("PODSHAPER_REGISTRY must name the folder that ci/go/build --path registry prints");
    Path::new(&folder).join(name)
}

/// The address of a node that really runs, where its pods reach what listens on it.
async fn address() -> String {
    let nodes = get(&["nodes", "--selector=!type"]).await;
    let of = |node: &Value| {
        let addresses = node["status"]["addresses"].as_array()?.clone();
        let internal = addresses.iter().find(|address| address["type"] == "InternalIP")?;
        let real = !node["metadata"]["annotations"].to_string().contains("kwok.x-k8s.io");
        real.then(|| internal["address"].as_str().unwrap_or_default().to_owned())
    };
    nodes["items"].as_array().and_then(|nodes| nodes.iter().find_map(of)).expect("a node that runs")
}

impl Registry {
    /// Starts a registry on `port` of a node, and its token server on the next.
    pub async fn start(port: u16, access: Access) -> Self {
        Self::start_at(&address().await, port, access).await
    }

    /// The same at this address.
    pub async fn start_at(address: &str, port: u16, access: Access) -> Self {
        let authority = Authority::new();
        let files = tempfile::tempdir().unwrap();
        let (certificate, key) = authority.issue(address);
        let file = |name: &str, content: &str| {
            let path = files.path().join(name);
            std::fs::write(&path, content).unwrap();
            path
        };
        let ca = file("ca.pem", authority.pem());
        let certificate = file("tls.crt", &certificate);
        let key = file("tls.key", &key);
        let tools = program("registry-tools");
        let auth = match access {
            Access::Anonymous => Value::Null,
            Access::Basic => {
                let line = output(tools.to_str().unwrap(), &["htpasswd", USER, PASSWORD], "").await;
                json!({"htpasswd": {"realm": "test", "path": file("htpasswd", &line)}})
            }
            Access::Token => json!({"token": {
                "realm": format!("https://{address}:{}/token", port + 1), "service": SERVICE, "issuer": SERVICE, "rootcertbundle": ca,
            }}),
        };
        let mut config = json!({
            "version": 0.1, "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": files.path().join("content")}},
            "http": {"addr": format!("{address}:{port}"), "tls": {"certificate": certificate, "key": key}},
        });
        if !auth.is_null() {
            config["auth"] = auth;
        }
        let config = file("config.yml", &config.to_string());
        let quiet = |command: &mut Command| command.stdout(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        let tokens = (access == Access::Token).then(|| {
            let server = format!("{address}:{}", port + 1);
            let mut command = Command::new(&tools);
            command
                .args(["tokens", &server, SERVICE])
                .env("REGISTRY_CERT", &certificate)
                .env("REGISTRY_KEY", &key);
            quiet(command.env("REGISTRY_USER", USER).env("REGISTRY_PASSWORD", PASSWORD))
        });
        let server = quiet(Command::new(program("registry")).arg("serve").arg(config));
        for port in [Some(port), tokens.as_ref().map(|_| port + 1)].into_iter().flatten() {
            eventually("the registry listens", Duration::from_secs(20), async || {
                TcpStream::connect((address, port)).await.ok()
            })
            .await;
        }
        Self {
            host: format!("{address}:{port}"),
            ca: authority.pem().to_owned(),
            files,
            server,
            _tokens: tokens,
        }
    }

    /// Pushes an index with an image for each platform, or (`single`) one image without an index; its full name.
    pub async fn push(&self, name: &str, platforms: &[&str], single: bool) -> String {
        let image = format!("{}/{name}", self.host);
        let mut command = Command::new(program("registry-tools"));
        command.arg("push").args(single.then_some("--single")).arg(&image).args(platforms);
        command.env("REGISTRY_USER", USER).env("REGISTRY_PASSWORD", PASSWORD);
        let pushed = command.env("REGISTRY_CA", self.files.path().join("ca.pem")).output().await.unwrap();
        assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
        image
    }

    /// Ends the server, as a machine that dies.
    pub async fn kill(&mut self) {
        self.server.kill().await.unwrap();
    }

    /// A Secret of this name with the credentials of these registries.
    pub fn secret<'r>(namespace: &str, name: &str, registries: impl IntoIterator<Item = &'r Self>) -> Value {
        let auths: serde_json::Map<_, _> = registries
            .into_iter()
            .map(|registry| (registry.host.clone(), json!({"username": USER, "password": PASSWORD})))
            .collect();
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
            "metadata": {"name": name, "namespace": namespace},
            "stringData": {".dockerconfigjson": json!({"auths": auths}).to_string()},
        })
    }
}
