//! The node side: keeps the extended resource on the status of the node that it runs on.
//!
//! A node says how many VMs it can start in `status.capacity`. The kubelet copies that to `status.allocatable`, where
//! the scheduler looks, with its next heartbeat (`MachineInfo` of k8s.io/kubernetes/pkg/kubelet/nodestatus). But one that
//! registers anew may set what no device plugin vouches for to zero (`reconcileExtendedResource`), and a node may be
//! deleted and come again: so it is watched, and told again.

use std::collections::BTreeMap;
use std::error::Error as _;
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

    /// The extended resource that stands for one VM
    #[arg(long, env = "POD_VM_EXTENDED_RESOURCE", value_name = "NAME", default_value = DEFAULT_VM_RESOURCE)]
    resource: String,

    /// How many VMs the node can start; 0 takes the resource off the node, a negative number leaves it alone
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

/// A node, and nothing of it that isn't needed here.
type NodeCapacity = Object<NotUsed, Status>;

/// `v1.NodeStatus`.
#[derive(Clone, Debug, Default, Deserialize)]
struct Status {
    capacity: Option<BTreeMap<String, String>>,
}

impl Advertise {
    /// Keeps the resource on the node until SIGTERM, and leaves it there: running VMs still count.
    pub fn run(self) -> anyhow::Result<()> {
        self.logs.start();
        block_on(async {
            let shutdown = shutdown_signal().context("can't wait for signals")?;
            if self.count < 0 {
                tracing::info!(
                    node = self.node_name,
                    resource = self.resource,
                    "left alone, the count is negative"
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

    /// Watches the node, and sets the count whenever it says another.
    async fn keep(&self, client: Client) -> anyhow::Result<()> {
        let nodes: Api<NodeCapacity> = Api::all_with(client, &ApiResource::erase::<Node>(&()));
        let this = watcher::Config::default().fields(&format!("metadata.name={}", self.node_name));
        let mut events = pin!(watcher::watcher(nodes.clone(), this).default_backoff());
        let mut pace = DefaultBackoff::default();
        let mut seen = false;
        loop {
            match events.try_next().await {
                Ok(Some(Event::InitApply(node) | Event::Apply(node))) => {
                    seen = true;
                    self.settle(&nodes, &node, &mut pace).await;
                }
                Ok(Some(Event::Init)) => seen = false,
                Ok(Some(Event::InitDone)) if !seen => {
                    tracing::warn!(node = self.node_name, "no such node yet");
                }
                Ok(Some(Event::InitDone)) => {}
                Ok(Some(Event::Delete(_))) => tracing::warn!(node = self.node_name, "the node is gone"),
                Ok(None) => bail!("the watch of node {} has ended", self.node_name),
                Err(error) => {
                    let cause = error.source().and_then(|cause| cause.downcast_ref());
                    let error = cause.map_or_else(|| error.to_string(), reason);
                    tracing::warn!(node = self.node_name, error, "can't watch the node, trying again");
                }
            }
        }
    }

    /// Sets the count until the node says it, ever more slowly: the API server may be down, or somebody else may have
    /// another number in mind.
    async fn settle(&self, nodes: &Api<NodeCapacity>, node: &NodeCapacity, pace: &mut DefaultBackoff) {
        let wanted = (self.count > 0).then(|| Quantity::new(self.count, Format::DecimalSi));
        let mut says = self.said_by(node);
        while says != wanted {
            let count = wanted.map(|count| count.to_string());
            let patch = json!({"status": {"capacity": {&self.resource: count}}});
            let set =
                nodes.patch_status(&self.node_name, &PatchParams::default(), &Patch::Merge(patch)).await;
            match set {
                Ok(node) => {
                    let (resource, count) = (&*self.resource, self.count);
                    tracing::info!(node = self.node_name, resource, count, "set the capacity");
                    says = self.said_by(&node);
                }
                Err(kube::Error::Api(status)) if status.is_not_found() => return,
                Err(error) => {
                    let error = reason(&error);
                    tracing::warn!(node = self.node_name, error, "can't set the capacity, trying again");
                }
            }
            tokio::time::sleep(pace.next().unwrap_or_default()).await;
        }
    }

    /// The count on the node's status.
    fn said_by(&self, node: &NodeCapacity) -> Option<Quantity> {
        node.status.as_ref()?.capacity.as_ref()?.get(&self.resource)?.parse().ok()
    }
}

/// What the API server says, without the rest of its status.
fn reason(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
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

    /// The requests of an `advertise` command that runs.
    struct ApiServer {
        server: MockApiServer,
        _keeping: JoinHandle<anyhow::Result<()>>,
    }

    impl ApiServer {
        /// With `advertise` started against it.
        fn with(arguments: &[&str]) -> Self {
            let arguments = ["peerpods", "--node-name=n"].iter().chain(arguments);
            let advertise = Cli::parse_from(arguments).advertise;
            let (client, server) = MockApiServer::start();
            Self { server, _keeping: tokio::spawn(async move { advertise.keep(client).await }) }
        }

        async fn next(&mut self, method: &Method) -> PendingRequest {
            let pending = self.server.next_request().await;
            assert_eq!(pending.request().method(), method, "{}", pending.request().uri());
            pending
        }

        /// Answers the list that is expected now.
        async fn lists(&mut self, nodes: Value) {
            let list = self.next(&Method::GET).await;
            let uri = list.request().uri().to_string();
            assert!(uri.contains("fieldSelector=metadata.name%3Dn"), "{uri}");
            list.answer(200, &json!({"metadata": {"resourceVersion": "1"}, "items": nodes}));
        }

        /// Takes the watch that is expected now; its events are sent through what comes back.
        async fn watched(&mut self) -> Stream {
            let watch = self.next(&Method::GET).await;
            let uri = watch.request().uri().to_string();
            assert!(uri.contains("watch=true"), "{uri}");
            watch.stream()
        }

        /// Answers the patch that is expected now, and tells what it sets the resource to.
        async fn patched(&mut self, status: u16, node: &Value) -> Value {
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
    async fn a_node_is_told_and_told_again() {
        let mut api = ApiServer::with(&["--count=1000"]);
        api.lists(json!([node(&json!({"cpu": "4"}))])).await;
        let told = json!({"kata.peerpods.io/vm": "1k"});
        assert_eq!(api.patched(200, &node(&told)).await, told);

        let watch = api.watched().await;
        watch.send_event("MODIFIED", &node(&told));
        let restarted = node(&json!({"kata.peerpods.io/vm": "0"}));
        watch.send_event("MODIFIED", &restarted);
        assert_eq!(api.patched(200, &node(&told)).await, told, "the kubelet has started again");
        let recreated = node(&json!(null));
        watch.send_event("DELETED", &recreated);
        watch.send_event("ADDED", &recreated);
        assert_eq!(api.patched(200, &node(&told)).await, told, "the node has come again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_is_right_is_left_alone() {
        let mut api = ApiServer::with(&["--resource=example.com/a"]);
        api.lists(json!([node(&json!({"example.com/a": "10"}))])).await;
        api.watched().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_comes_later_is_told() {
        let mut api = ApiServer::with(&["--count=5"]);
        api.lists(json!([])).await;
        let watch = api.watched().await;
        watch.send_event("ADDED", &node(&json!({})));
        let told = json!({"kata.peerpods.io/vm": "5"});
        assert_eq!(api.patched(200, &node(&told)).await, told);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_patch_is_tried_again() {
        let mut api = ApiServer::with(&[]);
        api.lists(json!([node(&json!({}))])).await;
        let told = json!({"kata.peerpods.io/vm": "10"});
        let error = json!({"kind": "Status", "status": "Failure", "reason": "Forbidden", "message": "no", "code": 403});
        assert_eq!(api.patched(403, &error).await, told);
        assert_eq!(api.patched(200, &node(&json!({}))).await, told, "somebody took it off again");
        assert_eq!(api.patched(200, &node(&told)).await, told);
        api.watched().await;
    }

    #[tokio::test(start_paused = true)]
    async fn zero_takes_the_resource_off() {
        let mut api = ApiServer::with(&["--count=0"]);
        api.lists(json!([node(&json!({"kata.peerpods.io/vm": "10"}))])).await;
        assert_eq!(api.patched(200, &node(&json!({}))).await, json!({"kata.peerpods.io/vm": null}));
        api.watched().await;
    }
}
