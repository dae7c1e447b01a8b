//! Permissions for the targets of `PodDistributor`s: the webhook reads every controller between a pod and its target.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::finding::Finding;
use super::hints::helm_upgrade;
use super::snapshot::{Read, Snapshot};
use super::webhook::program;

/// Kinds that the chart lets the webhook read without a setting.
const BUILT_IN: &[&str] = &["apps", "batch", ""];

/// A kind of targets, and the service account that must read it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OwnerKind {
    pub group: String,
    pub kind: String,
    /// By the convention of the API: the lower-case plural of the kind.
    pub plural: String,
    /// A namespace in which it is a target.
    pub namespace: String,
    pub account_namespace: String,
    pub account: String,
}

/// The custom kinds that `PodDistributor`s of the cluster have as targets.
pub(super) fn owner_kinds(cluster: &Snapshot) -> BTreeSet<OwnerKind> {
    let deployments = cluster.deployments.found();
    let accounts =
        cluster.webhooks.found().iter().filter(|webhook| program(webhook) == "distributor").filter_map(
            |webhook| {
                let namespace = super::webhook::service(webhook)?.namespace;
                let instance = webhook.pointer("/metadata/labels/app.kubernetes.io~1instance")?;
                let deployment = deployments.iter().find(|deployment| {
                    program(deployment) == "distributor"
                        && deployment.pointer("/metadata/labels/app.kubernetes.io~1instance")
                            == Some(instance)
                })?;
                let account = deployment.pointer("/spec/template/spec/serviceAccountName")?.as_str()?;
                Some((namespace, account.to_owned()))
            },
        );
    let accounts: Vec<_> = accounts.collect();
    let targets = cluster.distributors.found().iter().filter_map(|distributor| {
        let target =
            distributor.pointer("/spec/target").or_else(|| distributor.pointer("/spec/targetRef"))?;
        let (group, _) = target.get("apiVersion")?.as_str()?.rsplit_once('/').unwrap_or_default();
        let kind = target.get("kind")?.as_str()?;
        (!BUILT_IN.contains(&group)).then(|| {
            let namespace =
                distributor.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
            (group.to_owned(), kind.to_owned(), namespace.to_owned())
        })
    });
    let mut kinds = BTreeSet::new();
    for (group, kind, namespace) in targets {
        for (account_namespace, account) in &accounts {
            kinds.insert(OwnerKind {
                plural: plural(&kind),
                group: group.clone(),
                kind: kind.clone(),
                namespace: namespace.clone(),
                account_namespace: account_namespace.clone(),
                account: account.clone(),
            });
        }
    }
    kinds
}

/// The plural that `meta.UnsafeGuessKindToResource` of apimachinery forms.
fn plural(kind: &str) -> String {
    let singular = kind.to_lowercase();
    match singular.chars().last() {
        Some('s') => format!("{singular}es"),
        Some('y') => format!("{}ies", singular.trim_end_matches('y')),
        _ => format!("{singular}s"),
    }
}

/// Whether the webhook may read the targets.
pub(super) fn check(cluster: &Snapshot) -> Vec<Finding> {
    let missing: BTreeSet<_> = cluster
        .owners
        .iter()
        .filter(|(_, allowed)| matches!(allowed, Read::Found(false)))
        .map(|(kind, _)| (kind.group.as_str(), kind.plural.as_str()))
        .collect();
    let found = cluster.owners.iter().map(|(kind, allowed)| {
        let OwnerKind { group, plural, .. } = kind;
        let subject = format!("distributor may read {plural}.{group}, a target of PodDistributors");
        match allowed {
            Read::Found(true) => Finding::passed(subject),
            Read::Found(false) => Finding::failed(
                format!("distributor may not read {plural}.{group}, a target of PodDistributors: its pods are not placed"),
                hint(cluster, &missing),
            ),
            Read::Hidden(reason) => Finding::skipped(&subject, reason),
        }
    });
    found.collect()
}

/// The value of the chart with every kind that is missing, as a list has no part that an option could add to.
fn hint(cluster: &Snapshot, missing: &BTreeSet<(&str, &str)>) -> String {
    let kinds = missing.iter().map(|(group, plural)| json!({"apiGroup": group, "resources": [plural]}));
    let kinds: Value = kinds.collect();
    let mut configurations = cluster.webhooks.found().iter();
    let configuration = configurations.find(|webhook| program(webhook) == "distributor");
    let option = format!("--set-json 'distributor.owners={kinds}'");
    format!(
        "Add to distributor.owners of your values:\n{}",
        helm_upgrade(configuration.unwrap_or(&Value::Null), &option)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plural_follows_the_convention_of_the_api() {
        assert_eq!(plural("CloneSet"), "clonesets");
        assert_eq!(plural("Proxy"), "proxies");
        assert_eq!(plural("Ingress"), "ingresses");
    }
}
