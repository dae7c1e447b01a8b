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

use distributor_decision::take_back::ClaimState;

/// How long an answer counts.
const FRESH: Duration = Duration::from_secs(30);
/// Answers that are kept.
const MAX_CACHED: usize = 1024;
/// More claims than a pod has in practice.
const MAX_CLAIMS: usize = 16;

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

    /// The state of these claims: whether one cannot be read, or one is bound.
    pub(super) async fn state(&self, namespace: &str, claims: &[String]) -> ClaimState {
        if claims.len() > MAX_CLAIMS {
            return ClaimState::Unreadable;
        }
        let mut worst = ClaimState::Unbound;
        for claim in claims {
            worst = worst.max(self.state_of_one(namespace, claim).await);
        }
        worst
    }

    /// Whether each of these claims is bound. A pod with a claim that is not bound may be unschedulable because of that.
    pub(super) async fn are_bound(&self, namespace: &str, claims: &[String]) -> bool {
        for claim in claims.iter().take(MAX_CLAIMS) {
            if self.state_of_one(namespace, claim).await != ClaimState::Bound {
                return false;
            }
        }
        claims.len() <= MAX_CLAIMS
    }

    async fn state_of_one(&self, namespace: &str, claim: &str) -> ClaimState {
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
