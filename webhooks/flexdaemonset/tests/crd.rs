//! `crds/` is what the types say.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use podshaper_offline::yaml;

/// `UPDATE_CRDS=1` writes the file instead.
#[test]
fn the_file_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../crds/flexdaemonsettemplates.yaml");
    let generated = yaml::to_string(&flexdaemonset_decision::crd::crd());
    if std::env::var_os("UPDATE_CRDS").is_some() {
        std::fs::write(path, &generated).unwrap();
    }
    let file = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(
        file, generated,
        "run: UPDATE_CRDS=1 cargo test -p flexdaemonset --features schema --test crd"
    );
}
