//! The real binary, and what it is asked.

use std::io::Write;
use std::path::Path;

use e2e::process::Webhook;
use podshaper_core::admission::Request;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_arch");
pub(crate) const PATH: &str = "/mutate-v1-pod";

pub(crate) fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

pub(crate) fn flag(name: &str, file: &Path) -> String {
    format!("--{name}={}", file.display())
}

/// The server with these settings and credentials.
pub(crate) async fn start(settings: &Value, credentials: &Value) -> Webhook {
    let files = [settings, credentials].map(|content| file(&content.to_string()));
    let [config, docker] =
        [("config", &files[0]), ("docker-config", &files[1])].map(|(name, file)| flag(name, file.path()));
    Webhook::start(BINARY, &[&config, &docker]).await
}

/// The question whether a pod of these images may be created.
pub(crate) fn review(images: &[String]) -> Vec<u8> {
    let containers: Vec<_> = images
        .iter()
        .enumerate()
        .map(|(n, image)| json!({"name": format!("c{n}"), "image": image, "imagePullPolicy": "IfNotPresent"}))
        .collect();
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": containers}});
    Request::create("v1", "Pod", "default", pod).to_review().unwrap().into_bytes()
}
