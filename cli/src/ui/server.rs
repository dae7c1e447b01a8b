//! The server of the page.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use distributor::page::{describe, file_or_plan};
use distributor_decision::distributor::Distributor;
use http::header::{CONTENT_TYPE, LOCATION, SET_COOKIE};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use kube::Client;
use podshaper_core::object::FromObject;
use podshaper_kube::error::describe as describe_error;
use podshaper_kube::pages::list_pages;
use podshaper_kube::request::{REQUEST_TIMEOUT, with_query};
use podshaper_server::admin::{HttpResponse, document, text};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};

use super::apply::Apply;
use super::gate::{Admission, Gate};

/// The largest body of `/apply`: etcd accepts objects of 1.5 MiB, and a form writes far less.
const MAX_BODY: usize = 256 << 10;
/// Connections at a time; a browser opens up to six.
const MAX_CONNECTIONS: usize = 32;
/// The longest time until the headers of a request have arrived.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(30);
/// `PodDistributor`s on a page of the list.
const PAGE: usize = 500;

/// Serves one user.
pub(super) struct UiServer {
    client: Client,
    /// The namespace to show; all of them if none.
    namespace: Option<String>,
    gate: Gate,
    /// Notified by each admitted request.
    activity: Notify,
}

impl UiServer {
    pub(super) fn new(client: Client, namespace: Option<String>, gate: Gate) -> Self {
        Self { client, namespace, gate, activity: Notify::new() }
    }

    /// Serves until no request was admitted for `idle`.
    pub(super) async fn run(self, listener: TcpListener, idle: Duration) {
        let server = Arc::new(self);
        let accepting = Arc::clone(&server).accept(listener);
        let idling = async { while tokio::time::timeout(idle, server.activity.notified()).await.is_ok() {} };
        tokio::select! {
            () = accepting => {}
            () = idling => {}
        }
    }

    async fn accept(self: Arc<Self>, listener: TcpListener) {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let server = Arc::clone(&self);
            tokio::spawn(async move {
                let service = service_fn(|request| {
                    let server = Arc::clone(&server);
                    async move { Ok::<_, Infallible>(server.respond(request).await) }
                });
                // An error concerns the client only.
                let _ = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADERS_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
                drop(permit);
            });
        }
    }

    async fn respond(&self, request: Request<Incoming>) -> HttpResponse {
        let uri = request.uri();
        match self.gate.admit(request.method(), uri.path(), uri.query(), request.headers()) {
            Admission::Refused(reason) => return text(StatusCode::FORBIDDEN, reason),
            Admission::Login(cookie) => return login(&cookie),
            Admission::Admitted => self.activity.notify_one(),
        }
        let path = uri.path().to_owned();
        match (request.method(), &*path) {
            (&Method::GET, "/session") => document("application/json", json!({"apply": true}).to_string()),
            (&Method::GET, "/state") => self.state().await,
            (&Method::GET, path) => file_or_plan(path)
                .unwrap_or_else(|| text(StatusCode::NOT_FOUND, "not found: the page is at /")),
            (&Method::POST, "/apply") => self.apply(request).await,
            _ => text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed"),
        }
    }

    /// The distributors that the user may list.
    async fn state(&self) -> HttpResponse {
        let path = match &self.namespace {
            Some(namespace) => format!("{}/namespaces/{namespace}/{}", Distributor::API, Distributor::PLURAL),
            None => format!("{}/{}", Distributor::API, Distributor::PLURAL),
        };
        let uri = |limit: usize, next: &str| {
            with_query(&path, [("limit", limit.to_string().as_str()), ("continue", next)])
        };
        let mut state: Vec<Value> = Vec::new();
        let mut each = |items: &[&RawValue]| {
            for item in items {
                let distributor = Distributor::from_object(serde_json::from_str(item.get())?);
                state.extend(distributor.as_ref().map(describe));
            }
            Ok(())
        };
        match list_pages(&self.client, REQUEST_TIMEOUT, PAGE, uri, &mut each).await {
            Ok(_) => document("application/json", Value::from(state).to_string()),
            Err(error) => {
                let reason = describe_error(&error);
                text(StatusCode::BAD_GATEWAY, &format!("can't list PodDistributors: {reason}"))
            }
        }
    }

    async fn apply(&self, request: Request<Incoming>) -> HttpResponse {
        let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if content_type != Some("application/json") {
            return text(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be application/json");
        }
        let Ok(body) = Limited::new(request.into_body(), MAX_BODY).collect().await else {
            return text(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large");
        };
        let body = body.to_bytes();
        let apply: Apply = match std::str::from_utf8(&body)
            .map_err(|error| error.to_string())
            .and_then(|body| serde_json::from_str(body).map_err(|error| error.to_string()))
        {
            Ok(apply) => apply,
            Err(error) => return text(StatusCode::BAD_REQUEST, &format!("the body is invalid: {error}")),
        };
        match apply.run(&self.client).await {
            Ok(diff) => document("application/json", json!({"diff": diff}).to_string()),
            Err(error) => text(StatusCode::UNPROCESSABLE_ENTITY, &format!("{error:#}")),
        }
    }
}

/// Stores the cookie and removes the token from the address.
fn login(cookie: &str) -> HttpResponse {
    let mut response = text(StatusCode::SEE_OTHER, "the page is at /");
    response.headers_mut().insert(LOCATION, HeaderValue::from_static("/"));
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}

#[cfg(test)]
mod tests {
    use podshaper_testing::InMemoryApiServer;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    const DISTRIBUTOR: &str = "/apis/versprei.versprei.io/v1beta1/namespaces/shop/poddistributors/web";

    async fn start(server: &InMemoryApiServer, idle: Duration) -> (u16, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let gate = Gate::new(port, "t".to_owned(), "s".to_owned());
        let ui = UiServer::new(server.client(), Some("shop".to_owned()), gate);
        (port, tokio::spawn(ui.run(listener, idle)))
    }

    /// The status line, headers and body of one request.
    async fn request(port: u16, head: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let head = head.replace('\n', "\r\n");
        let message = format!(
            "{head}\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(message.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn browser_logs_in_reads_and_applies() {
        let api = InMemoryApiServer::default();
        let (port, _server) = start(&api, Duration::from_mins(1)).await;
        let login = request(port, "GET /?token=t HTTP/1.1", "").await;
        assert!(login.starts_with("HTTP/1.1 303") && login.contains("location: /"), "{login}");
        let cookie = format!("Cookie: podshaper-{port}=s");
        assert!(
            request(port, &format!("GET / HTTP/1.1\n{cookie}"), "").await.contains("<title>Pod distributors")
        );
        let json = format!(
            "POST /apply HTTP/1.1\n{cookie}\nOrigin: http://127.0.0.1:{port}\nContent-Type: application/json"
        );
        let manifest = json!({
            "apiVersion": "versprei.versprei.io/v1beta1", "kind": "PodDistributor",
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"distribution": [{"nodeLabel": {"type": "spot"}, "weight": 1}], "target": {"name": "web"}},
        });
        let body = json!({"manifest": manifest, "dryRun": false}).to_string();
        let applied = request(port, &json, &body).await;
        assert!(applied.starts_with("HTTP/1.1 200") && applied.contains("weight: 1"), "{applied}");
        assert!(!api.get(DISTRIBUTOR).is_null());
        let state = request(port, &format!("GET /state HTTP/1.1\n{cookie}"), "").await;
        assert!(state.contains(r#""name":"web""#) && state.contains(r#""namespace":"shop""#), "{state}");
    }

    #[tokio::test]
    async fn other_sites_and_users_read_and_write_nothing() {
        let api = InMemoryApiServer::default();
        let (port, _server) = start(&api, Duration::from_mins(1)).await;
        let cookie = format!("Cookie: podshaper-{port}=s");
        for head in [
            "GET /state HTTP/1.1".to_owned(),
            "GET /?token=x HTTP/1.1".to_owned(),
            format!("GET /state HTTP/1.1\n{cookie}\nOrigin: https://attacker.example"),
            format!("POST /apply HTTP/1.1\n{cookie}\nContent-Type: application/json"),
            format!("POST /apply HTTP/1.1\nOrigin: http://127.0.0.1:{port}\nContent-Type: application/json"),
        ] {
            assert!(request(port, &head, "{}").await.starts_with("HTTP/1.1 403"), "{head}");
        }
        let own = format!("POST /apply HTTP/1.1\n{cookie}\nOrigin: http://127.0.0.1:{port}");
        assert!(
            request(port, &format!("{own}\nContent-Type: text/plain"), "{}")
                .await
                .starts_with("HTTP/1.1 415")
        );
        let long = "x".repeat(MAX_BODY + 1);
        let json = format!("{own}\nContent-Type: application/json");
        assert!(request(port, &json, &long).await.starts_with("HTTP/1.1 413"));
        assert!(request(port, &json, "{").await.starts_with("HTTP/1.1 400"));
        assert!(api.calls().is_empty(), "{:?}", api.calls());
    }

    #[tokio::test]
    async fn list_that_is_forbidden_says_so() {
        let api = InMemoryApiServer::default();
        api.fail("/apis/versprei.versprei.io", 403, "Forbidden");
        let (port, _server) = start(&api, Duration::from_mins(1)).await;
        let state = request(port, &format!("GET /state HTTP/1.1\nCookie: podshaper-{port}=s"), "").await;
        assert!(state.starts_with("HTTP/1.1 502") && state.contains("can't list PodDistributors"), "{state}");
    }

    #[tokio::test]
    async fn idle_page_ends() {
        let (_, server) = start(&InMemoryApiServer::default(), Duration::from_millis(10)).await;
        tokio::time::timeout(Duration::from_secs(10), server).await.unwrap().unwrap();
    }
}
