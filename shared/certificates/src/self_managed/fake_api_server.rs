//! An API server in memory, as far as a controller needs one: GET, watch, and the three kinds of PATCH, with conflicts.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use futures::stream;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

pub(super) const SECRET: &str = "/api/v1/namespaces/podshaper/secrets/tls";
pub(super) const CONFIGURATION: &str =
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/peerpods";

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

#[derive(Clone, Default)]
pub(super) struct FakeApiServer(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    version: u64,
    objects: BTreeMap<String, Value>,
    watches: Vec<(String, UnboundedSender<Bytes>)>,
    /// What every request to paths that begin so is answered with.
    refusal: Option<(&'static str, StatusCode)>,
    patches: usize,
}

impl FakeApiServer {
    /// An empty Secret, and a configuration with two webhooks that trust nobody.
    pub(super) fn new() -> Self {
        let server = Self::default();
        server.put(SECRET, json!({ "metadata": { "labels": { "a": "b" } }, "data": { "foreign": "eA==" } }));
        let webhook = |name| json!({ "name": name, "clientConfig": { "service": { "name": "peerpods" } } });
        server.put(CONFIGURATION, json!({ "metadata": {}, "webhooks": [webhook("one"), webhook("two")] }));
        server
    }

    pub(super) fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await?.to_bytes();
                Ok::<_, kube::Error>(server.answer(&parts, &body))
            }
        });
        Client::new(service, "podshaper")
    }

    pub(super) fn get(&self, path: &str) -> Value {
        self.0.lock().unwrap().objects.get(path).cloned().unwrap_or_default()
    }

    /// Writes an object, as somebody else would.
    pub(super) fn put(&self, path: &str, object: Value) {
        self.0.lock().unwrap().put(path, object);
    }

    pub(super) fn delete(&self, path: &str) {
        let mut state = self.0.lock().unwrap();
        state.objects.remove(path);
        state.tell(path);
    }

    /// Answers requests to paths that begin with `prefix` with `status` from now on.
    pub(super) fn refuse(&self, refusal: Option<(&'static str, StatusCode)>) {
        let mut state = self.0.lock().unwrap();
        state.refusal = refusal;
        state.watches.clear();
    }

    /// How many patches were tried so far.
    pub(super) fn patches(&self) -> usize {
        self.0.lock().unwrap().patches
    }

    /// How many CAs each webhook's caBundle has.
    pub(super) fn trusted(&self) -> Vec<usize> {
        let configuration = self.get(CONFIGURATION);
        let bundle = |webhook: &Value| {
            let base64 = webhook["clientConfig"]["caBundle"].as_str().unwrap_or_default();
            String::from_utf8(BASE64.decode(base64).unwrap()).unwrap().matches("BEGIN").count()
        };
        configuration["webhooks"].as_array().unwrap().iter().map(bundle).collect()
    }

    fn answer(&self, request: &http::request::Parts, body: &[u8]) -> Answer {
        let mut state = self.0.lock().unwrap();
        let (path, query) = (request.uri.path(), request.uri.query().unwrap_or_default());
        if let Some((_, status)) = state.refusal.filter(|(prefix, _)| path.starts_with(prefix)) {
            return status_answer(status);
        }
        if let Some(name) = query.strip_prefix("watch=true&fieldSelector=metadata.name%3D") {
            let (sender, receiver) = unbounded_channel();
            let path = format!("{path}/{}", name.split('&').next().unwrap());
            state.watches.push((path.clone(), sender));
            state.tell(&path);
            return Response::new(StreamBody::new(frames(receiver)).boxed_unsync());
        }
        if request.method == Method::PATCH {
            state.patches += 1;
            match state.patch(path, request.headers["content-type"].to_str().unwrap(), body) {
                Ok(()) => {}
                Err(status) => return status_answer(status),
            }
        } else {
            assert_eq!(request.method, Method::GET, "a right that nobody grants");
        }
        match state.objects.get(path) {
            None => status_answer(StatusCode::NOT_FOUND),
            Some(object) => answer(StatusCode::OK, object),
        }
    }
}

impl State {
    fn put(&mut self, path: &str, mut object: Value) {
        self.version += 1;
        let before = self.objects.get(path).cloned().unwrap_or_default();
        let generation = before["metadata"]["generation"].as_i64().unwrap_or_default();
        let changed = i64::from(before["webhooks"] != object["webhooks"]);
        object["metadata"]["generation"] = (generation + changed).into();
        object["metadata"]["uid"] = "uid".into();
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        if self.objects.get(path) != Some(&object) {
            self.objects.insert(path.to_owned(), object);
            self.tell(path);
        }
    }

    fn tell(&mut self, path: &str) {
        let event = Bytes::from(json!({ "type": "MODIFIED", "object": {} }).to_string() + "\n");
        self.watches.retain(|(watched, sender)| watched != path || sender.send(event.clone()).is_ok());
    }

    fn patch(&mut self, path: &str, media: &str, body: &[u8]) -> Result<(), StatusCode> {
        let change: Value = serde_json::from_str(std::str::from_utf8(body).unwrap()).unwrap();
        let before = self.objects.get(path).cloned();
        let mut object = match media {
            "application/apply-patch+yaml" => before.clone().unwrap_or(change),
            "application/merge-patch+json" => {
                let mut object = before.clone().ok_or(StatusCode::NOT_FOUND)?;
                json_patch::merge(&mut object, &change);
                object
            }
            "application/json-patch+json" => {
                let mut object = before.clone().ok_or(StatusCode::NOT_FOUND)?;
                let operations: json_patch::Patch = serde_json::from_value(change).unwrap();
                json_patch::patch(&mut object, &operations).map_err(|_| StatusCode::UNPROCESSABLE_ENTITY)?;
                object
            }
            other => panic!("{other}"),
        };
        let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
        if before.is_some_and(|before| version(&before) != version(&object)) {
            return Err(StatusCode::CONFLICT);
        }
        self.put(path, object.take());
        Ok(())
    }
}

fn frames(
    events: UnboundedReceiver<Bytes>,
) -> impl stream::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send {
    stream::unfold(events, async |mut events| Some((Ok(Frame::data(events.recv().await?)), events)))
}

fn answer(code: StatusCode, body: &Value) -> Answer {
    Response::builder().status(code).body(Full::from(body.to_string()).boxed_unsync()).unwrap()
}

fn status_answer(code: StatusCode) -> Answer {
    let message = format!("the server says {code}");
    answer(code, &json!({ "kind": "Status", "status": "Failure", "message": message, "code": code.as_u16() }))
}
