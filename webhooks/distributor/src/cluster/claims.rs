//! Whether the PersistentVolumeClaims of waiting pods are bound.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kube::Client;
use podshaper_core::object::{Object, is_name};
use podshaper_kube::error::describe;
use podshaper_kube::request::get;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::time::Instant;

/// How long an answer counts.
const FRESH: Duration = Duration::from_secs(30);
/// Answers that are kept.
const MAX_CACHED: usize = 1024;
/// More claims than a pod has in practice.
const MAX_CLAIMS: usize = 16;

/// The state of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ClaimState {
    /// It has a volume.
    Bound,
    /// It has none, or does not exist.
    Unbound,
    /// It could not be read, or may not be.
    Unreadable,
}

/// Reads claims, and remembers them for a short time.
pub(super) struct Claims {
    client: Client,
    cache: Mutex<HashMap<String, (Instant, ClaimState)>>,
}

/// `v1.PersistentVolumeClaimSpec`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClaimSpec {
    volume_name: Option<String>,
}

impl Claims {
    /// Rights: `get` PersistentVolumeClaims. Without it claims are unreadable.
    pub(super) fn new(client: Client) -> Self {
        Self { client, cache: Mutex::default() }
    }

    /// Whether all of these claims are bound.
    pub(super) async fn are_bound(&self, namespace: &str, claims: &[String]) -> bool {
        self.states(namespace, claims).await.iter().all(|state| *state == ClaimState::Bound)
    }

    /// The states of these claims.
    pub(super) async fn states(&self, namespace: &str, claims: &[String]) -> Vec<ClaimState> {
        if claims.len() > MAX_CLAIMS {
            return vec![ClaimState::Unreadable];
        }
        let mut states = Vec::new();
        for claim in claims {
            states.push(self.state(namespace, claim).await);
        }
        states
    }

    async fn state(&self, namespace: &str, claim: &str) -> ClaimState {
        if !is_name(namespace) || !is_name(claim) {
            return ClaimState::Unreadable;
        }
        let path = format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims/{claim}");
        {
            let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            if cache.len() >= MAX_CACHED {
                cache.retain(|_, (at, _)| at.elapsed() < FRESH);
            }
            if let Some((_, state)) = cache.get(&path).filter(|(at, _)| at.elapsed() < FRESH) {
                return *state;
            }
        }
        let state = match get::<Object<ClaimSpec, IgnoredAny>>(&self.client, &path).await {
            Ok(Some(claim)) => match claim.spec.and_then(|spec| spec.volume_name) {
                Some(volume) if !volume.is_empty() => ClaimState::Bound,
                _ => ClaimState::Unbound,
            },
            Ok(None) => ClaimState::Unbound,
            Err(error) => {
                tracing::debug!(
                    namespace,
                    claim,
                    error = describe(&error),
                    "cannot read a PersistentVolumeClaim"
                );
                ClaimState::Unreadable
            }
        };
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() < MAX_CACHED {
            cache.insert(path, (Instant::now(), state));
        }
        state
    }
}
