//! A scripted API server for tests: each request waits until the test answers it.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a panic here is a failed test")]

use std::convert::Infallible;
use std::io;

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
use serde_json::Value;

type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// Receives the requests of the client that [`MockApiServer::start`] returns.
pub struct MockApiServer(UnboundedReceiver<(String, oneshot::Sender<Answer>)>);

/// A request without a response. A dropped one never gets a response.
pub struct PendingRequest(oneshot::Sender<Answer>);

/// The body of a response, sent in pieces: a watch.
pub struct Stream(UnboundedSender<io::Result<Bytes>>);

impl MockApiServer {
    /// Starts the server and returns its client, with `default` as the default namespace.
    pub fn start() -> (Client, Self) {
        let (sender, requests) = unbounded();
        let service = tower::service_fn(move |request: Request<Body>| {
            let (answer, answered) = oneshot::channel();
            let _ = sender.unbounded_send((request.uri().to_string(), answer));
            async move {
                match answered.await {
                    Ok(answer) => Ok::<_, Infallible>(answer),
                    Err(_) => std::future::pending().await,
                }
            }
        });
        (Client::new(service, "default"), Self(requests))
    }

    /// Waits for the next request and asserts its URI.
    pub async fn next(&mut self, uri: &str) -> PendingRequest {
        let (asked, answer) = self.0.next().await.unwrap();
        assert_eq!(asked, uri);
        PendingRequest(answer)
    }

    /// Returns true if no request is pending.
    pub fn is_idle(&mut self) -> bool {
        self.0.try_recv().is_err()
    }
}

impl PendingRequest {
    /// Responds with `status` and a JSON body.
    pub fn answer(self, status: u16, body: &Value) {
        let body = Full::from(body.to_string()).map_err(|never| match never {}).boxed_unsync();
        let _ = self.0.send(Response::builder().status(status).body(body).unwrap());
    }

    /// Responds with status 200 and a body that the test sends in pieces.
    pub fn stream(self) -> Stream {
        let (sender, pieces) = unbounded();
        let body = StreamBody::new(pieces.map_ok(Frame::data)).boxed_unsync();
        let _ = self.0.send(Response::new(body));
        Stream(sender)
    }
}

impl Stream {
    /// Sends a piece of the body.
    pub fn send(&self, text: &str) {
        self.0.unbounded_send(Ok(Bytes::from(text.to_owned()))).unwrap();
    }

    /// Ends the body with a connection reset.
    pub fn break_off(self) {
        self.0.unbounded_send(Err(io::ErrorKind::ConnectionReset.into())).unwrap();
    }
}
