//! One request to the API server, whose answer isn't waited for without end.

use std::time::Duration;

use http::{Request, header};
use kube::{Client, Error};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A request that takes longer is given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a body is (`Content-Type`).
#[derive(Clone, Copy, Debug)]
pub enum Media {
    /// An object.
    Json,
    /// RFC 7386.
    MergePatch,
    /// Kubernetes' own: lists are merged by the key of their kind.
    StrategicMergePatch,
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
        Media::MergePatch => "application/merge-patch+json",
        Media::StrategicMergePatch => "application/strategic-merge-patch+json",
    };
    let body = serde_json::to_vec(body).map_err(Error::SerdeError)?;
    let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, media).body(body);
    text(client, request.map_err(Error::HttpError)?).await
}

/// Reads what is at `path`; none if there is none.
///
/// # Errors
/// What the API server says, that it says nothing for ten seconds, or that it isn't a `T`.
pub async fn get<T: DeserializeOwned>(client: &Client, path: &str) -> kube::Result<Option<T>> {
    let request = Request::get(path).body(Vec::new()).map_err(Error::HttpError)?;
    match text(client, request).await {
        Ok(text) => serde_json::from_str(&text).map(Some).map_err(Error::SerdeError),
        Err(Error::Api(status)) if status.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

async fn text(client: &Client, request: Request<Vec<u8>>) -> kube::Result<String> {
    let answer = tokio::time::timeout(PATIENCE, client.request_text(request)).await;
    answer.map_err(|elapsed| Error::Service(elapsed.into()))?
}
