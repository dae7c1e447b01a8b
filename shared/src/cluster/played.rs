//! The API server as a test plays it: every request waits for its answer.

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
use serde::de::IgnoredAny;
use serde_json::Value;

use super::{Object, Trim};

/// A kind that there is for tests: its spec is a number, of no interest if it is zero.
#[derive(Debug, PartialEq)]
pub(super) struct Thing(pub(super) u32);

impl Trim for Thing {
    type Spec = u32;
    type Status = IgnoredAny;
    const PLURAL: &'static str = "things";
    const API: &'static str = "/apis/x/v1";

    fn trim(object: Object<u32, IgnoredAny>) -> Option<Self> {
        object.spec.filter(|spec| *spec > 0).map(Self)
    }
}

type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// The requests that come.
pub(super) struct Played(UnboundedReceiver<(String, oneshot::Sender<Answer>)>);

/// A request that waits.
pub(super) struct Asked(oneshot::Sender<Answer>);

/// An answer that comes piece by piece.
pub(super) struct Stream(UnboundedSender<io::Result<Bytes>>);

impl Played {
    pub(super) fn start() -> (Client, Self) {
        let (sender, requests) = unbounded();
        let service = tower::service_fn(move |request: Request<Body>| {
            let (answer, answered) = oneshot::channel();
            let _ = sender.unbounded_send((request.uri().to_string(), answer));
            // A test that doesn't answer lets it wait.
            async move {
                match answered.await {
                    Ok(answer) => Ok::<_, Infallible>(answer),
                    Err(_) => std::future::pending().await,
                }
            }
        });
        (Client::new(service, "default"), Self(requests))
    }

    /// The next request, which must be for `uri`.
    pub(super) async fn next(&mut self, uri: &str) -> Asked {
        let (asked, answer) = self.0.next().await.unwrap();
        assert_eq!(asked, uri);
        Asked(answer)
    }

    /// Whether nothing else was asked for.
    pub(super) fn is_idle(&mut self) -> bool {
        self.0.try_recv().is_err()
    }
}

impl Asked {
    pub(super) fn answer(self, status: u16, body: &Value) {
        let body = Full::from(body.to_string()).map_err(|never| match never {}).boxed_unsync();
        let _ = self.0.send(Response::builder().status(status).body(body).unwrap());
    }

    pub(super) fn stream(self) -> Stream {
        let (sender, pieces) = unbounded();
        let body = StreamBody::new(pieces.map_ok(Frame::data)).boxed_unsync();
        let _ = self.0.send(Response::new(body));
        Stream(sender)
    }
}

impl Stream {
    pub(super) fn send(&self, text: &str) {
        self.0.unbounded_send(Ok(Bytes::from(text.to_owned()))).unwrap();
    }

    pub(super) fn break_off(self) {
        self.0.unbounded_send(Err(io::ErrorKind::ConnectionReset.into())).unwrap();
    }
}
