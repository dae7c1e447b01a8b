//! `AdmissionReview` as it comes in (k8s.io/api/admission/v1).

use serde::{Deserialize, Serialize};

use crate::json::Text;
use crate::label::excerpt;

/// The only version that every supported API server sends.
const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// Why a body is not an admission review. Each is the sender's mistake.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// The first byte that is not UTF-8.
    #[error("the body is not UTF-8 at byte {0}")]
    NotUtf8(usize),
    /// The body is not JSON, or has another shape.
    #[error("the body is not an AdmissionReview: {0}")]
    Syntax(serde_json::Error),
    /// The body is of another kind or version.
    #[error("expected kind AdmissionReview of admission.k8s.io/v1, got kind {kind:?} of {api_version:?}")]
    Kind {
        /// `kind` as sent, truncated.
        kind: String,
        /// `apiVersion` as sent, truncated.
        api_version: String,
    },
    /// The review has no `request`.
    #[error("the AdmissionReview has no request")]
    NoRequest,
    /// The request has no uid that an answer could carry.
    #[error("the AdmissionReview's request has no uid")]
    NoUid,
}

#[derive(Deserialize, Serialize)]
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

/// `admissionv1.AdmissionRequest`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[serde(bound(deserialize = "O: Deserialize<'de>"))]
pub struct Request<'a, O> {
    /// The uid of this call, which the answer repeats: new for every call, the same for HTTP retries of one.
    #[serde(borrow, default)]
    pub uid: Text<'a>,
    /// The kind of `object`.
    #[serde(borrow)]
    pub kind: GroupVersionKind<'a>,
    /// `resize`, `status`, ...; absent for the object itself.
    #[serde(borrow)]
    pub sub_resource: Option<Text<'a>>,
    /// The object's name. A pod that a controller creates has none yet.
    #[serde(borrow)]
    pub name: Option<Text<'a>>,
    /// The namespace that the object is for; its own `metadata.namespace` may be absent.
    #[serde(borrow)]
    pub namespace: Option<Text<'a>>,
    /// The operation on the object.
    pub operation: Operation,
    /// The object as it would be stored; absent on DELETE.
    pub object: Option<Box<O>>,
    /// The object as it was; absent on CREATE.
    pub old_object: Option<Box<O>>,
    /// Whether the API server will not store the object.
    pub dry_run: Option<bool>,
}

/// `metav1.GroupVersionKind`.
#[derive(Clone, Debug, Deserialize, Serialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
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
    /// Whether the request creates a v1 Pod, not a subresource of one.
    pub fn creates_pod(&self) -> bool {
        self.operation == Operation::Create
            && self.sub_resource.as_deref().is_none_or(str::is_empty)
            && self.kind.group.is_empty()
            && &*self.kind.version == "v1"
            && &*self.kind.kind == "Pod"
    }
}

impl<'a, O: Serialize> Request<'a, O> {
    /// A dry run of the creation of `object`.
    pub fn create(api_version: &'a str, kind: &'a str, namespace: &'a str, object: O) -> Self {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Self {
            uid: "00000000-0000-0000-0000-000000000000".into(),
            kind: GroupVersionKind { group: group.into(), version: version.into(), kind: kind.into() },
            sub_resource: None,
            name: None,
            namespace: Some(namespace.into()),
            operation: Operation::Create,
            object: Some(Box::new(object)),
            old_object: None,
            dry_run: Some(true),
        }
    }

    /// The `AdmissionReview` with this request, as JSON.
    ///
    /// # Errors
    /// The object doesn't serialize as JSON.
    pub fn to_review(self) -> serde_json::Result<String> {
        let (api_version, kind) = (API_VERSION.into(), KIND.into());
        serde_json::to_string(&Review { api_version, kind, request: Some(self) })
    }
}

impl<'a, O: Deserialize<'a>> Review<'a, O> {
    /// Parses the body of a call.
    pub(super) fn parse(body: &'a str) -> Result<Request<'a, O>, ReviewError> {
        let review: Self = serde_json::from_str(body).map_err(ReviewError::Syntax)?;
        if &*review.kind != KIND || &*review.api_version != API_VERSION {
            let (kind, api_version) = (excerpt(&review.kind), excerpt(&review.api_version));
            return Err(ReviewError::Kind { kind, api_version });
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
    fn invalid_review_is_an_error() {
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
            assert!(std::error::Error::source(&error).is_none(), "{error} would be printed twice");
            let error = error.to_string();
            assert!(error.contains(reason), "{body}: {error}");
        }
    }

    #[test]
    fn deep_nesting_of_ignored_field_uses_no_stack() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let body = format!(
            r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{{"uid":"u","kind":{{}},"operation":"CREATE","object":{deep}}}}}"#
        );
        assert_eq!(&*parse(&body).unwrap().uid, "u");
    }
}
