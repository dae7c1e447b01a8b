//! The watch of `Placement` objects: what other replicas have written, and which objects exist.

use std::sync::Arc;

use kube::Client;
use podshaper_core::object::Object;
use podshaper_kube::store::Store;
use podshaper_kube::watch::{Scope, Sink, follow_into};
use podshaper_placement::annotations::PLACED;
use serde_json::value::RawValue;

use crate::ledgers::Ledgers;
use crate::placement_object::{API, PLURAL, PlacementObject, PlacementSpec, PlacementStatus, parse_version};

/// Watches the Placements of a webhook for `ledgers`, and keeps `store` current. It never returns.
///
/// Rights: `list`, `watch` Placements.
pub async fn watch_placements(client: Client, ledgers: Arc<Ledgers>, store: Arc<Store<PlacementObject>>) {
    let scope = Scope { namespace: None, labels: format!("{PLACED}={}", ledgers.webhook()) };
    let mut events = PlacementEvents { ledgers, store, listed: Vec::new() };
    follow_into(client, scope, API, PLURAL, &mut events).await;
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
        gone: bool,
    ) -> serde_json::Result<(String, String, Option<PlacementObject>)> {
        let object: Object<PlacementSpec, PlacementStatus> = serde_json::from_str(object.get())?;
        let (key, version) = (object.metadata.key(), object.metadata.resource_version.clone());
        let Some((placement, content)) = PlacementObject::parse(object) else {
            return Ok((key, version, None));
        };
        if let Some(version) = parse_version(&version) {
            self.ledgers.object_changed(&placement, version, (!gone).then_some(content));
        }
        Ok((key, version, (!gone).then_some(placement)))
    }
}

impl Sink for PlacementEvents {
    fn restart(&mut self) {
        self.listed.clear();
    }

    fn listed(&mut self, object: &RawValue) -> serde_json::Result<()> {
        let (key, _, placement) = self.read(object, false)?;
        self.listed.extend(placement.map(|placement| (key, placement)));
        Ok(())
    }

    fn complete(&mut self, _version: &str) {
        self.store.replace(std::mem::take(&mut self.listed));
    }

    fn changed(&mut self, object: &RawValue, gone: bool) -> serde_json::Result<String> {
        let (key, version, placement) = self.read(object, gone)?;
        match placement {
            Some(placement) => self.store.put(key, placement),
            None => self.store.remove(&key),
        }
        Ok(version)
    }
}
