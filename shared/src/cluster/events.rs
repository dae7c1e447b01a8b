//! Events: what `kubectl describe` shows of an object.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;

/// Events that wait to be sent; more are dropped, because the next of their kind says the same.
const QUEUE: usize = 256;
/// An object gets an Event of the same reason no more often than this.
const INTERVAL: Duration = Duration::from_mins(1);
/// So many pairs of object and reason are remembered for that.
const REMEMBERED: usize = 4096;

/// What happened.
#[derive(Clone, Debug)]
pub struct Note {
    /// The object that it happened to.
    pub regarding: ObjectReference,
    /// Whether somebody should look at it.
    pub warning: bool,
    /// Why, in one word: `TemplateMissing`.
    pub reason: &'static str,
    /// What was done, in one word: `Admit`.
    pub action: &'static str,
    /// What happened, for people.
    pub message: String,
}

/// Sends Events without making anybody wait.
#[derive(Clone, Debug)]
pub struct Events(mpsc::Sender<Note>);

impl Events {
    /// Begins to send Events in the name of `controller`, the webhook, and `instance`, its pod. Needs a runtime.
    pub fn start(client: Client, controller: &str, instance: String) -> Self {
        let (sender, mut notes) = mpsc::channel::<Note>(QUEUE);
        let reporter =
            Reporter { controller: format!("podshaper.dev/{controller}"), instance: Some(instance) };
        tokio::spawn(async move {
            let recorder = Recorder::new(client, reporter);
            let mut sent = HashMap::new();
            while let Some(note) = notes.recv().await {
                if due(&mut sent, &note, Instant::now())
                    && let Err(error) = recorder.publish(&event(&note), &note.regarding).await
                {
                    tracing::warn!(reason = note.reason, %error, "can't send an Event");
                }
            }
        });
        Self(sender)
    }

    /// Sends an Event soon.
    pub fn send(&self, note: Note) {
        // A queue that is full has its like already.
        let _ = self.0.try_send(note);
    }
}

fn due(sent: &mut HashMap<(String, &'static str), Instant>, note: &Note, now: Instant) -> bool {
    let object = &note.regarding;
    let id = object.uid.clone().or_else(|| object.name.clone()).unwrap_or_default();
    let recent = |at: &Instant| now.duration_since(*at) < INTERVAL;
    if sent.len() >= REMEMBERED {
        sent.retain(|_, at| recent(at));
    }
    let key = (id, note.reason);
    if sent.get(&key).is_some_and(recent) || sent.len() >= REMEMBERED {
        return false;
    }
    sent.insert(key, now);
    true
}

fn event(note: &Note) -> Event {
    Event {
        type_: if note.warning { EventType::Warning } else { EventType::Normal },
        reason: note.reason.to_owned(),
        // events.k8s.io/v1 allows 1 KiB.
        note: Some(note.message.chars().take(500).collect()),
        action: note.action.to_owned(),
        secondary: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_of_a_reason_in_a_minute() {
        let note = |uid: &str, reason| Note {
            regarding: ObjectReference { uid: Some(uid.to_owned()), ..ObjectReference::default() },
            warning: true,
            reason,
            action: "Admit",
            message: String::new(),
        };
        let (mut sent, now) = (HashMap::new(), Instant::now());
        assert!(due(&mut sent, &note("a", "X"), now));
        assert!(!due(&mut sent, &note("a", "X"), now + INTERVAL / 2));
        assert!(due(&mut sent, &note("a", "Y"), now) && due(&mut sent, &note("b", "X"), now));
        assert!(due(&mut sent, &note("a", "X"), now + INTERVAL));
    }
}
