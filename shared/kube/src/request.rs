//! Requests to the API server, none of which is waited for without end.

use std::pin::pin;
use std::time::Duration;

use form_urlencoded::Serializer;
use futures::{AsyncBufReadExt, AsyncReadExt, TryStreamExt};
use http::{Request, header};
use kube::{Client, Error};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A request that takes longer is given up.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// No more is held of an answer. (etcd takes objects of 1.5 MiB; lists are read in pages.)
pub const MAX_RESPONSE_BYTES: usize = 16 << 20;

/// What a body is (`Content-Type`).
#[derive(Clone, Copy, Debug)]
pub enum Media {
    /// An object.
    Json,
    /// RFC 6902.
    JsonPatch,
    /// RFC 7386.
    MergePatch,
    /// Kubernetes' own: lists are merged by the key of their kind.
    StrategicMergePatch,
    /// Server-side apply.
    ApplyPatch,
}

/// Sends `body`; the answer as text.
///
/// # Errors
/// What the API server says, or that it says nothing for ten seconds.
pub async fn send(
    client: &Client,
    method: &str,
    path: &str,
    media: Media,
    body: &impl Serialize,
) -> kube::Result<String> {
    let media = match media {
        Media::Json => "application/json",
        Media::JsonPatch => "application/json-patch+json",
        Media::MergePatch => "application/merge-patch+json",
        Media::StrategicMergePatch => "application/strategic-merge-patch+json",
        Media::ApplyPatch => "application/apply-patch+yaml",
    };
    let body = serde_json::to_vec(body).map_err(Error::SerdeError)?;
    let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, media).body(body);
    text(client, request.map_err(Error::HttpError)?, REQUEST_TIMEOUT).await
}

/// Reads what is at `path`; none if there is none.
///
/// # Errors
/// What the API server says, that it says nothing for ten seconds, or that it isn't a `T`, or larger than 16 MiB.
pub async fn get<T: DeserializeOwned>(client: &Client, path: &str) -> kube::Result<Option<T>> {
    match read(client, path, REQUEST_TIMEOUT).await {
        Ok(Some(text)) => serde_json::from_str(&text).map(Some).map_err(Error::SerdeError),
        Ok(None) => Err(Error::Service(format!("{path} takes more than {MAX_RESPONSE_BYTES} bytes").into())),
        Err(Error::Api(status)) if status.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads what is at `path`, as text; none if it is larger than [`MAX_RESPONSE_BYTES`].
pub async fn read(client: &Client, path: &str, patience: Duration) -> kube::Result<Option<String>> {
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
    let answer = tokio::time::timeout(patience, reading).await;
    answer.map_err(|elapsed| Error::Service(elapsed.into()))?
}

/// Appends query parameters to `path`, encoded; those with an empty value are left out.
pub fn with_query<'q>(path: &str, query: impl IntoIterator<Item = (&'q str, &'q str)>) -> String {
    let mut uri = format!("{path}?");
    let length = uri.len();
    let query = query.into_iter().filter(|(_, value)| !value.is_empty());
    Serializer::for_suffix(&mut uri, length).extend_pairs(query);
    uri
}

async fn text(client: &Client, request: Request<Vec<u8>>, patience: Duration) -> kube::Result<String> {
    let answer = tokio::time::timeout(patience, client.request_text(request)).await;
    answer.map_err(|elapsed| Error::Service(elapsed.into()))?
}

/// What a watch tells (`metav1.WatchEvent`).
#[derive(Deserialize)]
pub struct Event<'a> {
    #[serde(rename = "type")]
    /// `type`.
    pub kind: EventKind,
    #[serde(borrow)]
    /// `object`, unparsed.
    pub object: &'a RawValue,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
/// `type` of a watch event.
pub enum EventKind {
    /// The object is new.
    Added,
    /// The object changed.
    Modified,
    /// The object is gone; the event carries its last state.
    Deleted,
    /// The watch has reached `metadata.resourceVersion`.
    Bookmark,
    /// The object is a `metav1.Status`.
    Error,
}

/// Hands each event of the watch at `path` to `each` until the API server ends it, or `patience` is over: then nobody knows
/// whether the connection still stands.
///
/// # Errors
/// What the API server says, at first or in an event; that the connection broke; what `each` can't read.
pub async fn watch(
    client: &Client,
    path: &str,
    patience: Duration,
    each: &mut (dyn FnMut(Event<'_>) -> serde_json::Result<()> + Send),
) -> kube::Result<()> {
    let request = Request::get(path).body(Vec::new()).map_err(Error::HttpError)?;
    let follow = async {
        let mut lines = pin!(client.request_stream(request).await?.lines());
        while let Some(line) = lines.try_next().await.map_err(Error::ReadEvents)? {
            let event: Event<'_> = match serde_json::from_str(&line) {
                // Ended within the line.
                Err(error) if error.is_eof() => break,
                event => event.map_err(Error::SerdeError)?,
            };
            if event.kind == EventKind::Error {
                return Err(Error::Api(serde_json::from_str(event.object.get()).map_err(Error::SerdeError)?));
            }
            each(event).map_err(Error::SerdeError)?;
        }
        Ok(())
    };
    tokio::time::timeout(patience, follow).await.unwrap_or(Ok(()))
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
