//! An API server of Placements, one ReplicaSet and its pods, in memory: versions, conflicts and preconditions are as in the
//! real one, and each call takes five milliseconds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use http::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::sleep;
use tower::service_fn;

use crate::ledgers::driver::Ledgers;
use crate::ledgers::pods::Pods;
use crate::ledgers::standings::Standings;
use podshaper_kube::watch::Sink;
use podshaper_placement::annotations::{GROUP, OWNER, PLACED, SLOT, TOKEN};
use podshaper_placement::ledger::Assignment;

/// Half of a round trip.
const WAY: Duration = Duration::from_micros(2500);
pub(super) const UID: &str = "uid-of-web";

/// What is stored, and what was asked.
#[derive(Default)]
pub(super) struct Stored {
    version: u64,
    pub(super) placements: BTreeMap<String, Value>,
    pub(super) pods: BTreeMap<String, Value>,
    pub(super) replicas: u32,
    /// Every call but reads of the owner: its method, and the last part of its path.
    pub(super) calls: Vec<(Method, String)>,
    /// Half of a round trip, if it isn't [`WAY`].
    pub(super) way: Option<Duration>,
    /// Whether it answers by errors alone.
    pub(super) down: bool,
    /// Watches, by replica.
    watches: Vec<(Pods, Standings)>,
}

#[derive(Clone, Default)]
pub(super) struct ApiServer(Arc<Mutex<Stored>>);

impl ApiServer {
    pub(super) fn lock(&self) -> MutexGuard<'_, Stored> {
        self.0.lock().unwrap()
    }

    fn way(&self) -> Duration {
        self.lock().way.unwrap_or(WAY)
    }

    pub(super) fn client(&self) -> Client {
        let server = self.clone();
        let answer = service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                sleep(server.way()).await;
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                let body: Value =
                    serde_json::from_str(std::str::from_utf8(&body).unwrap()).unwrap_or_default();
                let answer = server.lock().answer(&parts.method, &parts.uri, &body);
                sleep(server.way()).await;
                let (code, body) = answer.map_or_else(
                    |code| {
                        let reason = if code == 404 { "NotFound" } else { "Conflict" };
                        (code, json!({"kind": "Status", "code": code, "reason": reason, "message": "no"}))
                    },
                    |body| (200, body),
                );
                let body = Body::from(body.to_string().into_bytes());
                Ok::<_, kube::Error>(Response::builder().status(code).body(body).unwrap())
            }
        });
        Client::new(answer, "ns")
    }

    /// A replica, with a watch that shows everything at once.
    pub(super) fn replica(&self) -> Arc<Ledgers> {
        let ledgers = Ledgers::new(self.client(), "distributor");
        let mut stored = self.lock();
        let mut watch = Pods::new(Arc::clone(&ledgers));
        watch.restart();
        for pod in stored.pods.values().filter(|pod| pod.pointer("/metadata/labels").is_some()) {
            watch.listed(&raw(pod)).unwrap();
        }
        watch.complete(&stored.version.to_string());
        let standings = Standings::new(Arc::clone(&ledgers), Arc::default());
        stored.watches.push((watch, standings));
        ledgers
    }
}

fn raw(value: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap()
}

impl Stored {
    /// Stores a pod of the ReplicaSet, with its stamp; watches show it.
    pub(super) fn create(&mut self, name: &str, stamp: Option<&Assignment>) {
        let mut metadata = json!({
            "name": name,
            "namespace": "ns",
            "ownerReferences": [{"kind": "ReplicaSet", "name": "web", "uid": UID, "controller": true}],
        });
        if let Some(stamp) = stamp {
            metadata["labels"] = json!({PLACED: "distributor"});
            metadata["annotations"] = json!({
                OWNER: UID, TOKEN: stamp.token.to_string(), SLOT: stamp.slot.to_string(), GROUP: *stamp.group,
            });
        }
        self.put_pod(json!({"metadata": metadata, "spec": {}, "status": {"phase": "Pending"}}));
    }

    pub(super) fn delete(&mut self, name: &str) {
        self.version += 1;
        let mut pod = self.pods.remove(name).unwrap();
        pod["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.show(&pod, true);
    }

    pub(super) fn put_pod(&mut self, mut pod: Value) {
        self.version += 1;
        pod["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.pods.insert(pod["metadata"]["name"].as_str().unwrap().to_owned(), pod.clone());
        self.show(&pod, false);
    }

    fn show(&mut self, pod: &Value, gone: bool) {
        let selected = pod.pointer("/metadata/labels").is_some();
        for (pods, _) in self.watches.iter_mut().filter(|_| selected) {
            pods.changed(&raw(pod), gone).unwrap();
        }
    }

    pub(super) fn show_ledger(&mut self, ledger: &Value, gone: bool) {
        for (_, standings) in &mut self.watches {
            standings.changed(&raw(ledger), gone).unwrap();
        }
    }

    fn answer(&mut self, method: &Method, uri: &http::Uri, body: &Value) -> Result<Value, u16> {
        let path = uri.path();
        let (collection, name) = path.rsplit_once('/').unwrap();
        let last = collection.rsplit('/').next().unwrap();
        if self.down {
            return Err(503);
        }
        match (method.as_str(), last, name) {
            ("GET", "replicasets", "web") => {
                return Ok(json!({"metadata": {"uid": UID}, "spec": {"replicas": self.replicas}}));
            }
            _ => self.calls.push((method.clone(), if last == "ns" { name } else { last }.to_owned())),
        }
        let version = (self.version + 1).to_string();
        match (method.as_str(), last, name) {
            ("GET", "ns", "pods") => {
                let items: Vec<_> = self.pods.values().collect();
                Ok(json!({"metadata": {"resourceVersion": self.version.to_string()}, "items": items}))
            }
            ("PATCH", "pods", name) => {
                let mut pod = self.pods.get(name).cloned().ok_or(404u16)?;
                merge(&mut pod, body)?;
                self.put_pod(pod.clone());
                Ok(pod)
            }
            ("GET", "placements", name) => self.placements.get(name).cloned().ok_or(404),
            ("POST", "ns", "placements") => {
                let mut object = body.clone();
                let name = object["metadata"]["name"].as_str().unwrap().to_owned();
                if self.placements.contains_key(&name) {
                    return Err(409);
                }
                object["metadata"]["resourceVersion"] = json!(version);
                self.version += 1;
                self.placements.insert(name, object.clone());
                self.show_ledger(&object, false);
                Ok(object)
            }
            ("PATCH", "placements", name) => {
                let object = self.placements.get_mut(name).ok_or(404u16)?;
                merge(object, body)?;
                object["metadata"]["resourceVersion"] = json!(version);
                let object = object.clone();
                self.version += 1;
                self.show_ledger(&object, false);
                Ok(object)
            }
            ("DELETE", "placements", name) => {
                let object = self.placements.get(name).ok_or(404u16)?;
                if object["metadata"]["resourceVersion"] != body["preconditions"]["resourceVersion"] {
                    return Err(409);
                }
                let mut object = self.placements.remove(name).unwrap();
                object["metadata"]["resourceVersion"] = json!(version);
                self.version += 1;
                self.show_ledger(&object, true);
                Ok(json!({"kind": "Status"}))
            }
            other => panic!("{other:?}"),
        }
    }

    /// How often a ledger was written, or somebody tried to.
    pub(super) fn writes(&self) -> usize {
        self.calls.iter().filter(|(method, kind)| method != Method::GET && kind == "placements").count()
    }

    pub(super) fn lists(&self) -> usize {
        self.calls.iter().filter(|(method, kind)| method == Method::GET && kind == "pods").count()
    }
}

/// RFC 7386, where the version that the patch names, if it names one, still stands.
fn merge(object: &mut Value, patch: &Value) -> Result<(), u16> {
    let wanted = patch.pointer("/metadata/resourceVersion");
    if wanted.is_some_and(|wanted| object["metadata"]["resourceVersion"] != *wanted) {
        return Err(409);
    }
    json_patch::merge(object, patch);
    Ok(())
}
