//! The values of the configuration file, validated as they are deserialized: so an error names the value's key.

use podshaper_core::json::Scalar;
use podshaper_core::quantity::Quantity;
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use crate::sizing::{Headroom, mebibytes, vcpus};

/// A quantity that isn't negative, with or without quotes.
#[derive(Clone, Debug)]
pub(super) struct Amount(Quantity);

/// The name of an extended resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct ExtendedResource(String);

impl Amount {
    pub(super) fn quantity(&self) -> &Quantity {
        &self.0
    }

    fn parse(text: &str) -> Result<Self, String> {
        let quantity = text.trim().parse::<Quantity>().map_err(|error| format!("{text:?}: {error}"))?;
        if quantity < Quantity::ZERO { Err("must not be negative".into()) } else { Ok(Self(quantity)) }
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&Scalar::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

const TOO_LARGE: &str = "is too large";

/// Whole vCPUs.
pub(super) fn whole_vcpus<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let Amount(cpu) = Amount::deserialize(deserializer)?;
    vcpus(cpu, Headroom::None).ok_or_else(|| D::Error::custom(TOO_LARGE))
}

/// Whole MiB.
pub(super) fn mebibytes_of<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let Amount(memory) = Amount::deserialize(deserializer)?;
    mebibytes(memory, Headroom::None).ok_or_else(|| D::Error::custom(TOO_LARGE))
}

/// Whole vCPUs, at least one.
pub(super) fn step_vcpus<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    whole_vcpus(deserializer).and_then(at_least_one)
}

/// Whole MiB, at least one.
pub(super) fn step_memory<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    mebibytes_of(deserializer).and_then(at_least_one)
}

fn at_least_one<E: Error>(step: u64) -> Result<u64, E> {
    if step == 0 { Err(E::custom("must not be zero")) } else { Ok(step) }
}

/// Percent or millicores.
pub(super) fn vcpu_headroom<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Headroom, D::Error> {
    headroom(&Scalar::deserialize(deserializer)?, Quantity::milli_value).map_err(D::Error::custom)
}

/// Percent or bytes.
pub(super) fn memory_headroom<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Headroom, D::Error> {
    headroom(&Scalar::deserialize(deserializer)?, Quantity::value).map_err(D::Error::custom)
}

/// `+10%`, or a quantity such as `+256Mi`; the sign is optional.
fn headroom(text: &str, in_units: impl Fn(&Quantity) -> Option<i64>) -> Result<Headroom, String> {
    let unsigned = text.trim();
    let unsigned = unsigned.strip_prefix('+').unwrap_or(unsigned);
    if let Some(percent) = unsigned.strip_suffix('%') {
        let percent = percent.trim().parse::<u32>().map_err(|error| format!("{text:?}: {error}"))?;
        return Ok(Headroom::Percent(percent.into()));
    }
    let amount = in_units(Amount::parse(unsigned)?.quantity()).and_then(|units| units.try_into().ok());
    amount.map(Headroom::Amount).ok_or_else(|| TOO_LARGE.to_owned())
}

impl ExtendedResource {
    pub(super) fn into_name(self) -> String {
        self.0
    }
}

impl TryFrom<String> for ExtendedResource {
    type Error = String;

    /// `IsExtendedResourceName` of k8s.io/component-helpers, for a well-formed name.
    fn try_from(name: String) -> Result<Self, String> {
        let is_extended = name.split_once('/').is_some_and(|(domain, resource)| {
            let label = |label: &str| is_label(label, |c| matches!(c, 'a'..='z' | '0'..='9' | '-'));
            !domain.ends_with("kubernetes.io")
                && !domain.starts_with("requests.")
                && domain.split('.').all(label)
                && is_label(resource, |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        });
        if is_extended {
            Ok(Self(name))
        } else {
            Err(format!("{name:?} is not the name of an extended resource, such as example.com/gpu"))
        }
    }
}

fn is_label(text: &str, may_contain: fn(char) -> bool) -> bool {
    let at_an_end = |c: char| c.is_ascii_alphanumeric();
    (1..=63).contains(&text.len())
        && text.starts_with(at_an_end)
        && text.ends_with(at_an_end)
        && text.chars().all(may_contain)
}
