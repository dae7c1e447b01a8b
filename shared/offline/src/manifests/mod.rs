//! Objects in files of YAML or JSON documents.

pub(crate) mod documents;
pub(crate) mod file;

use std::io::{self, Read, Write};
use std::path::PathBuf;

use anyhow::anyhow;
use podshaper_core::facts::Fact;
use serde_json::{Value, json};

use crate::console::printable;
use documents::Location;

/// `--facts`, for webhooks that decide by more than the pod.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct FactFiles {
    /// Objects that the webhook would watch in a cluster, as `kubectl get -o yaml` prints them; - for standard input
    #[arg(long, value_name = "FILE")]
    facts: Vec<PathBuf>,
}

impl FactFiles {
    /// Reads the objects; a list counts as its items.
    ///
    /// A Node without conditions gets the condition `Ready`, with a warning: nodes of a cluster always have it, and nodes in files rarely
    /// do.
    pub fn read(&self) -> anyhow::Result<Vec<Value>> {
        let mut objects = read_objects(&self.facts)?;
        objects.iter_mut().for_each(remove_non_strings);
        let assumed: Vec<_> = objects.iter_mut().filter_map(assume_ready).collect();
        if !assumed.is_empty() {
            let names = assumed.join(", ");
            // An error on standard error can't be reported.
            let _ =
                writeln!(io::stderr(), "warning: --facts: nodes without conditions count as ready: {names}");
        }
        Ok(objects)
    }
}

/// Removes labels and annotations that are not strings. The API server refuses them, but YAML reads an unquoted `0008` or `true` in a
/// file as another type.
fn remove_non_strings(object: &mut Value) {
    for field in ["labels", "annotations"] {
        if let Some(texts) = object.pointer_mut(&format!("/metadata/{field}")).and_then(Value::as_object_mut)
        {
            texts.retain(|_, value| value.is_string());
        }
    }
}

/// Adds the condition `Ready` to a Node without conditions, and returns the node's name.
fn assume_ready(object: &mut Value) -> Option<String> {
    let is_node = Fact::new(object).is_some_and(|fact| fact.is_kind("", "Node"));
    let has_conditions = object.pointer("/status/conditions").is_some_and(|conditions| !conditions.is_null());
    if !is_node || has_conditions {
        return None;
    }
    let status = object.as_object_mut()?.entry("status").or_insert_with(|| json!({}));
    if status.is_null() {
        *status = json!({});
    }
    let conditions = json!([{"type": "Ready", "status": "True"}]);
    status.as_object_mut()?.insert("conditions".to_owned(), conditions);
    Some(printable(object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()))
}

/// Reads the objects in files and directories (`-` is standard input); a list counts as its items.
pub fn read_objects(paths: &[PathBuf]) -> anyhow::Result<Vec<Value>> {
    let mut objects = Vec::new();
    for path in paths {
        for file in file::expand(path).map_err(|error| anyhow!("{}: {error}", path.display()))? {
            let name = file::name(&file);
            let mut stdin: Box<dyn Read> = Box::new(io::stdin());
            let mut texts = file::open(&file, &mut stdin).map_err(|error| anyhow!("{name}: {error}"))?;
            let mut index = 0;
            while let Some(text) = texts.next_text().map_err(|error| anyhow!("{name}: {error}"))? {
                for document in text.documents() {
                    let object = document.parse();
                    let object =
                        object.map_err(|error| anyhow!("{}: {error}", Location::new(&name, index)))?;
                    flatten(object, &mut objects);
                    index += 1;
                }
            }
        }
    }
    Ok(objects)
}

/// Items of a typed list may lack their kind, and get it here.
fn flatten(object: Value, objects: &mut Vec<Value>) {
    match object {
        Value::Null => {}
        Value::Object(mut list)
            if list.get("items").is_some_and(Value::is_array) && kind(&list).ends_with("List") =>
        {
            let Some(Value::Array(items)) = list.remove("items") else { return };
            let of = kind(&list).trim_end_matches("List").to_owned();
            for mut item in items {
                if let (Some(item), false) = (item.as_object_mut(), of.is_empty()) {
                    item.entry("apiVersion")
                        .or_insert_with(|| list.get("apiVersion").cloned().unwrap_or_default());
                    item.entry("kind").or_insert_with(|| of.clone().into());
                }
                flatten(item, objects);
            }
        }
        object => objects.push(object),
    }
}

fn kind(object: &serde_json::Map<String, Value>) -> &str {
    object.get("kind").and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_and_annotations_of_another_type_are_removed() {
        let mut object =
            json!({"metadata": {"labels": {"a": "b", "c": 8.0}, "annotations": {"d": true, "e": "0008"}}});
        remove_non_strings(&mut object);
        assert_eq!(object, json!({"metadata": {"labels": {"a": "b"}, "annotations": {"e": "0008"}}}));
    }

    #[test]
    fn lists_are_flattened() {
        let mut objects = Vec::new();
        flatten(
            json!({"apiVersion": "v1", "kind": "List", "items": [
                {"apiVersion": "v1", "kind": "NodeList", "items": [{"metadata": {"name": "a"}}]},
                {"apiVersion": "v1", "kind": "Pod"},
            ]}),
            &mut objects,
        );
        flatten(json!(null), &mut objects);
        flatten(json!({"kind": "Service"}), &mut objects);
        let node = json!({"metadata": {"name": "a"}, "apiVersion": "v1", "kind": "Node"});
        assert_eq!(objects, [node, json!({"apiVersion": "v1", "kind": "Pod"}), json!({"kind": "Service"})]);
    }

    #[test]
    fn node_without_conditions_is_assumed_ready() {
        let ready = json!([{"type": "Ready", "status": "True"}]);
        for (status, assumed) in [
            (None, true),
            (Some(json!(null)), true),
            (Some(json!({"allocatable": {"cpu": "1"}})), true),
            (Some(json!({"conditions": null})), true),
            (Some(json!({"conditions": []})), false),
            (Some(json!({"conditions": [{"type": "Ready", "status": "False"}]})), false),
        ] {
            let mut node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}});
            if let Some(status) = &status {
                node["status"] = status.clone();
            }
            assert_eq!(assume_ready(&mut node), assumed.then(|| "a".to_owned()), "{status:?}");
            assert_eq!(node["status"]["conditions"] == ready, assumed, "{status:?}");
            let allocatable = status.and_then(|status| status.get("allocatable").cloned());
            assert_eq!(node["status"].get("allocatable"), allocatable.as_ref());
        }
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}});
        assert_eq!(assume_ready(&mut pod), None);
    }

    #[test]
    fn error_names_the_file() {
        let error = FactFiles { facts: vec!["no/such.yaml".into()] }.read().unwrap_err().to_string();
        assert!(error.starts_with("no/such.yaml: No such file"), "{error}");
    }
}
