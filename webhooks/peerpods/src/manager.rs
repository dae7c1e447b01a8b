//! The command line of cloud-api-adaptor's webhook, which the image provides as `/manager`.
//!
//! Go's flags may have one dash, and a boolean flag may have a value. Flags without a meaning here are ignored.

use std::ffi::OsString;
use std::path::Path;

/// Flags without a meaning here, and whether their value may be an argument of its own.
const IGNORED: [(&str, bool); 7] = [
    ("leader-elect", false),
    ("kubeconfig", true),
    ("zap-devel", false),
    ("zap-encoder", true),
    ("zap-log-level", true),
    ("zap-stacktrace-level", true),
    ("zap-time-encoding", true),
];

/// The arguments for the command line of `peerpods`; unchanged unless the program's name is `manager`.
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
    fn command_of_cloud_api_adaptor_is_translated() {
        assert_eq!(
            translated(
                "/manager --leader-elect --health-probe-bind-address=:8081 --metrics-bind-address=:8443"
            ),
            "/manager --health-probe-bind-address=:8081 --metrics-bind-address=:8443"
        );
    }

    #[test]
    fn go_flags_are_translated() {
        assert_eq!(
            translated("manager -leader-elect=true -zap-log-level debug -metrics-bind-address :8080 -h"),
            "manager --metrics-bind-address :8080 -h"
        );
    }

    #[test]
    fn other_program_names_are_unchanged() {
        let line = "/peerpods -leader-elect --zap-devel serve";
        assert_eq!(translated(line), line);
        assert_eq!(arguments(std::iter::empty()), Vec::<OsString>::new());
    }
}
