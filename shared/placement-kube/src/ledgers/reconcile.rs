//! What one of the replicas does: ledgers are put in order.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::driver::Ledgers;
use super::{LedgerId, Origin, Standing, Told, Workload};
use podshaper_kube::lease::Leadership;
use podshaper_kube::store::Store;
use podshaper_placement::allocator::SlotAllocator;

/// Between two looks at what has changed.
const PERIOD: Duration = Duration::from_secs(2);
/// Where no policy is about a ledger's pods, or nobody could tell, that is found out again only after this.
const LATER: Duration = Duration::from_secs(10);
/// Ledgers of which nothing is left are forgotten as often.
const SWEEP: Duration = Duration::from_mins(1);

/// Which allocator places which pods.
pub trait Policies: Send + Sync + 'static {
    /// The workload whose ledger this is, and its allocator; none if no policy is about it any more, or nobody can tell now.
    fn find(
        &self,
        standing: &Standing,
    ) -> impl Future<Output = Option<(Arc<Workload>, Arc<SlotAllocator>)>> + Send;
}

/// Puts in order, while this replica leads, the ledgers that `standings` shows; comes back when there is nobody to lead.
pub async fn reconcile(
    ledgers: Arc<Ledgers>,
    standings: Arc<Store<Standing>>,
    policies: impl Policies,
    mut leadership: Leadership,
) {
    let mut swept = Instant::now();
    let mut passed_over = HashMap::new();
    loop {
        sleep(PERIOD).await;
        if leadership.has_changed().is_err() {
            return;
        }
        if *leadership.borrow_and_update() {
            let mut stops = leadership.clone();
            tokio::select! {
                () = look(&ledgers, &standings, &policies, &mut passed_over) => {},
                _ = stops.wait_for(|leads| !*leads) => {},
            }
        }
        if swept.elapsed() >= SWEEP {
            ledgers.sweep();
            swept = Instant::now();
        }
    }
}

/// Looks at every ledger once, but for those that were passed over not long ago.
async fn look(
    ledgers: &Arc<Ledgers>,
    standings: &Store<Standing>,
    policies: &impl Policies,
    passed_over: &mut HashMap<LedgerId, Instant>,
) {
    passed_over.retain(|_, when| when.elapsed() < LATER);
    let unsettled = |one: &Arc<Standing>| one.reserved > 0 || ledgers.changed(&one.namespace, &one.owner);
    let standing = standings.all().into_iter().map(|(_, one)| one).filter(unsettled);
    let clashing = ledgers.clashing().into_iter().map(|Origin { namespace, controller: owner }| {
        Arc::new(Standing { namespace, owner, name: String::new(), reserved: 0, told: Told::default() })
    });
    for one in standing.chain(clashing) {
        let ledger = one.ledger();
        if !passed_over.contains_key(&ledger) && !tend(ledgers, &one, policies).await {
            passed_over.insert(ledger, Instant::now());
        }
    }
}

/// Puts one in order, if there is a policy for it.
async fn tend(ledgers: &Arc<Ledgers>, standing: &Standing, policies: &impl Policies) -> bool {
    let Some((workload, allocator)) = policies.find(standing).await else { return false };
    if let Err(error) = ledgers.tend(&workload, &allocator).await {
        let (namespace, owner) = (&workload.namespace, &workload.owner.name);
        tracing::warn!(namespace, owner, %error, "a ledger can't be put in order");
    }
    true
}
