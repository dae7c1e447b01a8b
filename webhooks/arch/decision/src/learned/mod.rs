//! Architectures that are learned from the nodes of a cluster and from Karpenter's NodePools (`architecturesFrom: Cluster`).
//!
//! ```text
//! nodes, NodePools ──▶ learn ──▶ architectures, and the taint of each ──▶ Settings::with_learned
//!                        ▲ │
//!                  NodeHistory, for architectures without a node
//! ```

mod node;
mod node_pool;

pub use node::ClusterNode;
pub use node_pool::NodePool;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use podshaper_core::facts::{Fact, FactError};
use podshaper_core::pod;
use serde_json::Value;

use crate::config::{Settings, TaintKeys};
use crate::platform::Architecture;
use crate::table::{ARCH_LABEL, Nodes, Taint};

/// How long an architecture is kept after its last node.
pub const RETENTION: Duration = Duration::from_hours(30 * 24);
/// The names of node pools that a text lists.
const MAX_NAMES: usize = 3;

/// The nodes of an architecture at the time when one last existed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastNodes {
    /// The time.
    pub time: SystemTime,
    /// The taints of all of them.
    pub taints: BTreeSet<Taint>,
}

/// The last nodes of each architecture, by its name.
pub type NodeHistory = BTreeMap<Box<str>, LastNodes>;

/// An architecture, and the sources that it was learned from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LearnedArchitecture {
    /// The taints of its nodes that every pod for it may tolerate.
    pub taints: BTreeSet<Taint>,
    /// The number of its nodes.
    pub nodes: usize,
    /// The name of one of them.
    pub example: Option<Box<str>>,
    /// The names of its NodePools.
    pub node_pools: BTreeSet<Box<str>>,
    /// The time of its last node, if it has none now.
    pub last_node: Option<SystemTime>,
}

/// The learned architectures, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LearnedArchitectures(BTreeMap<Box<str>, LearnedArchitecture>);

/// The objects that architectures are learned from, with their names.
#[derive(Clone, Debug, Default)]
pub struct ClusterObjects {
    /// The Linux nodes.
    pub nodes: Vec<(Box<str>, Arc<ClusterNode>)>,
    /// The NodePools that list architectures.
    pub node_pools: Vec<(Box<str>, Arc<NodePool>)>,
}

impl ClusterObjects {
    /// Takes the nodes and NodePools out of the objects of files.
    ///
    /// # Errors
    /// One of them has another shape.
    pub fn from_facts(objects: &[Value]) -> Result<Self, FactError> {
        let mut own = Self::default();
        for fact in objects.iter().filter_map(Fact::new) {
            if fact.is_kind("", "Node") {
                let node = fact.project::<ClusterNode>()?;
                own.nodes.extend(node.map(|(key, node)| (key.name.into(), Arc::new(node))));
            } else if fact.is_kind("karpenter.sh", "NodePool") {
                let pool = fact.project::<NodePool>()?;
                own.node_pools.extend(pool.map(|(key, pool)| (key.name.into(), Arc::new(pool))));
            }
        }
        Ok(own)
    }
}

/// A source of settings, with the architectures that have been learned so far.
pub trait SettingsSource: Debug + Send + Sync + 'static {
    /// The current settings.
    fn settings(&self) -> Arc<Settings>;

    /// Whether all nodes are known.
    fn has_synced(&self) -> bool;
}

/// Learns the architectures of a cluster. `history` has those without a node, and is updated.
///
/// A taint is learned if its value is the architecture, its key is one of `keys`, and if either every node of the architecture has it or a
/// NodePool lists it in `taints`. A taint in `startupTaints` alone is not permanent.
pub fn learn(
    objects: &ClusterObjects,
    keys: &TaintKeys,
    history: &mut NodeHistory,
    now: SystemTime,
) -> LearnedArchitectures {
    let pools = || objects.node_pools.iter().map(|(_, pool)| pool);
    let permanent: BTreeSet<&Taint> = pools().flat_map(|pool| &pool.taints).collect();
    let startup: BTreeSet<&Taint> =
        pools().flat_map(|pool| &pool.startup_taints).filter(|taint| !permanent.contains(taint)).collect();
    let mut learned: BTreeMap<Box<str>, LearnedArchitecture> = BTreeMap::new();
    for (name, node) in objects.nodes.iter().filter(|(_, node)| node.architecture.is_known()) {
        let taints: BTreeSet<_> = node
            .taints
            .iter()
            .filter(|taint| keys.contains(&taint.key) && !startup.contains(taint))
            .collect();
        let entry = learned.entry(node.architecture.name.clone()).or_insert_with(|| LearnedArchitecture {
            taints: taints.iter().map(|taint| (*taint).clone()).collect(),
            example: Some(name.clone()),
            ..LearnedArchitecture::default()
        });
        entry.taints.retain(|taint| taints.contains(taint));
        entry.nodes += 1;
    }
    for (name, entry) in &learned {
        history.insert(name.clone(), LastNodes { time: now, taints: entry.taints.clone() });
    }
    // The time of a clock that has been set back is in the future.
    history.retain(|_, last| now.duration_since(last.time).is_ok_and(|age| age <= RETENTION));
    for (name, last) in history.iter() {
        learned.entry(name.clone()).or_insert_with(|| LearnedArchitecture {
            taints: last.taints.iter().filter(|taint| keys.contains(&taint.key)).cloned().collect(),
            last_node: Some(last.time),
            ..LearnedArchitecture::default()
        });
    }
    for (pool_name, pool) in &objects.node_pools {
        for &name in &pool.architectures {
            let entry = learned.entry(name.into()).or_default();
            entry.node_pools.insert(pool_name.clone());
            let own = pool.taints.iter().filter(|taint| taint.value == name && keys.contains(&taint.key));
            entry.taints.extend(own.cloned());
        }
    }
    LearnedArchitectures(learned)
}

impl LearnedArchitectures {
    /// Each with its name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &LearnedArchitecture)> {
        self.0.iter().map(|(name, own)| (&**name, own))
    }

    /// The nodes of each.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = Nodes> {
        self.iter().map(|(name, own)| {
            let labels = [(ARCH_LABEL.to_owned(), name.to_owned())].into();
            let architecture = Architecture { name: name.into(), variant: None };
            Nodes::new(architecture, labels, own.taints.iter().cloned().collect())
        })
    }
}

/// The sources, as a person reads them.
impl fmt::Display for LearnedArchitecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        match (self.nodes, self.example.as_deref().unwrap_or_default()) {
            (0, _) => {}
            (1, name) => parts.push(format!("node {name}")),
            (nodes, name) => parts.push(format!("{nodes} nodes, such as {name}")),
        }
        let names: Vec<_> = self.node_pools.iter().take(MAX_NAMES).map(|name| &**name).collect();
        match (names.len(), self.node_pools.len()) {
            (0, _) => {}
            (1, 1) => parts.push(format!("NodePool {}", names.concat())),
            (few, all) if few == all => parts.push(format!("NodePools {}", names.join(", "))),
            (few, all) => parts.push(format!("NodePools {} and {} more", names.join(", "), all - few)),
        }
        if self.last_node.is_some() {
            parts.push("earlier nodes".to_owned());
        }
        f.write_str(&parts.join("; "))
    }
}

/// The taints with the name of an architecture as value.
fn taints_of(architecture: &str, taints: Vec<pod::Taint>) -> impl Iterator<Item = Taint> {
    let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
    let is_own = move |taint: &pod::Taint| taint.value == architecture && effects.contains(&&*taint.effect);
    let taint = |pod::Taint { key, value, effect }| Taint { key, value, effect };
    taints.into_iter().filter(is_own).map(taint)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ARCH: &str = "kubernetes.io/arch";

    fn taint(key: &str, value: &str) -> Value {
        json!({"key": key, "value": value, "effect": "NoSchedule"})
    }

    fn node(name: &str, architecture: &str, taints: &[Value]) -> Value {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {ARCH: architecture}}, "spec": {"taints": taints}})
    }

    fn pool(name: &str, architectures: &[&str], taints: &[Value], startup: &[Value]) -> Value {
        let requirements = json!([{"key": ARCH, "operator": "In", "values": architectures}]);
        let spec = json!({"requirements": requirements, "taints": taints, "startupTaints": startup});
        json!({"apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": name}, "spec": {"template": {"spec": spec}}})
    }

    fn day(day: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_hours(24 * (20_000 + day))
    }

    /// `NAME TAINT,... (SOURCES)` of each.
    fn learned(objects: &[Value], history: &mut NodeHistory, now: SystemTime) -> Vec<String> {
        let objects = ClusterObjects::from_facts(objects).unwrap();
        let learned = learn(&objects, &TaintKeys::default(), history, now);
        let line = |(name, own): (&str, &LearnedArchitecture)| {
            let taints: Vec<_> = own.taints.iter().map(ToString::to_string).collect();
            format!("{name} [{}] ({own})", taints.join(","))
        };
        learned.iter().map(line).collect()
    }

    fn learned_once(objects: &[Value]) -> Vec<String> {
        learned(objects, &mut NodeHistory::new(), day(0))
    }

    #[test]
    fn taint_of_every_node_is_learned() {
        let own = taint(ARCH, "arm64");
        let other = taint("dedicated", "arm64");
        for (nodes, expected) in [
            (
                vec![
                    node("a", "arm64", std::slice::from_ref(&own)),
                    node("b", "arm64", &[own.clone(), other]),
                ],
                "arm64 [kubernetes.io/arch=arm64:NoSchedule] (2 nodes, such as a)",
            ),
            (
                vec![node("a", "arm64", std::slice::from_ref(&own)), node("b", "arm64", &[])],
                "arm64 [] (2 nodes, such as a)",
            ),
            (vec![node("a", "arm64", &[taint(ARCH, "amd64")])], "arm64 [] (node a)"),
            (
                vec![node("a", "arm64", &[taint("node-role.kubernetes.io/control-plane", "arm64")])],
                "arm64 [] (node a)",
            ),
        ] {
            assert_eq!(learned_once(&nodes), [expected]);
        }
    }

    #[test]
    fn node_pool_without_nodes_is_learned() {
        let pools = [
            pool("arm", &["arm64"], &[taint(ARCH, "arm64"), taint("team", "arm64")], &[]),
            pool("any", &["amd64", "arm64"], &[], &[]),
        ];
        assert_eq!(
            learned_once(&pools),
            ["amd64 [] (NodePool any)", "arm64 [kubernetes.io/arch=arm64:NoSchedule] (NodePools any, arm)"]
        );
    }

    #[test]
    fn startup_taint_is_not_learned() {
        let startup = taint(ARCH, "arm64");
        let nodes = node("a", "arm64", std::slice::from_ref(&startup));
        let starting = [nodes.clone(), pool("arm", &["arm64"], &[], std::slice::from_ref(&startup))];
        assert_eq!(learned_once(&starting), ["arm64 [] (node a; NodePool arm)"]);
        let permanent = pool("other", &["arm64"], std::slice::from_ref(&startup), &[]);
        let both = [nodes, starting[1].clone(), permanent];
        assert_eq!(
            learned_once(&both),
            ["arm64 [kubernetes.io/arch=arm64:NoSchedule] (node a; NodePools arm, other)"]
        );
    }

    #[test]
    fn architecture_is_kept_for_thirty_days_after_its_last_node() {
        let mut history = NodeHistory::new();
        let node = node("a", "arm64", &[taint(ARCH, "arm64")]);
        learned(std::slice::from_ref(&node), &mut history, day(0));
        let kept = ["arm64 [kubernetes.io/arch=arm64:NoSchedule] (earlier nodes)"];
        assert_eq!(learned(&[], &mut history, day(30)), kept);
        assert_eq!(history["arm64"].time, day(0));
        let expired = day(30) + Duration::from_secs(1);
        assert_eq!(learned(&[], &mut history.clone(), expired), [""; 0]);
        learned(std::slice::from_ref(&node), &mut history, day(20));
        assert_eq!(learned(&[], &mut history, day(50)), kept);
        assert!(learned(&[], &mut history, day(1)).is_empty(), "a time in the future is invalid");
    }

    #[test]
    fn other_operating_systems_and_unknown_architectures_are_not_learned() {
        let mut windows = node("w", "amd64", &[]);
        windows["metadata"]["labels"]["kubernetes.io/os"] = json!("windows");
        let reported = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "r"},
            "status": {"nodeInfo": {"architecture": "s390x", "operatingSystem": "linux"}}});
        let all = [windows, node("k", "wasm32_wasi", &[]), node("x", "a b", &[]), reported];
        assert_eq!(learned_once(&all), ["s390x [] (node r)"]);
    }

    #[test]
    fn names_of_node_pools_are_few() {
        let pools = ["a", "b", "c", "d", "e"].map(|name| pool(name, &["arm64"], &[], &[]));
        assert_eq!(learned_once(&pools), ["arm64 [] (NodePools a, b, c and 2 more)"]);
    }
}
