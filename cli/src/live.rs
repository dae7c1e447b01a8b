//! `--live`: the objects that a command reads, from the cluster.

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::{Arg, Args};
use kube::Client;
use podshaper_kube::error::describe;
use podshaper_kube::pages::list_pages;
use podshaper_kube::request::with_query;
use podshaper_offline::block_on;
use tempfile::NamedTempFile;

use crate::kubeconfig::ClusterArgs;

/// Objects on a page of a list.
const PAGE: usize = 500;
/// How long one page may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// `--live` and the options of the cluster.
#[derive(Debug, Default)]
pub(crate) struct Live {
    cluster: ClusterArgs,
    namespace: Option<String>,
    all_namespaces: bool,
}

/// A kind of objects that a command reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Resource {
    /// `/api/v1` or `/apis/GROUP/VERSION`
    prefix: &'static str,
    plural: &'static str,
    api_version: &'static str,
    kind: &'static str,
    namespaced: bool,
}

const fn resource(
    prefix: &'static str,
    api_version: &'static str,
    plural: &'static str,
    kind: &'static str,
    namespaced: bool,
) -> Resource {
    Resource { prefix, plural, api_version, kind, namespaced }
}

const PODS: Resource = resource("/api/v1", "v1", "pods", "Pod", true);
const NODE_POOLS: Resource =
    resource("/apis/karpenter.sh/v1", "karpenter.sh/v1", "nodepools", "NodePool", false);
const NODES: Resource = resource("/api/v1", "v1", "nodes", "Node", false);
const NAMESPACES: Resource = resource("/api/v1", "v1", "namespaces", "Namespace", false);
const LIMIT_RANGES: Resource = resource("/api/v1", "v1", "limitranges", "LimitRange", true);
const RESOURCE_QUOTAS: Resource = resource("/api/v1", "v1", "resourcequotas", "ResourceQuota", true);
const CLAIMS: Resource = resource("/api/v1", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", true);
const VOLUMES: Resource = resource("/api/v1", "v1", "persistentvolumes", "PersistentVolume", false);
const DEPLOYMENTS: Resource = resource("/apis/apps/v1", "apps/v1", "deployments", "Deployment", true);
const REPLICA_SETS: Resource = resource("/apis/apps/v1", "apps/v1", "replicasets", "ReplicaSet", true);
const STATEFUL_SETS: Resource = resource("/apis/apps/v1", "apps/v1", "statefulsets", "StatefulSet", true);
const DAEMON_SETS: Resource = resource("/apis/apps/v1", "apps/v1", "daemonsets", "DaemonSet", true);
const JOBS: Resource = resource("/apis/batch/v1", "batch/v1", "jobs", "Job", true);
const CRON_JOBS: Resource = resource("/apis/batch/v1", "batch/v1", "cronjobs", "CronJob", true);
const DISTRIBUTORS: Resource = resource(
    "/apis/versprei.versprei.io/v1beta1",
    "versprei.versprei.io/v1beta1",
    "poddistributors",
    "PodDistributor",
    true,
);
const TEMPLATES: Resource = resource(
    "/apis/flexdaemonsets.xai/v1alpha1",
    "flexdaemonsets.xai/v1alpha1",
    "flexdaemonsettemplates",
    "FlexDaemonsetTemplate",
    false,
);

const WORKLOADS: [Resource; 6] = [DEPLOYMENTS, STATEFUL_SETS, DAEMON_SETS, JOBS, CRON_JOBS, PODS];
const PLACEMENT: [Resource; 10] =
    [NODES, NAMESPACES, PODS, DEPLOYMENTS, REPLICA_SETS, STATEFUL_SETS, JOBS, CRON_JOBS, CLAIMS, VOLUMES];
const FLEX_DAEMON_SET: [Resource; 6] =
    [DAEMON_SETS, TEMPLATES, NODES, NAMESPACES, LIMIT_RANGES, RESOURCE_QUOTAS];

/// The objects that a command reads, and the option that names their file.
#[derive(Debug)]
pub(crate) struct Source {
    option: &'static str,
    resources: Vec<Resource>,
}

impl Source {
    /// The objects of a command of a webhook.
    ///
    /// # Errors
    /// The command reads no objects of a cluster.
    pub(crate) fn of(webhook: &str, command: &str) -> anyhow::Result<Self> {
        let (option, resources) = match (webhook, command) {
            ("arch", "mutate" | "explain") => ("--facts", vec![NODES, NODE_POOLS]),
            ("arch", "report") => ("--filename", [WORKLOADS.as_slice(), &[NODES]].concat()),
            ("distributor", "plan") => ("--filename", [&[DISTRIBUTORS], PLACEMENT.as_slice()].concat()),
            ("distributor", "mutate") => ("--facts", [&[DISTRIBUTORS], PLACEMENT.as_slice()].concat()),
            ("custom-scheduler-annotations", "mutate") => ("--facts", PLACEMENT.to_vec()),
            ("flexdaemonset", "plan") => ("--filename", FLEX_DAEMON_SET.to_vec()),
            ("flexdaemonset", "mutate") => ("--facts", FLEX_DAEMON_SET.to_vec()),
            (_, "") => bail!("--live: name a command first, for example: distributor plan --live"),
            _ => bail!("--live: {webhook} {command} reads no objects of a cluster; leave the option out"),
        };
        Ok(Self { option, resources })
    }
}

impl Live {
    /// Takes `--live` and its options out of the arguments. `--namespace` stays, because commands have it, too.
    ///
    /// # Errors
    /// An option of the cluster lacks its value, or is given without `--live`.
    pub(crate) fn split(arguments: Vec<OsString>) -> anyhow::Result<(Option<Self>, Vec<OsString>)> {
        let mut live = Self::default();
        let mut is_live = false;
        let mut used = None;
        let mut rest = Vec::new();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let text = argument.to_str().unwrap_or_default().to_owned();
            let (option, inline) = match text.split_once('=') {
                Some((option, value)) => (option, Some(OsString::from(value))),
                None => (text.as_str(), None),
            };
            let mut value = || {
                inline.clone().or_else(|| arguments.next()).with_context(|| format!("{option} needs a value"))
            };
            match option {
                "--" => {
                    rest.push(argument);
                    rest.extend(arguments);
                    break;
                }
                "--live" => is_live = true,
                "-A" | "--all-namespaces" => {
                    live.all_namespaces = true;
                    used = Some(option.to_owned());
                }
                "--kubeconfig" => {
                    live.cluster.kubeconfig = Some(value()?.into());
                    used = Some(option.to_owned());
                }
                "--context" => {
                    live.cluster.context = Some(value()?.to_string_lossy().into_owned());
                    used = Some(option.to_owned());
                }
                "-n" | "--namespace" => {
                    let namespace = value()?;
                    live.namespace = Some(namespace.to_string_lossy().into_owned());
                    rest.extend([OsString::from("--namespace"), namespace]);
                }
                _ => rest.push(argument),
            }
        }
        match used {
            Some(option) if !is_live => bail!("{option} has no effect without --live"),
            _ if is_live && live.all_namespaces && live.namespace.is_some() => {
                bail!("--all-namespaces and --namespace exclude each other")
            }
            _ => {}
        }
        // The namespace selects what is listed; of the commands, only mutate has a use for it.
        if is_live && rest.first().map(OsString::as_os_str) != Some(OsStr::new("mutate")) {
            remove_namespace_option(&mut rest);
        }
        Ok((is_live.then_some(live), rest))
    }

    /// Adds the options to the definition of a command, for its manual page and completion.
    pub(crate) fn describe(command: clap::Command) -> clap::Command {
        let flag = |name: &'static str, help: &'static str| {
            Arg::new(name).long(name).help(help).action(clap::ArgAction::SetTrue)
        };
        ClusterArgs::augment_args(
            command
                .arg(flag("live", "Read the objects from the cluster instead of files"))
                .arg(flag("all-namespaces", "With --live, read all namespaces").short('A')),
        )
    }

    /// Lists the objects into a file. Returns the option that names it, and the file, which is removed when it is dropped.
    pub(crate) fn objects(&self, source: &Source) -> anyhow::Result<(&'static str, NamedTempFile)> {
        let mut file = tempfile::Builder::new()
            .prefix("podshaper-")
            .suffix(".json")
            .tempfile()
            .context("temporary file")?;
        block_on(self.list(source, &mut file))?;
        Ok((source.option, file))
    }

    async fn list(&self, source: &Source, out: &mut impl Write) -> anyhow::Result<()> {
        let cluster = self.cluster.connect().await?;
        let namespace = self.namespace.as_deref().unwrap_or(&cluster.namespace);
        let namespace = (!self.all_namespaces).then_some(namespace);
        let hidden = write_list(&cluster.client, source, namespace, out).await?;
        let mut stderr = io::stderr();
        for line in hidden {
            // An error on standard error can't be reported.
            let _ = writeln!(stderr, "warning: {line}");
        }
        Ok(())
    }
}

fn remove_namespace_option(arguments: &mut Vec<OsString>) {
    if let Some(index) = arguments.iter().position(|argument| argument == "--namespace") {
        arguments.drain(index..(index + 2).min(arguments.len()));
    }
}

/// Writes a List of all objects that the user may list. Returns a line for each resource that the list is without.
///
/// # Errors
/// The API server cannot be reached, or no resource may be listed.
async fn write_list(
    client: &Client,
    source: &Source,
    namespace: Option<&str>,
    out: &mut impl Write,
) -> anyhow::Result<Vec<String>> {
    let mut hidden = Vec::new();
    let mut separator = "";
    write!(out, r#"{{"apiVersion":"v1","kind":"List","items":["#)?;
    for resource in &source.resources {
        let scope = namespace.filter(|_| resource.namespaced);
        let mut pages = Vec::new();
        match resource.list(client, scope, &mut pages).await {
            Ok(()) => {
                for page in pages {
                    write!(out, "{separator}{page}")?;
                    separator = ",";
                }
            }
            Err(kube::Error::Api(status)) if status.code == 403 => {
                hidden.push(format!("you may not list {}: {}", resource.plural, status.message));
            }
            Err(kube::Error::Api(status)) if status.code == 404 => {
                hidden.push(format!("the cluster has no {} ({})", resource.kind, resource.api_version));
            }
            Err(error) => return Err(anyhow!("can't list {}: {}", resource.plural, describe(&error))),
        }
    }
    write!(out, "]}}")?;
    out.flush()?;
    if hidden.len() == source.resources.len() {
        bail!("nothing can be read from the cluster: {}", hidden.join("; "));
    }
    Ok(hidden)
}

impl Resource {
    /// Lists the objects of a namespace, or of all; each page is a typed list in JSON.
    async fn list(
        &self,
        client: &Client,
        namespace: Option<&str>,
        pages: &mut Vec<String>,
    ) -> kube::Result<()> {
        let path = match namespace {
            Some(namespace) => format!("{}/namespaces/{namespace}/{}", self.prefix, self.plural),
            None => format!("{}/{}", self.prefix, self.plural),
        };
        let uri = |limit: usize, next: &str| {
            with_query(&path, [("limit", limit.to_string().as_str()), ("continue", next)])
        };
        let mut count = 0;
        let mut stderr = io::stderr();
        let shown = stderr.is_terminal();
        let result = list_pages(client, PAGE_TIMEOUT, PAGE, uri, &mut |items| {
            count += items.len();
            if shown {
                // Progress; an error on standard error can't be reported.
                let _ = write!(stderr, "\r{count} {} ...\x1b[K", self.plural);
            }
            let items: Vec<_> = items.iter().map(|item| item.get()).collect();
            pages.push(format!(
                r#"{{"apiVersion":"{}","kind":"{}List","items":[{}]}}"#,
                self.api_version,
                self.kind,
                items.join(",")
            ));
            Ok(())
        })
        .await;
        if shown {
            let _ = write!(stderr, "\r\x1b[K");
        }
        result.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use podshaper_testing::InMemoryApiServer;
    use serde_json::{Value, json};

    use super::*;

    fn split(arguments: &str) -> anyhow::Result<(Option<Live>, String)> {
        let (live, rest) = Live::split(arguments.split(' ').map(OsString::from).collect())?;
        let rest: Vec<_> = rest.iter().map(|argument| argument.to_string_lossy()).collect();
        Ok((live, rest.join(" ")))
    }

    #[test]
    fn options_of_the_cluster_are_taken_out() {
        let (live, rest) = split("plan --live --context=prod --kubeconfig k --replicas 3 -n shop").unwrap();
        let live = live.unwrap();
        assert_eq!(live.namespace.as_deref(), Some("shop"));
        assert_eq!(live.cluster.context.as_deref(), Some("prod"));
        assert_eq!(live.cluster.kubeconfig, Some("k".into()));
        assert_eq!(rest, "plan --replicas 3");
        let (_, rest) = split("mutate --live -n shop -f pod.yaml").unwrap();
        assert_eq!(rest, "mutate --namespace shop -f pod.yaml");
        let (live, rest) = split("mutate -f pod.yaml -- --live").unwrap();
        assert!(live.is_none());
        assert_eq!(rest, "mutate -f pod.yaml -- --live");
    }

    #[test]
    fn option_without_effect_is_an_error() {
        for (arguments, error) in [
            ("plan --context prod", "--context has no effect without --live"),
            ("plan -A", "-A has no effect without --live"),
            ("plan --live -A -n shop", "--all-namespaces and --namespace exclude each other"),
            ("plan --live --context", "--context needs a value"),
        ] {
            assert_eq!(split(arguments).unwrap_err().to_string(), error);
        }
        assert!(Source::of("peerpods", "mutate").unwrap_err().to_string().contains("reads no objects"));
        assert!(Source::of("distributor", "").unwrap_err().to_string().contains("name a command first"));
    }

    #[tokio::test]
    async fn objects_that_may_not_be_listed_are_named() {
        let server = InMemoryApiServer::default();
        server.put(
            "/apis/apps/v1/namespaces/shop/daemonsets/agent",
            json!({"metadata": {"name": "agent", "namespace": "shop"}}),
        );
        server.put(
            "/apis/apps/v1/namespaces/other/daemonsets/agent",
            json!({"metadata": {"name": "agent", "namespace": "other"}}),
        );
        server.fail("/api/v1/nodes", 403, "Forbidden");
        let source = Source { option: "--facts", resources: vec![DAEMON_SETS, NODES] };
        let mut out = Vec::new();
        let hidden = write_list(&server.client(), &source, Some("shop"), &mut out).await.unwrap();
        assert_eq!(hidden.len(), 1);
        assert!(hidden[0].starts_with("you may not list nodes"), "{hidden:?}");
        let list: Value = serde_json::from_str(std::str::from_utf8(&out).unwrap()).unwrap();
        let names: Vec<_> = list["items"][0]["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| &item["metadata"]["namespace"])
            .collect();
        assert_eq!(names, ["shop"]);
        assert_eq!(list["items"][0]["kind"], "DaemonSetList");
    }

    #[tokio::test]
    async fn user_without_any_right_gets_an_error() {
        let server = InMemoryApiServer::default();
        server.fail("/api/v1/nodes", 403, "Forbidden");
        let source = Source { option: "--facts", resources: vec![NODES] };
        let error = write_list(&server.client(), &source, None, &mut Vec::new()).await.unwrap_err();
        assert!(error.to_string().starts_with("nothing can be read from the cluster"), "{error}");
    }
}
