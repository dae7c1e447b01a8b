//! The configuration file: everything that goes beyond the original webhook, and none of it on by default.

mod amount;
mod key;
mod machines;
mod placeholders;
mod resource;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use podshaper_core::quantity::Quantity;
use serde::Deserialize;
use serde_json::Value;

use self::amount::Amount;
pub use self::key::ConfigError;
use self::key::Key;
use self::machines::MachineSettings;
use self::placeholders::PlaceholderSettings;
use self::resource::is_extended;
use crate::class::{Class, Mode, RUNTIME_CLASS, UserAnnotations};
use crate::size::Headroom;
use crate::sizing::{Basis, Sizing};

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
        if !is_extended(&resource) {
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
            if let Some(name) = gpus.keys().find(|name| !is_extended(name)) {
                return Err(key.then("gpus").then(name).error("is no extended resource"));
            }
            class.gpus = gpus;
        }
        class.standing = placeholders::standing(
            self.keep_resources.unwrap_or_default(),
            self.placeholders.unwrap_or_default(),
            &class.resource,
            key,
        )?;
        class.catalogue = machines::catalogue(self.catalogue.unwrap_or_default(), &key.then("catalogue"))?;
        Ok(class)
    }
}
