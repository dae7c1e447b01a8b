//! The watch of `Placement` objects: what other replicas have written, and which objects exist.

use std::sync::Arc;

use kube::Client;
use podshaper_core::object::Object;
use podshaper_kube::store::Store;
use podshaper_kube::watch::{WatchHandler, WatchScope, list_and_watch};
use podshaper_placement::annotations::PLACED;
use serde_json::value::RawValue;

use crate::ledgers::Ledgers;
use crate::placement_object::{API, PLURAL, PlacementObject, PlacementSpec, PlacementStatus, parse_version};

/// Watches the Placements of a webhook for `ledgers`, and keeps `store` current. It never returns.
///
/// Rights: `list`, `watch` Placements.
pub async fn watch_placements(client: Client, ledgers: Arc<Ledgers>, store: Arc<Store<PlacementObject>>) {
    let scope = WatchScope { namespace: None, label_selector: format!("{PLACED}={}", ledgers.webhook()) };
    let mut events = PlacementEvents { ledgers, store, listed: Vec::new() };
    list_and_watch(client, scope, API, PLURAL, &mut events).await;
}

struct PlacementEvents {
    ledgers: Arc<Ledgers>,
    store: Arc<Store<PlacementObject>>,
    listed: Vec<(String, PlacementObject)>,
}

impl PlacementEvents {
    /// Hands the object to its ledger. Returns its key and version, and what the store keeps of it.
    fn read(
        &self,
        object: &RawValue,
        deleted: bool,
    ) -> serde_json::Result<(String, String, Option<PlacementObject>)> {
        let object: Object<PlacementSpec, PlacementStatus> = serde_json::from_str(object.get())?;
        let (key, version) = (object.metadata.key(), object.metadata.resource_version.clone());
        let Some((placement, content)) = PlacementObject::parse(object) else {
            return Ok((key, version, None));
        };
        if let Some(version) = parse_version(&version) {
            self.ledgers.object_changed(&placement, version, (!deleted).then_some(content));
        }
        Ok((key, version, (!deleted).then_some(placement)))
    }
}

impl WatchHandler for PlacementEvents {
    fn list_started(&mut self) {
        self.listed.clear();
    }

    fn listed(&mut self, object: &RawValue) -> serde_json::Result<()> {
        let (key, _, placement) = self.read(object, false)?;
        self.listed.extend(placement.map(|placement| (key, placement)));
        Ok(())
    }

    fn list_completed(&mut self, _version: &str) {
        self.store.replace(std::mem::take(&mut self.listed));
    }

    fn changed(&mut self, object: &RawValue, deleted: bool) -> serde_json::Result<String> {
        let (key, version, placement) = self.read(object, deleted)?;
        match placement {
            Some(placement) => self.store.put(key, placement),
            None => self.store.remove(&key),
        }
        Ok(version)
    }
}
