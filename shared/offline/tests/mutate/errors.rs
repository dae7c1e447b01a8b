//! Errors are reported, and the other objects are mutated.

use crate::marker::{Ran, file, fine, pod, run, run_on};

#[test]
fn errors_are_reported_and_other_objects_mutated() {
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
fn control_character_in_name_is_replaced() {
    let ran =
        run(&[], "apiVersion: v1\nkind: Pod\nmetadata: {name: \"a\\e[31m\\n\", annotations: {do: warn}}\n");
    assert_eq!(ran.err, "stdin: document 1: Pod/a [31m : warning: look out\n");
}

#[test]
fn input_that_is_not_utf8_is_an_error() {
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
fn terminal_as_input_is_wrong_usage() {
    let (status, err) = run_on(&[], b"kind: Pod", &mut Vec::new(), true);
    assert_eq!(
        (status, err.as_str()),
        (2, "error: nothing to read: name manifests by -f FILE, or pipe them in\n")
    );
}

#[test]
fn directories_and_files_are_read_in_order() {
    let folder = file("folder/b.yaml", "kind: B").parent().unwrap().to_owned();
    file("folder/a.json", "{\"kind\": \"A\"}\n");
    file("folder/c.txt", "not a manifest: [");
    let last = file("last.yaml", "---\nkind: C\n");
    let args = ["-f", folder.to_str().unwrap(), "-f", last.to_str().unwrap()];
    assert_eq!(fine(&args, ""), "{\"kind\": \"A\"}\n---\nkind: B\n---\nkind: C\n");

    let barren = file("barren/c.txt", "not a manifest: [").parent().unwrap().to_owned();
    let Ran { status, out, err } = run(&["-f", barren.to_str().unwrap()], "");
    assert_eq!((status, out.as_str()), (1, ""));
    assert!(err.ends_with("barren: no .yaml, .yml or .json file in this directory\n"), "{err}");
}
