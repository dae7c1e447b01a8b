//! The limit of open files, of which each connection is one.
//!
//! Container runtimes pass on systemd's default: a soft limit of 1024 and a far higher hard limit. Go's runtime raises the
//! soft limit at its start (`os/rlimit.go`), Rust's doesn't.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Open files besides the connections: up to 64 each for probes and metrics, requests to the API server, certificates.
const OTHER_FILES: u64 = 256;

/// Raises the soft limit as far as `connections` need it, and returns the number of connections that it allows.
pub(crate) fn raise_limit(connections: usize) -> usize {
    let (limit, allowed) = plan(getrlimit(Resource::Nofile), connections);
    if let Some(limit) = limit
        && let Err(error) = setrlimit(Resource::Nofile, limit)
    {
        tracing::warn!(%error, "failed to raise the limit of open files");
    }
    if allowed < connections {
        tracing::warn!(allowed, "the limit of open files allows fewer connections than --max-connections");
    }
    allowed
}

/// Returns the limit to set, if it differs from `limit`, and the number of connections that it allows.
fn plan(limit: Rlimit, connections: usize) -> (Option<Rlimit>, usize) {
    let wanted = u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(OTHER_FILES);
    // None means unlimited.
    let soft = limit.current.unwrap_or(u64::MAX);
    let hard = limit.maximum.unwrap_or(u64::MAX);
    let files = soft.max(wanted.min(hard));
    let raised = (files > soft).then_some(Rlimit { current: Some(files), ..limit });
    let allowed = files.saturating_sub(OTHER_FILES).max(1);
    (raised, usize::try_from(allowed).unwrap_or(usize::MAX).min(connections))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_limit_is_raised_to_the_need_or_the_hard_limit() {
        let limit = |current, maximum| Rlimit { current, maximum };
        for (now, raised, allowed) in [
            (limit(Some(1024), Some(524_288)), Some(2304), 2048),
            (limit(Some(1024), None), Some(2304), 2048),
            (limit(Some(1024), Some(2000)), Some(2000), 1744),
            (limit(Some(1024), Some(1024)), None, 768),
            (limit(Some(64), Some(64)), None, 1),
            (limit(Some(1_048_576), Some(1_048_576)), None, 2048),
            (limit(None, None), None, 2048),
        ] {
            let raised = raised.map(|files| limit(Some(files), now.maximum));
            assert_eq!(plan(now, 2048), (raised, allowed), "{now:?}");
        }
    }
}
