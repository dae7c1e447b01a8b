//! The text of an error, for logs, Events and conditions.

use std::error::Error;

/// The response of the API server about an unknown path.
const PAGE_NOT_FOUND: &str = "404 page not found";
const NOT_SERVED: &str = "the API server does not serve this kind: its CustomResourceDefinition is not installed (the chart installs it \
                          with crds.enabled)";

/// Returns the API server's message if it is the cause of `error`, or else `error` with all its causes: kube's own text of a
/// connection error is only `ServiceError: client error (Connect)`.
pub fn describe(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        next = error.source();
        let part = match error.downcast_ref() {
            // The API server answers this way, without a Status, about a group that it does not serve.
            Some(kube::Error::Api(status))
                if status.code == 404 && status.message.trim() == PAGE_NOT_FOUND =>
            {
                return NOT_SERVED.to_owned();
            }
            // Its text repeats the message and the whole Status.
            Some(kube::Error::Api(status)) if status.message.is_empty() => {
                return format!("HTTP status {} {}", status.code, status.reason);
            }
            Some(kube::Error::Api(status)) => return status.message.clone(),
            Some(kube::Error::Service(_)) => continue,
            _ => error.to_string(),
        };
        // Many errors repeat their cause.
        if !text.contains(&part) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&part);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use http::Request;
    use kube::core::Status;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("client error (Connect)")]
    struct ConnectError(#[source] io::Error);

    #[test]
    fn connection_error_names_its_cause() {
        let refused = ConnectError(io::Error::new(io::ErrorKind::ConnectionRefused, "connection refused"));
        let error = kube::Error::Service(refused.into());
        assert_eq!(describe(&error), "client error (Connect): connection refused");
    }

    #[test]
    fn repeated_cause_appears_once() {
        let invalid = Request::get("a b").body(()).unwrap_err();
        assert_eq!(describe(&kube::Error::HttpError(invalid)), "HttpError: invalid uri character");
    }

    #[test]
    fn kind_that_is_not_served_is_explained() {
        let status =
            Status { code: 404, ..Status::failure("404 page not found\n", "Failed to parse error data") };
        assert_eq!(describe(&kube::Error::Api(status.boxed())), NOT_SERVED);
    }

    #[test]
    fn api_error_is_its_message() {
        let status = |message: &str| Status { code: 403, ..Status::failure(message, "Forbidden") };
        let error = kube::Error::Api(status("pods is forbidden").boxed());
        assert_eq!(describe(&kube::runtime::watcher::Error::WatchFailed(error)), "pods is forbidden");
        assert_eq!(describe(&kube::Error::Api(status("").boxed())), "HTTP status 403 Forbidden");
    }
}
