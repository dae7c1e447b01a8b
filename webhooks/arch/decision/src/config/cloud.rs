//! `cloudCredentials`: registries of clouds, to which the identity of the webhook's pod gives access.

use podshaper_core::object::is_name;
use serde::Deserialize;

use super::{ConfigError, Registries, wrong};

/// An item of `cloudCredentials`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudCredentials {
    /// The cloud.
    pub cloud: Cloud,
    /// The hosts of the registries, in lower case.
    pub registries: Vec<String>,
    /// The namespaces of the pods that the answers are for; all if empty.
    pub namespaces: Vec<String>,
}

/// A cloud with registries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cloud {
    /// Elastic Container Registry of AWS.
    Ecr,
    /// Artifact Registry of Google.
    ArtifactRegistry,
    /// Azure Container Registry, with the tenant of the registry if it isn't that of the identity.
    Acr(Option<String>),
}

/// The host of a registry of ECR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EcrHost<'h> {
    /// The region.
    pub region: &'h str,
    /// The host of the API of ECR is `PREFIX.REGION.SUFFIX`.
    pub api: (&'h str, &'h str),
    /// The domain of AWS in this part of the world: `amazonaws.com`.
    pub domain: &'static str,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", expecting = "ecr, artifactRegistry or acr")]
pub(super) enum CloudItem {
    Ecr(Block),
    ArtifactRegistry(Block),
    Acr(AcrBlock),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "registries and namespaces")]
pub(super) struct Block {
    registries: Vec<String>,
    #[serde(default)]
    namespaces: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", expecting = "registries, namespaces and tenantId")]
pub(super) struct AcrBlock {
    registries: Vec<String>,
    #[serde(default)]
    namespaces: Vec<String>,
    tenant_id: Option<String>,
}

impl CloudItem {
    fn parts(self) -> (&'static str, CloudCredentials) {
        let (key, cloud, registries, namespaces) = match self {
            Self::Ecr(Block { registries, namespaces }) => ("ecr", Cloud::Ecr, registries, namespaces),
            Self::ArtifactRegistry(Block { registries, namespaces }) => {
                ("artifactRegistry", Cloud::ArtifactRegistry, registries, namespaces)
            }
            Self::Acr(AcrBlock { registries, namespaces, tenant_id }) => {
                ("acr", Cloud::Acr(tenant_id), registries, namespaces)
            }
        };
        let registries = registries.iter().map(|registry| registry.to_ascii_lowercase()).collect();
        (key, CloudCredentials { cloud, registries, namespaces })
    }

    /// Checks that each registry is one of its cloud, and that images of it are looked up.
    pub(super) fn validated(
        items: Vec<Self>,
        registries: &Registries,
    ) -> Result<Vec<CloudCredentials>, ConfigError> {
        let mut all: Vec<CloudCredentials> = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            let (key, item) = item.parts();
            let at = |rest: &[&str], problem: String| {
                let index = index.to_string();
                wrong(&[&["cloudCredentials", &index, key], rest].concat(), problem)
            };
            if item.registries.is_empty() {
                return Err(at(&["registries"], "names no registry".to_owned()));
            }
            for (place, registry) in item.registries.iter().enumerate() {
                let place = place.to_string();
                if !item.cloud.has(registry) {
                    let problem =
                        format!("{registry:?} matches no image there: one is {}", item.cloud.example());
                    return Err(at(&["registries", &place], problem));
                }
                if !registries.allows(registry) {
                    let problem = "matches no image: registries.allow doesn't have it".to_owned();
                    return Err(at(&["registries", &place], problem));
                }
                if !registries.mirrors.contact_source(registry) {
                    let problem =
                        "has no effect: registries.mirrors has mirrors only for it, which get no credential";
                    return Err(at(&["registries", &place], problem.to_owned()));
                }
            }
            let is_twice = |(place, registry): &(usize, &String)| {
                let is_listed = |earlier: &CloudCredentials| {
                    item.is_included_in(earlier) && earlier.registries.contains(registry)
                };
                item.registries.iter().take(*place).any(|own| own == *registry) || all.iter().any(is_listed)
            };
            if let Some((place, registry)) = item.registries.iter().enumerate().find(is_twice) {
                let problem = format!("has no effect: {registry} is listed twice");
                return Err(at(&["registries", &place.to_string()], problem));
            }
            if let Some((place, name)) = item.namespaces.iter().enumerate().find(|(_, name)| !is_name(name)) {
                let problem = format!("{name:?} is no name of a namespace");
                return Err(at(&["namespaces", &place.to_string()], problem));
            }
            if matches!(&item.cloud, Cloud::Acr(Some(tenant)) if !is_tenant(tenant)) {
                return Err(at(&["tenantId"], "is no tenant: one is a UUID or a domain".to_owned()));
            }
            all.push(item);
        }
        Ok(all)
    }
}

fn is_tenant(tenant: &str) -> bool {
    !tenant.is_empty()
        && tenant.len() <= 253
        && tenant.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}

impl CloudCredentials {
    /// Whether an earlier item is for all namespaces of this one.
    fn is_included_in(&self, earlier: &Self) -> bool {
        earlier.namespaces.is_empty()
            || (!self.namespaces.is_empty()
                && self.namespaces.iter().all(|own| earlier.namespaces.contains(own)))
    }
}

impl Cloud {
    fn has(&self, registry: &str) -> bool {
        let label = |text: &str| {
            !text.is_empty()
                && !text.starts_with('-')
                && !text.ends_with('-')
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        match self {
            Self::Ecr => EcrHost::parse(registry).is_some(),
            Self::ArtifactRegistry => {
                let location =
                    registry.strip_suffix("-docker.pkg.dev").or_else(|| registry.strip_suffix(".gcr.io"));
                registry == "gcr.io" || location.is_some_and(label)
            }
            Self::Acr(_) => {
                let domains = [".azurecr.io", ".azurecr.cn", ".azurecr.us"];
                domains.iter().any(|domain| registry.strip_suffix(domain).is_some_and(label))
            }
        }
    }

    fn example(&self) -> &'static str {
        match self {
            Self::Ecr => "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
            Self::ArtifactRegistry => "europe-west1-docker.pkg.dev",
            Self::Acr(_) => "example.azurecr.io",
        }
    }
}

impl<'h> EcrHost<'h> {
    /// Reads a host (`ecrPattern` of k8s.io/cloud-provider-aws/cmd/ecr-credential-provider).
    pub fn parse(host: &'h str) -> Option<Self> {
        let (account, rest) = host.split_once('.')?;
        if account.len() != 12 || !account.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let is_region = |region: &str| {
            region.split('-').count() >= 3
                && region
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        let forms = [
            ("dkr.ecr.", ".amazonaws.com", ("api.ecr", "amazonaws.com"), "amazonaws.com"),
            ("dkr.ecr-fips.", ".amazonaws.com", ("ecr-fips", "amazonaws.com"), "amazonaws.com"),
            ("dkr.ecr.", ".amazonaws.com.cn", ("api.ecr", "amazonaws.com.cn"), "amazonaws.com.cn"),
            ("dkr-ecr.", ".on.aws", ("ecr", "api.aws"), "amazonaws.com"),
        ];
        forms.into_iter().find_map(|(prefix, suffix, api, domain)| {
            let region = rest.strip_prefix(prefix)?.strip_suffix(suffix)?;
            is_region(region).then_some(Self { region, api, domain })
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::Settings;

    fn validated(value: Value, allow: &[&str]) -> Result<Vec<CloudCredentials>, String> {
        let items: Vec<CloudItem> = serde_json::from_value(value).map_err(|error| error.to_string())?;
        let allow = allow.iter().map(|&host| host.to_owned()).collect();
        let registries = Registries { allow, ..Registries::default() };
        CloudItem::validated(items, &registries).map_err(|error| error.to_string())
    }

    #[test]
    fn registries_are_those_of_their_cloud() {
        for (cloud, registries) in [
            (
                "ecr",
                &[
                    "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
                    "123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com",
                    "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
                    "123456789012.dkr-ecr.eu-west-1.on.aws",
                ][..],
            ),
            ("artifactRegistry", &["europe-west1-docker.pkg.dev", "gcr.io", "eu.gcr.io"]),
            ("acr", &["Example.azurecr.io", "example.azurecr.cn", "example.azurecr.us"]),
        ] {
            let items =
                validated(json!([{cloud: {"registries": registries, "namespaces": ["team"]}}]), &[]).unwrap();
            assert_eq!(items[0].registries[0], registries[0].to_ascii_lowercase());
            assert_eq!(items[0].namespaces, ["team"]);
        }
    }

    #[test]
    fn registry_that_matches_no_image_is_an_error() {
        for (cloud, registry) in [
            ("ecr", "dkr.ecr.eu-west-1.amazonaws.com"),
            ("ecr", "12345678901.dkr.ecr.eu-west-1.amazonaws.com"),
            ("ecr", "*.dkr.ecr.eu-west-1.amazonaws.com"),
            ("ecr", "123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example"),
            ("ecr", "123456789012.dkr.ecr.evil.example/eu-west-1.amazonaws.com"),
            ("ecr", "123456789012.dkr.ecr.eu-west-1.amazonaws.com:443"),
            ("ecr", "public.ecr.aws"),
            ("artifactRegistry", "docker.pkg.dev"),
            ("artifactRegistry", "evil.example-docker.pkg.dev"),
            ("artifactRegistry", "europe-west1-docker.pkg.dev/project"),
            ("artifactRegistry", "evilgcr.io"),
            ("acr", "azurecr.io"),
            ("acr", "-.azurecr.io"),
            ("acr", "example.azurecr.io."),
            ("acr", "example.azurecr.evil"),
            ("artifactRegistry", "us.gcr.io:443"),
            ("acr", "a.b.azurecr.io"),
            ("acr", "example.azurecr.io.evil.example"),
        ] {
            let error = validated(json!([{cloud: {"registries": [registry]}}]), &[]).unwrap_err();
            let expected =
                format!("cloudCredentials.0.{cloud}.registries.0: {registry:?} matches no image there");
            assert!(error.starts_with(&expected), "{error}");
        }
        let gar = json!([{"artifactRegistry": {"registries": ["gcr.io"]}}]);
        assert!(validated(gar, &["docker.io"]).unwrap_err().contains("registries.allow doesn't have it"));
    }

    #[test]
    fn registry_that_is_never_asked_is_an_error() {
        let with_mirrors = |mirrors: Value| {
            Settings::from_value(json!({
                "registries": {"mirrors": mirrors}, "cloudCredentials": [{"artifactRegistry": {"registries": ["eu.gcr.io"]}}],
            }))
        };
        let never = json!({"mirrors": ["https://m.example"], "mirrorSourcePolicy": "NeverContactSource"});
        for mirrors in [
            json!({"*": never}),
            json!({"*.gcr.io": never}),
            json!({"eu.gcr.io": never, "*": ["https://n.example"]}),
        ] {
            let error = with_mirrors(mirrors.clone()).unwrap_err().to_string();
            let expected =
                "cloudCredentials.0.artifactRegistry.registries.0: has no effect: registries.mirrors";
            assert!(error.starts_with(expected), "{mirrors}: {error}");
        }
        for mirrors in [
            json!({"*": ["https://m.example"]}),
            json!({"eu.gcr.io": ["https://m.example"], "*": never}),
            json!({"eu.gcr.io/team": never}),
            json!({"eu.gcr.io/team": ["https://m.example"], "*": never}),
            json!({"docker.io": never}),
        ] {
            assert!(with_mirrors(mirrors.clone()).is_ok(), "{mirrors}");
        }
    }

    #[test]
    fn registry_that_is_listed_twice_is_an_error() {
        let item =
            |namespaces: &[&str]| json!({"acr": {"registries": ["a.azurecr.io"], "namespaces": namespaces}});
        let twice = json!([{"acr": {"registries": ["b.azurecr.io", "a.azurecr.io", "A.azurecr.io"]}}]);
        let error = validated(twice, &[]).unwrap_err();
        assert_eq!(error, "cloudCredentials.0.acr.registries.2: has no effect: a.azurecr.io is listed twice");
        for (first, second, expected) in [
            (item(&[]), item(&["x"]), false),
            (item(&["x", "y"]), item(&["y"]), false),
            (item(&["x"]), item(&["y"]), true),
            (item(&["x"]), item(&[]), true),
        ] {
            assert_eq!(validated(json!([first, second]), &[]).is_ok(), expected, "{first} {second}");
        }
    }

    #[test]
    fn invalid_settings_are_errors() {
        for (value, expected) in [
            (json!([{"ecr": {"registries": []}}]), "cloudCredentials.0.ecr.registries: names no registry"),
            (json!([{"ecr": {}}]), "missing field `registries`"),
            (json!([{"gcr": {"registries": []}}]), "unknown variant `gcr`"),
            (json!([{"ecr": {"registries": [], "region": "x"}}]), "unknown field `region`"),
            (
                json!([{"acr": {"registries": ["a.azurecr.io"], "namespaces": ["A/b"]}}]),
                "cloudCredentials.0.acr.namespaces.0: \"A/b\" is no name",
            ),
            (
                json!([{"acr": {"registries": ["a.azurecr.io"], "tenantId": "a/../b"}}]),
                "cloudCredentials.0.acr.tenantId: is no tenant",
            ),
        ] {
            let error = validated(value, &[]).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
