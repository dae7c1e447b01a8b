//! The page, in a browser.

use e2e::browser::Browser;
use e2e::cluster::{PATIENCE, eventually, get, output};
use e2e::release::Release;
use serde_json::{Value, json};

use crate::distribution::{scale, settled};
use crate::fixture::{distributor, install, nodes, workload};

/// The page of one of the webhook's pods, forwarded.
async fn forward(release: &Release) -> (tokio::process::Child, &'static str) {
    let deployment = format!("deployment/{}", release.fullname());
    let child = tokio::process::Command::new("kubectl")
        .args(["port-forward", "--namespace", &release.name, &deployment, "18082:8082"])
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let url = "http://127.0.0.1:18082/";
    eventually("the page", PATIENCE, async || {
        let answer = e2e::cluster::run("curl", &["--silent", "--fail", "--max-time", "5", url], "").await;
        answer.status.success().then_some(())
    })
    .await;
    (child, url)
}

/// Keeps a screenshot, where one is wanted.
async fn keep(phone: &Browser, name: &str) {
    if let Some(folder) = std::env::var_os("PODSHAPER_SCREENSHOTS") {
        let file = std::path::Path::new(&folder).join(name).with_extension("png");
        std::fs::write(file, phone.screenshot().await).unwrap();
    }
}

#[tokio::test]
async fn page_in_browser_shows_shares_and_plan() {
    nodes().await;
    let release = install("page", &json!({})).await;
    let namespace = &*release.pods;
    distributor(namespace, &json!({"name": "web"})).await;
    workload(namespace, "apps/v1", "Deployment", json!({"replicas": 10})).await;
    settled(namespace, 10).await;
    let (_forward, url) = forward(&release).await;
    let phone = Browser::open(390, 844).await;
    phone.go(&format!("{url}#namespace={namespace}&workload=composed&pods=20")).await;
    // The figures and the bars of the groups, as percents of the longest.
    let bars = async || {
        let read = "return [...document.querySelectorAll('[data-key=\"page-pods/sample\"] > .group')].map((group) => [group.querySelector('.figures').textContent, \
                    parseFloat(group.querySelector('.bar').style.width)])";
        phone.script(read).await
    };
    let shows = async |wanted: Value| {
        eventually(&format!("bars {wanted}"), PATIENCE, async || (bars().await == wanted).then_some(()))
            .await;
    };
    shows(json!([["8 of 8", 100], ["2 of 2", 25]])).await;
    phone.script("window.kept = document.querySelector('.bar')").await;
    scale(namespace, "deployment", 20).await;
    shows(json!([["16 of 16", 100], ["4 of 4", 25]])).await;
    assert_eq!(
        phone.script("return document.querySelector('.bar') === window.kept").await,
        true,
        "they move"
    );
    // Nothing is wider than the phone, and nothing came from elsewhere.
    assert_eq!(phone.script("return document.documentElement.scrollWidth").await, 390);
    let elsewhere = "return performance.getEntriesByType('resource').map((one) => new URL(one.name).origin).filter((origin) => origin !== location.origin)";
    assert_eq!(phone.script(elsewhere).await, json!([]));
    keep(&phone, "distributor").await;
    assert_eq!(phone.accessibility_problems().await, json!([]));

    // The composer: another weight, at once another plan; its YAML applies.
    let weigh = "const weight = document.querySelector('#groups input[type=range]'); weight.value = 20; \
                 weight.dispatchEvent(new Event('input'));";
    phone.script(weigh).await;
    let planned = "return [...document.querySelectorAll('#groups .figures')].map((cell) => cell.textContent)";
    eventually("the plan", PATIENCE, async || {
        (phone.script(planned).await == json!(["10", "10"])).then_some(())
    })
    .await;
    assert_eq!(phone.script("return document.querySelectorAll('#sequence span').length").await, 20);
    phone.script("document.getElementById('compose').scrollIntoView()").await;
    keep(&phone, "distributor-composer").await;
    let yaml = phone.script("return document.getElementById('yaml').textContent").await;
    output("kubectl", &["apply", "-f", "-"], yaml.as_str().unwrap()).await;
    let applied = get(&["poddistributor", "composed", "-n", namespace]).await;
    assert_eq!(applied["spec"]["distribution"][0], json!({"nodeLabel": {"type": "default"}, "weight": 20}));
    // The page is read-only, and only users who may port-forward reach it.
    let refused = e2e::cluster::run("curl", &["--silent", "--fail", "-X", "POST", url], "").await;
    assert!(!refused.status.success());
    let pods = get(&["pods", "-n", &release.name]).await;
    let address = pods["items"][0]["status"]["podIP"].as_str().unwrap();
    let open =
        e2e::cluster::run("curl", &["--silent", "--max-time", "3", &format!("http://{address}:8082/")], "")
            .await;
    assert!(!open.status.success(), "on loopback alone");
}
