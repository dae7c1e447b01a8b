//! The command line of the original, which our image answers to as `/manager`.
//!
//! Go's flags may have one dash, and a boolean may have a value. What only its inside needed is accepted and does
//! nothing: there is no leader to elect here.

use std::ffi::OsString;
use std::path::Path;

/// Flags of the original without a meaning here, and whether a value may follow as an argument of its own.
const IGNORED: [(&str, bool); 7] = [
    ("leader-elect", false),
    ("kubeconfig", true),
    ("zap-devel", false),
    ("zap-encoder", true),
    ("zap-log-level", true),
    ("zap-stacktrace-level", true),
    ("zap-time-encoding", true),
];

/// The arguments as our own command line takes them; unchanged unless the program is called `manager`.
pub(crate) fn arguments(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments = arguments.peekable();
    let Some(program) = arguments.next() else { return Vec::new() };
    if Path::new(&program).file_name().is_none_or(|name| name != "manager") {
        return std::iter::once(program).chain(arguments).collect();
    }
    let mut translated = vec![program];
    while let Some(argument) = arguments.next() {
        let Some(flag) = argument.to_str().and_then(|a| a.strip_prefix("--").or_else(|| a.strip_prefix('-')))
        else {
            translated.push(argument);
            continue;
        };
        let name = flag.split('=').next().unwrap_or_default();
        match IGNORED.iter().find(|(ignored, _)| *ignored == name) {
            Some((_, true)) if !flag.contains('=') => drop(arguments.next()),
            Some(_) => {}
            None if name.len() > 1 => translated.push(format!("--{flag}").into()),
            None => translated.push(argument),
        }
    }
    translated
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(line: &str) -> String {
        let arguments: Vec<_> = arguments(line.split(' ').map(OsString::from))
            .into_iter()
            .map(|a| a.into_string().unwrap())
            .collect();
        arguments.join(" ")
    }

    #[test]
    fn the_originals_own_command() {
        assert_eq!(
            translated(
                "/manager --leader-elect --health-probe-bind-address=:8081 --metrics-bind-address=:8443"
            ),
            "/manager --health-probe-bind-address=:8081 --metrics-bind-address=:8443"
        );
    }

    #[test]
    fn go_spellings() {
        assert_eq!(
            translated("manager -leader-elect=true -zap-log-level debug -metrics-bind-address :8080 -h"),
            "manager --metrics-bind-address :8080 -h"
        );
    }

    #[test]
    fn other_names_are_left_alone() {
        let line = "/peerpods -leader-elect --zap-devel serve";
        assert_eq!(translated(line), line);
        assert_eq!(arguments(std::iter::empty()), Vec::<OsString>::new());
    }
}
