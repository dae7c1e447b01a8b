//! Kubernetes Events about objects, published in the background.

use std::collections::HashMap;
use std::time::Duration;

pub use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
pub use kube::runtime::events::EventType;
use kube::runtime::events::{Event, Recorder, Reporter};
use moka::sync::Cache;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::error::describe;
use crate::request::{REQUEST_TIMEOUT, within};
use podshaper_core::object::is_name;

/// Events that wait to be published. More are dropped: the next one of an object and reason replaces them.
const QUEUE: usize = 256;
/// The least time between two Events of an object and reason.
const MIN_INTERVAL: Duration = Duration::from_mins(1);
/// Pairs of object and reason with a cached last Event. If all are recent, Events of others are dropped.
const MAX_RECENT: usize = 4096;
/// Events with a count of their repetitions. [`Recorder`] needs 8 KB for each.
const MAX_SERIES: u64 = 256;
/// How long [`Recorder`] counts repetitions in one Event.
const SERIES_TTL: Duration = Duration::from_mins(6);
/// Bytes of a `note` (`NoteLengthLimit` of k8s.io/kubernetes/pkg/apis/core/validation).
const MAX_NOTE: usize = 1024;
/// Bytes of a uid. A real one is a UUID of 36; the one that a pod names for its owner can be any text.
const MAX_UID: usize = 64;

/// Publishes Events. Clones share one queue.
#[derive(Clone, Debug)]
pub struct Events(mpsc::Sender<(ObjectReference, Event)>);

impl Events {
    /// Starts a task that publishes Events of `controller`, a webhook, and `instance`, its pod.
    pub fn start(client: Client, controller: &str, instance: String) -> Self {
        let (sender, mut queue) = mpsc::channel(QUEUE);
        let reporter =
            Reporter { controller: format!("podshaper.dev/{controller}"), instance: Some(instance) };
        let mut publisher = Publisher::new(client, reporter);
        tokio::spawn(async move {
            while let Some((regarding, event)) = queue.recv().await {
                publisher.publish(&regarding, &event).await;
            }
        });
        Self(sender)
    }

    /// Queues an Event about `regarding`. It is dropped if the object has an invalid name or uid, or if the queue is full.
    ///
    /// `reason` and `action` are words such as `TemplateMissing` and `Admit`; `note` is text for people.
    pub fn publish(
        &self,
        regarding: ObjectReference,
        event_type: EventType,
        reason: &str,
        action: &str,
        mut note: String,
    ) {
        let is_valid = regarding.name.as_deref().is_some_and(is_name)
            && regarding.uid.as_ref().is_some_and(|uid| uid.len() <= MAX_UID);
        if is_valid {
            note.truncate(note.floor_char_boundary(MAX_NOTE));
            let event = Event {
                type_: event_type,
                reason: reason.to_owned(),
                action: action.to_owned(),
                note: Some(note),
                secondary: None,
            };
            let _ = self.0.try_send((regarding, event));
        }
    }
}

struct Publisher {
    client: Client,
    reporter: Reporter,
    /// When the last Event was published, by uid and reason.
    last: HashMap<(String, String), Instant>,
    /// By uid, reason and note: a recorder counts Events with different notes as one, and keeps the first note.
    recorders: Cache<(String, String, String), Recorder>,
}

impl Publisher {
    fn new(client: Client, reporter: Reporter) -> Self {
        let recorders = Cache::builder().max_capacity(MAX_SERIES).time_to_idle(SERIES_TTL).build();
        Self { client, reporter, last: HashMap::new(), recorders }
    }

    async fn publish(&mut self, regarding: &ObjectReference, event: &Event) {
        let uid = regarding.uid.clone().unwrap_or_default();
        if !self.admit((uid.clone(), event.reason.clone())) {
            return;
        }
        let series = (uid, event.reason.clone(), event.note.clone().unwrap_or_default());
        let new_recorder = || Recorder::new(self.client.clone(), self.reporter.clone());
        let recorder = self.recorders.get_with_by_ref(&series, new_recorder);
        if let Err(error) = within(REQUEST_TIMEOUT, recorder.publish(event, regarding)).await {
            // The Event that would count the next repetition may not exist.
            self.recorders.invalidate(&series);
            tracing::warn!(reason = event.reason, error = describe(&error), "cannot publish an Event");
        }
    }

    /// Whether an Event of this uid and reason may be published now.
    fn admit(&mut self, key: (String, String)) -> bool {
        let now = Instant::now();
        let is_recent = |last: &Instant| now.duration_since(*last) < MIN_INTERVAL;
        if self.last.len() >= MAX_RECENT {
            self.last.retain(|_, last| is_recent(last));
        }
        if self.last.get(&key).is_some_and(is_recent) || self.last.len() >= MAX_RECENT {
            return false;
        }
        self.last.insert(key, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::{Value, json};
    use tokio::time::sleep;

    use super::*;
    use podshaper_testing::{MockApiServer, MockResponse};

    fn publish(events: &Events, uid: &str, reason: &str, note: &str) {
        let regarding = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some("ns".to_owned()),
            name: Some("pod".to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        events.publish(regarding, EventType::Warning, reason, "Admit", note.to_owned());
    }

    /// Asserts that an Event is created, and returns it.
    async fn created(server: &mut MockApiServer) -> Value {
        let create = server.next_request().await;
        let event = create.request().body().clone();
        assert_eq!(create.request().method(), Method::POST, "{event}");
        assert_eq!(create.request().uri().path(), "/apis/events.k8s.io/v1/namespaces/ns/events");
        create.answer(201, &event);
        event
    }

    #[tokio::test(start_paused = true)]
    async fn repeated_event_is_counted_at_most_once_a_minute() {
        let (client, mut server) = MockApiServer::start();
        let events = Events::start(client, "peerpods", "replica".to_owned());
        publish(&events, "a", "X", &"note".repeat(MAX_NOTE));
        let first = created(&mut server).await;
        assert_eq!(first["note"].as_str().unwrap().len(), MAX_NOTE);
        assert_eq!(
            (&first["type"], &first["reportingController"], &first["reportingInstance"]),
            (&json!("Warning"), &json!("podshaper.dev/peerpods"), &json!("replica"))
        );
        // `metav1.MicroTime` has six digits.
        assert_eq!(first["eventTime"].as_str().unwrap().len(), "2006-01-02T15:04:05.000000Z".len());
        publish(&events, "a", "Y", "note");
        created(&mut server).await;
        publish(&events, "b", "X", "note");
        created(&mut server).await;

        sleep(MIN_INTERVAL / 2).await;
        publish(&events, "b", "X", "note");
        sleep(MIN_INTERVAL / 2).await;
        assert!(server.is_idle(), "within a minute");
        publish(&events, "b", "X", "note");
        let repeated = server.next_request().await;
        assert_eq!(repeated.request().method(), Method::PATCH);
        assert_eq!(repeated.request().body()["series"]["count"], 2);
        repeated.respond(MockResponse::failure(404, "NotFound"));
        sleep(MIN_INTERVAL).await;
        publish(&events, "b", "X", "note");
        created(&mut server).await;
        sleep(MIN_INTERVAL).await;
        publish(&events, "b", "X", "another note");
        assert_eq!(created(&mut server).await["note"], "another note");
    }
}
