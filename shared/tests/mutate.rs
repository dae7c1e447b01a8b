//! The offline command as a whole, with a webhook that marks pods.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(feature = "serve")]

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Parser;
use podshaper::admission::{Decision, Request, Webhook, answer};
use podshaper::cli::mutate::{Console, Facts, Mutate};
use podshaper::pod::{Pod, PodPatch};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Marks every pod with its namespace, or does what the annotation `do` says.
struct Marker {
    mark: String,
}

#[derive(Debug, clap::Args)]
struct MarkerArgs {
    /// The value that pods are marked with, before their namespace
    #[arg(long, default_value = "marked")]
    mark: String,
    #[command(flatten)]
    facts: Facts,
}

impl Webhook for Marker {
    type Object<'a> = Pod<'a>;

    async fn decide<'a>(&self, request: &Request<'a, Pod<'a>>, _: Instant) -> Decision {
        let Some(pod) = request.object.as_ref().filter(|_| request.creates_pod()) else {
            return Decision::unchanged();
        };
        let mut patch = PodPatch::new(pod);
        match pod.annotation("do") {
            Some("deny") => {
                return Decision::denied("do something\nelse").with_warnings(["also this".to_owned()]);
            }
            Some("doubt") => return Decision::undecided("who knows").with_warnings(["and this".to_owned()]),
            Some("nothing") => return Decision::unchanged(),
            Some("warn") => {
                return Decision::unchanged().with_warnings(["look out".to_owned()]);
            }
            Some("break") => {
                let mut patch = podshaper::patch::Patch::default();
                patch.remove(&podshaper::patch::Pointer::root().key("no such"));
                return Decision::patched(patch);
            }
            _ => {}
        }
        let namespace = request.namespace.as_deref().unwrap_or("?");
        patch.set_annotation("mark", &format!("{}-{namespace}", self.mark));
        Decision::patched(patch.finish())
    }
}

#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    mutate: Mutate<MarkerArgs>,
}

struct Ran {
    status: u8,
    out: String,
    err: String,
}

fn run_on(args: &[&str], stdin: &[u8], stdout: &mut dyn Write, interactive: bool) -> (u8, String) {
    let command = Command::parse_from(std::iter::once(&"marker").chain(args));
    let mut stderr = Vec::new();
    let console = Console {
        stdin: &mut &*stdin,
        interactive,
        stdout,
        colour: args.contains(&"diff"),
        stderr: &mut stderr,
    };
    let status = command.mutate.run_on(console, |options| {
        anyhow::ensure!(options.mark != "bad", "--mark can't be bad");
        let facts = options.facts.read()?;
        Ok(Marker { mark: facts.first().map_or(options.mark, |fact| fact["kind"].to_string()) })
    });
    (status, String::from_utf8(stderr).unwrap())
}

fn run(args: &[&str], stdin: &str) -> Ran {
    let mut stdout = Vec::new();
    let (status, err) = run_on(args, stdin.as_bytes(), &mut stdout, false);
    Ran { status, out: String::from_utf8(stdout).unwrap(), err }
}

/// What is printed where all is well.
fn fine(args: &[&str], stdin: &str) -> String {
    let ran = run(args, stdin);
    assert_eq!((ran.status, ran.err.as_str()), (0, ""), "{args:?} {stdin}");
    ran.out
}

fn file(name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    path
}

fn pod(name: &str, order: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  annotations:\n    do: {order}\nspec: {{}}\n"
    )
}

const DEPLOYMENT: &str = "\
# Source: chart/templates/web.yaml
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web # the name
  namespace: shop
spec:
  template:
    spec:
      containers: [{name: a, args: ['yes', \"1\"], future: {deep: 0x10}}]
# end
";

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
fn a_workload_among_others() {
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
fn a_pod_that_changes_has_requests_for_its_limits() {
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
fn what_is_not_changed_passes_byte_for_byte() {
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
            podshaper::cli::yaml::parse(&after).unwrap()
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

#[test]
fn what_goes_wrong_is_told_and_the_rest_goes_on() {
    let input = format!(
        "{}---\n{}---\n{}---\n{}---\na: 1\na: 2\n---\n{}---\nkind: Service\n---\n'open\n---\n{{kind: AdmissionReview}}\n---\n{{apiVersion: v1, kind: Pod, spec: 1}}\n",
        pod("good", "it"),
        pod("bad", "deny"),
        pod("doubtful", "doubt"),
        pod("broken", "break"),
        pod("warned", "warn"),
    );
    let input = file("all.yaml", input);
    let ran = run(&["-f", input.to_str().unwrap(), "-f", "no/such/file.yaml", "-f", "-"], "kind: Last\n");
    let err = ran.err.replace(input.to_str().unwrap(), "F");
    let lines: Vec<&str> = err.lines().collect();
    assert_eq!(
        lines[..7],
        [
            "F: document 2: Pod/bad: denied: do something else",
            "F: document 2: Pod/bad: warning: also this",
            "F: document 3: Pod/doubtful: undecided: who knows",
            "F: document 3: Pod/doubtful: warning: and this",
            "F: document 4: Pod/broken: error: the webhook's patch does not apply: operation '/0' failed at path '/no such': path is invalid",
            "F: document 5: line 34, column 1: key \"a\" already set in map",
            "F: document 6: Pod/warned: warning: look out",
        ]
    );
    assert!(lines[7].starts_with("F: document 8: line "), "{}", lines[7]);
    assert_eq!(
        lines[8],
        "F: document 9: AdmissionReview/: error: expected kind AdmissionReview of admission.k8s.io/v1, got kind \"AdmissionReview\" of \"\""
    );
    assert!(
        lines[9].starts_with("F: document 10: Pod/: undecided: the object can't be read: "),
        "{}",
        lines[9]
    );
    assert!(lines[10].starts_with("no/such/file.yaml: No such file"), "{}", lines[10]);
    assert_eq!(lines.len(), 11);
    assert_eq!(ran.status, 1);
    let good = pod("good", "it").replace("spec: {}", "    mark: marked-default\nspec: {}");
    assert_eq!(
        ran.out,
        format!(
            "{good}---\n{}---\n{}---\nkind: Service\n---\n{{apiVersion: v1, kind: Pod, spec: 1}}\n---\nkind: Last\n",
            pod("doubtful", "doubt"),
            pod("warned", "warn"),
        )
    );
}

#[test]
fn names_do_not_reach_the_terminal_raw() {
    let ran =
        run(&[], "apiVersion: v1\nkind: Pod\nmetadata: {name: \"a\\e[31m\\n\", annotations: {do: warn}}\n");
    assert_eq!(ran.err, "stdin: document 1: Pod/a [31m : warning: look out\n");
}

#[test]
fn input_that_is_not_text() {
    for (bytes, reason) in [
        (&b"kind: Pod\n\xff\n"[..], "stdin: not UTF-8 at byte 10\n"),
        (b"\xff\xfek\0", "stdin: not UTF-8 at byte 0; it looks like UTF-16, save it as UTF-8\n"),
    ] {
        let mut out = Vec::new();
        let (status, err) = run_on(&[], bytes, &mut out, false);
        assert_eq!((status, err.as_str(), out.len()), (1, reason, 0));
    }
}

#[test]
fn a_terminal_is_not_read_from() {
    let (status, err) = run_on(&[], b"kind: Pod", &mut Vec::new(), true);
    assert_eq!(
        (status, err.as_str()),
        (2, "error: nothing to read: name manifests by -f FILE, or pipe them in\n")
    );
}

#[test]
fn folders_and_several_files() {
    let folder = file("folder/b.yaml", "kind: B").parent().unwrap().to_owned();
    file("folder/a.json", "{\"kind\": \"A\"}\n");
    file("folder/c.txt", "not a manifest: [");
    let last = file("last.yaml", "---\nkind: C\n");
    let args = ["-f", folder.to_str().unwrap(), "-f", last.to_str().unwrap()];
    assert_eq!(fine(&args, ""), "{\"kind\": \"A\"}\n---\nkind: B\n---\nkind: C\n");

    let barren = file("barren/c.txt", "not a manifest: [").parent().unwrap().to_owned();
    let Ran { status, out, err } = run(&["-f", barren.to_str().unwrap()], "");
    assert_eq!((status, out.as_str()), (1, ""));
    assert!(err.ends_with("barren: no .yaml, .yml or .json file in this folder\n"), "{err}");
}

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
fn a_diff_of_each_object() {
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

fn review(object: &str) -> String {
    format!(
        r#"{{"apiVersion":"admission.k8s.io/v1", "kind":"AdmissionReview","request":{{"uid":"u\n1","kind":{{"group":"","version":"v1","kind":"Pod"}},"namespace":"shop","operation":"CREATE","object":{object}}}}}"#
    )
}

/// What the server sends.
fn served(review: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let answer = runtime
        .block_on(answer(&Marker { mark: "marked".into() }, review.as_bytes(), Instant::now()))
        .unwrap();
    String::from_utf8(answer.body).unwrap() + "\n"
}

#[test]
fn reviews_are_answered_as_the_server_does() {
    let deep = format!("{{\"x\": {}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    for object in [
        "{}",
        r#"{"metadata":{"annotations":{"do":"deny"}}}"#,
        r#"{"metadata":1}"#,
        r#"{"metadata":{"annotations":null},"metadata":{}}"#,
        &deep,
    ] {
        let review = review(object);
        assert_eq!(run(&["-o", "review"], &review).out, served(&review));
    }
    let both = format!("{}\n---\nkind: Service\n---\n{}\n", review("{}"), review("{\"a\": 1}"));
    assert_eq!(fine(&["-o", "review"], &both), served(&review("{}")).repeat(2));

    let answer: Value = serde_json::from_str(&fine(&["-o", "review"], DEPLOYMENT)).unwrap();
    assert_eq!(answer["response"]["patchType"], "JSONPatch");
    let denied = run(&["-o", "review"], &pod("a", "deny"));
    assert_eq!((denied.status, denied.out.contains("\"allowed\":false")), (1, true));
}

#[test]
fn a_review_in_other_formats() {
    let review = review("{}");
    let after: Value = serde_json::from_str(&fine(&["-o", "json"], &review)).unwrap();
    assert_eq!(after["request"]["object"], json!({"metadata": {"annotations": {"mark": "marked-shop"}}}));
    let patch: Value = serde_json::from_str(&fine(&["-o", "patch"], &review)).unwrap();
    assert_eq!(patch[0]["path"], "/metadata");
    let ran = run(&[], r#"{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview"}"#);
    assert_eq!((ran.status, ran.out.as_str()), (1, ""));
    assert!(ran.err.contains("v1beta1"), "{}", ran.err);
}

/// A pipe whose reader has gone.
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
fn a_reader_that_goes_is_no_failure() {
    for format in ["yaml", "json", "patch", "review"] {
        let gone =
            run_on(&["-o", format], DEPLOYMENT.as_bytes(), &mut Closed(io::ErrorKind::BrokenPipe), false);
        assert_eq!(gone, (0, String::new()));
        let (status, err) =
            run_on(&["-o", format], DEPLOYMENT.as_bytes(), &mut Closed(io::ErrorKind::StorageFull), false);
        assert_eq!((status, err.starts_with("can't write: ")), (1, true));
    }
}

#[test]
fn hostile_input_is_refused_in_time() {
    let laughs = (1..40).fold("a0: &a0 [lol]\n".to_owned(), |text, n| {
        text + &format!("a{n}: &a{n} [{}]\n", format!("*a{}, ", n - 1).repeat(9))
    });
    for text in [
        laughs,
        "[".repeat(1_000_000),
        "{".repeat(1_000_000),
        "- ".repeat(1_000_000),
        "{\"a\":".repeat(1_000_000),
        "? ".repeat(100_000),
        "&a ".repeat(100_000),
    ] {
        let start = Instant::now();
        let ran = run(&[], &text);
        assert_eq!((ran.status, ran.out.as_str()), (1, ""));
        assert!(ran.err.starts_with("stdin: document 1: line "), "{}", ran.err);
        assert!(start.elapsed().as_secs() < 20, "{:?} for {}", start.elapsed(), &text[..20]);
    }
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

    #[test]
    fn no_input_makes_it_panic(text in "((apiVersion: v1\nkind: Pod|kind: List|items:|metadata:|spec:|template:|- |---|\\.\\.\\.|\\{|\\}|\"|\\[|\\]|: |&a|\\*a|<<|\\|)[\n ]{0,3}){0,20}", format in prop::sample::select(&["yaml", "json", "patch", "diff", "review"])) {
        let ran = run(&["-o", format], &text);
        prop_assert!(ran.status < 2);
        prop_assert_eq!(ran.status == 0, ran.err.lines().all(|line| line.contains(": warning: ")));
    }
}
