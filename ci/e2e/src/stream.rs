//! A stream of pod creations that goes on while something else happens, and loses none.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kube::Client;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::cluster::{PATIENCE, eventually};
use crate::release::{Release, is_shaped, peer_pod};

/// Between two creations; each is deleted at once.
const PACE: Duration = Duration::from_millis(40);

/// A running stream.
pub struct Stream {
    created: Arc<AtomicUsize>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Vec<String>>,
}

impl Stream {
    /// Creates peer pods in the namespace of `release` until it is stopped.
    pub async fn start(release: &Release) -> Self {
        let client = Client::try_default().await.expect("KUBECONFIG names a cluster");
        let (stop, stopped) = watch::channel(false);
        let created = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(create_and_delete(client, release.pods.clone(), created.clone(), stopped));
        let stream = Self { created, stop, task };
        stream.flows().await;
        stream
    }

    /// Waits until some more pods were created from now on.
    pub async fn flows(&self) {
        let enough = self.created.load(Ordering::Relaxed) + 25;
        let flowing = async || {
            (self.created.load(Ordering::Relaxed) >= enough || self.task.is_finished()).then_some(())
        };
        eventually("pods are created", PATIENCE, flowing).await;
    }

    /// Ends the stream. Not one creation may have failed or stayed unshaped.
    pub async fn stop(self) -> usize {
        self.stop.send_replace(true);
        let failures = self.task.await.expect("the stream doesn't panic");
        let created = self.created.load(Ordering::Relaxed);
        assert!(
            failures.is_empty(),
            "{} of {created} creations failed, first: {}",
            failures.len(),
            failures[0]
        );
        created
    }
}

async fn create_and_delete(
    client: Client,
    namespace: String,
    created: Arc<AtomicUsize>,
    stop: watch::Receiver<bool>,
) -> Vec<String> {
    let mut failures = Vec::new();
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let body = peer_pod(&namespace).to_string().into_bytes();
    while !*stop.borrow() {
        pace.tick().await;
        match one(&client, &namespace, body.clone()).await {
            Ok(()) => drop(created.fetch_add(1, Ordering::Relaxed)),
            Err(failure) => failures.push(failure),
        }
    }
    failures
}

async fn one(client: &Client, namespace: &str, body: Vec<u8>) -> Result<(), String> {
    let pods = format!("/api/v1/namespaces/{namespace}/pods");
    let call = async |method: &str, path: &str, body: Vec<u8>| {
        let request = http(method, path, body);
        client.request::<Value>(request).await.map_err(|e| format!("{method} {path}: {e}"))
    };
    let pod = call("POST", &pods, body).await?;
    let name = pod["metadata"]["name"].as_str().ok_or("a pod without a name")?;
    call("DELETE", &format!("{pods}/{name}?gracePeriodSeconds=0"), Vec::new()).await?;
    if is_shaped(&pod) { Ok(()) } else { Err(format!("not shaped: {pod}")) }
}

fn http(method: &str, path: &str, body: Vec<u8>) -> http::Request<Vec<u8>> {
    http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(body)
        .expect("a request")
}
