//! How large the VM of a pod must be.

use std::collections::BTreeMap;
use std::fmt;

use podshaper_core::pod::ResourceField;
use podshaper_core::quantity::Quantity;
use serde::Deserialize;

use crate::deny_reason::DenyReason;
use crate::original_requests::OriginalRequests;

/// How the VMs of a runtime class are sized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SizingRules {
    /// How the containers' resources add up.
    pub sizing: Sizing,
    /// Headroom for the guest, in millicores.
    pub vcpu_headroom: Headroom,
    /// Headroom for the guest, in bytes.
    pub memory_headroom: Headroom,
    /// The size for a pod that requests nothing.
    pub fallback: VmSize,
    /// The least size of a VM that has one.
    pub floor: VmSize,
    /// The sizes are multiples of these; zero means any size.
    pub step: VmSize,
    /// GPUs for one unit of an extended resource.
    pub gpus: BTreeMap<String, u32>,
    /// Whether ephemeral-storage counts: the machines of the catalogue have disks.
    pub counts_disk: bool,
}

/// How the containers' resources add up to those of the VM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sizing {
    /// The peer-pods webhook of cloud-api-adaptor: the sum over all containers, init containers included.
    #[default]
    Compat,
    /// Kubernetes' scheduler and quotas: the peak that the pod needs.
    Effective {
        /// Whether requests or limits count.
        basis: Basis,
        /// Whether `spec.overhead` is added.
        overhead: bool,
    },
}

/// Whether a pod's effective requests or limits count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Basis {
    /// The larger one.
    #[default]
    Max,
    /// The requests.
    Requests,
    /// The limits.
    Limits,
}

/// An amount for the guest, beside that of its containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Headroom {
    /// Nothing.
    #[default]
    None,
    /// Millicores or bytes.
    Amount(u64),
    /// Percent of what the containers need.
    Percent(u64),
}

/// The size of a VM, in the units of its annotations. Zero means unknown: the runtime's default applies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VmSize {
    /// Virtual CPUs.
    pub vcpus: u64,
    /// Memory in MiB.
    pub memory: u64,
    /// GPUs.
    pub gpus: u64,
    /// Disk in MiB, if the machines of the catalogue have disks. No annotation passes it on.
    pub disk: u64,
}

const MIB: u64 = 1 << 20;

/// MiB. `MinHypervisorMemory` of kata-containers, which does not apply it to peer pods.
const MIN_GUEST_MEMORY: u64 = 256;

const EPHEMERAL_STORAGE: &str = "ephemeral-storage";

impl SizingRules {
    /// The VM size for these requests.
    pub(crate) fn vm_size(&self, requests: &OriginalRequests<'_>) -> Result<VmSize, DenyReason> {
        let overflow = |resource: &str| DenyReason::Overflow(resource.to_owned());
        let cpu = self.total(requests, "cpu")?;
        let vcpus = vcpus(cpu, self.vcpu_headroom).ok_or_else(|| overflow("cpu"))?;
        let memory = self.total(requests, "memory")?;
        let memory = mebibytes(memory, self.memory_headroom).ok_or_else(|| overflow("memory"))?;
        let mut gpus = 0_i64;
        for (resource, gpus_each) in &self.gpus {
            let devices = self.total(requests, resource)?.value();
            let more = devices.and_then(|devices| devices.checked_mul((*gpus_each).into()));
            gpus = more.and_then(|more| gpus.checked_add(more)).ok_or_else(|| overflow("GPUs"))?;
        }
        let disk = if self.counts_disk { self.total(requests, EPHEMERAL_STORAGE)? } else { Quantity::ZERO };
        let vcpus = if vcpus == 0 { self.fallback.vcpus } else { vcpus };
        let memory = if memory == 0 { self.fallback.memory } else { memory };
        Ok(VmSize {
            vcpus: raised(vcpus, self.floor.vcpus, self.step.vcpus).ok_or_else(|| overflow("cpu"))?,
            memory: raised(memory, self.floor.memory, self.step.memory).ok_or_else(|| overflow("memory"))?,
            gpus: gpus.unsigned_abs(),
            disk: mebibytes(disk, Headroom::None).ok_or_else(|| overflow(EPHEMERAL_STORAGE))?,
        })
    }

    /// The resources by which the pod requests GPUs.
    pub(crate) fn gpu_resources(&self, requests: &OriginalRequests<'_>) -> Result<Vec<&str>, DenyReason> {
        let mut requested = Vec::new();
        for resource in self.gpus.keys() {
            if !self.total(requests, resource)?.is_zero() {
                requested.push(&**resource);
            }
        }
        Ok(requested)
    }

    fn total(&self, requests: &OriginalRequests<'_>, resource: &str) -> Result<Quantity, DenyReason> {
        match self.sizing {
            Sizing::Compat => {
                let requested = requests.sum(ResourceField::Requests, resource)?;
                // cloud-api-adaptor's webhook prefers limits, but ignores them without a request and for GPUs.
                if requested == Quantity::ZERO || self.gpus.contains_key(resource) {
                    return Ok(requested);
                }
                Ok(requested.max(requests.sum(ResourceField::Limits, resource)?))
            }
            Sizing::Effective { basis, overhead } => {
                let effective = |field| requests.effective(field, resource, overhead);
                match basis {
                    Basis::Requests => effective(ResourceField::Requests),
                    Basis::Limits => effective(ResourceField::Limits),
                    Basis::Max => {
                        Ok(effective(ResourceField::Requests)?.max(effective(ResourceField::Limits)?))
                    }
                }
            }
        }
    }

    /// A warning about memory with which a guest may not boot, if no floor prevents it.
    pub(crate) fn small_memory_warning(&self, size: VmSize) -> Option<String> {
        let is_small = (1..MIN_GUEST_MEMORY).contains(&size.memory) && self.floor.memory == 0;
        is_small.then(|| {
            format!(
                "default_memory is {} MiB, and a guest may not boot with less than {MIN_GUEST_MEMORY}: \
                 set floor.memory of the runtime class, if the cloud has VMs of that size",
                size.memory
            )
        })
    }

    /// Whether the VM size accounts for `resource`.
    pub(crate) fn counts(&self, resource: &str) -> bool {
        matches!(resource, "cpu" | "memory")
            || self.gpus.contains_key(resource)
            || (self.counts_disk && resource == EPHEMERAL_STORAGE)
    }
}

/// Whole vCPUs, rounded up after the headroom.
pub(crate) fn vcpus(cpu: Quantity, headroom: Headroom) -> Option<u64> {
    let millicores = headroom.on_top_of(cpu.milli_value()?.try_into().ok()?)?;
    Some(millicores.div_ceil(1000))
}

/// Whole MiB, rounded up after the headroom.
///
/// [`Quantity`] caps larger values at 2⁶³−1. So that value overflows too, as in `RoundUpToMiB` of
/// k8s.io/cloud-provider.
pub(crate) fn mebibytes(memory: Quantity, headroom: Headroom) -> Option<u64> {
    let bytes = memory.value().filter(|bytes| *bytes < i64::MAX)?;
    Some(headroom.on_top_of(bytes.try_into().ok()?)?.div_ceil(MIB))
}

/// `amount` raised to `floor` and to a multiple of `step`, at most 63 bits. Zero stays zero, which is no size.
fn raised(amount: u64, floor: u64, step: u64) -> Option<u64> {
    if amount == 0 {
        return Some(0);
    }
    let raised = amount.max(floor).checked_next_multiple_of(step.max(1))?;
    i64::try_from(raised).is_ok().then_some(raised)
}

impl Headroom {
    /// `amount` with the headroom, at most 63 bits: annotations are read as signed numbers. Zero stays zero, which is
    /// no size.
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
        i64::try_from(total).is_ok().then_some(total)
    }
}

impl fmt::Display for VmSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (amount, unit) in
            [(self.vcpus, "vCPUs"), (self.memory, "MiB"), (self.gpus, "GPUs"), (self.disk, "MiB of disk")]
        {
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
    fn vcpus_and_mebibytes_round_up() {
        for (cpu, expected) in [("0", 0), ("1m", 1), ("1", 1), ("1001m", 2), ("1.0000001", 2), ("100n", 1)] {
            assert_eq!(vcpus(quantity(cpu), Headroom::None), Some(expected), "{cpu}");
        }
        for (memory, expected) in [("0", 0), ("1", 1), ("1Mi", 1), ("1048577", 2), ("4Gi", 4096), ("1G", 954)]
        {
            assert_eq!(mebibytes(quantity(memory), Headroom::None), Some(expected), "{memory}");
        }
    }

    #[test]
    fn headroom_is_added_before_rounding() {
        assert_eq!(vcpus(quantity("1500m"), Headroom::Percent(10)), Some(2));
        assert_eq!(vcpus(quantity("2"), Headroom::Percent(10)), Some(3));
        assert_eq!(vcpus(quantity("2"), Headroom::Amount(500)), Some(3));
        assert_eq!(mebibytes(quantity("1Gi"), Headroom::Amount(256 * MIB)), Some(1280));
        assert_eq!(mebibytes(quantity("0"), Headroom::Amount(256 * MIB)), Some(0));
    }

    #[test]
    fn size_is_raised_to_floor_and_step() {
        for (amount, floor, step, expected) in [
            (64, 0, 0, Some(64)),
            (64, 512, 0, Some(512)),
            (600, 512, 1024, Some(1024)),
            (1024, 512, 1024, Some(1024)),
            (1, 1500, 1024, Some(2048)),
            (0, 512, 1024, Some(0)),
            (i64::MAX as u64, 0, 1024, None),
        ] {
            assert_eq!(raised(amount, floor, step), expected, "{amount} {floor} {step}");
        }
    }

    #[test]
    fn totals_beyond_63_bits_overflow() {
        for memory in ["9223372036854775807", "8Ei", "100E"] {
            assert_eq!(mebibytes(quantity(memory), Headroom::None), None, "{memory}");
        }
        assert_eq!(mebibytes(quantity("7Ei"), Headroom::Percent(100)), None);
        assert_eq!(vcpus(quantity("10P"), Headroom::None), None);
    }

    #[test]
    fn display_leaves_out_zeros() {
        let size = VmSize { vcpus: 2, gpus: 1, disk: 100, ..VmSize::default() };
        assert_eq!(size.to_string(), "2 vCPUs, 1 GPUs, 100 MiB of disk");
    }
}
