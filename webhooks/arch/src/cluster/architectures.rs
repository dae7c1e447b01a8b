//! The architectures of the cluster's nodes, for `architecturesFrom: Cluster`.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use kube::Client;
use podshaper_core::object::FromObject;
use podshaper_kube::discovery::serves;
use podshaper_kube::error::describe;
use podshaper_kube::store::Store;
use podshaper_kube::watch::{WatchScope, reflect, spawn_reflector};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::node_record::NodeRecord;
use arch_decision::config::{Settings, TaintKeys};
use arch_decision::learned::{
    ClusterNode, ClusterObjects, LearnedArchitectures, NodeHistory, NodePool, SettingsSource, learn,
};

/// Changes come in bursts: the architectures are learned again this long after the first.
const DEBOUNCE: Duration = Duration::from_secs(1);
/// The longest time between two rounds: the precision of the time of a last node.
const RESYNC: Duration = Duration::from_hours(1);
/// The time between two attempts to read or write the record.
const RETRY: Duration = Duration::from_mins(1);
/// The time between two searches for the definition of NodePools, which can be installed later.
const DISCOVERY: Duration = Duration::from_mins(5);
/// The longest time that the start waits for NodePools: their definition may have a conversion webhook that is down.
const NODE_POOLS_TIMEOUT: Duration = Duration::from_secs(10);

/// Settings with the architectures of the cluster.
pub(crate) struct ClusterArchitectures {
    current: RwLock<Arc<Settings>>,
    synced: watch::Sender<bool>,
}

/// Learns the architectures of the cluster.
struct Learner {
    settings: Settings,
    keys: TaintKeys,
    nodes: Arc<Store<ClusterNode>>,
    node_pools: Arc<Store<NodePool>>,
    /// Whether the definition of NodePools exists; none until that is known.
    has_node_pools: watch::Receiver<Option<bool>>,
    record: Option<NodeRecord>,
    /// The content of the record; none until it has been read.
    recorded: Option<NodeHistory>,
    history: NodeHistory,
    last: LearnedArchitectures,
}

impl ClusterArchitectures {
    /// Begins to watch nodes, and NodePools if their definition exists. `record` names the ConfigMap of the last nodes.
    ///
    /// Rights: list and watch nodes and nodepools; get and patch the ConfigMap.
    pub(crate) fn start(
        client: &Client,
        settings: &Settings,
        keys: TaintKeys,
        record: Option<&str>,
    ) -> Arc<Self> {
        let own = Arc::new(Self {
            current: RwLock::new(Arc::new(settings.clone())),
            synced: watch::Sender::new(false),
        });
        let (found, has_node_pools) = watch::channel(None);
        let node_pools = Arc::new(Store::default());
        tokio::spawn(follow_node_pools(client.clone(), Arc::clone(&node_pools), found));
        let learner = Learner {
            settings: settings.clone(),
            keys,
            nodes: spawn_reflector(client, WatchScope::default()),
            node_pools,
            has_node_pools,
            record: record.map(|name| NodeRecord::new(client.clone(), name)),
            recorded: None,
            history: NodeHistory::new(),
            last: LearnedArchitectures::default(),
        };
        tokio::spawn(learner.run(Arc::clone(&own)));
        own
    }

    /// Returns when the nodes are known.
    pub(crate) async fn synced(&self) {
        // The sender lives as long as this.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    fn set(&self, settings: Settings) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
        self.synced.send_replace(true);
    }
}

impl SettingsSource for ClusterArchitectures {
    fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn has_synced(&self) -> bool {
        *self.synced.borrow()
    }
}

impl fmt::Debug for ClusterArchitectures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClusterArchitectures").field(&self.settings().table).finish()
    }
}

impl Learner {
    /// Learns for ever.
    async fn run(mut self, architectures: Arc<ClusterArchitectures>) {
        let mut nodes = self.nodes.changes();
        let mut pools = self.node_pools.changes();
        while !self.nodes.has_synced() {
            let _ = nodes.changed().await;
        }
        let _ = timeout(NODE_POOLS_TIMEOUT, self.node_pools_listed()).await;
        loop {
            // Before the stores are read: a change meanwhile starts another round.
            nodes.mark_unchanged();
            pools.mark_unchanged();
            let is_recorded = self.round(&architectures).await;
            let pause = if is_recorded { RESYNC } else { RETRY };
            tokio::select! {
                _ = nodes.changed() => {}
                _ = pools.changed() => {}
                () = sleep(pause) => {}
            }
            sleep(DEBOUNCE).await;
        }
    }

    async fn node_pools_listed(&mut self) {
        let found =
            self.has_node_pools.wait_for(Option::is_some).await.is_ok_and(|found| *found == Some(true));
        let mut changes = self.node_pools.changes();
        while found && !self.node_pools.has_synced() {
            let _ = changes.changed().await;
        }
    }

    /// Learns once. Returns false if the record could not be read or written.
    async fn round(&mut self, architectures: &ClusterArchitectures) -> bool {
        self.read_record().await;
        let objects = ClusterObjects { nodes: self.nodes.all(), node_pools: self.node_pools.all() };
        let learned = learn(&objects, &self.keys, &mut self.history, SystemTime::now());
        if learned != self.last || !architectures.has_synced() {
            for (architecture, own) in learned.iter() {
                let taints: Vec<_> = own.taints.iter().map(ToString::to_string).collect();
                tracing::debug!(architecture, taints = taints.join(","), from = %own, "architecture of the cluster");
            }
            let names: Vec<_> = learned.iter().map(|(name, _)| name).collect();
            if self.names() != names {
                tracing::info!(architectures = names.join(","), "learned the architectures of the cluster");
            }
            architectures.set(self.settings.with_learned(&learned));
            self.last = learned;
        }
        self.write_record().await
    }

    fn names(&self) -> Vec<&str> {
        self.last.iter().map(|(name, _)| name).collect()
    }

    async fn read_record(&mut self) {
        let Some(record) = self.record.as_ref().filter(|_| self.recorded.is_none()) else { return };
        match record.read().await {
            Ok(recorded) => {
                for (name, last) in &recorded {
                    self.history.entry(name.clone()).or_insert_with(|| last.clone());
                }
                self.recorded = Some(recorded);
            }
            Err(error) => {
                tracing::warn!(error = describe(&error), "can't read the record of nodes, trying again");
            }
        }
    }

    async fn write_record(&mut self) -> bool {
        let Some(record) = &self.record else { return true };
        let Some(recorded) = &mut self.recorded else { return false };
        match record.write(recorded, &self.history).await {
            Ok(true) => recorded.clone_from(&self.history),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(error = describe(&error), "can't write the record of nodes, trying again");
                return false;
            }
        }
        true
    }
}

/// Keeps `store` up to date as soon as the definition of NodePools exists; never returns.
async fn follow_node_pools(client: Client, store: Arc<Store<NodePool>>, found: watch::Sender<Option<bool>>) {
    loop {
        let pause = match serves(&client, NodePool::API, NodePool::PLURAL).await {
            Ok(true) => break,
            Ok(false) => {
                found.send_replace(Some(false));
                DISCOVERY
            }
            Err(error) => {
                tracing::warn!(error = describe(&error), "can't discover nodepools, trying again");
                DEBOUNCE
            }
        };
        sleep(pause).await;
    }
    found.send_replace(Some(true));
    reflect(client, WatchScope::default(), store).await;
}

#[cfg(test)]
mod tests {
    use http::{Method, Request};
    use k8s_openapi::jiff::Timestamp;
    use podshaper_testing::MockResponse;
    use serde_json::{Value, json};
    use tokio::sync::mpsc;

    use super::*;

    fn list(items: &Value) -> MockResponse {
        MockResponse::json(200, &json!({"metadata": {"resourceVersion": "1"}, "items": items}))
    }

    fn node(name: &str, architecture: &str) -> Value {
        json!({"metadata": {"name": name, "labels": {"kubernetes.io/arch": architecture}}})
    }

    /// A cluster with an amd64 node, and a record of a node for s390x. It sends the patches of the record.
    fn cluster(node_pools: Option<Value>) -> (Arc<ClusterArchitectures>, mpsc::UnboundedReceiver<Value>) {
        let (patches, written) = mpsc::unbounded_channel();
        let client = podshaper_testing::client(move |request: Request<Value>| {
            let patches = patches.clone();
            let node_pools = node_pools.clone();
            async move {
                let uri = request.uri().to_string();
                if uri.contains("watch=true") {
                    return std::future::pending().await;
                }
                match request.uri().path() {
                    "/api/v1/nodes" => list(&json!([node("a", "amd64")])),
                    "/apis/karpenter.sh/v1" if node_pools.is_some() => MockResponse::json(
                        200,
                        &json!({
                        "kind": "APIResourceList", "groupVersion": "karpenter.sh/v1", "resources": [
                            {"name": "nodepools", "singularName": "", "namespaced": false, "kind": "NodePool", "verbs": ["list"]}]}),
                    ),
                    "/apis/karpenter.sh/v1/nodepools" if node_pools != Some(Value::Null) => {
                        list(&node_pools.unwrap_or_default())
                    }
                    "/api/v1/namespaces/default/configmaps/record" if *request.method() == Method::PATCH => {
                        let _ = patches.send(request.into_body());
                        MockResponse::json(200, &json!({}))
                    }
                    "/api/v1/namespaces/default/configmaps/record" => {
                        let last = json!({"lastNode": format!("{:.0}", Timestamp::now()), "taints": []});
                        MockResponse::json(200, &json!({"data": {"s390x": last.to_string()}}))
                    }
                    "/apis/karpenter.sh/v1" => MockResponse::failure(404, "NotFound"),
                    _ => MockResponse::failure(500, "InternalError"),
                }
            }
        });
        let settings = Settings::from_value(json!({"architecturesFrom": "Cluster"})).unwrap();
        let keys = settings.learned_taint_keys.clone().unwrap();
        (ClusterArchitectures::start(&client, &settings, keys, Some("record")), written)
    }

    async fn learned(architectures: &ClusterArchitectures) -> Vec<String> {
        assert!(!architectures.has_synced());
        architectures.synced().await;
        assert!(architectures.has_synced());
        architectures.settings().table.listed().map(|own| own.architecture.to_string()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn architectures_come_from_nodes_node_pools_and_the_record() {
        let requirement = json!({"key": "kubernetes.io/arch", "operator": "In", "values": ["arm64"]});
        let spec = json!({"template": {"spec": {"requirements": [requirement]}}});
        let (architectures, mut written) =
            cluster(Some(json!([{"metadata": {"name": "arm"}, "spec": spec}])));
        assert_eq!(learned(&architectures).await, ["amd64", "arm64", "s390x"]);
        let patch = written.recv().await.unwrap();
        let keys: Vec<_> = patch["data"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["amd64"], "{patch}");
    }

    #[tokio::test(start_paused = true)]
    async fn cluster_without_karpenter_has_no_node_pools() {
        let (architectures, _written) = cluster(None);
        assert_eq!(learned(&architectures).await, ["amd64", "s390x"]);
    }

    #[tokio::test(start_paused = true)]
    async fn node_pools_that_cannot_be_listed_do_not_prevent_the_start() {
        let (architectures, _written) = cluster(Some(Value::Null));
        assert_eq!(learned(&architectures).await, ["amd64", "s390x"]);
    }
}
