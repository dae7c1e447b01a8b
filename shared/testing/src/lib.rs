//! API servers for tests: [`MockApiServer`] leaves each request to the test, [`client`] to a function, and
//! [`InMemoryApiServer`] stores objects. [`command_line`] checks binaries, and [`metrics`] their metrics.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a panic here is a failed test"
)]

pub mod command_line;
mod in_memory;
pub mod metrics;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::channel::oneshot;
use futures::{StreamExt, TryStreamExt};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

pub use in_memory::{Call, InMemoryApiServer};

/// Returns a client of an API server that responds as `respond` says. A request without a body has the body `null`.
pub fn client<F>(respond: impl Fn(Request<Value>) -> F + Send + Sync + 'static) -> Client
where
    F: Future<Output = MockResponse> + Send + 'static,
{
    let respond = Arc::new(respond);
    let service = tower::service_fn(move |request: Request<Body>| {
        let respond = Arc::clone(&respond);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap();
            let body = if body.is_empty() { Value::Null } else { parse(&body) };
            Ok::<_, Infallible>(respond(Request::from_parts(head, body)).await.0)
        }
    });
    Client::new(service, "default")
}

fn parse(body: &[u8]) -> Value {
    serde_json::from_str(std::str::from_utf8(body).unwrap()).unwrap()
}

/// Receives the requests of the client that [`MockApiServer::start`] returns.
pub struct MockApiServer(UnboundedReceiver<PendingRequest>);

impl MockApiServer {
    /// Starts the server and returns its client.
    pub fn start() -> (Client, Self) {
        let (sender, requests) = unbounded();
        let client = client(move |request| {
            let (responder, response) = oneshot::channel();
            let _ = sender.unbounded_send(PendingRequest { request, responder });
            async move {
                match response.await {
                    Ok(response) => response,
                    Err(_) => std::future::pending().await,
                }
            }
        });
        (client, Self(requests))
    }

    /// Waits for the next request and asserts its URI.
    pub async fn next(&mut self, uri: &str) -> PendingRequest {
        let pending = self.next_request().await;
        assert_eq!(pending.request.uri().to_string(), uri);
        pending
    }

    /// Waits for the next request.
    pub async fn next_request(&mut self) -> PendingRequest {
        self.0.next().await.unwrap()
    }

    /// Returns true if no request is pending.
    pub fn is_idle(&mut self) -> bool {
        self.0.try_recv().is_err()
    }
}

/// A request without a response. A dropped one never gets a response.
pub struct PendingRequest {
    request: Request<Value>,
    responder: oneshot::Sender<MockResponse>,
}

impl PendingRequest {
    /// The request, its body parsed as JSON.
    pub fn request(&self) -> &Request<Value> {
        &self.request
    }

    /// Sends `response`, unless the client has given up.
    pub fn respond(self, response: MockResponse) {
        let _ = self.responder.send(response);
    }

    /// Responds with `status` and a JSON body.
    pub fn answer(self, status: u16, body: &Value) {
        self.respond(MockResponse::json(status, body));
    }

    /// Responds with status 200 and a body that the test sends in pieces.
    pub fn stream(self) -> Stream {
        let (stream, response) = MockResponse::stream();
        self.respond(response);
        stream
    }
}

/// A response of the API server.
pub struct MockResponse(Response<UnsyncBoxBody<Bytes, io::Error>>);

impl MockResponse {
    /// A response with `status` and a JSON body.
    pub fn json(status: u16, body: &Value) -> Self {
        let body = Full::from(body.to_string()).map_err(|never| match never {}).boxed_unsync();
        Self(Response::builder().status(status).body(body).unwrap())
    }

    /// A failure as a `metav1.Status`, with its `reason`, such as `NotFound`.
    pub fn failure(status: u16, reason: &str) -> Self {
        let message = format!("the mock API server responds with {reason}");
        Self::json(
            status,
            &json!({"kind": "Status", "status": "Failure", "code": status, "reason": reason, "message": message}),
        )
    }

    /// A response with status 200, its body sent through the [`Stream`].
    pub fn stream() -> (Stream, Self) {
        let (sender, pieces) = unbounded();
        let body = StreamBody::new(pieces.map_ok(Frame::data)).boxed_unsync();
        (Stream(sender), Self(Response::new(body)))
    }
}

/// The body of a response, sent in pieces: a watch. The body ends when this is dropped.
pub struct Stream(UnboundedSender<io::Result<Bytes>>);

impl Stream {
    /// Sends a piece of the body.
    pub fn send(&self, text: &str) {
        self.0.unbounded_send(Ok(Bytes::from(text.to_owned()))).unwrap();
    }

    /// Sends a watch event: a `metav1.WatchEvent` of this type.
    pub fn send_event(&self, kind: &str, object: &Value) {
        self.send(&format!("{}\n", json!({"type": kind, "object": object})));
    }

    /// Returns true if the client has left.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Ends the body with a connection reset.
    pub fn break_off(self) {
        self.0.unbounded_send(Err(io::ErrorKind::ConnectionReset.into())).unwrap();
    }
}
