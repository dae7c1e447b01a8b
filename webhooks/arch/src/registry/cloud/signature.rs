//! Signatures of requests to AWS, version 4 (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>).

use std::collections::BTreeMap;
use std::fmt::Write;

use http::{HeaderValue, Request};
use ring::digest::{SHA256, digest};
use ring::hmac::{HMAC_SHA256, Key, sign};

/// Temporary credentials of AWS.
pub(super) struct AwsCredentials {
    key_id: String,
    secret: String,
    session_token: String,
}

impl AwsCredentials {
    pub(super) fn new(key_id: String, secret: String, session_token: String) -> Self {
        Self { key_id, secret, session_token }
    }

    pub(super) fn session_token(&self) -> &str {
        &self.session_token
    }

    /// The value of `Authorization` for a request at `time` (`20150830T123600Z`). All headers of the request are signed, so it must
    /// have `host`. Its query must be sorted by key.
    pub(super) fn sign<B: AsRef<[u8]>>(
        &self,
        request: &Request<B>,
        (region, service): (&str, &str),
        time: &str,
    ) -> String {
        let day = time.get(..8).unwrap_or_default();
        let scope = format!("{day}/{region}/{service}/aws4_request");
        // `HeaderName` is in lower case.
        let headers: BTreeMap<&str, &HeaderValue> =
            request.headers().iter().map(|(name, value)| (name.as_str(), value)).collect();
        let names = headers.keys().copied().collect::<Vec<_>>().join(";");
        let headers = headers.iter().fold(String::new(), |mut text, (name, value)| {
            let _ = writeln!(text, "{name}:{}", value.to_str().unwrap_or_default().trim());
            text
        });
        let body = hex(digest(&SHA256, request.body().as_ref()).as_ref());
        let method = request.method();
        let uri = request.uri();
        let query = uri.query().unwrap_or_default();
        let canonical = format!("{method}\n{}\n{query}\n{headers}\n{names}\n{body}", uri.path());
        let hash = hex(digest(&SHA256, canonical.as_bytes()).as_ref());
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{hash}");
        let mac = |key: &[u8], text: &str| sign(&Key::new(HMAC_SHA256, key), text.as_bytes());
        let mut key = mac(format!("AWS4{}", self.secret).as_bytes(), day);
        for part in [region, service, "aws4_request"] {
            key = mac(key.as_ref(), part);
        }
        let signature = hex(mac(key.as_ref(), &text).as_ref());
        let credential = format!("{}/{scope}", self.key_id);
        format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}")
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the documentation of AWS.
    #[test]
    fn signature_is_that_of_the_documentation() {
        let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned();
        let credentials = AwsCredentials::new("AKIDEXAMPLE".to_owned(), secret, String::new());
        let request = Request::get("https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08")
            .header("host", "iam.amazonaws.com")
            .header("content-type", "application/x-www-form-urlencoded; charset=utf-8")
            .header("x-amz-date", "20150830T123600Z")
            .body("")
            .unwrap();
        assert_eq!(
            credentials.sign(&request, ("us-east-1", "iam"), "20150830T123600Z"),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date, \
             Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
        );
    }
}
