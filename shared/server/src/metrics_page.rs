//! The `/metrics` page and its authorization.

use std::error::Error;
use std::sync::Arc;

use http::header::WWW_AUTHENTICATE;
use http::{HeaderValue, StatusCode};
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::admin::{Get, Pages};
use crate::metrics::ServerMetrics;
use crate::response::{HttpResponse, of_type, text};
use podshaper_kube::client;
use podshaper_kube::error::describe;
use podshaper_kube::request::{MediaType, send};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves the metrics to every client, or to clients that RBAC allows to `get` the non-resource URL `/metrics`.
pub struct MetricsPage {
    metrics: Arc<ServerMetrics>,
    authorizer: Option<ScrapeAuthorizer>,
}

impl MetricsPage {
    /// With `auth` the API server authorizes each scrape.
    pub fn new(metrics: Arc<ServerMetrics>, auth: bool) -> Self {
        Self { metrics, authorizer: auth.then(ScrapeAuthorizer::default) }
    }
}

impl Pages for MetricsPage {
    async fn get(&self, request: Get<'_>) -> HttpResponse {
        if request.path != "/metrics" {
            return text(StatusCode::NOT_FOUND, "not found: use /metrics");
        }
        if let Some(authorizer) = &self.authorizer
            && let Err(error) = authorizer.authorize(request.authorization).await
        {
            return error.into_response();
        }
        if request.accept.is_some_and(|accept| accept.contains("application/openmetrics-text")) {
            of_type(OPENMETRICS, self.metrics.encode())
        } else {
            of_type(TEXT_FORMAT, self.metrics.encode_text())
        }
    }
}

/// Authenticates and authorizes a scrape with a TokenReview and a SubjectAccessReview.
#[derive(Default)]
struct ScrapeAuthorizer {
    client: OnceCell<Client>,
}

enum AccessError {
    Unauthenticated,
    Forbidden,
    Unavailable,
}

impl AccessError {
    fn into_response(self) -> HttpResponse {
        match self {
            Self::Unauthenticated => {
                let mut response = text(StatusCode::UNAUTHORIZED, "unauthorized: send a valid bearer token");
                response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                response
            }
            Self::Forbidden => text(
                StatusCode::FORBIDDEN,
                "forbidden: RBAC doesn't allow get on the non-resource URL /metrics",
            ),
            Self::Unavailable => text(
                StatusCode::SERVICE_UNAVAILABLE,
                "the API server can't authorize the request; see the log of the webhook",
            ),
        }
    }
}

fn unavailable(error: impl Error + 'static) -> AccessError {
    tracing::warn!(error = describe(&error), "failed to authorize a metrics scrape");
    AccessError::Unavailable
}

impl ScrapeAuthorizer {
    async fn authorize(&self, authorization: Option<&str>) -> Result<(), AccessError> {
        let token =
            authorization.and_then(|a| a.strip_prefix("Bearer ")).ok_or(AccessError::Unauthenticated)?;
        let client = self.client.get_or_try_init(async || client::in_cluster()).await.map_err(unavailable)?;
        let token = json!({"token": token.trim()});
        let mut status =
            review(client, "authentication.k8s.io", "TokenReview", token).await.map_err(unavailable)?;
        if take(&mut status, "authenticated") != true {
            return Err(AccessError::Unauthenticated);
        }
        let mut user = take(&mut status, "user");
        // `username` of a TokenReview is `user` of a SubjectAccessReview. An absent field becomes null, which is the same.
        let access = json!({
            "user": take(&mut user, "username"),
            "uid": take(&mut user, "uid"),
            "groups": take(&mut user, "groups"),
            "extra": take(&mut user, "extra"),
            "nonResourceAttributes": {"path": "/metrics", "verb": "get"},
        });
        let mut status = review(client, "authorization.k8s.io", "SubjectAccessReview", access)
            .await
            .map_err(unavailable)?;
        if take(&mut status, "allowed") == true { Ok(()) } else { Err(AccessError::Forbidden) }
    }
}

/// Creates a review, and returns its `status`.
async fn review(client: &Client, group: &str, kind: &str, spec: Value) -> kube::Result<Value> {
    let path = format!("/apis/{group}/v1/{}s", kind.to_lowercase());
    let review = json!({"apiVersion": format!("{group}/v1"), "kind": kind, "spec": spec});
    let created = send(client, "POST", &path, MediaType::Json, &review).await?;
    let mut created: Value = serde_json::from_str(&created).map_err(kube::Error::SerdeError)?;
    Ok(take(&mut created, "status"))
}

fn take(object: &mut Value, field: &str) -> Value {
    object.get_mut(field).map(Value::take).unwrap_or_default()
}
