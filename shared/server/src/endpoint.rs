//! From an HTTP request to the response: limits, deadline, body, decision.

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Method, Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::time::{timeout, timeout_at};
use tracing::field::Empty;
use tracing::{Instrument, Span};

use crate::connection_pool::RequestCounter;
use crate::limits::Limits;
use crate::memory::{MemoryBudget, Reservation};
use crate::metrics::{AdmissionMetrics, RejectReason};
use crate::response::{HttpResponse, text};
use podshaper_core::admission::{self, Received, ReviewError, Webhook};
use podshaper_core::duration;

/// The API server allows a webhook at most this long.
const MAX_TIMEOUT: Duration = Duration::from_secs(30);
/// The API server's default, for requests without a `timeout` parameter.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the body of a rejected request is read. Closing a connection with unread data resets it, and the client loses the response.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);
/// Answers the requests for one webhook.
pub(crate) struct Endpoint<W> {
    webhook: Arc<W>,
    paths: &'static [&'static str],
    requests: Arc<RequestCounter>,
    max_in_flight: usize,
    max_body_bytes: usize,
    budget: MemoryBudget,
    metrics: AdmissionMetrics,
}

/// An HTTP response, and what its connection must know about it.
pub(crate) struct Reply {
    pub(crate) response: HttpResponse,
    /// Whether it answers a review.
    pub(crate) is_review: bool,
    /// The timeout of its request.
    pub(crate) timeout: Duration,
    /// The memory that it takes until it is written.
    pub(crate) memory: Reservation,
}

impl<W: Webhook> Endpoint<W> {
    pub(crate) fn new(
        webhook: Arc<W>,
        paths: &'static [&'static str],
        limits: &Limits,
        metrics: AdmissionMetrics,
    ) -> Self {
        Self {
            webhook,
            paths,
            requests: RequestCounter::new(),
            max_in_flight: limits.max_in_flight,
            max_body_bytes: limits.max_body_bytes,
            budget: MemoryBudget::new(limits),
            metrics,
        }
    }

    /// The requests of all connections.
    pub(crate) fn requests(&self) -> &RequestCounter {
        &self.requests
    }

    /// Answers one request.
    pub(crate) fn serve(
        self: &Arc<Self>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Reply> + use<W> {
        let in_flight = self.requests.begin();
        let started = Instant::now();
        let timeout = request_timeout(request.uri().query());
        // The readiness probe of some of the webhooks that this project replaces.
        let is_probe = request.uri().path() == "/health" && request.method() == Method::GET;
        // Checked before the future is made, which then holds the body alone and stays small while it waits.
        let checked = self.check(&request);
        let body = request.into_body();
        let length = body.size_hint().exact().and_then(|length| usize::try_from(length).ok());
        let mut memory = self.budget.reservation(length.unwrap_or_default());
        let endpoint = Arc::clone(self);
        // Every log line of the request has its uid.
        let span = tracing::error_span!("review", uid = Empty);
        let reply = async move {
            let _in_flight = in_flight;
            // A panic ends one request and not the others of its connection.
            let review = endpoint.review(checked, body, started + timeout, &mut memory);
            let reviewed = AssertUnwindSafe(review).catch_unwind().await.unwrap_or_else(|_| {
                Err(Rejection::new(RejectReason::Panic, "internal error; see the log of the webhook"))
            });
            let is_review = reviewed.is_ok();
            let response = match reviewed {
                Ok(answer) => {
                    endpoint.metrics.record_review(answer.outcome, started.elapsed());
                    memory.shrink_to(answer.body.len());
                    let mut response = Response::new(Full::from(answer.body));
                    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                    response
                }
                Err(rejection) => {
                    memory.shrink_to(0);
                    if is_probe {
                        Response::new(Full::from("OK"))
                    } else {
                        endpoint.metrics.record_rejection(rejection.reason);
                        rejection.into_response()
                    }
                }
            };
            Reply { response, is_review, timeout, memory }
        };
        reply.instrument(span)
    }

    /// Checks everything but the body.
    fn check(&self, request: &Request<Incoming>) -> Result<(), Rejection> {
        if !self.paths.contains(&request.uri().path()) {
            let known = self.paths.join(", ");
            return Err(Rejection::new(
                RejectReason::Path,
                format!("not found: send admission reviews to {known}"),
            ));
        }
        if request.method() != Method::POST {
            return Err(Rejection::new(
                RejectReason::Method,
                "method not allowed: send an AdmissionReview with POST",
            ));
        }
        let content_type =
            request.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        if !media_type.eq_ignore_ascii_case("application/json") {
            return Err(Rejection::new(
                RejectReason::ContentType,
                "the content type must be application/json",
            ));
        }
        if self.requests.in_flight() > self.max_in_flight {
            return Err(Rejection::new(RejectReason::Busy, "too many requests in flight; try again"));
        }
        Ok(())
    }

    async fn review(
        &self,
        checked: Result<(), Rejection>,
        mut body: Incoming,
        deadline: Instant,
        memory: &mut Reservation,
    ) -> Result<admission::Answer, Rejection> {
        let answer = async {
            let read = match checked {
                Ok(()) => self.read(&mut body, memory).await,
                Err(rejection) => Err(rejection),
            };
            let bytes = read.inspect_err(|_| discard(body))?;
            if bytes.is_empty() {
                return Err(Rejection::new(
                    RejectReason::Review,
                    "the body is empty; send an AdmissionReview",
                ));
            }
            let receive = |received: Received<'_>| {
                Span::current().record("uid", received.uid);
                memory.grow(received.view_bytes).is_ok()
            };
            let answer = admission::answer_received(&*self.webhook, &bytes, deadline, receive).await;
            answer.map_err(|error| match error {
                ReviewError::NoMemory => Rejection::no_memory(),
                error => Rejection::new(RejectReason::Review, error.to_string()),
            })
        };
        timeout_at(deadline.into(), answer).await.unwrap_or_else(|_| {
            Err(Rejection::new(RejectReason::Timeout, "the request took longer than its timeout"))
        })
    }

    /// Reads the whole body. Reserves budget for the bytes that arrive, not for `Content-Length`.
    async fn read(&self, body: &mut Incoming, memory: &mut Reservation) -> Result<Bytes, Rejection> {
        let too_large =
            || Rejection::new(RejectReason::TooLarge, "the body is larger than this server accepts");
        let length = body.size_hint().exact().ok_or_else(|| {
            Rejection::new(RejectReason::Length, "send the body's length in Content-Length")
        })?;
        let length = usize::try_from(length).map_err(|_| too_large())?;
        if length > self.max_body_bytes {
            return Err(too_large());
        }
        let mut reserve = |bytes: usize| memory.grow(bytes).map_err(|_| Rejection::no_memory());
        let Some(first) = next_frame(body).await? else { return Ok(Bytes::new()) };
        reserve(first.len())?;
        // Most reviews arrive in one frame, which needs no copy.
        let Some(second) = next_frame(body).await? else { return Ok(first) };
        // Pages that are never written to take no memory, and a buffer that grows would take the body twice.
        let mut bytes = BytesMut::with_capacity(length);
        bytes.extend_from_slice(&first);
        let mut next = Some(second);
        while let Some(frame) = next {
            reserve(frame.len())?;
            bytes.extend_from_slice(&frame);
            next = next_frame(body).await?;
        }
        Ok(bytes.freeze())
    }
}

async fn next_frame(body: &mut Incoming) -> Result<Option<Bytes>, Rejection> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Rejection::new(RejectReason::Review, "the body is incomplete"))?;
        // Every other frame has trailers.
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

fn discard(mut body: Incoming) {
    let rest = async move { while let Ok(Some(_)) = next_frame(&mut body).await {} };
    tokio::spawn(timeout(DISCARD_TIMEOUT, rest));
}

/// The `timeout` parameter of the API server's URL, a duration as Go prints it, within its bounds.
fn request_timeout(query: Option<&str>) -> Duration {
    query
        .into_iter()
        .flat_map(|query| query.split('&'))
        .find_map(|pair| pair.strip_prefix("timeout="))
        .and_then(|timeout| duration::parse(timeout).ok())
        .map_or(DEFAULT_TIMEOUT, |timeout| timeout.min(MAX_TIMEOUT))
}

/// A request that is answered without a review.
#[derive(Debug)]
struct Rejection {
    reason: RejectReason,
    message: Cow<'static, str>,
}

impl Rejection {
    fn new(reason: RejectReason, message: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, message: message.into() }
    }

    fn no_memory() -> Self {
        Self::new(RejectReason::Busy, "too many bytes in memory; try again")
    }

    #[cold]
    fn into_response(self) -> HttpResponse {
        tracing::debug!(reason = ?self.reason, response = &*self.message, "rejected a request");
        let (_, status) = self.reason.label_and_status();
        let header = match self.reason {
            RejectReason::Method => Some((ALLOW, "POST")),
            // The API server retries after whole seconds.
            RejectReason::Busy => Some((RETRY_AFTER, "1")),
            _ => None,
        };
        let mut response = text(status, &self.message);
        if let Some((name, value)) = header {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_timeout_is_a_go_duration() {
        for (timeout, milliseconds) in [
            ("5s", 5000),
            ("0m30s", 30_000),
            ("500ms", 500),
            ("1.5s", 1500),
            ("9.876543210s", 9876),
            ("100µs", 0),
        ] {
            let timeout = request_timeout(Some(&format!("timeout={timeout}")));
            assert_eq!(timeout.as_millis(), milliseconds, "{timeout:?}");
        }
        for other in ["", "5", "s", "5x", "-5s", "1..5s", "9e9s", "99999999999999999999999h", "soon"] {
            assert_eq!(request_timeout(Some(&format!("timeout={other}"))), DEFAULT_TIMEOUT, "{other}");
        }
    }

    #[test]
    fn request_timeout_is_one_parameter_of_the_query() {
        assert_eq!(request_timeout(Some("timeout=2s")), Duration::from_secs(2));
        assert_eq!(request_timeout(Some("a=b&timeout=2s")), Duration::from_secs(2));
        assert_eq!(request_timeout(Some("timeout=1h")), MAX_TIMEOUT);
        assert_eq!(request_timeout(None), DEFAULT_TIMEOUT);
    }
}
