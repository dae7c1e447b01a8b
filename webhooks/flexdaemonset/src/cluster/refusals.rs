//! Pods that the API server refuses to create, such as those beyond a ResourceQuota: the Events of their DaemonSet have the reason.

use std::collections::HashMap;
use std::sync::Arc;

use kube::Client;
use podshaper_kube::error::describe;
use podshaper_kube::request::{get, with_query};
use serde::Deserialize;
use tokio::time::{Duration, Instant};

use flexdaemonset_decision::daemon_set::DaemonSet;

/// The least time between two reads of the Events of a DaemonSet.
const READ_INTERVAL: Duration = Duration::from_secs(30);
/// Events that are read. The DaemonSet controller counts repetitions in one Event.
const MAX_EVENTS: &str = "100";
/// Bytes of a reason that are kept.
const MAX_REASON: usize = 512;

/// Why the API server refuses pods, by the uid of their DaemonSet.
#[derive(Default)]
pub(super) struct Refusals(HashMap<Box<str>, Refusal>);

struct Refusal {
    reason: Option<String>,
    read_at: Instant,
}

#[derive(Deserialize)]
struct EventList {
    items: Vec<CreateEvent>,
}

/// `v1.Event` with the reason `FailedCreate` (`createPods` of k8s.io/kubernetes/pkg/controller).
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct CreateEvent {
    message: Option<String>,
    last_timestamp: Option<String>,
    event_time: Option<String>,
}

impl Refusals {
    /// Why pods of the DaemonSet are missing, as the last Event about a failed creation says. `None` if none is missing.
    pub(super) async fn reason(
        &mut self,
        client: &Client,
        key: &str,
        daemon_set: &Arc<DaemonSet>,
    ) -> Option<&str> {
        if daemon_set.missing_pods == 0 {
            self.0.remove(&daemon_set.uid);
            return None;
        }
        let is_recent = |refusal: &Refusal| refusal.read_at.elapsed() < READ_INTERVAL;
        if !self.0.get(&daemon_set.uid).is_some_and(is_recent) {
            let reason = read(client, key, &daemon_set.uid).await.unwrap_or_else(|error| {
                tracing::warn!(daemon_set = key, error = describe(&error), "cannot list the Events");
                None
            });
            self.0.insert(daemon_set.uid.clone(), Refusal { reason, read_at: Instant::now() });
        }
        self.0.get(&daemon_set.uid)?.reason.as_deref()
    }

    /// Removes those of all other DaemonSets.
    pub(super) fn retain(&mut self, daemon_sets: &[(Box<str>, Arc<DaemonSet>)]) {
        self.0.retain(|uid, _| daemon_sets.iter().any(|(_, daemon_set)| daemon_set.uid == *uid));
    }
}

async fn read(client: &Client, key: &str, uid: &str) -> kube::Result<Option<String>> {
    let namespace = key.split('/').next().unwrap_or_default();
    let selector = format!("involvedObject.uid={uid},reason=FailedCreate");
    let path = format!("/api/v1/namespaces/{namespace}/events");
    let path = with_query(&path, [("fieldSelector", &*selector), ("limit", MAX_EVENTS)]);
    let page: Option<EventList> = get(client, &path).await?;
    let events = page.map(|page| page.items).unwrap_or_default().into_iter();
    let last = events.max_by(|one, other| one.time().cmp(other.time()));
    Ok(last.and_then(|event| event.message).map(|mut reason| {
        reason.truncate(reason.floor_char_boundary(MAX_REASON));
        reason
    }))
}

impl CreateEvent {
    /// RFC 3339 in UTC, which sorts by time.
    fn time(&self) -> &str {
        self.last_timestamp.as_deref().or(self.event_time.as_deref()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use podshaper_testing::MockApiServer;

    fn daemon_set(missing_pods: u32) -> Arc<DaemonSet> {
        Arc::new(DaemonSet { uid: "u".into(), missing_pods, ..DaemonSet::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn last_failed_creation_is_the_reason_while_pods_are_missing() {
        let (client, mut server) = MockApiServer::start();
        let mut refusals = Refusals::default();
        assert_eq!(refusals.reason(&client, "ns/a", &daemon_set(0)).await, None);
        assert!(server.is_idle(), "no pod is missing");
        let events = json!({"items": [
            {"message": "exceeded quota: new", "lastTimestamp": "2026-01-01T00:02:00Z"},
            {"message": "old", "lastTimestamp": "2026-01-01T00:01:00Z"},
            {"message": null, "lastTimestamp": null},
        ]});
        let path = "/api/v1/namespaces/ns/events?fieldSelector=involvedObject.uid%3Du%2Creason%3DFailedCreate&limit=100";
        let missing = daemon_set(2);
        let read = async { server.next(path).await.answer(200, &events) };
        let (reason, ()) = tokio::join!(refusals.reason(&client, "ns/a", &missing), read);
        assert_eq!(reason, Some("exceeded quota: new"));
        assert_eq!(refusals.reason(&client, "ns/a", &missing).await, Some("exceeded quota: new"));
        assert!(server.is_idle(), "within 30 s");
        tokio::time::advance(READ_INTERVAL).await;
        let read = async { server.next(path).await.answer(200, &json!({"items": []})) };
        let (reason, ()) = tokio::join!(refusals.reason(&client, "ns/a", &missing), read);
        assert_eq!(reason, None);
    }
}
