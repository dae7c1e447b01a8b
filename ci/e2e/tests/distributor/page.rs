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

/// The lowest contrast of the border of a control against the page.
const LEAST_BORDER_CONTRAST: &str = "
    const canvas = new OffscreenCanvas(1, 1).getContext('2d');
    const luminance = (color) => {
        canvas.fillStyle = color;
        canvas.fillRect(0, 0, 1, 1);
        const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data]
            .map((part) => part / 255)
            .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const paper = luminance(getComputedStyle(document.body).backgroundColor);
    const controls = [...document.querySelectorAll('input:not([type=range]):not([type=checkbox]), select, button')];
    return Math.min(...controls.map((control) => {
        const edge = luminance(getComputedStyle(control).borderTopColor);
        return (Math.max(paper, edge) + 0.05) / (Math.min(paper, edge) + 0.05);
    }));";

/// The number of different patterns of groups.
const PATTERNS: &str = "
    const pattern = (index) => {
        const bar = document.body.appendChild(document.createElement('div'));
        bar.className = `c${index}`;
        const { backgroundImage, backgroundSize } = getComputedStyle(bar);
        bar.remove();
        return backgroundImage.replace(/rgba?\\([^)]*\\)/g, '') + backgroundSize;
    };
    return new Set([...Array(8).keys()].map(pattern)).size;";

/// Requests of a hidden page and of the same page when it is shown again.
const REQUESTS_HIDDEN_AND_SHOWN: &str = "
    const { fetch } = window;
    let requests = 0;
    window.fetch = (...request) => { requests += 1; return fetch(...request); };
    const become = (hidden) => {
        Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });
        document.dispatchEvent(new Event('visibilitychange'));
        return requests;
    };
    const counted = [become(true), become(false)];
    delete document.hidden;
    window.fetch = fetch;
    return counted;";

/// Sets controls by their selectors, as a user does.
async fn fill(phone: &Browser, values: &[(&str, &str)]) {
    let script = format!(
        "for (const [selector, value] of {}) {{ const control = document.querySelector(selector); control.value = value; \
         control.dispatchEvent(new Event('input')); }}",
        json!(values)
    );
    phone.script(&script).await;
}

/// The page is usable without colors, with low contrast, and with many distributors.
async fn assert_usable(phone: &Browser, namespace: &str) {
    for scheme in ["dark", "light"] {
        phone.prefer_color_scheme(scheme).await;
        assert_eq!(phone.accessibility_problems().await, json!([]), "{scheme}");
        let contrast = phone.script(LEAST_BORDER_CONTRAST).await;
        assert!(contrast.as_f64().unwrap() >= 3.0, "{scheme}: borders have a contrast of {contrast}");
    }
    let columns = "return [...document.querySelectorAll('#groups tr:first-child td[data-column]')].map((cell) => getComputedStyle(cell, '::before').content)";
    let names =
        ["Node labels", "Tolerations", "Weight", "Base", "Max", "Pods"].map(|name| format!("\"{name}\""));
    assert_eq!(phone.script(columns).await, json!(names));
    assert_eq!(phone.script(PATTERNS).await, 8);
    assert_eq!(phone.script(REQUESTS_HIDDEN_AND_SHOWN).await, json!([0, 1]));
    let shown = "return [...document.querySelectorAll('article h2')].map((heading) => heading.textContent)";
    fill(phone, &[("#filter", "no-such-workload")]).await;
    assert_eq!(phone.script(shown).await, json!([]));
    fill(phone, &[("#filter", &format!("{namespace} SAMPLE"))]).await;
    assert_eq!(phone.script(shown).await, json!([format!("{namespace}/sample")]));
    fill(phone, &[("#filter", "")]).await;
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
    let (mut forward, url) = forward(&release).await;
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
    assert_usable(&phone, namespace).await;

    // The composer: another weight, at once another plan; its YAML applies.
    let toleration = "dedicated=spot:NoSchedule, gpu";
    fill(
        &phone,
        &[
            ("#groups input[type=range]", "20"),
            ("#groups input[placeholder^=key]", toleration),
            ("#availability", "Nodes"),
            ("#rebalance", "OnRecovery"),
        ],
    )
    .await;
    assert_eq!(phone.script("return document.querySelector('#groups output').textContent").await, "20");
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
    let tolerations = json!([
        {"key": "dedicated", "value": "spot", "effect": "NoSchedule"},
        {"key": "gpu", "operator": "Exists"},
    ]);
    let group = json!({"nodeLabel": {"type": "default"}, "weight": 20, "tolerations": tolerations});
    assert_eq!(applied["spec"]["distribution"][0], group);
    assert_eq!(applied["spec"]["availability"], "Nodes");
    assert_eq!(applied["spec"]["rebalance"]["mode"], "OnRecovery");
    // The page is read-only, and only users who may port-forward reach it.
    let refused = e2e::cluster::run("curl", &["--silent", "--fail", "-X", "POST", url], "").await;
    assert!(!refused.status.success());
    let pods = get(&["pods", "-n", &release.name]).await;
    let address = pods["items"][0]["status"]["podIP"].as_str().unwrap();
    let open =
        e2e::cluster::run("curl", &["--silent", "--max-time", "3", &format!("http://{address}:8082/")], "")
            .await;
    assert!(!open.status.success(), "on loopback alone");
    forward.kill().await.unwrap();
    let error = "const summary = document.getElementById('summary'); return summary.className === 'bad' && summary.textContent.startsWith('no response')";
    eventually("the error", PATIENCE, async || (phone.script(error).await == true).then_some(())).await;
}
