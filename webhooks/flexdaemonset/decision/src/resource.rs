//! The three resources that are sized, and their amounts as integers.

use podshaper_core::quantity::{Quantity, QuantityError};

/// A resource that a share of the node can be given of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// `cpu`, counted in millicores.
    Cpu,
    /// `memory`, counted in bytes.
    Memory,
    /// `ephemeral-storage`, counted in bytes.
    Storage,
}

/// One of something for each resource, in the order of [`Resource::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Each<T>(pub [T; 3]);

impl Resource {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Cpu, Self::Memory, Self::Storage];

    /// As resource lists name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Storage => "ephemeral-storage",
        }
    }

    /// Reads a quantity as millicores or bytes, rounded up; amounts beyond 64 bits are as much as fits.
    pub fn read(self, text: &str) -> Result<i64, QuantityError> {
        let quantity: Quantity = text.parse()?;
        let amount = match self {
            Self::Cpu => quantity.milli_value(),
            Self::Memory | Self::Storage => quantity.value(),
        };
        Ok(amount.unwrap_or(if quantity.sign() < 0 { i64::MIN } else { i64::MAX }))
    }

    /// Writes millicores or bytes as the API server would spell them.
    pub fn write(self, amount: i64) -> String {
        match self {
            Self::Cpu => Quantity::from_millicores(amount).to_string(),
            Self::Memory | Self::Storage => Quantity::from_bytes(amount).to_string(),
        }
    }
}

impl<T> Each<T> {
    /// What `make` gives for each resource.
    pub fn of(make: impl FnMut(Resource) -> T) -> Self {
        Self(Resource::ALL.map(make))
    }

    /// That of one resource.
    pub fn get(&self, resource: Resource) -> &T {
        let Self([cpu, memory, storage]) = self;
        match resource {
            Resource::Cpu => cpu,
            Resource::Memory => memory,
            Resource::Storage => storage,
        }
    }

    /// That of one resource, to change.
    pub fn get_mut(&mut self, resource: Resource) -> &mut T {
        let Self([cpu, memory, storage]) = self;
        match resource {
            Resource::Cpu => cpu,
            Resource::Memory => memory,
            Resource::Storage => storage,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        for (resource, text, amount) in [
            (Resource::Cpu, "1", 1000),
            (Resource::Cpu, "250m", 250),
            (Resource::Cpu, "0.0001", 1),
            (Resource::Memory, "1Gi", 1 << 30),
            (Resource::Memory, "1500m", 2),
            (Resource::Storage, "1e3", 1000),
            (Resource::Memory, "100E", i64::MAX),
        ] {
            assert_eq!(resource.read(text), Ok(amount), "{text}");
        }
        assert!(Resource::Cpu.read("much").is_err());
        assert_eq!(Resource::Cpu.write(400), "400m");
        assert_eq!(Resource::Memory.write(2_576_980_377), "2576980377");
        assert_eq!(Resource::Storage.write(5 << 30), "5Gi");
    }
}
