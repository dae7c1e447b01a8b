//! Which of two webhooks places the pods of an owner.
//!
//! Each webhook keeps a Placement of its own for an owner. Both have one if they have started at different times, for example after an outage:
//! each webhook counts only the pods that it has placed, so that the shares of both together are not exact. The older Placement remains. The
//! webhook of the other one no longer places pods of the owner, labels its own pods for the webhook that remains, and deletes its Placement.

/// The age of a Placement. The lesser one precedes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlacementAge {
    /// `metadata.creationTimestamp`, RFC 3339 in seconds: the texts sort by time.
    pub created: String,
    /// The webhook that keeps it. It decides between two Placements of one second.
    pub webhook: String,
}

/// The webhook that places the pods of an owner in place of this one, given the Placements that this one knows. A webhook without a Placement
/// begins none beside that of another one.
pub fn superseded_by<'p>(own: Option<&PlacementAge>, other: Option<&'p PlacementAge>) -> Option<&'p str> {
    let other = other?;
    own.is_none_or(|own| other < own).then_some(&*other.webhook)
}
