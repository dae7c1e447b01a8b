//! An API server in memory: objects, resource versions, conflicts, label selectors and watches.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use http::{Method, Request};
use kube::Client;
use serde_json::{Value, json};

use crate::{MockResponse, Stream, client};

/// Stores objects by their path, such as `/api/v1/namespaces/ns/pods/web`.
///
/// It serves GET, lists, watches, POST, PUT, DELETE, evictions, and merge, JSON and apply patches. Unlike the real API server it knows
/// every kind and returns a list in one page, and an apply patch of an existing object changes nothing.
#[derive(Clone, Default)]
pub struct InMemoryApiServer(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    version: u64,
    objects: BTreeMap<String, Value>,
    /// Every change since the start: a watch begins with those after the version that it names.
    changes: Vec<Change>,
    watches: Vec<(Query, Stream)>,
    calls: Vec<Call>,
    failure: Option<(String, Failure)>,
    round_trip: Duration,
}

/// A request that the server has received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The method.
    pub method: Method,
    /// The path, without the query.
    pub path: String,
}

struct Change {
    version: u64,
    path: String,
    before: Option<Value>,
    after: Option<Value>,
}

/// Which objects a list or a watch selects.
struct Query {
    collection: String,
    labels: String,
    name: Option<String>,
}

/// Code and reason of a `metav1.Status`.
type Failure = (u16, &'static str);

const NOT_FOUND: Failure = (404, "NotFound");
const ALREADY_EXISTS: Failure = (409, "AlreadyExists");
const CONFLICT: Failure = (409, "Conflict");
const INVALID: Failure = (422, "Invalid");

impl InMemoryApiServer {
    /// Returns a client.
    pub fn client(&self) -> Client {
        let server = self.clone();
        client(move |request| {
            let server = server.clone();
            async move {
                let half = server.lock().round_trip / 2;
                tokio::time::sleep(half).await;
                let response = server.lock().respond(&request);
                tokio::time::sleep(half).await;
                response
            }
        })
    }

    /// Returns the object at `path`, or null.
    pub fn get(&self, path: &str) -> Value {
        self.lock().objects.get(path).cloned().unwrap_or_default()
    }

    /// Returns the objects of a collection, such as `/api/v1/namespaces/ns/pods` or `/api/v1/pods`, by name.
    pub fn list(&self, collection: &str) -> Vec<Value> {
        self.lock().select(&Query { collection: collection.to_owned(), labels: String::new(), name: None })
    }

    /// Creates or replaces an object, as another client would.
    pub fn put(&self, path: &str, object: Value) {
        self.lock().store(path, object);
    }

    /// Applies a merge patch (RFC 7386) to an object, as another client would.
    pub fn patch(&self, path: &str, change: &Value) {
        let mut object = self.get(path);
        json_patch::merge(&mut object, change);
        self.put(path, object);
    }

    /// Deletes an object, as another client would.
    pub fn delete(&self, path: &str) {
        self.lock().remove(path);
    }

    /// From now on, requests to paths that begin with `prefix` fail with this code and reason, and watches there end.
    pub fn fail(&self, prefix: &str, code: u16, reason: &'static str) {
        let mut state = self.lock();
        state.watches.retain(|(query, _)| !query.collection.starts_with(prefix));
        state.failure = Some((prefix.to_owned(), (code, reason)));
    }

    /// Ends what [`Self::fail`] began.
    pub fn recover(&self) {
        self.lock().failure = None;
    }

    /// Sets how long each request takes. Watch events are not delayed.
    pub fn set_round_trip(&self, round_trip: Duration) {
        self.lock().round_trip = round_trip;
    }

    /// Ends all watches with 410 Gone, so that clients list again.
    pub fn expire_watches(&self) {
        let expired =
            json!({"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": ""});
        for (_, stream) in self.lock().watches.drain(..) {
            stream.send_event("ERROR", &expired);
        }
    }

    /// Returns the requests so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl State {
    fn respond(&mut self, request: &Request<Value>) -> MockResponse {
        let path = request.uri().path();
        self.calls.push(Call { method: request.method().clone(), path: path.to_owned() });
        let failure = self.failure.as_ref().filter(|(prefix, _)| path.starts_with(prefix));
        if let Some((_, (code, reason))) = failure {
            return MockResponse::failure(*code, reason);
        }
        let query = request.uri().query().unwrap_or_default();
        let parameters: BTreeMap<_, _> = form_urlencoded::parse(query.as_bytes()).collect();
        let query = Query {
            collection: path.to_owned(),
            labels: parameters.get("labelSelector").map(ToString::to_string).unwrap_or_default(),
            name: parameters
                .get("fieldSelector")
                .map(|field| field.strip_prefix("metadata.name=").unwrap().to_owned()),
        };
        if parameters.contains_key("watch") {
            let after = parameters.get("resourceVersion").and_then(|version| version.parse().ok());
            return self.watch(query, after);
        }
        match self.call(request, &query) {
            Ok(object) => MockResponse::json(200, &object),
            Err((code, reason)) => MockResponse::failure(code, reason),
        }
    }

    fn call(&mut self, request: &Request<Value>, query: &Query) -> Result<Value, Failure> {
        let path = query.collection.strip_suffix("/status").unwrap_or(&query.collection);
        let body = request.body();
        match request.method().as_str() {
            "GET" if is_collection(path) => {
                let metadata = json!({"resourceVersion": self.version.to_string()});
                Ok(json!({"metadata": metadata, "items": self.select(query)}))
            }
            "GET" => self.objects.get(path).cloned().ok_or(NOT_FOUND),
            "POST" if path.ends_with("/eviction") => {
                let pod = path.trim_end_matches("/eviction");
                self.check_version(pod, body.pointer("/deleteOptions/preconditions/resourceVersion"))?;
                self.remove(pod).ok_or(NOT_FOUND)
            }
            "POST" => {
                let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap());
                if self.objects.contains_key(&path) {
                    Err(ALREADY_EXISTS)
                } else {
                    Ok(self.store(&path, body.clone()))
                }
            }
            "PUT" => self.replace(path, body.clone()),
            "PATCH" => {
                let media = request.headers()["content-type"].to_str().unwrap();
                let patched = patched(media, self.objects.get(path), body)?;
                self.replace(path, patched)
            }
            "DELETE" => {
                self.check_version(path, body.pointer("/preconditions/resourceVersion"))?;
                self.remove(path).ok_or(NOT_FOUND)
            }
            other => panic!("{other}"),
        }
    }

    /// Stores `object`, unless it names another version than the stored one.
    fn replace(&mut self, path: &str, object: Value) -> Result<Value, Failure> {
        self.check_version(path, object.pointer("/metadata/resourceVersion"))?;
        Ok(self.store(path, object))
    }

    fn check_version(&self, path: &str, wanted: Option<&Value>) -> Result<(), Failure> {
        let stored = self.objects.get(path);
        match wanted {
            Some(wanted) if stored.ok_or(NOT_FOUND)?["metadata"]["resourceVersion"] != *wanted => {
                Err(CONFLICT)
            }
            _ => Ok(()),
        }
    }

    /// Stores and returns an object, with a new version if it differs from the stored one.
    fn store(&mut self, path: &str, mut object: Value) -> Value {
        let before = self.objects.get(path).cloned();
        let stored = before.clone().unwrap_or_default();
        let (_, name) = path.rsplit_once('/').unwrap();
        object["metadata"]["name"] = name.into();
        object["metadata"]["resourceVersion"] = stored["metadata"]["resourceVersion"].clone();
        let generation = stored["metadata"]["generation"].as_i64().unwrap_or_default();
        object["metadata"]["generation"] =
            (generation + i64::from(content(&stored) != content(&object))).into();
        if !stored.is_null() {
            object["metadata"]["uid"] = stored["metadata"]["uid"].clone();
        } else if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = format!("uid-of-{name}").into();
        }
        if object == stored {
            return object;
        }
        object["metadata"]["resourceVersion"] = (self.version + 1).to_string().into();
        self.objects.insert(path.to_owned(), object.clone());
        self.record(path, before, Some(object.clone()));
        object
    }

    fn remove(&mut self, path: &str) -> Option<Value> {
        let before = self.objects.remove(path)?;
        self.record(path, Some(before.clone()), None);
        Some(before)
    }

    fn record(&mut self, path: &str, before: Option<Value>, after: Option<Value>) {
        self.version += 1;
        let change = Change { version: self.version, path: path.to_owned(), before, after };
        self.watches.retain(|(_, stream)| !stream.is_closed());
        for (query, stream) in &self.watches {
            change.send(query, stream);
        }
        self.changes.push(change);
    }

    /// Opens a watch: of the changes after a version, or of every object and then what changes.
    fn watch(&mut self, query: Query, after: Option<u64>) -> MockResponse {
        let (stream, response) = MockResponse::stream();
        match after {
            Some(after) => {
                self.changes
                    .iter()
                    .filter(|change| change.version > after)
                    .for_each(|change| change.send(&query, &stream));
            }
            None => self.select(&query).iter().for_each(|object| stream.send_event("ADDED", object)),
        }
        self.watches.push((query, stream));
        response
    }

    fn select(&self, query: &Query) -> Vec<Value> {
        let objects = self.objects.iter().filter(|(path, object)| query.selects(path, object));
        objects.map(|(_, object)| object.clone()).collect()
    }
}

impl Query {
    fn selects(&self, path: &str, object: &Value) -> bool {
        let (collection, name) = path.rsplit_once('/').unwrap();
        let in_collection = self.collection == collection || self.collection == in_all_namespaces(collection);
        in_collection
            && self.name.as_ref().is_none_or(|wanted| wanted == name)
            && self.labels.split(',').filter(|term| !term.is_empty()).all(|term| meets(object, term))
    }
}

impl Change {
    /// Sends the change, if it concerns the watch. For a watch, an object that no longer meets the selector is deleted.
    fn send(&self, query: &Query, stream: &Stream) {
        let selected =
            |object: &Option<Value>| object.clone().filter(|object| query.selects(&self.path, object));
        match (selected(&self.before), selected(&self.after)) {
            (None, None) => {}
            (None, Some(after)) => stream.send_event("ADDED", &after),
            (Some(_), Some(after)) => stream.send_event("MODIFIED", &after),
            (Some(mut last), None) => {
                last["metadata"]["resourceVersion"] = self.version.to_string().into();
                stream.send_event("DELETED", &last);
            }
        }
    }
}

/// The part of an object that its generation counts: everything except metadata and status.
fn content(object: &Value) -> BTreeMap<&String, &Value> {
    let fields = object.as_object().into_iter().flatten();
    fields.filter(|(field, _)| !matches!(field.as_str(), "metadata" | "status")).collect()
}

/// Whether an object meets one term of a label selector: `key`, `key=value` or `key!=value`.
fn meets(object: &Value, term: &str) -> bool {
    let Some((key, value)) = term.split_once('=') else {
        return object["metadata"]["labels"][term].is_string();
    };
    match key.strip_suffix('!') {
        Some(key) => object["metadata"]["labels"][key] != value,
        None => object["metadata"]["labels"][key] == value,
    }
}

/// `/api/v1/namespaces/ns/pods` as `/api/v1/pods`.
fn in_all_namespaces(path: &str) -> String {
    let segments: Vec<_> = path.split('/').collect();
    match segments.iter().position(|segment| *segment == "namespaces") {
        Some(at) if segments.len() > at + 2 => [&segments[..at], &segments[at + 2..]].concat().join("/"),
        _ => path.to_owned(),
    }
}

/// Whether a path ends with a plural, as `/api/v1/pods` and `/apis/apps/v1/namespaces/ns/deployments` do, and not with a name.
fn is_collection(path: &str) -> bool {
    let plural = if path.starts_with("/api/") { 3 } else { 4 };
    in_all_namespaces(path).split('/').count() == plural + 1
}

fn patched(media: &str, stored: Option<&Value>, patch: &Value) -> Result<Value, Failure> {
    if media == "application/apply-patch+yaml" {
        return Ok(stored.unwrap_or(patch).clone());
    }
    let mut object = stored.cloned().ok_or(NOT_FOUND)?;
    match media {
        "application/merge-patch+json" => json_patch::merge(&mut object, patch),
        "application/json-patch+json" => {
            let operations: json_patch::Patch = serde_json::from_value(patch.clone()).unwrap();
            json_patch::patch(&mut object, &operations).map_err(|_| INVALID)?;
        }
        other => panic!("{other}"),
    }
    Ok(object)
}

#[cfg(test)]
mod tests {
    use futures::{AsyncBufReadExt, TryStreamExt};
    use http::header::CONTENT_TYPE;

    use super::*;

    const PODS: &str = "/api/v1/namespaces/ns/pods";
    const POD: &str = "/api/v1/namespaces/ns/pods/a";

    async fn send(server: &InMemoryApiServer, method: &str, path: &str, body: Value) -> Result<Value, u16> {
        let request =
            Request::builder().method(method).uri(path).header(CONTENT_TYPE, "application/merge-patch+json");
        match server.client().request(request.body(body.to_string().into_bytes()).unwrap()).await {
            Ok(object) => Ok(object),
            Err(kube::Error::Api(status)) => Err(status.code),
            Err(error) => panic!("{error}"),
        }
    }

    #[tokio::test]
    async fn write_of_an_old_version_conflicts() {
        let server = InMemoryApiServer::default();
        let created = send(&server, "POST", PODS, json!({"metadata": {"name": "a"}})).await.unwrap();
        assert_eq!(send(&server, "POST", PODS, created.clone()).await, Err(409));
        let old = &created["metadata"]["resourceVersion"];
        let patch = json!({"metadata": {"resourceVersion": old, "labels": {"app": "web"}}});
        let patched = send(&server, "PATCH", POD, patch.clone()).await.unwrap();
        assert_ne!(patched["metadata"]["resourceVersion"], *old);
        assert_eq!(send(&server, "PATCH", POD, patch).await, Err(409));
        assert_eq!(send(&server, "PUT", POD, created.clone()).await, Err(409));
        let precondition = |version: &Value| json!({"preconditions": {"resourceVersion": version}});
        assert_eq!(send(&server, "DELETE", POD, precondition(old)).await, Err(409));
        send(&server, "DELETE", POD, precondition(&patched["metadata"]["resourceVersion"])).await.unwrap();
        assert_eq!(send(&server, "GET", POD, Value::Null).await, Err(404));
    }

    #[tokio::test]
    async fn watch_sends_changes_of_selected_objects_since_the_list() {
        let server = InMemoryApiServer::default();
        server.put(POD, json!({"metadata": {"labels": {"app": "web"}}}));
        server.put("/api/v1/namespaces/ns/pods/other", json!({"metadata": {"labels": {"app": "db"}}}));
        let query = "labelSelector=app%3Dweb";
        let list = send(&server, "GET", &format!("/api/v1/pods?{query}"), Value::Null).await.unwrap();
        assert_eq!(list["items"].as_array().unwrap().len(), 1);
        server.patch(POD, &json!({"spec": {"nodeName": "n"}}));
        let version = list["metadata"]["resourceVersion"].as_str().unwrap();
        let path = format!("/api/v1/pods?watch=true&{query}&resourceVersion={version}");
        let watch =
            server.client().request_stream(Request::get(path).body(Vec::new()).unwrap()).await.unwrap();
        server.patch(POD, &json!({"metadata": {"labels": {"app": null}}}));
        server.put("/api/v1/namespaces/elsewhere/pods/b", json!({"metadata": {"labels": {"app": "web"}}}));
        server.expire_watches();
        let events: Vec<String> = watch.lines().try_collect().await.unwrap();
        let events = events.iter().map(|line| serde_json::from_str(line).unwrap());
        let events: Vec<_> = events
            .map(|event: Value| [event["type"].clone(), event["object"]["metadata"]["name"].clone()])
            .collect();
        let expected = json!([["MODIFIED", "a"], ["DELETED", "a"], ["ADDED", "b"], ["ERROR", null]]);
        assert_eq!(json!(events), expected);
    }
}
