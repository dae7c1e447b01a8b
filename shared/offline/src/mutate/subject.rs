//! The objects in a document that a webhook decides about.

use serde::Serialize;
use serde_json::{Value, json};

use super::defaults::requests_from_limits;
use crate::console::printable;
use crate::manifests::documents::Location;
use podshaper_core::admission::Request;
use podshaper_core::json::Text;
use podshaper_core::patch::Pointer;
use podshaper_core::workload::pod_template;

/// A pod, an object with a pod template, or an object under admission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Subject {
    /// The object in the document.
    #[serde(skip)]
    object: Pointer,
    /// The pod in the object.
    #[serde(skip)]
    pod: Pointer,
    /// The `AdmissionReview` in the document that has the object, if there is one.
    #[serde(skip)]
    review: Option<Pointer>,
    /// The number of the object in a list, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    item: Option<usize>,
    api_version: String,
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    /// `name`, or else `generateName`, or else empty.
    name: String,
}

impl Subject {
    /// All subjects in `document`.
    pub(super) fn find(document: &Value) -> Vec<Self> {
        let mut subjects = Vec::new();
        find(document, Pointer::root(), None, ("", ""), &mut subjects);
        subjects
    }

    fn new(
        object: Pointer,
        pod: Pointer,
        item: Option<usize>,
        (api_version, kind): (&str, &str),
        value: &Value,
    ) -> Self {
        let metadata = value.get("metadata").unwrap_or(&Value::Null);
        let name = text(metadata, "name").or_else(|| text(metadata, "generateName")).unwrap_or_default();
        Self {
            object,
            pod,
            review: None,
            item,
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            namespace: text(metadata, "namespace").map(str::to_owned),
            name: name.to_owned(),
        }
    }

    /// `web.yaml: document 2, item 3: Deployment/web`
    pub(super) fn label(&self, location: Location<'_>) -> String {
        let item = self.item.map(|item| format!(", item {item}")).unwrap_or_default();
        printable(&format!("{location}{item}: {}/{}", self.kind, self.name))
    }

    /// The object in its document.
    pub(super) fn object<'v>(&self, document: &'v Value) -> &'v Value {
        document.pointer(self.object.as_str()).unwrap_or(&Value::Null)
    }

    /// The review that the API server would send, and the operations by which it fills in defaults of the pod first.
    ///
    /// `json` is the text of the document if it is JSON. `namespace` is for an object that names none. A webhook for workloads
    /// decides about the workload and not about the pod of its template.
    pub(super) fn review(
        &self,
        document: &Value,
        json: Option<&str>,
        namespace: &str,
        for_workloads: bool,
    ) -> anyhow::Result<(String, Vec<Value>)> {
        match (&self.review, json) {
            // The unchanged text: the answer may depend on more than its values.
            (Some(review), Some(json)) if *review == Pointer::root() => Ok((json.to_owned(), Vec::new())),
            (Some(review), _) => {
                let review = document.pointer(review.as_str()).map(Value::to_string);
                Ok((review.unwrap_or_default(), Vec::new()))
            }
            (None, _) if for_workloads && !self.pod.as_str().is_empty() => {
                let workload = self.object(document).clone();
                Ok((self.creation(&self.api_version, &self.kind, workload, namespace)?, Vec::new()))
            }
            (None, _) => {
                let mut pod = self.object(document).pointer(self.pod.as_str()).cloned().unwrap_or_default();
                let defaults = requests_from_limits(&pod);
                apply(&defaults, &mut pod)?;
                self.add_owner(&mut pod);
                Ok((self.creation("v1", "Pod", pod, namespace)?, defaults))
            }
        }
    }

    fn creation(
        &self,
        api_version: &str,
        kind: &str,
        mut object: Value,
        namespace: &str,
    ) -> anyhow::Result<String> {
        // A template has no type, and an item of a typed list may leave it out.
        if let Some(object) = object.as_object_mut() {
            object.insert("apiVersion".to_owned(), api_version.into());
            object.insert("kind".to_owned(), kind.into());
        }
        let namespace = self.namespace.as_deref().unwrap_or(namespace);
        let name = object.pointer("/metadata/name").and_then(Value::as_str).map(Text::from);
        Ok(Request { name, ..Request::create(api_version, kind, namespace, &object) }.to_review()?)
    }

    /// Makes the workload the controller of the pod of its template, if its controller creates the pods. (The controller of a
    /// Deployment creates a ReplicaSet with an unknown name.)
    fn add_owner(&self, pod: &mut Value) {
        let Self { api_version, kind, name, .. } = self;
        let creates_pods = matches!(
            (&**api_version, &**kind),
            (_, "DaemonSet") | ("apps/v1", "StatefulSet" | "ReplicaSet") | ("batch/v1", "Job")
        );
        // A patch may rely on members of the pod and must apply to the document: so no `metadata` is added.
        if let (true, Some(metadata)) = (creates_pods, pod.get_mut("metadata").and_then(Value::as_object_mut))
        {
            let owner =
                json!({"apiVersion": api_version, "kind": kind, "name": name, "uid": "", "controller": true});
            metadata.entry("ownerReferences").or_insert_with(|| json!([owner]));
        }
    }

    /// Applies operations on the pod to the document.
    pub(super) fn patch(&self, operations: &[Value], document: &mut Value) -> anyhow::Result<()> {
        apply(&rebase(operations, &format!("{}{}", self.object, self.pod)), document)
    }

    /// Operations on the pod as operations on the object.
    pub(super) fn patch_of_object(&self, operations: &[Value]) -> Vec<Value> {
        rebase(operations, self.pod.as_str())
    }

    /// Removes the object from the list that it is in. False if the document is the object.
    pub(super) fn remove(&self, document: &mut Value) -> bool {
        let place = self.review.as_ref().unwrap_or(&self.object).as_str();
        let Some((list, index)) = place.rsplit_once('/') else { return false };
        if let (Some(Value::Array(items)), Ok(index)) = (document.pointer_mut(list), index.parse::<usize>())
            && index < items.len()
        {
            items.remove(index);
        }
        true
    }
}

/// `implied` are the `apiVersion` and `kind` of an item of a typed list, which may leave them out.
fn find(
    value: &Value,
    object: Pointer,
    item: Option<usize>,
    implied: (&str, &str),
    subjects: &mut Vec<Subject>,
) {
    let api_version = text(value, "apiVersion").unwrap_or(implied.0);
    let kind = text(value, "kind").unwrap_or(implied.1);
    if let (Some(kind), Some(items)) =
        (kind.strip_suffix("List"), value.get("items").and_then(Value::as_array))
    {
        for (index, value) in items.iter().enumerate() {
            let object = object.clone().key("items").index(index);
            find(value, object, Some(index + 1), (api_version, kind), subjects);
        }
    } else if kind == "AdmissionReview" {
        let request = value.get("request").unwrap_or(&Value::Null);
        let requested = request.get("kind").and_then(|kind| text(kind, "kind")).unwrap_or(kind);
        let reviewed = request.get("object").unwrap_or(&Value::Null);
        let place = object.clone().key("request").key("object");
        let subject = Subject::new(place, Pointer::root(), item, (api_version, requested), reviewed);
        subjects.push(Subject { review: Some(object), ..subject });
    } else if kind == "Pod" && api_version == "v1" {
        subjects.push(Subject::new(object, Pointer::root(), item, (api_version, kind), value));
    } else if let Some(template) = pod_template(value) {
        subjects.push(Subject::new(object, template, item, (api_version, kind), value));
    }
}

fn text<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// Applies RFC 6902 operations.
fn apply(operations: &[Value], to: &mut Value) -> anyhow::Result<()> {
    let patch: json_patch::Patch = serde_json::from_value(operations.into())?;
    Ok(json_patch::patch(to, &patch)?)
}

/// The operations with `base` before their paths.
fn rebase(operations: &[Value], base: &str) -> Vec<Value> {
    let mut operations = operations.to_vec();
    for operation in operations.iter_mut().filter_map(Value::as_object_mut) {
        for (member, value) in operation {
            if let ("path" | "from", Value::String(path)) = (member.as_str(), value) {
                path.insert_str(0, base);
            }
        }
    }
    operations
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The object, the pod, the name and the item of each subject.
    fn found(document: &Value) -> Vec<String> {
        let line = |s: Subject| format!("{} {} {}/{} {:?}", s.object, s.pod, s.kind, s.name, s.item);
        Subject::find(document).into_iter().map(line).collect()
    }

    #[test]
    fn pods_and_workloads() {
        let template = json!({"spec": {"containers": []}});
        let pod =
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "a-", "namespace": "n"}});
        assert_eq!(found(&pod), ["  Pod/a- None"]);
        assert_eq!(Subject::find(&pod)[0].namespace.as_deref(), Some("n"));
        assert_eq!(
            found(
                &json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"template": template}})
            ),
            [" /spec/template Deployment/d None"]
        );
        for nothing in [
            json!(null),
            json!([pod]),
            json!("Pod"),
            json!({"kind": "Pod"}),
            json!({"apiVersion": "x/v1", "kind": "Pod"}),
        ] {
            assert_eq!(found(&nothing), [""; 0], "{nothing}");
        }
    }

    #[test]
    fn lists() {
        let template = json!({"spec": {"containers": []}});
        assert_eq!(
            found(&json!({"apiVersion": "v1", "kind": "List", "items": [
                {"kind": "Service"},
                {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}},
                {"apiVersion": "v1", "kind": "PodList", "items": [{"metadata": {"name": "b"}}]},
            ]})),
            ["/items/1  Pod/a Some(2)", "/items/2/items/0  Pod/b Some(1)"]
        );
        assert_eq!(
            found(
                &json!({"apiVersion": "apps/v1", "kind": "DeploymentList", "items": [{"spec": {"template": template}}]})
            ),
            ["/items/0 /spec/template Deployment/ Some(1)"]
        );
        assert_eq!(found(&json!({"kind": "List", "items": {}})), [""; 0]);
    }

    #[test]
    fn reviews() {
        let review = json!({"kind": "AdmissionReview", "request": {"kind": {"kind": "Pod"}, "object": {"metadata": {"name": "a"}}}});
        assert_eq!(found(&review), ["/request/object  Pod/a None"]);
        assert_eq!(Subject::find(&review)[0].review, Some(Pointer::root()));
        assert_eq!(found(&json!({"kind": "AdmissionReview"})), ["/request/object  AdmissionReview/ None"]);
    }
}
