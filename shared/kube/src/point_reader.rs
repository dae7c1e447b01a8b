//! Reads single objects from a store, or from the API server if the watch may lag behind.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Client;
use moka::sync::Cache;
use tokio::time::timeout;

use crate::error::describe;
use crate::request::get;
use crate::store::Store;
use podshaper_core::object::{FromObject, Lookup, Object, is_name, key};

/// The longest that a read waits for the API server.
const MAX_WAIT: Duration = Duration::from_secs(1);
/// The part of the request's time that a read leaves.
const MARGIN: Duration = Duration::from_millis(250);
/// How long an absent object is not read again: a burst of pods causes one read.
const ABSENT_TTL: Duration = Duration::from_secs(1);
/// Absent objects that are remembered.
const MAX_ABSENT: u64 = 1024;

/// Reads objects of one kind.
pub struct PointReader<T> {
    store: Arc<Store<T>>,
    client: Client,
    absent: Cache<String, ()>,
    /// The path of the API group and version.
    api: Cow<'static, str>,
    plural: Cow<'static, str>,
}

impl<T: FromObject> PointReader<T> {
    /// Reads from `store` first, and then through `client`.
    pub fn new(store: Arc<Store<T>>, client: Client) -> Self {
        let absent = Cache::builder().max_capacity(MAX_ABSENT).time_to_live(ABSENT_TTL).build();
        Self { store, client, absent, api: T::API.into(), plural: T::PLURAL.into() }
    }

    /// Reads a kind that has the fields of `T`, at another path.
    #[must_use]
    pub fn at(self, api: String, plural: String) -> Self {
        Self { api: api.into(), plural: plural.into(), ..self }
    }

    /// Returns the store.
    pub fn store(&self) -> &Arc<Store<T>> {
        &self.store
    }

    /// Finds an object by its name. The stored object may be an older one of the same name: one that does not satisfy `is_current` is
    /// read again.
    pub async fn find(
        &self,
        namespace: Option<&str>,
        name: &str,
        deadline: Instant,
        is_current: impl Fn(&T) -> bool,
    ) -> Lookup<T> {
        if !is_name(name) {
            return Lookup::NotFound;
        }
        let key = key(namespace, name);
        if let Some(object) = self.store.get(&key).filter(|object| is_current(object)) {
            return Lookup::Found(object);
        }
        let left = deadline.saturating_duration_since(Instant::now()).saturating_sub(MARGIN);
        if left.is_zero() {
            return Lookup::Unavailable;
        }
        if self.absent.contains_key(&key) {
            return Lookup::NotFound;
        }
        match timeout(left.min(MAX_WAIT), self.read(namespace, name)).await {
            Ok(Ok(Some(object))) if is_current(&object) => Lookup::Found(Arc::new(object)),
            Ok(Ok(Some(_))) => Lookup::NotFound,
            Ok(Ok(None)) => {
                self.absent.insert(key, ());
                Lookup::NotFound
            }
            Ok(Err(error)) => {
                tracing::warn!(kind = &*self.plural, name, error = describe(&error), "cannot read an object");
                Lookup::Unavailable
            }
            Err(_) => Lookup::Unavailable,
        }
    }

    /// Reads an object from the API server. It is absent, too, if its projection is.
    async fn read(&self, namespace: Option<&str>, name: &str) -> kube::Result<Option<T>> {
        let namespace = namespace.map(|namespace| format!("/namespaces/{namespace}")).unwrap_or_default();
        let path = format!("{}{namespace}/{}/{name}", self.api, self.plural);
        let object: Option<Object<T::Spec, T::Status>> = get(&self.client, &path).await?;
        Ok(object.and_then(T::from_object))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::test_object::TestObject;
    use podshaper_testing::MockApiServer;

    fn in_a_minute() -> Instant {
        Instant::now() + Duration::from_mins(1)
    }

    async fn find(reader: &PointReader<TestObject>, name: &str) -> Lookup<TestObject> {
        reader.find(Some("ns"), name, in_a_minute(), |_| true).await
    }

    #[tokio::test]
    async fn object_missing_in_the_store_is_read() {
        let (client, mut server) = MockApiServer::start();
        let store = Arc::new(Store::default());
        store.put("ns/known".to_owned(), TestObject(1));
        let reader = PointReader::new(store, client);
        assert_eq!(find(&reader, "known").await, Lookup::Found(TestObject(1).into()));
        let read = async {
            let answer = json!({"metadata": {"name": "new"}, "spec": 2});
            server.next("/apis/x/v1/namespaces/ns/things/new").await.answer(200, &answer);
        };
        assert_eq!(tokio::join!(find(&reader, "new"), read).0, Lookup::Found(TestObject(2).into()));
        let newer = reader.find(Some("ns"), "known", in_a_minute(), |object| object.0 == 2);
        let read = async {
            let answer = json!({"metadata": {"name": "known"}, "spec": 1});
            server.next("/apis/x/v1/namespaces/ns/things/known").await.answer(200, &answer);
        };
        assert_eq!(tokio::join!(newer, read).0, Lookup::NotFound, "an older one of the same name");

        let absent = json!({"kind": "Status", "reason": "NotFound", "code": 404});
        let read = async { server.next("/apis/x/v1/namespaces/ns/things/none").await.answer(404, &absent) };
        assert_eq!(tokio::join!(find(&reader, "none"), read).0, Lookup::NotFound);
        assert_eq!(find(&reader, "none").await, Lookup::NotFound);
        assert!(server.is_idle(), "an absent object is not read again at once");
        for name in ["../../x", "a?watch=true", ""] {
            assert_eq!(find(&reader, name).await, Lookup::NotFound, "{name}");
        }
        assert!(server.is_idle(), "no object has such a name");
    }

    #[tokio::test(start_paused = true)]
    async fn read_without_a_response_ends_in_time() {
        let (client, mut server) = MockApiServer::start();
        let reader = PointReader::<TestObject>::new(Arc::default(), client);
        let started = tokio::time::Instant::now();
        assert_eq!(find(&reader, "a").await, Lookup::Unavailable, "no response");
        assert_eq!(started.elapsed().as_secs(), MAX_WAIT.as_secs());
        server.next("/apis/x/v1/namespaces/ns/things/a").await;
        let late = reader.find(Some("ns"), "a", Instant::now() + MARGIN, |_| true).await;
        assert!(late == Lookup::Unavailable && server.is_idle(), "the request has no time left");
        let failed = json!({"kind": "Status", "reason": "InternalError", "code": 500});
        let read = async { server.next("/apis/x/v1/namespaces/ns/things/a").await.answer(500, &failed) };
        assert_eq!(tokio::join!(find(&reader, "a"), read).0, Lookup::Unavailable);
    }
}
