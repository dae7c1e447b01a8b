//! The configuration file: everything that goes beyond the original webhook, and none of it on by default.

use std::collections::BTreeMap;
use std::fmt;

use podshaper::json::Scalar;
use podshaper::quantity::Quantity;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::catalogue::{Catalogue, Machine};
use crate::class::{Class, Mode, RUNTIME_CLASS, UserAnnotations};
use crate::size::{self, Headroom, Size};
use crate::sizing::{Basis, Sizing};
use crate::standing::{CLAIMS, Placeholder, Standing};

/// Settings of all runtime classes, and of single ones. What a class doesn't set, it takes from all.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase", expecting = "settings")]
pub struct Settings {
    mode: Option<Mode>,
    resource: Option<String>,
    sizing: Option<SizingName>,
    basis: Option<Basis>,
    overhead: Option<bool>,
    headroom: Option<PerDimension>,
    fallback: Option<PerDimension>,
    user_annotations: Option<UserAnnotations>,
    gpus: Option<BTreeMap<String, u32>>,
    keep_resources: Option<Vec<String>>,
    placeholders: Option<BTreeMap<String, PlaceholderSettings>>,
    catalogue: Option<Vec<MachineSettings>>,
    runtime_classes: Option<BTreeMap<String, Self>>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
enum SizingName {
    Compat,
    Effective,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "vcpus and memory")]
struct PerDimension {
    vcpus: Option<Amount>,
    memory: Option<Amount>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a request and a limit")]
struct PlaceholderSettings {
    request: Amount,
    limit: Option<Amount>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a machine")]
struct MachineSettings {
    name: String,
    vcpus: u64,
    memory: Amount,
    #[serde(default)]
    gpus: u64,
    price: Option<f64>,
}

/// A quantity, with or without quotes.
#[derive(Clone, Debug)]
struct Amount(String);

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Scalar::deserialize(deserializer)?.0.into_owned()))
    }
}

/// A setting that can't be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct ConfigError {
    key: String,
    problem: String,
}

impl Settings {
    /// Reads what a file holds; null is nothing.
    pub fn from_value(value: Value) -> Result<Self, ConfigError> {
        let settings: Result<Option<Self>, _> = serde_path_to_error::deserialize(value);
        let settings = settings.map_err(|error| Key(error.path().to_string()).error(error.inner()))?;
        Ok(settings.unwrap_or_default())
    }

    /// The runtime classes that these settings name, and those of `names` that they don't; the original's if nobody names one.
    ///
    /// `resource` stands for the VM of a class for which the settings name none.
    pub fn classes<'n>(
        self,
        names: impl IntoIterator<Item = &'n str>,
        resource: &str,
    ) -> Result<Vec<Class>, ConfigError> {
        let mut all = self;
        let mut own = all.runtime_classes.take().unwrap_or_default();
        for name in names {
            own.entry(name.to_owned()).or_default();
        }
        if own.is_empty() {
            own.insert(RUNTIME_CLASS.to_owned(), Self::default());
        }
        let resource = all.resource.take().unwrap_or_else(|| resource.to_owned());
        let top = Key::default();
        // What is wrong for all classes is told where it stands.
        all.clone().class("", resource.clone(), &top)?;
        let classes = own
            .into_iter()
            .map(|(name, settings)| {
                settings.one_of(&all, &name, &resource, &top.then("runtimeClasses").then(&name))
            })
            .collect::<Result<Vec<_>, _>>()?;
        if classes.iter().all(|class| class.sizing == Sizing::Compat) {
            all.only_effective(&top)?;
        }
        Ok(classes)
    }

    /// The class `name`, of which these are the own settings.
    fn one_of(mut self, all: &Self, name: &str, resource: &str, key: &Key) -> Result<Class, ConfigError> {
        if name.is_empty() {
            return Err(key.error("a runtime class has a name"));
        }
        if self.runtime_classes.is_some() {
            return Err(key.then("runtimeClasses").error("belongs to the top of the file"));
        }
        let resource = self.resource.take().unwrap_or_else(|| resource.to_owned());
        let merged = self.clone().or(all);
        let class = merged.class(name, resource, key)?;
        if class.sizing == Sizing::Compat {
            self.only_effective(key)?;
        }
        Ok(class)
    }

    fn only_effective(&self, key: &Key) -> Result<(), ConfigError> {
        let settings = [("basis", self.basis.is_some()), ("overhead", self.overhead.is_some())];
        match settings.into_iter().find(|(_, set)| *set) {
            Some((setting, _)) => Err(key.then(setting).error("needs sizing: effective")),
            None => Ok(()),
        }
    }

    fn or(self, all: &Self) -> Self {
        let all = all.clone();
        Self {
            mode: self.mode.or(all.mode),
            resource: None,
            sizing: self.sizing.or(all.sizing),
            basis: self.basis.or(all.basis),
            overhead: self.overhead.or(all.overhead),
            headroom: self.headroom.or(all.headroom),
            fallback: self.fallback.or(all.fallback),
            user_annotations: self.user_annotations.or(all.user_annotations),
            gpus: self.gpus.or(all.gpus),
            keep_resources: self.keep_resources.or(all.keep_resources),
            placeholders: self.placeholders.or(all.placeholders),
            catalogue: self.catalogue.or(all.catalogue),
            runtime_classes: None,
        }
    }

    fn class(self, name: &str, resource: String, key: &Key) -> Result<Class, ConfigError> {
        let mut class = Class::compatible(name);
        if !is_extended_resource(&resource) {
            return Err(key.then("resource").error(format_args!(
                "{resource:?} is no extended resource; one looks like {}",
                crate::class::VM_RESOURCE
            )));
        }
        class.resource = resource;
        class.mode = self.mode.unwrap_or_default();
        class.user_annotations = self.user_annotations.unwrap_or_default();
        class.sizing = match self.sizing.unwrap_or(SizingName::Compat) {
            SizingName::Effective => Sizing::Effective {
                basis: self.basis.unwrap_or_default(),
                overhead: self.overhead.unwrap_or_default(),
            },
            SizingName::Compat => Sizing::Compat,
        };
        if let Some(headroom) = self.headroom {
            let key = key.then("headroom");
            let vcpus = |amount: Amount| amount.headroom(&key.then("vcpus"), Quantity::milli_value);
            let memory = |amount: Amount| amount.headroom(&key.then("memory"), Quantity::value);
            class.vcpu_headroom = headroom.vcpus.map_or(Ok(Headroom::None), vcpus)?;
            class.memory_headroom = headroom.memory.map_or(Ok(Headroom::None), memory)?;
        }
        if let Some(fallback) = self.fallback {
            let key = key.then("fallback");
            let vcpus = |amount: Amount| amount.vcpus(&key.then("vcpus"));
            let memory = |amount: Amount| amount.mebibytes(&key.then("memory"));
            class.fallback.vcpus = fallback.vcpus.map_or(Ok(0), vcpus)?;
            class.fallback.memory = fallback.memory.map_or(Ok(0), memory)?;
        }
        if let Some(gpus) = self.gpus {
            if let Some(name) = gpus.keys().find(|name| !is_extended_resource(name)) {
                return Err(key.then("gpus").then(name).error("is no extended resource"));
            }
            class.gpus = gpus;
        }
        class.standing = standing(
            self.keep_resources.unwrap_or_default(),
            self.placeholders.unwrap_or_default(),
            &class.resource,
            key,
        )?;
        class.catalogue = catalogue(self.catalogue.unwrap_or_default(), &key.then("catalogue"))?;
        Ok(class)
    }
}

fn standing(
    keep: Vec<String>,
    placeholders: BTreeMap<String, PlaceholderSettings>,
    vm_resource: &str,
    key: &Key,
) -> Result<Standing, ConfigError> {
    let placeholders = placeholders
        .into_iter()
        .map(|(resource, PlaceholderSettings { request, limit })| {
            let key = key.then("placeholders").then(&resource);
            if !matches!(&*resource, "cpu" | "memory" | "ephemeral-storage") {
                return Err(key.error("only cpu, memory and ephemeral-storage can be held by a placeholder"));
            }
            let at_least = request.quantity(&key.then("request"))?;
            let limit_key = key.then("limit");
            let at_most = limit.map(|limit| limit.quantity(&limit_key)).transpose()?;
            if at_most.as_ref().is_some_and(|limit| *limit < at_least) {
                return Err(limit_key.error("is less than the request"));
            }
            Ok(Placeholder {
                resource,
                request: at_least.to_string(),
                limit: at_most.map(|limit| limit.to_string()),
            })
        })
        .collect::<Result<Vec<_>, _>>()?;

    let key = key.then("keepResources");
    for resource in &keep {
        if resource == vm_resource {
            return Err(key.error(format_args!("{resource} is set by the webhook itself")));
        }
        if !resource.contains('/') && !is_native_resource(resource) {
            return Err(key.error(format_args!("{resource:?} is no resource of a container")));
        }
    }
    let keeps = |resource: &str| keep.iter().any(|kept| kept == resource);
    let compute = (keeps("cpu") && keeps("memory"))
        || placeholders.iter().any(|placeholder| matches!(&*placeholder.resource, "cpu" | "memory"));
    match keep.iter().find(|resource| resource.starts_with("hugepages-")) {
        // ValidateContainerResourceRequirements in k8s.io/kubernetes/pkg/apis/core/validation.
        Some(pages) if !compute => Err(key.error(format_args!(
            "a container with {pages} must have cpu or memory too: add a placeholder for one of them, or keep both"
        ))),
        _ => Ok(Standing { keep, placeholders }),
    }
}

fn catalogue(machines: Vec<MachineSettings>, key: &Key) -> Result<Catalogue, ConfigError> {
    let priced = machines.iter().filter(|machine| machine.price.is_some()).count();
    if priced != 0 && priced != machines.len() {
        return Err(key.error("either every machine has a price or none has"));
    }
    let machine = |machine: MachineSettings| {
        let key = key.then(&machine.name);
        let price = machine.price.unwrap_or_default();
        if !price.is_finite() || price < 0.0 {
            return Err(key.then("price").error("must be a number that isn't negative"));
        }
        if machine.name.trim().is_empty() || machine.vcpus == 0 {
            return Err(key.error("a machine has a name and at least one vCPU"));
        }
        let memory = machine.memory.mebibytes(&key.then("memory"))?;
        Ok(Machine {
            name: machine.name,
            size: Size { vcpus: machine.vcpus, memory, gpus: machine.gpus },
            price,
        })
    };
    Ok(Catalogue::new(machines.into_iter().map(machine).collect::<Result<_, _>>()?))
}

impl Amount {
    fn quantity(&self, key: &Key) -> Result<Quantity, ConfigError> {
        let quantity =
            self.0.trim().parse::<Quantity>().map_err(|e| key.error(format_args!("{:?}: {e}", self.0)))?;
        if quantity < Quantity::ZERO { Err(key.error("must not be negative")) } else { Ok(quantity) }
    }

    fn vcpus(&self, key: &Key) -> Result<u64, ConfigError> {
        size::vcpus(self.quantity(key)?, Headroom::None).map_err(|e| key.error(e))
    }

    fn mebibytes(&self, key: &Key) -> Result<u64, ConfigError> {
        size::mebibytes(self.quantity(key)?, Headroom::None).map_err(|e| key.error(e))
    }

    /// `+10%`, or a quantity such as `+256Mi`; the sign may be left out.
    fn headroom(&self, key: &Key, units: impl Fn(&Quantity) -> Option<i64>) -> Result<Headroom, ConfigError> {
        let text = self.0.trim();
        let text = text.strip_prefix('+').unwrap_or(text);
        if let Some(percent) = text.strip_suffix('%') {
            let percent =
                percent.trim().parse::<u32>().map_err(|e| key.error(format_args!("{:?}: {e}", self.0)))?;
            return Ok(Headroom::Percent(percent.into()));
        }
        let units = units(&Self(text.to_owned()).quantity(key)?).and_then(|units| units.try_into().ok());
        units.map(Headroom::Amount).ok_or_else(|| key.error("is too much"))
    }
}

/// `IsExtendedResourceName` of k8s.io/component-helpers, and that the name is well-formed.
fn is_extended_resource(name: &str) -> bool {
    let Some((domain, rest)) = name.split_once('/') else { return false };
    let edge = |c: char| c.is_ascii_alphanumeric();
    let part = |part: &str, max: usize, inner: fn(char) -> bool| {
        !part.is_empty()
            && part.len() <= max
            && part.starts_with(edge)
            && part.ends_with(edge)
            && part.chars().all(inner)
    };
    !domain.ends_with("kubernetes.io")
        && !domain.starts_with("requests.")
        && domain.split('.').all(|label| part(label, 63, |c| matches!(c, 'a'..='z' | '0'..='9' | '-')))
        && part(rest, 63, |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

fn is_native_resource(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage" | CLAIMS) || name.starts_with("hugepages-")
}

/// Where in the file something stands.
#[derive(Default)]
struct Key(String);

impl Key {
    fn then(&self, name: &str) -> Self {
        let dot = if self.0.is_empty() { "" } else { "." };
        Self(format!("{}{dot}{name}", self.0))
    }

    fn error(&self, problem: impl fmt::Display) -> ConfigError {
        ConfigError { key: self.0.clone(), problem: problem.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn classes(settings: Value) -> Result<Vec<Class>, String> {
        let classes = Settings::from_value(settings)
            .and_then(|s| s.classes(["kata-remote"], crate::class::VM_RESOURCE));
        classes.map_err(|e| e.to_string())
    }

    #[test]
    fn nothing_set_is_compatible() {
        assert_eq!(classes(json!({})).unwrap(), [Class::compatible("kata-remote")]);
    }

    #[test]
    fn a_class_takes_from_all_what_it_does_not_set() {
        let classes = classes(json!({
            "sizing": "effective",
            "headroom": {"memory": "+256Mi"},
            "runtimeClasses": {"a": {"sizing": "compat", "resource": "example.com/a"}, "b": {"basis": "limits"}},
        }))
        .unwrap();
        let [a, b, remote] = &classes[..] else { panic!("{classes:?}") };
        assert_eq!((&*a.name, &*a.resource, a.sizing), ("a", "example.com/a", Sizing::Compat));
        assert_eq!(b.sizing, Sizing::Effective { basis: Basis::Limits, overhead: false });
        assert_eq!((&*remote.name, &*remote.resource), ("kata-remote", "kata.peerpods.io/vm"));
        assert!(classes.iter().all(|class| class.memory_headroom == Headroom::Amount(256 << 20)));
    }

    #[test]
    fn head_room() {
        let cases = [
            ("+10%", Headroom::Percent(10)),
            ("1", Headroom::Amount(1000)),
            ("+500m", Headroom::Amount(500)),
        ];
        for (text, expected) in cases {
            let classes = classes(json!({"headroom": {"vcpus": text}})).unwrap();
            assert_eq!(classes[0].vcpu_headroom, expected, "{text}");
        }
    }

    #[test]
    fn errors_name_the_key() {
        let machine = |price: Value| json!({"name": "m", "vcpus": 1, "memory": "1Gi", "price": price});
        for (settings, expected) in [
            (json!({"sizings": "compat"}), "sizings: unknown field `sizings`"),
            (json!({"sizing": "exact"}), "sizing: unknown variant `exact`, expected `compat` or `effective`"),
            (json!({"basis": "limits"}), "basis: needs sizing: effective"),
            (
                json!({"runtimeClasses": {"a": {"overhead": true}}}),
                "runtimeClasses.a.overhead: needs sizing: effective",
            ),
            (
                json!({"runtimeClasses": {"a": {"runtimeClasses": {}}}}),
                "runtimeClasses.a.runtimeClasses: belongs to",
            ),
            (json!({"runtimeClasses": {"": {}}}), "runtimeClasses.: a runtime class has a name"),
            (json!({"resource": "vm"}), "resource: \"vm\" is no extended resource"),
            (json!({"resource": "kubernetes.io/vm"}), "is no extended resource"),
            (json!({"resource": "a_b.io/vm"}), "is no extended resource"),
            (json!({"runtimeClasses": {"a": {"resource": "x/"}}}), "runtimeClasses.a.resource: \"x/\" is no"),
            (json!({"headroom": {"memory": "lots"}}), "headroom.memory: \"lots\": a quantity is"),
            (json!({"headroom": {"vcpus": "-10%"}}), "headroom.vcpus: \"-10%\": invalid digit"),
            (json!({"headroom": {"vcpus": "-1"}}), "headroom.vcpus: must not be negative"),
            (json!({"fallback": {"memory": "9Ei"}}), "fallback.memory: the memory"),
            (json!({"gpus": {"gpu": 1}}), "gpus.gpu: is no extended resource"),
            (json!({"keepResources": ["kata.peerpods.io/vm"]}), "keepResources: kata.peerpods.io/vm is set"),
            (json!({"keepResources": ["storage"]}), "keepResources: \"storage\" is no resource"),
            (
                json!({"keepResources": ["hugepages-2Mi", "cpu"]}),
                "keepResources: a container with hugepages-2Mi",
            ),
            (json!({"placeholders": {"a.b/c": {"request": 1}}}), "placeholders.a.b/c: only cpu"),
            (json!({"placeholders": {"cpu": {"request": 2, "limit": 1}}}), "placeholders.cpu.limit: is less"),
            (json!({"catalogue": [machine(json!(-1))]}), "catalogue.m.price: must be a number"),
            (
                json!({"catalogue": [machine(json!(1)), machine(json!(null))]}),
                "catalogue: either every machine",
            ),
            (
                json!({"catalogue": [{"name": "m", "vcpus": 0, "memory": "1Gi"}]}),
                "catalogue.m: a machine has",
            ),
        ] {
            let error = classes(settings.clone()).unwrap_err();
            assert!(error.contains(expected), "{settings}: {error}");
        }
        for (keep, placeholders) in [
            (json!(["hugepages-2Mi", "cpu", "memory"]), json!({})),
            (json!(["hugepages-1Gi"]), json!({"cpu": {"request": 0.1}})),
        ] {
            classes(json!({"keepResources": keep, "placeholders": placeholders})).unwrap();
        }
    }
}
