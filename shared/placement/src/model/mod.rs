//! The ledger in a world of its own: an API server, watches that differ, a controller that creates pods in batches, and
//! everything that may go wrong. Small worlds are explored in every turn, large ones at random.

mod explore;
mod fault;
mod judge;
mod random;
mod server;
mod setup;
pub(super) mod shares;
mod turn;
mod world;

/// Whether there is time for everything: `ci/test --long`.
fn long() -> bool {
    std::env::var_os("PODSHAPER_MODEL_LONG").is_some()
}
