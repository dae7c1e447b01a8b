//! The configuration file. Each key is optional; without any the webhook behaves as cloud-api-adaptor's does.

#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU64;

use serde::Deserialize;
use serde_json::Value;

use self::values::{Amount, ExtendedResource};
use crate::catalogue::{Catalogue, Machine};
use crate::remaining_resources::{CLAIMS, Placeholder, RemainingResources};
use crate::runtime_class::{DEFAULT_RUNTIME_CLASS, Mode, RuntimeClass, UserAnnotations};
use crate::sizing::{Basis, Headroom, Sizing, SizingRules, VmSize};

/// The settings of all runtime classes, or of one of `runtimeClasses`, which inherits what it doesn't set.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase", expecting = "settings")]
pub struct Config {
    mode: Option<Mode>,
    resource: Option<ExtendedResource>,
    sizing: Option<SizingName>,
    basis: Option<Basis>,
    overhead: Option<bool>,
    headroom: Option<HeadroomConfig>,
    fallback: Option<SizeConfig>,
    floor: Option<SizeConfig>,
    step: Option<StepConfig>,
    user_annotations: Option<UserAnnotations>,
    gpus: Option<BTreeMap<ExtendedResource, u32>>,
    keep_resources: Option<Vec<String>>,
    placeholders: Option<BTreeMap<String, PlaceholderConfig>>,
    catalogue: Option<Vec<MachineConfig>>,
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
struct HeadroomConfig {
    #[serde(deserialize_with = "values::vcpu_headroom")]
    vcpus: Headroom,
    #[serde(deserialize_with = "values::memory_headroom")]
    memory: Headroom,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "vcpus and memory")]
struct SizeConfig {
    #[serde(deserialize_with = "values::whole_vcpus")]
    vcpus: u64,
    #[serde(deserialize_with = "values::mebibytes_of")]
    memory: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "vcpus and memory")]
struct StepConfig {
    #[serde(deserialize_with = "values::step_vcpus")]
    vcpus: u64,
    #[serde(deserialize_with = "values::step_memory")]
    memory: u64,
}

impl From<SizeConfig> for VmSize {
    fn from(SizeConfig { vcpus, memory }: SizeConfig) -> Self {
        Self { vcpus, memory, ..Self::default() }
    }
}

impl From<StepConfig> for VmSize {
    fn from(StepConfig { vcpus, memory }: StepConfig) -> Self {
        Self { vcpus, memory, ..Self::default() }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a request and a limit")]
struct PlaceholderConfig {
    request: Amount,
    limit: Option<Amount>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", expecting = "a machine")]
struct MachineConfig {
    name: String,
    vcpus: NonZeroU64,
    #[serde(deserialize_with = "values::mebibytes_of")]
    memory: u64,
    #[serde(default)]
    gpus: u64,
    #[serde(default)]
    gpu_resources: Vec<ExtendedResource>,
    #[serde(default, deserialize_with = "values::mebibytes_of")]
    disk: u64,
    price: Option<f64>,
}

/// An invalid setting.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct ConfigError {
    key: String,
    problem: String,
}

impl ConfigError {
    fn new(key: impl Into<String>, problem: impl fmt::Display) -> Self {
        Self { key: key.into(), problem: problem.to_string() }
    }

    fn below(self, key: &str) -> Self {
        let separator = if self.key.is_empty() { "" } else { "." };
        Self { key: format!("{key}{separator}{}", self.key), ..self }
    }
}

impl Config {
    /// Parses the content of a file; null is an empty one.
    pub fn from_value(value: Value) -> Result<Self, ConfigError> {
        let config: Result<Option<Self>, _> = serde_path_to_error::deserialize(value);
        let config = config.map_err(|error| ConfigError::new(error.path().to_string(), error.inner()))?;
        Ok(config.unwrap_or_default())
    }

    /// The runtime classes that the file or `names` name; cloud-api-adaptor's if there are none.
    ///
    /// `resource` is the VM's resource of a class for which the file sets none.
    pub(crate) fn into_classes<'n>(
        mut self,
        names: impl IntoIterator<Item = &'n str>,
        resource: &str,
    ) -> Result<Vec<RuntimeClass>, ConfigError> {
        let mut configs = self.runtime_classes.take().unwrap_or_default();
        for name in names {
            configs.entry(name.to_owned()).or_default();
        }
        if configs.is_empty() {
            configs.insert(DEFAULT_RUNTIME_CLASS.to_owned(), Self::default());
        }
        if self.resource.is_none() {
            let resource = ExtendedResource::try_from(resource.to_owned());
            self.resource = Some(resource.map_err(|problem| ConfigError::new("resource", problem))?);
        }
        // An invalid setting of all classes is reported with its own key, not with that of the first class.
        self.clone().into_class("")?;
        let mut classes = Vec::new();
        for (name, config) in configs {
            let class = config.inheriting_class(&self, &name);
            classes.push(class.map_err(|error| error.below(&format!("runtimeClasses.{name}")))?);
        }
        if classes.iter().all(|class| class.sizing.sizing == Sizing::Compat) {
            self.check_sizing_compat()?;
        }
        Ok(classes)
    }

    fn inheriting_class(self, all: &Self, name: &str) -> Result<RuntimeClass, ConfigError> {
        if name.is_empty() {
            return Err(ConfigError::new("", "a runtime class has a name"));
        }
        if self.runtime_classes.is_some() {
            return Err(ConfigError::new("runtimeClasses", "belongs to the top of the file"));
        }
        let class = self.clone().or(all).into_class(name)?;
        if class.sizing.sizing == Sizing::Compat {
            self.check_sizing_compat()?;
        }
        Ok(class)
    }

    /// Rejects settings that only `sizing: effective` uses.
    fn check_sizing_compat(&self) -> Result<(), ConfigError> {
        let needs_effective = |key| Err(ConfigError::new(key, "needs sizing: effective"));
        match self {
            Self { basis: Some(_), .. } => needs_effective("basis"),
            Self { overhead: Some(_), .. } => needs_effective("overhead"),
            _ => Ok(()),
        }
    }

    fn or(self, all: &Self) -> Self {
        let all = all.clone();
        Self {
            mode: self.mode.or(all.mode),
            resource: self.resource.or(all.resource),
            sizing: self.sizing.or(all.sizing),
            basis: self.basis.or(all.basis),
            overhead: self.overhead.or(all.overhead),
            headroom: self.headroom.or(all.headroom),
            fallback: self.fallback.or(all.fallback),
            floor: self.floor.or(all.floor),
            step: self.step.or(all.step),
            user_annotations: self.user_annotations.or(all.user_annotations),
            gpus: self.gpus.or(all.gpus),
            keep_resources: self.keep_resources.or(all.keep_resources),
            placeholders: self.placeholders.or(all.placeholders),
            catalogue: self.catalogue.or(all.catalogue),
            runtime_classes: None,
        }
    }

    fn into_class(self, name: &str) -> Result<RuntimeClass, ConfigError> {
        let mut class = RuntimeClass::compatible(name);
        if let Some(resource) = self.resource {
            class.resource = resource.into_name();
        }
        class.mode = self.mode.unwrap_or_default();
        class.user_annotations = self.user_annotations.unwrap_or_default();
        let headroom = self.headroom.unwrap_or_default();
        let catalogue = catalogue(self.catalogue.unwrap_or_default())?;
        class.sizing = SizingRules {
            sizing: match self.sizing.unwrap_or(SizingName::Compat) {
                SizingName::Compat => Sizing::Compat,
                SizingName::Effective => Sizing::Effective {
                    basis: self.basis.unwrap_or_default(),
                    overhead: self.overhead.unwrap_or_default(),
                },
            },
            vcpu_headroom: headroom.vcpus,
            memory_headroom: headroom.memory,
            fallback: self.fallback.unwrap_or_default().into(),
            floor: self.floor.unwrap_or_default().into(),
            step: self.step.unwrap_or_default().into(),
            gpus: match self.gpus {
                Some(gpus) => gpus.into_iter().map(|(name, each)| (name.into_name(), each)).collect(),
                None => class.sizing.gpus,
            },
            counts_disk: catalogue.as_ref().is_some_and(Catalogue::has_disks),
        };
        class.remaining = RemainingResources {
            keep: keep_resources(self.keep_resources.unwrap_or_default(), &class.resource)?,
            placeholders: placeholders(self.placeholders.unwrap_or_default())?,
        };
        check_hugepages(&class.remaining)?;
        check_gpu_resources(catalogue.as_ref(), &class.sizing.gpus)?;
        class.catalogue = catalogue;
        Ok(class)
    }
}

fn keep_resources(keep: Vec<String>, vm_resource: &str) -> Result<Vec<String>, ConfigError> {
    let invalid = |problem: String| Err(ConfigError::new("keepResources", problem));
    for resource in &keep {
        let is_native = matches!(&**resource, "cpu" | "memory" | "ephemeral-storage" | CLAIMS)
            || resource.starts_with("hugepages-");
        if resource == vm_resource {
            return invalid(format!("{resource} is set by the webhook itself"));
        }
        if !resource.contains('/') && !is_native {
            return invalid(format!("{resource:?} is not a resource of containers"));
        }
    }
    Ok(keep)
}

fn placeholders(placeholders: BTreeMap<String, PlaceholderConfig>) -> Result<Vec<Placeholder>, ConfigError> {
    let mut checked = Vec::new();
    for (resource, PlaceholderConfig { request, limit }) in placeholders {
        let key = format!("placeholders.{resource}");
        if !matches!(&*resource, "cpu" | "memory" | "ephemeral-storage") {
            return Err(ConfigError::new(key, "must be cpu, memory or ephemeral-storage"));
        }
        if limit.as_ref().is_some_and(|limit| limit.quantity() < request.quantity()) {
            return Err(ConfigError::new(format!("{key}.limit"), "is less than the request"));
        }
        let request = request.quantity().to_string();
        let limit = limit.map(|limit| limit.quantity().to_string());
        checked.push(Placeholder { resource, request, limit });
    }
    Ok(checked)
}

/// `ValidateContainerResourceRequirements` of k8s.io/kubernetes/pkg/apis/core/validation: a container with hugepages
/// needs cpu or memory.
fn check_hugepages(remaining: &RemainingResources) -> Result<(), ConfigError> {
    let has_compute = (remaining.keeps("cpu") && remaining.keeps("memory"))
        || remaining.placeholders.iter().any(|one| matches!(&*one.resource, "cpu" | "memory"));
    match remaining.keep.iter().find(|resource| resource.starts_with("hugepages-")) {
        Some(pages) if !has_compute => {
            let problem = format!(
                "a container with {pages} must have cpu or memory too: add a placeholder for one of them, or keep both"
            );
            Err(ConfigError::new("keepResources", problem))
        }
        _ => Ok(()),
    }
}

fn catalogue(machines: Vec<MachineConfig>) -> Result<Option<Catalogue>, ConfigError> {
    let priced = machines.iter().filter(|machine| machine.price.is_some()).count();
    if priced != 0 && priced != machines.len() {
        return Err(ConfigError::new("catalogue", "either every machine has a price or none has"));
    }
    let with_disk = machines.iter().filter(|machine| machine.disk > 0).count();
    if with_disk != 0 && with_disk != machines.len() {
        return Err(ConfigError::new("catalogue", "either every machine has a disk or none has"));
    }
    let mut checked = Vec::new();
    for MachineConfig { name, vcpus, memory, gpus, gpu_resources, disk, price } in machines {
        let key = format!("catalogue.{name}");
        if name.trim().is_empty() {
            return Err(ConfigError::new(key, "a machine has a name"));
        }
        let price = price.unwrap_or_default();
        if !price.is_finite() || price < 0.0 {
            return Err(ConfigError::new(format!("{key}.price"), "must be a number that isn't negative"));
        }
        if gpus == 0 && !gpu_resources.is_empty() {
            return Err(ConfigError::new(format!("{key}.gpuResources"), "the machine has no gpus"));
        }
        let size = VmSize { vcpus: vcpus.get(), memory, gpus, disk };
        let gpu_resources = gpu_resources.into_iter().map(ExtendedResource::into_name).collect();
        checked.push(Machine { name, size, gpu_resources, price });
    }
    Ok((!checked.is_empty()).then(|| Catalogue::new(checked)))
}

/// A machine's GPUs are never requested by a resource that `gpus` lacks.
fn check_gpu_resources(
    catalogue: Option<&Catalogue>,
    gpus: &BTreeMap<String, u32>,
) -> Result<(), ConfigError> {
    let mut machines = catalogue.into_iter().flat_map(Catalogue::machines);
    let unknown = machines.find_map(|machine| {
        let resource = machine.gpu_resources.iter().find(|resource| !gpus.contains_key(*resource))?;
        Some((&machine.name, resource))
    });
    let Some((machine, resource)) = unknown else { return Ok(()) };
    let key = format!("catalogue.{machine}.gpuResources");
    Err(ConfigError::new(key, format!("{resource} is not in gpus, so no pod requests a GPU by it")))
}
