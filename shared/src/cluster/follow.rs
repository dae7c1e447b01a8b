//! List, then watch, for ever: what keeps a store true.

use std::pin::pin;
use std::sync::Arc;

use futures::TryStreamExt;
use http::Request;
use kube::Client;
use kube::core::WatchEvent;
use kube::runtime::watcher::DefaultBackoff;
use serde::Deserialize;
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

#[derive(Deserialize)]
#[serde(bound(deserialize = "T: Trim"))]
struct Page<T: Trim> {
    metadata: ListMetadata,
    #[serde(default)]
    items: Vec<Object<T::Spec, T::Status>>,
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
    let mut pace = DefaultBackoff::default();
    let mut from = String::new();
    loop {
        let begun = tokio::time::Instant::now();
        let fallible = async {
            if from.is_empty() {
                from = list(&client, &scope, &store).await?;
                pace = DefaultBackoff::default();
            }
            watch(&client, &scope, &store, &mut from).await
        };
        if let Err(error) = fallible.await {
            if !is_expired(&error) {
                tracing::warn!(kind = T::PLURAL, %error, "can't watch, trying again");
                tokio::time::sleep(pace.next().unwrap_or_default()).await;
            }
            from.clear();
        }
        tokio::time::sleep_until(begun + LEAST).await;
    }
}

/// What stood so long ago that changes since then aren't known any more.
fn is_expired(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 410)
}

fn path<T: Trim>(scope: &Scope, query: &[(&str, &str)]) -> kube::Result<Request<Vec<u8>>> {
    let namespace = scope.namespace.as_ref().map(|namespace| format!("/namespaces/{namespace}"));
    let mut uri = format!("{}{}/{}?", T::API, namespace.unwrap_or_default(), T::PLURAL);
    let labels = [("labelSelector", &*scope.labels)];
    for (name, value) in labels.iter().chain(query).filter(|(_, value)| !value.is_empty()) {
        let value = encoded(value);
        for part in [name, "=", &value, "&"] {
            uri.push_str(part);
        }
    }
    Request::get(uri).body(Vec::new()).map_err(kube::Error::HttpError)
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

/// Reads all objects, and returns the version at which they were so.
async fn list<T: Trim>(client: &Client, scope: &Scope, store: &Store<T>) -> kube::Result<String> {
    let mut kept = Vec::new();
    let mut next = String::new();
    loop {
        let request = path::<T>(scope, &[("limit", &PAGE.to_string()), ("continue", &next)])?;
        let text = timeout(PATIENCE, client.request_text(request)).await;
        let text = text.map_err(|elapsed| kube::Error::Service(elapsed.into()))??;
        let page: Page<T> = serde_json::from_str(&text).map_err(kube::Error::SerdeError)?;
        drop(text);
        for object in page.items {
            let key = object.metadata.key();
            kept.extend(T::trim(object).map(|object| (key, object)));
        }
        next = page.metadata.r#continue;
        if next.is_empty() {
            store.replace(kept);
            return Ok(page.metadata.resource_version);
        }
    }
}

/// Follows changes since `from`, and moves it along, until the watch ends.
async fn watch<T: Trim>(
    client: &Client,
    scope: &Scope,
    store: &Store<T>,
    from: &mut String,
) -> kube::Result<()> {
    let seconds = WATCH.to_string();
    let query = [
        ("watch", "true"),
        ("allowWatchBookmarks", "true"),
        ("timeoutSeconds", &*seconds),
        ("resourceVersion", &*from),
    ];
    let request = path::<T>(scope, &query)?;
    let events = client.request_events::<Object<T::Spec, T::Status>>(request).await?;
    let mut events = pin!(events);
    // A connection that is dead, without a word, shows as this.
    let longest = tokio::time::Instant::now() + Duration::from_secs(WATCH) + PATIENCE;
    while let Ok(event) = tokio::time::timeout_at(longest, events.try_next()).await {
        let Some(event) = event? else { break };
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                from.clone_from(&object.metadata.resource_version);
                let key = object.metadata.key();
                match T::trim(object) {
                    Some(object) => store.put(key, object),
                    None => store.remove(&key),
                }
            }
            WatchEvent::Deleted(object) => {
                from.clone_from(&object.metadata.resource_version);
                store.remove(&object.metadata.key());
            }
            WatchEvent::Bookmark(bookmark) => from.clone_from(&bookmark.metadata.resource_version),
            WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
        }
    }
    Ok(())
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
