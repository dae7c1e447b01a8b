//! Warnings about what a guest doesn't get.

use podshaper_core::json::Entries;
use podshaper_core::pod::{ContainerList, ResourceField};

use crate::class::Class;
use crate::demand::{Demand, Member};
use crate::standing::CLAIMS;

/// So many resources are named, and so many containers of each; then they are counted.
const RESOURCES: usize = 8;
const CONTAINERS: usize = 3;

/// A line for each resource that this pass takes away and that no annotation stands for.
///
/// A container that an earlier pass has seen was warned about then.
pub(crate) fn warnings(class: &Class, demand: &Demand<'_>) -> Vec<String> {
    let mut lost = Lost::default();
    for member in demand.members.iter().filter(|member| !member.remembered) {
        for side in [ResourceField::Requests, ResourceField::Limits] {
            for (resource, _) in side.of(&member.asked).into_iter().flat_map(Entries::iter) {
                if !class.counts(resource) && !class.standing.keeps(resource) {
                    lost.note(resource, member);
                }
            }
        }
        if member.asked.claims.as_ref().is_some_and(|c| !c.is_empty()) && !class.standing.keeps(CLAIMS) {
            lost.note(CLAIMS, member);
        }
    }
    let mut lines: Vec<String> = lost.resources.iter().map(Resource::line).collect();
    if lost.more {
        lines.push("not given to the VM: more resources than are named here".into());
    }
    if !demand.remembered {
        lines.extend(pod_level(class, demand));
    }
    lines
}

fn pod_level(class: &Class, demand: &Demand<'_>) -> Option<String> {
    let pod = demand.pod.as_ref().filter(|pod| !pod.is_empty())?;
    if !class.moves_pod_resources() {
        let line = "spec.resources stays and counts on the node: only sizing effective gives it to the VM";
        return Some(line.into());
    }
    let names = [ResourceField::Requests, ResourceField::Limits]
        .into_iter()
        .filter_map(|side| side.of(pod))
        .flat_map(Entries::iter);
    let (first, _) = names.into_iter().find(|(name, _)| !class.counts(name))?;
    Some(format!("not given to the VM: {first} of spec.resources"))
}

#[derive(Default)]
struct Lost<'d> {
    resources: Vec<Resource<'d>>,
    more: bool,
}

struct Resource<'d> {
    name: &'d str,
    containers: Vec<&'d str>,
    more: usize,
    last: (ContainerList, usize),
}

impl<'d> Lost<'d> {
    fn note(&mut self, name: &'d str, member: &'d Member<'_>) {
        let place = (member.list, member.index);
        if let Some(resource) = self.resources.iter_mut().find(|r| r.name == name) {
            if resource.last == place {
                return;
            }
            resource.last = place;
            if resource.containers.len() < CONTAINERS {
                resource.containers.push(member.name);
            } else {
                resource.more += 1;
            }
        } else if self.resources.len() < RESOURCES {
            self.resources.push(Resource { name, containers: vec![member.name], more: 0, last: place });
        } else {
            self.more = true;
        }
    }
}

impl Resource<'_> {
    fn line(&self) -> String {
        let more = if self.more > 0 { format!(" and {} more", self.more) } else { String::new() };
        format!("not given to the VM: {} of {}{more}", self.name, self.containers.join(", "))
    }
}
