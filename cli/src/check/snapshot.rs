//! The objects of the cluster that the checks read.

use std::collections::{BTreeMap, BTreeSet};

use kube::Client;
use podshaper_kube::error::describe;
use podshaper_kube::request::{MediaType, get, send, with_query};
use serde_json::{Value, json};

use super::owners::{self, OwnerKind};
use super::webhook::{Service, service};

/// The label of every object of the chart.
const PART_OF: &str = "app.kubernetes.io/part-of=podshaper";

/// The result of reading.
#[derive(Clone, Debug)]
pub(super) enum Read<T> {
    /// The objects, which may be none.
    Found(T),
    /// The user may not read them, or the API server could not return them; with the reason.
    Hidden(String),
}

impl<T> Read<Vec<T>> {
    /// The objects, or none if they could not be read.
    pub(super) fn found(&self) -> &[T] {
        match self {
            Self::Found(objects) => objects,
            Self::Hidden(_) => &[],
        }
    }
}

/// The objects of a cluster that the checks read.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// `/version`.
    pub version: Value,
    /// `MutatingWebhookConfiguration`s of the chart.
    pub webhooks: Read<Vec<Value>>,
    /// `Service`s, `Deployment`s, `EndpointSlice`s, `NetworkPolicy`s and `Secret`s, each of the releases' namespaces.
    pub services: Read<Vec<Value>>,
    pub deployments: Read<Vec<Value>>,
    pub endpoint_slices: Read<Vec<Value>>,
    pub network_policies: Read<Vec<Value>>,
    /// Secrets that the Deployments name, by `NAMESPACE/NAME`.
    pub secrets: BTreeMap<String, Read<Option<Value>>>,
    /// `CustomResourceDefinition`s by name.
    pub definitions: BTreeMap<String, Read<Option<Value>>>,
    /// `PodDistributor`s and `FlexDaemonsetTemplate`s.
    pub distributors: Read<Vec<Value>>,
    pub templates: Read<Vec<Value>>,
    /// Whether a service account may read a kind of owners.
    pub owners: Vec<(OwnerKind, Read<bool>)>,
    /// The answer of each webhook, by the name of its configuration.
    pub answers: BTreeMap<String, Read<Result<(), String>>>,
}

impl Snapshot {
    /// Reads the objects.
    ///
    /// # Errors
    /// The API server cannot be reached, or refuses the user.
    pub(super) async fn read(client: &Client) -> anyhow::Result<Self> {
        let version: Option<Value> = get(client, "/version")
            .await
            .map_err(|error| anyhow::anyhow!("the API server cannot be reached: {}", describe(&error)))?;
        let configurations = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
        let webhooks = list(client, &with_query(configurations, [("labelSelector", PART_OF)])).await;
        let services: Vec<Service> = webhooks.found().iter().filter_map(service).collect();
        let namespaces: BTreeSet<_> = services.iter().map(|service| service.namespace.clone()).collect();
        let mut snapshot = Self {
            version: version.unwrap_or_default(),
            services: list_in(client, "/api/v1", &namespaces, "services").await,
            deployments: list_in(client, "/apis/apps/v1", &namespaces, "deployments").await,
            endpoint_slices: list_in(client, "/apis/discovery.k8s.io/v1", &namespaces, "endpointslices")
                .await,
            network_policies: list_in(client, "/apis/networking.k8s.io/v1", &namespaces, "networkpolicies")
                .await,
            secrets: BTreeMap::new(),
            definitions: BTreeMap::new(),
            distributors: list(client, "/apis/versprei.versprei.io/v1beta1/poddistributors").await,
            templates: list(client, "/apis/flexdaemonsets.xai/v1alpha1/flexdaemonsettemplates").await,
            owners: Vec::new(),
            answers: BTreeMap::new(),
            webhooks,
        };
        snapshot.read_named(client).await;
        Ok(snapshot)
    }

    /// Reads the objects that others name.
    async fn read_named(&mut self, client: &Client) {
        for name in super::certificates::secrets(self.deployments.found()) {
            let (namespace, secret) = name.split_once('/').unwrap_or_default();
            let path = format!("/api/v1/namespaces/{namespace}/secrets/{secret}");
            let secret = read(get(client, &path).await);
            self.secrets.insert(name, secret);
        }
        for name in super::definitions::NAMES {
            let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}");
            self.definitions.insert((*name).to_owned(), read(get(client, &path).await));
        }
    }

    /// Asks what only a request shows: the permissions of service accounts, and an answer of each webhook.
    pub(super) async fn probe(&mut self, client: &Client) {
        for kind in owners::owner_kinds(self) {
            let allowed = may_get(client, &kind).await;
            self.owners.push((kind, allowed));
        }
        for webhook in self.webhooks.found().to_vec() {
            let (Some(service), Some(name)) = (service(&webhook), super::webhook::name(&webhook)) else {
                continue;
            };
            let answer = call(client, &service).await;
            self.answers.insert(name.to_owned(), answer);
        }
    }
}

fn read<T>(result: kube::Result<T>) -> Read<T> {
    result.map_or_else(|error| Read::Hidden(describe(&error)), Read::Found)
}

/// Lists objects; an absent kind has none.
async fn list(client: &Client, path: &str) -> Read<Vec<Value>> {
    let items = |list: Option<Value>| match list.unwrap_or_default().get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    };
    read(get(client, path).await.map(items))
}

async fn list_in(
    client: &Client,
    prefix: &str,
    namespaces: &BTreeSet<String>,
    plural: &str,
) -> Read<Vec<Value>> {
    let mut all = Vec::new();
    for namespace in namespaces {
        match list(client, &format!("{prefix}/namespaces/{namespace}/{plural}")).await {
            Read::Found(objects) => all.extend(objects),
            hidden @ Read::Hidden(_) => return hidden,
        }
    }
    Read::Found(all)
}

/// Whether the service account may read the kind, by a `SubjectAccessReview`.
async fn may_get(client: &Client, kind: &OwnerKind) -> Read<bool> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {
            "user": format!("system:serviceaccount:{}:{}", kind.account_namespace, kind.account),
            "groups": ["system:serviceaccounts", format!("system:serviceaccounts:{}", kind.account_namespace), "system:authenticated"],
            "resourceAttributes": {
                "verb": "get", "group": kind.group, "resource": kind.plural, "namespace": kind.namespace,
            },
        },
    });
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let answer = read(send(client, "POST", path, MediaType::Json, &review).await);
    match answer {
        Read::Found(text) => {
            let review: Value = serde_json::from_str(&text).unwrap_or_default();
            Read::Found(review.pointer("/status/allowed").and_then(Value::as_bool) == Some(true))
        }
        Read::Hidden(reason) => Read::Hidden(reason),
    }
}

/// Sends a review to the webhook through the API server's proxy: for a pod without containers, which no webhook changes.
async fn call(client: &Client, service: &Service) -> Read<Result<(), String>> {
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "00000000-0000-4000-8000-000000000000",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "default", "operation": "CREATE", "dryRun": true, "userInfo": {},
            "object": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "check"}, "spec": {"containers": []}},
        },
    });
    let Service { namespace, name, port, path } = service;
    let path = format!("/api/v1/namespaces/{namespace}/services/https:{name}:{port}/proxy{path}");
    match send(client, "POST", &path, MediaType::Json, &review).await {
        Ok(text) => {
            let answer: Value = serde_json::from_str(&text).unwrap_or_default();
            let answered = answer.pointer("/response/uid").is_some();
            Read::Found(if answered { Ok(()) } else { Err("the answer is no AdmissionReview".to_owned()) })
        }
        Err(kube::Error::Api(status)) if status.code == 403 => Read::Hidden(status.message.clone()),
        Err(error) => Read::Found(Err(describe(&error))),
    }
}
