//! Azure Container Registry.
//!
//! The identity is that of the service account (Microsoft Entra Workload ID). Its token is exchanged for one of Entra
//! (<https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow#third-case-access-token-request-with-a-federated-credential>),
//! and that for a refresh token of the registry (<https://github.com/Azure/acr/blob/main/docs/AAD-OAuth.md>).

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use serde::Deserialize;

use super::client::{IdentityClient, post_form};
use super::{CloudError, CloudToken, Fetching, TokenSource, token_of, variable};

const CLIENT: &str = "AZURE_CLIENT_ID";
const TENANT: &str = "AZURE_TENANT_ID";
const TOKEN: &str = "AZURE_FEDERATED_TOKEN_FILE";
const AUTHORITY: &str = "AZURE_AUTHORITY_HOST";
/// The user of a refresh token.
const USER: &str = "00000000-0000-0000-0000-000000000000";
/// How long a refresh token is used. Registries grant three hours.
const LIFETIME: Duration = Duration::from_hours(1);

/// Credentials for registries of ACR.
pub(super) struct Acr {
    client: Arc<IdentityClient>,
    tenant: Option<String>,
}

#[derive(Deserialize)]
struct AccessToken {
    access_token: String,
}

#[derive(Deserialize)]
struct RefreshToken {
    refresh_token: String,
}

impl Acr {
    pub(super) fn new(client: Arc<IdentityClient>, tenant: Option<String>) -> Self {
        Self { client, tenant }
    }

    async fn token(&self, registry: &str) -> Result<CloudToken, CloudError> {
        let client = variable(CLIENT)?;
        let assertion = token_of(&variable(TOKEN)?)?;
        let tenant = match &self.tenant {
            Some(tenant) => tenant.clone(),
            None => variable(TENANT)?,
        };
        // The audience is that of the cloud to which the registry belongs.
        let audience =
            registry.rsplit_once("azurecr.").map_or("net", |(_, top)| if top == "io" { "net" } else { top });
        let scope = format!("https://containerregistry.azure.{audience}/.default");
        let request = post_form(
            &format!("{}/{tenant}/oauth2/v2.0/token", authority()?),
            &[
                ("grant_type", "client_credentials"),
                ("client_id", &client),
                ("scope", &scope),
                ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
                ("client_assertion", &assertion),
            ],
        );
        let AccessToken { access_token } = self.client.json(request?).await?;
        let request = post_form(
            &format!("https://{registry}/oauth2/exchange"),
            &[
                ("grant_type", "access_token"),
                ("service", registry),
                ("tenant", &tenant),
                ("access_token", &access_token),
            ],
        );
        let RefreshToken { refresh_token } = self.client.json(request?).await?;
        let user = USER.to_owned();
        let password = refresh_token.clone();
        Ok(CloudToken { user, password, refresh_token: Some(refresh_token), lifetime: LIFETIME })
    }
}

/// The address of Entra, without a slash at its end.
fn authority() -> Result<String, CloudError> {
    let authority = variable(AUTHORITY).unwrap_or_else(|_| "https://login.microsoftonline.com".to_owned());
    let uri: Option<Uri> = authority.parse().ok();
    let has_tls = uri.is_some_and(|uri| uri.scheme_str() == Some("https") && uri.host().is_some());
    if has_tls { Ok(authority.trim_end_matches('/').to_owned()) } else { Err(CloudError::Address(AUTHORITY)) }
}

impl TokenSource for Acr {
    fn check(&self) -> Result<(), CloudError> {
        variable(CLIENT)?;
        if self.tenant.is_none() {
            variable(TENANT)?;
        }
        authority()?;
        token_of(&variable(TOKEN)?).map(drop)
    }

    fn fetch<'a>(&'a self, registry: &'a str) -> Fetching<'a> {
        Box::pin(self.token(registry))
    }
}
