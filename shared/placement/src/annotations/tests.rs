use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::Value;

use super::*;
use crate::definition::Definition;
use crate::policy::Tie;
use podshaper_core::patch::Patch;
use podshaper_core::pod::{NodeSelectorTerm, alternatives};

fn group(name: &str, labels: &[(&str, &str)]) -> Group {
    let node_labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Group { name: name.into(), node_labels, weight: 1, ..Group::default() }
}

fn with<R>(pod: &Value, read: impl FnOnce(&Pod<'_>) -> R) -> R {
    read(&serde_json::from_str(&pod.to_string()).unwrap())
}

fn patched(pod: &Pod<'_>, group: &Group, assignment: &Assignment) -> Patch {
    let mut patch = PodPatch::new(pod);
    apply(
        &mut patch,
        group,
        &PlacementMetadata {
            assignment,
            hash: Definition::new(&group.node_labels, &group.node_affinity).unwrap().hash(),
            owner: "an-owner",
            controller: None,
            estimated: false,
            webhook: "distributor",
        },
    );
    patch.finish().unwrap()
}

fn placed(pod: &Value, group: &Group, assignment: &Assignment) -> Value {
    let patch = with(pod, |pod| patched(pod, group, assignment).to_json());
    let patch: json_patch::Patch = serde_json::from_str(&String::from_utf8(patch).unwrap()).unwrap();
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &patch).unwrap();
    pod
}

fn assignment_of(group: &Group, slot: u32) -> Assignment {
    Assignment { token: Token::of("a request"), slot, group: group.name.clone() }
}

fn fits(pod: &Value, labels: &[(&str, &str)]) -> bool {
    let policy = Policy::new(vec![group("a", labels)], Tie::First).unwrap();
    with(pod, |pod| fitting_groups(pod, &policy).contains(0))
}

#[test]
fn placed_pod_has_annotations_label_and_selector() {
    let spot = group("spot", &[("example.com/type", "spot")]);
    let pod =
        json!({"metadata": {"generateName": "web-"}, "spec": {"nodeSelector": {"disk": "ssd"}, "x": 1}});
    assert_eq!(
        placed(&pod, &spot, &assignment_of(&spot, 7)),
        json!({
            "metadata": {"generateName": "web-", "labels": {"podshaper.dev/placed": "distributor"}, "annotations": {
                "placement.podshaper.dev/owner": "an-owner",
                "placement.podshaper.dev/token": Token::of("a request").to_string(),
                "placement.podshaper.dev/slot": "7",
                "placement.podshaper.dev/group": "spot",
                "placement.podshaper.dev/group-hash": "c889eefe",
                "controller.kubernetes.io/pod-deletion-cost": "-7",
            }},
            "spec": {"nodeSelector": {"disk": "ssd", "example.com/type": "spot"}, "x": 1},
        })
    );
}

#[test]
fn deletion_cost_of_the_author_stays() {
    let spot = group("spot", &[("type", "spot")]);
    let pod = json!({"metadata": {"annotations": {DELETION_COST: "50"}}, "spec": {}});
    assert_eq!(placed(&pod, &spot, &assignment_of(&spot, 7))["metadata"]["annotations"][DELETION_COST], "50");
    let copy = placed(&json!({"spec": {}}), &spot, &assignment_of(&spot, 7));
    assert_eq!(
        placed(&copy, &spot, &assignment_of(&spot, 9))["metadata"]["annotations"][DELETION_COST],
        "-9"
    );
}

#[test]
fn every_pair_of_terms_is_required() {
    let term = |key: &str| json!({"matchExpressions": [{"key": key, "operator": "Exists"}]});
    let zone = Group { node_affinity: vec![term("x"), term("y")], ..group("a", &[("type", "a")]) };
    let affinity = |terms: Value| json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}});
    let pod = json!({"spec": {"affinity": affinity(json!([term("a"), {"matchFields": [], "matchExpressions": [
        {"key": "b", "operator": "Exists"}], "later": 1}]))}});
    let pair = |a: &str, b: &str| json!({"matchExpressions": [{"key": a, "operator": "Exists"}, {"key": b, "operator": "Exists"}]});
    let later = |b: &str| {
        let mut pair = pair("b", b);
        pair["matchFields"] = json!([]);
        pair["later"] = json!(1);
        pair
    };
    let after = placed(&pod, &zone, &assignment_of(&zone, 0));
    let expected = json!([pair("a", "x"), later("x"), pair("a", "y"), later("y")]);
    assert_eq!(after["spec"]["affinity"], affinity(expected));
    let none = placed(&json!({"spec": {"affinity": null}}), &zone, &assignment_of(&zone, 0));
    assert_eq!(none["spec"]["affinity"], affinity(json!([term("x"), term("y")])));
}

#[test]
fn selectors_that_leave_a_group_out() {
    let required = |expressions: Value| {
        json!({"spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "never", "operator": "In", "values": []}, {"key": "n",
                "operator": "In", "values": []}]}, {"matchExpressions": expressions}]}}}}})
    };
    let n = |operator: &str, values: &[&str]| {
        required(json!([{"key": "n", "operator": operator, "values": values}]))
    };
    for (pod, fit) in [
        (json!({"spec": {}}), true),
        (json!({"spec": {"nodeSelector": {"n": "5"}}}), true),
        (json!({"spec": {"nodeSelector": {"n": "6", "m": "1"}}}), false),
        (json!({"spec": {"nodeSelector": {"m": "6"}}}), true),
        (n("In", &["4", "5"]), true),
        (n("In", &["4"]), false),
        (n("NotIn", &["4"]), true),
        (n("NotIn", &["5"]), false),
        (n("Exists", &[]), true),
        (n("DoesNotExist", &[]), false),
        (n("Gt", &["4"]), true),
        (n("Gt", &["5"]), false),
        (n("Lt", &["6"]), true),
        (n("Lt", &["x"]), false),
        (required(json!([{"key": "m", "operator": "DoesNotExist"}])), true),
        (
            required(
                json!([{"key": "n", "operator": "Exists"}, {"key": "n", "operator": "NotIn", "values": ["5"]}]),
            ),
            false,
        ),
        (required(json!([])), false),
    ] {
        assert_eq!(fits(&pod, &[("n", "5")]), fit, "{pod}");
    }
}

#[test]
fn invalid_annotations_are_ignored() {
    let token = Token::of("x").to_string();
    for (token, slot, group, whole) in [
        (&*token, "3", Some("a"), true),
        ("+123456789abcdef", "3", Some("a"), false),
        ("", "3", Some("a"), false),
        (&*token, "-3", Some("a"), false),
        (&*token, "4294967296", Some("a"), false),
        (&*token, "3", None, false),
    ] {
        let annotations = BTreeMap::from([(TOKEN, Some(token)), (SLOT, Some(slot)), (GROUP, group)]);
        assert_eq!(parse(|key| *annotations.get(key)?).is_some(), whole, "{annotations:?}");
    }
}

fn expressions() -> impl Strategy<Value = Value> {
    let requirement = (
        select(vec!["type", "zone", "a/b.c"]),
        select(vec!["In", "NotIn", "Exists"]),
        select(vec!["spot", "x"]),
    );
    let requirement = requirement.prop_map(|(key, operator, value)| match operator {
        "Exists" => json!({"key": key, "operator": operator}),
        _ => json!({"key": key, "operator": operator, "values": [value]}),
    });
    prop::collection::vec(requirement, 0..3).prop_map(Value::from)
}

fn terms() -> impl Strategy<Value = Value> {
    let fields = json!([{"key": "metadata.name", "operator": "In", "values": ["n"]}]);
    let term = (
        proptest::option::of(expressions()),
        select(vec![json!({}), json!({"matchFields": fields}), json!({"matchFields": null, "new": 1})]),
    );
    let term = term.prop_map(|(expressions, mut term)| {
        if let Some(expressions) = expressions {
            term["matchExpressions"] = expressions;
        }
        term
    });
    prop::collection::vec(term, 0..4).prop_map(Value::from)
}

/// Absent, null, or something.
fn maybe(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Option<Value>> {
    prop_oneof![1 => Just(None), 1 => Just(Some(Value::Null)), 3 => value.prop_map(Some)]
}

fn object<const N: usize>(members: [(&str, Option<Value>); N]) -> Value {
    members
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

fn pods() -> impl Strategy<Value = Value> {
    let map = || {
        let entries = [
            ("type", "spot"),
            ("type", "x"),
            ("disk", "ssd"),
            (TOKEN, "0"),
            (ESTIMATED, "true"),
            (DELETION_COST, "5"),
        ];
        subsequence(entries.to_vec(), 0..4).prop_map(|entries| {
            Value::Object(entries.into_iter().map(|(key, value)| (key.to_owned(), json!(value))).collect())
        })
    };
    let required = maybe(maybe(terms()).prop_map(|terms| object([("nodeSelectorTerms", terms)])));
    let preferred = maybe(Just(json!([{"weight": 1, "preference": {"matchExpressions": []}}])));
    let node = maybe(
        (required, preferred)
            .prop_map(|(required, preferred)| object([(REQUIRED, required), (PREFERRED, preferred)])),
    );
    let affinity =
        maybe(node.prop_map(|node| object([("nodeAffinity", node), ("podAffinity", Some(json!({"x": 1})))])));
    let tolerations = maybe(select(vec![
        json!([]),
        json!([{"key": "spot", "operator": "Exists"}]),
        json!([{"key": "other", "later": 1}]),
    ]));
    let spec = (maybe(map()), affinity, tolerations).prop_map(|(selector, affinity, tolerations)| {
        object([
            ("nodeSelector", selector),
            ("affinity", affinity),
            ("tolerations", tolerations),
            ("y", Some(json!([1]))),
        ])
    });
    let metadata = maybe(
        (maybe(map()), maybe(map()))
            .prop_map(|(annotations, labels)| object([("annotations", annotations), ("labels", labels)])),
    );
    (metadata, spec).prop_map(|(metadata, spec)| {
        object([("metadata", metadata), ("spec", Some(spec)), ("z", Some(Value::Null))])
    })
}

fn groups() -> impl Strategy<Value = Group> {
    let valid = |term: &&Value| {
        let requirements = ["matchExpressions", "matchFields"].map(|list| list_of(term, list).len());
        term.get("new").is_none() && requirements != [0, 0]
    };
    let affinity =
        terms().prop_map(move |terms| terms.as_array().unwrap().iter().filter(valid).cloned().collect());
    let tolerations = subsequence(
        vec![json!({"key": "spot", "operator": "Exists"}), json!({"key": "more", "effect": "NoSchedule"})],
        0..3,
    );
    let labels = subsequence(vec![("type", "spot"), ("zone", "x"), ("a/b.c", "x")], 1..4);
    (affinity, tolerations, labels, any::<bool>())
        .prop_map(|(node_affinity, tolerations, labels, preferred)| Group {
            tolerations,
            node_affinity,
            preferred,
            ..group("g", &labels)
        })
        .prop_filter("no node can belong to it", |group| Policy::new(vec![group.clone()], Tie::First).is_ok())
}

fn list_of<'v>(object: &'v Value, member: &str) -> &'v [Value] {
    object.get(member).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Whether a node meets the term (`nodeaffinity.NodeSelector.Match` of k8s.io/component-helpers).
fn meets(node: &BTreeMap<&str, &str>, term: &Value) -> bool {
    let meets = |requirement: &Value, value: Option<&&str>| {
        let listed = value.is_some_and(|value| list_of(requirement, "values").iter().any(|own| own == value));
        match requirement["operator"].as_str().unwrap() {
            "In" => listed,
            "NotIn" => !listed,
            _ => value.is_some(),
        }
    };
    let expressions = list_of(term, "matchExpressions");
    let fields = list_of(term, "matchFields");
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(|own| meets(own, node.get(own["key"].as_str().unwrap())))
        && fields.iter().all(|own| meets(own, node.get("name")))
}

/// Whether the pod may run on a node with these labels, and the name `name`.
fn allows(pod: &Value, node: &BTreeMap<&str, &str>) -> bool {
    let selector = pod.pointer("/spec/nodeSelector").and_then(Value::as_object);
    let selected = selector
        .is_none_or(|own| own.iter().all(|(key, value)| node.get(&**key).is_some_and(|own| value == own)));
    let required =
        pod.pointer(&format!("/spec/affinity/nodeAffinity/{REQUIRED}")).filter(|own| !own.is_null());
    selected
        && required.is_none_or(|own| list_of(own, "nodeSelectorTerms").iter().any(|term| meets(node, term)))
}

fn nodes() -> impl Strategy<Value = BTreeMap<&'static str, &'static str>> {
    let value = || proptest::option::of(select(vec!["spot", "x", "ssd", "n"]));
    let keys = ["type", "zone", "a/b.c", "disk", "name"];
    [value(), value(), value(), value(), value()].prop_map(move |values| {
        keys.into_iter().zip(values).filter_map(|(key, value)| Some((key, value?))).collect()
    })
}

/// Everything in `before` is in `after` where it was; null is as good as absent.
fn kept(before: &Value, after: &Value) -> bool {
    match (before, after) {
        (Value::Null, _) => true,
        (Value::Object(before), Value::Object(after)) => {
            before.iter().all(|(key, value)| kept(value, after.get(key).unwrap_or(&Value::Null)))
        }
        (Value::Array(before), Value::Array(after)) => {
            before.len() <= after.len() && before.iter().zip(after).all(|(before, after)| kept(before, after))
        }
        (before, after) => before == after,
    }
}

fn fits_group(pod: &Value, group: &Group) -> bool {
    let policy = Policy::new(vec![group.clone()], Tie::First).unwrap();
    with(pod, |pod| fitting_groups(pod, &policy).contains(0))
}

/// Removes the terms that no node of the group can match.
fn remove_terms(pod: &mut Value, group: &Group) {
    let Some(terms) = pod.pointer_mut(&format!("/spec/affinity/nodeAffinity/{REQUIRED}/nodeSelectorTerms"))
    else {
        return;
    };
    let unlabelled = Group { node_labels: BTreeMap::new(), preferred: false, ..group.clone() };
    if let Some(terms) = terms.as_array_mut().filter(|_| !group.node_affinity.is_empty()) {
        terms.retain(|term| {
            let alone =
                json!({"spec": {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [term]}}}}});
            with(&alone, |alone| alone.node_alternatives().is_empty()) || fits_group(&alone, &unlabelled)
        });
    }
}

proptest! {
    #[test]
    fn nodes_are_those_of_the_author_and_of_the_group(
        pod in pods(), group in groups(), nodes in prop::collection::vec(nodes(), 1..20),
    ) {
        let after = placed(&pod, &group, &assignment_of(&group, 0));
        let fits = fits_group(&pod, &group);
        for node in nodes {
            let labels = group.node_labels.iter().all(|(key, value)| node.get(&**key) == Some(&&**value));
            let terms = &group.node_affinity;
            let of_group = (group.preferred || labels) && (terms.is_empty() || terms.iter().any(|term| meets(&node, term)));
            if fits {
                prop_assert_eq!(allows(&after, &node), allows(&pod, &node) && of_group, "{:?}", node);
            } else {
                prop_assert!(!(allows(&pod, &node) && labels && of_group), "{:?}", node);
            }
        }
    }

    #[test]
    fn no_term_contradicts_itself(pod in pods(), group in groups()) {
        if !fits_group(&pod, &group) {
            return Ok(());
        }
        let after = placed(&pod, &group, &assignment_of(&group, 0));
        let impossible = |pod: &Value| {
            with(pod, |pod| {
                let terms = pod.required_terms().unwrap_or_default();
                let alone = |term: &&NodeSelectorTerm<'_>| {
                    alternatives([].into_iter(), Some(std::slice::from_ref(*term))).is_empty()
                };
                terms.iter().filter(alone).count()
            })
        };
        prop_assert!(impossible(&after) <= impossible(&pod), "{} {}", pod, after);
    }

    #[test]
    fn no_request_is_lost(pod in pods(), group in groups(), slot in 0..1000u32) {
        if !fits_group(&pod, &group) {
            return Ok(());
        }
        let assignment = assignment_of(&group, slot);
        let after = placed(&pod, &group, &assignment);
        let mut before = pod.clone();
        for ours in [TOKEN, ESTIMATED] {
            if let Some(annotations) = before.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
                annotations.remove(ours);
            }
        }
        remove_terms(&mut before, &group);
        prop_assert!(kept(&before, &after), "{before} {after}");
        prop_assert_eq!(after.pointer("/metadata/annotations").unwrap().get(ESTIMATED), None);

        let policy = Policy::new(vec![group.clone()], Tie::First).unwrap();
        prop_assert_eq!(with(&after, |pod| from_pod(pod, &policy)), Some(assignment.clone()));
        prop_assert_eq!(&placed(&after, &group, &assignment), &after, "a second time changes nothing");
        prop_assert_eq!(with(&after, |pod| patched(pod, &group, &assignment).is_empty()), true);
        for toleration in &group.tolerations {
            prop_assert!(after["spec"]["tolerations"].as_array().unwrap().contains(toleration));
        }
        prop_assert!(fits_group(&after, &group));
    }
}
