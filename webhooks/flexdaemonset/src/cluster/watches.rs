//! The watched objects, as far as decisions and refits need them.

use std::sync::Arc;

use kube::Client;
use podshaper_core::object::FromObject;
use podshaper_kube::store::Store;
use podshaper_kube::watch::{WatchScope, spawn_reflector, spawn_reflector_at};
use tokio::sync::watch;

use flexdaemonset_decision::daemon_set::DaemonSet;
use flexdaemonset_decision::limit_range::LimitRange;
use flexdaemonset_decision::namespace::Namespace;
use flexdaemonset_decision::namespace_limits::NamespaceLimits;
use flexdaemonset_decision::node::Node;
use flexdaemonset_decision::owner_kind::OwnerKind;
use flexdaemonset_decision::resource_quota::ResourceQuota;
use flexdaemonset_decision::template_object::TemplateObject;

/// The DaemonSets of one kind.
#[derive(Clone)]
pub(super) struct DaemonSets {
    pub(super) kind: OwnerKind,
    pub(super) store: Arc<Store<DaemonSet>>,
}

/// One store for each kind.
#[derive(Clone)]
pub(super) struct Watches {
    nodes: Arc<Store<Node>>,
    templates: Arc<Store<TemplateObject>>,
    /// Those of `apps/v1` first.
    daemon_sets: Vec<DaemonSets>,
    limit_ranges: Arc<Store<LimitRange>>,
    quotas: Arc<Store<ResourceQuota>>,
    namespaces: Arc<Store<Namespace>>,
}

impl Watches {
    /// Starts the watches. Needs a runtime.
    pub(super) fn start(client: &Client, other_kinds: &[OwnerKind]) -> Self {
        let own = DaemonSets {
            kind: OwnerKind::daemon_set(),
            store: spawn_reflector(client, WatchScope::default()),
        };
        let others = other_kinds.iter().filter_map(|kind| {
            let api = kind.api_path()?;
            let plural = kind.resource.clone();
            let store = spawn_reflector_at(client, WatchScope::default(), api, plural);
            Some(DaemonSets { kind: kind.clone(), store })
        });
        Self {
            nodes: spawn_reflector(client, WatchScope::default()),
            templates: spawn_reflector(client, WatchScope::default()),
            daemon_sets: std::iter::once(own).chain(others).collect(),
            limit_ranges: spawn_reflector(client, WatchScope::default()),
            quotas: spawn_reflector(client, WatchScope::default()),
            namespaces: spawn_reflector(client, WatchScope::default()),
        }
    }

    pub(super) fn nodes(&self) -> &Arc<Store<Node>> {
        &self.nodes
    }

    pub(super) fn templates(&self) -> &Arc<Store<TemplateObject>> {
        &self.templates
    }

    pub(super) fn namespaces(&self) -> &Arc<Store<Namespace>> {
        &self.namespaces
    }

    pub(super) fn daemon_sets(&self) -> &[DaemonSets] {
        &self.daemon_sets
    }

    /// Demands of the LimitRanges and ResourceQuotas of a namespace.
    pub(super) fn namespace_limits(&self, namespace: &str) -> NamespaceLimits {
        let ranges = self.limit_ranges.in_namespace(namespace);
        let quotas = self.quotas.in_namespace(namespace);
        NamespaceLimits {
            limit_range: ranges.iter().fold(LimitRange::default(), |all, range| all.and(range)),
            quota: quotas.iter().fold(ResourceQuota::default(), |all, quota| all.and(quota)),
        }
    }

    /// The plural of a kind that hasn't synced yet. A kind like the DaemonSet may not be installed, so it isn't waited for.
    pub(super) fn unsynced(&self) -> Option<&'static str> {
        let daemon_sets = self.daemon_sets.first();
        let synced = [
            (Node::PLURAL, self.nodes.has_synced()),
            (TemplateObject::PLURAL, self.templates.has_synced()),
            (DaemonSet::PLURAL, daemon_sets.is_some_and(|daemon_sets| daemon_sets.store.has_synced())),
            (LimitRange::PLURAL, self.limit_ranges.has_synced()),
            (ResourceQuota::PLURAL, self.quotas.has_synced()),
            (Namespace::PLURAL, self.namespaces.has_synced()),
        ];
        synced.into_iter().find(|(_, synced)| !synced).map(|(plural, _)| plural)
    }

    /// Receivers that wake at every change.
    pub(super) fn changes(&self) -> Vec<watch::Receiver<u64>> {
        let mut changes = vec![
            self.nodes.changes(),
            self.templates.changes(),
            self.limit_ranges.changes(),
            self.quotas.changes(),
            self.namespaces.changes(),
        ];
        changes.extend(self.daemon_sets.iter().map(|daemon_sets| daemon_sets.store.changes()));
        changes
    }
}
