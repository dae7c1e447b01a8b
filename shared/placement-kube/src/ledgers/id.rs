//! Which ledger.

/// Names the ledger of one owner's pods: by the owner's uid, and by the namespace of those pods, because a pod may name an owner
/// of any namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LedgerId(Box<str>);

impl LedgerId {
    /// That of pods in a namespace whose owner has this uid.
    pub fn new(namespace: &str, uid: &str) -> Self {
        Self([namespace, "/", uid].concat().into())
    }
}
