//! The command line is the contract with charts, scripts and users.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::Command;

use peerpods::PeerPodsCommand;

#[test]
fn command_line_is_the_contract() {
    let contract = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/command_line.txt"));
    let command = podshaper_cli::command::<PeerPodsCommand>();
    podshaper_testing::command_line::check(env!("CARGO_BIN_EXE_peerpods"), command, contract);
}

/// The exit status of `serve --check` with these flags, and what it prints.
fn check(flags: &[&str]) -> (i32, String) {
    let run = Command::new(env!("CARGO_BIN_EXE_peerpods")).args(["serve", "--check"]).args(flags).output();
    let run = run.unwrap();
    (run.status.code().unwrap(), String::from_utf8([run.stdout, run.stderr].concat()).unwrap())
}

#[test]
fn check_reports_each_kind_of_mistake() {
    let file = |name: &str, text: &str| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (valid, misspelt) =
        (file("valid.yaml", "sizing: effective\nbasis: limits\n"), file("misspelt.yaml", "basiss: Limits\n"));
    assert_eq!(check(&[]).0, 0);
    assert_eq!(check(&["--config", &valid]).0, 0, "{}", check(&["--config", &valid]).1);
    let self_managed = [
        "--self-managed-secret=s",
        "--webhook-configuration=c",
        "--service-name=n",
        "--namespace=ns",
        "--leaf-lifetime=1s",
    ];
    let mistakes: [(&[&str], i32, &str); 5] = [
        (&["--no-such-flag"], 2, "--no-such-flag"),
        (&["--config", &misspelt], 1, "basiss"),
        (&["--tls-min-version=VersionTLS9"], 1, "VersionTLS9"),
        (&self_managed, 1, "lifetime"),
        (&["--check-configuration=/no/such/file"], 1, "/no/such/file"),
    ];
    for (flags, status, message) in mistakes {
        let (found, text) = check(flags);
        assert!(found == status && text.contains(message), "{flags:?}: {found} {text}");
    }
}
