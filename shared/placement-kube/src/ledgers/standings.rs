//! The watch of Placement objects: what others have written, and which ledgers there are.

use std::sync::Arc;

use kube::Client;
use serde_json::value::RawValue;

use super::driver::Ledgers;
use super::object::{API, PLURAL, Spec, Standing, Told, standing, version};
use podshaper_core::object::Object;
use podshaper_kube::store::Store;
use podshaper_kube::watch::Scope;
use podshaper_kube::watch::{Sink, follow_into};
use podshaper_placement::annotations::PLACED;

/// Follows the ledgers of a webhook: tells `ledgers` what stands in them, and keeps `store` as they are; comes back never.
///
/// Rights: `list`, `watch` Placements.
pub async fn follow(client: Client, ledgers: Arc<Ledgers>, store: Arc<Store<Standing>>) {
    let labels = format!("{PLACED}={}", ledgers.webhook());
    let scope = Scope { namespace: None, labels };
    let mut standings = Standings::new(ledgers, store);
    follow_into(client, scope, API, PLURAL, &mut standings).await;
}

pub(super) struct Standings {
    ledgers: Arc<Ledgers>,
    store: Arc<Store<Standing>>,
    listed: Vec<(String, Standing)>,
}

impl Standings {
    pub(super) fn new(ledgers: Arc<Ledgers>, store: Arc<Store<Standing>>) -> Self {
        Self { ledgers, store, listed: Vec::new() }
    }

    /// Tells the ledger; its key and version, and what is kept of it.
    fn read(&self, object: &RawValue, gone: bool) -> serde_json::Result<(String, String, Option<Standing>)> {
        let object: Object<Spec, Told> = serde_json::from_str(object.get())?;
        let (key, at) = (object.metadata.key(), object.metadata.resource_version.clone());
        let read = standing(object).map(|(standing, content)| {
            if let Some(version) = version(&at) {
                self.ledgers.noticed(&standing, version, (!gone).then_some(content));
            }
            standing
        });
        Ok((key, at, read.filter(|_| !gone)))
    }
}

impl Sink for Standings {
    fn restart(&mut self) {
        self.listed.clear();
    }

    fn listed(&mut self, object: &RawValue) -> serde_json::Result<()> {
        let (key, _, standing) = self.read(object, false)?;
        self.listed.extend(standing.map(|standing| (key, standing)));
        Ok(())
    }

    fn complete(&mut self, _version: &str) {
        self.store.replace(std::mem::take(&mut self.listed));
    }

    fn changed(&mut self, object: &RawValue, gone: bool) -> serde_json::Result<String> {
        let (key, version, standing) = self.read(object, gone)?;
        match standing {
            Some(standing) => self.store.put(key, standing),
            None => self.store.remove(&key),
        }
        Ok(version)
    }
}
