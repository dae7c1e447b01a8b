//! One object at the moment of a decision.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::Client;

use super::store::Store;
use crate::request::get;
use podshaper_core::lookup::Lookup;
use podshaper_core::object::is_name;
use podshaper_core::object::{FromObject, Object, key};

/// The longest that a decision waits for one read, however patient the API server is.
const LONGEST: Duration = Duration::from_secs(1);
/// What is left of the request's time for everything else.
const MARGIN: Duration = Duration::from_millis(250);
/// How long an object that wasn't there isn't asked for again: a burst of pods asks once.
const ABSENT: Duration = Duration::from_secs(1);
/// So many absent names are remembered.
const ABSENT_NAMES: usize = 1024;

/// A store, and a read of the API server where the watch may lag behind.
pub struct PointReader<T> {
    store: Arc<Store<T>>,
    client: Client,
    absent: Mutex<HashMap<String, Instant>>,
}

impl<T: FromObject> PointReader<T> {
    /// Looks into `store` and then asks the API server through `client`.
    pub fn new(store: Arc<Store<T>>, client: Client) -> Self {
        Self { store, client, absent: Mutex::default() }
    }

    /// The store.
    pub fn store(&self) -> &Arc<Store<T>> {
        &self.store
    }

    /// The object of this name, if it satisfies `is`: one that doesn't is an older one of the same name.
    pub async fn find(
        &self,
        namespace: Option<&str>,
        name: &str,
        deadline: Instant,
        is: impl Fn(&T) -> bool,
    ) -> Lookup<T> {
        if !is_name(name) {
            return Lookup::NotFound;
        }
        let key = key(namespace, name);
        if let Some(object) = self.store.get(&key).filter(|object| is(object)) {
            return Lookup::Found(object);
        }
        let now = Instant::now();
        let patience = deadline.saturating_duration_since(now).saturating_sub(MARGIN).min(LONGEST);
        if patience.is_zero() {
            return Lookup::Unavailable;
        }
        if self.absent(|absent| absent.get(&key).is_some_and(|seen| now.duration_since(*seen) < ABSENT)) {
            return Lookup::NotFound;
        }
        match tokio::time::timeout(patience, read::<T>(&self.client, namespace, name)).await {
            Ok(Ok(Some(object))) => {
                if is(&object) {
                    Lookup::Found(Arc::new(object))
                } else {
                    Lookup::NotFound
                }
            }
            Ok(Ok(None)) => {
                self.absent(|absent| {
                    if absent.len() >= ABSENT_NAMES {
                        absent.retain(|_, seen| now.duration_since(*seen) < ABSENT);
                    }
                    if absent.len() < ABSENT_NAMES {
                        absent.insert(key, now);
                    }
                });
                Lookup::NotFound
            }
            Ok(Err(error)) => {
                tracing::warn!(kind = T::PLURAL, name, %error, "can't read an object that no watch has shown");
                Lookup::Unavailable
            }
            Err(_) => Lookup::Unavailable,
        }
    }

    fn absent<R>(&self, with: impl FnOnce(&mut HashMap<String, Instant>) -> R) -> R {
        with(&mut self.absent.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Reads one object; none if there is none, or none of interest.
async fn read<T: FromObject>(
    client: &Client,
    namespace: Option<&str>,
    name: &str,
) -> kube::Result<Option<T>> {
    let namespace = namespace.map(|namespace| format!("/namespaces/{namespace}")).unwrap_or_default();
    let path = format!("{}{namespace}/{}/{name}", T::API, T::PLURAL);
    let object: Option<Object<T::Spec, T::Status>> = get(client, &path).await?;
    Ok(object.and_then(T::from_object))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::thing::Thing;
    use podshaper_testing::MockApiServer;

    fn soon() -> Instant {
        Instant::now() + Duration::from_mins(1)
    }

    async fn find(lookup: &PointReader<Thing>, name: &str) -> Lookup<Thing> {
        lookup.find(Some("ns"), name, soon(), |_| true).await
    }

    #[tokio::test]
    async fn what_no_watch_has_shown_is_read_once() {
        let (client, mut server) = MockApiServer::start();
        let store = Arc::new(Store::default());
        store.put("ns/known".to_owned(), Thing(1));
        let lookup = PointReader::new(store, client);
        assert_eq!(find(&lookup, "known").await, Lookup::Found(Thing(1).into()));
        let read = async {
            let answer = json!({"metadata": {"name": "new"}, "spec": 2});
            server.next("/apis/x/v1/namespaces/ns/things/new").await.answer(200, &answer);
        };
        assert_eq!(tokio::join!(find(&lookup, "new"), read).0, Lookup::Found(Thing(2).into()));
        let of_another = lookup.find(Some("ns"), "known", soon(), |thing| thing.0 == 2);
        let read = async {
            let answer = json!({"metadata": {"name": "known"}, "spec": 1});
            server.next("/apis/x/v1/namespaces/ns/things/known").await.answer(200, &answer);
        };
        assert_eq!(tokio::join!(of_another, read).0, Lookup::NotFound, "an older one of the same name");

        let absent = json!({"kind": "Status", "reason": "NotFound", "code": 404});
        let read = async { server.next("/apis/x/v1/namespaces/ns/things/none").await.answer(404, &absent) };
        assert_eq!(tokio::join!(find(&lookup, "none"), read).0, Lookup::NotFound);
        assert_eq!(find(&lookup, "none").await, Lookup::NotFound);
        assert!(server.is_idle(), "what wasn't there isn't asked for again at once");
        for name in ["../../x", "a?watch=true", ""] {
            assert_eq!(find(&lookup, name).await, Lookup::NotFound, "{name}");
        }
        assert!(server.is_idle(), "nothing can be called so");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_long() {
        let (client, mut server) = MockApiServer::start();
        let lookup = PointReader::<Thing>::new(Arc::default(), client);
        let begun = tokio::time::Instant::now();
        assert_eq!(find(&lookup, "a").await, Lookup::Unavailable, "the API server says nothing");
        assert_eq!(begun.elapsed().as_secs(), LONGEST.as_secs());
        server.next("/apis/x/v1/namespaces/ns/things/a").await;
        let late = lookup.find(Some("ns"), "a", Instant::now() + MARGIN, |_| true).await;
        assert!(late == Lookup::Unavailable && server.is_idle(), "the request has no time left");
        let failed = json!({"kind": "Status", "reason": "InternalError", "code": 500});
        let read = async { server.next("/apis/x/v1/namespaces/ns/things/a").await.answer(500, &failed) };
        assert_eq!(tokio::join!(find(&lookup, "a"), read).0, Lookup::Unavailable);
    }
}
