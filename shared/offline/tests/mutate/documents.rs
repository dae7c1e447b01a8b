//! Changed and unchanged documents in a stream.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::marker::{DEPLOYMENT, file, fine, run};

const MARKED: &str = "\
# Source: chart/templates/web.yaml
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  namespace: shop
spec:
  template:
    spec:
      containers:
      - name: a
        args:
        - \"yes\"
        - \"1\"
        future:
          deep: 16
    metadata:
      annotations:
        mark: marked-shop
# end
";

#[test]
fn only_the_workload_changes() {
    let before = format!(
        "---\n# Source: x\nkind: Service # kept\nspec:   {{a: &a 1, b: *a}}\n---\n{DEPLOYMENT}---\n{{\"kind\":  \"Role\"}}\n"
    );
    let after = format!(
        "---\n# Source: x\nkind: Service # kept\nspec:   {{a: &a 1, b: *a}}\n---\n{MARKED}---\n{{\"kind\":  \"Role\"}}\n"
    );
    assert_eq!(fine(&[], &before), after);
    assert_eq!(fine(&["-f", "-", "-o", "yaml"], &before), after);
}

#[test]
fn changed_pod_has_requests_for_its_limits() {
    let limited =
        "apiVersion: v1\nkind: Pod\nspec: {containers: [{name: a, resources: {limits: {cpu: 2}}}]}\n";
    let ops = r#"[{"op":"add","path":"/spec/containers/0/resources/requests","value":{"cpu":2}},{"op":"add","path":"/metadata","value":{}},"#;
    let patch: Value = serde_json::from_str(&fine(&["-o", "patch"], limited)).unwrap();
    assert!(patch.to_string().starts_with(ops), "{patch}");
    let after = "spec:\n  containers:\n  - name: a\n    resources:\n      limits:\n        cpu: 2\n      requests:\n        cpu: 2\n";
    let yaml = fine(&[], limited);
    assert!(yaml.contains(after), "{yaml}");
    // One that doesn't change is the author's.
    let skipped = limited.replace("kind: Pod", "kind: Pod\nmetadata: {annotations: {do: nothing}}");
    assert_eq!(fine(&[], &skipped), skipped);
}

#[test]
fn options_reach_the_webhook() {
    let pod = "{apiVersion: v1, kind: Pod}";
    let annotated =
        |out: String| serde_json::from_str::<Value>(&out).unwrap()["metadata"]["annotations"]["mark"].clone();
    assert_eq!(annotated(fine(&["-o", "json"], pod)), "marked-default");
    assert_eq!(annotated(fine(&["-o", "json", "--mark", "m", "-n", "shop"], pod)), "m-shop");
    let facts = file("facts/nodes.yaml", "kind: NodeList\napiVersion: v1\nitems: [{}]\n");
    assert_eq!(annotated(fine(&["-o", "json", "--facts", facts.to_str().unwrap()], pod)), "\"Node\"-default");

    for (args, reason) in [
        (["--mark", "bad"], "error: --mark can't be bad\n"),
        (["--facts", "none.yaml"], "error: none.yaml: No such"),
    ] {
        let ran = run(&args, pod);
        assert_eq!((ran.status, ran.out.as_str()), (2, ""));
        assert!(ran.err.starts_with(reason), "{}", ran.err);
    }
}

#[test]
fn unchanged_documents_stay_byte_for_byte() {
    for text in [
        "",
        "\n",
        "# nothing\n",
        "---\n",
        "---\n---\n\n---",
        "\u{feff}---\r\n# Source: a\r\nkind: ConfigMap\r\ndata:\r\n  a: |\r\n    ---\r\n    b\r\n...\r\n# after\r\n",
        "a: &a {x: 1}   # anchors\nb: *a\n\n\n",
        "%YAML 1.1\n---\nkind: Foo\n...\n%TAG ! x\n---\nkind: Bar",
        "just text\n---\n- a list\n---\n12\n",
        "{\"kind\":\"A\"}{\"kind\":\"B\"}\n\n {\"kind\":\"C\"}",
        "kind: List\nitems: [ ]\n",
        "kind: Pod # of another group\napiVersion: example.org/v1\n",
        "apiVersion: v1\nkind: Pod\nmetadata: {annotations: {do: nothing}}  \n",
        "kind: Deployment\nspec: {template: 'none'}",
    ] {
        assert_eq!(fine(&[], text), text);
    }
}

#[test]
fn changed_documents_keep_their_surroundings() {
    for (before, after) in [
        (
            "\u{feff}# c\r\n---\r\nkind: Pod\r\napiVersion: v1\r\n",
            "\u{feff}# c\r\n---\r\nkind: Pod\r\napiVersion: v1\r\nmetadata:\r\n  annotations:\r\n    mark: marked-default\r\n",
        ),
        (
            "--- {kind: Pod, apiVersion: v1}\n...\n",
            "---\nkind: Pod\napiVersion: v1\nmetadata:\n  annotations:\n    mark: marked-default\n...\n",
        ),
        (
            "{\"kind\":\"A\"} {\"kind\":\"Pod\",\"apiVersion\":\"v1\"}\n{\"kind\":\"B\"}",
            "{\"kind\":\"A\"}\n---\nkind: Pod\napiVersion: v1\nmetadata:\n  annotations:\n    mark: marked-default\n---\n\n{\"kind\":\"B\"}",
        ),
        (
            "kind: Pod\napiVersion: v1\n---\nb",
            "kind: Pod\napiVersion: v1\nmetadata:\n  annotations:\n    mark: marked-default\n---\nb",
        ),
    ] {
        assert_eq!(fine(&[], before), after);
    }
}

#[test]
fn numbers_and_strings_survive_a_change() {
    let before = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"annotations": {"do": "it"}},
        "spec": {
            "u": u64::MAX, "i": i64::MIN, "f": 0.1, "g": 1e300, "one": 1.0, "x": 123_456_789_012_345_678_i64,
            "s": ["yes", "1", "1.0", "null", "~", "1e3", "0x1F", "010", "2001-01-01", "1:30", "", " a", "a\nb\n", "\t", "#", "a: b", "é\u{1F600}"],
        },
    });
    for format in ["yaml", "json"] {
        let after = fine(&["-o", format], &before.to_string());
        let after: Value = if format == "json" {
            serde_json::from_str(&after).unwrap()
        } else {
            podshaper_offline::yaml::parse(&after).unwrap()
        };
        assert_eq!(after["spec"], before["spec"]);
        assert_eq!(after["metadata"]["annotations"]["mark"], "marked-default");
    }
}

#[test]
fn lists_of_both_kinds() {
    let list = "\
apiVersion: v1
kind: PodList
items:
- metadata: {name: a, namespace: shop}
- metadata: {name: b, annotations: {do: nothing}}
- metadata: {name: c, annotations: {do: deny}}
";
    let ran = run(&[], list);
    assert_eq!(ran.status, 1);
    assert_eq!(
        ran.err,
        "stdin: document 1, item 3: Pod/c: denied: do something else\nstdin: document 1, item 3: Pod/c: warning: also this\n"
    );
    assert_eq!(
        ran.out,
        "\
apiVersion: v1
kind: PodList
items:
- metadata:
    name: a
    namespace: shop
    annotations:
      mark: marked-shop
- metadata:
    name: b
    annotations:
      do: nothing
"
    );
}

proptest! {
    #[test]
    fn text_that_holds_no_pod_is_printed_as_it_is(documents in prop::collection::vec("(kind: [A-Z]+|a: (\\|\n  .*|'x'|\\[1, 2\\])|# .*|\\{\"a\": ?1\\}|- .?)?(\r?\n)?", 0..6), last in "(---)?") {
        let text = documents.join("\n---\n") + &last;
        let ran = run(&[], &text);
        if ran.status == 0 {
            prop_assert_eq!(ran.out, text);
        }
    }
}
