//! `peerpods` in a cluster, installed by the chart: pods keep their size under certificate rotation, restarts and
//! LimitRanges.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use e2e::authority::Authority;
use e2e::cluster::{PATIENCE, apply, create, eventually, get, kubectl, output};
use e2e::release::{Release, is_shaped, peer_pod};
use e2e::stream::Stream;
use serde_json::{Value, json};

/// The time between publishing a new CA and serving a certificate of it. Shorter than the chart's default.
fn hold() -> Duration {
    let seconds = std::env::var("PODSHAPER_TEST_HOLD").ok().and_then(|s| s.parse().ok()).unwrap_or(5);
    Duration::from_secs(seconds)
}

fn hold_flag() -> String {
    format!("{}s", hold().as_secs())
}

#[tokio::test]
async fn self_managed_certificates_rotate_under_load() {
    let values = json!({"peerpods": {"extraArgs": [format!("--cert-hold={}", hold_flag())]}});
    let release = Release::install("self-managed", &values).await;
    assert!(is_shaped(&create(&peer_pod(&release.pods), &[]).await.unwrap()));
    output("helm", &["test", &release.name, "--namespace", &release.name, "--timeout=60s"], "").await;

    let secret = format!("{}-self-managed", release.fullname());
    let data =
        async |key: &str| get(&["--namespace", &release.name, "secret", &secret]).await["data"][key].clone();
    let stream = Stream::start(&release).await;
    for (what, key) in [("leaf", "tls.crt"), ("ca", "tls.crt")] {
        let leaf = data(key).await;
        let bundle = release.ca_bundle().await;
        release.kubectl(&["annotate", "secret", &secret, &format!("podshaper.dev/rotate={what}")]).await;
        let patience = PATIENCE + 2 * hold();
        eventually(&format!("a new {what}"), patience, async || (data(key).await != leaf).then_some(()))
            .await;
        stream.flows().await;
        assert_eq!(release.ca_bundle().await != bundle, what == "ca", "a new {what} and the bundle");
    }
    release.restart().await;
    stream.flows().await;
    stream.stop().await;
}

#[tokio::test]
async fn wiped_ca_bundle_is_restored() {
    let release = Release::install("wiped", &json!({})).await;
    let bundle = release.ca_bundle().await;
    let wipe = r#"[{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]"#;
    kubectl(&["patch", "mutatingwebhookconfiguration", &release.fullname(), "--type=json", "--patch", wipe])
        .await;
    eventually("the bundle is back", PATIENCE, async || (release.ca_bundle().await == bundle).then_some(()))
        .await;
    eventually("pods are shaped", PATIENCE, async || {
        create(&peer_pod(&release.pods), &[]).await.ok().filter(is_shaped)
    })
    .await;
    // An upgrade doesn't change it.
    release.upgrade(&json!({"peerpods": {"timeoutSeconds": 7}})).await;
    assert_eq!(release.ca_bundle().await, bundle);
}

#[tokio::test]
async fn deleted_secret_is_restored() {
    let release = Release::install("deleted", &json!({})).await;
    let secret = format!("{}-self-managed", release.fullname());
    release.kubectl(&["delete", "secret", &secret]).await;
    eventually("there is a certificate again", PATIENCE, async || {
        let certificate =
            ["get", "secret", &secret, "--ignore-not-found", "-o", "jsonpath={.data.tls\\.crt}"];
        (!release.kubectl(&certificate).await.is_empty()).then_some(())
    })
    .await;
    // A new pod of the webhook serves the restored Secret.
    release.restart().await;
    assert!(is_shaped(&create(&peer_pod(&release.pods), &[]).await.unwrap()));
}

#[tokio::test]
async fn disabled_webhook_can_be_enabled() {
    let release = Release::install("switched", &json!({})).await;
    let secret = format!("{}-self-managed", release.fullname());
    release.upgrade(&json!({"peerpods": {"enabled": false}})).await;
    eventually("its pods are gone", PATIENCE, async || {
        release.kubectl(&["get", "pods", "-o", "name"]).await.is_empty().then_some(())
    })
    .await;
    assert_eq!(release.kubectl(&["get", "secret", &secret, "--ignore-not-found"]).await, "");
    release.upgrade(&json!({"peerpods": {"enabled": true}})).await;
    assert!(is_shaped(&create(&peer_pod(&release.pods), &[]).await.unwrap()));
}

#[tokio::test]
async fn cert_manager_certificates_rotate_under_load() {
    let values = json!({"tls": {"mode": "certManager", "certHold": hold_flag()}});
    let release = Release::install("cert-manager-mode", &values).await;
    eventually("pods are shaped", PATIENCE, async || {
        create(&peer_pod(&release.pods), &[]).await.ok().filter(is_shaped)
    })
    .await;
    let stream = Stream::start(&release).await;
    let name = release.fullname();
    for certificate in [name.clone(), format!("{name}-ca"), name.clone()] {
        let revision = async || {
            get(&["--namespace", &release.name, "certificate", &certificate]).await["status"]["revision"]
                .as_u64()
        };
        let before = revision().await;
        // Like `cmctl renew`.
        let renew = json!({"status": {"conditions": [
            {"type": "Ready", "status": "True"},
            {"type": "Issuing", "status": "True", "reason": "ManuallyTriggered", "message": "test"},
        ]}});
        let patch = renew.to_string();
        release
            .kubectl(&[
                "patch",
                "certificate",
                &certificate,
                "--subresource=status",
                "--type=merge",
                "--patch",
                &patch,
            ])
            .await;
        eventually(&format!("{certificate} is issued again"), PATIENCE, async || {
            (revision().await > before).then_some(())
        })
        .await;
        stream.flows().await;
    }
    serves_what_the_secret_holds(&release, &format!("{name}-tls")).await;
    release.restart().await;
    stream.flows().await;
    stream.stop().await;
}

#[tokio::test]
async fn existing_secret_rotates_under_load() {
    let name = "existing-secret";
    let service = format!("{name}-peerpods.{name}.svc");
    let old = Authority::new();
    let new = Authority::new();
    let secret = |authority: &Authority| {
        let (certificate, key) = authority.issue(&service);
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": "given", "namespace": name},
            "stringData": {"tls.crt": certificate, "tls.key": key, "ca.crt": authority.pem()},
        })
    };
    let values = |bundle: &str| json!({"tls": {"mode": "existingSecret", "certHold": hold_flag(), "existingSecret": {"name": "given", "caBundle": bundle}}});
    apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).await;
    apply(&secret(&old)).await;
    let release = Release::install(name, &values(old.pem())).await;
    let stream = Stream::start(&release).await;
    // A new leaf of the same CA, then a bundle of both CAs, a leaf of the new CA, and a bundle of that alone.
    apply(&secret(&old)).await;
    serves_what_the_secret_holds(&release, "given").await;
    release.upgrade(&values(&format!("{}{}", old.pem(), new.pem()))).await;
    apply(&secret(&new)).await;
    serves_what_the_secret_holds(&release, "given").await;
    stream.flows().await;
    release.upgrade(&values(new.pem())).await;
    stream.flows().await;
    release.restart().await;
    stream.flows().await;
    stream.stop().await;
}

/// The pods change their certificate when they are replaced, and the API server trusts it by then or soon after.
#[tokio::test]
async fn pods_are_shaped_after_every_change_of_the_mode() {
    let name = "modes";
    let authority = Authority::new();
    let (certificate, key) = authority.issue(&format!("{name}-peerpods.{name}.svc"));
    apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).await;
    apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": "given", "namespace": name},
        "stringData": {"tls.crt": certificate, "tls.key": key, "ca.crt": authority.pem()},
    }))
    .await;
    let existing =
        json!({"mode": "existingSecret", "existingSecret": {"name": "given", "caBundle": authority.pem()}});
    let own = json!({"mode": "selfManaged"});
    let issued = json!({"mode": "certManager"});
    let release = Release::install(name, &json!({"tls": own})).await;
    // Each mode after each other one.
    for tls in [&issued, &own, &existing, &issued, &existing, &own] {
        release.upgrade(&json!({"tls": tls})).await;
        eventually(&format!("pods are shaped with {}", tls["mode"]), PATIENCE, async || {
            create(&peer_pod(&release.pods), &[]).await.ok().filter(is_shaped)
        })
        .await;
    }
}

/// The binary finds a flag and a key that it does not know, and the API server an invalid condition.
#[tokio::test]
async fn upgrade_with_a_mistake_changes_nothing() {
    let checked = json!({"enabled": true});
    let release = Release::install("mistakes", &json!({"peerpods": {"check": checked}})).await;
    let state = async || {
        let name = release.fullname();
        let configuration = get(&["mutatingwebhookconfiguration", &name]).await["webhooks"].clone();
        let deployment = get(&["--namespace", &release.name, "deployment", &name]).await;
        (configuration, deployment["metadata"]["generation"].clone())
    };
    let before = state().await;
    for (mut values, message) in [
        (json!({"extraArgs": ["--no-such-flag"]}), "unexpected argument '--no-such-flag'"),
        (json!({"config": {"basiss": "Limits"}}), "basiss"),
        (
            json!({"matchConditions": [{"name": "broken", "expression": "object.spec.nodeName =="}]}),
            "the API server rejects the MutatingWebhookConfiguration",
        ),
    ] {
        values["check"] = checked.clone();
        let error = release.try_upgrade(&json!({"peerpods": values})).await.unwrap_err();
        assert!(error.contains(message), "{message} is not in {error}");
        assert_eq!(state().await, before, "{message}");
        let left = release.kubectl(&["get", "pods,serviceaccounts,configmaps", "-o", "name"]).await;
        assert!(!left.contains("-check"), "{left}");
    }
}

/// Waits until every pod of the release serves the certificate that its Secret holds, by the expiry in its metrics.
async fn serves_what_the_secret_holds(release: &Release, secret: &str) {
    let certificate = get(&["--namespace", &release.name, "secret", secret]).await["data"]["tls.crt"].clone();
    let expiry = e2e::authority::not_after(certificate.as_str().expect("a certificate")).to_string();
    eventually(&format!("a certificate until {expiry} is served"), PATIENCE + 2 * hold(), async || {
        let served = release.metric("podshaper_tls_certificate_expiry_timestamp_seconds").await;
        served.iter().all(|served| *served == expiry).then_some(())
    })
    .await;
}

#[tokio::test]
async fn other_and_skipped_pods_are_unchanged() {
    let release = Release::install("left-alone", &json!({})).await;
    let mut others = Vec::new();
    let mut plain = peer_pod(&release.pods);
    plain["spec"].as_object_mut().unwrap().remove("runtimeClassName");
    others.push(plain);
    let mut skipped = peer_pod(&release.pods);
    skipped["metadata"]["labels"] = json!({"podshaper.dev/skip": "true"});
    others.push(skipped);
    others.push(peer_pod("default"));
    for pod in others {
        let created = create(&pod, &["--dry-run=server"]).await.unwrap();
        assert_eq!(created["spec"]["containers"][0]["resources"], pod["spec"]["containers"][0]["resources"]);
        assert_eq!(created["metadata"]["annotations"], Value::Null);
    }
}

/// LimitRanger runs again after the webhooks and sets its defaults on containers without resources. So the API server calls
/// the webhook again.
#[tokio::test]
async fn limit_range_and_second_call_do_not_change_size() {
    let release = Release::install("limit-range", &json!({})).await;
    apply(&json!({
        "apiVersion": "v1", "kind": "LimitRange",
        "metadata": {"name": "defaults", "namespace": release.pods},
        "spec": {"limits": [{"type": "Container", "default": {"cpu": "7", "memory": "7Gi"}, "defaultRequest": {"cpu": "6", "memory": "6Gi"}}]},
    }))
    .await;
    let created = create(&peer_pod(&release.pods), &[]).await.unwrap();
    let annotations = &created["metadata"]["annotations"];
    assert_eq!(annotations["io.katacontainers.config.hypervisor.default_vcpus"], "3", "{created:#}");
    assert_eq!(annotations["io.katacontainers.config.hypervisor.default_memory"], "5120", "{created:#}");
    assert_eq!(
        created["spec"]["containers"][0]["resources"]["limits"]["kata.peerpods.io/vm"], "1",
        "{created:#}"
    );
    let calls: u32 = release
        .metric("podshaper_admission_reviews_total")
        .await
        .iter()
        .map(|n| n.parse::<u32>().unwrap())
        .sum();
    assert_eq!(calls, 2);
}

#[tokio::test]
async fn audit_changes_nothing_and_helm_test_sees_warnings() {
    let release = Release::install("audit", &json!({"peerpods": {"config": {"mode": "audit"}}})).await;
    let pod = peer_pod(&release.pods);
    let created = create(&pod, &["--dry-run=server"]).await.unwrap();
    assert_eq!(created["spec"]["containers"][0]["resources"], pod["spec"]["containers"][0]["resources"]);
    output("helm", &["test", &release.name, "--namespace", &release.name, "--timeout=60s"], "").await;
}

/// The Deployment of cloud-api-adaptor's webhook, with this image.
#[tokio::test]
async fn manifest_of_cloud_api_adaptor_runs_our_image() {
    let release = Release::install(
        "original",
        &json!({"peerpods": {"replicas": 0, "failurePolicy": "Ignore", "podDisruptionBudget": {"enabled": false}}}),
    )
    .await;
    let (namespace, image) =
        (&release.name, format!("ghcr.io/podshaper/peerpods:{}", env!("CARGO_PKG_VERSION")));
    let authority = Authority::new();
    let (certificate, key) = authority.issue(&format!("webhook-service.{namespace}.svc"));
    apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": "webhook-server-cert", "namespace": namespace},
        "stringData": {"tls.crt": certificate, "tls.key": key},
    }))
    .await;
    apply(&json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "controller-manager", "namespace": namespace},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"control-plane": "controller-manager"}},
            "template": {
                "metadata": {"labels": {"control-plane": "controller-manager"}},
                "spec": {
                    "securityContext": {"runAsNonRoot": true},
                    "containers": [{
                        "name": "manager", "image": image, "imagePullPolicy": "Never",
                        "command": ["/manager"],
                        "args": ["--leader-elect", "--health-probe-bind-address=:8081", "--metrics-bind-address=:8443"],
                        "ports": [{"containerPort": 9443, "name": "webhook-server"}],
                        "env": [
                            {"name": "TARGET_RUNTIMECLASS", "value": "kata-remote"},
                            {"name": "POD_VM_EXTENDED_RESOURCE", "value": "kata.peerpods.io/vm"},
                            {"name": "TLS_MIN_VERSION", "value": "VersionTLS12"},
                        ],
                        "livenessProbe": {"httpGet": {"path": "/healthz", "port": 8081}, "initialDelaySeconds": 15, "periodSeconds": 20},
                        "readinessProbe": {"tcpSocket": {"port": 9443}, "initialDelaySeconds": 5, "periodSeconds": 10},
                        "resources": {"limits": {"cpu": "500m", "memory": "128Mi"}, "requests": {"cpu": "10m", "memory": "64Mi"}},
                        "securityContext": {"allowPrivilegeEscalation": false},
                        "volumeMounts": [{"mountPath": "/tmp/k8s-webhook-server/serving-certs", "name": "cert", "readOnly": true}],
                    }],
                    "terminationGracePeriodSeconds": 10,
                    "volumes": [{"name": "cert", "secret": {"defaultMode": 420, "secretName": "webhook-server-cert"}}],
                },
            },
        },
    }))
    .await;
    apply(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "webhook-service", "namespace": namespace},
        "spec": {"ports": [{"port": 443, "targetPort": 9443}], "selector": {"control-plane": "controller-manager"}},
    }))
    .await;
    release.kubectl(&["rollout", "status", "deployment/controller-manager", "--timeout=60s"]).await;
    // The chart's configuration, with the Service of that Deployment.
    let configuration = release.fullname();
    let patch = json!([
        {"op": "add", "path": "/webhooks/0/clientConfig", "value": {
            "service": {"name": "webhook-service", "namespace": namespace, "path": "/mutate-v1-pod"},
            "caBundle": authority.base64(),
        }},
    ])
    .to_string();
    kubectl(&["patch", "mutatingwebhookconfiguration", &configuration, "--type=json", "--patch", &patch])
        .await;
    eventually("pods are shaped", PATIENCE, async || {
        create(&peer_pod(&release.pods), &[]).await.ok().filter(is_shaped)
    })
    .await;
    let raw =
        release.kubectl(&["get", "pods", "--selector=control-plane=controller-manager", "-o", "json"]).await;
    let pods: Value = serde_json::from_str(&raw).unwrap();
    assert_eq!(pods["items"][0]["status"]["containerStatuses"][0]["restartCount"], 0);
}

/// The DaemonSet sets the resource on its node, the kubelet makes it allocatable, and a peer pod runs there.
#[tokio::test]
async fn node_advertises_vms_and_runs_peer_pod() {
    let values = json!({"peerpods": {"nodeCapacity": {"enabled": true, "count": 3, "nodeSelector": null}}});
    let release = Release::install("capacity", &values).await;
    let node = get(&["nodes", "--selector=!fake"]).await["items"][0]["metadata"]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    let advertised = async |count: &str| {
        let status = get(&["node", &node]).await["status"].clone();
        let has = |list: &str| status[list]["kata.peerpods.io/vm"] == count;
        (has("capacity") && has("allocatable")).then_some(())
    };
    eventually("3 VMs are allocatable", PATIENCE, async || advertised("3").await).await;
    let mut pod = peer_pod(&release.pods);
    pod["metadata"] = json!({"name": "runs", "namespace": release.pods});
    pod["spec"].as_object_mut().unwrap().remove("nodeSelector");
    create(&pod, &[]).await.unwrap();
    kubectl(&["--namespace", &release.pods, "wait", "pod/runs", "--for=condition=Ready", "--timeout=60s"])
        .await;
    // Its ServiceAccount may patch neither another resource nor another value.
    let account = format!("system:serviceaccount:{}:{}-node-capacity", release.name, release.fullname());
    for patch in
        [r#"{"status":{"capacity":{"cpu":"999"}}}"#, r#"{"status":{"capacity":{"kata.peerpods.io/vm":"9"}}}"#]
    {
        let arguments = [
            "patch",
            "node",
            &node,
            "--subresource=status",
            "--type=merge",
            "--patch",
            patch,
            "--as",
            &account,
        ];
        let refused = e2e::cluster::run("kubectl", &arguments, "").await;
        assert!(!refused.status.success(), "{patch} was allowed to {account}");
    }
    kubectl(&["--namespace", &release.pods, "delete", "pod", "runs"]).await;
}
