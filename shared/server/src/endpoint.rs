//! From an HTTP request to the response: limits, deadline, body, decision.

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Method, Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{timeout, timeout_at};

use crate::limits::Limits;
use crate::metrics::{AdmissionMetrics, RejectReason};
use crate::response::{HttpResponse, text};
use podshaper_core::admission::{self, Webhook};
use podshaper_core::duration;

/// The API server allows a webhook at most this long.
const MAX_TIMEOUT: Duration = Duration::from_secs(30);
/// The API server's default, for requests without a `timeout` parameter.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the body of a rejected request is read. Closing a connection with unread data resets it, and the client loses the response.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);
/// The budget of all bodies is counted in KiB.
const BUDGET_UNIT: usize = 1024;

/// Answers the requests for one webhook.
pub(crate) struct Endpoint<W> {
    webhook: Arc<W>,
    paths: &'static [&'static str],
    requests: Arc<RequestCounter>,
    max_in_flight: usize,
    max_body_bytes: usize,
    /// The bytes that all bodies may take together, in units of [`BUDGET_UNIT`].
    budget: Arc<Semaphore>,
    metrics: AdmissionMetrics,
}

impl<W: Webhook> Endpoint<W> {
    pub(crate) fn new(
        webhook: Arc<W>,
        paths: &'static [&'static str],
        limits: &Limits,
        metrics: AdmissionMetrics,
    ) -> Self {
        let budget = (limits.max_buffered_bytes / BUDGET_UNIT).min(Semaphore::MAX_PERMITS);
        Self {
            webhook,
            paths,
            requests: RequestCounter::new(),
            max_in_flight: limits.max_in_flight,
            max_body_bytes: limits.max_body_bytes,
            budget: Arc::new(Semaphore::new(budget)),
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
    ) -> impl Future<Output = HttpResponse> + use<W> {
        let in_flight = self.requests.begin();
        let started = Instant::now();
        let deadline = started + request_timeout(request.uri().query());
        // The readiness probe of some of the webhooks that this project replaces.
        let is_probe = request.uri().path() == "/health" && request.method() == Method::GET;
        // Checked before the future is made, which then holds the body alone and stays small while it waits.
        let checked = self.check(&request);
        let body = request.into_body();
        let endpoint = Arc::clone(self);
        async move {
            let _in_flight = in_flight;
            // A panic ends one request and not the others of its connection.
            let reviewed = AssertUnwindSafe(endpoint.review(checked, body, deadline)).catch_unwind().await;
            let reviewed = reviewed.unwrap_or_else(|_| {
                Err(Rejection::new(RejectReason::Panic, "internal error; see the log of the webhook"))
            });
            match reviewed {
                Ok(answer) => {
                    endpoint.metrics.record_review(answer.outcome, started.elapsed());
                    let mut response = Response::new(Full::from(answer.body));
                    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                    response
                }
                Err(_) if is_probe => Response::new(Full::from("OK")),
                Err(rejection) => {
                    endpoint.metrics.record_rejection(rejection.reason);
                    rejection.into_response()
                }
            }
        }
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
    ) -> Result<admission::Answer, Rejection> {
        let answer = async {
            let read = match checked {
                Ok(()) => self.read(&mut body).await,
                Err(rejection) => Err(rejection),
            };
            // The permit keeps the budget until the answer is written.
            let (bytes, _permit) = read.inspect_err(|_| discard(body))?;
            if bytes.is_empty() {
                return Err(Rejection::new(
                    RejectReason::Review,
                    "the body is empty; send an AdmissionReview",
                ));
            }
            let answer = admission::answer(&*self.webhook, &bytes, deadline).await;
            answer.map_err(|error| Rejection::new(RejectReason::Review, error.to_string()))
        };
        timeout_at(deadline.into(), answer).await.unwrap_or_else(|_| {
            Err(Rejection::new(RejectReason::Timeout, "the request took longer than its timeout"))
        })
    }

    /// Reads the whole body. Reserves budget for the bytes that arrive, not for `Content-Length`.
    async fn read(&self, body: &mut Incoming) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Rejection> {
        let too_large =
            || Rejection::new(RejectReason::TooLarge, "the body is larger than this server accepts");
        let length = body.size_hint().exact().ok_or_else(|| {
            Rejection::new(RejectReason::Length, "send the body's length in Content-Length")
        })?;
        let length = usize::try_from(length).map_err(|_| too_large())?;
        if length > self.max_body_bytes {
            return Err(too_large());
        }
        let mut permit = None;
        let Some(first) = next_frame(body).await? else { return Ok((Bytes::new(), None)) };
        self.reserve(&mut permit, first.len())?;
        // Most reviews arrive in one frame, which needs no copy.
        let Some(second) = next_frame(body).await? else { return Ok((first, permit)) };
        // Pages that are never written to take no memory, and a buffer that grows would take the body twice.
        let mut bytes = BytesMut::with_capacity(length);
        bytes.extend_from_slice(&first);
        let mut next = Some(second);
        while let Some(frame) = next {
            self.reserve(&mut permit, frame.len())?;
            bytes.extend_from_slice(&frame);
            next = next_frame(body).await?;
        }
        Ok((bytes.freeze(), permit))
    }

    fn reserve(&self, permit: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> Result<(), Rejection> {
        let units = u32::try_from(bytes.div_ceil(BUDGET_UNIT)).unwrap_or(u32::MAX);
        let more = Arc::clone(&self.budget)
            .try_acquire_many_owned(units)
            .map_err(|_| Rejection::new(RejectReason::Busy, "too many bytes in memory; try again"))?;
        match permit {
            Some(permit) => permit.merge(more),
            None => *permit = Some(more),
        }
        Ok(())
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

/// Counts requests in flight and remembers their last change.
#[derive(Debug)]
pub(crate) struct RequestCounter {
    created: Instant,
    in_flight: AtomicUsize,
    /// Milliseconds since `created`.
    last_change: AtomicU64,
}

/// A request in flight, until this is dropped.
pub(crate) struct RequestGuard(Arc<RequestCounter>);

impl RequestCounter {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            created: Instant::now(),
            in_flight: AtomicUsize::new(0),
            last_change: AtomicU64::new(0),
        })
    }

    pub(crate) fn begin(self: &Arc<Self>) -> RequestGuard {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        RequestGuard(Arc::clone(self))
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// When the last request ended, or the last call of [`Self::touch`].
    pub(crate) fn last_change(&self) -> Instant {
        self.created + Duration::from_millis(self.last_change.load(Ordering::Relaxed))
    }

    pub(crate) fn touch(&self) {
        let milliseconds = u64::try_from(self.created.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_change.fetch_max(milliseconds, Ordering::Relaxed);
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.touch();
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
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
