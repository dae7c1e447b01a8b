//! Images of every kind, from public bug reports, and what becomes of a pod with each.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arch_decision::config::Settings;
use podshaper_core::admission::Verdict;
use serde_json::{Value, json};
use support::registry::{Registry, digest, index_of};
use support::resolver::{images, runs_on};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const SOCI: &str = "application/vnd.amazon.soci.index.v2+json";

/// The contents of a registry.
#[derive(Default)]
struct Contents(Vec<(String, Vec<u8>)>);

impl Contents {
    /// Adds a document and returns its digest.
    fn add(&mut self, kind: &str, document: &Value) -> String {
        let body = document.to_string().into_bytes();
        let digest = digest(&body);
        self.0.push((format!("a/{kind}/{digest}"), body));
        digest
    }

    /// Adds an image with a configuration of this media type, and returns the digest of its manifest.
    fn image(&mut self, config_type: &str, config: &Value) -> String {
        let config = self.add("blobs", config);
        self.add(
            "manifests",
            &json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": [],
                "config": {"mediaType": config_type, "digest": config, "size": 1}}),
        )
    }

    fn linux(&mut self, architecture: &str) -> String {
        self.image(OCI_CONFIG, &platform("linux", architecture))
    }

    /// Names a manifest.
    fn tag(&mut self, tag: &str, digest: &str) {
        let path = format!("a/manifests/{digest}");
        let body = self.0.iter().find(|(own, _)| *own == path).unwrap().1.clone();
        self.0.push((format!("a/manifests/{tag}"), body));
    }

    fn tag_index(&mut self, tag: &str, entries: Vec<Value>) {
        self.0.push((format!("a/manifests/{tag}"), index_of(entries)));
    }
}

fn platform(os: &str, architecture: &str) -> Value {
    json!({"os": os, "architecture": architecture})
}

fn entry(digest: &str, platform: &Value) -> Value {
    let mut entry = json!({"mediaType": OCI_MANIFEST, "digest": digest, "size": 1});
    if !platform.is_null() {
        entry["platform"] = platform.clone();
    }
    entry
}

fn with_type(mut entry: Value, artifact_type: &str) -> Value {
    entry["artifactType"] = json!(artifact_type);
    entry
}

async fn registry() -> Registry {
    let mut all = Contents::default();
    let amd = all.linux("amd64");
    let arm = all.linux("arm64");
    all.tag("amd", &amd);
    all.tag("arm", &arm);
    let multi = vec![entry(&amd, &platform("linux", "amd64")), entry(&arm, &platform("linux", "arm64"))];
    let gone = format!("sha256:{}", "ab".repeat(32));
    let also = |more: Vec<Value>| [multi.clone(), more].concat();
    all.tag_index("multi", multi.clone());

    let windows =
        entry(&gone, &json!({"os": "windows", "architecture": "amd64", "os.version": "10.0.20348.1"}));
    all.tag_index("windows", vec![windows.clone()]);
    all.tag_index("windows-and-linux", also(vec![windows]));

    let wasm = all.image(OCI_CONFIG, &platform("wasip1", "wasm"));
    all.tag("wasm", &wasm);
    all.tag_index("wasm-index", vec![entry(&gone, &platform("wasi", "wasm"))]);
    all.tag_index("wasm-on-linux", vec![entry(&gone, &platform("linux", "wasm"))]);
    let wasm = all.image("application/vnd.wasm.config.v0+json", &platform("wasip1", "wasm"));
    all.tag("wasm-artifact", &wasm);

    let mut bundle = platform("linux", "amd64");
    bundle["config"] =
        json!({"Labels": {"operators.operatorframework.io.bundle.mediatype.v1": "registry+v1"}});
    let bundle = all.image(OCI_CONFIG, &bundle);
    all.tag("bundle", &bundle);
    let attestation = entry(&gone, &platform("unknown", "unknown"));
    all.tag_index("bundle-index", vec![entry(&bundle, &platform("linux", "amd64")), attestation.clone()]);
    all.tag_index("bundle-unnamed", vec![entry(&bundle, &Value::Null), attestation.clone()]);
    all.tag_index("amd-index", vec![entry(&amd, &platform("linux", "amd64")), attestation]);

    all.tag_index("sparse", vec![multi[0].clone(), entry(&gone, &platform("linux", "arm64"))]);
    all.tag_index("amd-gone", vec![entry(&gone, &platform("linux", "amd64"))]);
    let without_digest = json!({"mediaType": OCI_MANIFEST, "platform": platform("linux", "s390x")});
    all.tag_index("odd-entries", also(vec![Value::Null, without_digest, json!({})]));
    all.tag_index("unnamed-gone", also(vec![entry(&gone, &Value::Null)]));
    let many = (0..30).map(|n| entry(&format!("sha256:{n:064}"), &Value::Null));
    all.tag_index("unnamed-many", also(many.collect()));
    let signatures = (0..30)
        .map(|n| with_type(entry(&format!("sha256:{n:064}"), &Value::Null), "application/vnd.example.sig"));
    all.tag_index("signatures", also(signatures.collect()));
    all.tag_index("soci", vec![multi[0].clone(), with_type(entry(&gone, &platform("linux", "arm64")), SOCI)]);
    let unnamed = vec![entry(&gone, &Value::Null), entry(&arm, &Value::Null)];
    all.tag_index("unnamed-only", unnamed);

    let level = json!({"os": "linux", "architecture": "amd64", "variant": "v3"});
    all.tag_index("amd64v3", vec![entry(&gone, &level)]);
    all.tag_index("amd64v3-arm64", vec![entry(&gone, &level), multi[1].clone()]);

    let octet = all.image("application/octet-stream", &platform("linux", "amd64"));
    all.tag("octet", &octet);
    let untyped = all.image("", &json!({"architecture": "arm64", "rootfs": {"type": "layers"}}));
    all.tag("untyped", &untyped);
    let chart = all.image("application/vnd.cncf.helm.config.v1+json", &json!({"name": "chart"}));
    all.tag("chart", &chart);
    let model = all.image("application/vnd.example.model", &json!({"architecture": "transformer"}));
    all.tag("model", &model);
    let nothing = all.image(OCI_CONFIG, &json!({"architecture": "", "os": ""}));
    all.tag("no-platform", &nothing);
    let old = all.add("manifests", &json!({"schemaVersion": 1, "architecture": "amd64", "fsLayers": []}));
    all.tag("schema1", &old);
    let contents = all.0.iter().map(|(path, body)| (&**path, body.clone())).collect();
    Registry::of(contents).await
}

/// The result for a pod: what the annotation records, `denied`, or the warnings.
async fn becomes(registry: &Registry, settings: Value, spec: Value) -> String {
    let images = Arc::new(images(&[registry], &json!({}), &[]));
    let webhook = arch_decision::Arch::new(Settings::from_value(settings).unwrap(), images);
    let pod = json!({"metadata": {}, "spec": spec}).to_string();
    let later = Instant::now() + Duration::from_secs(5);
    let decision = webhook.decide(&pod, "ns", later).await;
    let patch: Value = serde_json::from_str(str::from_utf8(&decision.patch.to_json()).unwrap()).unwrap();
    let annotation = patch.as_array().unwrap().iter().find_map(|own| {
        own["path"]
            .as_str()?
            .starts_with("/metadata/annotations/")
            .then(|| own["value"].as_str().map(str::to_owned))?
    });
    match (decision.verdict, annotation) {
        (Verdict::Deny(_), _) => "denied".to_owned(),
        (Verdict::Undecided(why), _) => why,
        (Verdict::Admit, Some(annotation)) => annotation,
        (Verdict::Admit, None) if decision.warnings.is_empty() => "unchanged".to_owned(),
        (Verdict::Admit, None) => {
            assert!(decision.patch.is_empty());
            decision.warnings.join("; ").rsplit(':').next().unwrap().split_once(' ').unwrap().1.to_owned()
        }
    }
}

#[tokio::test]
async fn image_decides_about_its_pod() {
    let registry = registry().await;
    let two = json!({"amd64": {}, "arm64": {"taintsToTolerate": [{"key": "kubernetes.io/arch", "value": "arm64", "effect": "NoSchedule"}]}});
    for (image, open, of_two) in [
        ("multi", "amd64,arm64", "amd64,arm64"),
        ("windows", "windows", "windows"),
        ("windows-and-linux", "amd64,arm64", "amd64,arm64"),
        ("wasm", "is for wasip1/wasm, which is no platform of Kubernetes nodes", ""),
        ("wasm-index", "is for wasi/wasm, which is no platform of Kubernetes nodes", ""),
        ("wasm-on-linux", "is for linux/wasm, which is no platform of Kubernetes nodes", ""),
        ("wasm-artifact", "is for wasip1/wasm, which is no platform of Kubernetes nodes", ""),
        ("bundle", "unchanged", "unchanged"),
        ("bundle-index", "unchanged", "unchanged"),
        ("bundle-unnamed", "unchanged", "unchanged"),
        ("amd-index", "amd64", "amd64"),
        ("amd-gone", "amd64", "amd64"),
        ("odd-entries", "amd64,arm64", "amd64,arm64"),
        ("sparse", "amd64,arm64", "amd64,arm64"),
        ("unnamed-gone", "amd64,arm64", "amd64,arm64"),
        ("unnamed-many", "amd64,arm64", "amd64,arm64"),
        ("signatures", "amd64,arm64", "amd64,arm64"),
        ("soci", "amd64", "amd64"),
        ("unnamed-only", "arm64", "arm64"),
        ("amd64v3", "amd64", "amd64"),
        ("amd64v3-arm64", "arm64", "arm64"),
        ("octet", "amd64", "amd64"),
        ("untyped", "arm64", "arm64"),
        ("chart", "is an artifact without an architecture", ""),
        ("model", "is an artifact without an architecture", ""),
        ("no-platform", "is no image that can be understood", ""),
        ("schema1", "amd64", "amd64"),
        ("none", "isn't there", ""),
    ] {
        let spec = json!({"containers": [{"name": "c", "image": format!("{}/a:{image}", registry.host()), "imagePullPolicy": "IfNotPresent"}]});
        assert_eq!(becomes(&registry, json!({}), spec.clone()).await, open, "{image}");
        let of_two = if of_two.is_empty() { open } else { of_two };
        assert_eq!(becomes(&registry, json!({"architectures": two}), spec).await, of_two, "{image}");
    }
    let requests =
        registry.asked().iter().filter(|asked| asked.path.contains("manifests/sha256:000")).count();
    assert!(requests < 2 * 24, "entries of the index with many: {requests}");
}

#[tokio::test]
async fn operator_bundle_does_not_decide_about_the_job_that_unpacks_it() {
    let registry = registry().await;
    let image = |tag: &str| format!("{}/a:{tag}", registry.host());
    let toleration =
        |architecture: &str| json!({"key": "kubernetes.io/arch", "value": architecture, "operator": "Equal"});
    let tolerations = ["amd64", "arm64", "ppc64le", "s390x"].map(toleration);
    for bundle in ["bundle", "bundle-index", "bundle-unnamed"] {
        let spec = json!({
            "initContainers": [{"name": "util", "image": image("multi")}, {"name": "pull", "image": image(bundle)}],
            "containers": [{"name": "extract", "image": image("multi")}],
        });
        let mut tolerating = spec.clone();
        tolerating["tolerations"] = json!(tolerations);
        let arm = json!({"architectures": {"arm64": {}, "s390x": {}}});
        for spec in [spec, tolerating] {
            assert_eq!(becomes(&registry, json!({}), spec.clone()).await, "amd64,arm64", "{bundle}");
            assert_eq!(becomes(&registry, arm.clone(), spec).await, "arm64", "{bundle}");
        }
    }
}

#[tokio::test]
async fn mislabelled_image_is_refused_without_a_statement() {
    let registry = registry().await;
    let spec = json!({"containers": [{"name": "c", "image": format!("{}/a:amd", registry.host()), "imagePullPolicy": "IfNotPresent"}]});
    let settings = |images: Value| json!({"architectures": {"arm64": {}}, "images": images});
    assert_eq!(becomes(&registry, settings(json!([])), spec.clone()).await, "denied");
    let pattern = format!("{}/a:am*", registry.host());
    let stated = settings(json!([{"match": pattern, "architectures": ["arm64"]}]));
    assert_eq!(becomes(&registry, stated, spec.clone()).await, "unchanged");
    let mut two = spec.clone();
    two["containers"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "d", "image": format!("{}/a:arm", registry.host())}));
    let mixed = |images: Value| json!({"architectures": {"amd64": {}, "arm64": {}}, "images": images});
    assert_eq!(becomes(&registry, mixed(json!([])), two.clone()).await, "denied");
    let overridden = json!([{"match": pattern, "architectures": ["arm64"]}]);
    assert_eq!(becomes(&registry, mixed(overridden), two).await, "arm64");
    let ignored = settings(json!([{"match": format!("{}/*", registry.host()), "ignore": true}]));
    let before = registry.asked().len();
    assert_eq!(becomes(&registry, ignored, spec).await, "unchanged");
    assert_eq!(registry.asked().len(), before, "no request");
}

#[tokio::test]
async fn index_without_a_readable_entry_is_unknown() {
    let gone = entry(&format!("sha256:{}", "ab".repeat(32)), &Value::Null);
    let registry = Registry::of(vec![("a/manifests/1", index_of(vec![gone]))]).await;
    let found = runs_on(&images(&[&registry], &json!({}), &[]), &format!("{}/a:1", registry.host())).await;
    assert_eq!(found, Err(arch_decision::images::LookupError::NotFound));
}
