//! `/metrics`, and who may read it.

use std::fmt::Display;
use std::sync::Arc;

use bytes::Bytes;
use http::header::WWW_AUTHENTICATE;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::OnceCell;

use super::Metrics;
use crate::in_cluster;
use crate::server::admin::{Pages, metrics_page, text};

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
        let client = self.client.get_or_try_init(async || in_cluster::client()).await.map_err(unknown)?;
        let review = TokenReview {
            spec: TokenReviewSpec { token: Some(token.trim().to_owned()), audiences: None },
            ..TokenReview::default()
        };
        let review = Api::<TokenReview>::all(client.clone())
            .create(&PostParams::default(), &review)
            .await
            .map_err(unknown)?;
        let status =
            review.status.filter(|s| s.authenticated == Some(true)).ok_or(Refused::Unauthenticated)?;
        let user = status.user.unwrap_or_default();
        let access = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: user.username,
                uid: user.uid,
                groups: user.groups,
                extra: user.extra,
                non_resource_attributes: Some(NonResourceAttributes {
                    path: Some("/metrics".to_owned()),
                    verb: Some("get".to_owned()),
                }),
                resource_attributes: None,
            },
            ..SubjectAccessReview::default()
        };
        let access = Api::<SubjectAccessReview>::all(client.clone())
            .create(&PostParams::default(), &access)
            .await
            .map_err(unknown)?;
        if access.status.is_some_and(|s| s.allowed) { Ok(()) } else { Err(Refused::Forbidden) }
    }
}
