//! A browser without a screen, driven by `WebDriver` (W3C).

use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::cluster::{eventually, output, run};

const DRIVER: &str = "http://127.0.0.1:9515";

/// A window. It is closed when this is dropped.
pub struct Browser {
    _driver: Child,
    session: String,
}

impl Browser {
    /// Opens a window of so many pixels.
    pub async fn open(width: u32, height: u32) -> Self {
        let driver = Command::new("chromedriver")
            .args(["--port=9515"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("can't run chromedriver: {error}; ci/setup browser installs it"));
        eventually("the driver", Duration::from_secs(30), async || {
            run("curl", &["--silent", "--fail", &format!("{DRIVER}/status")], "")
                .await
                .status
                .success()
                .then_some(())
        })
        .await;
        // chromium has no sandbox as root in a network namespace.
        let arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"];
        let options = json!({"args": arguments, "mobileEmulation": {"deviceMetrics": {"width": width, "height": height, "pixelRatio": 1.0}}});
        let wanted = json!({"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}});
        let made = call("POST", "/session", &wanted).await;
        let session = made["sessionId"].as_str().expect("a session").to_owned();
        Self { _driver: driver, session }
    }

    /// Goes to a page.
    pub async fn go(&self, url: &str) {
        self.call("/url", &json!({"url": url})).await;
    }

    /// Runs a function body in the page and returns its result.
    pub async fn script(&self, body: &str) -> Value {
        self.call("/execute/sync", &json!({"script": body, "args": []})).await
    }

    /// The serious and critical violations that axe-core finds in the page: rules, each with its elements.
    pub async fn accessibility_problems(&self) -> Value {
        let file = std::env::var("PODSHAPER_AXE")
            .expect("PODSHAPER_AXE names axe.min.js; ci/setup browser installs it");
        let axe = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        let run = "return axe.run().then(({violations}) => violations \
                   .filter(({impact}) => impact === 'serious' || impact === 'critical') \
                   .map(({id, nodes}) => [id, nodes.map(({html}) => html)]))";
        self.script(&format!("{axe}\n;{run}")).await
    }

    /// Shows pages as for a user who prefers `light` or `dark`.
    pub async fn prefer_color_scheme(&self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        let command = json!({"cmd": "Emulation.setEmulatedMedia", "params": {"features": features}});
        self.call("/goog/cdp/execute", &command).await;
    }

    /// A screenshot of the window, as PNG.
    pub async fn screenshot(&self) -> Vec<u8> {
        let shown = call("GET", &format!("/session/{}/screenshot", self.session), &Value::Null).await;
        STANDARD.decode(shown.as_str().expect("an image")).expect("base64")
    }

    async fn call(&self, path: &str, body: &Value) -> Value {
        call("POST", &format!("/session/{}{path}", self.session), body).await
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let session = format!("{DRIVER}/session/{}", self.session);
        let _ = std::process::Command::new("curl").args(["--silent", "-X", "DELETE", &session]).output();
    }
}

async fn call(method: &str, path: &str, body: &Value) -> Value {
    let url = format!("{DRIVER}{path}");
    let mut arguments = vec!["--silent", "--show-error", "--max-time", "60", "-X", method, &url];
    if method == "POST" {
        arguments.extend(["--header", "Content-Type: application/json", "--data-binary", "@-"]);
    }
    let answer = output("curl", &arguments, &body.to_string()).await;
    let mut answer: Value = serde_json::from_str(&answer).expect("an answer");
    assert!(answer["value"]["error"].is_null(), "{method} {path}: {}", answer["value"]);
    answer["value"].take()
}
