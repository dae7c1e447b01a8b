//! The metrics of a binary, compared with the reference in docs/metrics.md.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

/// Compares the metrics in `openmetrics` with the table `section` of the reference. With `UPDATE_METRICS=1` writes the table first.
///
/// A family without a series is not in the text. So the caller creates one series of each.
pub fn assert_documented(section: &str, openmetrics: &str) {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let reference = fs::read_to_string(&page).unwrap();
    let start = format!("<!-- {section} -->\n");
    let (before, rest) =
        reference.split_once(&start).unwrap_or_else(|| panic!("docs/metrics.md has no {start}"));
    let (documented, after) = rest.split_once("<!-- end -->").unwrap();
    let table = table(openmetrics);
    if env::var_os("UPDATE_METRICS").is_some() {
        fs::write(&page, format!("{before}{start}{table}<!-- end -->{after}")).unwrap();
    } else {
        assert_eq!(
            documented, table,
            "if this is meant: UPDATE_METRICS=1 cargo test, one crate after the other"
        );
    }
}

/// A row for each family: the name of its samples, its type, its labels and its description.
fn table(openmetrics: &str) -> String {
    let mut table = "| metric | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for family in openmetrics.split("# HELP ").skip(1) {
        let (name, rest) = family.split_once(' ').unwrap();
        let help = rest.lines().next().unwrap();
        let kind = family.lines().find_map(|line| line.strip_prefix(&format!("# TYPE {name} "))).unwrap();
        let suffix = match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        let labels: Vec<_> = labels(family).iter().map(|label| format!("`{label}`")).collect();
        writeln!(table, "| `{name}{suffix}` | {kind} | {} | {help} |", labels.join(", ")).unwrap();
    }
    table
}

/// The labels of the samples of one family, without those of histograms.
fn labels(family: &str) -> BTreeSet<&str> {
    let samples = family.lines().skip(1).filter(|line| !line.starts_with('#'));
    let labels = samples.filter_map(|line| Some(line.split_once('{')?.1.split_once('}')?.0));
    let names =
        labels.flat_map(|labels| labels.split(',')).filter_map(|label| Some(label.split_once('=')?.0));
    names.filter(|name| *name != "le").collect()
}
