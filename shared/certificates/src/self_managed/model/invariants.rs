//! The invariants: after each action, after each sync of a replica, at each change of a leaf, and at rest.

use super::super::secret::LeafAndCa;
use super::world::{Action, CALL_TIMEOUT, HOLD, HOUR, LeafChange, SKEW, Secret, World};

/// Checks every invariant during `actions` and after the world has come to rest.
pub(super) fn check_all<'a>(mut world: World, actions: impl IntoIterator<Item = &'a Action>) {
    for action in actions {
        act(&mut world, action);
    }
    check_rest(&mut world);
}

fn act(world: &mut World, action: &Action) {
    if let Some(change) = world.act(action) {
        check_change(world, &change);
    }
    if matches!(action, Action::Sync(_)) {
        check_sync(world);
    }
    check_trust(world);
}

/// A change from one leaf to another never takes trust away, whatever other writers do.
fn check_change(world: &World, change: &LeafChange) {
    let LeafChange { before, after, read_at, bundles } = change;
    let Some(before) = before.as_ref().filter(|before| !before.leaf().is_expired(world.now())) else {
        return;
    };
    if bundles.iter().all(|bundle| !bundle.contains(before.ca())) {
        // Other writers have removed its CA everywhere: nothing is left to lose.
        return;
    }
    for lag in [0, HOLD / 2, HOLD - CALL_TIMEOUT] {
        // Other writers may have changed the caBundles in the second of the read.
        for bundle in if lag == 0 { bundles } else { world.seen(*read_at, lag) } {
            assert!(
                !bundle.contains(before.ca()) || bundle.contains(after.ca()),
                "an API server {lag} s late trusts the leaf before, not the one after"
            );
        }
    }
}

/// A replica restores what other writers have removed, if the Secret lists a leaf that needs it.
fn check_sync(world: &World) {
    let Some(Secret { content, .. }) = &world.secret else { return };
    let soon = world.now() + SKEW;
    for served in world.in_service().iter().filter(|served| !served.leaf().is_expired(soon)) {
        // If the Secret was emptied, it may list an expired leaf of this CA only.
        let known = content.authority().is_some_and(|authority| authority.certificate() == served.ca())
            || content
                .retired()
                .iter()
                .any(|other| other.ca() == served.ca() && !other.leaf().is_expired(soon));
        let trusted = world.bundles().iter().all(|bundle| bundle.contains(served.ca()));
        assert!(!known || trusted, "a CA in use wasn't restored");
    }
}

/// Every API server that sees the caBundles within the hold trusts every leaf in service.
fn check_trust(world: &World) {
    if world.reset {
        return;
    }
    let foreign = world.history[0].1[0].certificates();
    for bundle in world.bundles() {
        assert!(foreign.iter().all(|ca| bundle.contains(ca)), "removed a CA of another writer");
    }
    for served in world.in_service() {
        for lag in [0, HOLD / 2, HOLD] {
            let seen = world.seen(world.elapsed, lag);
            // Where no leaf was in service, nothing can break.
            let first = foreign.is_empty() && world.elapsed - world.began <= lag;
            let trusted = seen.iter().all(|bundle| bundle.contains(served.ca()));
            assert!(first || trusted, "an API server {lag} s late doesn't trust a leaf in service");
        }
    }
}

/// Syncs all replicas after each step until nothing changes. Returns the number of writes in the last step.
fn rest(world: &mut World, steps: usize, seconds: u64) -> usize {
    let mut last = 0;
    for _ in 0..steps {
        world.act(&Action::Advance(seconds));
        last = world.writes;
        let mut before = usize::MAX;
        while std::mem::replace(&mut before, world.writes) != world.writes {
            for r in 0..world.replicas.len() {
                act(world, &Action::Sync(r));
            }
        }
    }
    world.writes - last
}

/// Undisturbed replicas agree on one leaf, serve it, and stop writing.
fn check_rest(world: &mut World) {
    let writes = rest(world, 20, 20);
    assert_eq!(writes, 0, "nothing is left to write");
    let stored = world.stored();
    assert!(stored.next().is_none() && stored.rotation().is_none(), "every rotation has ended");
    let leaf = stored.leaf().unwrap().certificate().clone();
    let ca = stored.authority().unwrap().certificate().clone();
    for process in &world.replicas {
        assert_eq!(process.served, Some(LeafAndCa::new(leaf.clone(), ca.clone())));
    }
    assert_eq!(world.secret.as_ref().unwrap().object["data"]["foreign"], "eA==");

    // In the end the caBundles contain only CAs in use, those of other writers, and those that no replica can know.
    rest(world, 24, HOUR / 2);
    let stored = world.stored();
    let ca = stored.authority().unwrap().certificate();
    let foreign = world.history[0].1[0].certificates().len();
    for bundle in world.bundles() {
        assert!(bundle.contains(ca));
        let most =
            1 + foreign + world.orphans + stored.retired().len() + usize::from(stored.next().is_some());
        let count = bundle.certificates().len();
        assert!(count <= most, "{count} > {most}");
    }
    assert!(stored.retired().len() <= 2, "{}", stored.retired().len());
}
