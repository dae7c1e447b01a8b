//! The ledger in a modelled cluster: an API server, webhook replicas with watches that lag, a controller that creates pods in
//! batches, and faults. All histories of small worlds are explored; large worlds take random histories.

mod action;
mod api_server;
mod checks;
mod dice;
mod explore;
mod full_groups;
mod over_time;
mod random;
mod selector;
mod setup;
pub(super) mod shares;
mod two_webhooks;
mod unplaced;
mod world;

/// Whether `ci/test --long` runs.
fn is_long() -> bool {
    std::env::var_os("PODSHAPER_MODEL_LONG").is_some()
}
