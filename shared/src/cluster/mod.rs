//! What a webhook knows of the cluster, and does there.
//!
//! ```text
//! list, watch ──▶ Trim ──▶ Store ◀── decisions, at once
//!                            ▲
//!                Lookup ─────┘  one bounded GET where the watch may lag
//! owners::Owners                bounded GETs up the chain of a pod's owners, whatever their kind
//! ```
//!
//! Objects are read straight into structs of the few fields that are used and shrunk again to what is kept
//! ([`Trim`]): what nobody reads is skipped in the text and never built. (`kube::runtime` buffers each object, and each
//! list, as a whole: it flattens their type fields.)

mod discovery;
mod events;
mod follow;
mod lease;
pub mod ledgers;
mod lookup;
mod object;
pub mod owners;
mod pages;
pub mod placing;
#[cfg(test)]
mod played;
mod replica;
mod selector;
mod store;

pub use discovery::serves;
pub use events::{Events, Note, Regarding};
pub use follow::{Scope, follow, watched};
pub use lease::{Leadership, Lease, while_leading};
pub use lookup::Lookup;
pub use object::{Metadata, Object, Trim, is_name, key};
pub use replica::Replica;
pub use selector::LabelSelector;
pub use store::Store;
