//! `AdmissionReview` as it goes out.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::{Answer, Decision, Verdict};

/// More than this and the API server's client cuts them short (net/http's header limits; 4 KiB over all warnings).
const MAX_WARNINGS: usize = 16;
const MAX_WARNING_CHARS: usize = 240;

/// Bytes that most answers fit in, without their patch.
const USUAL: usize = 512;

const BEGIN: &[u8] = br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":"#;

/// What was decided, in a word: the label of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Admitted as it is.
    Unchanged,
    /// Admitted with a patch.
    Patched,
    /// Admitted as it is, for want of a decision.
    Undecided,
    /// Refused.
    Denied,
}

#[derive(Serialize)]
struct Response<'a> {
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

/// The answer that carries `decision` for the request `uid`.
pub(super) fn write(uid: &str, decision: &Decision) -> Answer {
    let (outcome, undecided, denied) = match &decision.verdict {
        Verdict::Admit if decision.patch.is_empty() => (Outcome::Unchanged, None, None),
        Verdict::Admit => (Outcome::Patched, None, None),
        Verdict::Undecided(reason) => (Outcome::Undecided, Some(reason), None),
        Verdict::Deny(reason) => (Outcome::Denied, None, Some(reason)),
    };
    let response = Response {
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
    let mut body = Vec::with_capacity(USUAL + patch.as_ref().map_or(0, String::len));
    body.extend_from_slice(BEGIN);
    // Strings, numbers and booleans only: this can't fail, and an empty body would be refused like any bad answer.
    if serde_json::to_writer(&mut body, &response).is_err() {
        return Answer { body: Vec::new(), outcome };
    }
    if let Some(patch) = patch {
        // Written beside the others: most of the answer, and nothing in it needs an escape.
        body.pop();
        body.extend_from_slice(br#","patchType":"JSONPatch","patch":""#);
        body.extend_from_slice(patch.as_bytes());
        body.extend_from_slice(br#""}"#);
    }
    body.push(b'}');
    Answer { body, outcome }
}

/// A warning travels in an HTTP header: one line, no control characters, not too long.
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
