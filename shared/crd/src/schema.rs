//! Structural schemas (Kubernetes documentation, "Specifying a structural schema") from the JSON Schemas of types.

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

/// A CEL rule, and the error message of a value that breaks it: an item of `x-kubernetes-validations`.
pub fn rule(rule: &str, message: &str) -> Value {
    json!({"rule": rule, "message": message})
}

/// A CEL rule with an error that names a field below the value, for example `.max`.
pub fn rule_at(field: &str, rule: &str, message: &str) -> Value {
    json!({"rule": rule, "message": message, "fieldPath": field})
}

/// The structural schema of `T`.
pub(crate) fn structural_schema<T: JsonSchema>() -> Value {
    let mut settings = SchemaSettings::draft07();
    settings.inline_subschemas = true;
    settings.meta_schema = None;
    let generator = settings.with_transform(RecursiveTransform(make_structural)).into_generator();
    generator.into_root_schema_for::<T>().to_value()
}

/// Rewrites one schema; its subschemas follow.
fn make_structural(schema: &mut Schema) {
    let Some(schema) = schema.as_object_mut() else { return };
    merge_optional(schema);
    join_lines(schema);
    if let Some(Value::Array(variants)) = schema.remove("oneOf") {
        merge_variants(schema, &variants);
    }
    if schema.contains_key("x-kubernetes-int-or-string") {
        schema.insert("anyOf".to_owned(), json!([{"type": "integer"}, {"type": "string"}]));
    }
    // Kubernetes has no unsigned formats. The minimum replaces them.
    if schema.get("format").is_some_and(|format| format == "uint32") && !schema.contains_key("maximum") {
        schema.insert("format".to_owned(), "int32".into());
        schema.remove("minimum");
    }
    let format = schema.get("format").and_then(Value::as_str);
    if format.is_some_and(|format| format.starts_with("uint")) {
        schema.remove("format");
    }
    // The API server stores defaults, so only those of enums are in the schema. Other defaults equal the absence of the field.
    if schema.get("default").and_then(Value::as_str).is_none_or(str::is_empty) {
        schema.remove("default");
    }
    remove_defaults_of_required(schema);
    if schema.get("additionalProperties") == Some(&json!(false)) {
        schema.remove("additionalProperties");
    }
    schema.remove("title");
}

/// Turns an `Option` into its inner type: a field that is null is absent.
fn merge_optional(schema: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = schema.get("type") {
        let kept = types.iter().find(|kind| *kind != "null").cloned();
        schema.insert("type".to_owned(), kept.unwrap_or_default());
    }
    if let Some(Value::Array(values)) = schema.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    let Some(Value::Array(kinds)) = schema.get_mut("anyOf") else { return };
    kinds.retain(|kind| kind.get("type") != Some(&json!("null")));
    if let [only] = kinds.as_mut_slice() {
        let only = only.take();
        schema.remove("anyOf");
        for (key, value) in only.as_object().into_iter().flatten() {
            schema.entry(key).or_insert_with(|| value.clone());
        }
    }
}

/// A required field is present: its default never applies.
fn remove_defaults_of_required(schema: &mut Map<String, Value>) {
    let required = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    let Some(Value::Object(properties)) = schema.get_mut("properties") else { return };
    for name in required.iter().filter_map(Value::as_str) {
        if let Some(Value::Object(property)) = properties.get_mut(name) {
            property.remove("default");
        }
    }
}

/// Joins the lines of a doc comment; paragraphs stay.
fn join_lines(schema: &mut Map<String, Value>) {
    if let Some(Value::String(description)) = schema.get_mut("description") {
        let paragraphs = description.split("\n\n").map(|paragraph| paragraph.replace('\n', " "));
        *description = paragraphs.collect::<Vec<_>>().join("\n\n");
    }
}

/// Merges the alternatives of an enum with documented variants into one `enum`, and their comments into lines of its description.
fn merge_variants(schema: &mut Map<String, Value>, variants: &[Value]) {
    let mut names = Vec::new();
    let mut lines = Vec::new();
    lines.extend(schema.get("description").and_then(Value::as_str).map(str::to_owned));
    for variant in variants {
        let name = variant.get("const").cloned().unwrap_or_default();
        let description = variant.get("description").and_then(Value::as_str).unwrap_or_default();
        let text = name.as_str().unwrap_or_default();
        lines.push(format!("{text}: {}", description.replace('\n', " ")));
        names.push(name);
    }
    schema.insert("type".to_owned(), json!("string"));
    schema.insert("enum".to_owned(), Value::Array(names));
    schema.insert("description".to_owned(), lines.join("\n").into());
}
