//! The configuration file.

mod cloud;
mod hosts;
mod image_rules;
mod learning;
mod mirrors;
mod proxy;
mod registries;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use podshaper_core::duration;
use podshaper_core::label;
use podshaper_core::object::is_name;
use podshaper_core::quantity::Quantity;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_path_to_error::Segment;

pub use cloud::{Cloud, CloudCredentials, EcrHost};
use image_rules::RuleSettings;
pub use image_rules::{ImageRules, Statement};
pub use learning::TaintKeys;
pub use mirrors::{Mirror, MirrorSourcePolicy, MirroredRepository, Mirrors};
pub use proxy::{NoProxy, Proxy};
pub use registries::Registries;

use cloud::CloudItem;
use learning::ArchitecturesFrom;
use registries::RegistriesFile;

use crate::learned::LearnedArchitectures;
use crate::platform::Architecture;
use crate::table::{ARCH_LABEL, Labels, Nodes, Table, Taint};

/// The settings of the webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The architectures of the cluster's nodes.
    pub table: Table,
    /// The taints that are learned; none if architectures are not learned from the cluster.
    pub learned_taint_keys: Option<TaintKeys>,
    /// The treatment of a pod with an image without an answer.
    pub on_unknown: OnUnknown,
    /// The architectures that such an image is assumed to support, with `default-architectures`.
    pub default_architectures: Vec<Architecture>,
    /// The treatment of a pod with images without a common architecture.
    pub on_impossible: OnImpossible,
    /// Architectures that the scheduler is to prefer, best first.
    pub preferred: Vec<Architecture>,
    /// Statements about images, which replace lookups.
    pub images: ImageRules,
    /// Runtime classes of pods that the webhook does not change.
    pub exempt_runtime_classes: BTreeSet<String>,
    /// How long a pod may wait for its images to become known, where the policy is `gate`.
    pub gate_max_age: Duration,
    /// How long one admission may wait for registries.
    pub lookup_timeout: Duration,
    /// The settings of the cache.
    pub cache: CacheSettings,
    /// The settings of registries.
    pub registries: Registries,
    /// Registries of clouds with the identity of the webhook's pod.
    pub cloud_credentials: Vec<CloudCredentials>,
}

/// `onUnknown`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnUnknown {
    /// The images that are known narrow the choice of nodes, and that is all.
    #[default]
    Skip,
    /// The others are taken to run on `defaultArchitectures`.
    DefaultArchitectures,
    /// The pod waits, with a scheduling gate.
    Gate,
    /// It is refused.
    Deny,
}

/// `onImpossible`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnImpossible {
    /// The pod is refused.
    #[default]
    Deny,
    /// It is left as it is, with a warning.
    Leave,
}

/// Size and lifetimes of the cache of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// The lifetime of the answer for a tag, for pods that use an image on the node.
    pub if_not_present: Duration,
    /// The same for pods that always pull. `None`: the digest of the tag is requested for each pod.
    pub pull_always: Option<Duration>,
    /// Largest size of the cache in bytes.
    pub bytes: u64,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase", expecting = "settings")]
struct File {
    #[serde(deserialize_with = "duration::deserialize")]
    if_not_present_cache_time: Duration,
    #[serde(deserialize_with = "duration::deserialize_option")]
    pull_always_cache_time: Option<Duration>,
    #[serde(deserialize_with = "bytes")]
    cache_size: u64,
    architectures: BTreeMap<String, NodeSettings>,
    architectures_from: ArchitecturesFrom,
    learn_taint_keys: Option<Vec<String>>,
    on_unknown: OnUnknown,
    default_architectures: Vec<String>,
    on_impossible: OnImpossible,
    preferred: Vec<String>,
    images: Vec<RuleSettings>,
    exempt_runtime_classes: Vec<String>,
    #[serde(deserialize_with = "duration::deserialize")]
    gate_max_age: Duration,
    #[serde(deserialize_with = "duration::deserialize")]
    lookup_timeout: Duration,
    registries: RegistriesFile,
    cloud_credentials: Vec<CloudItem>,
}

impl Default for File {
    fn default() -> Self {
        Self {
            if_not_present_cache_time: Duration::from_hours(7 * 24),
            pull_always_cache_time: None,
            cache_size: 16 << 20,
            architectures: BTreeMap::new(),
            architectures_from: ArchitecturesFrom::default(),
            learn_taint_keys: None,
            on_unknown: OnUnknown::default(),
            default_architectures: Vec::new(),
            on_impossible: OnImpossible::default(),
            preferred: Vec::new(),
            images: Vec::new(),
            exempt_runtime_classes: Vec::new(),
            gate_max_age: Duration::from_mins(10),
            lookup_timeout: Duration::from_secs(2),
            registries: RegistriesFile::default(),
            cloud_credentials: Vec::new(),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(
    default,
    deny_unknown_fields,
    rename_all = "camelCase",
    expecting = "taintsToTolerate and requireNodeLabels"
)]
struct NodeSettings {
    taints_to_tolerate: Vec<TaintSettings>,
    require_node_labels: Vec<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a taint: key, value and effect")]
struct TaintSettings {
    key: String,
    #[serde(default)]
    value: Option<String>,
    effect: Effect,
}

/// `v1.TaintEffect`.
#[derive(Clone, Copy, Debug, Deserialize)]
enum Effect {
    NoSchedule,
    PreferNoSchedule,
    NoExecute,
}

fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = podshaper_core::json::Scalar::deserialize(deserializer)?;
    let quantity: Quantity =
        text.parse().map_err(|error| serde::de::Error::custom(format_args!("{:?}: {error}", &*text)))?;
    let bytes = quantity.value().and_then(|bytes| u64::try_from(bytes).ok());
    let range = 1 << 20..=4 << 30;
    bytes
        .filter(|bytes| range.contains(bytes))
        .ok_or_else(|| serde::de::Error::custom("takes between 1Mi and 4Gi"))
}

/// An invalid setting and its place.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}", Prefix(path))]
pub struct ConfigError {
    /// The keys that lead there; items of lists by their index.
    pub path: Vec<String>,
    /// The reason.
    pub problem: String,
}

struct Prefix<'p>(&'p [String]);

impl fmt::Display for Prefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "{}: ", self.0.join(".")) }
    }
}

fn wrong(path: &[&str], problem: impl fmt::Display) -> ConfigError {
    ConfigError { path: path.iter().map(|&key| key.to_owned()).collect(), problem: problem.to_string() }
}

impl Default for Settings {
    fn default() -> Self {
        Self::new(&File::default(), Table::default())
    }
}

impl Settings {
    /// Reads what a file holds; null is nothing.
    pub fn from_value(value: Value) -> Result<Self, ConfigError> {
        if value.is_array() {
            return Err(wrong(&[], "invalid type: sequence, expected settings"));
        }
        let file: Result<Option<File>, _> = serde_path_to_error::deserialize(value);
        let mut file = file.map_err(|error| {
            let path = error.path().iter().filter_map(|segment| match segment {
                Segment::Seq { index } => Some(index.to_string()),
                Segment::Map { key } => Some(key.clone()),
                Segment::Enum { .. } | Segment::Unknown => None,
            });
            ConfigError { path: path.collect(), problem: error.inner().to_string() }
        })?;
        let file = file.take().unwrap_or_default();
        file.validated()
    }

    /// The same settings, with the architectures of a cluster.
    #[must_use]
    pub fn with_learned(&self, learned: &LearnedArchitectures) -> Self {
        // Without a node or a NodePool nothing is known, as of a cluster that cannot be read.
        let is_empty = learned.iter().next().is_none();
        let table = if is_empty { self.table.clone() } else { self.table.with_learned(learned.nodes()) };
        Self { table, ..self.clone() }
    }

    fn new(file: &File, table: Table) -> Self {
        Self {
            table,
            learned_taint_keys: None,
            on_unknown: file.on_unknown,
            default_architectures: Vec::new(),
            on_impossible: file.on_impossible,
            preferred: Vec::new(),
            images: ImageRules::default(),
            exempt_runtime_classes: BTreeSet::new(),
            gate_max_age: file.gate_max_age,
            lookup_timeout: file.lookup_timeout,
            cache: CacheSettings {
                if_not_present: file.if_not_present_cache_time,
                pull_always: file.pull_always_cache_time,
                bytes: file.cache_size,
            },
            registries: Registries::default(),
            cloud_credentials: Vec::new(),
        }
    }
}

impl File {
    fn validated(mut self) -> Result<Settings, ConfigError> {
        let table = Table::new(nodes_of(std::mem::take(&mut self.architectures))?);
        let nodes = table.configured();
        let learned_taint_keys = self.architectures_from.taint_keys(self.learn_taint_keys.take())?;
        let may_be_any = nodes.is_empty() || learned_taint_keys.is_some();
        let list = |key: &str, names: Vec<String>| -> Result<Vec<Architecture>, ConfigError> {
            let one = |(index, name): (usize, &String)| {
                let at = index.to_string();
                let architecture: Architecture = name.parse().map_err(|error| wrong(&[key, &at], error))?;
                if names
                    .iter()
                    .take(index)
                    .any(|earlier| earlier.parse().is_ok_and(|own: Architecture| own == architecture))
                {
                    return Err(wrong(&[key, &at], format_args!("{name} is listed twice")));
                }
                if may_be_any || nodes.iter().any(|nodes| nodes.architecture == architecture) {
                    Ok(architecture)
                } else {
                    Err(wrong(&[key, &at], format_args!("{name} isn't among the architectures")))
                }
            };
            names.iter().enumerate().map(one).collect()
        };
        let default_architectures =
            list("defaultArchitectures", std::mem::take(&mut self.default_architectures))?;
        let preferred = list("preferred", std::mem::take(&mut self.preferred))?;
        match (self.on_unknown, default_architectures.is_empty()) {
            (OnUnknown::DefaultArchitectures, true) => {
                return Err(wrong(
                    &["onUnknown"],
                    "default-architectures needs defaultArchitectures: [amd64], for instance",
                ));
            }
            (OnUnknown::Skip | OnUnknown::Gate | OnUnknown::Deny, false) => {
                return Err(wrong(
                    &["defaultArchitectures"],
                    "has no effect without onUnknown: default-architectures",
                ));
            }
            _ => {}
        }
        if self.lookup_timeout.is_zero() || self.lookup_timeout > Duration::from_secs(25) {
            return Err(wrong(&["lookupTimeout"], "takes up to 25s: the API server waits for 30s at most"));
        }
        let registries = std::mem::take(&mut self.registries).validated()?;
        let cloud_credentials =
            CloudItem::validated(std::mem::take(&mut self.cloud_credentials), &registries)?;
        let images = ImageRules::new(std::mem::take(&mut self.images), &table)?;
        let exempt_runtime_classes = runtime_classes(std::mem::take(&mut self.exempt_runtime_classes))?;
        let settings = Settings::new(&self, table);
        Ok(Settings {
            learned_taint_keys,
            default_architectures,
            preferred,
            images,
            exempt_runtime_classes,
            registries,
            cloud_credentials,
            ..settings
        })
    }
}

/// The nodes of each architecture.
fn nodes_of(architectures: BTreeMap<String, NodeSettings>) -> Result<Vec<Nodes>, ConfigError> {
    let mut nodes: Vec<Nodes> = Vec::new();
    for (name, settings) in architectures {
        let own = settings.nodes(&name)?;
        if let Some(twin) = nodes.iter().find(|twin| twin.architecture == own.architecture) {
            return Err(wrong(&["architectures", &name], format_args!("is {} once more", twin.architecture)));
        }
        nodes.push(own);
    }
    Ok(nodes)
}

/// The names of runtime classes, which are names of objects.
fn runtime_classes(names: Vec<String>) -> Result<BTreeSet<String>, ConfigError> {
    let mut all = BTreeSet::new();
    for (index, name) in names.into_iter().enumerate() {
        let at = ["exemptRuntimeClasses", &index.to_string()];
        if !is_name(&name) {
            return Err(wrong(&at, format_args!("{name:?} is no name of a RuntimeClass")));
        }
        if let Some(name) = all.replace(name) {
            return Err(wrong(&at, format_args!("{name} is listed twice")));
        }
    }
    Ok(all)
}

impl NodeSettings {
    fn nodes(self, name: &str) -> Result<Nodes, ConfigError> {
        let at = |rest: &[&str], problem: &dyn fmt::Display| {
            wrong(&[&["architectures", name], rest].concat(), problem)
        };
        let architecture: Architecture = name.parse().map_err(|error| at(&[], &error))?;
        let mut labels = Labels::new();
        for (index, (key, value)) in self
            .require_node_labels
            .into_iter()
            .enumerate()
            .flat_map(|(index, map)| map.into_iter().map(move |entry| (index, entry)))
        {
            let place = index.to_string();
            let place = ["requireNodeLabels", &place, &key];
            if label::check(&key, &value).is_err() {
                return Err(at(&place, &format_args!("{key}: {value:?} is no label that a node could have")));
            }
            if labels.insert(key.clone(), value.clone()).is_some_and(|other| other != value) {
                return Err(at(&place, &"is required to be two things at once"));
            }
        }
        let mut taints = Vec::new();
        for (index, taint) in self.taints_to_tolerate.into_iter().enumerate() {
            let value = taint.value.unwrap_or_default();
            if label::check(&taint.key, &value).is_err() {
                return Err(at(
                    &["taintsToTolerate", &index.to_string()],
                    &"is no taint that a node could have",
                ));
            }
            taints.push(Taint { key: taint.key, value, effect: format!("{:?}", taint.effect) });
        }
        if labels.is_empty() {
            labels.insert(ARCH_LABEL.to_owned(), architecture.name.to_string());
        }
        Ok(Nodes::new(architecture, labels, taints))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_is_the_default() {
        assert_eq!(Settings::from_value(json!(null)).unwrap(), Settings::default());
        assert_eq!(Settings::from_value(json!({})).unwrap(), Settings::default());
        let settings = Settings::default();
        assert_eq!(settings.cache.if_not_present, Duration::from_hours(168));
        assert_eq!((settings.on_unknown, settings.on_impossible), (OnUnknown::Skip, OnImpossible::Deny));
    }

    #[test]
    fn architectures_with_taints_and_labels_parse() {
        let settings = Settings::from_value(json!({
            "ifNotPresentCacheTime": "7d", "pullAlwaysCacheTime": null,
            "architectures": {
                "amd64": {},
                "arm64": {
                    "taintsToTolerate": [{"key": "arch", "value": "arm64", "effect": "NoSchedule"}],
                    "requireNodeLabels": [{"pool": "arm"}, {"kubernetes.io/arch": "arm64"}],
                },
            },
        }));
        let settings = settings.unwrap();
        let [amd64, arm64] = settings.table.configured() else { panic!("{settings:?}") };
        assert_eq!(*amd64.labels(), [("kubernetes.io/arch".to_owned(), "amd64".to_owned())].into());
        assert_eq!(arm64.labels().len(), 2);
        assert_eq!(
            arm64.taints,
            [Taint { key: "arch".into(), value: "arm64".into(), effect: "NoSchedule".into() }]
        );
    }

    #[test]
    fn errors_name_the_place() {
        for (settings, expected) in [
            (json!({"ifNotPresentCacheTme": "7d"}), "ifNotPresentCacheTme: unknown field"),
            (json!({"ifNotPresentCacheTime": "7"}), "ifNotPresentCacheTime: \"7\" is not a duration"),
            (json!({"pullAlwaysCacheTime": "x"}), "pullAlwaysCacheTime: \"x\" is not a duration"),
            (json!({"cacheSize": "1"}), "cacheSize: takes between"),
            (json!({"onUnknown": "guess"}), "onUnknown: unknown variant `guess`, expected one of `skip`"),
            (json!({"onUnknown": "default-architectures"}), "onUnknown: default-architectures needs"),
            (
                json!({"defaultArchitectures": ["amd64"]}),
                "defaultArchitectures: has no effect without onUnknown",
            ),
            (json!({"preferred": ["arm64", "aarch64"]}), "preferred.1: aarch64 is listed twice"),
            (
                json!({"architectures": {"linux/arm64": {}}}),
                "architectures.linux/arm64: \"linux/arm64\" is no",
            ),
            (json!({"architectures": {"ARM": {}}}), "architectures.ARM: \"ARM\" is no architecture"),
            (
                json!({"architectures": {"arm/v6": {}, "armel": {}}}),
                "architectures.armel: is arm/v6 once more",
            ),
            (
                json!({"architectures": {"arm64": {"taintsToTolerate": [{"key": "a", "effect": "Never"}]}}}),
                "architectures.arm64.taintsToTolerate.0.effect: unknown variant `Never`",
            ),
            (
                json!({"architectures": {"arm64": {"taintsToTolerate": [{"key": "a b", "effect": "NoExecute"}]}}}),
                "architectures.arm64.taintsToTolerate.0: is no taint",
            ),
            (
                json!({"architectures": {"arm64": {"requireNodeLabels": [{"a": "1"}, {"a": "2"}]}}}),
                "architectures.arm64.requireNodeLabels.1.a: is required to be two things",
            ),
            (
                json!({"architectures": {"arm64": {"requireNodeLabels": [{"a_/b": "1"}]}}}),
                "requireNodeLabels.0.a_/b: a_/b: \"1\" is no label",
            ),
            (
                json!({"preferred": ["arm64"], "architectures": {"amd64": {}}}),
                "preferred.0: arm64 isn't among",
            ),
            (json!({"lookupTimeout": "1m"}), "lookupTimeout: takes up to 25s"),
            (
                json!({"architecturesFrom": "Nodes"}),
                "architecturesFrom: unknown variant `Nodes`, expected `Settings` or `Cluster`",
            ),
            (json!({"exemptRuntimeClasses": ["a b"]}), "exemptRuntimeClasses.0: \"a b\" is no name"),
            (json!({"exemptRuntimeClasses": ["a", "a"]}), "exemptRuntimeClasses.1: a is listed twice"),
            (
                json!({"images": [{"match": "nginx", "ignore": true}]}),
                "images.0.match: \"nginx\" matches no image",
            ),
            (json!({"images": [{"ignore": true}]}), "images.0: missing field `match`"),
            (
                json!({"registries": {"plainHttp": ["http://x"]}}),
                "registries.plainHttp.0: \"http://x\" is no host",
            ),
            (
                json!({"registries": {"mirrors": {"docker.io": ["mirror"]}}}),
                "registries.mirrors.docker.io.0: \"mirror\" is no URL",
            ),
            (json!({"registries": {"proxy": "proxy:1"}}), "registries.proxy: \"proxy:1\" is no proxy"),
            (json!([]), "invalid type: sequence, expected settings"),
        ] {
            let error = Settings::from_value(settings.clone()).unwrap_err().to_string();
            assert!(error.contains(expected), "{settings}: {error}");
        }
    }
}
