//! A registry on loopback that says what a test wants it to say, and remembers who asked.

use std::convert::Infallible;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

pub(crate) type Answer = Response<BoxBody<Bytes, Infallible>>;
type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// The requests.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) authorization: Option<String>,
}

/// A server.
#[derive(Clone)]
pub(crate) struct Registry {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Registry {
    /// A server that answers by `answer`.
    pub(crate) async fn start<F, A>(answer: F) -> Self
    where
        F: Fn(Asked) -> A + Send + Sync + 'static,
        A: Future<Output = Answer> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let registry = Self { address: listener.local_addr().unwrap(), asked: Arc::default() };
        let asked = Arc::clone(&registry.asked);
        let answer: Arc<dyn Fn(Asked) -> Answering + Send + Sync> =
            Arc::new(move |asked| Box::pin(answer(asked)));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer = Arc::clone(&answer);
                let all = Arc::clone(&asked);
                let service = service_fn(move |request: Request<Incoming>| {
                    let authorization =
                        request.headers().get("authorization").map(|own| own.to_str().unwrap().to_owned());
                    let method = request.method().to_string();
                    let path = request.uri().to_string();
                    let asked = Asked { method, path, authorization };
                    all.lock().unwrap().push(asked.clone());
                    let answering = answer(asked);
                    async move { Ok::<_, Infallible>(answering.await) }
                });
                tokio::spawn(async move {
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
                });
            }
        });
        registry
    }

    /// A server that answers as a registry with these contents does: by path, below `/v2/`.
    pub(crate) async fn of(contents: Vec<(&str, Vec<u8>)>) -> Self {
        let contents: Vec<_> =
            contents.into_iter().map(|(path, body)| (format!("/v2/{path}"), body)).collect();
        let contents = Arc::new(contents);
        Self::start(move |asked| {
            let found = contents.iter().find(|(path, _)| *path == asked.path).map(|(_, body)| body.clone());
            async move { found.map_or_else(|| status(404), |body| ok(&asked, body)) }
        })
        .await
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

/// 200, with the digest header of registries.
pub(crate) fn ok(asked: &Asked, body: Vec<u8>) -> Answer {
    let answer = Response::builder().header("docker-content-digest", digest(&body));
    let body = if asked.method == "HEAD" { Vec::new() } else { body };
    answer.body(full(body)).unwrap()
}

pub(crate) fn status(code: u16) -> Answer {
    with(code, &[])
}

pub(crate) fn with(code: u16, headers: &[(&str, &str)]) -> Answer {
    let mut answer = Response::new(full(b"{}".to_vec()));
    *answer.status_mut() = StatusCode::from_u16(code).unwrap();
    for (name, value) in headers {
        answer.headers_mut().insert(http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
    }
    answer
}

pub(crate) fn full(body: Vec<u8>) -> BoxBody<Bytes, Infallible> {
    Full::new(Bytes::from(body)).boxed()
}

pub(crate) fn digest(body: &[u8]) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, body);
    hash.as_ref().iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// An index of these platforms, `os/architecture[/variant]`.
pub(crate) fn index(platforms: &[&str]) -> Vec<u8> {
    let entries = platforms.iter().map(|platform| {
        let mut parts = platform.split('/');
        let mut own = json!({"os": parts.next(), "architecture": parts.next()});
        if let Some(variant) = parts.next() {
            own["variant"] = json!(variant);
        }
        entry(&digest(platform.as_bytes()), own)
    });
    index_of(entries.collect())
}

pub(crate) fn index_of(entries: Vec<Value>) -> Vec<u8> {
    json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries})
        .to_string()
        .into_bytes()
}

/// An entry of an index; without a platform if it is null.
pub(crate) fn entry(digest: &str, platform: Value) -> Value {
    let mut entry =
        json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1});
    if !platform.is_null() {
        entry["platform"] = platform;
    }
    entry
}

/// The manifest of an image with this configuration.
pub(crate) fn manifest(config: &[u8]) -> Vec<u8> {
    json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": [],
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(config), "size": config.len()},
    })
    .to_string()
    .into_bytes()
}

pub(crate) fn config(os: &str, architecture: &str) -> Vec<u8> {
    json!({"os": os, "architecture": architecture, "rootfs": {"type": "layers", "diff_ids": []}})
        .to_string()
        .into_bytes()
}
