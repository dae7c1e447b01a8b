//! Requests to the API server with a timeout and a maximal size of the response.

use std::pin::pin;
use std::time::Duration;

use form_urlencoded::Serializer;
use futures::{AsyncBufReadExt, AsyncReadExt, TryStreamExt};
use http::{Request, header};
use kube::{Client, Error};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// How long a request may take, unless its function takes a timeout.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest response. (etcd accepts objects of 1.5 MiB; lists are read in pages.)
pub const MAX_RESPONSE_BYTES: usize = 16 << 20;

/// The `Content-Type` of a request.
#[derive(Clone, Copy, Debug)]
pub enum MediaType {
    /// A whole object.
    Json,
    /// RFC 6902.
    JsonPatch,
    /// RFC 7386.
    MergePatch,
    /// Kubernetes' own: it merges lists by the merge key of their field.
    StrategicMergePatch,
    /// Server-side apply.
    ApplyPatch,
}

/// Sends `body` and returns the response as text.
pub async fn send(
    client: &Client,
    method: &str,
    path: &str,
    media_type: MediaType,
    body: &impl Serialize,
) -> kube::Result<String> {
    let media_type = match media_type {
        MediaType::Json => "application/json",
        MediaType::JsonPatch => "application/json-patch+json",
        MediaType::MergePatch => "application/merge-patch+json",
        MediaType::StrategicMergePatch => "application/strategic-merge-patch+json",
        MediaType::ApplyPatch => "application/apply-patch+yaml",
    };
    let body = serde_json::to_vec(body).map_err(Error::SerdeError)?;
    let request =
        Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, media_type).body(body);
    within(REQUEST_TIMEOUT, client.request_text(request.map_err(Error::HttpError)?)).await
}

/// Reads the object at `path`; none if the API server responds 404.
pub async fn get<T: DeserializeOwned>(client: &Client, path: &str) -> kube::Result<Option<T>> {
    match get_text(client, path, REQUEST_TIMEOUT).await {
        Ok(Some(text)) => serde_json::from_str(&text).map(Some).map_err(Error::SerdeError),
        Ok(None) => Err(Error::Service(format!("{path} is larger than {MAX_RESPONSE_BYTES} bytes").into())),
        Err(Error::Api(status)) if status.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads `path` as text; none if it is larger than [`MAX_RESPONSE_BYTES`].
pub async fn get_text(client: &Client, path: &str, timeout: Duration) -> kube::Result<Option<String>> {
    let request = Request::get(path).body(Vec::new()).map_err(Error::HttpError)?;
    let reading = async {
        let mut text = Vec::new();
        let body = client.request_stream(request).await?;
        pin!(body.take(MAX_RESPONSE_BYTES as u64 + 1))
            .read_to_end(&mut text)
            .await
            .map_err(Error::ReadEvents)?;
        let fits = text.len() <= MAX_RESPONSE_BYTES;
        fits.then(|| String::from_utf8(text).map_err(Error::FromUtf8)).transpose()
    };
    within(timeout, reading).await
}

/// Waits for a response, at most for `timeout`.
pub(crate) async fn within<T>(
    timeout: Duration,
    response: impl Future<Output = kube::Result<T>>,
) -> kube::Result<T> {
    let response = tokio::time::timeout(timeout, response).await;
    response.unwrap_or_else(|_| Err(Error::Service(format!("no response within {timeout:?}").into())))
}

/// Appends query parameters to `path`, encoded; those with an empty value are left out.
pub fn with_query<'q>(path: &str, query: impl IntoIterator<Item = (&'q str, &'q str)>) -> String {
    let mut uri = format!("{path}?");
    let length = uri.len();
    let query = query.into_iter().filter(|(_, value)| !value.is_empty());
    Serializer::for_suffix(&mut uri, length).extend_pairs(query);
    uri
}

/// `metav1.WatchEvent`, its object not parsed.
#[derive(Deserialize)]
pub struct WatchEvent<'a> {
    /// `type`.
    #[serde(rename = "type")]
    pub event_type: WatchEventType,
    /// `object`.
    #[serde(borrow)]
    pub object: &'a RawValue,
}

/// The `type` of a watch event.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
pub enum WatchEventType {
    /// The object is new.
    Added,
    /// The object changed.
    Modified,
    /// The object was deleted; the event contains its last state.
    Deleted,
    /// All changes up to `metadata.resourceVersion` were sent.
    Bookmark,
    /// The object is a `metav1.Status`.
    Error,
}

/// Calls `each` for each event of the watch at `path`, until the API server ends it or `timeout` has passed.
///
/// # Errors
/// An error response or event of the API server, a broken connection, an event that `each` cannot parse.
pub async fn watch(
    client: &Client,
    path: &str,
    timeout: Duration,
    each: &mut (dyn FnMut(WatchEvent<'_>) -> serde_json::Result<()> + Send),
) -> kube::Result<()> {
    let request = Request::get(path).body(Vec::new()).map_err(Error::HttpError)?;
    let watching = async {
        let mut lines = pin!(client.request_stream(request).await?.lines());
        while let Some(line) = lines.try_next().await.map_err(Error::ReadEvents)? {
            let event: WatchEvent<'_> = match serde_json::from_str(&line) {
                // The body ended within the line.
                Err(error) if error.is_eof() => break,
                event => event.map_err(Error::SerdeError)?,
            };
            if event.event_type == WatchEventType::Error {
                return Err(Error::Api(serde_json::from_str(event.object.get()).map_err(Error::SerdeError)?));
            }
            each(event).map_err(Error::SerdeError)?;
        }
        Ok(())
    };
    tokio::time::timeout(timeout, watching).await.unwrap_or(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_values_are_encoded() {
        let query = [("labelSelector", "a=b,c!=d,e in (é)"), ("continue", ""), ("limit", "5")];
        let encoded = "/pods?labelSelector=a%3Db%2Cc%21%3Dd%2Ce+in+%28%C3%A9%29&limit=5";
        assert_eq!(with_query("/pods", query), encoded);
    }
}
