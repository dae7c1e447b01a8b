//! The decision of a webhook.

use std::fmt::Display;

use crate::patch::Patch;

/// The decision about one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is admitted.
    pub verdict: Verdict,
    /// How it changes; empty unless it is admitted.
    pub patch: Patch,
    /// Admission warnings, one a line. `kubectl` shows them.
    pub warnings: Vec<String>,
}

/// Whether an object is admitted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Admitted, changed or not.
    #[default]
    Admit,
    /// Admitted unchanged because nothing could be decided, with the reason.
    Undecided(String),
    /// Refused, with a reason that says what to do.
    Deny(String),
}

impl Decision {
    /// Admitted as it is.
    pub fn unchanged() -> Self {
        Self::default()
    }

    /// Admitted with a patch, which may be empty.
    pub fn patched(patch: Patch) -> Self {
        Self { patch, ..Self::default() }
    }

    /// Admitted as it is, for want of a decision.
    pub fn undecided(reason: impl Into<String>) -> Self {
        Self { verdict: Verdict::Undecided(reason.into()), ..Self::default() }
    }

    /// Refused.
    pub fn denied(reason: impl Into<String>) -> Self {
        Self { verdict: Verdict::Deny(reason.into()), ..Self::default() }
    }

    /// The same with warnings.
    #[must_use]
    pub fn with_warnings(mut self, warnings: impl IntoIterator<Item = String>) -> Self {
        self.warnings.extend(warnings);
        self
    }
}

impl<E: Display> From<Result<Patch, E>> for Decision {
    /// Admits with a finished patch, or admits unchanged and says why there is none.
    fn from(finished: Result<Patch, E>) -> Self {
        match finished {
            Ok(patch) => Self::patched(patch),
            Err(error) => Self::undecided(format!("the pod is left as it is: {error}")),
        }
    }
}
