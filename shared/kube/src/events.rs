//! Kubernetes Events about objects, published in the background.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
pub use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
pub use kube::runtime::events::EventType;
use kube::{Api, Client};
use moka::sync::Cache;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::error::describe;
use crate::request::{REQUEST_TIMEOUT, within};
use podshaper_core::object::{is_name, is_namespace, is_uid};

/// Events that wait to be published. More are dropped: the next one of an object and reason replaces them.
const QUEUE: usize = 256;
/// The least time between two Events of an object and reason.
const MIN_INTERVAL: Duration = Duration::from_mins(1);
/// The least time between two Events of this process in the long run. More are dropped: pods of tenants cause them.
const PERIOD: Duration = Duration::from_secs(1);
/// Events that may follow each other at once.
const BURST: NonZeroU32 = NonZeroU32::MIN.saturating_add(99);
/// Pairs of object and reason with a cached last Event. If all are recent, Events of others are dropped.
const MAX_RECENT: usize = 4096;
/// Events of which repetitions are counted.
const MAX_SERIES: u64 = 256;
/// How long repetitions are counted in one Event, as client-go does.
const SERIES_TTL: Duration = Duration::from_mins(6);
/// Bytes of a `note` (`NoteLengthLimit` of k8s.io/kubernetes/pkg/apis/core/validation).
const MAX_NOTE: usize = 1024;
/// Bytes of an object's name in the name of an Event, which has at most 253 and ends with a dot and 16 digits.
const MAX_NAME_PART: usize = 253 - 17;

/// Publishes Events. Clones share one queue.
#[derive(Clone, Debug)]
pub struct Events(mpsc::Sender<EventRequest>);

/// One Event to publish.
#[derive(Debug)]
struct EventRequest {
    regarding: ObjectReference,
    event_type: EventType,
    reason: String,
    action: String,
    note: String,
}

impl Events {
    /// Starts a task that publishes Events of `controller`, a webhook, and `instance`, its pod.
    pub fn start(client: Client, controller: &str, instance: String) -> Self {
        let (sender, mut queue) = mpsc::channel(QUEUE);
        let mut publisher = Publisher::new(client, format!("podshaper.dev/{controller}"), instance);
        tokio::spawn(async move {
            while let Some(request) = queue.recv().await {
                publisher.publish(request).await;
            }
        });
        Self(sender)
    }

    /// Queues an Event about `regarding`. It is dropped if the object has an invalid namespace, name or uid, or if the queue is full.
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
            && regarding.namespace.as_deref().is_none_or(is_namespace)
            && regarding.uid.as_deref().is_some_and(is_uid);
        if is_valid {
            note.truncate(note.floor_char_boundary(MAX_NOTE));
            let reason = reason.to_owned();
            let action = action.to_owned();
            let _ = self.0.try_send(EventRequest { regarding, event_type, reason, action, note });
        }
    }
}

struct Publisher {
    client: Client,
    controller: String,
    instance: String,
    rate: DefaultDirectRateLimiter,
    /// When the last Event was published, by uid and reason.
    last: HashMap<(String, String), Instant>,
    /// The name of the last Event and how often it was repeated, by uid, reason and note.
    series: Cache<(String, String, String), (String, i32)>,
}

impl Publisher {
    fn new(client: Client, controller: String, instance: String) -> Self {
        let series = Cache::builder().max_capacity(MAX_SERIES).time_to_idle(SERIES_TTL).build();
        let quota = Quota::with_period(PERIOD).unwrap_or(Quota::per_second(NonZeroU32::MIN));
        let rate = RateLimiter::direct(quota.allow_burst(BURST));
        Self { client, controller, instance, rate, last: HashMap::new(), series }
    }

    async fn publish(&mut self, request: EventRequest) {
        let uid = request.regarding.uid.clone().unwrap_or_default();
        if !self.admit((uid.clone(), request.reason.clone())) {
            return;
        }
        let key = (uid, request.reason.clone(), request.note.clone());
        // A cluster-scoped object has its Events in the namespace `default`.
        let namespace = request.regarding.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let events: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let published = match self.series.get(&key) {
            Some((name, count)) => repeat(&events, name, count + 1).await,
            None => self.create(&events, namespace, request).await,
        };
        match published {
            Ok(series) => self.series.insert(key, series),
            Err(error) => {
                tracing::warn!(reason = key.1, error = describe(&error), "cannot publish an Event");
                // The Event that would count the next repetition may not exist.
                self.series.invalidate(&key);
            }
        }
    }

    /// Creates an Event, and returns its name and count.
    async fn create(
        &self,
        events: &Api<Event>,
        namespace: String,
        request: EventRequest,
    ) -> kube::Result<(String, i32)> {
        let now = Timestamp::now();
        let object = request.regarding.name.as_deref().unwrap_or_default();
        let object = object.get(..MAX_NAME_PART).unwrap_or(object).trim_end_matches(['.', '-']);
        let name = format!("{object}.{:x}", now.as_nanosecond());
        let event_type = match request.event_type {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        };
        let event = Event {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(namespace),
                ..ObjectMeta::default()
            },
            type_: Some(event_type.to_owned()),
            reason: Some(request.reason),
            action: Some(request.action),
            note: Some(request.note),
            regarding: Some(request.regarding),
            event_time: Some(MicroTime(now)),
            reporting_controller: Some(self.controller.clone()),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        };
        within(REQUEST_TIMEOUT, events.create(&PostParams::default(), &event)).await?;
        Ok((name, 1))
    }

    /// Whether an Event of this uid and reason may be published now.
    fn admit(&mut self, key: (String, String)) -> bool {
        let now = Instant::now();
        let is_recent = |last: &Instant| now.duration_since(*last) < MIN_INTERVAL;
        if self.last.len() >= MAX_RECENT {
            self.last.retain(|_, last| is_recent(last));
        }
        if self.last.get(&key).is_some_and(is_recent)
            || self.last.len() >= MAX_RECENT
            || self.rate.check().is_err()
        {
            return false;
        }
        self.last.insert(key, now);
        true
    }
}

/// Counts a repetition of an Event.
async fn repeat(events: &Api<Event>, name: String, count: i32) -> kube::Result<(String, i32)> {
    let now = MicroTime(Timestamp::now());
    let patch = json!({"series": {"count": count, "lastObservedTime": now}});
    let parameters = PatchParams::default();
    let patch = Patch::Merge(&patch);
    within(REQUEST_TIMEOUT, events.patch(&name, &parameters, &patch)).await?;
    Ok((name, count))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::{Value, json};
    use tokio::time::sleep;

    use super::*;
    use podshaper_testing::{MockApiServer, MockResponse};

    fn object(uid: &str) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some("ns".to_owned()),
            name: Some("pod".to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        }
    }

    fn publish(events: &Events, uid: &str, reason: &str, note: &str) {
        let regarding = object(uid);
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

    #[tokio::test(start_paused = true)]
    async fn event_of_a_long_name_has_a_valid_name() {
        let (client, mut server) = MockApiServer::start();
        let events = Events::start(client, "peerpods", "replica".to_owned());
        let name = format!("{}.{}", "a".repeat(235), "b".repeat(17));
        let regarding = ObjectReference { name: Some(name.clone()), ..object("a") };
        events.publish(regarding, EventType::Normal, "X", "Admit", "note".to_owned());
        let event = created(&mut server).await;
        assert_eq!(event["regarding"]["name"], *name);
        let event_name = event["metadata"]["name"].as_str().unwrap();
        assert!(event_name.len() <= 253 && is_name(event_name) && !event_name.contains(".."), "{event_name}");
    }

    #[tokio::test(start_paused = true)]
    async fn event_of_an_invalid_object_is_dropped() {
        let (client, mut server) = MockApiServer::start();
        let events = Events::start(client, "peerpods", "replica".to_owned());
        for regarding in [
            ObjectReference { namespace: Some("kube-system/pods?x=".to_owned()), ..object("a") },
            ObjectReference { name: Some("../x".to_owned()), ..object("a") },
            object("not/a/uid"),
            object(""),
        ] {
            events.publish(regarding, EventType::Normal, "X", "Admit", String::new());
        }
        publish(&events, "a", "X", "note");
        created(&mut server).await;
        sleep(MIN_INTERVAL).await;
        assert!(server.is_idle());
    }

    #[tokio::test(start_paused = true)]
    async fn events_of_many_objects_have_a_common_rate() {
        let (client, mut server) = MockApiServer::start();
        let events = Events::start(client, "peerpods", "replica".to_owned());
        for number in 0..BURST.get() + 50 {
            publish(&events, &number.to_string(), "X", "note");
        }
        for _ in 0..BURST.get() {
            created(&mut server).await;
        }
        sleep(MIN_INTERVAL).await;
        assert!(server.is_idle(), "more are dropped");
    }
}
