//! The range of sizes that the pods of one DaemonSet have, because autoscalers assume one size.
//!
//! Karpenter takes the newest pod of a DaemonSet for every instance type (`getDaemonSetPods` of sigs.k8s.io/karpenter). The cluster
//! autoscaler takes the pod template for a node group without nodes (`GetDaemonSetPodsForNode` of k8s.io/autoscaler).

use crate::resource::{PerResource, SizedResource};

/// The largest size that is not wide, as a multiple of the smallest.
const WIDE_FACTOR: i64 = 2;

/// The remedy for a wide range.
pub const REMEDY: &str =
    "bound the size with minimums and maximums, or use one DaemonSet and template for each class of nodes";

/// The smallest and the largest requests of the pods of one DaemonSet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SizeRange(PerResource<Option<(i64, i64)>>);

impl SizeRange {
    /// Adds the requests of one pod in total.
    pub fn add(&mut self, requests: &PerResource<i64>) {
        for resource in SizedResource::ALL {
            let amount = *requests.get(resource);
            let range = self.0.get_mut(resource);
            *range =
                Some(range.map_or((amount, amount), |(least, most)| (least.min(amount), most.max(amount))));
        }
    }

    /// The smallest and the largest request; `None` without pods.
    pub fn of(&self, resource: SizedResource) -> Option<(i64, i64)> {
        *self.0.get(resource)
    }

    /// Whether the largest request of a resource is more than twice the smallest. An autoscaler then adds nodes that are too small, or
    /// more or larger ones than the pods need.
    pub fn is_wide(&self) -> bool {
        let is_wide = |(least, most): (i64, i64)| most > least.saturating_mul(WIDE_FACTOR);
        SizedResource::ALL.into_iter().filter_map(|resource| self.of(resource)).any(is_wide)
    }

    /// For people: `cpu 100m to 9600m, memory 1Gi`.
    pub fn describe(&self) -> String {
        let describe = |resource: SizedResource| {
            let (least, most) = self.of(resource).filter(|(_, most)| *most > 0)?;
            let name = resource.name();
            let least = resource.rounded(least);
            let most = resource.rounded(most);
            Some(if least == most { format!("{name} {most}") } else { format!("{name} {least} to {most}") })
        };
        let resources: Vec<_> = SizedResource::ALL.into_iter().filter_map(describe).collect();
        if resources.is_empty() { "nothing".to_owned() } else { resources.join(", ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(cpus: &[i64]) -> SizeRange {
        let mut range = SizeRange::default();
        for cpu in cpus {
            range.add(&PerResource::from_fn(|resource| match resource {
                SizedResource::Cpu => *cpu,
                SizedResource::Memory => 1 << 30,
                SizedResource::Storage => 0,
            }));
        }
        range
    }

    #[test]
    fn range_above_twice_the_smallest_is_wide() {
        for (cpus, is_wide) in
            [(&[][..], false), (&[100], false), (&[100, 200], false), (&[201, 100], true), (&[0, 1], true)]
        {
            assert_eq!(range(cpus).is_wide(), is_wide, "{cpus:?}");
        }
        assert_eq!(range(&[9600, 100]).describe(), "cpu 100m to 9600m, memory 1Gi");
        assert_eq!(range(&[]).describe(), "nothing");
    }
}
