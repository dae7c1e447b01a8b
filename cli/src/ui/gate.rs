//! The admission of a request: by `Host` and `Origin` against other sites, by a cookie against other users of the machine.

use std::sync::atomic::{AtomicBool, Ordering};

use http::header::{COOKIE, HOST, ORIGIN};
use http::{HeaderMap, Method};
use ring::digest::{SHA256, digest};

/// The secrets of one run of the command.
#[derive(Debug)]
pub(super) struct Gate {
    port: u16,
    token: String,
    session: String,
    token_used: AtomicBool,
}

/// The decision about a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// The request is of the page.
    Admitted,
    /// The request has the token: it gets this cookie.
    Login(String),
    /// The request is refused, with the reason.
    Refused(&'static str),
}

impl Gate {
    /// A gate for a page on `port`. `token` opens it once, `session` is the value of the cookie.
    pub(super) fn new(port: u16, token: String, session: String) -> Self {
        Self { port, token, session, token_used: AtomicBool::new(false) }
    }

    /// The URL that logs a browser in.
    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/?token={}", self.port, self.token)
    }

    /// Decides about a request.
    pub(super) fn admit(
        &self,
        method: &Method,
        path: &str,
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Admission {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        // A name that an attacker lets resolve to 127.0.0.1 appears in Host (DNS rebinding).
        let host = text(HOST).unwrap_or_default();
        if ![format!("127.0.0.1:{}", self.port), format!("localhost:{}", self.port)]
            .iter()
            .any(|own| own == host)
        {
            return Admission::Refused("the Host header is not that of this page");
        }
        // Browsers send Origin with every request that is not GET or HEAD (Fetch standard, "append a request Origin header").
        match text(ORIGIN) {
            Some(origin) if origin != format!("http://{host}") => {
                return Admission::Refused("the request comes from another site");
            }
            None if method != Method::GET && method != Method::HEAD => {
                return Admission::Refused("the request has no Origin header");
            }
            _ => {}
        }
        if self.has_cookie(headers) {
            return Admission::Admitted;
        }
        let token = query.and_then(|query| query.strip_prefix("token=")).unwrap_or_default();
        if method == Method::GET
            && path == "/"
            && equal(token, &self.token)
            && !self.token_used.swap(true, Ordering::SeqCst)
        {
            // Cookies ignore ports, so the name has the port.
            let name = self.cookie_name();
            return Admission::Login(format!("{name}={}; HttpOnly; SameSite=Strict; Path=/", self.session));
        }
        Admission::Refused(
            "this page belongs to another session: run kubectl podshaper ui, and open the URL that it prints",
        )
    }

    fn cookie_name(&self) -> String {
        format!("podshaper-{}", self.port)
    }

    fn has_cookie(&self, headers: &HeaderMap) -> bool {
        let name = self.cookie_name();
        let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs =
            cookies.flat_map(|cookies| cookies.split("; ")).filter_map(|pair| pair.split_once('='));
        pairs.any(|(key, value)| key == name && equal(value, &self.session))
    }
}

/// Compares digests, so that the time shows nothing about the secret.
fn equal(given: &str, secret: &str) -> bool {
    digest(&SHA256, given.as_bytes()).as_ref() == digest(&SHA256, secret.as_bytes()).as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "127.0.0.1:4000";

    fn gate() -> Gate {
        Gate::new(4000, "t0ken".to_owned(), "s3ssion".to_owned())
    }

    fn headers(pairs: &[(http::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    fn refused(admission: &Admission, reason: &str) {
        assert!(matches!(admission, Admission::Refused(text) if text.contains(reason)), "{admission:?}");
    }

    #[test]
    fn token_is_exchanged_for_a_cookie_once() {
        let gate = gate();
        let host = headers(&[(HOST, OWN)]);
        let Admission::Login(cookie) = gate.admit(&Method::GET, "/", Some("token=t0ken"), &host) else {
            panic!("no login");
        };
        assert_eq!(cookie, "podshaper-4000=s3ssion; HttpOnly; SameSite=Strict; Path=/");
        refused(&gate.admit(&Method::GET, "/", Some("token=t0ken"), &host), "another session");
        let with_cookie = headers(&[(HOST, "localhost:4000"), (COOKIE, "other=1; podshaper-4000=s3ssion")]);
        assert_eq!(gate.admit(&Method::GET, "/state", None, &with_cookie), Admission::Admitted);
    }

    #[test]
    fn request_without_token_or_cookie_is_refused() {
        let gate = gate();
        for (path, query, cookie) in [
            ("/", None, "a=b"),
            ("/", Some("token=wrong"), "podshaper-4000=wrong"),
            ("/", Some("token="), "podshaper-4001=s3ssion"),
            ("/state", Some("token=t0ken"), "podshaper-4000="),
        ] {
            refused(
                &gate.admit(&Method::GET, path, query, &headers(&[(HOST, OWN), (COOKIE, cookie)])),
                "another session",
            );
        }
    }

    #[test]
    fn foreign_host_is_refused_even_with_the_cookie() {
        for host in ["attacker.example:4000", "127.0.0.1:4001", "127.0.0.1", "localhost.:4000", ""] {
            let headers = headers(&[(HOST, host), (COOKIE, "podshaper-4000=s3ssion")]);
            refused(&gate().admit(&Method::GET, "/state", None, &headers), "Host");
        }
    }

    #[test]
    fn foreign_origin_is_refused_even_with_the_cookie() {
        for origin in ["https://attacker.example", "null", "http://localhost:4000", "http://127.0.0.1:4001"] {
            let headers = headers(&[(HOST, OWN), (ORIGIN, origin), (COOKIE, "podshaper-4000=s3ssion")]);
            refused(&gate().admit(&Method::POST, "/apply", None, &headers), "another site");
            refused(&gate().admit(&Method::GET, "/state", None, &headers), "another site");
        }
    }

    #[test]
    fn write_needs_an_origin() {
        let cookie = (COOKIE, "podshaper-4000=s3ssion");
        refused(
            &gate().admit(&Method::POST, "/apply", None, &headers(&[(HOST, OWN), cookie.clone()])),
            "no Origin",
        );
        let own = headers(&[(HOST, OWN), (ORIGIN, "http://127.0.0.1:4000"), cookie]);
        assert_eq!(gate().admit(&Method::POST, "/apply", None, &own), Admission::Admitted);
    }
}
