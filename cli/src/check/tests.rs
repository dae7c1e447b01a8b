//! A cluster with one installation of `distributor`, and with one fault each.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use podshaper_testing::InMemoryApiServer;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};

use super::finding::{Finding, Level};
use super::snapshot::{Read, Snapshot};
use super::{definitions, findings};

const CONFIGURATION: &str =
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/rel-distributor";
const SECRET: &str = "/api/v1/namespaces/sys/secrets/rel-distributor-self-managed";
const SLICE: &str = "/apis/discovery.k8s.io/v1/namespaces/sys/endpointslices/rel-distributor-1";
const SERVICE: &str = "/api/v1/namespaces/sys/services/rel-distributor";
const POLICY: &str = "/apis/networking.k8s.io/v1/namespaces/sys/networkpolicies/deny";
const DISTRIBUTOR: &str = "/apis/versprei.versprei.io/v1beta1/namespaces/shop/poddistributors/web";

struct Issued {
    authority: String,
    chain: String,
}

/// A CA and a leaf that it signed, which end at this time.
fn issue(not_after: SystemTime) -> Issued {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_after = not_after.into();
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let mut leaf = CertificateParams::new(["rel-distributor.sys.svc".to_owned()]).unwrap();
    leaf.not_after = not_after.into();
    let leaf = leaf.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
    Issued { authority: STANDARD.encode(issuer.pem()), chain: STANDARD.encode(leaf.pem()) }
}

fn labels() -> Value {
    json!({
        "app.kubernetes.io/name": "distributor", "app.kubernetes.io/instance": "rel",
        "app.kubernetes.io/component": "webhook", "app.kubernetes.io/part-of": "podshaper",
    })
}

fn installed(issued: &Issued) -> InMemoryApiServer {
    let server = InMemoryApiServer::default();
    server.put("/version", json!({"major": "1", "minor": "36", "gitVersion": "v1.36.3"}));
    let service = json!({"namespace": "sys", "name": "rel-distributor", "path": "/mutate", "port": 443});
    server.put(
        CONFIGURATION,
        json!({
            "metadata": {"name": "rel-distributor", "labels": labels()},
            "webhooks": [{"clientConfig": {"service": service, "caBundle": issued.authority}}],
        }),
    );
    server.put(SERVICE, json!({"metadata": {"name": "rel-distributor", "namespace": "sys"}}));
    server.put(
        SLICE,
        json!({
            "metadata": {
                "name": "rel-distributor-1", "namespace": "sys",
                "labels": {"kubernetes.io/service-name": "rel-distributor"},
            },
            "endpoints": [{"conditions": {"ready": true}}, {"conditions": {"ready": false}}],
        }),
    );
    server.put(
        "/apis/apps/v1/namespaces/sys/deployments/rel-distributor",
        json!({
            "metadata": {"name": "rel-distributor", "namespace": "sys", "labels": labels()},
            "spec": {"template": {"metadata": {"labels": labels()}, "spec": {
                "serviceAccountName": "rel-distributor",
                "containers": [{
                    "args": ["serve", "--self-managed-secret=rel-distributor-self-managed"],
                    "ports": [{"name": "webhook", "containerPort": 9443}],
                }],
            }}},
        }),
    );
    server.put(
        SECRET,
        json!({"metadata": {"name": "rel-distributor-self-managed"}, "data": {"tls.crt": issued.chain}}),
    );
    for name in definitions::NAMES {
        let established = json!([{"type": "Established", "status": "True"}]);
        server.put(
            &format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"),
            json!({"metadata": {"name": name}, "status": {"conditions": established}}),
        );
    }
    server.put(
        DISTRIBUTOR,
        json!({
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}},
            "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "Placing"}]},
        }),
    );
    server
}

/// The findings about the server, with a webhook that answers.
async fn check(server: &InMemoryApiServer) -> Vec<Finding> {
    let mut snapshot = Snapshot::read(&server.client()).await.unwrap();
    for webhook in snapshot.webhooks.found() {
        let name = super::webhook::name(webhook).unwrap().to_owned();
        snapshot.answers.insert(name, Read::Found(Ok(())));
    }
    findings(&snapshot, SystemTime::now())
}

fn in_days(days: u64) -> SystemTime {
    SystemTime::now() + Duration::from_hours(24 * days)
}

/// The only finding that is not passed.
fn only(findings: Vec<Finding>) -> Finding {
    let mut notable: Vec<_> = findings.into_iter().filter(|finding| finding.level != Level::Passed).collect();
    assert_eq!(notable.len(), 1, "{notable:#?}");
    notable.remove(0)
}

fn assert_failed(finding: &Finding, text: &str, hint: &str) {
    assert_eq!(finding.level, Level::Failed, "{finding:?}");
    assert!(finding.text.contains(text), "{finding:?}");
    assert!(finding.hint.contains(hint), "{finding:?}");
}

#[tokio::test]
async fn healthy_installation_passes_every_check() {
    let found = check(&installed(&issue(in_days(90)))).await;
    assert!(found.iter().all(|finding| finding.level == Level::Passed), "{found:#?}");
    assert!(found.len() >= 9, "{found:#?}");
}

#[tokio::test]
async fn empty_cluster_fails_with_the_command_that_installs() {
    let server = InMemoryApiServer::default();
    server.put("/version", json!({"major": "1", "minor": "30+", "gitVersion": "v1.30.1-gke"}));
    assert_failed(&only(check(&server).await), "no webhook is installed", "helm install");
}

#[tokio::test]
async fn old_api_server_fails() {
    let server = installed(&issue(in_days(90)));
    server.put("/version", json!({"major": "1", "minor": "29", "gitVersion": "v1.29.9"}));
    assert_failed(&only(check(&server).await), "v1.29.9", "1.30 or later");
}

#[tokio::test]
async fn foreign_ca_bundle_fails() {
    let server = installed(&issue(in_days(90)));
    let foreign = issue(in_days(90)).authority;
    server.patch(
        CONFIGURATION,
        &json!({"webhooks": [{"clientConfig": {
            "service": {"namespace": "sys", "name": "rel-distributor"}, "caBundle": foreign,
        }}]}),
    );
    assert_failed(&only(check(&server).await), "is not of a CA in the caBundle", "kubectl logs");
}

#[tokio::test]
async fn empty_ca_bundle_fails() {
    let server = installed(&issue(in_days(90)));
    server.patch(
        CONFIGURATION,
        &json!({
            "metadata": {"annotations": {"cert-manager.io/inject-ca-from": "sys/rel-distributor"}},
            "webhooks": [{"clientConfig": {"service": {"namespace": "sys", "name": "rel-distributor"}}}],
        }),
    );
    assert_failed(&only(check(&server).await), "no CA in its caBundle", "cainjector");
}

#[tokio::test]
async fn expired_certificate_fails() {
    let server = installed(&issue(in_days(90)));
    let now = in_days(91) - Duration::from_hours(1);
    let snapshot = Snapshot::read(&server.client()).await.unwrap();
    let found = findings(&snapshot, now);
    let expired: Vec<_> =
        found.iter().filter(|finding| finding.text.contains("expired 1 days ago")).collect();
    assert_eq!(expired.len(), 2, "{found:#?}");
}

#[tokio::test]
async fn certificate_that_expires_soon_gets_a_warning() {
    let server = installed(&issue(in_days(90)));
    let snapshot = Snapshot::read(&server.client()).await.unwrap();
    let found = findings(&snapshot, in_days(80) - Duration::from_hours(1));
    assert!(
        found.iter().any(|f| f.level == Level::Warning && f.text.contains("expires in 10 days")),
        "{found:#?}"
    );
}

#[tokio::test]
async fn webhook_without_ready_endpoints_fails() {
    let server = installed(&issue(in_days(90)));
    server.patch(SLICE, &json!({"endpoints": [{"conditions": {"ready": false}}]}));
    assert_failed(&only(check(&server).await), "no ready endpoint", "kubectl describe pods --show-events");
    server
        .patch("/apis/apps/v1/namespaces/sys/deployments/rel-distributor", &json!({"spec": {"replicas": 0}}));
    let scale = "kubectl scale deployment rel-distributor --namespace sys --replicas=2";
    assert_failed(&only(check(&server).await), "no ready endpoint", scale);
}

#[tokio::test]
async fn missing_service_fails() {
    let server = installed(&issue(in_days(90)));
    server.delete(SERVICE);
    assert_failed(&only(check(&server).await), "which does not exist", "helm upgrade");
}

#[tokio::test]
async fn missing_definition_fails() {
    let server = installed(&issue(in_days(90)));
    server.delete("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/placements.podshaper.dev");
    assert_failed(
        &only(check(&server).await),
        "placements.podshaper.dev, which does not exist",
        "kubectl podshaper distributor crd | kubectl apply --server-side --filename -",
    );
}

#[tokio::test]
async fn missing_right_for_an_owner_kind_fails() {
    let server = installed(&issue(in_days(90)));
    server.patch(
        DISTRIBUTOR,
        &json!({"spec": {"target": {"apiVersion": "apps.kruise.io/v1alpha1", "kind": "CloneSet"}}}),
    );
    let mut snapshot = Snapshot::read(&server.client()).await.unwrap();
    let kinds = super::owners::owner_kinds(&snapshot);
    assert_eq!(kinds.iter().map(|kind| kind.plural.as_str()).collect::<Vec<_>>(), ["clonesets"]);
    snapshot.owners = kinds.into_iter().map(|kind| (kind, Read::Found(false))).collect();
    let found = super::owners::check(&snapshot);
    assert_failed(
        &found[0],
        "may not read clonesets.apps.kruise.io",
        r#"helm upgrade rel oci://ghcr.io/podshaper/charts/podshaper --namespace sys --reuse-values --set-json 'distributor.owners=[{"apiGroup":"apps.kruise.io","resources":["clonesets"]}]'"#,
    );
}

#[tokio::test]
async fn network_policy_that_admits_pods_alone_fails() {
    let server = installed(&issue(in_days(90)));
    let policy = |from: Value| {
        json!({
            "metadata": {"name": "deny", "namespace": "sys"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": from, "ports": [{"port": "webhook"}]}]},
        })
    };
    server.put(POLICY, policy(json!([{"podSelector": {}}])));
    assert_failed(&only(check(&server).await), "cut the API server off", "TCP port 9443");
    server.put(POLICY, policy(json!([{"ipBlock": {"cidr": "10.0.0.0/8"}}])));
    assert!(check(&server).await.iter().all(|finding| finding.level == Level::Passed));
    server.put(POLICY, policy(json!([])));
    assert!(check(&server).await.iter().all(|finding| finding.level == Level::Passed));
    let mut other_pods = policy(json!([{"podSelector": {}}]));
    other_pods["spec"]["podSelector"] = json!({"matchExpressions": [{"key": "app.kubernetes.io/name", "operator": "NotIn", "values": ["distributor"]}]});
    server.put(POLICY, other_pods);
    assert!(check(&server).await.iter().all(|finding| finding.level == Level::Passed));
}

#[tokio::test]
async fn condition_of_a_policy_is_a_warning_with_its_message() {
    let server = installed(&issue(in_days(90)));
    let condition = json!({"type": "Ready", "status": "False", "reason": "TargetNotFound", "message": "no Deployment web"});
    server.patch(DISTRIBUTOR, &json!({"status": {"conditions": [condition]}}));
    let finding = only(check(&server).await);
    assert_eq!((finding.level, finding.hint.as_str()), (Level::Warning, "no Deployment web"));
    assert_eq!(finding.text, "PodDistributor shop/web is not ready: TargetNotFound");
}

#[tokio::test]
async fn check_without_permission_is_skipped_by_name() {
    let server = installed(&issue(in_days(90)));
    server.fail("/api/v1/namespaces/sys/secrets", 403, "Forbidden");
    let finding = only(check(&server).await);
    assert_eq!(finding.level, Level::Skipped);
    assert!(
        finding.text.starts_with("the serving certificate of rel-distributor: not checked"),
        "{finding:?}"
    );
}

#[test]
fn report_has_marks_and_hints() {
    let mut out = Vec::new();
    Finding::failed("a\u{1b}[2J", "do\nthis").print(&mut out, false).unwrap();
    Finding::passed("b").print(&mut out, true).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text, "× a [2J\n    do\n    this\n\x1b[32m√\x1b[0m b\n");
}
