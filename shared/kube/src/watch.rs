//! List, then watch, for ever: what keeps a store true.

use std::sync::Arc;

use kube::Client;
use kube::runtime::watcher::DefaultBackoff;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Duration;

use super::pages::{ListMetadata, pages};
use super::store::Store;
use crate::request::{EventKind, watch};
use podshaper_core::object::{FromObject, Object};

/// Objects of a list that are read at a time.
const PAGE: usize = 200;
/// A page that takes longer never comes.
const PATIENCE: Duration = Duration::from_secs(30);
/// A watch that ends sooner begins again only then.
const LEAST: Duration = Duration::from_secs(1);
/// After so many seconds the API server ends a watch, which then goes on from where it was.
const WATCH: u64 = 280;

/// Which objects of a kind are followed. Everything, by default.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// One namespace.
    pub namespace: Option<String>,
    /// `labelSelector`, as in a URL but not encoded.
    pub labels: String,
}

/// Takes in what the API server sends, as JSON, for a store of whatever kind: what talks to the API server is compiled once.
pub trait Sink: Send {
    /// A list begins.
    fn restart(&mut self);
    /// One more of it.
    fn listed(&mut self, object: &RawValue) -> serde_json::Result<()>;
    /// It is complete, as of this version: nothing else is there.
    fn complete(&mut self, version: &str);
    /// An object came, changed, or is `gone`; its version.
    fn changed(&mut self, object: &RawValue, gone: bool) -> serde_json::Result<String>;
    /// Nothing has happened up to this version that it wasn't told of.
    fn reached(&mut self, _version: &str) {}
}

struct Filling<T> {
    store: Arc<Store<T>>,
    kept: Vec<(String, T)>,
}

impl<T: FromObject> Sink for Filling<T> {
    fn restart(&mut self) {
        self.kept.clear();
    }

    fn listed(&mut self, object: &RawValue) -> serde_json::Result<()> {
        let object = read::<T>(object)?;
        let key = object.metadata.key();
        self.kept.extend(T::from_object(object).map(|object| (key, object)));
        Ok(())
    }

    fn complete(&mut self, _version: &str) {
        self.store.replace(std::mem::take(&mut self.kept));
    }

    fn changed(&mut self, object: &RawValue, gone: bool) -> serde_json::Result<String> {
        let mut object = read::<T>(object)?;
        let (key, version) = (object.metadata.key(), std::mem::take(&mut object.metadata.resource_version));
        match if gone { None } else { T::from_object(object) } {
            Some(object) => self.store.put(key, object),
            None => self.store.remove(&key),
        }
        Ok(version)
    }
}

fn read<T: FromObject>(object: &RawValue) -> serde_json::Result<Object<T::Spec, T::Status>> {
    serde_json::from_str(object.get())
}

/// What is followed.
struct Source {
    client: Client,
    scope: Scope,
    api: &'static str,
    plural: &'static str,
}

#[derive(Deserialize)]
struct Bookmark {
    metadata: ListMetadata,
}

/// Follows the objects of a kind, and keeps `store` as they are; comes back never.
///
/// Between an error and the next try is a pause that grows to half a minute; the store stays as it is meanwhile. A watch goes
/// on from where it was, as long as the API server knows the changes since then: a list is much work for it.
pub async fn follow<T: FromObject>(client: Client, scope: Scope, store: Arc<Store<T>>) {
    follow_into(client, scope, T::API, T::PLURAL, &mut Filling { store, kept: Vec::new() }).await;
}

/// A store that is kept true from now on. Needs a runtime.
pub fn watched<T: FromObject>(client: &Client, scope: Scope) -> Arc<Store<T>> {
    let store = Arc::new(Store::default());
    tokio::spawn(follow(client.clone(), scope, Arc::clone(&store)));
    store
}

/// The same with any other use of what the API server sends.
pub async fn follow_into(
    client: Client,
    scope: Scope,
    api: &'static str,
    plural: &'static str,
    sink: &mut dyn Sink,
) {
    Source { client, scope, api, plural }.follow(sink).await;
}

impl Source {
    async fn follow(&self, sink: &mut dyn Sink) {
        let mut pace = DefaultBackoff::default();
        let mut from = String::new();
        loop {
            let begun = tokio::time::Instant::now();
            let fallible = async {
                if from.is_empty() {
                    from = self.list(sink).await?;
                    pace = DefaultBackoff::default();
                }
                self.watch(sink, &mut from).await
            };
            if let Err(error) = fallible.await {
                if !resumes(&error) {
                    from.clear();
                }
                if !is_expired(&error) {
                    tracing::warn!(kind = self.plural, %error, "can't watch, trying again");
                    tokio::time::sleep(pace.next().unwrap_or_default()).await;
                }
            }
            tokio::time::sleep_until(begun + LEAST).await;
        }
    }

    fn path(&self, query: &[(&str, &str)]) -> String {
        let namespace = self.scope.namespace.as_ref().map(|namespace| format!("/namespaces/{namespace}"));
        let mut uri = format!("{}{}/{}?", self.api, namespace.unwrap_or_default(), self.plural);
        let labels = [("labelSelector", &*self.scope.labels)];
        for (name, value) in labels.iter().chain(query).filter(|(_, value)| !value.is_empty()) {
            let value = encoded(value);
            for part in [name, "=", &value, "&"] {
                uri.push_str(part);
            }
        }
        uri
    }

    /// Reads all objects, and returns the version at which they were so.
    async fn list(&self, sink: &mut dyn Sink) -> kube::Result<String> {
        sink.restart();
        let uri = |limit: usize, next: &str| self.path(&[("limit", &limit.to_string()), ("continue", next)]);
        let mut listed = |items: &[&RawValue]| {
            for object in items {
                // For the sake of all the others. A list for nothing but such an object would be made again and again.
                if let Err(error) = sink.listed(object) {
                    tracing::warn!(kind = self.plural, %error, "an object can't be read, and is passed over");
                }
            }
            Ok(())
        };
        let version = pages(&self.client, PATIENCE, PAGE, uri, &mut listed).await?;
        sink.complete(&version);
        Ok(version)
    }

    /// Follows changes since `from`, and moves it along, until the watch ends.
    async fn watch(&self, sink: &mut dyn Sink, from: &mut String) -> kube::Result<()> {
        let seconds = WATCH.to_string();
        let path = self.path(&[
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", &*seconds),
            ("resourceVersion", &*from),
        ]);
        // A connection that is dead, without a word, shows as the end of this time.
        watch(&self.client, &path, Duration::from_secs(WATCH) + PATIENCE, &mut |event| {
            *from = match event.kind {
                EventKind::Bookmark => {
                    let bookmark: Bookmark = serde_json::from_str(event.object.get())?;
                    sink.reached(&bookmark.metadata.resource_version);
                    bookmark.metadata.resource_version
                }
                kind => sink.changed(event.object, kind == EventKind::Deleted)?,
            };
            Ok(())
        })
        .await
    }
}

/// Whether the watch may go on from where it was: the API server couldn't be reached, or has too much to do.
fn resumes(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code == 429,
        kube::Error::SerdeError(_) => false,
        _ => true,
    }
}

/// What stood so long ago that changes since then aren't known any more.
fn is_expired(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 410)
}

/// Percent-encoded (RFC 3986 §2.1): everything but unreserved characters.
pub fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(byte.into()),
            _ => encoded.extend(format!("%{byte:02X}").chars()),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::thing::Thing;
    use podshaper_testing::MockApiServer;

    #[test]
    fn selectors_are_encoded() {
        assert_eq!(encoded("a=b,c!=d,e in (f)"), "a%3Db%2Cc%21%3Dd%2Ce%20in%20%28f%29");
        assert_eq!(encoded("é~"), "%C3%A9~");
    }

    fn thing(name: &str, version: u32, spec: u32) -> Value {
        json!({"metadata": {"name": name, "namespace": "ns", "resourceVersion": version.to_string()}, "spec": spec})
    }

    fn kept(store: &Store<Thing>) -> Vec<(String, u32)> {
        store.all().into_iter().map(|(key, thing)| (key.into(), thing.0)).collect()
    }

    /// Waits until these are kept.
    async fn until(store: &Store<Thing>, things: &[(&str, u32)]) {
        let mut changes = store.changes();
        while kept(store).iter().map(|(key, spec)| (&**key, *spec)).ne(things.iter().copied()) {
            changes.changed().await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_change_is_missed() {
        let (client, mut server) = MockApiServer::start();
        let store = Arc::new(Store::default());
        let scope = Scope { namespace: Some("ns".to_owned()), labels: "a=b".to_owned() };
        tokio::spawn(follow(client, scope, Arc::clone(&store)));
        let things = "/apis/x/v1/namespaces/ns/things?labelSelector=a%3Db&";

        // A list in pages: nothing of it counts until it is complete.
        let page = |more: &str, items: Value| json!({"metadata": {"resourceVersion": "7", "continue": more}, "items": items});
        let list = server.next(&format!("{things}limit=200&")).await;
        list.answer(200, &page("next", json!([thing("a", 1, 1), thing("none", 1, 0)])));
        let list = server.next(&format!("{things}limit=200&continue=next&")).await;
        assert!(!store.filled());
        list.answer(200, &page("", json!([thing("b", 2, 2)])));

        // The watch goes on from there; what isn't of interest any more goes.
        let watch = |from: u32| {
            format!("{things}watch=true&allowWatchBookmarks=true&timeoutSeconds=280&resourceVersion={from}&")
        };
        let stream = server.next(&watch(7)).await.stream();
        until(&store, &[("ns/a", 1), ("ns/b", 2)]).await;
        stream.send_event("ADDED", &thing("c", 8, 3));
        stream.send_event("MODIFIED", &thing("a", 9, 0));
        stream.send_event("DELETED", &thing("b", 10, 2));
        until(&store, &[("ns/c", 3)]).await;
        stream.send_event("BOOKMARK", &json!({"metadata": {"resourceVersion": "20"}}));
        drop(stream);

        // From the bookmark, also after the connection broke, and after the API server had too much to do.
        let stream = server.next(&watch(20)).await.stream();
        stream.send_event("MODIFIED", &thing("c", 21, 4));
        stream.send("{\"type\": \"MODIFIED\", \"ob");
        stream.break_off();
        let busy = json!({"kind": "Status", "status": "Failure", "reason": "TooManyRequests", "message": "later", "code": 429});
        server.next(&watch(21)).await.answer(429, &busy);
        until(&store, &[("ns/c", 4)]).await;

        // What has expired is listed anew, and what has gone meanwhile goes.
        let expired = json!({"kind": "Status", "status": "Failure", "reason": "Expired", "message": "too old", "code": 410});
        let stream = server.next(&watch(21)).await.stream();
        stream.send_event("ERROR", &expired);
        server.next(&format!("{things}limit=200&")).await.answer(200, &page("", json!([thing("d", 30, 6)])));
        until(&store, &[("ns/d", 6)]).await;
        // What can't be read is listed anew as well.
        let stream = server.next(&watch(7)).await.stream();
        stream.send("{\"type\": \"ADDED\", \"object\": {}}\n");
        server.next(&format!("{things}limit=200&")).await.answer(200, &page("", json!([])));
        until(&store, &[]).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_says_nothing_any_more_is_left() {
        let (client, mut server) = MockApiServer::start();
        let store = Arc::new(Store::<Thing>::default());
        tokio::spawn(follow(client, Scope::default(), Arc::clone(&store)));
        let empty = json!({"metadata": {"resourceVersion": "7"}, "items": []});
        server.next("/apis/x/v1/things?limit=200&").await.answer(200, &empty);
        let watch =
            "/apis/x/v1/things?watch=true&allowWatchBookmarks=true&timeoutSeconds=280&resourceVersion=7&";
        let _silent = server.next(watch).await.stream();
        server.next(watch).await;
    }
}
