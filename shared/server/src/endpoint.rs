//! The HTTP side of admission: from a request to an answer.

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::FutureExt;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::timeout_at;

use super::body::{BodyError, Budget, Buffered, discard};
use super::drain::{Drain, Stage};
use super::limits::Limits;
use super::timeout;
use crate::telemetry::{AdmissionMetrics, Refusal};
use podshaper_core::admission;
use podshaper_core::admission::Webhook;

/// Serves one webhook under its path.
pub(super) struct Endpoint<W> {
    webhook: Arc<W>,
    paths: &'static [&'static str],
    max_in_flight: usize,
    budget: Budget,
    drain: Arc<Drain>,
    metrics: AdmissionMetrics,
}

type Reply = Response<Full<Bytes>>;

impl<W: Webhook> Endpoint<W> {
    pub(super) fn new(
        webhook: Arc<W>,
        paths: &'static [&'static str],
        limits: &Limits,
        drain: Arc<Drain>,
        metrics: AdmissionMetrics,
    ) -> Self {
        Self {
            webhook,
            paths,
            max_in_flight: limits.max_in_flight,
            budget: Budget::new(limits),
            drain,
            metrics,
        }
    }

    /// Answers one HTTP request.
    pub(super) fn serve(
        self: &Arc<Self>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Reply> + use<W> {
        let in_flight = self.drain.request();
        let started = Instant::now();
        let deadline = started + timeout::of_query(request.uri().query());
        let version = request.version();
        // Where some originals' probes look.
        let health = request.uri().path() == "/health" && request.method() == Method::GET;
        // The head has said all that it has to: what waits for the body is small.
        let checked = self.check(&request);
        let body = request.into_body();
        let endpoint = Arc::clone(self);
        async move {
            // A panic must cost one request, never the connection's other ones.
            let answered = AssertUnwindSafe(endpoint.admit(checked, body, deadline)).catch_unwind().await;
            let answered = answered
                .unwrap_or_else(|_| Err(Refused::new(Refusal::Panic, "internal error; the log says more")));
            let mut reply = match answered {
                Ok(answer) => {
                    endpoint.metrics.answered(answer.outcome, started.elapsed());
                    json(answer.body)
                }
                Err(_) if health => Response::new(Full::from("OK")),
                Err(refused) => endpoint.refuse(&refused),
            };
            if endpoint.drain.stage() >= Stage::Draining && version < Version::HTTP_2 {
                reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            drop(in_flight);
            reply
        }
    }

    async fn admit(
        &self,
        checked: Result<(), Refused>,
        body: Incoming,
        deadline: Instant,
    ) -> Result<admission::Answer, Refused> {
        if let Err(refused) = checked {
            discard(body);
            return Err(refused);
        }
        timeout_at(deadline.into(), self.decide(body, deadline)).await.unwrap_or_else(|_| {
            Err(Refused::new(Refusal::Timeout, "the request took longer than its timeout"))
        })
    }

    #[cold]
    fn refuse(&self, refused: &Refused) -> Reply {
        self.metrics.refused(refused.refusal);
        tracing::debug!(reason = ?refused.refusal, answer = &*refused.message, "refused");
        refused.reply()
    }

    /// What the head of a request tells already.
    fn check(&self, request: &Request<Incoming>) -> Result<(), Refused> {
        if !self.paths.contains(&request.uri().path()) {
            let known = self.paths.join(", ");
            return Err(Refused::new(
                Refusal::Path,
                format!("nothing is served here; admission reviews go to {known}"),
            ));
        }
        if request.method() != Method::POST {
            return Err(Refused::new(Refusal::Method, "send an AdmissionReview with POST"));
        }
        let content_type =
            request.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if content_type
            .split(';')
            .next()
            .is_none_or(|media| !media.trim().eq_ignore_ascii_case("application/json"))
        {
            return Err(Refused::new(Refusal::ContentType, "the content type must be application/json"));
        }
        if self.drain.in_flight() > self.max_in_flight {
            return Err(Refused::new(Refusal::Busy, "too many requests at a time; try again"));
        }
        Ok(())
    }

    async fn decide(&self, body: Incoming, deadline: Instant) -> Result<admission::Answer, Refused> {
        let body: Buffered = self.budget.read(body).await?;
        if body.bytes.is_empty() {
            return Err(Refused::new(Refusal::Review, "the body is empty; send an AdmissionReview"));
        }
        let answer = admission::answer(&*self.webhook, &body.bytes, deadline).await;
        answer.map_err(|e| Refused::new(Refusal::Review, e.to_string()))
    }
}

/// An HTTP request that gets no admission answer, and what its sender is told.
#[derive(Debug)]
struct Refused {
    refusal: Refusal,
    message: Cow<'static, str>,
}

impl Refused {
    fn new(refusal: Refusal, message: impl Into<Cow<'static, str>>) -> Self {
        Self { refusal, message: message.into() }
    }

    fn reply(&self) -> Reply {
        let mut reply = text(self.refusal.status(), &self.message);
        let header = match self.refusal {
            // A second is the least that the API server waits.
            Refusal::Busy => Some((RETRY_AFTER, "1")),
            Refusal::Method => Some((ALLOW, "POST")),
            _ => None,
        };
        reply.headers_mut().extend(header.map(|(name, value)| (name, HeaderValue::from_static(value))));
        reply
    }
}

impl From<BodyError> for Refused {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::NoLength => Self::new(Refusal::Length, "send the body's length in Content-Length"),
            BodyError::TooLarge => {
                Self::new(Refusal::TooLarge, "the body is larger than this server accepts")
            }
            BodyError::Busy => Self::new(Refusal::Busy, "too many bytes at a time; try again"),
            BodyError::Broken => Self::new(Refusal::Review, "the body broke off"),
        }
    }
}

fn json(body: Vec<u8>) -> Reply {
    let mut reply = Response::new(Full::from(body));
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

/// A line for people.
pub fn text(status: StatusCode, message: &str) -> Reply {
    let mut reply = Response::new(Full::from(format!("{message}\n")));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    reply
}
