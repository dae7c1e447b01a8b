//! Keeps the certificate of one replica, the Secret and the caBundles in step, for as long as the process runs.

use std::sync::Arc;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use tokio::sync::Notify;
use tokio::time::{Duration, Instant, sleep};
use tracing::{info, warn};

use super::authority::{LeafCertificate, WebhookService};
use super::replica::{Lifetimes, Replica, ReplicaAction, SecretChange, Snapshot};
use super::store::{ApiObject, CertificateStore, StoreError};
use super::webhook_configuration::WebhookConfiguration;
use super::write_backoff::WriteBackoff;
use crate::ServingCertificate;
use crate::certificate::{Certificate, format_time, unix_now};

const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// A missing Secret is created again after this time: when a release is uninstalled, its Secret goes a little earlier than
/// the rest.
const RECREATE_AFTER: Duration = Duration::from_secs(5);

pub(crate) struct CertificateController {
    store: CertificateStore,
    replica: Replica,
    serving: Arc<ServingCertificate>,
    bundle_backoff: WriteBackoff,
    secret_backoff: WriteBackoff,
    secret_missing_since: Option<Instant>,
    /// The problems that were logged last. They are logged again only when they change.
    problems: String,
}

impl CertificateController {
    pub(crate) fn new(
        store: CertificateStore,
        service: WebhookService,
        lifetimes: Lifetimes,
        serving: Arc<ServingCertificate>,
    ) -> Self {
        Self {
            store,
            replica: Replica::new(service, lifetimes),
            serving,
            bundle_backoff: WriteBackoff::default(),
            secret_backoff: WriteBackoff::default(),
            secret_missing_since: None,
            problems: String::new(),
        }
    }

    /// Never returns. After an error the certificate in service stays, and the next attempt follows.
    pub(crate) async fn run(mut self) {
        let changed = Notify::new();
        let store = self.store.clone();
        let reconciles = async {
            let mut retries = retries();
            loop {
                let wait = match self.reconcile_and_log().await {
                    Some(wait) => {
                        retries = self::retries();
                        wait
                    }
                    None => retries.next().unwrap_or(LAST_RETRY),
                };
                tokio::select! {
                    () = changed.notified() => {}
                    () = sleep(wait) => {}
                }
            }
        };
        tokio::join!(
            watch(&store, store.secret(), &changed),
            watch(&store, store.configuration(), &changed),
            reconciles
        );
    }

    /// Reconciles once, logs problems that are new, and returns the time until the next read, or `None` after a failure.
    async fn reconcile_and_log(&mut self) -> Option<Duration> {
        let mut problems = Vec::new();
        let wait = match self.reconcile(&mut problems).await {
            Ok(wait) => Some(wait),
            Err(StoreError::Conflict) => Some(Duration::ZERO),
            Err(StoreError::Failed(problem)) => {
                problems.push(problem);
                None
            }
        };
        match wait {
            Some(_) => self.serving.record_sync(unix_now()),
            None => self.serving.record_error(),
        }
        let problems = problems.join("; ");
        if self.problems != problems {
            match problems.as_str() {
                "" => info!("certificates: all problems are resolved"),
                problems => warn!("certificates: {problems}"),
            }
            self.problems = problems;
        }
        wait
    }

    async fn reconcile(&mut self, problems: &mut Vec<String>) -> Result<Duration, StoreError> {
        let (secret, configuration) = tokio::join!(self.store.read_secret(), self.store.read_configuration());
        let configuration = configuration?;
        if !configuration.exists() {
            problems.push(format!("{} doesn't exist", self.store.configuration()));
        }
        // Even if the Secret can't be read, the CA of the leaf in service has to stay trusted.
        let (secret, unreadable) = match secret {
            Ok(secret) => (secret, None),
            Err(error) => (None, Some(error)),
        };
        if let Some(secret) = &secret {
            self.secret_missing_since = None;
            let name = self.store.secret();
            problems.extend(secret.problems().iter().map(|problem| format!("{name}: {problem}")));
        }

        let clock = Instant::now();
        let snapshot = Snapshot::new(secret.as_ref(), &configuration, unix_now(), clock);
        let (actions, mut wait) = self.replica.plan(&snapshot);
        for action in actions {
            match action {
                ReplicaAction::Serve(leaf, ca) => self.serve(&leaf, &ca),
                ReplicaAction::WriteBundles { bundles, restores_ca } => {
                    wait = wait.min(self.write_bundles(&configuration, &bundles, restores_ca, clock).await?);
                }
                ReplicaAction::ChangeSecret(change) => {
                    wait = wait.min(self.write_secret(change, &snapshot, clock).await?);
                }
                ReplicaAction::PostponeRotation => {
                    problems.push(
                        "the CA rotation is postponed, because too many replaced CAs are still trusted"
                            .into(),
                    );
                }
            }
        }
        match (secret, unreadable) {
            (_, Some(error)) => Err(error),
            (Some(_), None) => Ok(wait),
            (None, None) => self.recreate_secret(&configuration, clock).await,
        }
    }

    fn serve(&self, leaf: &LeafCertificate, ca: &Certificate) {
        let expiry = leaf.certificate().not_after();
        info!(expires = %format_time(expiry), "serving a certificate from the Secret");
        self.serving.set(leaf.certified_key(), expiry, ca.not_after());
    }

    /// Writes now or later. Returns the time after which to read again: zero after a write.
    async fn write_bundles(
        &mut self,
        configuration: &WebhookConfiguration,
        bundles: &[(usize, String)],
        restores_ca: bool,
        clock: Instant,
    ) -> Result<Duration, StoreError> {
        let delay = self.bundle_backoff.delay(clock);
        if !delay.is_zero() {
            return Ok(delay);
        }
        self.store.write_bundles(configuration, bundles).await?;
        self.bundle_backoff.record_write(clock);
        let configuration = self.store.configuration();
        if restores_ca {
            warn!(
                "restored a CA that another writer had removed from the caBundle of {configuration}: nothing else may manage the caBundle"
            );
        } else {
            info!("updated the caBundle of {configuration}");
        }
        Ok(Duration::ZERO)
    }

    /// Writes now or later. Returns the time after which to read again: zero after a write.
    async fn write_secret(
        &mut self,
        change: SecretChange,
        snapshot: &Snapshot<'_>,
        clock: Instant,
    ) -> Result<Duration, StoreError> {
        let delay = self.secret_backoff.delay(clock);
        if !delay.is_zero() {
            return Ok(delay);
        }
        let secret = self.replica.apply(change, snapshot);
        let secret = secret.map_err(|e| StoreError::Failed(format!("failed to issue a certificate: {e}")))?;
        self.store.write_secret(&secret).await?;
        self.secret_backoff.record_write(clock);
        match change {
            SecretChange::PrepareCa => {
                info!("created a CA, which signs after it has been in the caBundle for the hold");
            }
            SecretChange::PromoteCa => info!("the new CA signs certificates now"),
            SecretChange::RenewLeaf => info!("renewed the certificate"),
            SecretChange::ForgetRetired => info!("removed a replaced certificate that has expired"),
        }
        Ok(Duration::ZERO)
    }

    /// Creates the Secret again, unless the release is being uninstalled.
    async fn recreate_secret(
        &mut self,
        configuration: &WebhookConfiguration,
        clock: Instant,
    ) -> Result<Duration, StoreError> {
        let missing = clock.saturating_duration_since(*self.secret_missing_since.get_or_insert(clock));
        if !configuration.exists() {
            // The watch reports when there is one.
            return Ok(LAST_RETRY);
        }
        if missing < RECREATE_AFTER {
            return Ok(RECREATE_AFTER.saturating_sub(missing));
        }
        let created = self.store.create_secret(configuration).await;
        created.map_err(|e| StoreError::Failed(format!("failed to create the missing Secret: {e}")))?;
        Ok(Duration::ZERO)
    }
}

/// Watches one object forever. Errors aren't logged, because reconciling meets and logs them, too.
async fn watch(store: &CertificateStore, object: &ApiObject, changed: &Notify) {
    let mut retries = retries();
    loop {
        // A new watch begins with the object as it is, so no change in between is missed.
        if store.watch(object, changed).await.is_ok() {
            retries = self::retries();
        } else {
            sleep(retries.next().unwrap_or(LAST_RETRY)).await;
        }
    }
}

fn retries() -> ExponentialBackoff {
    let retries = ExponentialBuilder::new().with_min_delay(FIRST_RETRY).with_max_delay(LAST_RETRY);
    retries.with_factor(2.0).without_max_times().build()
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
    use podshaper_testing::InMemoryApiServer;
    use serde_json::{Value, json};

    use super::super::secret::ROTATE;
    use super::*;

    const SECRET: &str = "/api/v1/namespaces/podshaper/secrets/tls";
    const CONFIGURATION: &str =
        "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/peerpods";
    const HOLD: Duration = Duration::from_mins(1);
    const MOMENT: Duration = Duration::from_secs(1);

    fn start(server: &InMemoryApiServer) -> Arc<ServingCertificate> {
        let store = CertificateStore::new(server.client(), "podshaper", "tls".into(), "peerpods".into());
        let service = WebhookService::new("peerpods".into(), "podshaper".into());
        let day = Duration::from_hours(24);
        let lifetimes = Lifetimes::new(HOLD, 90 * day, 365 * day).unwrap();
        let serving = ServingCertificate::new();
        tokio::spawn(CertificateController::new(store, service, lifetimes, serving.clone()).run());
        serving
    }

    /// An empty Secret, and a configuration of two webhooks without caBundles.
    fn server() -> InMemoryApiServer {
        let server = InMemoryApiServer::default();
        server.put(SECRET, json!({"metadata": {"labels": {"a": "b"}}, "data": {"foreign": "eA=="}}));
        let webhook = |name| json!({"name": name, "clientConfig": {"service": {"name": "peerpods"}}});
        server.put(CONFIGURATION, json!({"metadata": {}, "webhooks": [webhook("one"), webhook("two")]}));
        server
    }

    /// The number of CAs in the caBundle of each webhook.
    fn trusted(server: &InMemoryApiServer) -> Vec<usize> {
        let configuration = server.get(CONFIGURATION);
        let bundle = |webhook: &Value| {
            let base64 = webhook["clientConfig"]["caBundle"].as_str().unwrap_or_default();
            String::from_utf8(BASE64.decode(base64).unwrap()).unwrap().matches("BEGIN").count()
        };
        configuration["webhooks"].as_array().unwrap().iter().map(bundle).collect()
    }

    fn patches(server: &InMemoryApiServer) -> usize {
        server.calls().iter().filter(|call| call.method == "PATCH").count()
    }

    fn remove_ca(server: &InMemoryApiServer, webhook: usize) {
        let mut configuration = server.get(CONFIGURATION);
        configuration["webhooks"][webhook]["clientConfig"]["caBundle"] = "Cg==".into();
        server.put(CONFIGURATION, configuration);
    }

    /// Two replicas that serve the same leaf.
    async fn installed() -> (InMemoryApiServer, [Arc<ServingCertificate>; 2]) {
        let server = server();
        let replicas = [start(&server), start(&server)];
        sleep(MOMENT).await;
        assert!(replicas.iter().all(|replica| replica.is_ready()));
        assert_eq!(replicas[0].leaf(), replicas[1].leaf());
        (server, replicas)
    }

    fn rotate(server: &InMemoryApiServer, what: &str) {
        server.patch(SECRET, &json!({"metadata": {"annotations": {ROTATE: what}}}));
    }

    #[tokio::test(start_paused = true)]
    async fn two_replicas_agree_and_stop_writing() {
        let (server, replicas) = installed().await;
        assert_eq!(trusted(&server), [1, 1]);
        let secret = server.get(SECRET);
        assert_eq!(
            (&secret["data"]["foreign"], &secret["metadata"]["labels"]["a"]),
            (&json!("eA=="), &json!("b"))
        );
        let before = patches(&server);
        sleep(100 * HOLD).await;
        assert_eq!(patches(&server), before);
        for replica in &replicas {
            assert_eq!((replica.errors(), replica.replacements()), (0, 0));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn leaf_rotates_at_once_and_ca_after_the_hold() {
        let (server, replicas) = installed().await;
        let first = replicas[0].leaf();
        rotate(&server, "leaf");
        sleep(MOMENT).await;
        let second = replicas[0].leaf();
        assert!(first != second && second == replicas[1].leaf());
        assert_eq!(trusted(&server), [1, 1]);

        rotate(&server, "ca");
        sleep(MOMENT).await;
        assert_eq!(trusted(&server), [2, 2]);
        assert_eq!(server.get(SECRET)["metadata"]["annotations"][ROTATE], json!(null));
        sleep(HOLD * 9 / 10).await;
        assert!(replicas.iter().all(|replica| replica.leaf() == second));
        sleep(HOLD / 10 + MOMENT).await;
        assert!(replicas.iter().all(|replica| replica.leaf() != second));
        assert_eq!(replicas[0].leaf(), replicas[1].leaf());
        assert_eq!(trusted(&server), [2, 2], "the old CA stays until its last leaf has expired");
        assert_eq!(replicas[0].replacements(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn removed_ca_and_deleted_secret_are_restored() {
        let (server, replicas) = installed().await;
        let leaf = replicas[0].leaf();
        remove_ca(&server, 1);
        sleep(MOMENT).await;
        assert_eq!(trusted(&server), [1, 1]);

        server.delete(SECRET);
        sleep(RECREATE_AFTER + MOMENT).await;
        assert_eq!(trusted(&server), [2, 2]);
        let owner = &server.get(SECRET)["metadata"]["ownerReferences"][0];
        assert_eq!(
            owner["uid"],
            server.get(CONFIGURATION)["metadata"]["uid"],
            "no release owns the Secret, so the configuration does"
        );
        assert!(
            replicas.iter().all(|replica| replica.leaf() == leaf),
            "the old leaf is served during the hold"
        );
        assert!(server.get(SECRET)["data"]["retired.crt"].is_string(), "the new Secret lists the old leaf");
        sleep(2 * HOLD).await;
        assert!(replicas.iter().all(|replica| replica.leaf() != leaf));
        assert_eq!(replicas[0].leaf(), replicas[1].leaf());
    }

    /// The Secret is deleted first, then the configuration, and the replicas last.
    #[tokio::test(start_paused = true)]
    async fn uninstalled_release_leaves_no_secret() {
        let (server, replicas) = installed().await;
        let leaf = replicas[0].leaf();
        server.delete(SECRET);
        sleep(RECREATE_AFTER / 2).await;
        server.delete(CONFIGURATION);
        sleep(10 * RECREATE_AFTER).await;
        assert!(server.get(SECRET).is_null());
        assert!(replicas.iter().all(|replica| replica.leaf() == leaf), "the last calls are answered");
    }

    #[tokio::test(start_paused = true)]
    async fn writes_against_another_writer_are_limited() {
        let (server, _replicas) = installed().await;
        let before = patches(&server);
        for _ in 0..600 {
            remove_ca(&server, 0);
            sleep(Duration::from_millis(100)).await;
        }
        let tries = patches(&server) - before;
        assert!((8..40).contains(&tries), "{tries} in a minute");
        sleep(HOLD).await;
        assert_eq!(trusted(&server), [1, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn certificate_stays_without_the_api_server() {
        let (server, replicas) = installed().await;
        let leaf = replicas[0].leaf();
        server.fail("/", 500, "InternalError");
        sleep(10 * HOLD).await;
        assert!(replicas.iter().all(|replica| replica.is_ready() && replica.leaf() == leaf));
        let errors = replicas[0].errors();
        assert!((10..60).contains(&errors), "{errors} in ten minutes");
        server.recover();
        rotate(&server, "leaf");
        sleep(HOLD).await;
        assert!(replicas.iter().all(|replica| replica.leaf() != leaf && replica.errors() >= errors));
    }

    #[tokio::test(start_paused = true)]
    async fn bundle_is_restored_without_access_to_the_secret() {
        let (server, replicas) = installed().await;
        server.fail(SECRET, 403, "Forbidden");
        remove_ca(&server, 0);
        sleep(MOMENT).await;
        assert_eq!(trusted(&server), [1, 1]);
        assert!(replicas[0].errors() > 0 && replicas[0].is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn late_configuration_is_used_when_it_arrives() {
        let server = server();
        let configuration = server.get(CONFIGURATION);
        server.delete(CONFIGURATION);
        let replica = start(&server);
        sleep(HOLD).await;
        assert!(!replica.is_ready());
        server.put(CONFIGURATION, configuration);
        sleep(MOMENT).await;
        assert!(replica.is_ready());
    }
}
