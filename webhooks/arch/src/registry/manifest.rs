//! The platforms in image indexes, manifest lists, and manifests of schema 2 and 1.

use std::collections::BTreeSet;
use std::fmt;

use oci_client::config::{Architecture, Os};
use oci_client::manifest::{
    IMAGE_CONFIG_MEDIA_TYPE as OCI_CONFIG, IMAGE_DOCKER_CONFIG_MEDIA_TYPE as DOCKER_CONFIG,
    IMAGE_MANIFEST_LIST_MEDIA_TYPE as DOCKER_LIST, IMAGE_MANIFEST_MEDIA_TYPE as DOCKER_MANIFEST,
    ImageIndexEntry, OCI_IMAGE_INDEX_MEDIA_TYPE as OCI_INDEX, OCI_IMAGE_MEDIA_TYPE as OCI_MANIFEST,
    OciDescriptor, Platform as OciPlatform,
};
use podshaper_core::json::Text;
use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use arch_decision::images::LookupError;
use arch_decision::platform::Platform;

/// The largest number of platforms of one image, more than Go knows. All of them are cached, so an image with more would evict others.
pub(crate) const MAX_PLATFORMS: usize = 256;
/// Entries of an index without a platform that are read. Each takes a request.
const MAX_UNNAMED: usize = 24;
/// The accepted media types.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.v1+prettyjws";

/// The configuration of an artifact that has none (OCI image specification, "Guidance for an Empty Descriptor").
const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// Manifests of schema 1, without and with a signature.
const DOCKER_OLD: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];

/// Attestations of `BuildKit` have such an annotation.
const ATTESTATION: &str = "vnd.docker.reference.";
/// OLM bundles have this label (operator-registry, `docs/design/operator-bundle.md`).
const OLM_BUNDLE: &str = "operators.operatorframework.io.bundle.mediatype.v1";

/// One manifest.
#[derive(Debug, PartialEq, Eq)]
pub enum Manifest {
    /// Several images, or their manifests.
    Index {
        /// The platforms that it names.
        platforms: BTreeSet<Platform>,
        /// The digest of the only image, if it has an attestation.
        attested: Option<String>,
        /// The digests of entries without a platform.
        unnamed: Vec<String>,
        /// Whether there are more of these.
        has_more: bool,
    },
    /// One image; the digest of its configuration, which knows the platform.
    Image(String),
    /// One image or an artifact, by the content of the configuration with this digest: its media type is neither that of images nor
    /// that of artifacts without a configuration.
    Undeclared(String),
    /// An image of the days before configurations (schema 1).
    Old(Platform),
    /// Something that isn't run: a chart, a signature, data.
    Artifact,
}

/// The content of a configuration.
#[derive(Debug, PartialEq, Eq)]
pub enum Config {
    /// An image for this platform.
    Image(Platform),
    /// An OLM bundle.
    OlmBundle,
}

/// The union of the fields of all kinds of manifests.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape<'t> {
    /// Some builders omit it, and no runtime reads it.
    schema_version: Option<i64>,
    #[serde(borrow)]
    media_type: Option<Text<'t>>,
    #[serde(borrow, default)]
    artifact_type: Text<'t>,
    manifests: Option<Entries>,
    #[serde(borrow)]
    config: Option<Descriptor<'t>>,
    #[serde(borrow)]
    architecture: Option<Text<'t>>,
}

/// The fields of a descriptor that matter, read as Go reads them: null is the empty string, and of annotations only the keys are read.
/// [`ImageIndexEntry`] itself keeps all annotations, and fails at null.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor<'t> {
    #[serde(borrow, default)]
    media_type: Text<'t>,
    #[serde(borrow, default)]
    digest: Text<'t>,
    #[serde(borrow, default)]
    artifact_type: Text<'t>,
    #[serde(borrow)]
    platform: Option<Named<'t>>,
    annotations: Option<HasAttestationKey>,
}

/// A platform as indexes and configurations name it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Named<'t> {
    #[serde(borrow)]
    os: Text<'t>,
    #[serde(borrow)]
    architecture: Text<'t>,
    #[serde(borrow)]
    variant: Text<'t>,
}

impl Descriptor<'_> {
    fn is_attestation(&self) -> bool {
        let platform = self.platform.as_ref();
        platform.is_some_and(|own| &*own.os == "unknown" && &*own.architecture == "unknown")
            || self.annotations.as_ref().is_some_and(|HasAttestationKey(found)| *found)
    }
}

fn non_empty(text: &Text<'_>) -> Option<String> {
    Some(text.to_string()).filter(|text| !text.is_empty())
}

impl From<Descriptor<'_>> for OciDescriptor {
    fn from(own: Descriptor<'_>) -> Self {
        Self {
            media_type: own.media_type.to_string(),
            digest: own.digest.to_string(),
            artifact_type: non_empty(&own.artifact_type),
            ..Self::default()
        }
    }
}

impl From<Descriptor<'_>> for ImageIndexEntry {
    fn from(own: Descriptor<'_>) -> Self {
        let platform = own.platform.as_ref().and_then(Named::oci_platform);
        let OciDescriptor { media_type, digest, size, artifact_type, .. } = own.into();
        Self { media_type, digest, size, platform, annotations: None, artifact_type }
    }
}

impl Named<'_> {
    /// None without an architecture. Without an operating system it is for that of the node (`normalizeOS` of
    /// github.com/containerd/platforms), which is Linux here.
    fn oci_platform(&self) -> Option<OciPlatform> {
        let os = if self.os.is_empty() { "linux" } else { &self.os };
        (!self.architecture.is_empty()).then(|| OciPlatform {
            architecture: Architecture::from(&*self.architecture),
            os: Os::from(os),
            os_version: None,
            os_features: None,
            variant: non_empty(&self.variant),
            features: None,
        })
    }

    fn platform(&self) -> Option<Platform> {
        self.oci_platform().as_ref().map(platform)
    }
}

fn platform(own: &OciPlatform) -> Platform {
    Platform::new(&own.os.to_string(), &own.architecture.to_string(), own.variant.as_deref())
}

/// The configuration of an image, as far as it matters. Some have `null` in place of a list of no layers.
#[derive(Deserialize)]
struct ImageConfig<'t> {
    #[serde(borrow, default)]
    os: Text<'t>,
    #[serde(borrow, default)]
    architecture: Text<'t>,
    #[serde(borrow, default)]
    variant: Text<'t>,
    config: Option<ContainerConfig>,
    rootfs: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct ContainerConfig {
    #[serde(rename = "Labels")]
    labels: Option<HasBundleLabel>,
}

/// Whether a map has a key with this property. Its values, of any type and number, are skipped.
fn any_key<'de, D: Deserializer<'de>>(deserializer: D, is: fn(&str) -> bool) -> Result<bool, D::Error> {
    struct Keys(fn(&str) -> bool);
    impl<'de> Visitor<'de> for Keys {
        type Value = bool;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
            let mut found = false;
            while let Some(key) = map.next_key::<Text<'_>>()? {
                found |= (self.0)(&key);
                map.next_value::<IgnoredAny>()?;
            }
            Ok(found)
        }
    }
    deserializer.deserialize_map(Keys(is))
}

/// Whether annotations are those of an attestation.
struct HasAttestationKey(bool);

impl<'de> Deserialize<'de> for HasAttestationKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        any_key(deserializer, |key| key.starts_with(ATTESTATION)).map(Self)
    }
}

/// Whether labels are those of an OLM bundle.
struct HasBundleLabel(bool);

impl<'de> Deserialize<'de> for HasBundleLabel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        any_key(deserializer, |key| key == OLM_BUNDLE).map(Self)
    }
}

/// The entries of an index, as far as they matter: an index may have tens of thousands, and they are never all in memory.
#[derive(Default)]
struct Entries {
    platforms: BTreeSet<Platform>,
    /// The digest of the first entry with a platform.
    first: Option<String>,
    has_attestation: bool,
    unnamed: Vec<String>,
    has_more: bool,
}

impl Manifest {
    /// Reads a manifest; its own word for what it is counts more than the registry's (`content_type`).
    pub fn read(content_type: Option<&str>, text: &str) -> Result<Self, LookupError> {
        let shape: Shape<'_> = parse(text)?;
        let own = shape.media_type.as_deref().filter(|own| !own.is_empty());
        let kind = own.or(content_type).unwrap_or_default();
        match (shape.schema_version.unwrap_or(2), shape.manifests, shape.config) {
            (1, None, None) => {
                let architecture = shape.architecture.ok_or(LookupError::Malformed)?;
                Ok(Self::Old(Platform::new("linux", &architecture, None)))
            }
            (_, Some(entries), None) if !matches!(kind, DOCKER_MANIFEST | OCI_MANIFEST) => Ok(entries.into()),
            (_, None, Some(config)) if !is_index(kind) => {
                let OciDescriptor { media_type, digest, .. } = config.into();
                Ok(match &*media_type {
                    OCI_CONFIG | DOCKER_CONFIG => Self::Image(digest),
                    OCI_EMPTY => Self::Artifact,
                    _ if !shape.artifact_type.is_empty() => Self::Artifact,
                    _ => Self::Undeclared(digest),
                })
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
                while let Some(entry) = list.next_element::<Option<Descriptor<'_>>>()? {
                    match entry {
                        Some(entry) if entry.is_attestation() => entries.has_attestation = true,
                        Some(entry) => entries.add(entry.into()),
                        None => {}
                    }
                    if entries.platforms.len() > MAX_PLATFORMS {
                        return Err(A::Error::custom("no image has so many platforms"));
                    }
                }
                Ok(entries)
            }
        }
        deserializer.deserialize_seq(All)
    }
}

impl From<Entries> for Manifest {
    fn from(Entries { platforms, first, has_attestation, unnamed, has_more }: Entries) -> Self {
        let is_one = platforms.len() == 1 && unnamed.is_empty();
        Self::Index { attested: first.filter(|_| is_one && has_attestation), platforms, unnamed, has_more }
    }
}

impl Entries {
    fn add(&mut self, entry: ImageIndexEntry) {
        // Without a digest it leads nowhere.
        if !is_image(&entry) || entry.digest.is_empty() {
            return;
        }
        match &entry.platform {
            Some(own) => {
                self.platforms.insert(platform(own));
                self.first.get_or_insert(entry.digest);
            }
            None if self.unnamed.len() == MAX_UNNAMED => self.has_more = true,
            None => self.unnamed.push(entry.digest),
        }
    }
}

impl Config {
    /// Reads the configuration of an image.
    pub fn of_image(text: &str) -> Result<Self, LookupError> {
        Self::read(text, |_| true)?.ok_or(LookupError::Malformed)
    }

    /// Reads a configuration of an unusual media type. None if it is not that of an image, which has an operating system or layers: the
    /// configurations of models have an `architecture` too.
    pub fn of_undeclared(text: &str) -> Option<Self> {
        Self::read(text, |own| !own.os.is_empty() || own.rootfs.is_some()).ok().flatten()
    }

    fn read(text: &str, is_image: fn(&ImageConfig<'_>) -> bool) -> Result<Option<Self>, LookupError> {
        let own: ImageConfig<'_> = parse(text)?;
        let labels = own.config.as_ref().and_then(|config| config.labels.as_ref());
        if labels.is_some_and(|HasBundleLabel(found)| *found) {
            return Ok(Some(Self::OlmBundle));
        }
        let is_image = is_image(&own);
        let ImageConfig { os, architecture, variant, .. } = own;
        Ok(Named { os, architecture, variant }.platform().filter(|_| is_image).map(Self::Image))
    }
}

fn parse<'t, T: Deserialize<'t>>(text: &'t str) -> Result<T, LookupError> {
    serde_json::from_str(text).map_err(|_| LookupError::Malformed)
}

fn is_index(kind: &str) -> bool {
    matches!(kind, OCI_INDEX | DOCKER_LIST)
}

/// Whether an entry of an index is an image, or an index of some, and no artifact. The `artifactType` of an entry is the media type of
/// its configuration (OCI image specification, "Descriptor").
fn is_image(entry: &ImageIndexEntry) -> bool {
    let is_artifact = !matches!(entry.artifact_type.as_deref(), None | Some(OCI_CONFIG | DOCKER_CONFIG));
    let kind = &*entry.media_type;
    let is_manifest =
        matches!(kind, "" | OCI_MANIFEST | DOCKER_MANIFEST) || is_index(kind) || DOCKER_OLD.contains(&kind);
    !is_artifact && is_manifest
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
        let Manifest::Index { platforms, attested: None, unnamed, has_more: false } =
            Manifest::read(None, &index.to_string()).unwrap()
        else {
            panic!()
        };
        let platforms: Vec<_> = platforms.iter().map(ToString::to_string).collect();
        assert_eq!(platforms, ["linux/amd64", "linux/arm/v6", "windows/amd64"]);
        assert_eq!(unnamed, ["sha256:5"]);
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
        assert_eq!(Manifest::read(None, &chart), Ok(Manifest::Undeclared("sha256:c".into())));
        assert_eq!(Manifest::read(None, &manifest(OCI_MANIFEST, OCI_EMPTY)), Ok(Manifest::Artifact));
        let signature = json!({"schemaVersion": 2, "artifactType": "application/vnd.example.sig", "layers": [],
            "config": {"mediaType": "application/octet-stream", "digest": "sha256:c", "size": 1}});
        assert_eq!(Manifest::read(None, &signature.to_string()), Ok(Manifest::Artifact));
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
        let image = |os: &str, architecture: &str, variant: Option<&str>| {
            Config::Image(Platform::new(os, architecture, variant))
        };
        assert_eq!(Config::of_image(&config.to_string()), Ok(image("linux", "arm", Some("v6"))));
        assert_eq!(Config::of_image("{}"), Err(LookupError::Malformed));
        let arm = r#"{"architecture": "arm64", "os": null, "config": null}"#;
        assert_eq!(Config::of_image(arm), Ok(image("linux", "arm64", None)), "no operating system is Linux");
        let bundle = json!({"architecture": "amd64", "os": "linux", "config": {"Labels": {"a": null, OLM_BUNDLE: "registry+v1"}}});
        assert_eq!(Config::of_image(&bundle.to_string()), Ok(Config::OlmBundle));
    }

    #[test]
    fn undeclared_configuration_is_judged_by_content() {
        let amd = Config::Image(Platform::new("linux", "amd64", None));
        for (config, expected) in [
            (r#"{"architecture": "amd64", "os": "linux"}"#, Some(&amd)),
            (r#"{"architecture": "amd64", "rootfs": {"type": "layers"}}"#, Some(&amd)),
            (r#"{"architecture": "transformer"}"#, None),
            (r#"{"name": "chart", "version": "1.0.0"}"#, None),
            ("{}", None),
            ("[]", None),
            ("no json", None),
        ] {
            assert_eq!(Config::of_undeclared(config).as_ref(), expected, "{config}");
        }
    }

    #[test]
    fn entries_that_nodes_never_select_do_not_count() {
        let arm = json!({"os": "linux", "architecture": "arm64"});
        let mut soci = entry("sha256:1", arm.clone(), &json!({}));
        soci["artifactType"] = json!("application/vnd.amazon.soci.index.v2+json");
        let mut typed =
            entry("sha256:2", json!({"os": "linux", "architecture": "s390x"}), &json!({"a": null}));
        typed["artifactType"] = json!(OCI_CONFIG);
        let mut other = entry("sha256:3", arm, &json!(null));
        other["mediaType"] = json!("application/vnd.oci.artifact.manifest.v1+json");
        let os = entry("sha256:4", json!({"architecture": "ppc64le", "variant": null}), &json!({}));
        let mut all = vec![soci, typed, other, os];
        all.extend((0..30).map(|_| entry("sha256:5", json!(null), &json!({}))));
        // Some builders omit the schema version.
        let index = json!({"mediaType": OCI_INDEX, "manifests": all});
        let Manifest::Index { platforms, unnamed, has_more, .. } =
            Manifest::read(None, &index.to_string()).unwrap()
        else {
            panic!()
        };
        let platforms: Vec<_> = platforms.iter().map(ToString::to_string).collect();
        assert_eq!(platforms, ["linux/ppc64le", "linux/s390x"]);
        assert_eq!((unnamed.len(), has_more), (MAX_UNNAMED, true));
    }

    #[test]
    fn only_image_of_an_index_may_have_an_attestation() {
        let amd = entry("sha256:1", json!({"os": "linux", "architecture": "amd64"}), &json!({}));
        let arm = entry("sha256:2", json!({"os": "linux", "architecture": "arm64"}), &json!({}));
        let own = entry("sha256:3", json!({"os": "unknown", "architecture": "unknown"}), &json!({}));
        for (entries, expected) in [
            (json!([own, amd]), Some("sha256:1")),
            (json!([amd, own, own]), Some("sha256:1")),
            (json!([amd]), None),
            (json!([own]), None),
            (json!([amd, arm, own]), None),
            (json!([amd, own, entry("sha256:4", json!(null), &json!({}))]), None),
        ] {
            let index = json!({"schemaVersion": 2, "manifests": entries}).to_string();
            let Ok(Manifest::Index { attested, .. }) = Manifest::read(None, &index) else {
                panic!("{index}")
            };
            assert_eq!(attested.as_deref(), expected, "{index}");
        }
    }

    #[test]
    fn entry_that_leads_nowhere_does_not_lose_the_others() {
        let amd = entry("sha256:1", json!({"os": "linux", "architecture": "amd64"}), &json!({}));
        let mut without = entry("", json!({"os": "linux", "architecture": "s390x"}), &json!({}));
        for digest in [Some(json!("")), Some(json!(null)), None] {
            without.as_object_mut().unwrap().remove("digest");
            without.as_object_mut().unwrap().extend(digest.map(|digest| ("digest".to_owned(), digest)));
            // No runtime reads the version of an index.
            let index = json!({"schemaVersion": 300, "manifests": [without, amd, null]}).to_string();
            let Ok(Manifest::Index { platforms, unnamed, .. }) = Manifest::read(None, &index) else {
                panic!("{index}")
            };
            assert_eq!(platforms, [Platform::new("linux", "amd64", None)].into());
            assert_eq!(unnamed.len(), 0);
        }
    }

    #[test]
    fn name_of_a_platform_stays_as_it_is() {
        let names = arch_decision::platform::KUBERNETES_ARCHITECTURES;
        for name in names.into_iter().chain(["wasm", "sparc64", "x86_64", "aarch64", "i386", "AMD64", "a b"])
        {
            for os in ["linux", "windows", "wasip1", "Linux", "macos", "plan9"] {
                let own = Named { os: os.into(), architecture: name.into(), variant: Text::default() };
                assert_eq!(own.platform(), Some(Platform::new(os, name, None)), "{os}/{name}");
            }
        }
    }

    #[test]
    fn annotations_take_no_memory() {
        let annotations: serde_json::Map<_, _> = (0..100_000).map(|n| (format!("k{n}"), json!(n))).collect();
        let amd =
            entry("sha256:1", json!({"os": "linux", "architecture": "amd64"}), &Value::Object(annotations));
        let index = json!({"schemaVersion": 2, "manifests": [amd]}).to_string();
        assert!(
            matches!(Manifest::read(None, &index), Ok(Manifest::Index { platforms, .. }) if platforms.len() == 1)
        );
    }
}
