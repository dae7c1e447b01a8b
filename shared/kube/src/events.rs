//! Events: what `kubectl describe` shows of an object.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use serde::Serialize;
use serde_json::json;
use tokio::sync::mpsc;

use crate::request::{Media, send};
use podshaper_core::object::is_name;

/// Events that wait to be sent; more are dropped, because the next of their kind says the same.
const QUEUE: usize = 256;
/// An object gets an Event of the same reason no more often than this.
const INTERVAL: Duration = Duration::from_mins(1);
/// What happens again within this time, and is told in the same words, is counted in the Event that there is.
const SERIES: Duration = Duration::from_mins(6);
/// So many bytes of its text are allowed (`NoteLengthLimit` of Kubernetes).
const NOTE: usize = 1024;
/// A uid is an UUID of 36 characters; what a pod says that it is may be anything.
const UID: usize = 64;
/// So many pairs of object and reason are remembered for that.
const REMEMBERED: usize = 4096;

/// What happened.
#[derive(Clone, Debug)]
pub struct Note {
    /// The object that it happened to.
    pub regarding: Regarding,
    /// Whether somebody should look at it.
    pub warning: bool,
    /// Why, in one word: `TemplateMissing`.
    pub reason: &'static str,
    /// What was done, in one word: `Admit`.
    pub action: &'static str,
    /// What happened, for people.
    pub message: String,
}

/// The object of an Event (`corev1.ObjectReference`).
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Regarding {
    /// `apps/v1`.
    pub api_version: Cow<'static, str>,
    /// `DaemonSet`.
    pub kind: Cow<'static, str>,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// The last Event about one object for one reason.
#[derive(Debug, Default)]
struct Sent {
    at: Option<Instant>,
    name: String,
    /// A hash of what it said.
    said: u64,
    /// How often it happened; 0 begins anew.
    count: u32,
}

/// By the object's uid and the reason.
type Log = HashMap<(String, &'static str), Sent>;

/// Sends Events without making anybody wait.
#[derive(Clone, Debug)]
pub struct Events(mpsc::Sender<Note>);

impl Events {
    /// Begins to send Events in the name of `controller`, the webhook, and `instance`, its pod. Needs a runtime.
    pub fn start(client: Client, controller: &str, instance: String) -> Self {
        let (sender, mut notes) = mpsc::channel::<Note>(QUEUE);
        let controller = format!("podshaper.dev/{controller}");
        tokio::spawn(async move {
            let mut log = Log::new();
            while let Some(note) = notes.recv().await {
                let Some(sent) = due(&mut log, &note, Instant::now()) else { continue };
                if let Err(error) = publish(&client, &controller, &instance, &note, sent).await {
                    sent.count = 0;
                    tracing::warn!(reason = note.reason, %error, "can't send an Event");
                }
            }
        });
        Self(sender)
    }

    /// Sends an Event soon, unless nothing can be called so as what it regards.
    pub fn send(&self, mut note: Note) {
        if !is_name(&note.regarding.name) || note.regarding.uid.len() > UID {
            return;
        }
        // What waits is kept small.
        note.message.truncate(note.message.floor_char_boundary(NOTE));
        // A queue that is full has its like already.
        let _ = self.0.try_send(note);
    }
}

/// The entry of what is to be sent now, counted.
fn due<'l>(log: &'l mut Log, note: &Note, now: Instant) -> Option<&'l mut Sent> {
    if log.len() >= REMEMBERED {
        log.retain(|_, sent| sent.at.is_some_and(|at| now.duration_since(at) < INTERVAL));
        if log.len() >= REMEMBERED {
            return None;
        }
    }
    let sent = log.entry((note.regarding.uid.clone(), note.reason)).or_default();
    match sent.at.map(|at| now.duration_since(at)) {
        Some(ago) if ago < INTERVAL => return None,
        Some(ago) if ago < SERIES => {}
        _ => sent.count = 0,
    }
    let said = BuildHasherDefault::<DefaultHasher>::default().hash_one(&note.message);
    if sent.said != said {
        sent.count = 0;
    }
    sent.said = said;
    sent.at = Some(now);
    sent.count += 1;
    Some(sent)
}

/// Creates the Event, or has the one that there is count on (events.k8s.io/v1).
async fn publish(
    client: &Client,
    controller: &str,
    instance: &str,
    note: &Note,
    sent: &mut Sent,
) -> kube::Result<()> {
    let Regarding { namespace, name, .. } = &note.regarding;
    let events = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
    let now = Timestamp::now();
    // `metav1.MicroTime` takes six digits, and no others.
    let time = format!("{now:.6}");
    if sent.count > 1 {
        let series = json!({"series": {"count": sent.count, "lastObservedTime": time}});
        return send(client, "PATCH", &format!("{events}/{}", sent.name), Media::MergePatch, &series)
            .await
            .map(drop);
    }
    sent.name = format!("{name}.{:x}", now.as_nanosecond());
    let event = json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": sent.name, "namespace": namespace},
        "eventTime": time,
        "reportingController": controller,
        "reportingInstance": instance,
        "regarding": note.regarding,
        "type": if note.warning { "Warning" } else { "Normal" },
        "reason": note.reason,
        "action": note.action,
        "note": note.message,
    });
    send(client, "POST", &events, Media::Json, &event).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_of_a_reason_in_a_minute() {
        let note = |uid: &str, reason, message: &str| Note {
            regarding: Regarding {
                api_version: "v1".into(),
                kind: "Pod".into(),
                namespace: "ns".to_owned(),
                name: "pod".to_owned(),
                uid: uid.to_owned(),
            },
            warning: true,
            reason,
            action: "Admit",
            message: message.to_owned(),
        };
        let (mut log, now) = (Log::new(), Instant::now());
        let mut said =
            |uid, reason, message, at| due(&mut log, &note(uid, reason, message), at).map(|sent| sent.count);
        let mut count = |uid, reason, at| said(uid, reason, "a", at);
        assert_eq!(count("a", "X", now), Some(1));
        assert_eq!(count("a", "X", now + INTERVAL / 2), None);
        assert_eq!([count("a", "Y", now), count("b", "X", now)], [Some(1); 2]);
        assert_eq!(count("a", "X", now + INTERVAL), Some(2));
        assert_eq!(count("a", "X", now + INTERVAL + SERIES), Some(1));
        // News isn't counted among what was told before.
        let later = now + SERIES * 2;
        assert_eq!([said("a", "X", "a", later), said("a", "X", "b", later + INTERVAL)], [Some(2), Some(1)]);
    }
}
