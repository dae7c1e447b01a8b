//! The envelope around a decision: one `AdmissionReview` of k8s.io/api/admission/v1 comes in as JSON, and one goes out.
//!
//! ```text
//! body ── Review::parse ──▶ Request ──▶ Webhook::decide ──▶ Decision ── write_answer ──▶ body
//! ```
//!
//! The server, the offline commands, the self-test and the tests all call [`answer`]. In place of the API server they write a review
//! by [`Request::to_review`] and read its answer by [`Answer::response`].

mod managed_fields;

use std::fmt::Display;
use std::future::Future;
use std::sync::LazyLock;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use memchr::memmem::Finder;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use self::managed_fields::without_managed_fields;
use crate::json::{self, Text};
use crate::label::excerpt;
use crate::object::is_namespace;
use crate::patch::Patch;

/// One mutating webhook.
pub trait Webhook: Send + Sync + 'static {
    /// Whether the webhook is also called for workloads, which hold the template of their pods.
    const WORKLOADS: bool = false;

    /// The object under admission, as far as the decision reads it.
    type Object<'a>: Deserialize<'a> + Send + Sync;

    /// Decides about one request. `deadline` is when the API server stops waiting.
    fn decide<'a>(
        &self,
        request: &Request<'a, Self::Object<'a>>,
        deadline: Instant,
    ) -> impl Future<Output = Decision> + Send;

    /// Decides about a request with an object that can't be parsed, or has more than the webhook reads. `problem` says why.
    fn unreadable(&self, _request: &Request<'_, &RawValue>, problem: String) -> Decision {
        Decision::undecided(problem)
    }

    /// Decides about an object that would be too large with its patch. `problem` says why.
    fn oversized(&self, problem: String) -> Decision {
        Decision::undecided(problem)
    }

    /// Takes note of an object in the files of an offline command, before the decision about its pod. In a cluster, a watch delivers it.
    /// `namespace` is that of an object that names none.
    fn observe(&self, _object: &Value, _namespace: &str) {}

    /// Why the webhook can't decide yet, if it can't: the readiness probe fails until then.
    fn not_ready(&self) -> Option<String> {
        None
    }
}

/// Bytes of the lists and maps in the view of one object. A pod with as many annotations as Kubernetes allows takes 3 MiB.
pub const MAX_VIEW: usize = 4 << 20;

/// A request before its decision.
#[derive(Clone, Copy, Debug)]
pub struct Received<'r> {
    /// Its uid.
    pub uid: &'r str,
    /// The bytes of the lists and maps in the views of its objects.
    pub view_bytes: usize,
}

/// Answers one `AdmissionReview` v1.
///
/// An object that the webhook can't parse is admitted unchanged, with a warning, unless the webhook decides otherwise.
///
/// # Errors
/// The body is not a review, so there is no request to answer.
pub async fn answer<W: Webhook>(webhook: &W, body: &[u8], deadline: Instant) -> Result<Answer, ReviewError> {
    answer_received(webhook, body, deadline, |_| true).await
}

/// The same, and calls `receive` before the decision. It returns whether there is memory for the request.
///
/// # Errors
/// The body is not a review, or `receive` returns false.
pub async fn answer_received<W: Webhook>(
    webhook: &W,
    body: &[u8],
    deadline: Instant,
    receive: impl FnOnce(Received<'_>) -> bool,
) -> Result<Answer, ReviewError> {
    let trimmed = without_managed_fields(body);
    let Ok(body) = str::from_utf8(&trimmed) else {
        let valid = str::from_utf8(body).map_or_else(|e| e.valid_up_to(), str::len);
        return Err(ReviewError::NotUtf8(valid));
    };
    let (request, view_bytes) = json::within(MAX_VIEW, || Review::<W::Object<'_>>::parse(body));
    match request {
        Ok(request) => {
            if !receive(Received { uid: &request.uid, view_bytes }) {
                return Err(ReviewError::NoMemory);
            }
            let decision = webhook.decide(&request, deadline).await;
            let decision = match excess(&decision, body) {
                Some(problem) => webhook.oversized(problem).with_warnings(decision.warnings),
                None => decision,
            };
            Ok(write_answer(&request.uid, &decision))
        }
        Err(ReviewError::Syntax(error)) => {
            // The object alone may have another shape than the webhook expects.
            let request = Review::<&RawValue>::parse(body)?;
            if !receive(Received { uid: &request.uid, view_bytes: 0 }) {
                return Err(ReviewError::NoMemory);
            }
            let decision = webhook.unreadable(&request, format!("the object can't be read: {error}"));
            Ok(write_answer(&request.uid, &decision))
        }
        Err(error) => Err(error),
    }
}

/// Bytes of a patched object as JSON. etcd accepts requests of 1.5 MiB by default (`--max-request-bytes`), in which the object is
/// Protobuf of about the same size, and the API server reads at most 2 MiB from etcd.
const MAX_OBJECT: usize = 1 << 20;
/// How many times its size an object may take after the patch.
const MAX_FACTOR: usize = 10;
/// Bytes of a patched object up to which any growth is small.
const SMALL_OBJECT: usize = 64 << 10;

/// An escape that Go writes for `<`, `>` and `&`: six bytes for one.
static ESCAPES: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(r"\u00"));
const ESCAPE_EXCESS: usize = 5;

/// Why the object of the review in `body` would be too large with its patch: the API server would refuse it. The body is little longer than
/// the object in it.
fn excess(decision: &Decision, body: &str) -> Option<String> {
    if decision.patch.is_empty() {
        return None;
    }
    let growth = decision.patch.growth();
    if body.len().saturating_add(growth) <= SMALL_OBJECT {
        return None;
    }
    let before = body.len() - ESCAPES.find_iter(body.as_bytes()).count() * ESCAPE_EXCESS;
    let after = before.saturating_add(growth);
    if after <= MAX_OBJECT && after <= before.saturating_mul(MAX_FACTOR) {
        return None;
    }
    Some(format!(
        "the object is left as it is: with its changes it would have up to {after} bytes as JSON instead of {before}, and the API server \
         may refuse it; the limit is {MAX_OBJECT} bytes and {MAX_FACTOR} times the size"
    ))
}

/// The only version that every supported API server sends.
const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";
/// Bytes of a uid. The API server's are UUIDs of 36.
const MAX_UID: usize = 64;

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
    /// The uid is longer than any API server's: each answer repeats it.
    #[error("the AdmissionReview's request has a uid of more than {MAX_UID} bytes")]
    LongUid,
    /// The namespace is no name, so it must not become part of a path of the API.
    #[error("the AdmissionReview's request has an invalid namespace: {0:?}")]
    Namespace(String),
    /// The caller of [`answer_received`] has no memory for the object.
    #[error("there is no memory for the object")]
    NoMemory,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[serde(bound(deserialize = "O: Deserialize<'de>"))]
struct Review<'a, O> {
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
        let api_version = API_VERSION.into();
        let kind = KIND.into();
        serde_json::to_string(&Review { api_version, kind, request: Some(self) })
    }
}

impl<'a, O: Deserialize<'a>> Review<'a, O> {
    /// Parses the body of a call.
    fn parse(body: &'a str) -> Result<Request<'a, O>, ReviewError> {
        let review: Self = serde_json::from_str(body).map_err(ReviewError::Syntax)?;
        if &*review.kind != KIND || &*review.api_version != API_VERSION {
            let kind = excerpt(&review.kind);
            let api_version = excerpt(&review.api_version);
            return Err(ReviewError::Kind { kind, api_version });
        }
        let request = review.request.ok_or(ReviewError::NoRequest)?;
        if request.uid.is_empty() {
            return Err(ReviewError::NoUid);
        }
        if request.uid.len() > MAX_UID {
            return Err(ReviewError::LongUid);
        }
        match request.namespace.as_deref() {
            Some(namespace) if !namespace.is_empty() && !is_namespace(namespace) => {
                Err(ReviewError::Namespace(excerpt(namespace)))
            }
            _ => Ok(request),
        }
    }
}

/// The decision about one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is admitted.
    pub verdict: Verdict,
    /// How it changes; empty unless it is admitted.
    pub patch: Patch,
    /// Admission warnings, one a line. `kubectl` shows them.
    pub warnings: Vec<String>,
    /// Notes of an offline decision about an object that needs no change. The answer to the API server omits them.
    pub notes: Vec<String>,
}

/// Whether an object is admitted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Admitted, changed or not.
    #[default]
    Admit,
    /// Admitted unchanged because nothing could be decided, with the reason.
    Undecided(String),
    /// Refused, with a reason that says what to do.
    Deny(String),
}

impl Decision {
    /// Admitted as it is.
    pub fn unchanged() -> Self {
        Self::default()
    }

    /// Admitted with a patch, which may be empty.
    pub fn patched(patch: Patch) -> Self {
        Self { patch, ..Self::default() }
    }

    /// Admitted as it is, because nothing could be decided.
    pub fn undecided(reason: impl Into<String>) -> Self {
        Self { verdict: Verdict::Undecided(reason.into()), ..Self::default() }
    }

    /// Refused.
    pub fn denied(reason: impl Into<String>) -> Self {
        Self { verdict: Verdict::Deny(reason.into()), ..Self::default() }
    }

    /// The same with warnings.
    #[must_use]
    pub fn with_warnings(mut self, warnings: impl IntoIterator<Item = String>) -> Self {
        self.warnings.extend(warnings);
        self
    }

    /// The same with notes.
    #[must_use]
    pub fn with_notes(mut self, notes: impl IntoIterator<Item = String>) -> Self {
        self.notes.extend(notes);
        self
    }
}

impl<E: Display> From<Result<Patch, E>> for Decision {
    /// Admits with a finished patch, or admits unchanged and says why there is none.
    fn from(finished: Result<Patch, E>) -> Self {
        match finished {
            Ok(patch) => Self::patched(patch),
            Err(error) => Self::undecided(format!("the pod is left as it is: {error}")),
        }
    }
}

/// The API server returns warnings as HTTP headers, and truncates what is longer than 4 KiB over all warnings.
const MAX_WARNINGS: usize = 16;
const MAX_WARNING_CHARS: usize = 240;

/// Bytes that most answers fit in, without their patch.
const ANSWER_CAPACITY: usize = 512;

const ANSWER_PREFIX: &[u8] = br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":"#;

/// The answer to a review.
#[derive(Debug)]
pub struct Answer {
    /// The `AdmissionReview` to send back, as JSON.
    pub body: Vec<u8>,
    /// The kind of decision in it.
    pub outcome: Outcome,
    /// Notes of the decision, which the body omits.
    pub notes: Vec<String>,
}

/// The kind of a decision: a label of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Admitted unchanged.
    Unchanged,
    /// Admitted with a patch.
    Patched,
    /// Admitted unchanged because nothing could be decided.
    Undecided,
    /// Denied.
    Denied,
}

/// `admissionv1.AdmissionResponse`, decoded.
#[derive(Debug)]
pub struct Response {
    /// `status.message` of a denial.
    pub denial: Option<String>,
    /// `warnings`.
    pub warnings: Vec<String>,
    /// `patch`: RFC 6902 operations on the object under admission.
    pub patch: Vec<Value>,
}

/// An answer that no API server could read.
#[derive(Debug, thiserror::Error)]
pub enum ResponseError {
    /// The body or the patch in it is not JSON, or has another shape.
    #[error("the response can't be parsed: {0}")]
    Json(#[from] serde_json::Error),
    /// The body or the patch is not UTF-8.
    #[error("the response can't be decoded: {0}")]
    Utf8(#[from] std::str::Utf8Error),
    /// The patch is not base64.
    #[error("the patch in the response can't be decoded: {0}")]
    Base64(#[from] base64::DecodeError),
}

impl Answer {
    /// The response as the API server reads it.
    pub fn response(&self) -> Result<Response, ResponseError> {
        #[derive(Deserialize)]
        struct Body {
            response: Encoded,
        }
        #[derive(Deserialize)]
        struct Encoded {
            status: Option<Message>,
            #[serde(default)]
            warnings: Vec<String>,
            patch: Option<String>,
        }
        #[derive(Deserialize)]
        struct Message {
            message: String,
        }
        let Body { response } = serde_json::from_str(str::from_utf8(&self.body)?)?;
        Ok(Response {
            denial: response.status.map(|status| status.message),
            warnings: response.warnings,
            patch: match response.patch {
                Some(patch) => serde_json::from_str(str::from_utf8(&STANDARD.decode(patch)?)?)?,
                None => Vec::new(),
            },
        })
    }
}

#[derive(Serialize)]
struct ResponseHead<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct Status<'a> {
    code: u16,
    reason: &'static str,
    message: &'a str,
}

/// Writes the answer to the request with this uid.
fn write_answer(uid: &str, decision: &Decision) -> Answer {
    let (outcome, undecided, denied) = match &decision.verdict {
        Verdict::Admit if decision.patch.is_empty() => (Outcome::Unchanged, None, None),
        Verdict::Admit => (Outcome::Patched, None, None),
        Verdict::Undecided(reason) => (Outcome::Undecided, Some(reason), None),
        Verdict::Deny(reason) => (Outcome::Denied, None, Some(reason)),
    };
    let head = ResponseHead {
        uid,
        allowed: denied.is_none(),
        status: denied.map(|message| Status { code: 403, reason: "Forbidden", message }),
        warnings: undecided
            .into_iter()
            .chain(&decision.warnings)
            .take(MAX_WARNINGS)
            .map(|warning| warning_line(warning))
            .collect(),
    };
    let patch = (outcome == Outcome::Patched).then(|| STANDARD.encode(decision.patch.to_json()));
    let mut body = Vec::with_capacity(ANSWER_CAPACITY + patch.as_ref().map_or(0, String::len));
    body.extend_from_slice(ANSWER_PREFIX);
    // Strings, numbers and booleans always serialize. An empty body would be an error to the API server, as it should be.
    if serde_json::to_writer(&mut body, &head).is_err() {
        return Answer { body: Vec::new(), outcome, notes: Vec::new() };
    }
    if let Some(patch) = patch {
        // The patch is most of the answer, and base64 needs no escapes: it is appended without a second copy.
        body.pop();
        body.extend_from_slice(br#","patchType":"JSONPatch","patch":""#);
        body.extend_from_slice(patch.as_bytes());
        body.extend_from_slice(br#""}"#);
    }
    body.push(b'}');
    Answer { body, outcome, notes: decision.notes.clone() }
}

/// The warning as an HTTP header can carry it: one line, no control characters, truncated.
fn warning_line(warning: &str) -> String {
    let mut chars = warning.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut line: String = chars.by_ref().take(MAX_WARNING_CHARS).collect();
    if chars.next().is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use serde::de::IgnoredAny;
    use serde_json::json;

    use super::*;
    use crate::patch::Pointer;

    fn parse(body: &str) -> Result<Request<'_, IgnoredAny>, ReviewError> {
        Review::parse(body)
    }

    fn request(fields: &str) -> String {
        format!(
            r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{{"kind":{{}},"operation":"CREATE",{fields}}}}}"#
        )
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
            (&request(&format!(r#""uid":"{}""#, "u".repeat(65))), "more than 64 bytes"),
            (
                &request(r#""uid":"u","namespace":"kube-system/pods?x=""#),
                "invalid namespace: \"kube-system/pods?x=\"",
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

    fn reply(decision: &Decision) -> (Value, Outcome) {
        let answer = write_answer("u1", decision);
        (serde_json::from_str(&String::from_utf8(answer.body).unwrap()).unwrap(), answer.outcome)
    }

    #[test]
    fn unchanged_object_has_no_patch() {
        let (reply, outcome) = reply(&Decision::unchanged());
        assert_eq!(
            reply,
            json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {"uid": "u1", "allowed": true}})
        );
        assert_eq!(outcome, Outcome::Unchanged);
    }

    #[test]
    fn patch_and_warnings_are_in_the_response() {
        let mut patch = Patch::default();
        patch.add(&Pointer::root().key("a"), "b");
        let (reply, outcome) = reply(&Decision::patched(patch).with_warnings(["two\nlines".into()]));
        assert_eq!(reply["response"]["patchType"], "JSONPatch");
        let patch = STANDARD.decode(reply["response"]["patch"].as_str().unwrap()).unwrap();
        assert_eq!(patch, br#"[{"op":"add","path":"/a","value":"b"}]"#);
        assert_eq!(reply["response"]["warnings"], json!(["two lines"]));
        assert_eq!(outcome, Outcome::Patched);
    }

    #[test]
    fn denial_has_a_status_and_undecided_a_warning() {
        let (denied, _) = reply(&Decision::denied("too much"));
        assert_eq!(denied["response"]["allowed"], false);
        assert_eq!(
            denied["response"]["status"],
            json!({"code": 403, "reason": "Forbidden", "message": "too much"})
        );
        let (undecided, _) = reply(&Decision::undecided("why").with_warnings(["x".repeat(300)]));
        assert_eq!(undecided["response"]["allowed"], true);
        assert_eq!(undecided["response"]["warnings"][0], "why");
        assert_eq!(undecided["response"]["warnings"][1].as_str().unwrap().chars().count(), 241);
    }

    fn is_left_out(body: &str, value: usize) -> bool {
        let mut patch = Patch::default();
        patch.add(&Pointer::root().key("a"), &"x".repeat(value));
        excess(&Decision::patched(patch), body).is_some()
    }

    #[test]
    fn patch_beyond_the_largest_object_is_left_out() {
        let body = "x".repeat(900 << 10);
        assert!(!is_left_out(&body, 120 << 10));
        assert!(is_left_out(&body, 125 << 10));
        assert!(is_left_out(&"x".repeat(MAX_OBJECT), 1));
    }

    #[test]
    fn patch_of_ten_times_the_object_is_left_out() {
        let body = "x".repeat(8 << 10);
        assert!(!is_left_out(&body, 71 << 10));
        assert!(is_left_out(&body, 73 << 10));
        assert!(!is_left_out("x", 60 << 10), "small");
    }

    #[test]
    fn escapes_of_go_count_once() {
        let body = r"\u003c".repeat(300 << 10);
        assert!(!is_left_out(&body, 100));
    }

    #[test]
    fn copies_count_as_growth() {
        let mut patch = Patch::default();
        patch.copy(&Pointer::root().key("a"), &Pointer::root().key("b"), 1 << 20);
        assert!(excess(&Decision::patched(patch), &"x".repeat(500_000)).is_some());
    }
}
