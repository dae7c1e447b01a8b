//! The envelope around a decision: an `AdmissionReview` comes in as text, and one goes out.
//!
//! ```text
//! body ── Review ──▶ Request ──▶ Webhook::decide ──▶ Decision ──▶ reply ──▶ body
//! ```
//!
//! The server, the offline command and the tests all go through [`answer`].

mod decision;
mod reply;
mod review;
mod trim;

pub use decision::{Decision, Verdict};
pub use reply::Outcome;
pub use review::{GroupVersionKind, Operation, Request, ReviewError};

use std::future::Future;
use std::time::Instant;

use serde::Deserialize;
use serde::de::IgnoredAny;

use review::Review;
use trim::without_managed_fields;

/// One mutating webhook.
pub trait Webhook: Send + Sync + 'static {
    /// Whether it has a say in workloads as well, which hold the template of their pods.
    const WORKLOADS: bool = false;

    /// What is read of the object under admission.
    type Object<'a>: Deserialize<'a> + Send + Sync;

    /// Decides about one request. `deadline` is when the API server stops waiting.
    fn decide<'a>(
        &self,
        request: &Request<'a, Self::Object<'a>>,
        deadline: Instant,
    ) -> impl Future<Output = Decision> + Send;

    /// Why it can't decide yet, if so: the pod isn't ready until then.
    fn not_ready(&self) -> Option<String> {
        None
    }
}

/// The answer to a review.
#[derive(Debug)]
pub struct Answer {
    /// The `AdmissionReview` to send back, as JSON.
    pub body: Vec<u8>,
    /// What was decided, in a word.
    pub outcome: Outcome,
}

/// Answers one `AdmissionReview` v1.
///
/// An object that the webhook can't read is admitted unchanged, with a warning. An error is something that isn't a
/// review at all, so that there is no request to answer.
pub async fn answer<W: Webhook>(webhook: &W, body: &[u8], deadline: Instant) -> Result<Answer, ReviewError> {
    let kept = without_managed_fields(body);
    let Ok(body) = str::from_utf8(&kept) else {
        let readable = str::from_utf8(body).map_or_else(|e| e.valid_up_to(), str::len);
        return Err(ReviewError::NotUtf8(readable));
    };
    match Review::<W::Object<'_>>::parse(body) {
        Ok(request) => {
            let decision = webhook.decide(&request, deadline).await;
            Ok(reply::write(&request.uid, &decision))
        }
        Err(ReviewError::Syntax(unreadable)) => {
            // Perhaps only the object isn't as the webhook expects it.
            let request = Review::<IgnoredAny>::parse(body)?;
            let decision = Decision::undecided(format!("the object can't be read: {unreadable}"));
            Ok(reply::write(&request.uid, &decision))
        }
        Err(error) => Err(error),
    }
}
