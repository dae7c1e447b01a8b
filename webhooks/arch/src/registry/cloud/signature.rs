//! Signatures of requests to AWS, version 4 (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>).

use std::fmt::Write;

use ring::digest::{SHA256, digest};
use ring::hmac::{HMAC_SHA256, Key, sign};

/// Temporary credentials of AWS.
pub(super) struct AwsCredentials {
    pub(super) key_id: String,
    pub(super) secret: String,
    pub(super) session_token: String,
}

/// A request before it is signed.
pub(super) struct Unsigned<'r> {
    pub(super) method: &'r str,
    pub(super) path: &'r str,
    /// Encoded, and sorted by key.
    pub(super) query: &'r str,
    /// Names in lower case, sorted.
    pub(super) headers: &'r [(&'r str, &'r str)],
    pub(super) body: &'r [u8],
}

impl Unsigned<'_> {
    /// The value of `Authorization` at `time` (`20150830T123600Z`).
    pub(super) fn authorization(
        &self,
        AwsCredentials { key_id, secret, .. }: &AwsCredentials,
        (region, service): (&str, &str),
        time: &str,
    ) -> String {
        let day = time.get(..8).unwrap_or_default();
        let scope = format!("{day}/{region}/{service}/aws4_request");
        let names = self.headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let headers = self.headers.iter().fold(String::new(), |mut text, (name, value)| {
            let _ = writeln!(text, "{name}:{}", value.trim());
            text
        });
        let body = hex(digest(&SHA256, self.body).as_ref());
        let canonical = format!("{}\n{}\n{}\n{headers}\n{names}\n{body}", self.method, self.path, self.query);
        let hash = hex(digest(&SHA256, canonical.as_bytes()).as_ref());
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{hash}");
        let mac = |key: &[u8], text: &str| sign(&Key::new(HMAC_SHA256, key), text.as_bytes());
        let mut key = mac(format!("AWS4{secret}").as_bytes(), day);
        for part in [region, service, "aws4_request"] {
            key = mac(key.as_ref(), part);
        }
        let signature = hex(mac(key.as_ref(), &text).as_ref());
        format!("AWS4-HMAC-SHA256 Credential={key_id}/{scope}, SignedHeaders={names}, Signature={signature}")
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
        let credentials = AwsCredentials {
            key_id: "AKIDEXAMPLE".into(),
            secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(),
            session_token: String::new(),
        };
        let unsigned = Unsigned {
            method: "GET",
            path: "/",
            query: "Action=ListUsers&Version=2010-05-08",
            headers: &[
                ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
                ("host", "iam.amazonaws.com"),
                ("x-amz-date", "20150830T123600Z"),
            ],
            body: b"",
        };
        assert_eq!(
            unsigned.authorization(&credentials, ("us-east-1", "iam"), "20150830T123600Z"),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date, \
             Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
        );
    }
}
