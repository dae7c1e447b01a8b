//! Elastic Container Registry.
//!
//! The identity is an IAM role of the service account, by a token (IRSA) or by EKS Pod Identity. The requests are those of
//! <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html>,
//! <https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html> and
//! <https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_GetAuthorizationToken.html>.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::Full;
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;

use super::client::{IdentityClient, post_form};
use super::signature::AwsCredentials;
use super::{CloudError, CloudToken, Fetching, TokenSource, token_of, variable};
use arch_decision::config::EcrHost;

/// The role, and the token that proves it (IRSA).
const ROLE: &str = "AWS_ROLE_ARN";
const ROLE_TOKEN: &str = "AWS_WEB_IDENTITY_TOKEN_FILE";
/// The address of EKS Pod Identity, and the token for it.
const POD_IDENTITY: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
const POD_IDENTITY_TOKEN: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";
/// The session can read images and nothing else, whatever the role allows.
const POLICY: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["ecr:GetAuthorizationToken","ecr:BatchCheckLayerAvailability","ecr:BatchGetImage","ecr:GetDownloadUrlForLayer"],"Resource":"*"}]}"#;
const TARGET: &str = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken";

/// Credentials for registries of ECR.
pub(super) struct Ecr {
    client: Arc<IdentityClient>,
}

/// The response of EKS Pod Identity.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PodIdentity {
    access_key_id: String,
    secret_access_key: String,
    token: String,
}

/// The response of `GetAuthorizationToken`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Authorization {
    authorization_data: Vec<AuthorizationData>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthorizationData {
    authorization_token: String,
    /// Seconds since 1970.
    expires_at: f64,
}

impl Ecr {
    pub(super) fn new(client: Arc<IdentityClient>) -> Self {
        Self { client }
    }

    async fn credentials(&self, host: EcrHost<'_>) -> Result<AwsCredentials, CloudError> {
        if let Ok(uri) = variable(POD_IDENTITY) {
            return self.pod_identity(&uri).await;
        }
        let role = variable(ROLE)?;
        let token = token_of(&variable(ROLE_TOKEN)?)?;
        let place = format!("sts.{}.{}", host.region, host.domain);
        let request = post_form(
            &format!("https://{place}/"),
            &[
                ("Action", "AssumeRoleWithWebIdentity"),
                ("Version", "2011-06-15"),
                ("RoleArn", &role),
                ("RoleSessionName", "podshaper-arch"),
                ("WebIdentityToken", &token),
                ("DurationSeconds", "900"),
                ("Policy", POLICY),
            ],
        );
        let response = self.client.text(request?).await?;
        let field = |name| element(&response, name).ok_or_else(|| CloudError::Malformed(place.clone()));
        let key_id = field("AccessKeyId")?;
        let secret = field("SecretAccessKey")?;
        Ok(AwsCredentials::new(key_id, secret, field("SessionToken")?))
    }

    async fn pod_identity(&self, uri: &str) -> Result<AwsCredentials, CloudError> {
        let uri: Uri = uri.parse().map_err(|_| CloudError::Address(POD_IDENTITY))?;
        if !is_pod_identity(&uri) {
            return Err(CloudError::Address(POD_IDENTITY));
        }
        let token = token_of(&variable(POD_IDENTITY_TOKEN)?)?;
        let request = Request::get(uri).header(header::AUTHORIZATION, token).body(Full::default());
        let request = request.map_err(|_| CloudError::Address(POD_IDENTITY_TOKEN))?;
        let PodIdentity { access_key_id, secret_access_key, token } = self.client.json(request).await?;
        Ok(AwsCredentials::new(access_key_id, secret_access_key, token))
    }

    async fn token(&self, registry: &str) -> Result<CloudToken, CloudError> {
        let malformed = || CloudError::Malformed(registry.to_owned());
        let host = EcrHost::parse(registry).ok_or_else(malformed)?;
        let credentials = self.credentials(host).await?;
        let place = format!("{}.{}.{}", host.api.0, host.region, host.api.1);
        let now = Timestamp::now();
        let time = now.strftime("%Y%m%dT%H%M%SZ").to_string();
        let request = Request::post(format!("https://{place}/"))
            .header(header::CONTENT_TYPE, "application/x-amz-json-1.1")
            .header(header::HOST, &*place)
            .header("x-amz-date", &*time)
            .header("x-amz-security-token", credentials.session_token())
            .header("x-amz-target", TARGET)
            .body(Bytes::from_static(b"{}"));
        let mut request = request.map_err(|_| malformed())?;
        let authorization = credentials.sign(&request, (host.region, "ecr"), &time);
        let authorization = authorization.parse().map_err(|_| malformed())?;
        request.headers_mut().insert(header::AUTHORIZATION, authorization);
        let request = request.map(Full::new);
        let Authorization { authorization_data } = self.client.json(request).await?;
        let data = authorization_data.into_iter().next().ok_or_else(malformed)?;
        let pair =
            STANDARD.decode(data.authorization_token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = pair.ok_or_else(malformed)?;
        let (user, password) = pair.split_once(':').ok_or_else(malformed)?;
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are less than 2^53")]
        let lifetime =
            Duration::try_from_secs_f64(data.expires_at - now.as_second() as f64).unwrap_or_default();
        Ok(CloudToken { user: user.to_owned(), password: password.to_owned(), refresh_token: None, lifetime })
    }
}

impl TokenSource for Ecr {
    fn check(&self) -> Result<(), CloudError> {
        if variable(POD_IDENTITY).is_ok() {
            return variable(POD_IDENTITY_TOKEN).and_then(|path| token_of(&path)).map(drop);
        }
        variable(ROLE).and_then(|_| token_of(&variable(ROLE_TOKEN)?)).map(drop)
    }

    fn fetch<'a>(&'a self, registry: &'a str) -> Fetching<'a> {
        Box::pin(self.token(registry))
    }
}

/// Whether this is an address that the SDKs of AWS accept: TLS, loopback, or the link-local addresses of ECS and EKS.
fn is_pod_identity(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let known = ["169.254.170.2", "169.254.170.23", "fd00:ec2::23"];
    let is_known = host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback() || known.iter().any(|own| own.parse() == Ok(address)));
    match uri.scheme_str() {
        Some("https") => true,
        Some("http") => is_known,
        _ => false,
    }
}

/// The text of the first element of this name. The response of STS has no attributes, comments or escapes in these elements.
fn element(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_of_pod_identity_is_known_or_has_tls() {
        for (uri, expected) in [
            ("http://169.254.170.23/v1/credentials", true),
            ("http://[fd00:ec2::23]/v1/credentials", true),
            ("http://127.0.0.1:8080/", true),
            ("https://identity.example/", true),
            ("http://identity.example/", false),
            ("http://169.254.169.254/latest/meta-data/", false),
            ("/v1/credentials", false),
        ] {
            assert_eq!(is_pod_identity(&uri.parse().unwrap()), expected, "{uri}");
        }
    }

    #[test]
    fn elements_are_found() {
        let xml =
            "<a><AccessKeyId> AKIA </AccessKeyId><SecretAccessKey></SecretAccessKey><SessionToken>x</a>";
        assert_eq!(element(xml, "AccessKeyId").as_deref(), Some("AKIA"));
        assert_eq!(element(xml, "SecretAccessKey"), None);
        assert_eq!(element(xml, "SessionToken"), None);
    }
}
