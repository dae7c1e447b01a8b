//! A quantity as the file has it, in the units that a class wants.

use podshaper_core::json::Scalar;
use podshaper_core::quantity::Quantity;
use serde::{Deserialize, Deserializer};

use super::key::{ConfigError, Key};
use crate::size;
use crate::size::Headroom;

/// A quantity, with or without quotes.
#[derive(Clone, Debug)]
pub(super) struct Amount(String);

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Scalar::deserialize(deserializer)?.0.into_owned()))
    }
}

impl Amount {
    pub(super) fn quantity(&self, key: &Key) -> Result<Quantity, ConfigError> {
        let quantity =
            self.0.trim().parse::<Quantity>().map_err(|e| key.error(format_args!("{:?}: {e}", self.0)))?;
        if quantity < Quantity::ZERO { Err(key.error("must not be negative")) } else { Ok(quantity) }
    }

    pub(super) fn vcpus(&self, key: &Key) -> Result<u64, ConfigError> {
        size::vcpus(self.quantity(key)?, Headroom::None).map_err(|e| key.error(e))
    }

    pub(super) fn mebibytes(&self, key: &Key) -> Result<u64, ConfigError> {
        size::mebibytes(self.quantity(key)?, Headroom::None).map_err(|e| key.error(e))
    }

    /// `+10%`, or a quantity such as `+256Mi`; the sign may be left out.
    pub(super) fn headroom(
        &self,
        key: &Key,
        units: impl Fn(&Quantity) -> Option<i64>,
    ) -> Result<Headroom, ConfigError> {
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
