//! Reads the volumes that claims are bound to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::{Client, Error};
use moka::sync::Cache;
use podshaper_core::object::{Lookup, Object, is_name};
use podshaper_kube::error::describe;
use podshaper_kube::request::get;
use serde::de::{DeserializeOwned, IgnoredAny};
use tokio::time::timeout;

use distributor_decision::volumes::{ClaimSpec, VolumeNodes, VolumeSpec};

/// How long a result counts. A claim keeps its volume; a claim without one gets it soon.
const FRESH: Duration = Duration::from_secs(5);
/// Claims that are remembered.
const MAX_CLAIMS: u64 = 1024;
/// The longest that admission waits for a claim and its volume.
const MAX_WAIT: Duration = Duration::from_secs(1);
/// The part of the request's time that a wait leaves.
const MARGIN: Duration = Duration::from_millis(500);

/// The volumes of claims.
pub(super) struct VolumeReader {
    client: Client,
    claims: Cache<(String, String), Lookup<VolumeNodes>>,
}

impl VolumeReader {
    /// Rights: `get` `persistentvolumeclaims` and `persistentvolumes`. Without them each claim is [`Lookup::Forbidden`].
    pub(super) fn new(client: Client) -> Self {
        Self { client, claims: Cache::builder().max_capacity(MAX_CLAIMS).time_to_live(FRESH).build() }
    }

    /// The nodes that the volume of a claim can be mounted on; [`Lookup::NotFound`] if the claim has no volume.
    pub(super) async fn nodes(&self, namespace: &str, claim: &str, deadline: Instant) -> Lookup<VolumeNodes> {
        if !is_name(namespace) || !is_name(claim) {
            return Lookup::NotFound;
        }
        let wait = deadline.saturating_duration_since(Instant::now()).saturating_sub(MARGIN).min(MAX_WAIT);
        let key = (namespace.to_owned(), claim.to_owned());
        if let Some(known) = self.claims.get(&key) {
            return known;
        }
        let Ok(found) = timeout(wait, self.read(namespace, claim)).await else { return Lookup::Unavailable };
        if !matches!(found, Lookup::Unavailable) {
            self.claims.insert(key, found.clone());
        }
        found
    }

    async fn read(&self, namespace: &str, claim: &str) -> Lookup<VolumeNodes> {
        let path = format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims/{claim}");
        let claim: ClaimSpec = match self.spec(&path).await {
            Lookup::Found(spec) => Arc::unwrap_or_clone(spec),
            Lookup::NotFound => return Lookup::NotFound,
            Lookup::Forbidden => return Lookup::Forbidden,
            Lookup::Unavailable => return Lookup::Unavailable,
        };
        let Some(volume) = claim.volume_name.filter(|volume| is_name(volume)) else {
            return Lookup::NotFound;
        };
        match self.spec::<VolumeSpec>(&format!("/api/v1/persistentvolumes/{volume}")).await {
            Lookup::Found(spec) => Lookup::Found(Arc::new(Arc::unwrap_or_clone(spec).into())),
            Lookup::NotFound => Lookup::NotFound,
            Lookup::Forbidden => Lookup::Forbidden,
            Lookup::Unavailable => Lookup::Unavailable,
        }
    }

    async fn spec<S: DeserializeOwned + Default>(&self, path: &str) -> Lookup<S> {
        match get::<Object<S, IgnoredAny>>(&self.client, path).await {
            Ok(Some(object)) => Lookup::Found(Arc::new(object.spec.unwrap_or_default())),
            Ok(None) => Lookup::NotFound,
            Err(Error::Api(status)) if status.code == 403 => Lookup::Forbidden,
            Err(error) => {
                tracing::warn!(path, error = describe(&error), "cannot read a volume");
                Lookup::Unavailable
            }
        }
    }
}
