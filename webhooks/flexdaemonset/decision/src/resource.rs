//! The three resources that are sized, and their amounts as integers.

use podshaper_core::quantity::{Quantity, QuantityError};
use serde_json::Value;

/// A resource that pods get a share of their node's of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizedResource {
    /// `cpu`, in millicores.
    Cpu,
    /// `memory`, in bytes.
    Memory,
    /// `ephemeral-storage`, in bytes.
    Storage,
}

/// One value for each resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerResource<T> {
    cpu: T,
    memory: T,
    storage: T,
}

/// A request and a limit, in millicores or bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestAndLimit {
    /// The request; as in `SetDefaults_Pod`, it defaults to the limit.
    pub request: Option<i64>,
    /// The limit.
    pub limit: Option<i64>,
}

impl SizedResource {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Cpu, Self::Memory, Self::Storage];

    /// Its name in resource lists.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Storage => "ephemeral-storage",
        }
    }

    /// Parses a quantity as millicores or bytes, rounded up. Amounts beyond 64 bits saturate.
    pub fn parse(self, text: &str) -> Result<i64, QuantityError> {
        let quantity: Quantity = text.parse()?;
        let amount = match self {
            Self::Cpu => quantity.milli_value(),
            Self::Memory | Self::Storage => quantity.value(),
        };
        Ok(amount.unwrap_or(if quantity.sign() < 0 { i64::MIN } else { i64::MAX }))
    }

    /// The same for a quantity in JSON, which may be a number (`Quantity.UnmarshalJSON`).
    pub fn parse_json(self, value: &Value) -> Result<i64, QuantityError> {
        match value {
            Value::String(text) => self.parse(text),
            number => self.parse(&number.to_string()),
        }
    }

    /// Formats millicores or bytes as the API server does.
    pub fn format(self, amount: i64) -> String {
        match self {
            Self::Cpu => Quantity::from_millicores(amount).to_string(),
            Self::Memory | Self::Storage => Quantity::from_bytes(amount).to_string(),
        }
    }

    /// Formats an amount for people: bytes to a tenth of the largest unit that they fill.
    pub fn rounded(self, amount: i64) -> String {
        let units = [(50, "Pi"), (40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")];
        let unit = units.into_iter().find(|(bits, _)| self != Self::Cpu && amount >> bits > 0);
        let Some((bits, unit)) = unit else { return self.format(amount) };
        let tenths = (i128::from(amount) * 10 + (1 << (bits - 1))) >> bits;
        match tenths % 10 {
            0 => format!("{}{unit}", tenths / 10),
            tenth => format!("{}.{tenth}{unit}", tenths / 10),
        }
    }
}

impl<T> PerResource<T> {
    /// The values that `value` returns for each resource.
    pub fn from_fn(mut value: impl FnMut(SizedResource) -> T) -> Self {
        Self {
            cpu: value(SizedResource::Cpu),
            memory: value(SizedResource::Memory),
            storage: value(SizedResource::Storage),
        }
    }

    /// The values that `value` returns for each resource, unless it fails.
    pub fn try_from_fn<E>(mut value: impl FnMut(SizedResource) -> Result<T, E>) -> Result<Self, E> {
        Ok(Self {
            cpu: value(SizedResource::Cpu)?,
            memory: value(SizedResource::Memory)?,
            storage: value(SizedResource::Storage)?,
        })
    }

    /// The value for `resource`.
    pub fn get(&self, resource: SizedResource) -> &T {
        match resource {
            SizedResource::Cpu => &self.cpu,
            SizedResource::Memory => &self.memory,
            SizedResource::Storage => &self.storage,
        }
    }

    /// The value for `resource`, to change.
    pub fn get_mut(&mut self, resource: SizedResource) -> &mut T {
        match resource {
            SizedResource::Cpu => &mut self.cpu,
            SizedResource::Memory => &mut self.memory,
            SizedResource::Storage => &mut self.storage,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_become_whole_amounts_and_back() {
        for (resource, text, amount) in [
            (SizedResource::Cpu, "1", 1000),
            (SizedResource::Cpu, "250m", 250),
            (SizedResource::Cpu, "0.0001", 1),
            (SizedResource::Memory, "1Gi", 1 << 30),
            (SizedResource::Memory, "1500m", 2),
            (SizedResource::Storage, "1e3", 1000),
            (SizedResource::Memory, "100E", i64::MAX),
        ] {
            assert_eq!(resource.parse(text), Ok(amount), "{text}");
        }
        assert!(SizedResource::Cpu.parse("much").is_err());
        assert_eq!(SizedResource::Cpu.format(400), "400m");
        assert_eq!(SizedResource::Memory.format(2_576_980_377), "2576980377");
        assert_eq!(SizedResource::Storage.format(5 << 30), "5Gi");
    }
}
