//! Claims of the one pod that tries a closed group.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use kube::{Client, Error};
use podshaper_kube::error::describe;
use podshaper_kube::request::{MediaType, send};
use podshaper_placement::ledger::Token;
use serde_json::json;
use tokio::time::timeout_at;

use distributor_decision::crd::{API_VERSION, PLURAL};
use distributor_decision::distributor::Distributor;

/// Attempts that are remembered.
const MAX_ATTEMPTS: usize = 1024;
/// The share of the request's remaining time that a claim may take. The ledger needs the rest.
const CLAIM_SHARE: f64 = 0.4;

/// Claims probes by compare-and-swap: a JSON patch of the status with tests that fail if another pod has the probe.
pub(super) struct ProbeClaims {
    client: Client,
    /// The version of the distributor, by distributor and index in the status, at which this replica has tried to claim: a burst of pods makes one attempt.
    attempts: Mutex<HashMap<(String, usize), String>>,
}

impl ProbeClaims {
    pub(super) fn new(client: Client) -> Self {
        Self { client, attempts: Mutex::default() }
    }

    /// Claims the probe of the group with this index in the status, for the pod with this token. Returns false if another pod has it.
    pub(super) async fn claim(
        &self,
        distributor: &Distributor,
        group: usize,
        token: Token,
        deadline: Instant,
    ) -> bool {
        let Some(status) = distributor.status.groups.as_ref().and_then(|groups| groups.get(group)) else {
            return false;
        };
        if !self.is_first_attempt((distributor.uid.clone(), group), &distributor.version) {
            return false;
        }
        let Distributor { namespace, name, .. } = distributor;
        let path = format!("/apis/{API_VERSION}/namespaces/{namespace}/{PLURAL}/{name}/status");
        let member = |member: &str| format!("/status/groups/{group}/{member}");
        let operations = json!([
            {"op": "test", "path": member("name"), "value": status.name},
            {"op": "test", "path": member("state"), "value": "Probing"},
            {"op": "test", "path": member("probe"), "value": ""},
            {"op": "replace", "path": member("probe"), "value": token.to_string()},
        ]);
        let now = Instant::now();
        let limit = now + deadline.saturating_duration_since(now).mul_f64(CLAIM_SHARE);
        let claim = send(&self.client, "PATCH", &path, MediaType::JsonPatch, &operations);
        match timeout_at(limit.into(), claim).await {
            Ok(Ok(_)) => true,
            // A test has failed: another replica was first.
            Ok(Err(Error::Api(failure))) if failure.code == 422 => false,
            Ok(Err(error)) => {
                let error = describe(&error);
                tracing::warn!(namespace, name, error, "cannot claim the probe of a closed group");
                false
            }
            // The leader gives the probe to another pod if this one does not appear in the group.
            Err(_) => false,
        }
    }

    fn is_first_attempt(&self, key: (String, usize), version: &str) -> bool {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        if attempts.len() >= MAX_ATTEMPTS && !attempts.contains_key(&key) {
            attempts.clear();
        }
        attempts.insert(key, version.to_owned()).as_deref() != Some(version)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use podshaper_testing::InMemoryApiServer;

    use super::*;

    const PATH: &str = "/apis/versprei.versprei.io/v1beta1/namespaces/shop/poddistributors/web";

    #[tokio::test]
    async fn one_pod_gets_the_probe() {
        let server = InMemoryApiServer::default();
        let status = json!({"groups": [{"name": "type=spot", "state": "Probing", "probe": ""}]});
        let distributor = |version: &str| {
            server.put(PATH, json!({"metadata": {"uid": "u"}, "spec": {}, "status": status}));
            Distributor {
                namespace: "shop".to_owned(),
                name: "web".to_owned(),
                uid: "u".to_owned(),
                version: version.to_owned(),
                status: serde_json::from_value(status.clone()).unwrap(),
                ..Distributor::from_spec(&json!({}))
            }
        };
        let deadline = Instant::now() + Duration::from_mins(1);
        let replicas = [ProbeClaims::new(server.client()), ProbeClaims::new(server.client())];
        let first = distributor("1");
        let mut claims = Vec::new();
        for (replica, token) in [(0, 1), (0, 2), (1, 3), (1, 4)] {
            claims.push(replicas[replica].claim(&first, 0, Token(token), deadline).await);
        }
        assert_eq!(claims, [true, false, false, false]);
        assert_eq!(server.get(PATH)["status"]["groups"][0]["probe"], "0000000000000001");
        assert_eq!(server.calls().len(), 2, "a replica tries once");
        // The leader offers the probe anew.
        let second = distributor("2");
        assert!(replicas[1].claim(&second, 0, Token(5), deadline).await);
    }
}
