//! Tokens (<https://distribution.github.io/distribution/spec/auth/token/>): for one repository at one registry, and one credential.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use form_urlencoded::Serializer;
use http::uri::Authority;
use http::{HeaderValue, Method, Uri};
use moka::sync::Cache;
use serde::Deserialize;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::{Instant, timeout};

use podshaper_core::json::Scalar;

use super::address::AddressPolicy;
use super::challenge::Challenge;
use super::exchange::Exchange;
use super::{RegistryRequest, Scope, authority, host_and_port};
use crate::credentials::Credential;
use arch_decision::images::LookupError;

/// How long a request waits for another one that gets the challenge of the same registry.
const CHALLENGE_WAIT: Duration = Duration::from_secs(1);
/// Lifetime in seconds of a token without `expires_in`, and the shortest one.
const DEFAULT_LIFETIME: u64 = 60;
/// Seconds before its expiry at which a token is not used any more.
const MARGIN: u64 = 10;
/// Longest time in seconds for which a token is used.
const MAX_LIFETIME: u64 = 3600;
/// Memory for tokens, in bytes.
const TOKENS: u64 = 4 << 20;
/// Memory for challenges, in bytes.
const CHALLENGES: u64 = 1 << 20;
/// Largest number of registries with a lookup that finds the challenge.
const SEARCHES: u64 = 1024;
/// Bytes that an entry takes beside its text.
const ENTRY: usize = 300;
/// The longest token. Registries put it into a header, and servers accept headers of 8 KiB as a rule.
const MAX_TOKEN: usize = 8 << 10;

type TokenKey = (String, String, [u8; 16]);

/// Cached challenges and tokens.
pub(crate) struct Tokens {
    /// With how far what the registry names may be away.
    challenges: Cache<String, (Challenge, AddressPolicy)>,
    /// Held by the lookup that finds the challenge of a registry, for each namespace: another one's may hang.
    finding: Cache<(Arc<str>, String), Arc<Mutex<()>>>,
    granted: Cache<TokenKey, (HeaderValue, Instant)>,
}

#[derive(Deserialize)]
struct Grant<'t> {
    token: Option<String>,
    access_token: Option<String>,
    #[serde(borrow)]
    expires_in: Option<Scalar<'t>>,
}

impl Default for Tokens {
    fn default() -> Self {
        let day = Duration::from_hours(24);
        Self {
            challenges: Cache::builder()
                .weigher(|registry: &String, (challenge, _): &(Challenge, AddressPolicy)| {
                    weight(registry.len() + challenge.text_len())
                })
                .max_capacity(CHALLENGES)
                .time_to_live(day)
                .build(),
            finding: Cache::builder().max_capacity(SEARCHES).build(),
            granted: Cache::builder()
                .weigher(|(registry, repository, _): &TokenKey, (token, _): &(HeaderValue, Instant)| {
                    weight(registry.len() + repository.len() + token.len())
                })
                .max_capacity(TOKENS)
                .time_to_idle(Duration::from_secs(MAX_LIFETIME))
                .build(),
        }
    }
}

impl Tokens {
    /// If the challenge of a registry is unknown, one lookup finds it and the others wait: otherwise each of many images would cost a
    /// refused request. The first lookup gets the guard.
    pub(crate) async fn wait_for_challenge(&self, scope: &Scope<'_>) -> Option<OwnedMutexGuard<()>> {
        let registry = authority(scope.registry);
        let known = || self.challenges.contains_key(&registry);
        if known() {
            return None;
        }
        let key = (Arc::clone(scope.namespace), registry.clone());
        let finding = self.finding.get_with(key, Arc::default);
        let turn = timeout(CHALLENGE_WAIT, finding.lock_owned()).await.ok();
        turn.filter(|_| !known())
    }

    /// An anonymous token for the target of a redirect. A cached one may have been revoked.
    pub(crate) async fn anonymous(
        &self,
        exchange: &Exchange,
        scope: &Scope<'_>,
        challenge: &(Challenge, AddressPolicy),
        anew: bool,
    ) -> Result<Option<HeaderValue>, LookupError> {
        let scope = Scope { credential: None, identity: [0; 16], ..scope.clone() };
        self.meet(exchange, &scope, challenge, anew).await
    }

    /// Records the challenge of a registry, or that it needs none.
    pub(crate) fn learn(&self, scope: &Scope<'_>, challenge: Option<&(Challenge, AddressPolicy)>) {
        let registry = authority(scope.registry);
        match challenge {
            Some((challenge, reach)) => {
                self.challenges.insert(registry, (challenge.without_scopes(), *reach));
            }
            None => {
                drop(self.challenges.entry(registry).or_insert((Challenge::None, AddressPolicy::Internet)));
            }
        }
    }

    /// The authorization of the first request, if the challenge is known.
    pub(crate) async fn known(
        &self,
        exchange: &Exchange,
        scope: &Scope<'_>,
    ) -> Result<Option<HeaderValue>, LookupError> {
        match self.challenges.get(&authority(scope.registry)) {
            Some(challenge) => self.meet(exchange, scope, &challenge, false).await,
            None => Ok(None),
        }
    }

    /// The authorization after a challenge: always a new token.
    pub(crate) async fn answer(
        &self,
        exchange: &Exchange,
        scope: &Scope<'_>,
        challenge: &(Challenge, AddressPolicy),
    ) -> Result<Option<HeaderValue>, LookupError> {
        self.meet(exchange, scope, challenge, true).await
    }

    async fn meet(
        &self,
        exchange: &Exchange,
        scope: &Scope<'_>,
        (challenge, reach): &(Challenge, AddressPolicy),
        anew: bool,
    ) -> Result<Option<HeaderValue>, LookupError> {
        match challenge {
            Challenge::None => return Ok(None),
            Challenge::Basic => return Ok(scope.credential.and_then(basic)),
            Challenge::Bearer { .. } => {}
        }
        let key = (authority(scope.registry), scope.repository.to_owned(), scope.identity);
        if let Some((token, until)) = self.granted.get(&key).filter(|_| !anew)
            && Instant::now() < until
        {
            return Ok(Some(token));
        }
        let (token, life) = grant(exchange, scope, challenge, *reach).await?;
        self.granted.insert(key, (token.clone(), Instant::now() + life));
        Ok(Some(token))
    }
}

/// Bytes of an entry with so much text.
fn weight(text: usize) -> u32 {
    u32::try_from(ENTRY + text).unwrap_or(u32::MAX)
}

/// Asks the token server.
async fn grant(
    exchange: &Exchange,
    scope: &Scope<'_>,
    challenge: &Challenge,
    reach: AddressPolicy,
) -> Result<(HeaderValue, Duration), LookupError> {
    let Challenge::Bearer { realm, service, scopes } = challenge else {
        return Err(LookupError::Unauthorized);
    };
    let realm: Uri = realm.parse().map_err(|_| LookupError::Refused)?;
    check_realm(exchange, scope, &realm)?;
    let (host, port) = host_and_port(&realm);
    let reach =
        if exchange.hosts().allows_private_realm(host, port) { AddressPolicy::Registry } else { reach };
    let own = format!("repository:{}:pull", scope.repository);
    // The registry knows best by which name it checks a token (oras-project/oras-go#650).
    let mut scopes: Vec<&str> = scopes.iter().map(String::as_str).collect();
    if !scopes.contains(&&*own) {
        scopes.push(&own);
    }
    let service = service.as_deref().map(|service| ("service", service));
    let refresh = scope.credential.and_then(|credential| credential.refresh_token.as_deref());
    let request = match refresh {
        Some(refresh) => {
            let grant = [("grant_type", "refresh_token"), ("refresh_token", refresh)];
            form_request(realm.clone(), scope, &grant, service, &scopes)
        }
        None => token_request(&realm, scope, service, &scopes)?,
    };
    let is_get = request.method == Method::GET;
    let mut answer = exchange.send(RegistryRequest { reach, ..request }).await?;
    if let (true, 404 | 405, Some(own)) = (is_get, answer.status.as_u16(), scope.credential) {
        // containerd sends a password by POST, and GET is its second attempt (`fetchToken` of core/remotes/docker).
        let grant = [("grant_type", "password"), ("username", &*own.user), ("password", &*own.password)];
        let request = form_request(realm, scope, &grant, service, &scopes);
        answer = exchange.send(RegistryRequest { reach, ..request }).await?;
    }
    match answer.status.as_u16() {
        200 => parse_grant(&answer.body),
        400 | 401 | 403 | 404 | 405 => Err(LookupError::Unauthorized),
        _ => Err(LookupError::Unavailable),
    }
}

/// Checks that the credential of the scope may be sent to a token server.
fn check_realm(exchange: &Exchange, scope: &Scope<'_>, realm: &Uri) -> Result<(), LookupError> {
    let has_user = realm.authority().is_none_or(|authority| authority.as_str().contains('@'));
    if has_user {
        return Err(LookupError::Refused);
    }
    exchange.check_scheme(realm, None)?;
    let is_elsewhere = authority(realm) != authority(scope.registry);
    if is_elsewhere && scope.credential.is_some_and(|credential| credential.own_host_only) {
        return Err(LookupError::Refused);
    }
    Ok(())
}

/// A request with a refresh token or a password in its body (<https://distribution.github.io/distribution/spec/auth/oauth/>).
fn form_request(
    realm: Uri,
    scope: &Scope<'_>,
    grant: &[(&str, &str)],
    service: Option<(&str, &str)>,
    scopes: &[&str],
) -> RegistryRequest {
    // One parameter with all scopes (RFC 6749 section 3.3).
    let scopes = scopes.join(" ");
    let query = form(service.into_iter().chain([("scope", &*scopes)]));
    let grant = form(grant.iter().copied().chain([("client_id", "podshaper")]));
    let body = Bytes::from(format!("{grant}&{query}"));
    RegistryRequest { method: Method::POST, form: Some(body), ..ask(realm, scope) }
}

/// A request with a password, or without a credential.
fn token_request(
    realm: &Uri,
    scope: &Scope<'_>,
    service: Option<(&str, &str)>,
    scopes: &[&str],
) -> Result<RegistryRequest, LookupError> {
    let query = form(service.into_iter().chain(scopes.iter().map(|scope| ("scope", *scope))));
    let before = realm.path_and_query().map_or("/", |path| path.as_str());
    let glue = if before.contains('?') { '&' } else { '?' };
    let (scheme, authority) =
        (realm.scheme_str().unwrap_or("https"), realm.authority().map_or("", Authority::as_str));
    let uri = Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query(format!("{before}{glue}{query}"))
        .build()
        .map_err(|_| LookupError::Refused)?;
    Ok(RegistryRequest { authorization: scope.credential.and_then(basic), ..ask(uri, scope) })
}

/// The token of a response, and how long it is good.
fn parse_grant(body: &[u8]) -> Result<(HeaderValue, Duration), LookupError> {
    let text = str::from_utf8(body).map_err(|_| LookupError::Malformed)?;
    let grant: Grant<'_> = serde_json::from_str(text).map_err(|_| LookupError::Malformed)?;
    let token = grant.token.filter(|token| !token.is_empty()).or(grant.access_token).unwrap_or_default();
    if token.is_empty() || token.len() > MAX_TOKEN {
        return Err(LookupError::Malformed);
    }
    // A token is good for at least a minute (`minimumTokenLifetimeSeconds` of github.com/distribution/distribution).
    let stated = grant.expires_in.and_then(|seconds| seconds.parse::<i64>().ok());
    let stated = stated.and_then(|seconds| u64::try_from(seconds).ok());
    let life =
        stated.unwrap_or(DEFAULT_LIFETIME).clamp(DEFAULT_LIFETIME, MAX_LIFETIME).saturating_sub(MARGIN);
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| LookupError::Malformed)?;
    value.set_sensitive(true);
    Ok((value, Duration::from_secs(life)))
}

fn ask(uri: Uri, scope: &Scope<'_>) -> RegistryRequest {
    RegistryRequest {
        method: Method::GET,
        uri,
        accept: "application/json",
        authorization: None,
        form: None,
        reach: AddressPolicy::Registry,
        requester: scope.requester(),
    }
}

/// `Basic` (RFC 7617).
fn basic(credential: &Credential) -> Option<HeaderValue> {
    let pair = STANDARD.encode(format!("{}:{}", credential.user, credential.password));
    let mut value = HeaderValue::try_from(format!("Basic {pair}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// `application/x-www-form-urlencoded`.
fn form<'p>(pairs: impl IntoIterator<Item = (&'p str, &'p str)>) -> String {
    Serializer::new(String::new()).extend_pairs(pairs).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_tokens_and_challenges_is_bounded() {
        let tokens = Tokens::default();
        let token = HeaderValue::try_from("x".repeat(MAX_TOKEN)).unwrap();
        for number in 0..4000 {
            let key = ("r.example:443".to_owned(), format!("a/{number}"), [0; 16]);
            tokens.granted.insert(key, (token.clone(), Instant::now()));
            let challenge = Challenge::Bearer {
                realm: "x".repeat(4000),
                service: Some("x".repeat(90)),
                scopes: Vec::new(),
            };
            tokens.challenges.insert(format!("{number}.example:443"), (challenge, AddressPolicy::Internet));
        }
        tokens.granted.run_pending_tasks();
        tokens.challenges.run_pending_tasks();
        assert!(tokens.granted.weighted_size() <= TOKENS && tokens.granted.entry_count() < 600);
        assert!(tokens.challenges.weighted_size() <= CHALLENGES && tokens.challenges.entry_count() < 300);
    }
}
