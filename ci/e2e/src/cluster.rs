//! The cluster that `KUBECONFIG` names, by the tools that people use.

use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// How long a condition may take to come true, unless it says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(250);

/// Runs `program`, with `input` on its standard input.
pub async fn run(program: &str, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|e| panic!("can't run {program}: {e}; run the tests by ci/test cluster"));
    let mut stdin = child.stdin.take().expect("piped");
    // A program that fails early doesn't read its input, and says why.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    child.wait_with_output().await.expect("it ends")
}

/// What `program` prints; it must succeed.
pub async fn output(program: &str, arguments: &[&str], input: &str) -> String {
    let output = run(program, arguments, input).await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?} failed:\n{stderr}\n{input}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What `kubectl` prints.
pub async fn kubectl(arguments: &[&str]) -> String {
    output("kubectl", arguments, "").await
}

/// An object, or a list of them, as `kubectl get` finds it.
pub async fn get(arguments: &[&str]) -> Value {
    let json = kubectl(&[&["get", "-o", "json"], arguments].concat()).await;
    serde_json::from_str(&json).unwrap()
}

/// Applies an object.
pub async fn apply(object: &Value) {
    output("kubectl", &["apply", "--server-side", "--force-conflicts", "-f", "-"], &object.to_string()).await;
}

/// Creates an object and gives what the API server made of it, or why it refused.
pub async fn create(object: &Value, arguments: &[&str]) -> Result<Value, String> {
    let arguments = [&["create", "-o", "json", "-f", "-"], arguments].concat();
    let output = run("kubectl", &arguments, &object.to_string()).await;
    if output.status.success() {
        Ok(serde_json::from_str(&String::from_utf8_lossy(&output.stdout)).unwrap())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Waits until `condition` gives something.
pub async fn eventually<T>(
    what: &str,
    patience: Duration,
    mut condition: impl AsyncFnMut() -> Option<T>,
) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(begun.elapsed() < patience, "not within {patience:?}: {what}");
        tokio::time::sleep(LOOK).await;
    }
}
