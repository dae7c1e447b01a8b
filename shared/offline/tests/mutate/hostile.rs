//! Input that is made to take time, or to make it panic.

use std::time::Instant;

use proptest::prelude::*;

use crate::marker::run;

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
    fn no_input_makes_it_panic(text in "((apiVersion: v1\nkind: Pod|kind: List|items:|metadata:|spec:|template:|- |---|\\.\\.\\.|\\{|\\}|\"|\\[|\\]|: |&a|\\*a|<<|\\|)[\n ]{0,3}){0,20}", format in prop::sample::select(&["yaml", "json", "patch", "diff", "review"])) {
        let ran = run(&["-o", format], &text);
        prop_assert!(ran.status < 2);
        prop_assert_eq!(ran.status == 0, ran.err.lines().all(|line| line.contains(": warning: ")));
    }
}
