//! The kind `Placement`, as the API server knows it. It stands in `crds/`; a test compares the two.

use serde_json::{Value, json};

use super::object::{API_VERSION, KIND, PLURAL};
use podshaper_crd::Definition;

/// The `CustomResourceDefinition`.
pub fn crd() -> Value {
    let text = |description: &str, longest: u32| json!({"type": "string", "maxLength": longest, "description": description});
    Definition {
        api_version: API_VERSION,
        scope: "Namespaced",
        kind: KIND,
        plural: PLURAL,
        short_names: &[],
        description: "Placement is what the replicas of a webhook agree on about one workload's pods. They write it themselves, and it \
                      goes with the workload: nobody else need touch it.",
        columns: &[
            ("Kind", "string", ".metadata.ownerReferences[0].kind"),
            ("Owner", "string", ".metadata.ownerReferences[0].name"),
            ("Pods", "string", ".status.pods"),
            ("Due", "string", ".status.due"),
        ],
        needs_spec: false,
        spec: json!({
            "type": "object",
            "description": "What is under way",
            "properties": {
                "fence": text("A resourceVersion of pods; who decides has seen them at least up to here", 32),
                "reservations": text(
                    "Places given to pods that nobody has seen yet, the oldest first, a line each: token, slot, when it was given, the pod \
                     (- if it has no name yet), and the group",
                    1 << 20,
                ),
            },
        }),
        status: json!({
            "type": "object",
            "description": "How the workload's pods are spread, for people",
            "properties": {
                "pods": text("Placed pods by group, in the order of the groups, as in 8/2", 1024),
                "due": text("What they should be, as in 8/2", 1024),
            },
        }),
    }
    .into_object()
}

#[cfg(test)]
mod tests {
    use super::*;
    use podshaper_offline::yaml;

    /// `UPDATE_CRDS=1` writes the file instead.
    #[test]
    fn the_file_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../crds/placements.yaml");
        let generated = yaml::to_string(&crd());
        if std::env::var_os("UPDATE_CRDS").is_some() {
            std::fs::write(path, &generated).unwrap();
        }
        let file = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(file, generated, "run: UPDATE_CRDS=1 cargo test -p podshaper --features watch crd");
    }
}
