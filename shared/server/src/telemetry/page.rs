//! `/metrics`, and who may read it.

use std::fmt::Display;
use std::sync::Arc;

use bytes::Bytes;
use http::header::WWW_AUTHENTICATE;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::Metrics;
use crate::admin::{Pages, metrics_page, text};
use podshaper_kube::client;
use podshaper_kube::request::{Media, send};

/// Serves the metrics, to everybody or to those whom RBAC allows to `get` the path `/metrics`.
#[derive(Debug)]
pub struct MetricsPage {
    metrics: Arc<Metrics>,
    guard: Option<Guard>,
}

impl MetricsPage {
    /// The page of `metrics`; with `auth` it asks the API server about each scraper.
    pub fn new(metrics: Arc<Metrics>, auth: bool) -> Self {
        Self { metrics, guard: auth.then(Guard::default) }
    }
}

impl Pages for MetricsPage {
    async fn get(&self, path: &str, authorization: Option<&str>) -> Response<Full<Bytes>> {
        if path != "/metrics" {
            return text(StatusCode::NOT_FOUND, "try /metrics");
        }
        match &self.guard {
            None => metrics_page(self.metrics.encode()),
            Some(guard) => match guard.admit(authorization).await {
                Ok(()) => metrics_page(self.metrics.encode()),
                Err(refused) => refused.response(),
            },
        }
    }
}

/// Asks the API server who a scraper is and whether it may.
#[derive(Default)]
struct Guard {
    client: OnceCell<Client>,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Guard")
    }
}

enum Refused {
    Unauthenticated,
    Forbidden,
    Unknown,
}

impl Refused {
    fn response(self) -> Response<Full<Bytes>> {
        match self {
            Self::Unauthenticated => {
                let mut response =
                    text(StatusCode::UNAUTHORIZED, "send a bearer token that the API server knows");
                response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                response
            }
            Self::Forbidden => text(StatusCode::FORBIDDEN, "RBAC doesn't allow you to get the path /metrics"),
            Self::Unknown => text(
                StatusCode::SERVICE_UNAVAILABLE,
                "the API server can't be asked who you are; the log says why",
            ),
        }
    }
}

fn unknown(error: impl Display) -> Refused {
    tracing::warn!(%error, "can't authorise a scraper of metrics");
    Refused::Unknown
}

impl Guard {
    async fn admit(&self, authorization: Option<&str>) -> Result<(), Refused> {
        let token = authorization.and_then(|a| a.strip_prefix("Bearer ")).ok_or(Refused::Unauthenticated)?;
        let client = self.client.get_or_try_init(async || client::in_cluster()).await.map_err(unknown)?;
        let token = json!({"token": token.trim()});
        let mut user =
            review(client, "authentication.k8s.io", "TokenReview", token).await.map_err(unknown)?;
        if take(&mut user, "authenticated") != true {
            return Err(Refused::Unauthenticated);
        }
        let mut user = take(&mut user, "user");
        // The name is `username` here and `user` there; what is missing is null, which is none.
        let access = json!({
            "user": take(&mut user, "username"),
            "uid": take(&mut user, "uid"),
            "groups": take(&mut user, "groups"),
            "extra": take(&mut user, "extra"),
            "nonResourceAttributes": {"path": "/metrics", "verb": "get"},
        });
        let mut access =
            review(client, "authorization.k8s.io", "SubjectAccessReview", access).await.map_err(unknown)?;
        if take(&mut access, "allowed") == true { Ok(()) } else { Err(Refused::Forbidden) }
    }
}

/// The `status` of what the API server makes of a review.
async fn review(client: &Client, group: &str, kind: &str, spec: Value) -> kube::Result<Value> {
    let path = format!("/apis/{group}/v1/{}s", kind.to_lowercase());
    let review = json!({"apiVersion": format!("{group}/v1"), "kind": kind, "spec": spec});
    let answer = send(client, "POST", &path, Media::Json, &review).await?;
    let mut review: Value = serde_json::from_str(&answer).map_err(kube::Error::SerdeError)?;
    Ok(take(&mut review, "status"))
}

fn take(object: &mut Value, field: &str) -> Value {
    object.get_mut(field).map(Value::take).unwrap_or_default()
}
