//! The leader's loop: it reconciles unfinished ledgers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use podshaper_kube::lease::Leadership;
use tokio::time::{Instant, sleep};

use crate::ledgers::Ledgers;
use crate::placement_object::{LedgerId, NamespacedOwner, PlacedWorkload};

/// The pause between two rounds.
const PERIOD: Duration = Duration::from_secs(2);
/// How long a ledger without a policy is skipped.
const NO_POLICY_PERIOD: Duration = Duration::from_secs(10);
/// The pause between two removals of empty ledgers.
const SWEEP_PERIOD: Duration = Duration::from_mins(1);

/// Which policy places the pods of an owner.
pub trait PolicySource: Send + Sync + 'static {
    /// Returns the workload of a ledger with its policy; `None` if it has none, or one of them can't be read now. `owner` is the owner of the
    /// ledger, or a controller of its pods.
    fn find(
        &self,
        ledger: &LedgerId,
        owner: &NamespacedOwner,
    ) -> impl Future<Output = Option<Arc<PlacedWorkload>>> + Send;
}

/// Reconciles ledgers while this replica leads. Returns when the lease ends.
pub async fn reconcile(ledgers: Arc<Ledgers>, policies: impl PolicySource, leadership: Leadership) {
    let mut swept = Instant::now();
    let mut without_policy = HashMap::new();
    loop {
        sleep(PERIOD).await;
        if leadership.has_ended() {
            return;
        }
        if leadership.is_held() {
            let mut loss = leadership.clone();
            tokio::select! {
                () = reconcile_all(&ledgers, &policies, &mut without_policy) => {},
                () = loss.lost() => {},
            }
        }
        if swept.elapsed() >= SWEEP_PERIOD {
            ledgers.sweep();
            swept = Instant::now();
        }
    }
}

async fn reconcile_all(
    ledgers: &Ledgers,
    policies: &impl PolicySource,
    without_policy: &mut HashMap<LedgerId, Instant>,
) {
    ledgers.hand_over().await;
    without_policy.retain(|_, since| since.elapsed() < NO_POLICY_PERIOD);
    for (ledger, owner) in ledgers.unreconciled() {
        if !without_policy.contains_key(&ledger) && !reconcile_one(ledgers, &ledger, &owner, policies).await {
            without_policy.insert(ledger, Instant::now());
        }
    }
}

/// Returns whether the ledger has a policy.
async fn reconcile_one(
    ledgers: &Ledgers,
    ledger: &LedgerId,
    owner: &NamespacedOwner,
    policies: &impl PolicySource,
) -> bool {
    let Some(workload) = policies.find(ledger, owner).await else { return false };
    if let Err(error) = ledgers.reconcile(&workload).await {
        workload.warn(&error, "cannot reconcile a ledger");
    }
    true
}
