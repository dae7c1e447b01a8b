//! Decisions that a person would not see otherwise: controllers drop admission warnings.

use std::fmt::Debug;

use podshaper_core::admission::{Decision, Verdict};
use podshaper_core::json::Text;
use podshaper_core::object::OwnerReference;

/// A receiver of notices about the pods of controllers.
pub trait Notices: Debug + Send + Sync + 'static {
    /// Receives the text of a notice about the pods of `owner`.
    fn publish(&self, namespace: &str, owner: &OwnerReference<Text<'_>>, text: String);
}

/// The text of a notice about a decision. None if nothing about it is unusual; the controller itself reports a refusal.
pub(crate) fn notice(decision: &Decision) -> Option<String> {
    let undecided = match &decision.verdict {
        Verdict::Deny(_) => return None,
        Verdict::Undecided(why) => Some(why),
        Verdict::Admit => None,
    };
    let lines: Vec<&str> = undecided.into_iter().chain(&decision.warnings).map(String::as_str).collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}
