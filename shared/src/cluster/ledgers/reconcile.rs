//! What one of the replicas does: ledgers are put in order.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::driver::Ledgers;
use super::{Origin, Standing, Told, Workload};
use crate::cluster::{Leadership, Store};
use crate::placement::rules::SharedRules;

/// Between two looks at what has changed.
const PERIOD: Duration = Duration::from_secs(2);
/// Ledgers of which nothing is left are forgotten as often.
const SWEEP: Duration = Duration::from_mins(1);

/// Which pods are placed by which rules.
pub trait Policies: Send + Sync + 'static {
    /// The workload whose ledger this is, and its rules; none if no policy is about it any more, or nobody can tell now.
    fn find(&self, standing: &Standing) -> impl Future<Output = Option<(Arc<Workload>, SharedRules)>> + Send;
}

/// Puts in order, while this replica leads, the ledgers that `standings` shows; comes back when there is nobody to lead.
pub async fn reconcile(
    ledgers: Arc<Ledgers>,
    standings: Arc<Store<Standing>>,
    policies: impl Policies,
    mut leadership: Leadership,
) {
    let mut swept = Instant::now();
    loop {
        sleep(PERIOD).await;
        if leadership.has_changed().is_err() {
            return;
        }
        if *leadership.borrow_and_update() {
            let mut stops = leadership.clone();
            tokio::select! {
                () = look(&ledgers, &standings, &policies) => {},
                _ = stops.wait_for(|leads| !*leads) => {},
            }
        }
        if swept.elapsed() >= SWEEP {
            ledgers.sweep();
            swept = Instant::now();
        }
    }
}

/// Looks at every ledger once.
async fn look(ledgers: &Arc<Ledgers>, standings: &Store<Standing>, policies: &impl Policies) {
    for (_, standing) in standings.all() {
        if standing.reserved > 0 || ledgers.changed(&standing.namespace, &standing.owner) {
            tend(ledgers, &standing, policies).await;
        }
    }
    for Origin { namespace, controller: owner } in ledgers.clashing() {
        let none = Standing { namespace, owner, name: String::new(), reserved: 0, told: Told::default() };
        tend(ledgers, &none, policies).await;
    }
}

async fn tend(ledgers: &Arc<Ledgers>, standing: &Standing, policies: &impl Policies) {
    let Some((workload, rules)) = policies.find(standing).await else { return };
    if let Err(error) = ledgers.tend(&workload, &rules).await {
        let (namespace, owner) = (&workload.namespace, &workload.owner.name);
        tracing::warn!(namespace, owner, %error, "a ledger can't be put in order");
    }
}
