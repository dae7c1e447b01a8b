//! Registries of clouds, asked by the binary with the identity of its pod. The stand-ins follow the documents that
//! `src/registry/cloud` cites. All of them are behind a proxy that ends TLS, so that hosts have their real names.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::Permissions;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use e2e::authority::Authority;
use e2e::client::post;
use e2e::process::Webhook;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use support::registry::index;
use support::server::{BINARY, PATH, file, flag, review};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

const ECR: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
const GAR: &str = "europe-west1-docker.pkg.dev";
const ACR: &str = "example.azurecr.io";

/// A request to a stand-in.
#[derive(Clone, Debug)]
struct Asked {
    host: String,
    path: String,
    headers: HeaderMap,
    body: String,
}

impl Asked {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn form(&self) -> BTreeMap<String, String> {
        form_urlencoded::parse(self.body.as_bytes()).into_owned().collect()
    }
}

/// The clouds, and the requests to them.
struct Clouds {
    proxy: SocketAddr,
    metadata: SocketAddr,
    authority: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    files: TempDir,
}

type Reply = (u16, Vec<(&'static str, String)>, Vec<u8>);

fn ok(body: &Value) -> Reply {
    (200, Vec::new(), body.to_string().into_bytes())
}

fn denied(challenge: &str) -> Reply {
    (401, vec![("www-authenticate", challenge.to_owned())], b"{}".to_vec())
}

/// The response of a registry to a request for a manifest, for those with this authorization.
fn manifest(asked: &Asked, authorization: &str, challenge: &str) -> Reply {
    if asked.header("authorization") == authorization {
        return (200, Vec::new(), index(&["linux/arm64"]));
    }
    denied(challenge)
}

fn basic(pair: &str) -> String {
    format!("Basic {}", STANDARD.encode(pair))
}

/// The response of each host.
fn reply(asked: &Asked) -> Reply {
    let path = asked.path.split('?').next().unwrap();
    match (&*asked.host, path) {
        ("sts.eu-west-1.amazonaws.com", "/") => {
            let form = asked.form();
            assert_eq!(form["Action"], "AssumeRoleWithWebIdentity");
            assert_eq!(
                (&*form["RoleArn"], &*form["WebIdentityToken"]),
                ("arn:aws:iam::1:role/pull", "irsa-token")
            );
            assert!(form["Policy"].contains("ecr:BatchGetImage") && !form["Policy"].contains("PutImage"));
            let xml = "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
                <SessionToken>session-secret</SessionToken><SecretAccessKey>key-secret</SecretAccessKey>\
                <AccessKeyId>ASIAROLE</AccessKeyId></Credentials></AssumeRoleWithWebIdentityResult>\
                </AssumeRoleWithWebIdentityResponse>";
            (200, Vec::new(), xml.as_bytes().to_vec())
        }
        ("api.ecr.eu-west-1.amazonaws.com", "/") => {
            let target = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken";
            assert_eq!((asked.header("x-amz-target"), &*asked.body), (target, "{}"));
            assert!(asked.header("x-amz-security-token").ends_with("-secret"));
            let authorization = asked.header("authorization");
            assert!(authorization.contains("/eu-west-1/ecr/aws4_request"), "{authorization}");
            let expires = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() + 43200.0;
            let token = STANDARD.encode("AWS:ecr-secret");
            ok(&json!({"authorizationData": [{"authorizationToken": token, "expiresAt": expires}]}))
        }
        (ECR, path) if path.starts_with("/v2/") => {
            manifest(asked, &basic("AWS:ecr-secret"), "Basic realm=\"https://ecr\"")
        }
        (GAR, "/v2/token") => {
            assert_eq!(asked.header("authorization"), basic("oauth2accesstoken:google-secret"));
            ok(&json!({"token": "gar-secret", "expires_in": 300}))
        }
        (GAR, path) if path.starts_with("/v2/elsewhere/") => {
            denied(&format!("Bearer realm=\"https://{ACR}/token\""))
        }
        (GAR, path) if path.starts_with("/v2/") => manifest(
            asked,
            "Bearer gar-secret",
            &format!("Bearer realm=\"https://{GAR}/v2/token\",service=\"{GAR}\""),
        ),
        ("login.microsoftonline.com", "/tenant/oauth2/v2.0/token") => {
            let form = asked.form();
            assert_eq!((&*form["client_id"], &*form["client_assertion"]), ("client", "azure-token"));
            assert_eq!(form["scope"], "https://containerregistry.azure.net/.default");
            ok(&json!({"access_token": "entra-secret", "expires_in": 3600}))
        }
        (ACR, "/oauth2/exchange") => {
            let form = asked.form();
            assert_eq!(
                (&*form["access_token"], &*form["tenant"], &*form["service"]),
                ("entra-secret", "tenant", ACR)
            );
            ok(&json!({"refresh_token": "refresh-secret"}))
        }
        (ACR, "/oauth2/token") => {
            let form = asked.form();
            assert_eq!((&*form["grant_type"], &*form["refresh_token"]), ("refresh_token", "refresh-secret"));
            assert_eq!(form["scope"], "repository:team/app:pull");
            ok(&json!({"access_token": "acr-secret"}))
        }
        (ACR, path) if path.starts_with("/v2/") => manifest(
            asked,
            "Bearer acr-secret",
            &format!("Bearer realm=\"https://{ACR}/oauth2/token\",service=\"{ACR}\""),
        ),
        (_, "/v1/credentials") if asked.header("authorization") == "pod-token" => {
            ok(&json!({"AccessKeyId": "ASIAPOD", "SecretAccessKey": "pod-key-secret", "Token": "pod-secret"}))
        }
        (_, "/computeMetadata/v1/instance/service-accounts/default/token") => {
            assert_eq!(asked.header("metadata-flavor"), "Google");
            ok(&json!({"access_token": "google-secret", "expires_in": 3599, "token_type": "Bearer"}))
        }
        // Every other registry has its images for everybody.
        (_, path) if path.starts_with("/v2/") => (200, Vec::new(), index(&["linux/amd64"])),
        _ => (404, Vec::new(), Vec::new()),
    }
}

async fn serve<S>(stream: S, all: Arc<Mutex<Vec<Asked>>>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let all = Arc::clone(&all);
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let host = parts.headers["host"].to_str().unwrap().to_owned();
            let path = parts.uri.to_string();
            let body = String::from_utf8(body.to_vec()).unwrap();
            let asked = Asked { host, path, headers: parts.headers, body };
            all.lock().unwrap().push(asked.clone());
            let (status, headers, body) = reply(&asked);
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            Ok::<_, Infallible>(response.body(Full::new(Bytes::from(body))).unwrap())
        }
    });
    _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// Answers CONNECT, and ends TLS with a certificate for the host.
async fn tunnel(mut stream: TcpStream, authority: Arc<Authority>, all: Arc<Mutex<Vec<Asked>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let host = head.strip_prefix("CONNECT ").unwrap().split(':').next().unwrap();
    let (certificate, key) = authority.issue(host);
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config =
        config.with_safe_default_protocol_versions().unwrap().with_no_client_auth().with_single_cert(
            vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        );
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    if let Ok(stream) = TlsAcceptor::from(Arc::new(config.unwrap())).accept(stream).await {
        serve(stream, all).await;
    }
}

impl Clouds {
    async fn start() -> Self {
        let authority = Arc::new(Authority::new());
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let [proxy, metadata] = [
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap(),
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap(),
        ];
        let files = tempfile::tempdir().unwrap();
        for (name, token) in [("irsa", "irsa-token\n"), ("pod", "pod-token"), ("azure", "azure-token")] {
            std::fs::write(files.path().join(name), token).unwrap();
        }
        let clouds = Self {
            proxy: proxy.local_addr().unwrap(),
            metadata: metadata.local_addr().unwrap(),
            authority: authority.pem().to_owned(),
            asked: Arc::clone(&asked),
            files,
        };
        let all = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = proxy.accept().await {
                tokio::spawn(tunnel(stream, Arc::clone(&authority), Arc::clone(&all)));
            }
        });
        tokio::spawn(async move {
            while let Ok((stream, _)) = metadata.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&asked)));
            }
        });
        clouds
    }

    fn token(&self, name: &str) -> String {
        self.files.path().join(name).display().to_string()
    }

    fn settings(&self, more: &Value) -> Value {
        let mut settings = json!({
            // A busy machine needs more than the default for the handshakes with three hosts.
            "lookupTimeout": "9s",
            "registries": {"proxy": format!("http://{}", self.proxy), "caBundle": self.authority},
            "cloudCredentials": [
                {"ecr": {"registries": [ECR]}},
                {"artifactRegistry": {"registries": [GAR]}},
                {"acr": {"registries": [ACR]}},
            ],
        });
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        settings
    }

    /// Runs `arch` with these variables.
    async fn arch(&self, settings: &Value, variables: &[(&str, String)], arguments: &[&str]) -> Output {
        let config = file(&settings.to_string());
        let docker = file("{}");
        let flags = [flag("config", config.path()), flag("docker-config", docker.path())];
        let mut command = Command::new(BINARY);
        let first = arguments[0];
        command
            .arg(first)
            .args(flags)
            .args(&arguments[1..])
            .env("GCE_METADATA_HOST", self.metadata.to_string());
        command.envs(variables.iter().map(|(name, value)| (*name, value.as_str())));
        command.output().await.unwrap()
    }

    async fn explain(
        &self,
        settings: &Value,
        variables: &[(&str, String)],
        image: &str,
    ) -> Result<String, String> {
        let output = self.arch(settings, variables, &["explain", "-o", "json", image]).await;
        let text = String::from_utf8(output.stdout).unwrap();
        let answer: Value = serde_json::from_str(&text).unwrap();
        match answer[0]["unknown"].as_str() {
            None => Ok(answer[0]["platforms"][0].as_str().unwrap().to_owned()),
            Some(label) => Err(label.to_owned()),
        }
    }

    fn irsa(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ROLE_ARN", "arn:aws:iam::1:role/pull".to_owned()),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", self.token("irsa")),
        ]
    }

    fn pod_identity(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("http://{}/v1/credentials", self.metadata)),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", self.token("pod")),
        ]
    }

    fn azure(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AZURE_CLIENT_ID", "client".to_owned()),
            ("AZURE_TENANT_ID", "tenant".to_owned()),
            ("AZURE_FEDERATED_TOKEN_FILE", self.token("azure")),
        ]
    }

    /// The hosts that were asked, each once in its order.
    fn hosts(&self) -> Vec<String> {
        let mut hosts: Vec<String> = Vec::new();
        for asked in self.asked.lock().unwrap().drain(..) {
            if !hosts.contains(&asked.host) {
                hosts.push(asked.host);
            }
        }
        hosts
    }
}

#[tokio::test]
async fn identity_gives_access_to_listed_registries() {
    let clouds = Clouds::start().await;
    let settings = clouds.settings(&json!({}));
    let metadata = clouds.metadata.to_string();
    let api = "api.ecr.eu-west-1.amazonaws.com";
    for (variables, image, expected) in [
        (clouds.irsa(), format!("{ECR}/team/app:1"), vec!["sts.eu-west-1.amazonaws.com", api, ECR]),
        (clouds.pod_identity(), format!("{ECR}/team/app:1"), vec![&*metadata, api, ECR]),
        (vec![], format!("{GAR}/project/team/app:1"), vec![&*metadata, GAR]),
        (clouds.azure(), format!("{ACR}/team/app:1"), vec!["login.microsoftonline.com", ACR]),
    ] {
        assert_eq!(
            clouds.explain(&settings, &variables, &image).await.as_deref(),
            Ok("linux/arm64"),
            "{image}"
        );
        assert_eq!(clouds.hosts(), expected);
    }
}

#[tokio::test]
async fn other_registries_get_no_credential() {
    let clouds = Clouds::start().await;
    let settings = clouds.settings(&json!({}));
    let variables = [clouds.irsa(), clouds.azure()].concat();
    for host in [
        "123456789013.dkr.ecr.eu-west-1.amazonaws.com",
        "123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example",
        "evil.azurecr.io",
        "us-docker.pkg.dev",
    ] {
        let image = format!("{host}/team/app:1");
        assert_eq!(
            clouds.explain(&settings, &variables, &image).await.as_deref(),
            Ok("linux/amd64"),
            "{host}"
        );
        assert!(clouds.asked.lock().unwrap().iter().all(|asked| asked.header("authorization").is_empty()));
        assert_eq!(clouds.hosts(), [host]);
    }
}

#[tokio::test]
async fn credential_of_a_cloud_stays_with_its_registry() {
    let clouds = Clouds::start().await;
    // A token server of another host.
    let settings = clouds.settings(&json!({}));
    let image = format!("{GAR}/elsewhere/app:1");
    assert_eq!(clouds.explain(&settings, &[], &image).await, Err("refused".to_owned()));
    assert_eq!(
        clouds.hosts(),
        [GAR, &*clouds.metadata.to_string()].map(str::to_owned).into_iter().rev().collect::<Vec<_>>()
    );
    // A mirror.
    let registries = json!({"registries": {
        "proxy": format!("http://{}", clouds.proxy), "caBundle": clouds.authority,
        "mirrors": {GAR: ["https://mirror.example"]},
    }});
    let image = format!("{GAR}/team/app:1");
    let settings = clouds.settings(&registries);
    assert_eq!(clouds.explain(&settings, &[], &image).await.as_deref(), Ok("linux/amd64"));
    assert!(clouds.asked.lock().unwrap().iter().all(|asked| asked.header("authorization").is_empty()));
    assert_eq!(clouds.hosts(), ["mirror.example"]);
}

/// A program that starts `arch` with these variables, and copies its log.
fn wrapper(directory: &Path, variables: &[(&str, String)]) -> PathBuf {
    let path = directory.join("arch");
    let exports: Vec<_> = variables.iter().map(|(name, value)| format!("{name}='{value}'")).collect();
    let exports = exports.join(" ");
    let log = directory.join("log").display().to_string();
    std::fs::write(
        &path,
        format!("#!/bin/bash\nexport {exports}\nexec {BINARY} \"$@\" 2> >(tee {log} >&2)\n"),
    )
    .unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    path
}

#[tokio::test]
async fn trace_log_has_no_credential() {
    let clouds = Clouds::start().await;
    let proxy = json!({"registries": {
        "proxy": format!("http://user:proxy-secret@{}", clouds.proxy), "caBundle": clouds.authority,
    }});
    let variables = [clouds.irsa(), clouds.azure()].concat();
    let metadata = [("GCE_METADATA_HOST", clouds.metadata.to_string())];
    let program = wrapper(clouds.files.path(), &[&variables[..], &metadata].concat());
    let config = file(&clouds.settings(&proxy).to_string());
    let docker = file(
        &json!({"auths": {
            "private.example": {"auth": STANDARD.encode("user:docker-secret")},
        }})
        .to_string(),
    );
    let flags = [flag("config", config.path()), flag("docker-config", docker.path())];
    let webhook = Webhook::start(
        program,
        &[
            &flags[0],
            &flags[1],
            "--log-level=trace,h2=trace,hyper=trace,rustls=trace,tokio_rustls=trace,tower=trace",
        ],
    )
    .await;
    let images = [ECR, GAR, ACR, "private.example"].map(|host| format!("{host}/team/app:1"));
    let answer = webhook.client().send(post(PATH, &review(&images))).await.unwrap();
    assert!(answer.body.contains("\"allowed\":"), "{answer:?}");
    for host in [ECR, ACR, GAR] {
        assert!(
            clouds
                .asked
                .lock()
                .unwrap()
                .iter()
                .any(|asked| asked.host == host && !asked.header("authorization").is_empty())
        );
    }
    let read = || std::fs::read_to_string(clouds.files.path().join("log")).unwrap();
    let written = async {
        while !read().contains("\"serving\"") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(10), written).await.expect("the log is copied");
    let log = read();
    let pairs = ["AWS:ecr-secret", "user:proxy-secret", "user:docker-secret"];
    let encoded = pairs.map(|pair| STANDARD.encode(pair));
    let plain = ["-secret", "irsa-token", "azure-token", "Signature="].map(str::to_owned);
    for credential in encoded.iter().chain(&plain) {
        let line = log.lines().find(|line| line.contains(credential.as_str()));
        assert_eq!(line, None, "{credential}");
    }
}

#[tokio::test]
async fn missing_identity_ends_the_start() {
    let clouds = Clouds::start().await;
    let settings = json!({"cloudCredentials": [{"ecr": {"registries": [ECR]}}]});
    let serve = ["serve", "--cert-dir=/nonexistent"];
    let output = clouds.arch(&settings, &[], &serve).await;
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(ECR) && stderr.contains("AWS_ROLE_ARN isn't set"), "{stderr}");
}
