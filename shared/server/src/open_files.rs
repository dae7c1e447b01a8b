//! How many files the process may have open, each connection being one.
//!
//! Container runtimes hand systemd's default down: 1024 at first, many more for who asks. Go's runtime asks by itself
//! (`os/rlimit.go`), so must we.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Open files beside the webhook's connections: probes and metrics, each up to 64, the API server, certificates.
const OTHERS: u64 = 256;

/// Asks for as many open files as `connections` take, and returns how many connections may be held at a time.
pub(crate) fn max_connections(connections: usize) -> usize {
    let (asked, room) = plan(getrlimit(Resource::Nofile), connections);
    match asked.map_or(Ok(()), |limit| setrlimit(Resource::Nofile, limit)) {
        Ok(()) => {}
        Err(error) => tracing::warn!(%error, "can't have more files open"),
    }
    if room < connections {
        tracing::warn!(
            connections = room,
            "fewer connections than configured: the limit of open files is low"
        );
    }
    room
}

/// The limit to ask for, if it isn't that already, and how many connections it is good for.
fn plan(limit: Rlimit, connections: usize) -> (Option<Rlimit>, usize) {
    let wanted = u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(OTHERS);
    // None is no limit.
    let (now, most) = (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX));
    let files = now.max(wanted.min(most));
    let asked = (files > now).then_some(Rlimit { current: Some(files), ..limit });
    let room = files.saturating_sub(OTHERS).max(1);
    (asked, usize::try_from(room).unwrap_or(usize::MAX).min(connections))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_as_far_as_needed_and_allowed() {
        let limit = |current, maximum| Rlimit { current, maximum };
        for (now, asked, room) in [
            (limit(Some(1024), Some(524_288)), Some(2304), 2048),
            (limit(Some(1024), None), Some(2304), 2048),
            (limit(Some(1024), Some(2000)), Some(2000), 1744),
            (limit(Some(1024), Some(1024)), None, 768),
            (limit(Some(64), Some(64)), None, 1),
            (limit(Some(1_048_576), Some(1_048_576)), None, 2048),
            (limit(None, None), None, 2048),
        ] {
            let asked = asked.map(|files| limit(Some(files), now.maximum));
            assert_eq!(plan(now, 2048), (asked, room), "{now:?}");
        }
    }
}
