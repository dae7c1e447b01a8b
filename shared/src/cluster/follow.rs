//! List, then watch, for ever: what keeps a store true.

use std::pin::pin;
use std::sync::Arc;

use futures::TryStreamExt;
use http::Request;
use kube::Client;
use kube::core::WatchEvent;
use kube::runtime::watcher::DefaultBackoff;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::{Duration, timeout};

use super::{Object, Store, Trim};

/// Objects of a list that are read at a time: the page's text is held as a whole.
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
trait Sink: Send {
    /// A list begins.
    fn restart(&mut self);
    /// One more of it.
    fn listed(&mut self, object: &RawValue) -> serde_json::Result<()>;
    /// It is complete: nothing else is there.
    fn complete(&mut self);
    /// An object came, changed, or is `gone`; its version.
    fn changed(&mut self, object: &RawValue, gone: bool) -> serde_json::Result<String>;
}

struct Filling<T> {
    store: Arc<Store<T>>,
    kept: Vec<(String, T)>,
}

impl<T: Trim> Sink for Filling<T> {
    fn restart(&mut self) {
        self.kept.clear();
    }

    fn listed(&mut self, object: &RawValue) -> serde_json::Result<()> {
        let object = read::<T>(object)?;
        let key = object.metadata.key();
        self.kept.extend(T::trim(object).map(|object| (key, object)));
        Ok(())
    }

    fn complete(&mut self) {
        self.store.replace(std::mem::take(&mut self.kept));
    }

    fn changed(&mut self, object: &RawValue, gone: bool) -> serde_json::Result<String> {
        let mut object = read::<T>(object)?;
        let (key, version) = (object.metadata.key(), std::mem::take(&mut object.metadata.resource_version));
        match if gone { None } else { T::trim(object) } {
            Some(object) => self.store.put(key, object),
            None => self.store.remove(&key),
        }
        Ok(version)
    }
}

fn read<T: Trim>(object: &RawValue) -> serde_json::Result<Object<T::Spec, T::Status>> {
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
struct Page<'a> {
    metadata: ListMetadata,
    #[serde(borrow, default)]
    items: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct ListMetadata {
    resource_version: String,
    r#continue: String,
}

/// Follows the objects of a kind, and keeps `store` as they are; comes back never.
///
/// Between an error and the next try is a pause that grows to half a minute; the store stays as it is meanwhile.
pub async fn follow<T: Trim>(client: Client, scope: Scope, store: Arc<Store<T>>) {
    let source = Source { client, scope, api: T::API, plural: T::PLURAL };
    source.follow(&mut Filling { store, kept: Vec::new() }).await;
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
                if !is_expired(&error) {
                    tracing::warn!(kind = self.plural, %error, "can't watch, trying again");
                    tokio::time::sleep(pace.next().unwrap_or_default()).await;
                }
                from.clear();
            }
            tokio::time::sleep_until(begun + LEAST).await;
        }
    }

    fn request(&self, query: &[(&str, &str)]) -> kube::Result<Request<Vec<u8>>> {
        let namespace = self.scope.namespace.as_ref().map(|namespace| format!("/namespaces/{namespace}"));
        let mut uri = format!("{}{}/{}?", self.api, namespace.unwrap_or_default(), self.plural);
        let labels = [("labelSelector", &*self.scope.labels)];
        for (name, value) in labels.iter().chain(query).filter(|(_, value)| !value.is_empty()) {
            let value = encoded(value);
            for part in [name, "=", &value, "&"] {
                uri.push_str(part);
            }
        }
        Request::get(uri).body(Vec::new()).map_err(kube::Error::HttpError)
    }

    /// Reads all objects, and returns the version at which they were so.
    async fn list(&self, sink: &mut dyn Sink) -> kube::Result<String> {
        sink.restart();
        let mut next = String::new();
        loop {
            let request = self.request(&[("limit", &PAGE.to_string()), ("continue", &next)])?;
            let text = timeout(PATIENCE, self.client.request_text(request)).await;
            let text = text.map_err(|elapsed| kube::Error::Service(elapsed.into()))??;
            let page: Page<'_> = serde_json::from_str(&text).map_err(kube::Error::SerdeError)?;
            for object in page.items {
                sink.listed(object).map_err(kube::Error::SerdeError)?;
            }
            next = page.metadata.r#continue;
            if next.is_empty() {
                sink.complete();
                return Ok(page.metadata.resource_version);
            }
        }
    }

    /// Follows changes since `from`, and moves it along, until the watch ends.
    async fn watch(&self, sink: &mut dyn Sink, from: &mut String) -> kube::Result<()> {
        let seconds = WATCH.to_string();
        let query = [
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", &*seconds),
            ("resourceVersion", &*from),
        ];
        let events = self.client.request_events::<Box<RawValue>>(self.request(&query)?).await?;
        let mut events = pin!(events);
        // A connection that is dead, without a word, shows as this.
        let longest = tokio::time::Instant::now() + Duration::from_secs(WATCH) + PATIENCE;
        while let Ok(event) = tokio::time::timeout_at(longest, events.try_next()).await {
            let Some(event) = event? else { break };
            let (object, gone) = match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
                WatchEvent::Deleted(object) => (object, true),
                WatchEvent::Bookmark(bookmark) => {
                    from.clone_from(&bookmark.metadata.resource_version);
                    continue;
                }
                WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
            };
            *from = sink.changed(&object, gone).map_err(kube::Error::SerdeError)?;
        }
        Ok(())
    }
}

/// What stood so long ago that changes since then aren't known any more.
fn is_expired(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 410)
}

/// Percent-encoded (RFC 3986 §2.1): everything but unreserved characters.
fn encoded(text: &str) -> String {
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
    use super::*;

    #[test]
    fn selectors_are_encoded() {
        assert_eq!(encoded("a=b,c!=d,e in (f)"), "a%3Db%2Cc%21%3Dd%2Ce%20in%20%28f%29");
        assert_eq!(encoded("é~"), "%C3%A9~");
    }
}
