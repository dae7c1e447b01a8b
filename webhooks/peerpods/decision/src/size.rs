//! The size of a guest, in the units of its annotations.

use std::fmt;

use podshaper_core::quantity::Quantity;

use crate::refusal::Refusal;

/// The size of a guest; zero stands for what isn't known, so that the runtime's own default applies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Virtual CPUs.
    pub vcpus: u64,
    /// Memory in MiB.
    pub memory: u64,
    /// GPUs.
    pub gpus: u64,
}

/// What the guest needs beside its containers, of one dimension.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Headroom {
    /// Nothing.
    #[default]
    None,
    /// So many millicores or bytes.
    Amount(u64),
    /// So many hundredths of what the containers have.
    Percent(u64),
}

const MIB: u64 = 1 << 20;

/// Whole vCPUs for the containers' `cpu`, rounded up after the head-room.
pub(crate) fn vcpus(cpu: Quantity, headroom: Headroom) -> Result<u64, Refusal> {
    let millicores = cpu.milli_value().and_then(|m| headroom.on_top_of(m.try_into().ok()?));
    millicores.map(|m| m.div_ceil(1000)).ok_or(Refusal::TooMuch("cpu"))
}

/// Whole MiB for the containers' `memory`, rounded up after the head-room.
///
/// [`Quantity`] caps at 2⁶³−1 what is larger, so that this value too is too much (as in `RoundUpToMiB` of
/// k8s.io/cloud-provider).
pub(crate) fn mebibytes(memory: Quantity, headroom: Headroom) -> Result<u64, Refusal> {
    let bytes =
        memory.value().filter(|bytes| *bytes < i64::MAX).and_then(|b| headroom.on_top_of(b.try_into().ok()?));
    bytes.map(|b| b.div_ceil(MIB)).ok_or(Refusal::TooMuch("memory"))
}

impl Headroom {
    /// `amount` and what comes on top of it. Nothing comes on top of nothing: that isn't a size.
    fn on_top_of(self, amount: u64) -> Option<u64> {
        let total = match self {
            _ if amount == 0 => 0,
            Self::None => amount,
            Self::Amount(extra) => amount.checked_add(extra)?,
            Self::Percent(percent) => {
                let hundredths = u128::from(amount) * (100 + u128::from(percent));
                hundredths.div_ceil(100).try_into().ok()?
            }
        };
        // Annotations are read as signed numbers.
        i64::try_from(total).is_ok().then_some(total)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (amount, unit) in [(self.vcpus, "vCPUs"), (self.memory, "MiB"), (self.gpus, "GPUs")] {
            if amount > 0 {
                write!(f, "{separator}{amount} {unit}")?;
                separator = ", ";
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantity(text: &str) -> Quantity {
        text.parse().unwrap()
    }

    #[test]
    fn rounding_is_up() {
        for (cpu, expected) in [("0", 0), ("1m", 1), ("1", 1), ("1001m", 2), ("1.0000001", 2), ("100n", 1)] {
            assert_eq!(vcpus(quantity(cpu), Headroom::None).unwrap(), expected, "{cpu}");
        }
        for (memory, expected) in [("0", 0), ("1", 1), ("1Mi", 1), ("1048577", 2), ("4Gi", 4096), ("1G", 954)]
        {
            assert_eq!(mebibytes(quantity(memory), Headroom::None).unwrap(), expected, "{memory}");
        }
    }

    #[test]
    fn head_room_comes_before_rounding() {
        assert_eq!(vcpus(quantity("1500m"), Headroom::Percent(10)).unwrap(), 2);
        assert_eq!(vcpus(quantity("2"), Headroom::Percent(10)).unwrap(), 3);
        assert_eq!(vcpus(quantity("2"), Headroom::Amount(500)).unwrap(), 3);
        assert_eq!(mebibytes(quantity("1Gi"), Headroom::Amount(256 * MIB)).unwrap(), 1280);
        assert_eq!(mebibytes(quantity("0"), Headroom::Amount(256 * MIB)).unwrap(), 0);
    }

    #[test]
    fn too_much_is_told() {
        for memory in ["9223372036854775807", "8Ei", "100E"] {
            assert!(mebibytes(quantity(memory), Headroom::None).is_err(), "{memory}");
        }
        assert!(mebibytes(quantity("7Ei"), Headroom::Percent(100)).is_err());
        assert!(vcpus(quantity("10P"), Headroom::None).is_err());
    }

    #[test]
    fn display() {
        assert_eq!(Size { vcpus: 2, memory: 0, gpus: 1 }.to_string(), "2 vCPUs, 1 GPUs");
    }
}
