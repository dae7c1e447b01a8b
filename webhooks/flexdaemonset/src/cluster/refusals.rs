//! Pods that the API server refuses to create, such as those beyond a ResourceQuota: the Events of their DaemonSet have the reason.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
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
/// Seconds within which a refused creation is repeated and has another Event: the longest back-off of the DaemonSet controller
/// (`DefaultTypedControllerRateLimiter` of client-go, 1000 s), and the pause of an Event source that is over its rate
/// (`defaultSpamQPS`, 300 s). Kubernetes keeps Events for an hour.
const MAX_AGE: i64 = 1000 + 300;
/// Seconds by which the times of an Event, a pod and this process may be out of order. Events have full seconds.
const TOLERANCE: i64 = 5;

/// Why the API server refuses pods, by the uid of their DaemonSet.
#[derive(Default)]
pub(super) struct Refusals(HashMap<Box<str>, Refusal>);

/// The failed creations of the pods of one DaemonSet.
#[derive(Default)]
struct Refusal {
    last: Option<FailedCreation>,
    read_at: Option<Instant>,
    /// When no pod was missing, in Unix seconds, as last observed.
    complete_at: Option<i64>,
}

struct FailedCreation {
    reason: String,
    /// Unix seconds.
    at: i64,
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
    /// Why pods of the DaemonSet are missing at `now`, as the last Event about a failed creation says. `None` if none is missing, or if
    /// the Event is about an earlier creation. `newest_pod` is the creation of the DaemonSet's newest pod, and both are Unix seconds.
    pub(super) async fn reason(
        &mut self,
        client: &Client,
        key: &str,
        daemon_set: &Arc<DaemonSet>,
        newest_pod: Option<i64>,
        now: i64,
    ) -> Option<&str> {
        let refusal = self.0.entry(daemon_set.uid.clone()).or_default();
        if daemon_set.missing_pods == 0 {
            *refusal = Refusal { complete_at: Some(now), ..Refusal::default() };
            return None;
        }
        if refusal.read_at.is_none_or(|read_at| read_at.elapsed() >= READ_INTERVAL) {
            refusal.last = read(client, key, &daemon_set.uid).await.unwrap_or_else(|error| {
                tracing::warn!(daemon_set = key, error = describe(&error), "cannot list the Events");
                None
            });
            refusal.read_at = Some(Instant::now());
        }
        // After each creation, the controller tries all missing pods again.
        let since = refusal.complete_at.max(newest_pod).map_or(i64::MIN, |at| at - TOLERANCE);
        let last = refusal.last.as_ref()?;
        (last.at >= since.max(now - MAX_AGE)).then_some(&last.reason)
    }

    /// Removes those of all other DaemonSets.
    pub(super) fn retain(&mut self, daemon_sets: &[(Box<str>, Arc<DaemonSet>)]) {
        self.0.retain(|uid, _| daemon_sets.iter().any(|(_, daemon_set)| daemon_set.uid == *uid));
    }
}

async fn read(client: &Client, key: &str, uid: &str) -> kube::Result<Option<FailedCreation>> {
    let namespace = key.split('/').next().unwrap_or_default();
    let selector = format!("involvedObject.uid={uid},reason=FailedCreate");
    let path = format!("/api/v1/namespaces/{namespace}/events");
    let path = with_query(&path, [("fieldSelector", &*selector), ("limit", MAX_EVENTS)]);
    let page: Option<EventList> = get(client, &path).await?;
    let events = page.map(|page| page.items).unwrap_or_default().into_iter();
    Ok(events.filter_map(CreateEvent::failed_creation).max_by_key(|creation| creation.at))
}

impl CreateEvent {
    fn failed_creation(self) -> Option<FailedCreation> {
        let at: Timestamp = self.last_timestamp.or(self.event_time)?.parse().ok()?;
        let mut reason = self.message?;
        reason.truncate(reason.floor_char_boundary(MAX_REASON));
        Some(FailedCreation { reason, at: at.as_second() })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use podshaper_testing::MockApiServer;

    const PATH: &str =
        "/api/v1/namespaces/ns/events?fieldSelector=involvedObject.uid%3Du%2Creason%3DFailedCreate&limit=100";

    fn daemon_set(missing_pods: u32) -> Arc<DaemonSet> {
        Arc::new(DaemonSet { uid: "u".into(), missing_pods, ..DaemonSet::default() })
    }

    /// Unix seconds of a time of one hour.
    fn at(time: &str) -> i64 {
        format!("2026-01-01T00:{time}Z").parse::<Timestamp>().unwrap().as_second()
    }

    fn events(events: &[(&str, &str)]) -> Value {
        let event = |(message, time): &(&str, &str)| json!({"message": message, "lastTimestamp": format!("2026-01-01T00:{time}Z")});
        json!({"items": events.iter().map(event).collect::<Vec<_>>()})
    }

    #[tokio::test(start_paused = true)]
    async fn last_failed_creation_is_the_reason_while_pods_are_missing() {
        let (client, mut server) = MockApiServer::start();
        let mut refusals = Refusals::default();
        let now = at("02:01");
        assert_eq!(refusals.reason(&client, "ns/a", &daemon_set(0), None, at("01:30")).await, None);
        assert!(server.is_idle(), "no pod is missing");
        let mut listed = events(&[("exceeded quota: new", "02:00"), ("old", "01:00")]);
        listed["items"].as_array_mut().unwrap().push(json!({"message": null, "lastTimestamp": null}));
        let missing = daemon_set(2);
        let read = async { server.next(PATH).await.answer(200, &listed) };
        let (reason, ()) = tokio::join!(refusals.reason(&client, "ns/a", &missing, None, now), read);
        assert_eq!(reason, Some("exceeded quota: new"));
        assert_eq!(refusals.reason(&client, "ns/a", &missing, None, now).await, Some("exceeded quota: new"));
        assert!(server.is_idle(), "within 30 s");
        tokio::time::advance(READ_INTERVAL).await;
        let read = async { server.next(PATH).await.answer(200, &json!({"items": []})) };
        let (reason, ()) = tokio::join!(refusals.reason(&client, "ns/a", &missing, None, now), read);
        assert_eq!(reason, None);
    }

    #[tokio::test(start_paused = true)]
    async fn failed_creation_of_an_earlier_pod_is_not_the_reason() {
        // (when no pod was missing, creation of the newest pod, now), with a failed creation at 10:00
        for (complete_at, newest_pod, now, is_reason) in [
            (None, None, "10:30", true),
            (None, None, "31:00", true),
            (None, None, "32:00", false),
            (Some("09:00"), Some("09:30"), "10:30", true),
            (Some("10:02"), None, "10:30", true),
            (Some("10:20"), None, "10:30", false),
            (None, Some("10:02"), "10:30", true),
            (None, Some("10:20"), "10:30", false),
            (Some("09:00"), Some("10:20"), "10:30", false),
            (Some("10:20"), Some("09:00"), "10:30", false),
        ] {
            let (client, mut server) = MockApiServer::start();
            let mut refusals = Refusals::default();
            if let Some(time) = complete_at {
                refusals.reason(&client, "ns/a", &daemon_set(0), None, at(time)).await;
            }
            let listed = events(&[("exceeded quota", "10:00")]);
            let read = async { server.next(PATH).await.answer(200, &listed) };
            let missing = daemon_set(1);
            let reason = refusals.reason(&client, "ns/a", &missing, newest_pod.map(at), at(now));
            let (reason, ()) = tokio::join!(reason, read);
            assert_eq!(reason.is_some(), is_reason, "{complete_at:?} {newest_pod:?} {now}");
        }
    }
}
