//! The client for identity services.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tower::util::BoxCloneSyncService;

use super::CloudError;
use crate::registry::address::AddressPolicy;
use crate::registry::connect::{connect, names};
use crate::registry::connection::{ConnectionLimit, CountedStream};
use crate::registry::exchange::root_cause;
use crate::registry::hosts::Hosts;

/// The longest time of a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest response, in bytes: several tokens.
const MAX: usize = 128 << 10;

type Connector = BoxCloneSyncService<Uri, TokioIo<CountedStream>, std::io::Error>;

/// Sends requests to identity services.
pub(super) struct IdentityClient(Client<HttpsConnector<Connector>, Full<Bytes>>);

impl IdentityClient {
    pub(super) fn new(hosts: &Arc<Hosts>, tls: &ClientConfig) -> Self {
        let hosts = Arc::clone(hosts);
        let names = names();
        let limit = ConnectionLimit::default();
        let tcp = tower::service_fn(move |uri: Uri| {
            connect(uri, AddressPolicy::Identity, Arc::clone(&hosts), names.clone(), limit.clone())
        });
        let https = HttpsConnectorBuilder::new().with_tls_config(tls.clone()).https_or_http().enable_http1();
        let https = https.wrap_connector(BoxCloneSyncService::new(tcp));
        Self(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(https))
    }

    /// Sends a request and returns its response as text. Redirects are errors.
    pub(super) async fn text(&self, request: Request<Full<Bytes>>) -> Result<String, CloudError> {
        let place = request.uri().authority().map_or_else(String::new, ToString::to_string);
        let not_connected = |error: &dyn Error| CloudError::NotConnected(place.clone(), root_cause(error));
        let reading = async {
            let response = self.0.request(request).await.map_err(|error| not_connected(&error))?;
            let status = response.status().as_u16();
            if status != 200 {
                return Err(CloudError::Status(place.clone(), status));
            }
            let body = Limited::new(response.into_body(), MAX).collect().await;
            let body = body.map_err(|_| CloudError::Malformed(place.clone()))?.to_bytes();
            String::from_utf8(body.into()).map_err(|_| CloudError::Malformed(place.clone()))
        };
        let response = timeout(REQUEST_TIMEOUT, reading).await;
        response.unwrap_or_else(|_| {
            Err(CloudError::NotConnected(place.clone(), "no response in time".to_owned()))
        })
    }

    /// The same for JSON.
    pub(super) async fn json<T: DeserializeOwned>(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<T, CloudError> {
        let place = request.uri().authority().map_or_else(String::new, ToString::to_string);
        let text = self.text(request).await?;
        // The error would quote the response.
        serde_json::from_str(&text).map_err(|_| CloudError::Malformed(place))
    }
}

/// A POST request with a form.
pub(super) fn post_form(uri: &str, pairs: &[(&str, &str)]) -> Result<Request<Full<Bytes>>, CloudError> {
    let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    Request::post(uri)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Full::new(Bytes::from(form)))
        .map_err(|_| CloudError::Malformed(uri.to_owned()))
}
