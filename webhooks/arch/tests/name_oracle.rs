//! Names of images against the parser of the kubelet and of container runtimes, over generated texts.
//!
//! `PODSHAPER_NAME_ORACLE` names the binary of `ci/go/name-oracle`, `PODSHAPER_ORACLE_STRINGS` says how many texts.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::thread;

use arch::name::{ImageName, Version};
use proptest::collection::vec;
use proptest::sample::select;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde::Deserialize;

/// What Go makes of a name.
#[derive(Debug, Deserialize)]
struct Parts {
    registry: String,
    repository: String,
    tag: String,
    digest: String,
}

/// Parts of valid and invalid names.
fn texts() -> impl Strategy<Value = String> {
    let hash = |length: usize| "0123456789abcdef".repeat(length / 16);
    let sha256 = hash(64);
    let sha384 = hash(96);
    let sha512 = hash(128);
    let word = select(vec![
        "a",
        "b9",
        "Ab",
        "library",
        "localhost",
        "docker.io",
        "index.docker.io",
        "r.example:5000",
        "[::1]",
        "é",
        "",
    ]);
    let sign = select(vec![
        "/", "/", "/", "/", ":", "@", ".", "-", "_", "__", "--", "..", " ", ":80/", "[", "]", "",
    ]);
    let end = select(vec![
        String::new(),
        String::new(),
        ":1".to_owned(),
        ":V_1.2-x".to_owned(),
        format!(":{}", "t".repeat(128)),
        format!(":{}", "t".repeat(129)),
        format!("@sha256:{sha256}"),
        format!(":1@sha512:{sha512}"),
        format!("@sha384:{sha384}"),
        format!("@sha256:{sha384}"),
        format!("@sha256:{}", sha256.to_uppercase()),
        format!("@md5:{}", hash(32)),
        format!("/{}", "p".repeat(240)),
        sha256,
    ]);
    (vec((word, sign), 1..5), end).prop_map(|(parts, end)| {
        let mut text: String = parts.iter().flat_map(|(word, sign)| [*word, *sign]).collect();
        if !end.is_empty() {
            text.truncate(text.trim_end_matches(['/', ':', '@']).len());
        }
        text + &end
    })
}

#[test]
fn agrees_with_go() {
    let oracle = env::var_os("PODSHAPER_NAME_ORACLE")
        .expect("PODSHAPER_NAME_ORACLE must name the binary of ci/go/name-oracle");
    let count = env::var("PODSHAPER_ORACLE_STRINGS").map_or(50_000, |text| text.parse().expect("a number"));
    let mut runner = TestRunner::default();
    let texts = texts();
    let names: Vec<_> = (0..count).map(|_| texts.new_tree(&mut runner).unwrap().current()).collect();

    let mut oracle = Command::new(oracle).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut questions, answers) =
        (oracle.stdin.take().unwrap(), BufReader::new(oracle.stdout.take().unwrap()));
    let lines: String = names.iter().map(|name| serde_json::to_string(name).unwrap() + "\n").collect();
    let asking = thread::spawn(move || questions.write_all(lines.as_bytes()).unwrap());
    let mut valid = 0;
    let mut lines = answers.lines();
    for name in &names {
        let answer = lines.next().expect("an answer for each name").unwrap();
        let go: Option<Parts> = serde_json::from_str(&answer).unwrap();
        // A name with an invalid registry host parses as a repository without a registry. No runtime can pull it.
        let go = go.filter(|parts| !parts.registry.is_empty());
        valid += usize::from(go.is_some());
        let go = go.map(|Parts { registry, repository, tag, digest }| ImageName {
            registry: registry.to_ascii_lowercase().into(),
            repository: repository.into(),
            version: if digest.is_empty() {
                Version::Tag(tag.into())
            } else {
                Version::Digest(digest.into())
            },
        });
        assert_eq!(ImageName::parse(name), go, "{name:?}");
    }
    asking.join().unwrap();
    assert!(oracle.wait().unwrap().success());
    println!("{count} names, {valid} of them valid");
    assert!(valid > count / 20, "too few mean anything");
}
