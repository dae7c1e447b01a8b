//! The model of two webhooks that place pods of one owner: each keeps a Placement, and each may be down for some time.
//!
//! Every order of pods, outages, watch events and steps of the leaders is explored. Slots within a ledger are the subject of other models.

use std::collections::BTreeSet;

use crate::precedence::{PlacementAge, superseded_by};

/// In the order in which the API server calls them.
const WEBHOOKS: [&str; 2] = ["custom-scheduler-annotations", "distributor"];
const PODS: usize = 3;
/// Outages of a webhook that are explored.
const OUTAGES: u8 = 2;

/// The Placement of a webhook: the second in which it was created.
type Created = Option<u8>;

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct World {
    second: u8,
    placements: [Created; 2],
    /// The Placements that each webhook knows by its watch.
    known: [[Created; 2]; 2],
    down: [bool; 2],
    outages: u8,
    /// The webhook that each pod is labelled for; `None`: no webhook has placed it.
    pods: Vec<Option<usize>>,
}

/// The rule, or none.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    OlderPrecedes,
    None,
}

impl World {
    /// The webhook that this one yields to, by what it knows.
    fn superseded_by(&self, webhook: usize, rule: Rule) -> Option<usize> {
        if rule == Rule::None {
            return None;
        }
        let age = |of: usize| {
            let created = self.known[webhook][of]?;
            Some(PlacementAge { created: format!("{created:02}"), webhook: WEBHOOKS[of].to_owned() })
        };
        let own = age(webhook);
        let other = age(1 - webhook);
        let name = superseded_by(own.as_ref(), other.as_ref())?;
        WEBHOOKS.iter().position(|webhook| *webhook == name)
    }

    /// The controller creates a pod, and the API server calls the webhooks one after the other.
    fn create(&self, rule: Rule) -> Self {
        let mut world = self.clone();
        let places = |webhook: &usize| !self.down[*webhook] && self.superseded_by(*webhook, rule).is_none();
        let placed_by = (0..2).find(places);
        if let Some(webhook) = placed_by {
            // The write that reserves the slot creates the object, or conflicts with it and reads it.
            let created = *world.placements[webhook].get_or_insert(world.second);
            world.known[webhook][webhook] = Some(created);
        }
        world.pods.push(placed_by);
        world
    }

    /// One step of a leader that knows that it yields: a pod is labelled for the other webhook, or the Placement without pods is deleted.
    fn hand_over(&self, webhook: usize, rule: Rule) -> Option<Self> {
        let to = self.superseded_by(webhook, rule).filter(|_| !self.down[webhook])?;
        let mut world = self.clone();
        if let Some(pod) = world.pods.iter_mut().find(|pod| **pod == Some(webhook)) {
            *pod = Some(to);
        } else {
            world.placements[webhook].take()?;
        }
        Some(world)
    }

    /// The leader of a webhook with a Placement labels a pod that no webhook has placed.
    fn take_in(&self, webhook: usize, rule: Rule) -> Option<Self> {
        let takes = !self.down[webhook] && self.superseded_by(webhook, rule).is_none();
        self.known[webhook][webhook].filter(|_| takes)?;
        let mut world = self.clone();
        *world.pods.iter_mut().find(|pod| pod.is_none())? = Some(webhook);
        Some(world)
    }

    /// The worlds after each event that can be next.
    fn successors(&self, rule: Rule) -> Vec<Self> {
        let mut worlds = Vec::new();
        if self.pods.len() < PODS {
            worlds.push(self.create(rule));
            let later = self.second < 2;
            worlds.extend(later.then(|| Self { second: self.second + 1, ..self.clone() }));
        }
        for webhook in 0..2 {
            if self.known[webhook] != self.placements {
                let mut world = self.clone();
                world.known[webhook] = self.placements;
                worlds.push(world);
            }
            if self.down[webhook] || self.outages < OUTAGES {
                let mut world = self.clone();
                world.down[webhook] = !self.down[webhook];
                world.outages += u8::from(world.down[webhook]);
                worlds.push(world);
            }
            worlds.extend(self.hand_over(webhook, rule));
            worlds.extend(self.take_in(webhook, rule));
        }
        worlds
    }

    /// Whether nothing is left to do: both webhooks work, and neither has a step.
    fn is_settled(&self, rule: Rule) -> bool {
        let rests = |webhook: usize| {
            !self.down[webhook]
                && self.known[webhook] == self.placements
                && self.hand_over(webhook, rule).is_none()
                && self.take_in(webhook, rule).is_none()
        };
        self.pods.len() == PODS && rests(0) && rests(1)
    }
}

/// Explores all histories. Returns the number of settled worlds, and those with pods in two ledgers or a ledger beside the one of the pods.
fn explore(rule: Rule) -> (usize, Vec<World>) {
    let start = World::default();
    let mut seen = BTreeSet::from([start.clone()]);
    let mut open = vec![start];
    let mut settled = 0;
    let mut failures = Vec::new();
    while let Some(world) = open.pop() {
        let ledgers: BTreeSet<usize> = world.pods.iter().flatten().copied().collect();
        if world.is_settled(rule) {
            settled += 1;
            let kept = (0..2).filter(|webhook| world.placements[*webhook].is_some()).collect();
            let is_unplaced = world.pods.contains(&None) && !ledgers.is_empty();
            if ledgers.len() > 1 || ledgers != kept || is_unplaced {
                failures.push(world.clone());
            }
        }
        open.extend(world.successors(rule).into_iter().filter(|world| seen.insert(world.clone())));
    }
    (settled, failures)
}

#[test]
fn two_ledgers_end_as_one() {
    let (settled, failures) = explore(Rule::OlderPrecedes);
    assert!(settled > 20, "{settled}");
    assert_eq!(failures, []);
}

#[test]
fn without_precedence_two_ledgers_remain() {
    assert!(!explore(Rule::None).1.is_empty());
}
