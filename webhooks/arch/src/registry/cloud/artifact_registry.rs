//! Google Artifact Registry and Container Registry.
//!
//! The identity is that of the service account (Workload Identity Federation for GKE). The metadata server gives an access token
//! (<https://cloud.google.com/compute/docs/access/authenticate-workloads#applications>), which is a password
//! (<https://cloud.google.com/artifact-registry/docs/docker/authentication#token>).

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http_body_util::Full;
use serde::Deserialize;

use super::client::IdentityClient;
use super::{CloudError, CloudToken, Fetching, TokenSource, variable};

/// The address of the metadata server, on GKE too. Google's libraries have the same variable.
const METADATA: &str = "GCE_METADATA_HOST";
const METADATA_ADDRESS: &str = "169.254.169.254";
/// The scope of the nodes of GKE, with which they pull images.
const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_only";

/// Credentials for Artifact Registry.
pub(super) struct ArtifactRegistry {
    client: Arc<IdentityClient>,
}

#[derive(Deserialize)]
struct AccessToken {
    access_token: String,
    #[serde(default)]
    expires_in: u64,
}

impl ArtifactRegistry {
    pub(super) fn new(client: Arc<IdentityClient>) -> Self {
        Self { client }
    }

    async fn token(&self) -> Result<CloudToken, CloudError> {
        let host = variable(METADATA).unwrap_or_else(|_| METADATA_ADDRESS.to_owned());
        let path = "computeMetadata/v1/instance/service-accounts/default/token";
        let request = Request::get(format!("http://{host}/{path}?scopes={SCOPE}"));
        let request = request.header("metadata-flavor", "Google").body(Full::default());
        let request = request.map_err(|_| CloudError::Address(METADATA))?;
        let AccessToken { access_token, expires_in } = self.client.json(request).await?;
        let user = "oauth2accesstoken".to_owned();
        let lifetime = Duration::from_secs(expires_in);
        Ok(CloudToken { user, password: access_token, refresh_token: None, lifetime })
    }
}

impl TokenSource for ArtifactRegistry {
    /// Only a request shows whether there is a metadata server.
    fn check(&self) -> Result<(), CloudError> {
        Ok(())
    }

    fn fetch<'a>(&'a self, _registry: &'a str) -> Fetching<'a> {
        Box::pin(self.token())
    }
}
