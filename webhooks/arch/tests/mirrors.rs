//! Mirrors and proxies, as the container runtime of the nodes uses them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use arch::image_resolver::ImageResolver;
use arch_decision::config::{MirrorSourcePolicy, Settings};
use arch_decision::images::LookupError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use podshaper_offline::yaml;
use serde_json::{Value, json};
use support::registry::{Registry, config, digest, index, manifest, ok, status};
use support::resolver::{images, runs_on};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// A registry that answers requests only with this query, on each request.
async fn registry_with_query(query: &'static str) -> Registry {
    let blob = config("linux", "s390x");
    let image = manifest(&blob);
    Registry::start(move |asked| {
        let (path, found) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
        let body = if path.contains("/blobs/") { blob.clone() } else { image.clone() };
        let answer = if found == query { ok(&asked, body) } else { status(404) };
        async { answer }
    })
    .await
}

#[tokio::test]
async fn mirror_gets_the_namespace_with_each_request() {
    let mirror = registry_with_query("ns=registry.invalid%3A5000").await;
    let mirrors = json!({"mirrors": {"registry.invalid:5000": {
        "mirrors": [format!("http://{}", mirror.host())], "mirrorSourcePolicy": "NeverContactSource",
    }}});
    let resolver = images(&[], &mirrors, &[]);
    assert_eq!(runs_on(&resolver, "registry.invalid:5000/a:1").await.as_deref(), Ok("linux/s390x"));
    assert_eq!(mirror.asked().len(), 2, "manifest and configuration");

    let without = json!({"mirrors": {"registry.invalid:5000": {
        "mirrors": [{"url": format!("http://{}", mirror.host()), "ns": false}],
        "mirrorSourcePolicy": "NeverContactSource",
    }}});
    let resolver = images(&[], &without, &[]);
    assert_eq!(runs_on(&resolver, "registry.invalid:5000/a:1").await, Err(LookupError::NotFound));
    assert_eq!(mirror.asked().last().unwrap().path, "/v2/a/manifests/1");
}

#[tokio::test]
async fn registry_itself_gets_no_namespace() {
    let registry = registry_with_query("").await;
    let mirrors = json!({"mirrors": {registry.host(): [format!("http://{}", registry.host())]}});
    let resolver = images(&[&registry], &mirrors, &[]);
    assert_eq!(runs_on(&resolver, &format!("{}/a:1", registry.host())).await.as_deref(), Ok("linux/s390x"));
}

#[tokio::test]
async fn mirror_of_a_path_has_its_images_below_its_own_path() {
    let mirror = Registry::of(vec![("ocp/a/manifests/1", index(&["linux/arm64"]))]).await;
    let settings = json!({"mirrors": {"Registry.INVALID/openshift4": {
        "mirrors": [{"url": format!("http://{}/ocp", mirror.host()), "ns": false}], "mirrorSourcePolicy": "NeverContactSource",
    }}});
    let resolver = images(&[], &settings, &[]);
    assert_eq!(runs_on(&resolver, "registry.invalid/openshift4/a:1").await.as_deref(), Ok("linux/arm64"));
    let before = mirror.asked().len();
    for other in ["registry.invalid/openshift45/a:1", "registry.invalid/a:1"] {
        assert_eq!(runs_on(&resolver, other).await, Err(LookupError::Unavailable), "{other}");
    }
    assert_eq!(mirror.asked().len(), before, "images of other paths");
}

#[tokio::test]
async fn source_is_not_asked_with_never_contact_source() {
    let (mirror, source) = (
        Registry::of(Vec::new()).await,
        Registry::start(|asked| async move { ok(&asked, index(&["linux/amd64"])) }).await,
    );
    let host = source.host();
    let policy = |policy: &str| json!({"mirrors": {&host: {"mirrors": [format!("http://{}", mirror.host())], "mirrorSourcePolicy": policy}}});
    let never = images(&[&source], &policy("NeverContactSource"), &[]);
    assert_eq!(runs_on(&never, &format!("{host}/out:1")).await, Err(LookupError::NotFound));
    assert_eq!(source.asked().len(), 0);
    let allowed = images(&[&source], &policy("AllowContactingSource"), &[]);
    assert_eq!(runs_on(&allowed, &format!("{host}/out:1")).await.as_deref(), Ok("linux/amd64"));
    let blocked = json!({"mirrors": {&host: {"mirrorSourcePolicy": "NeverContactSource"}}});
    let blocked = images(&[&source], &blocked, &[]);
    assert_eq!(runs_on(&blocked, &format!("{host}/out:1")).await, Err(LookupError::NotAllowed));
    assert_eq!(source.asked().len(), 1);
}

#[tokio::test]
async fn digest_only_mirror_is_not_asked_for_tags() {
    let body = index(&["linux/arm64"]);
    let by_digest = format!("/v2/a/manifests/{}", digest(&body));
    let (mirror, source) = (
        Registry::start(|asked| async move { ok(&asked, index(&["linux/arm64"])) }).await,
        Registry::start(|asked| async move { ok(&asked, index(&["linux/amd64"])) }).await,
    );
    let host = source.host();
    let mirrors = json!({"mirrors": {&host: [
        {"url": format!("http://{}", mirror.host()), "pullFromMirror": "digest-only", "ns": false},
    ]}});
    let resolver = images(&[&source], &mirrors, &[]);
    assert_eq!(runs_on(&resolver, &format!("{host}/a:1")).await.as_deref(), Ok("linux/amd64"));
    assert_eq!(mirror.asked().len(), 0);
    let name = format!("{host}/a:1@{}", digest(&body));
    assert_eq!(runs_on(&resolver, &name).await.as_deref(), Ok("linux/arm64"));
    assert_eq!(mirror.asked()[0].path, by_digest);
}

/// The URLs of the mirrors of an image, and its registry if that is asked.
fn asked(settings: &Settings, registry: &str, repository: &str, by_digest: bool) -> Vec<String> {
    let (mirrors, policy) = settings.registries.mirrors.of(registry, repository, by_digest);
    let mirrors = mirrors.iter().map(|found| {
        let query = if found.mirror.ns { "?ns" } else { "" };
        format!("{}{}{query}", found.mirror.authority, found.path)
    });
    let source = (policy == MirrorSourcePolicy::AllowContactingSource).then(|| registry.to_owned());
    mirrors.chain(source).collect()
}

#[test]
fn examples_of_node_configurations_are_converted() {
    let settings = |text: &str| Settings::from_value(yaml::parse(text).unwrap()).unwrap();
    let containerd = settings(include_str!("../../../examples/arch/mirrors/containerd.yaml"));
    let openshift = settings(include_str!("../../../examples/arch/mirrors/openshift.yaml"));
    for (settings, registry, repository, by_digest, expected) in [
        (
            &containerd,
            "docker.io",
            "library/nginx",
            false,
            &["harbor.example.com/v2/hub/library/nginx?ns", "docker.io"][..],
        ),
        (
            &containerd,
            "docker.io",
            "library/nginx",
            true,
            &[
                "harbor.example.com/v2/hub/library/nginx?ns",
                "cache.example.com/docker/v2/library/nginx?ns",
                "docker.io",
            ],
        ),
        (&containerd, "quay.io", "a/b", false, &["quay-cache.example.com/v2/a/b?ns"]),
        (&containerd, "ghcr.io", "a/b", false, &["registry.example.com:5000/v2/a/b?ns", "ghcr.io"]),
        (
            &openshift,
            "registry.redhat.io",
            "openshift4/a",
            true,
            &["mirror.example.com:5000/v2/openshift4/a"],
        ),
        (&openshift, "registry.redhat.io", "openshift4/a", false, &[]),
        (&openshift, "registry.redhat.io", "rhel9/a", true, &["registry.redhat.io"]),
        (
            &openshift,
            "a.quay.example.com",
            "b",
            true,
            &["mirror.example.com:5000/v2/quay/b", "a.quay.example.com"],
        ),
        (
            &openshift,
            "registry.access.redhat.com",
            "ubi9/nodejs",
            false,
            &["mirror.example.com:5000/v2/ubi9/nodejs", "registry.access.redhat.com"],
        ),
        (&openshift, "registry.access.redhat.com", "ubi9", true, &["registry.access.redhat.com"]),
    ] {
        assert_eq!(asked(settings, registry, repository, by_digest), expected, "{registry}/{repository}");
    }
}

/// A proxy that connects each tunnel to `target`, and the heads of the requests that it got.
async fn proxy(target: SocketAddr, authorization: Option<String>) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let heads = Arc::<Mutex<Vec<String>>>::default();
    let seen = Arc::clone(&heads);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let known = authorization
                .as_ref()
                .is_none_or(|own| head.contains(&format!("Proxy-Authorization: {own}\r\n")));
            seen.lock().unwrap().push(head);
            if !known {
                client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await.unwrap();
                continue;
            }
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            let mut server = TcpStream::connect(target).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut client, &mut server).await });
        }
    });
    (address, heads)
}

fn resolver(registries: &Value) -> anyhow::Result<ImageResolver> {
    ImageResolver::new(&Settings::from_value(json!({"registries": registries}))?, None, None)
}

#[tokio::test]
async fn proxy_gets_its_credentials_and_registries_do_not() {
    let registry = Registry::start(|asked| async move { ok(&asked, index(&["linux/arm64"])) }).await;
    let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
    let (address, heads) = proxy(registry.address, Some(basic("us:er:pass word"))).await;
    let name = "registry.invalid/a:1";
    let plain = json!(["registry.invalid"]);

    let images =
        resolver(&json!({"plainHttp": plain, "proxy": format!("http://us%3Aer:pass%20word@{address}")}));
    assert_eq!(runs_on(&images.unwrap(), name).await.as_deref(), Ok("linux/arm64"));
    assert!(heads.lock().unwrap()[0].starts_with("CONNECT registry.invalid:80 HTTP/1.1\r\n"));

    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    let settings = json!({
        "plainHttp": plain, "proxy": format!("http://{address}"), "proxyCredentialsDir": directory.path(),
    });
    let error = resolver(&settings).err().unwrap();
    assert!(format!("{error:#}").starts_with("registries.proxyCredentialsDir: "), "{error:#}");
    file("username", "us:er\n");
    file("password", "outdated");
    let images = resolver(&settings).unwrap();
    assert_eq!(runs_on(&images, name).await, Err(LookupError::Unavailable));
    // The next connection has the changed password.
    file("password", "pass word\n");
    assert_eq!(runs_on(&images, name).await.as_deref(), Ok("linux/arm64"));
    assert!(registry.asked().iter().all(|asked| asked.authorization.is_none()));
}

#[tokio::test]
async fn host_of_no_proxy_is_reached_without_the_proxy() {
    let registry = Registry::start(|asked| async move { ok(&asked, index(&["linux/arm64"])) }).await;
    let (address, heads) = proxy(registry.address, None).await;
    let name = format!("localhost:{}/a:1", registry.address.port());
    let plain = json!([name.split('/').next(), "registry.invalid"]);
    let proxy = format!("http://{address}");
    let none = json!([]);
    // This machine is never reached through a proxy.
    let images = resolver(&json!({"plainHttp": plain, "proxy": proxy, "noProxy": none})).unwrap();
    assert_eq!(runs_on(&images, &name).await.as_deref(), Ok("linux/arm64"));
    assert_eq!(heads.lock().unwrap().len(), 0);
    for (entry, expected) in
        [(".other", 1), ("registry.invalid:443", 2), (".invalid", 2), ("registry.invalid:80", 2)]
    {
        let images = resolver(&json!({"plainHttp": plain, "proxy": proxy, "noProxy": [entry]})).unwrap();
        let found = runs_on(&images, "registry.invalid/a:1").await;
        assert_eq!(
            (heads.lock().unwrap().len(), found.is_ok()),
            (expected, !matches!(entry, ".invalid" | "registry.invalid:80")),
            "{entry}"
        );
    }
}
