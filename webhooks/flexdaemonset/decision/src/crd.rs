//! The `CustomResourceDefinition`, from the types of [`crate::template`].
//!
//! What is made here stands in `crds/`; a test compares the two, and the chart and `flexdaemonset crd` take that file.
//! Besides the schema there are CEL rules, so that a template that can't work is refused when it is applied, with the
//! field's name.

use podshaper_crd::{Definition, conditions, rule, rule_of};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::template::{Amount, GROUP, KIND, PLURAL, TemplateSpec, VERSION};

impl JsonSchema for Amount {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Amount".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        Schema::from(Map::from_iter([
            ("anyOf".to_owned(), json!([{"type": "integer"}, {"type": "string"}])),
            ("x-kubernetes-int-or-string".to_owned(), json!(true)),
            ("maxLength".to_owned(), json!(32)),
            (
                "x-kubernetes-validations".to_owned(),
                json!([{
                    "rule": "isQuantity(string(self)) && quantity(string(self)).compareTo(quantity('0')) >= 0",
                    "message": "must be a quantity that isn't negative, such as 100m or 1Gi",
                }]),
            ),
        ]))
    }
}

/// The `CustomResourceDefinition`.
pub fn crd() -> Value {
    Definition {
        api_version: &format!("{GROUP}/{VERSION}"),
        scope: "Cluster",
        kind: KIND,
        plural: PLURAL,
        short_names: &["fdt"],
        description: "FlexDaemonsetTemplate says how large the pods of a DaemonSet are to be, in proportion to their node.",
        columns: &[
            ("CPU %", "integer", ".spec.cpuPercentage"),
            ("Memory %", "integer", ".spec.memoryPercentage"),
            ("Storage %", "integer", ".spec.storagePercentage"),
            ("Refit", "string", ".spec.refit"),
            ("Sized", "integer", ".status.podsSized"),
            ("Pending", "integer", ".status.podsPending"),
            ("Outdated", "integer", ".status.podsOutdated"),
            ("Infeasible", "integer", ".status.podsInfeasible"),
            ("Short", "integer", ".status.nodesShort"),
            ("Ready", "string", ".status.conditions[?(@.type=='Ready')].status"),
        ],
        needs_spec: true,
        spec: spec(),
        status: status(),
    }
    .into_object()
}

fn spec() -> Value {
    let mut settings = SchemaSettings::draft07();
    settings.inline_subschemas = true;
    settings.meta_schema = None;
    let mut spec = settings.into_generator().into_root_schema_for::<TemplateSpec>().to_value();
    structural(&mut spec);
    let mut rules = vec![
        rule(
            "[has(self.cpuPercentage), has(self.memoryPercentage), has(self.storagePercentage), has(self.minCPU), \
             has(self.minMemory), has(self.minStorage), has(self.overrides) && size(self.overrides) > 0].exists(x, x)",
            "at least one percentage or minimum is needed",
        ),
        rule_of(
            "!has(self.containers) || size(self.containers) == 0 || (has(self.distribution) && self.distribution == 'Split')",
            "is for distribution Split",
            ".containers",
        ),
        rule_of(
            "!has(self.containers) || self.containers.map(c, has(c.percent) ? c.percent : 0).sum() <= 100",
            "the percentages must not sum to more than 100",
            ".containers",
        ),
    ];
    rules.extend(floors_and_ceilings());
    put(&mut spec, "", "x-kubernetes-validations", json!(rules));
    put(&mut spec, "", "description", json!("How large the pods are to be"));
    put(&mut spec, "/properties/overrides/items", "x-kubernetes-validations", json!(floors_and_ceilings()));
    put(&mut spec, "/properties/overrides/items", "required", json!(["nodeSelector"]));
    let share = "/properties/containers/items";
    put(&mut spec, share, "required", json!(["name"]));
    put(
        &mut spec,
        share,
        "x-kubernetes-validations",
        json!([rule(
            "[has(self.percent), has(self.weight), has(self.excluded) && self.excluded].filter(x, x).size() == 1",
            "takes one of percent, weight and excluded",
        )]),
    );
    put(&mut spec, "/properties/containers", "x-kubernetes-list-type", json!("map"));
    put(&mut spec, "/properties/containers", "x-kubernetes-list-map-keys", json!(["name"]));
    let requirement = "/properties/overrides/items/properties/nodeSelector/properties/matchExpressions/items";
    put(&mut spec, requirement, "required", json!(["key", "operator"]));
    if let Some(Value::Object(operator)) = spec.pointer_mut(&format!("{requirement}/properties/operator")) {
        operator.remove("default");
    }
    put(
        &mut spec,
        requirement,
        "x-kubernetes-validations",
        json!([rule_of(
            "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
            "values are for In and NotIn",
            ".values",
        )]),
    );
    spec
}

/// Ceilings below their floor. The lengths are bounded, else the rule would cost too much to be accepted.
fn floors_and_ceilings() -> Vec<Value> {
    let pair = |what: &str| {
        let (min, max) = (format!("min{what}"), format!("max{what}"));
        rule_of(
            &format!(
                "!has(self.{min}) || !has(self.{max}) || !isQuantity(string(self.{min})) || !isQuantity(string(self.{max})) || \
                 quantity(string(self.{max})).compareTo(quantity(string(self.{min}))) >= 0"
            ),
            &format!("must be at least {min}"),
            &format!(".{max}"),
        )
    };
    ["CPU", "Memory", "Storage"].map(pair).into()
}

fn put(schema: &mut Value, pointer: &str, key: &str, value: Value) {
    if let Some(Value::Object(schema)) = schema.pointer_mut(pointer) {
        schema.insert(key.to_owned(), value);
    }
}

/// From JSON Schema to what Kubernetes calls structural, recursively.
fn structural(schema: &mut Value) {
    let Value::Object(object) = schema else { return };
    // An enum with a comment on each variant comes as oneOf.
    if let Some(Value::Array(variants)) = object.remove("oneOf") {
        let names: Vec<_> = variants.iter().filter_map(|variant| variant.get("const").cloned()).collect();
        let told: Vec<_> = variants
            .iter()
            .filter_map(|v| {
                Some(format!("{}: {}", v.get("const")?.as_str()?, v.get("description")?.as_str()?))
            })
            .collect();
        object.insert("type".to_owned(), json!("string"));
        object.insert("enum".to_owned(), Value::Array(names));
        let own = object.get("description").and_then(Value::as_str).unwrap_or_default();
        let description = [own.to_owned()].into_iter().chain(told).collect::<Vec<_>>().join("\n");
        object.insert("description".to_owned(), description.trim().into());
    }
    // Absent and null mean the same.
    if let Some(Value::Array(types)) = object.get("type") {
        let kept = types.iter().find(|kind| *kind != "null").cloned();
        object.insert("type".to_owned(), kept.unwrap_or_default());
    }
    if let Some(Value::Array(kinds)) = object.get_mut("anyOf") {
        kinds.retain(|kind| kind.get("type") != Some(&json!("null")));
        if let [only] = kinds.as_mut_slice() {
            let only = only.take();
            object.remove("anyOf");
            for (key, value) in only.as_object().into_iter().flatten() {
                object.entry(key).or_insert_with(|| value.clone());
            }
        }
    }
    for key in ["format", "title", "$schema", "additionalProperties"] {
        if key != "additionalProperties" || object.get(key) == Some(&json!(false)) {
            object.remove(key);
        }
    }
    // Of defaults those stay that say something.
    if !object.contains_key("enum") {
        object.remove("default");
    }
    // How floats spell it is no matter.
    for key in ["minimum", "maximum"] {
        if let Some(bound) = object.get(key).and_then(Value::as_f64) {
            #[expect(clippy::cast_possible_truncation, reason = "bounds are small whole numbers")]
            object.insert(key.to_owned(), json!(bound as i64));
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = object.get_mut(key) {
            structural(inner);
        }
    }
    for inner in
        object.get_mut("properties").and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut)
    {
        structural(inner);
    }
}

fn status() -> Value {
    let count = |description: &str| json!({"type": "integer", "format": "int32", "description": description});
    json!({
        "type": "object",
        "description": "What became of the template; kept by the webhook",
        "properties": {
            "observedGeneration": {"type": "integer", "format": "int64", "description": "The generation of the spec that this is about"},
            "daemonSets": count("DaemonSets that name the template"),
            "podsSized": count("Pods that have the size that the template gives them"),
            "podsPending": count("Pods that were created without a size, because the webhook or their node wasn't there"),
            "podsOutdated": count("Pods that had a size by an earlier template or node, and have another to come"),
            "podsInfeasible": count("Pods whose kubelet can't resize them now"),
            "nodesShort": count("Nodes that are too small for the pod, whatever else runs there"),
            "conditions": conditions("Ready or Progressing", "Ready: the template can be used. Progressing: running pods follow it"),
        },
    })
}
