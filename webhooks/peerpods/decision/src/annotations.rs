//! The annotations that carry the size of a guest to cloud-api-adaptor.

use std::borrow::Cow;

use podshaper_core::json::{Entries, TextMap};
use podshaper_core::pod::Pod;

use crate::class::{Class, UserAnnotations};
use crate::refusal::Refusal;
use crate::size::Size;

/// Whole virtual CPUs.
pub const VCPUS: &str = "io.katacontainers.config.hypervisor.default_vcpus";
/// Memory in MiB.
pub const MEMORY: &str = "io.katacontainers.config.hypervisor.default_memory";
/// How many GPUs.
pub const GPUS: &str = "io.katacontainers.config.hypervisor.default_gpus";
/// The cloud's name of a machine; it goes before the sizes.
pub const MACHINE_TYPE: &str = "io.katacontainers.config.hypervisor.machine_type";

/// The annotations that a pod ends up with; one that is `None` isn't there.
pub(crate) type Annotations<'d> = Vec<(&'static str, Option<Cow<'d, str>>)>;

/// The author's own values of the annotations that `class` sets.
///
/// An earlier pass has written down which those were, for since then the webhook's stand on the pod.
pub(crate) fn authors_own<'p>(
    class: &Class,
    pod: &'p Pod<'_>,
    remembered: Option<&TextMap<'p>>,
) -> TextMap<'p> {
    let machine = (!class.catalogue.is_empty()).then_some(MACHINE_TYPE);
    let own = [VCPUS, MEMORY, GPUS].into_iter().chain(machine).filter_map(|key| {
        let value = match remembered {
            Some(remembered) => remembered.get(key)?.clone(),
            None => pod.annotation(key)?.into(),
        };
        Some((key.into(), value))
    });
    Entries(own.collect())
}

/// The annotations for a guest of the size `computed`.
pub(crate) fn settle<'d>(
    class: &'d Class,
    own: &'d TextMap<'_>,
    computed: Size,
) -> Result<Annotations<'d>, Refusal> {
    let mut annotations = Vec::with_capacity(4);
    let mut size = |key, computed| {
        let own = own.get(key).map(|own| &**own);
        let (value, number) = settle_one(class.user_annotations, own, computed);
        annotations.push((key, value));
        number
    };
    let size = Size {
        vcpus: size(VCPUS, computed.vcpus),
        memory: size(MEMORY, computed.memory),
        gpus: size(GPUS, computed.gpus),
    };
    if !class.catalogue.is_empty() {
        let machine = match own.get(MACHINE_TYPE) {
            // Who names a machine means it, whatever the sizes.
            Some(own) => Some(&**own),
            None if size == Size::default() => None,
            None => Some(&*class.catalogue.best_fit(size).ok_or(Refusal::NoMachine(size))?.name),
        };
        annotations.push((MACHINE_TYPE, machine.map(Cow::Borrowed)));
    }
    Ok(annotations)
}

/// The value of one annotation, and the number that it says.
fn settle_one(policy: UserAnnotations, own: Option<&str>, computed: u64) -> (Option<Cow<'_, str>>, u64) {
    // As cloud-api-adaptor reads it: what is no number says nothing.
    let said = own.and_then(|own| own.parse().ok()).unwrap_or(0);
    let own_stays = match policy {
        UserAnnotations::Overwrite => computed == 0,
        UserAnnotations::Keep => own.is_some() || computed == 0,
        UserAnnotations::Max => computed <= said,
    };
    if own_stays {
        (own.map(Cow::Borrowed), said)
    } else {
        (Some(Cow::Owned(computed.to_string())), computed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies() {
        use UserAnnotations::{Keep, Max, Overwrite};
        for (policy, own, computed, expected, number) in [
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
            let case = format!("{policy:?} {own:?} {computed}");
            assert_eq!(settle_one(policy, own, computed), (expected.map(Cow::Borrowed), number), "{case}");
        }
    }
}
