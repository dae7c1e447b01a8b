//! The platforms in image indexes, manifest lists, and manifests of schema 2 and 1.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use arch_decision::images::LookupError;
use arch_decision::platform::Platform;

/// Platforms of one image: more than Go knows. All are remembered; who names more wants others forgotten.
pub(crate) const MAX_PLATFORMS: usize = 256;
/// Entries of an index that name no platform, each of which must be asked for.
const MAX_UNTOLD: usize = 24;
/// The accepted media types.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.v1+prettyjws";

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// One manifest.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Manifest {
    /// Several images, or their manifests.
    Index {
        /// The platforms that it names.
        platforms: BTreeSet<Platform>,
        /// The digests of those for which it names none.
        resolve_unnamed_entries: Vec<String>,
    },
    /// One image; the digest of its configuration, which knows the platform.
    Image(String),
    /// An image of the days before configurations (schema 1).
    Old(Platform),
    /// Something that isn't run: a chart, a signature, data.
    Artifact,
}

/// The union of the fields of all kinds of manifests.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: u8,
    media_type: Option<String>,
    manifests: Option<Entries>,
    config: Option<Descriptor>,
    architecture: Option<String>,
}

/// A reference to another document (`Descriptor` of the OCI image specification).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    platform: Option<Named>,
    annotations: Option<BTreeMap<String, String>>,
}

/// A platform as indexes and configurations name it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl Named {
    fn platform(&self) -> Option<Platform> {
        let Self { os, architecture, variant } = self;
        let named = !os.is_empty() && !architecture.is_empty();
        named.then(|| Platform::new(os, architecture, variant.as_deref()))
    }
}

/// The entries of an index, as far as they matter: an index may have tens of thousands, and they are never all in memory.
#[derive(Default)]
struct Entries {
    platforms: BTreeSet<Platform>,
    resolve_unnamed_entries: Vec<String>,
}

impl Manifest {
    /// Reads a manifest; its own word for what it is counts more than the registry's (`content_type`).
    pub(crate) fn read(content_type: Option<&str>, text: &str) -> Result<Self, LookupError> {
        let shape: Shape = parse(text)?;
        let kind = shape.media_type.as_deref().or(content_type).unwrap_or_default();
        match (shape.schema_version, shape.manifests, shape.config) {
            (2, Some(Entries { platforms, resolve_unnamed_entries }), None)
                if !matches!(kind, DOCKER_MANIFEST | OCI_MANIFEST) =>
            {
                Ok(Self::Index { platforms, resolve_unnamed_entries })
            }
            (2, None, Some(config)) if !is_index(kind) => Ok(match &*config.media_type {
                OCI_CONFIG | DOCKER_CONFIG => Self::Image(config.digest),
                _ => Self::Artifact,
            }),
            (1, None, None) => {
                let architecture = shape.architecture.ok_or(LookupError::Malformed)?;
                Ok(Self::Old(Platform::new("linux", &architecture, None)))
            }
            // A document that is both an index and a manifest can be read either way, regardless of its media type (CVE-2021-41190).
            _ => Err(LookupError::Malformed),
        }
    }
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of manifests")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Entries, A::Error> {
                let mut entries = Entries::default();
                while let Some(entry) = list.next_element::<Descriptor>()? {
                    entries.add(entry);
                    if entries.platforms.len() > MAX_PLATFORMS
                        || entries.resolve_unnamed_entries.len() > MAX_UNTOLD
                    {
                        return Err(A::Error::custom("no image has so many platforms"));
                    }
                }
                Ok(entries)
            }
        }
        deserializer.deserialize_seq(All)
    }
}

impl Entries {
    fn add(&mut self, entry: Descriptor) {
        if is_attestation(&entry) {
            return;
        }
        match entry.platform.as_ref().and_then(Named::platform) {
            Some(platform) => drop(self.platforms.insert(platform)),
            None => self.resolve_unnamed_entries.push(entry.digest),
        }
    }
}

/// The platform that an image's configuration names. Nothing else of it is read: some have `null` in place of a list of no layers.
pub(crate) fn platform_of_config(text: &str) -> Result<Platform, LookupError> {
    parse::<Named>(text)?.platform().ok_or(LookupError::Malformed)
}

fn parse<'t, T: Deserialize<'t>>(text: &'t str) -> Result<T, LookupError> {
    serde_json::from_str(text).map_err(|_| LookupError::Malformed)
}

fn is_index(kind: &str) -> bool {
    matches!(kind, OCI_INDEX | DOCKER_LIST)
}

/// Where an image came from and what is in it (`BuildKit`'s attestations): nothing that is run.
fn is_attestation(entry: &Descriptor) -> bool {
    let platform = entry.platform.as_ref();
    platform.is_some_and(|own| own.os == "unknown" && own.architecture == "unknown")
        || entry.annotations.iter().flatten().any(|(key, _)| key.starts_with("vnd.docker.reference."))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn entry(digest: &str, platform: Value, annotations: &Value) -> Value {
        let mut entry =
            json!({"mediaType": OCI_MANIFEST, "digest": digest, "size": 7, "annotations": annotations});
        if !platform.is_null() {
            entry["platform"] = platform;
        }
        entry
    }

    #[test]
    fn an_index_with_everything_in_it() {
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [
            entry("sha256:1", json!({"os": "linux", "architecture": "amd64"}), &json!({})),
            entry("sha256:2", json!({"os": "linux", "architecture": "arm", "variant": "v6"}), &json!({})),
            entry("sha256:3", json!({"os": "unknown", "architecture": "unknown"}), &json!({})),
            entry("sha256:4", json!({"os": "linux", "architecture": "s390x"}), &json!({"vnd.docker.reference.type": "attestation-manifest"})),
            entry("sha256:5", json!(null), &json!({})),
            entry("sha256:6", json!({"os": "windows", "architecture": "amd64", "os.version": "10"}), &json!({})),
        ]});
        let Manifest::Index { platforms, resolve_unnamed_entries } =
            Manifest::read(None, &index.to_string()).unwrap()
        else {
            panic!()
        };
        let platforms: Vec<_> = platforms.iter().map(ToString::to_string).collect();
        assert_eq!(platforms, ["linux/amd64", "linux/arm/v6", "windows/amd64"]);
        assert_eq!(resolve_unnamed_entries, ["sha256:5"]);
    }

    #[test]
    fn manifests_of_one_image() {
        let manifest = |kind: &str, config: &str| {
            json!({"schemaVersion": 2, "mediaType": kind, "layers": [],
                "config": {"mediaType": config, "digest": "sha256:c", "size": 1}})
            .to_string()
        };
        let docker = manifest(DOCKER_MANIFEST, DOCKER_CONFIG);
        assert_eq!(Manifest::read(None, &docker), Ok(Manifest::Image("sha256:c".into())));
        let chart = manifest(OCI_MANIFEST, "application/vnd.cncf.helm.config.v1+json");
        assert_eq!(Manifest::read(None, &chart), Ok(Manifest::Artifact));
        let old =
            json!({"schemaVersion": 1, "name": "a", "architecture": "arm64", "fsLayers": []}).to_string();
        assert_eq!(Manifest::read(None, &old), Ok(Manifest::Old(Platform::new("linux", "arm64", None))));
    }

    #[test]
    fn invalid_manifests_are_errors() {
        let both = json!({"schemaVersion": 2, "manifests": [], "config": {}});
        let posing = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "manifests": []});
        for text in
            ["", "{}", "[]", "null", r#"{"schemaVersion": 3}"#, r#"{"schemaVersion": 2, "manifests": [1]}"#]
                .into_iter()
                .map(str::to_owned)
                .chain([both.to_string(), posing.to_string(), "[".repeat(100_000)])
        {
            assert_eq!(Manifest::read(None, &text), Err(LookupError::Malformed), "{text:.80}");
        }
    }

    #[test]
    fn configurations() {
        let config = json!({"architecture": "arm", "os": "linux", "variant": "v6", "rootfs": {"type": "layers", "diff_ids": null}});
        assert_eq!(platform_of_config(&config.to_string()).unwrap().to_string(), "linux/arm/v6");
        assert_eq!(platform_of_config("{}"), Err(LookupError::Malformed));
    }
}
