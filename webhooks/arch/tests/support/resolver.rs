//! A resolver, called as admission and `explain` call it.

use std::time::{Duration, Instant};

use arch::credentials::DockerConfig;
use arch::image_resolver::ImageResolver;
use arch_decision::config::Settings;
use arch_decision::images::{Access, Image, Images, Knowledge, LookupError};
use arch_decision::platform::Platforms;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Response;
use serde_json::{Value, json};

use super::registry::{Registry, full, index, ok, status, with};

/// Settings by which these hosts are spoken to without TLS.
pub(crate) fn settings(plain: &[&Registry], more: &Value) -> Settings {
    let hosts: Vec<_> = plain.iter().map(|registry| registry.host()).collect();
    let mut registries = json!({"plainHttp": hosts});
    registries.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Settings::from_value(json!({"registries": registries})).unwrap()
}

pub(crate) fn images(plain: &[&Registry], more: &Value, credentials: &[(&str, &str)]) -> ImageResolver {
    let auths: serde_json::Map<_, _> = credentials
        .iter()
        .map(|(place, pair)| ((*place).to_owned(), json!({"auth": STANDARD.encode(pair)})))
        .collect();
    let config = DockerConfig::from_json(&json!({"auths": auths}).to_string()).unwrap();
    ImageResolver::new(&settings(plain, more), Some(config), None).unwrap()
}

pub(crate) async fn runs_on(images: &ImageResolver, name: &str) -> Result<String, LookupError> {
    let explained = images.explain(name).await?;
    Ok(match &*explained.platforms {
        Platforms::Any => "any".to_owned(),
        Platforms::OlmBundle => "OLM bundle".to_owned(),
        Platforms::Only(platforms) => platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
    })
}

pub(crate) fn image(reference: &str, always: bool) -> Image<'_> {
    Image { reference, always, anew: false, volume: false }
}

/// The answers that admission has within this time.
pub(crate) async fn known(images: &ImageResolver, name: &str, always: bool, budget: Duration) -> Knowledge {
    let begun = Instant::now();
    let mut known = images.known(&[image(name, always)], &Access::default(), begun + budget).await;
    assert!(begun.elapsed() < budget + Duration::from_millis(250), "{name}: {:?}", begun.elapsed());
    known.images.remove(0)
}

pub(crate) const BUDGET: Duration = Duration::from_millis(700);

/// A registry with the token server `realm` for these users. Each of their tokens gives access.
pub(crate) async fn with_tokens(realm: String, users: &'static [&'static str]) -> Registry {
    Registry::start(move |asked| {
        let challenge = format!("Bearer realm=\"{realm}\",service=\"test\",scope=\"repository:x:push\"");
        async move {
            let token = asked.authorization.as_deref().and_then(|own| own.strip_prefix("Bearer "));
            match token {
                Some(token) if users.contains(&token) => ok(&asked, index(&["linux/arm64"])),
                Some(_) => status(403),
                None => with(401, &[("www-authenticate", &challenge)]),
            }
        }
    })
    .await
}

/// Gives everybody a token that is their name.
pub(crate) async fn token_server() -> Registry {
    Registry::start(|asked| async move {
        let user = asked.authorization.as_deref().and_then(|own| own.strip_prefix("Basic ")).map_or_else(
            || "anonymous".to_owned(),
            |pair| {
                String::from_utf8(STANDARD.decode(pair).unwrap())
                    .unwrap()
                    .split(':')
                    .next()
                    .unwrap()
                    .to_owned()
            },
        );
        Response::new(full(json!({"token": user, "expires_in": 300}).to_string().into_bytes()))
    })
    .await
}
