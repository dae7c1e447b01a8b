//! `AdmissionReview` as it comes in (k8s.io/api/admission/v1).

use serde::Deserialize;

use crate::json::Text;

/// The only version that every supported API server speaks.
const API_VERSION: &str = "admission.k8s.io/v1";

/// Why a body is no admission review. Each is the sender's mistake.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// Not text, from this byte on.
    #[error("the body is not UTF-8 at byte {0}")]
    NotUtf8(usize),
    /// Not JSON, or not of a review's shape.
    #[error("the body is not an AdmissionReview: {0}")]
    Syntax(serde_json::Error),
    /// JSON of another kind or version.
    #[error("expected kind AdmissionReview of admission.k8s.io/v1, got kind {kind:?} of {api_version:?}")]
    Kind {
        /// `kind` as sent, cut short.
        kind: String,
        /// `apiVersion` as sent, cut short.
        api_version: String,
    },
    /// A review without `request`, as an answer is.
    #[error("the AdmissionReview has no request")]
    NoRequest,
    /// A request that no answer could be matched to.
    #[error("the AdmissionReview's request has no uid")]
    NoUid,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[serde(bound(deserialize = "O: Deserialize<'de>"))]
pub(super) struct Review<'a, O> {
    #[serde(borrow, default)]
    api_version: Text<'a>,
    #[serde(borrow, default)]
    kind: Text<'a>,
    #[serde(borrow)]
    request: Option<Request<'a, O>>,
}

/// What the API server asks about.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[serde(bound(deserialize = "O: Deserialize<'de>"))]
pub struct Request<'a, O> {
    /// Names this call; the answer carries it. New on every call, constant over HTTP retries of one.
    #[serde(borrow, default)]
    pub uid: Text<'a>,
    /// The kind of `object`.
    #[serde(borrow)]
    pub kind: GroupVersionKind<'a>,
    /// `resize`, `status`, ...; absent for the object itself.
    #[serde(borrow)]
    pub sub_resource: Option<Text<'a>>,
    /// The object's name, if it has one already.
    #[serde(borrow)]
    pub name: Option<Text<'a>>,
    /// The namespace that the object is for; its own `metadata.namespace` may be absent.
    #[serde(borrow)]
    pub namespace: Option<Text<'a>>,
    /// What is done to the object.
    pub operation: Operation,
    /// The object as it would be stored; absent on DELETE.
    pub object: Option<Box<O>>,
    /// The object as it was; absent on CREATE.
    pub old_object: Option<Box<O>>,
    /// Whether nothing will be stored.
    pub dry_run: Option<bool>,
}

/// `metav1.GroupVersionKind`.
#[derive(Debug, Deserialize)]
pub struct GroupVersionKind<'a> {
    /// `group`, empty for the core group.
    #[serde(borrow, default)]
    pub group: Text<'a>,
    /// `version`.
    #[serde(borrow, default)]
    pub version: Text<'a>,
    /// `kind`.
    #[serde(borrow, default)]
    pub kind: Text<'a>,
}

/// `admissionv1.Operation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Operation {
    /// The object is created.
    Create,
    /// The object is changed.
    Update,
    /// The object is deleted.
    Delete,
    /// A subresource such as `exec` or `proxy` is used.
    Connect,
}

impl<O> Request<'_, O> {
    /// Whether a v1 Pod itself, not a subresource of it, is being created.
    pub fn creates_pod(&self) -> bool {
        self.operation == Operation::Create
            && self.sub_resource.as_deref().is_none_or(str::is_empty)
            && self.kind.group.is_empty()
            && &*self.kind.version == "v1"
            && &*self.kind.kind == "Pod"
    }
}

impl<'a, O: Deserialize<'a>> Review<'a, O> {
    /// The request of the review that `body` is.
    pub(super) fn parse(body: &'a str) -> Result<Request<'a, O>, ReviewError> {
        let review: Self = serde_json::from_str(body).map_err(ReviewError::Syntax)?;
        if &*review.kind != "AdmissionReview" || &*review.api_version != API_VERSION {
            let cut = |text: &str| text.chars().take(64).collect();
            return Err(ReviewError::Kind { kind: cut(&review.kind), api_version: cut(&review.api_version) });
        }
        let request = review.request.ok_or(ReviewError::NoRequest)?;
        if request.uid.is_empty() { Err(ReviewError::NoUid) } else { Ok(request) }
    }
}

#[cfg(test)]
mod tests {
    use serde::de::IgnoredAny;

    use super::*;

    fn parse(body: &str) -> Result<Request<'_, IgnoredAny>, ReviewError> {
        Review::parse(body)
    }

    #[test]
    fn what_is_no_review_is_told() {
        for (body, reason) in [
            ("", "EOF"),
            ("{", "EOF"),
            ("[]", "invalid"),
            ("{}", "got kind \"\""),
            (r#"{"kind":"Pod","apiVersion":"v1"}"#, "got kind \"Pod\" of \"v1\""),
            (r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1beta1"}"#, "v1beta1"),
            (r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}"#, "no request"),
            (r#"{"kind":"AdmissionReview","kind":"AdmissionReview"}"#, "duplicate field"),
            (
                r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"kind":{},"operation":"CREATE"}}"#,
                "no uid",
            ),
        ] {
            let error = parse(body).unwrap_err();
            assert!(std::error::Error::source(&error).is_none(), "{error} would be told twice");
            let error = error.to_string();
            assert!(error.contains(reason), "{body}: {error}");
        }
    }

    #[test]
    fn deep_nesting_of_what_is_not_read_costs_no_stack() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let body = format!(
            r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{{"uid":"u","kind":{{}},"operation":"CREATE","object":{deep}}}}}"#
        );
        assert_eq!(&*parse(&body).unwrap().uid, "u");
    }
}
