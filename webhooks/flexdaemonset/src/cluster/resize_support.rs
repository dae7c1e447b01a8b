//! Whether the API server serves `pods/resize`: an upgrade of the control plane can change it.

use kube::Client;
use podshaper_kube::discovery::serves;
use podshaper_kube::error::describe;
use tokio::time::{Duration, Instant, sleep};

/// The time between two discoveries.
const DISCOVERY_INTERVAL: Duration = Duration::from_mins(5);
/// The time between two discoveries until the first has succeeded.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The last discovery.
pub(super) struct ResizeSupport {
    is_supported: bool,
    discovered_at: Instant,
}

impl ResizeSupport {
    /// Waits for the first discovery.
    pub(super) async fn discover(client: &Client) -> Self {
        loop {
            if let Some(is_supported) = discover(client).await {
                return Self { is_supported, discovered_at: Instant::now() };
            }
            sleep(RETRY_INTERVAL).await;
        }
    }

    pub(super) fn is_supported(&self) -> bool {
        self.is_supported
    }

    /// Discovers again after a time. A failure changes nothing.
    pub(super) async fn refresh(&mut self, client: &Client) {
        if self.discovered_at.elapsed() >= DISCOVERY_INTERVAL {
            self.is_supported = discover(client).await.unwrap_or(self.is_supported);
            self.discovered_at = Instant::now();
        }
    }
}

async fn discover(client: &Client) -> Option<bool> {
    match serves(client, "/api/v1", "pods/resize").await {
        Ok(is_supported) => Some(is_supported),
        Err(error) => {
            tracing::warn!(error = describe(&error), "can't discover pods/resize, trying again");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use podshaper_testing::{MockApiServer, MockResponse};

    fn resources(names: &[&str]) -> Value {
        let each = names.iter().map(|name| {
            json!({"name": name, "namespaced": true, "kind": "Pod", "singularName": "pod", "verbs": []})
        });
        let resources: Vec<_> = each.collect();
        json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": resources})
    }

    #[tokio::test(start_paused = true)]
    async fn resize_is_discovered_again_after_upgrade() {
        let (client, mut server) = MockApiServer::start();
        let answer = async {
            server.next("/api/v1").await.respond(MockResponse::failure(503, "ServiceUnavailable"));
            server.next("/api/v1").await.answer(200, &resources(&["pods"]));
        };
        let (mut support, ()) = tokio::join!(ResizeSupport::discover(&client), answer);
        assert!(!support.is_supported());
        support.refresh(&client).await;
        assert!(server.is_idle(), "not at each reconciliation");

        tokio::time::advance(DISCOVERY_INTERVAL).await;
        let answer = async { server.next("/api/v1").await.answer(200, &resources(&["pods", "pods/resize"])) };
        tokio::join!(support.refresh(&client), answer);
        assert!(support.is_supported());

        tokio::time::advance(DISCOVERY_INTERVAL).await;
        let answer =
            async { server.next("/api/v1").await.respond(MockResponse::failure(503, "ServiceUnavailable")) };
        tokio::join!(support.refresh(&client), answer);
        assert!(support.is_supported(), "a failure changes nothing");
    }
}
