//! HTTP responses other than admission reviews.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;

/// A response with its whole body.
pub type HttpResponse = Response<Full<Bytes>>;

/// Allows scripts, styles and data from the origin of the page, and nothing else.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                              base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Responds with a line of plain text.
pub fn text(status: StatusCode, message: &str) -> HttpResponse {
    let mut response = of_type("text/plain; charset=utf-8", format!("{message}\n"));
    *response.status_mut() = status;
    response
}

/// Responds with a page for browsers.
pub fn document(content_type: &'static str, body: impl Into<Bytes>) -> HttpResponse {
    let mut response = of_type(content_type, body);
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, CONTENT_POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CACHE_CONTROL, "no-store"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Responds with `body` as it is.
pub(crate) fn of_type(content_type: &'static str, body: impl Into<Bytes>) -> HttpResponse {
    let mut response = Response::new(Full::new(body.into()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
