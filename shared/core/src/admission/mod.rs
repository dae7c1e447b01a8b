//! The envelope around a decision: one `AdmissionReview` comes in as JSON, and one goes out.
//!
//! ```text
//! body ── Review::parse ──▶ Request ──▶ Webhook::decide ──▶ Decision ── response::write ──▶ body
//! ```
//!
//! The server, the offline commands, the self-test and the tests all call [`answer`]. In place of the API server they write a review
//! by [`Request::to_review`] and read its answer by [`Answer::response`].

mod decision;
mod managed_fields;
mod response;
mod review;

pub use decision::{Decision, Verdict};
pub use response::{Answer, Outcome, Response, ResponseError};
pub use review::{GroupVersionKind, Operation, Request, ReviewError};

use std::future::Future;
use std::time::Instant;

use serde::Deserialize;
use serde::de::IgnoredAny;

use managed_fields::without_managed_fields;
use review::Review;

/// One mutating webhook.
pub trait Webhook: Send + Sync + 'static {
    /// Whether the webhook is also called for workloads, which hold the template of their pods.
    const WORKLOADS: bool = false;

    /// The object under admission, as far as the decision reads it.
    type Object<'a>: Deserialize<'a> + Send + Sync;

    /// Decides about one request. `deadline` is when the API server stops waiting.
    fn decide<'a>(
        &self,
        request: &Request<'a, Self::Object<'a>>,
        deadline: Instant,
    ) -> impl Future<Output = Decision> + Send;

    /// Why the webhook can't decide yet, if it can't: the readiness probe fails until then.
    fn not_ready(&self) -> Option<String> {
        None
    }
}

/// Answers one `AdmissionReview` v1.
///
/// An object that the webhook can't parse is admitted unchanged, with a warning.
///
/// # Errors
/// The body is not a review, so there is no request to answer.
pub async fn answer<W: Webhook>(webhook: &W, body: &[u8], deadline: Instant) -> Result<Answer, ReviewError> {
    let trimmed = without_managed_fields(body);
    let Ok(body) = str::from_utf8(&trimmed) else {
        let valid = str::from_utf8(body).map_or_else(|e| e.valid_up_to(), str::len);
        return Err(ReviewError::NotUtf8(valid));
    };
    match Review::<W::Object<'_>>::parse(body) {
        Ok(request) => {
            let decision = webhook.decide(&request, deadline).await;
            Ok(response::write(&request.uid, &decision))
        }
        Err(ReviewError::Syntax(error)) => {
            // The object alone may have another shape than the webhook expects.
            let request = Review::<IgnoredAny>::parse(body)?;
            let decision = Decision::undecided(format!("the object can't be read: {error}"));
            Ok(response::write(&request.uid, &decision))
        }
        Err(error) => Err(error),
    }
}
