//! The formats of the answer.

use std::io::{self, Write};

use serde_json::{Value, json};

use crate::marker::{DEPLOYMENT, fine, pod, run, run_on};

#[test]
fn json_is_one_object_or_one_list() {
    let out = |input: &str| fine(&["-o", "json"], input);
    assert_eq!(out("# nothing\n"), "");
    assert_eq!(
        out("{\"big\":  123456789012345678901234567890}\n"),
        "{\"big\":  123456789012345678901234567890}\n"
    );
    assert_eq!(out("---\n---\nkind: A\n"), "{\n  \"kind\": \"A\"\n}\n");
    let list: Value = serde_json::from_str(&out(&format!(
        "kind: A\n---\n---\n{DEPLOYMENT}---\n{{apiVersion: v1, kind: List, items: [{{kind: B}}]}}"
    )))
    .unwrap();
    assert_eq!(list["kind"], "List");
    let kinds: Vec<_> =
        list["items"].as_array().unwrap().iter().map(|item| item["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["A", "Deployment", "B"]);
    assert_eq!(list["items"][1]["spec"]["template"]["metadata"]["annotations"]["mark"], "marked-shop");
    assert_eq!(
        serde_json::from_str::<Value>(&out("kind: PodList\nitems: []\n---\nkind: A")).unwrap()["items"][0]["kind"],
        "PodList"
    );
}

#[test]
fn patches_of_one_and_of_several() {
    let out = |input: &str| fine(&["-o", "patch"], input);
    let whole = json!([
        {"op": "add", "path": "/spec/template/metadata", "value": {}},
        {"op": "add", "path": "/spec/template/metadata/annotations", "value": {}},
        {"op": "add", "path": "/spec/template/metadata/annotations/mark", "value": "marked-shop"},
    ]);
    let patch: Value = serde_json::from_str(&out(&format!("kind: Service\n---\n{DEPLOYMENT}"))).unwrap();
    assert_eq!(patch, whole);
    assert_eq!(out(&pod("a", "nothing")), "[]\n");
    assert_eq!(out("kind: Service\n"), "");

    let several = out(&format!(
        "kind: Service\n---\n{DEPLOYMENT}---\n{{kind: PodList, apiVersion: v1, items: [{{}}, {{metadata: {{name: x, annotations: {{do: nothing}}}}}}]}}"
    ));
    let lines: Vec<Value> = several.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        lines[0],
        json!({"file": "stdin", "document": 2, "apiVersion": "apps/v1", "kind": "Deployment", "namespace": "shop", "name": "web", "patch": whole})
    );
    assert_eq!(lines[1]["patch"][0], json!({"op": "add", "path": "/metadata", "value": {}}));
    assert_eq!(
        lines[2],
        json!({"file": "stdin", "document": 3, "item": 2, "apiVersion": "v1", "kind": "Pod", "name": "x", "patch": []})
    );
    assert_eq!(lines.len(), 3);
}

#[test]
fn diff_shows_each_object() {
    let ran = run(&["-o", "diff"], &format!("{}---\n{}", pod("a", "it"), pod("b", "nothing")));
    assert_eq!(
        ran.out,
        "\
\x1b[31m--- stdin: document 1: Pod/a\x1b[0m
\x1b[32m+++ stdin: document 1: Pod/a\x1b[0m
\x1b[36m@@ -4,4 +4,5 @@\x1b[0m
   name: a
   annotations:
     do: it
\x1b[32m+    mark: marked-default\x1b[0m
 spec: {}
"
    );
}

/// A pipe that its reader has closed.
struct Closed(io::ErrorKind);

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(self.0.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn closed_pipe_is_no_failure() {
    for format in ["yaml", "json", "patch", "review"] {
        let gone =
            run_on(&["-o", format], DEPLOYMENT.as_bytes(), &mut Closed(io::ErrorKind::BrokenPipe), false);
        assert_eq!(gone, (0, String::new()));
        let (status, err) =
            run_on(&["-o", format], DEPLOYMENT.as_bytes(), &mut Closed(io::ErrorKind::StorageFull), false);
        assert_eq!((status, err.starts_with("can't write: ")), (1, true));
    }
}
