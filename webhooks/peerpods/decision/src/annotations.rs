//! The annotations that pass the size of a VM to cloud-api-adaptor.

use std::borrow::Cow;

use podshaper_core::json::{Entries, TextMap};
use podshaper_core::pod::Pod;

use crate::deny_reason::DenyReason;
use crate::runtime_class::{RuntimeClass, UserAnnotations};
use crate::sizing::VmSize;

/// Whole virtual CPUs.
pub const VCPUS: &str = "io.katacontainers.config.hypervisor.default_vcpus";
/// Memory in MiB.
pub const MEMORY: &str = "io.katacontainers.config.hypervisor.default_memory";
/// The number of GPUs.
pub const GPUS: &str = "io.katacontainers.config.hypervisor.default_gpus";
/// The cloud's name of a machine type. cloud-api-adaptor prefers it to the sizes.
pub const MACHINE_TYPE: &str = "io.katacontainers.config.hypervisor.machine_type";

/// The values that the pod must have; `None` for an annotation that it must not have.
pub(crate) type SizeAnnotations<'d> = Vec<(&'static str, Option<Cow<'d, str>>)>;

/// The author's values of the annotations that `class` sets.
///
/// `recorded` has them if an earlier pass has replaced the pod's values by the webhook's.
pub(crate) fn author_values<'p>(
    class: &RuntimeClass,
    pod: &'p Pod<'_>,
    recorded: Option<&TextMap<'p>>,
) -> TextMap<'p> {
    let machine_type = class.catalogue.is_some().then_some(MACHINE_TYPE);
    let values = [VCPUS, MEMORY, GPUS].into_iter().chain(machine_type).filter_map(|key| {
        let value = match recorded {
            Some(recorded) => recorded.get(key)?.clone(),
            None => pod.annotation(key)?.into(),
        };
        Some((key.into(), value))
    });
    Entries(values.collect())
}

/// The annotations for a VM of the size `computed`, with GPUs of each of `gpu_resources`.
pub(crate) fn size_annotations<'d>(
    class: &'d RuntimeClass,
    author_values: &'d TextMap<'_>,
    computed: VmSize,
    gpu_resources: &[&str],
) -> Result<SizeAnnotations<'d>, DenyReason> {
    let mut annotations = Vec::with_capacity(4);
    let mut choose = |key, computed| {
        let author = author_values.get(key).map(|value| &**value);
        let (value, number) = choose(class.user_annotations, author, computed);
        annotations.push((key, value));
        number
    };
    let size = VmSize {
        vcpus: choose(VCPUS, computed.vcpus),
        memory: choose(MEMORY, computed.memory),
        gpus: choose(GPUS, computed.gpus),
        disk: computed.disk,
    };
    if let Some(catalogue) = &class.catalogue {
        let machine_type = match author_values.get(MACHINE_TYPE) {
            Some(author) => Some(&**author),
            None if size == VmSize::default() => None,
            None => {
                let machine = catalogue.best_fit(size, gpu_resources);
                let machine = machine.ok_or_else(|| DenyReason::no_machine(size, gpu_resources))?;
                Some(&*machine.name)
            }
        };
        annotations.push((MACHINE_TYPE, machine_type.map(Cow::Borrowed)));
    }
    Ok(annotations)
}

/// The value of one annotation, and the number in it.
fn choose(policy: UserAnnotations, author: Option<&str>, computed: u64) -> (Option<Cow<'_, str>>, u64) {
    // cloud-api-adaptor ignores a value that isn't a number.
    let number = author.and_then(|author| author.parse().ok()).unwrap_or(0);
    let author_wins = match policy {
        UserAnnotations::Overwrite => computed == 0,
        UserAnnotations::Keep => author.is_some() || computed == 0,
        UserAnnotations::Max => computed <= number,
    };
    if author_wins {
        (author.map(Cow::Borrowed), number)
    } else {
        (Some(Cow::Owned(computed.to_string())), computed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_chooses_between_author_and_computed() {
        use UserAnnotations::{Keep, Max, Overwrite};
        for (policy, author, computed, expected, number) in [
            (Overwrite, Some("8"), 3, Some("3"), 3),
            (Overwrite, Some("8"), 0, Some("8"), 8),
            (Overwrite, None, 0, None, 0),
            (Keep, Some("8"), 3, Some("8"), 8),
            (Keep, Some("2"), 3, Some("2"), 2),
            (Keep, None, 3, Some("3"), 3),
            (Keep, Some("x"), 3, Some("x"), 0),
            (Max, Some("8"), 3, Some("8"), 8),
            (Max, Some("2"), 3, Some("3"), 3),
            (Max, Some("x"), 3, Some("3"), 3),
            (Max, Some("x"), 0, Some("x"), 0),
            (Max, None, 0, None, 0),
        ] {
            let case = format!("{policy:?} {author:?} {computed}");
            assert_eq!(choose(policy, author, computed), (expected.map(Cow::Borrowed), number), "{case}");
        }
    }
}
