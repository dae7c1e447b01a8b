//! What a document holds for a webhook to decide about.

use serde_json::Value;

use podshaper_core::patch::Pointer;
use podshaper_core::workload::pod_template;

/// An object that is a pod, or holds one, or is under admission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    /// Where the object stands in the document.
    pub(super) at: Pointer,
    /// Where the pod stands in the object.
    pub(super) pod: Pointer,
    /// Where the `AdmissionReview` of the object stands in the document, if it came with one.
    pub(super) review: Option<Pointer>,
    /// Which item of a list it is, from 1.
    pub(super) item: Option<usize>,
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) namespace: Option<String>,
    /// `name`, or else `generateName`, or else empty.
    pub(super) name: String,
}

/// Everything in `document` that a webhook could have a say in.
pub(super) fn subjects(document: &Value) -> Vec<Subject> {
    let mut subjects = Vec::new();
    find(document, Pointer::root(), None, ["", ""], &mut subjects);
    subjects
}

/// `implied` are the `apiVersion` and `kind` of an item of a typed list, which may leave them out.
fn find(object: &Value, at: Pointer, item: Option<usize>, implied: [&str; 2], subjects: &mut Vec<Subject>) {
    let api_version = text(object, "apiVersion").unwrap_or(implied[0]);
    let kind = text(object, "kind").unwrap_or(implied[1]);
    if let (Some(of), Some(items)) =
        (kind.strip_suffix("List"), object.get("items").and_then(Value::as_array))
    {
        for (index, value) in items.iter().enumerate() {
            find(value, at.clone().key("items").index(index), Some(index + 1), [api_version, of], subjects);
        }
    } else if kind == "AdmissionReview" {
        let request = object.get("request").unwrap_or(&Value::Null);
        let requested = request.get("kind").and_then(|kind| text(kind, "kind")).unwrap_or(kind);
        let reviewed = request.get("object").unwrap_or(&Value::Null);
        let place = at.clone().key("request").key("object");
        let mut subject = Subject::new(place, Pointer::root(), item, [api_version, requested], reviewed);
        subject.review = Some(at);
        subjects.push(subject);
    } else if kind == "Pod" && api_version == "v1" {
        subjects.push(Subject::new(at, Pointer::root(), item, [api_version, kind], object));
    } else if let Some(template) = pod_template(object) {
        subjects.push(Subject::new(at, template, item, [api_version, kind], object));
    }
}

fn text<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
}

impl Subject {
    fn new(
        at: Pointer,
        pod: Pointer,
        item: Option<usize>,
        [api_version, kind]: [&str; 2],
        object: &Value,
    ) -> Self {
        let metadata = object.get("metadata").unwrap_or(&Value::Null);
        Self {
            at,
            pod,
            review: None,
            item,
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            namespace: text(metadata, "namespace").map(str::to_owned),
            name: text(metadata, "name")
                .or_else(|| text(metadata, "generateName"))
                .unwrap_or_default()
                .to_owned(),
        }
    }
}

impl Subject {
    /// Takes it out of the list that it is an item of, in `document`; false if it is the document itself.
    pub(super) fn take_out(&self, document: &mut Value) -> bool {
        let place = self.review.as_ref().unwrap_or(&self.at).as_str();
        let Some((list, index)) = place.rsplit_once('/') else { return false };
        if let (Some(Value::Array(items)), Ok(index)) = (document.pointer_mut(list), index.parse::<usize>())
            && index < items.len()
        {
            items.remove(index);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Where each subject stands, and its pod, and what it is called.
    fn found(document: &Value) -> Vec<String> {
        let line = |s: Subject| format!("{} {} {}/{} {:?}", s.at, s.pod, s.kind, s.name, s.item);
        subjects(document).into_iter().map(line).collect()
    }

    #[test]
    fn pods_and_workloads() {
        let template = json!({"spec": {"containers": []}});
        let pod =
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "a-", "namespace": "n"}});
        assert_eq!(found(&pod), ["  Pod/a- None"]);
        assert_eq!(subjects(&pod)[0].namespace.as_deref(), Some("n"));
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
        assert_eq!(subjects(&review)[0].review, Some(Pointer::root()));
        assert_eq!(found(&json!({"kind": "AdmissionReview"})), ["/request/object  AdmissionReview/ None"]);
    }
}
