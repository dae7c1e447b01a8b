//! Which pods are evicted so that new ones take the places that they keep from others.

use podshaper_placement::allocator::SlotAllocator;
use podshaper_placement::policy::GroupSet;

use podshaper_placement::spread::Spread;

/// A pod that is placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed<'p> {
    /// Its name.
    pub name: &'p str,
    /// Its slot.
    pub slot: u32,
    /// Its group's index.
    pub group: usize,
}

/// The pods whose going lets as many others into the groups of `behind`, those first that stand in for other groups, then the
/// highest. Each belongs to a group that has too many.
pub fn surplus<'p>(
    mut pods: Vec<Placed<'p>>,
    spread: &Spread,
    allocator: &SlotAllocator,
    behind: GroupSet,
) -> Vec<&'p str> {
    let missing = |(index, tally): (usize, &podshaper_placement::spread::GroupSpread)| {
        if behind.contains(index) { tally.desired.saturating_sub(tally.actual) } else { 0 }
    };
    let wanted: u32 = spread.groups.iter().enumerate().map(missing).sum();
    let mut left: Vec<u32> =
        spread.groups.iter().map(|tally| tally.actual.saturating_sub(tally.desired)).collect();
    pods.sort_by_key(|pod| (allocator.group_of(pod.slot) == Some(pod.group), std::cmp::Reverse(pod.slot)));
    pods.retain(|pod| match left.get_mut(pod.group) {
        Some(left) if *left > 0 => {
            *left -= 1;
            true
        }
        _ => false,
    });
    pods.into_iter().take(wanted as usize).map(|pod| pod.name).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use podshaper_placement::policy::{Group, Policy, Tie};

    use super::*;

    #[test]
    fn those_that_stand_in_go_first_and_no_more_than_need_be() {
        let group = |(name, weight): (&str, u32)| Group {
            name: name.into(),
            node_labels: BTreeMap::from([("type".to_owned(), name.to_owned())]),
            weight,
            ..Group::default()
        };
        let policy = Policy::new([("default", 80), ("spot", 20)].map(group).into(), Tie::First).unwrap();
        let allocator = SlotAllocator::new(policy);
        // Ten pods, all of them on default nodes: slots 2 and 7 are spot's.
        let names: Vec<String> = (0..10).map(|slot| format!("pod-{slot}")).collect();
        let pods: Vec<_> = (0..10).zip(&names).map(|(slot, name)| Placed { name, slot, group: 0 }).collect();
        let of =
            |groups: &[&'static str]| groups.iter().map(|group| (Some(*group), true)).collect::<Vec<_>>();
        let spread = Spread::of(of(&["default"; 10]), &allocator);
        let all = allocator.policy().all();
        assert_eq!(surplus(pods.clone(), &spread, &allocator, all), ["pod-7", "pod-2"]);
        assert_eq!(surplus(pods.clone(), &spread, &allocator, [0].into_iter().collect()), [""; 0]);
        // One too many, which has a place of its own group.
        let mut nine = pods[..9].to_vec();
        nine[2].group = 1;
        nine[7].group = 1;
        nine.push(Placed { name: "new", slot: 10, group: 1 });
        let mut groups = ["default"; 10];
        (groups[2], groups[7], groups[9]) = ("spot", "spot", "spot");
        let spread = Spread::of(of(&groups), &allocator);
        assert_eq!(surplus(nine, &spread, &allocator, all), ["new"]);
    }
}
