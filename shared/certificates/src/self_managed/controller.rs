//! Reads, plans and writes, for as long as the process lives.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::{Duration, Instant, sleep};
use tracing::{info, warn};

use super::cluster::{Cluster, ClusterError, Kind};
use super::pace::Pace;
use super::secret::Stored;
use super::state::{Change, Configuration, Replica, Settings};
use crate::Serving;
use crate::certificate::{time, unix_now};

const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// A Secret that is gone isn't made again before: when a release goes, so does its Secret, a little before the rest.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) struct Controller {
    cluster: Cluster,
    replica: Replica,
    serving: Arc<Serving>,
    hold: Duration,
    bundle_pace: Pace,
    secret_pace: Pace,
    /// Since when the Secret has been gone.
    gone: Option<Instant>,
    /// What is wrong, as the log has it: told when it changes.
    said: String,
}

impl Controller {
    pub(crate) fn new(cluster: Cluster, settings: Settings, serving: Arc<Serving>) -> Self {
        Self {
            cluster,
            hold: settings.hold,
            replica: Replica::new(settings),
            serving,
            bundle_pace: Pace::default(),
            secret_pace: Pace::default(),
            gone: None,
            said: String::new(),
        }
    }

    /// Never ends: whatever goes wrong, the certificate in service stays and we try again.
    pub(crate) async fn run(mut self) {
        let changed = Notify::new();
        let cluster = self.cluster.clone();
        let watch = |kind| watch(&cluster, kind, &changed);
        tokio::join!(watch(Kind::Secret), watch(Kind::Configuration), async {
            let mut retry = FIRST_RETRY;
            loop {
                let wait = if let Ok(again) = self.sync().await {
                    retry = FIRST_RETRY;
                    again
                } else {
                    let wait = retry;
                    retry = (retry * 2).min(LAST_RETRY);
                    wait
                };
                tokio::select! {
                    () = changed.notified() => {}
                    () = sleep(wait) => {}
                }
            }
        });
    }

    /// One look at both objects and what follows from it; then when to look again. What fails is told and counted.
    async fn sync(&mut self) -> Result<Duration, ()> {
        let mut problems = Vec::new();
        let result = self.step(&mut problems).await;
        let again = match result {
            Ok(again) => Ok(again),
            Err(ClusterError::Conflict) => Ok(Duration::ZERO),
            Err(ClusterError::Failed(problem)) => {
                self.serving.failed();
                problems.push(problem);
                Err(())
            }
        };
        if again.is_ok() {
            self.serving.synced(unix_now());
        }
        let problems = problems.join("; ");
        if self.said != problems {
            match problems.as_str() {
                "" => info!("certificates: all in order again"),
                problems => warn!("certificates: {problems}"),
            }
            self.said = problems;
        }
        again
    }

    async fn step(&mut self, problems: &mut Vec<String>) -> Result<Duration, ClusterError> {
        let (secret, configuration) = tokio::join!(self.cluster.secret(), self.cluster.configuration());
        let configuration = configuration?;
        if configuration.is_none() {
            problems.push(format!("{} doesn't exist (yet)", self.cluster.describe(Kind::Configuration)));
        }
        let (configuration_version, configuration) = configuration
            .map_or_else(Default::default, |version| (version.resource_version, version.content));
        let (unread, secret) = match secret {
            Ok(secret) => (None, secret),
            Err(e) => (Some(e), None),
        };
        let stored = secret.as_ref().map(|version| {
            let name = self.cluster.describe(Kind::Secret);
            problems.extend(version.content.1.iter().map(|problem| format!("{name}: {problem}")));
            &version.content.0
        });

        let (now, clock) = (unix_now(), Instant::now());
        let plan = self.replica.plan(stored, &configuration, now, clock);
        if let Some((leaf, ca)) = plan.serve {
            info!(expires = %time(leaf.certificate.not_after), "serving a certificate from the Secret");
            self.serving.serve(leaf.certified, leaf.certificate.not_after, ca.not_after);
        }
        if plan.refused {
            problems.push("no CA is rotated while so many that were replaced are still trusted".into());
        }

        let mut again = plan.again;
        let mut wrote = false;
        if !plan.bundles.is_empty() {
            let pause = self.bundle_pace.pause(clock);
            if pause.is_zero() {
                self.cluster.write_bundles(&configuration_version, &plan.bundles).await?;
                self.bundle_pace.wrote(clock);
                wrote = true;
                let configuration = self.cluster.describe(Kind::Configuration);
                if plan.lost {
                    warn!(
                        "put back a CA that somebody took out of the caBundle of {configuration}: let nothing else manage it"
                    );
                } else {
                    info!("brought the caBundle of {configuration} up to date");
                }
            }
            again = again.min(pause);
        }
        if let Some(problem) = unread {
            return Err(problem);
        }
        let Some(secret) = secret else {
            return self.without_secret(&configuration, clock).await;
        };
        self.gone = None;
        if let Some(change) = plan.change {
            let pause = self.secret_pace.pause(clock);
            if pause.is_zero() {
                self.change(change, &secret.resource_version, &secret.content.0, &configuration, now).await?;
                self.secret_pace.wrote(clock);
                wrote = true;
            }
            again = again.min(pause);
        }
        Ok(if wrote { Duration::ZERO } else { again })
    }

    /// Makes the Secret again, unless the whole release is going.
    async fn without_secret(
        &mut self,
        configuration: &Configuration,
        clock: Instant,
    ) -> Result<Duration, ClusterError> {
        let gone = clock.saturating_duration_since(*self.gone.get_or_insert(clock));
        if configuration.uid.is_empty() {
            // Its watch tells when there is one.
            return Ok(LAST_RETRY);
        }
        if gone < PATIENCE {
            return Ok(PATIENCE.saturating_sub(gone));
        }
        let missing = |e| ClusterError::Failed(format!("the Secret is missing and can't be made: {e}"));
        self.cluster.create_secret(&configuration.uid).await.map(|()| Duration::ZERO).map_err(missing)
    }
}

impl Controller {
    async fn change(
        &self,
        change: Change,
        resource_version: &str,
        stored: &Stored,
        configuration: &Configuration,
        now: i64,
    ) -> Result<(), ClusterError> {
        let after = self.replica.apply(change, stored, configuration, now);
        let after = after.map_err(|e| ClusterError::Failed(format!("can't make a certificate: {e}")))?;
        self.cluster.write_secret(resource_version, &after).await?;
        match change {
            Change::Prepare => {
                info!(hold = ?self.hold, "made a CA; it signs once it has stood in the caBundle for the hold");
            }
            Change::Promote => info!("the new CA signs from now on"),
            Change::RenewLeaf => info!("renewed the certificate"),
            Change::Forget => info!("forgot a replaced certificate that has expired"),
        }
        Ok(())
    }
}

async fn watch(cluster: &Cluster, kind: Kind, changed: &Notify) {
    let mut retry = FIRST_RETRY;
    loop {
        // The first event comes with the object as it is, so after a gap we look again.
        if cluster.watch(kind, || changed.notify_one()).await.is_ok() {
            retry = FIRST_RETRY;
        } else {
            // What is wrong, the reading itself tells.
            sleep(retry).await;
            retry = (retry * 2).min(LAST_RETRY);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use serde_json::json;

    use super::super::fake_api_server::{CONFIGURATION, FakeApiServer, SECRET};
    use super::super::issue::Service;
    use super::super::secret::ROTATE;
    use super::*;

    const HOLD: Duration = Duration::from_mins(1);
    const MOMENT: Duration = Duration::from_secs(1);

    fn start(server: &FakeApiServer) -> Arc<Serving> {
        let (name, namespace) = ("peerpods".to_owned(), "podshaper".to_owned());
        let cluster = Cluster::new(server.client(), namespace.clone(), "tls".into(), name.clone());
        let day = Duration::from_hours(24);
        let (service, serving) = (Service { name, namespace }, Serving::new());
        let settings = Settings { service, hold: HOLD, leaf_lifetime: 90 * day, ca_lifetime: 365 * day };
        tokio::spawn(Controller::new(cluster, settings, serving.clone()).run());
        serving
    }

    /// Two replicas that serve the same leaf.
    async fn installed() -> (FakeApiServer, [Arc<Serving>; 2]) {
        let server = FakeApiServer::new();
        let replicas = [start(&server), start(&server)];
        sleep(MOMENT).await;
        assert!(replicas.iter().all(|replica| replica.ready()));
        assert_eq!(replicas[0].leaf(), replicas[1].leaf());
        (server, replicas)
    }

    fn rotate(server: &FakeApiServer, what: &str) {
        let mut secret = server.get(SECRET);
        secret["metadata"]["annotations"][ROTATE] = what.into();
        server.put(SECRET, secret);
    }

    #[tokio::test(start_paused = true)]
    async fn two_replicas_agree_within_a_moment_and_then_rest() {
        let (server, replicas) = installed().await;
        assert_eq!(server.trusted(), [1, 1]);
        let secret = server.get(SECRET);
        assert_eq!(
            (&secret["data"]["foreign"], &secret["metadata"]["labels"]["a"]),
            (&json!("eA=="), &json!("b"))
        );
        let patches = server.patches();
        sleep(100 * HOLD).await;
        assert_eq!(server.patches(), patches);
        for replica in &replicas {
            assert_eq!((replica.facts().errors, replica.facts().replacements), (0, 0));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_leaf_is_replaced_at_once_and_a_ca_after_the_hold() {
        let (server, replicas) = installed().await;
        let first = replicas[0].leaf();
        rotate(&server, "leaf");
        sleep(MOMENT).await;
        let second = replicas[0].leaf();
        assert!(first != second && second == replicas[1].leaf());
        assert_eq!(server.trusted(), [1, 1]);

        rotate(&server, "ca");
        sleep(MOMENT).await;
        assert_eq!(server.trusted(), [2, 2]);
        assert_eq!(server.get(SECRET)["metadata"]["annotations"][ROTATE], json!(null));
        sleep(HOLD * 9 / 10).await;
        assert!(replicas.iter().all(|replica| replica.leaf() == second));
        sleep(HOLD / 10 + MOMENT).await;
        assert!(replicas.iter().all(|replica| replica.leaf() != second));
        assert_eq!(replicas[0].leaf(), replicas[1].leaf());
        assert_eq!(server.trusted(), [2, 2], "the old CA stays as long as a leaf under it is valid");
        assert_eq!(replicas[0].facts().replacements, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_others_take_away_is_put_back() {
        let (server, replicas) = installed().await;
        let leaf = replicas[0].leaf();
        let mut configuration = server.get(CONFIGURATION);
        configuration["webhooks"][1]["clientConfig"]["caBundle"] = "Cg==".into();
        server.put(CONFIGURATION, configuration);
        sleep(MOMENT).await;
        assert_eq!(server.trusted(), [1, 1]);

        server.delete(SECRET);
        sleep(PATIENCE + MOMENT).await;
        assert_eq!(server.trusted(), [2, 2]);
        let owner = &server.get(SECRET)["metadata"]["ownerReferences"][0];
        assert_eq!(
            owner["uid"],
            server.get(CONFIGURATION)["metadata"]["uid"],
            "it is of no release, and goes all the same"
        );
        assert!(
            replicas.iter().all(|replica| replica.leaf() == leaf),
            "the leaf of old serves during the hold"
        );
        sleep(2 * HOLD).await;
        assert!(replicas.iter().all(|replica| replica.leaf() != leaf));
        assert_eq!(replicas[0].leaf(), replicas[1].leaf());
    }

    /// Its Secret and its configuration go one after the other, and its replicas last.
    #[tokio::test(start_paused = true)]
    async fn of_a_release_that_goes_no_secret_stays() {
        let (server, replicas) = installed().await;
        let leaf = replicas[0].leaf();
        server.delete(SECRET);
        sleep(PATIENCE / 2).await;
        server.delete(CONFIGURATION);
        sleep(10 * PATIENCE).await;
        assert!(server.get(SECRET).is_null());
        assert!(replicas.iter().all(|replica| replica.leaf() == leaf), "calls under way are answered");
    }

    #[tokio::test(start_paused = true)]
    async fn somebody_who_insists_is_not_fought_without_end() {
        let (server, _replicas) = installed().await;
        let before = server.patches();
        for _ in 0..600 {
            let mut configuration = server.get(CONFIGURATION);
            configuration["webhooks"][0]["clientConfig"]["caBundle"] = "Cg==".into();
            server.put(CONFIGURATION, configuration);
            sleep(Duration::from_millis(100)).await;
        }
        let tries = server.patches() - before;
        assert!((8..40).contains(&tries), "{tries} in a minute");
        sleep(HOLD).await;
        assert_eq!(server.trusted(), [1, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn without_the_api_server_the_certificate_stays() {
        let (server, replicas) = installed().await;
        let leaf = replicas[0].leaf();
        server.refuse(Some(("/", StatusCode::INTERNAL_SERVER_ERROR)));
        sleep(10 * HOLD).await;
        assert!(replicas.iter().all(|replica| replica.ready() && replica.leaf() == leaf));
        let errors = replicas[0].facts().errors;
        assert!((10..60).contains(&errors), "{errors} in ten minutes");
        server.refuse(None);
        rotate(&server, "leaf");
        sleep(HOLD).await;
        assert!(replicas.iter().all(|replica| replica.leaf() != leaf && replica.facts().errors >= errors));
    }

    #[tokio::test(start_paused = true)]
    async fn without_the_right_to_the_secret_the_bundle_is_still_kept() {
        let (server, replicas) = installed().await;
        server.refuse(Some((SECRET, StatusCode::FORBIDDEN)));
        let mut configuration = server.get(CONFIGURATION);
        configuration["webhooks"][0]["clientConfig"]["caBundle"] = "Cg==".into();
        server.put(CONFIGURATION, configuration);
        sleep(MOMENT).await;
        assert_eq!(server.trusted(), [1, 1]);
        assert!(replicas[0].facts().errors > 0 && replicas[0].ready());
    }

    #[tokio::test(start_paused = true)]
    async fn it_waits_for_a_configuration_that_comes_late() {
        let server = FakeApiServer::new();
        let configuration = server.get(CONFIGURATION);
        server.delete(CONFIGURATION);
        let replica = start(&server);
        sleep(HOLD).await;
        assert!(!replica.ready());
        server.put(CONFIGURATION, configuration);
        sleep(MOMENT).await;
        assert!(replica.ready());
    }
}
