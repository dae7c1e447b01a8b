//! `AdmissionReview` as it goes out.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Decision, Verdict};

/// The API server returns warnings as HTTP headers, and truncates what is longer than 4 KiB over all warnings.
const MAX_WARNINGS: usize = 16;
const MAX_WARNING_CHARS: usize = 240;

/// Bytes that most answers fit in, without their patch.
const CAPACITY: usize = 512;

const PREFIX: &[u8] = br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":"#;

/// The answer to a review.
#[derive(Debug)]
pub struct Answer {
    /// The `AdmissionReview` to send back, as JSON.
    pub body: Vec<u8>,
    /// The kind of decision in it.
    pub outcome: Outcome,
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
struct Head<'a> {
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
pub(super) fn write(uid: &str, decision: &Decision) -> Answer {
    let (outcome, undecided, denied) = match &decision.verdict {
        Verdict::Admit if decision.patch.is_empty() => (Outcome::Unchanged, None, None),
        Verdict::Admit => (Outcome::Patched, None, None),
        Verdict::Undecided(reason) => (Outcome::Undecided, Some(reason), None),
        Verdict::Deny(reason) => (Outcome::Denied, None, Some(reason)),
    };
    let head = Head {
        uid,
        allowed: denied.is_none(),
        status: denied.map(|message| Status { code: 403, reason: "Forbidden", message }),
        warnings: undecided
            .into_iter()
            .chain(&decision.warnings)
            .take(MAX_WARNINGS)
            .map(|w| line(w))
            .collect(),
    };
    let patch = (outcome == Outcome::Patched).then(|| STANDARD.encode(decision.patch.to_json()));
    let mut body = Vec::with_capacity(CAPACITY + patch.as_ref().map_or(0, String::len));
    body.extend_from_slice(PREFIX);
    // Strings, numbers and booleans always serialize. An empty body would be an error to the API server, as it should be.
    if serde_json::to_writer(&mut body, &head).is_err() {
        return Answer { body: Vec::new(), outcome };
    }
    if let Some(patch) = patch {
        // The patch is most of the answer, and base64 needs no escapes: it is appended without a second copy.
        body.pop();
        body.extend_from_slice(br#","patchType":"JSONPatch","patch":""#);
        body.extend_from_slice(patch.as_bytes());
        body.extend_from_slice(br#""}"#);
    }
    body.push(b'}');
    Answer { body, outcome }
}

/// The warning as an HTTP header can carry it: one line, no control characters, truncated.
fn line(warning: &str) -> String {
    let mut chars = warning.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut line: String = chars.by_ref().take(MAX_WARNING_CHARS).collect();
    if chars.next().is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::patch::{Patch, Pointer};

    fn reply(decision: &Decision) -> (Value, Outcome) {
        let answer = write("u1", decision);
        (serde_json::from_str(&String::from_utf8(answer.body).unwrap()).unwrap(), answer.outcome)
    }

    #[test]
    fn unchanged() {
        let (reply, outcome) = reply(&Decision::unchanged());
        assert_eq!(
            reply,
            json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {"uid": "u1", "allowed": true}})
        );
        assert_eq!(outcome, Outcome::Unchanged);
    }

    #[test]
    fn patched() {
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
    fn denied_and_undecided() {
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
}
