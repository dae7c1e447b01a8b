//! `peerpods advertise`: keeps the VM's extended resource in the status of a node.
//!
//! `status.capacity` is set here. The kubelet copies it to `status.allocatable`, which the scheduler reads, with its next
//! heartbeat (`MachineInfo` of k8s.io/kubernetes/pkg/kubelet/nodestatus). A kubelet that restarts sets extended
//! resources without a device plugin to zero (`reconcileExtendedResource`), and a node may be deleted and created
//! again. So the node is watched, and the capacity is set again.

use std::collections::BTreeMap;
use std::pin::pin;

use anyhow::{Context, bail};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, ApiResource, Patch, PatchParams};
use kube::core::{NotUsed, Object};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, DefaultBackoff, Event};
use podshaper_cli::shutdown_signal;
use podshaper_core::quantity::{Format, Quantity};
use podshaper_kube::error::describe;
use podshaper_offline::block_on;
use podshaper_server::LogArgs;
use serde::Deserialize;
use serde_json::json;

use peerpods_decision::runtime_class::DEFAULT_VM_RESOURCE;

/// Keep the extended resource on this node's status
#[derive(Clone, Debug, clap::Args)]
pub struct Advertise {
    /// The node to keep the resource on
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    node_name: String,

    /// The extended resource of a VM
    #[arg(long, env = "POD_VM_EXTENDED_RESOURCE", value_name = "NAME", default_value = DEFAULT_VM_RESOURCE)]
    resource: String,

    /// Number of VMs that the node can start; 0 removes the resource from the node, a negative number changes nothing
    #[arg(
        long,
        env = "PEERPODS_LIMIT_PER_NODE",
        value_name = "N",
        default_value_t = 10,
        allow_negative_numbers = true
    )]
    count: i64,

    #[command(flatten)]
    logs: LogArgs,
}

type NodeCapacity = Object<NotUsed, CapacityStatus>;

/// The part of `v1.NodeStatus` that is read.
#[derive(Clone, Debug, Default, Deserialize)]
struct CapacityStatus {
    capacity: Option<BTreeMap<String, String>>,
}

impl Advertise {
    /// Runs until SIGTERM. The resource stays on the node, because VMs may still run.
    pub fn run(self) -> anyhow::Result<()> {
        self.logs.start();
        block_on(async {
            let shutdown = shutdown_signal().context("can't install signal handlers")?;
            if self.count < 0 {
                tracing::info!(
                    node = self.node_name,
                    resource = self.resource,
                    "the capacity is not changed: the count is negative"
                );
                shutdown.await;
                return Ok(());
            }
            let client = podshaper_kube::client::in_cluster().context("no access to the API server")?;
            tokio::select! {
                kept = self.keep(client) => kept,
                () = shutdown => Ok(()),
            }
        })
    }

    /// Watches the node, and sets the count when the node's status has another.
    async fn keep(&self, client: Client) -> anyhow::Result<()> {
        let nodes: Api<NodeCapacity> = Api::all_with(client, &ApiResource::erase::<Node>(&()));
        let only_this = watcher::Config::default().fields(&format!("metadata.name={}", self.node_name));
        let mut events = pin!(watcher::watcher(nodes.clone(), only_this).default_backoff());
        let mut backoff = DefaultBackoff::default();
        let mut exists = false;
        loop {
            match events.try_next().await {
                Ok(Some(Event::InitApply(node) | Event::Apply(node))) => {
                    exists = true;
                    self.set_count(&nodes, &node, &mut backoff).await;
                }
                Ok(Some(Event::Init)) => exists = false,
                Ok(Some(Event::InitDone)) if !exists => {
                    tracing::warn!(node = self.node_name, "the node doesn't exist yet");
                }
                Ok(Some(Event::InitDone)) => {}
                Ok(Some(Event::Delete(_))) => tracing::warn!(node = self.node_name, "the node was deleted"),
                Ok(None) => bail!("the watch of node {} has ended", self.node_name),
                Err(error) => {
                    let error = describe(&error);
                    tracing::warn!(node = self.node_name, error, "can't watch the node, trying again");
                }
            }
        }
    }

    /// Sets the count until the node's status has it, with a backoff: the API server may be down, or another client may set
    /// another number.
    async fn set_count(&self, nodes: &Api<NodeCapacity>, node: &NodeCapacity, backoff: &mut DefaultBackoff) {
        let wanted = (self.count > 0).then(|| Quantity::new(self.count, Format::DecimalSi));
        let mut current = self.count_of(node);
        while current != wanted {
            let count = wanted.map(|count| count.to_string());
            let patch = json!({"status": {"capacity": {&self.resource: count}}});
            let patched =
                nodes.patch_status(&self.node_name, &PatchParams::default(), &Patch::Merge(patch)).await;
            match patched {
                Ok(node) => {
                    let resource = &*self.resource;
                    let count = self.count;
                    tracing::info!(node = self.node_name, resource, count, "set the capacity");
                    current = self.count_of(&node);
                }
                Err(kube::Error::Api(status)) if status.is_not_found() => return,
                Err(error) => {
                    let error = describe(&error);
                    tracing::warn!(node = self.node_name, error, "can't set the capacity, trying again");
                }
            }
            tokio::time::sleep(backoff.next().unwrap_or_default()).await;
        }
    }

    fn count_of(&self, node: &NodeCapacity) -> Option<Quantity> {
        node.status.as_ref()?.capacity.as_ref()?.get(&self.resource)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use http::Method;
    use podshaper_testing::{MockApiServer, PendingRequest, Stream};
    use serde_json::Value;
    use tokio::task::JoinHandle;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        advertise: Advertise,
    }

    /// The API server of an `advertise` command.
    struct ApiServer {
        server: MockApiServer,
        _command: JoinHandle<anyhow::Result<()>>,
    }

    impl ApiServer {
        /// Starts `advertise` with these arguments.
        fn start(arguments: &[&str]) -> Self {
            let arguments = ["peerpods", "--node-name=n"].iter().chain(arguments);
            let advertise = Cli::parse_from(arguments).advertise;
            let (client, server) = MockApiServer::start();
            Self { server, _command: tokio::spawn(async move { advertise.keep(client).await }) }
        }

        async fn next(&mut self, method: &Method) -> PendingRequest {
            let pending = self.server.next_request().await;
            assert_eq!(pending.request().method(), method, "{}", pending.request().uri());
            pending
        }

        /// Answers the next request, a list.
        async fn list(&mut self, nodes: Value) {
            let list = self.next(&Method::GET).await;
            let uri = list.request().uri().to_string();
            assert!(uri.contains("fieldSelector=metadata.name%3Dn"), "{uri}");
            list.answer(200, &json!({"metadata": {"resourceVersion": "1"}, "items": nodes}));
        }

        /// Returns the stream of the next request, a watch.
        async fn watch(&mut self) -> Stream {
            let watch = self.next(&Method::GET).await;
            let uri = watch.request().uri().to_string();
            assert!(uri.contains("watch=true"), "{uri}");
            watch.stream()
        }

        /// Answers the next request, a patch, and returns the capacity in it.
        async fn patch(&mut self, status: u16, node: &Value) -> Value {
            let patch = self.next(&Method::PATCH).await;
            let request = patch.request();
            assert_eq!(request.uri().path(), "/api/v1/nodes/n/status");
            assert_eq!(request.headers()["content-type"], "application/merge-patch+json");
            let capacity = request.body()["status"]["capacity"].clone();
            patch.answer(status, node);
            capacity
        }
    }

    fn node(capacity: &Value) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "resourceVersion": "1"},
            "spec": {"podCIDR": "10.0.0.0/24"}, "status": {"capacity": capacity, "images": [{"names": ["x"]}]},
        })
    }

    #[tokio::test(start_paused = true)]
    async fn changed_or_recreated_node_is_patched_again() {
        let mut api = ApiServer::start(&["--count=1000"]);
        api.list(json!([node(&json!({"cpu": "4"}))])).await;
        let capacity = json!({"kata.peerpods.io/vm": "1k"});
        assert_eq!(api.patch(200, &node(&capacity)).await, capacity);

        let watch = api.watch().await;
        watch.send_event("MODIFIED", &node(&capacity));
        let restarted = node(&json!({"kata.peerpods.io/vm": "0"}));
        watch.send_event("MODIFIED", &restarted);
        assert_eq!(api.patch(200, &node(&capacity)).await, capacity, "the kubelet has restarted");
        let recreated = node(&json!(null));
        watch.send_event("DELETED", &recreated);
        watch.send_event("ADDED", &recreated);
        assert_eq!(api.patch(200, &node(&capacity)).await, capacity, "the node was recreated");
    }

    #[tokio::test(start_paused = true)]
    async fn node_with_right_count_is_not_patched() {
        let mut api = ApiServer::start(&["--resource=example.com/a"]);
        api.list(json!([node(&json!({"example.com/a": "10"}))])).await;
        api.watch().await;
    }

    #[tokio::test(start_paused = true)]
    async fn node_created_later_is_patched() {
        let mut api = ApiServer::start(&["--count=5"]);
        api.list(json!([])).await;
        let watch = api.watch().await;
        watch.send_event("ADDED", &node(&json!({})));
        let capacity = json!({"kata.peerpods.io/vm": "5"});
        assert_eq!(api.patch(200, &node(&capacity)).await, capacity);
    }

    #[tokio::test(start_paused = true)]
    async fn rejected_patch_is_retried() {
        let mut api = ApiServer::start(&[]);
        api.list(json!([node(&json!({}))])).await;
        let capacity = json!({"kata.peerpods.io/vm": "10"});
        let error = json!({"kind": "Status", "status": "Failure", "reason": "Forbidden", "message": "no", "code": 403});
        assert_eq!(api.patch(403, &error).await, capacity);
        assert_eq!(api.patch(200, &node(&json!({}))).await, capacity, "another client removed it");
        assert_eq!(api.patch(200, &node(&capacity)).await, capacity);
        api.watch().await;
    }

    #[tokio::test(start_paused = true)]
    async fn zero_removes_the_resource() {
        let mut api = ApiServer::start(&["--count=0"]);
        api.list(json!([node(&json!({"kata.peerpods.io/vm": "10"}))])).await;
        assert_eq!(api.patch(200, &node(&json!({}))).await, json!({"kata.peerpods.io/vm": null}));
        api.watch().await;
    }
}
