//! The binary under misbehaving clients, and its shutdown.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use e2e::authority::Authority;
use e2e::client::{Answer, Client, post};
use e2e::process::Webhook;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const PATH: &str = "/mutate-v1-pod";

fn review(pod: &str) -> Vec<u8> {
    format!(
        r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{{"uid":"u1","kind":{{"group":"","version":"v1","kind":"Pod"}},"resource":{{"group":"","version":"v1","resource":"pods"}},"namespace":"default","operation":"CREATE","object":{pod},"dryRun":false}}}}"#
    )
    .into_bytes()
}

fn peer_pod() -> Vec<u8> {
    review(
        r#"{"metadata":{"name":"p"},"spec":{"runtimeClassName":"kata-remote","containers":[{"name":"c","resources":{"requests":{"cpu":"2"}}}]}}"#,
    )
}

async fn start() -> Webhook {
    Webhook::start(env!("CARGO_BIN_EXE_peerpods"), &[]).await
}

async fn still_serves(client: &Client) {
    let answer = client.send(post(PATH, &peer_pod())).await.unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains(r#""patchType":"JSONPatch""#), "{}", answer.body);
}

#[tokio::test]
async fn invalid_request_gets_clear_response() {
    let webhook = start().await;
    let client = webhook.client();
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let truncated = &peer_pod()[..100];
    let text = |head: &str| head.as_bytes().to_vec();
    let cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        ("no body", post(PATH, b""), 400, "the body is empty"),
        ("garbage", post(PATH, b"hello"), 400, "not an AdmissionReview"),
        ("truncated", post(PATH, truncated), 400, "EOF while parsing"),
        ("deep JSON", post(PATH, deep.as_bytes()), 400, "not an AdmissionReview"),
        (
            "duplicate keys",
            post(PATH, br#"{"kind":"AdmissionReview","kind":"x"}"#),
            400,
            "duplicate field `kind`",
        ),
        ("invalid UTF-8", post(PATH, b"{\"kind\":\"\xff\"}"), 400, "not UTF-8 at byte 9"),
        (
            "another kind",
            post(PATH, br#"{"kind":"Pod","apiVersion":"v1"}"#),
            400,
            "got kind \"Pod\" of \"v1\"",
        ),
        (
            "another version",
            post(PATH, br#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1beta1"}"#),
            400,
            "admission.k8s.io/v1beta1",
        ),
        (
            "no request",
            post(PATH, br#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}"#),
            400,
            "no request",
        ),
        ("wrong path", post("/mutate", &peer_pod()), 404, PATH),
        ("cloud-api-adaptor's probe", text("GET /health HTTP/1.1\r\nHost: x\r\n\r\n"), 200, "OK"),
        ("wrong method", text("GET /mutate-v1-pod HTTP/1.1\r\nHost: x\r\n\r\n"), 405, "POST"),
        (
            "wrong content type",
            text(
                "POST /mutate-v1-pod HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}",
            ),
            415,
            "application/json",
        ),
        ("no HTTP", text("hello there\r\n\r\n"), 400, ""),
        (
            "no length",
            text(
                "POST /mutate-v1-pod HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
            ),
            411,
            "Content-Length",
        ),
        (
            "too many bytes announced",
            text(
                "POST /mutate-v1-pod HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n{",
            ),
            413,
            "larger than",
        ),
        (
            "headers without end",
            [
                &b"POST / HTTP/1.1\r\n"[..],
                &b"X-Long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n".repeat(2000),
            ]
            .concat(),
            431,
            "",
        ),
    ];
    for (name, request, status, message) in cases {
        let begun = Instant::now();
        let answer = client.send(&request).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        let took = begun.elapsed();
        assert_eq!(answer.status, status, "{name}: {answer:?}");
        assert!(answer.body.contains(message), "{name}: {answer:?}");
        assert!(took < Duration::from_millis(100), "{name}: {took:?}");
    }
    still_serves(&client).await;
}

#[tokio::test]
async fn deeply_nested_object_is_skipped() {
    let webhook = start().await;
    let deep = format!(r#"{{"metadata":{{"x":{}{}}}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    let answer = webhook.client().send(post(PATH, &review(&deep))).await.unwrap();
    assert_eq!((answer.status, answer.body.contains(r#""allowed":true"#)), (200, true), "{answer:?}");
}

#[tokio::test]
async fn object_that_is_no_pod_is_admitted_with_warning() {
    let webhook = start().await;
    let answer =
        webhook.client().send(post(PATH, &review(r#"{"spec":{"containers":"none"}}"#))).await.unwrap();
    assert!(answer.body.contains(r#""allowed":true"#), "{answer:?}");
    assert!(answer.body.contains("can't be read"), "{answer:?}");
}

#[tokio::test]
async fn large_bodies_are_answered_within_bounded_memory() {
    let webhook = start().await;
    let client = webhook.client();
    let padded = |bytes: usize| review(&format!(r#"{{"metadata":{{"name":"{}"}}}}"#, "x".repeat(bytes)));
    let garbage = vec![b'x'; 20_000_000];
    // One at a time, then more at once than fit: each gets a response, or 429 with Retry-After.
    let answer = client.send(post(PATH, &garbage)).await.unwrap();
    assert_eq!(answer.status, 400, "{answer:?}");
    let answer = client.send(post(PATH, &padded(18 << 20))).await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = client.send(post(PATH, &vec![b'x'; 30_000_000])).await.unwrap();
    assert_eq!(answer.status, 413, "{answer:?}");
    let request = post(PATH, &padded(15 << 20));
    let mut sending = tokio::task::JoinSet::new();
    for _ in 0..12 {
        let client = client.clone();
        let request = request.clone();
        sending.spawn(async move { client.send(&request).await.map(|a: Answer| (a.status, a.head)) });
    }
    while let Some(answer) = sending.join_next().await {
        let (status, head) = answer.unwrap().unwrap();
        assert!(status == 200 || (status == 429 && head.contains("retry-after: 1")), "{status} {head}");
    }
    let peak = webhook.memory_kib("VmHWM") / 1024;
    assert!(peak < 128, "{peak} MiB at the peak");
    still_serves(&client).await;
}

#[tokio::test]
async fn many_small_items_use_bounded_memory() {
    let webhook = start().await;
    let client = webhook.client();
    for pod in [
        format!(r#"{{"spec":{{"containers":[{}{{}}]}}}}"#, "{},".repeat(5_000_000)),
        format!(r#"{{"metadata":{{"annotations":{{{}"x":""}}}}}}"#, r#""":"","#.repeat(2_500_000)),
        format!(
            r#"{{"spec":{{"containers":[{{"resources":{{"claims":[{}{{}}]}}}}]}}}}"#,
            "{},".repeat(5_000_000)
        ),
    ] {
        let answer = client.send(post(PATH, &review(&pod))).await.unwrap();
        assert!(answer.body.contains("more than"), "{answer:?}");
    }
    let peak = webhook.memory_kib("VmHWM") / 1024;
    assert!(peak < 96, "{peak} MiB at the peak");
    still_serves(&client).await;
}

#[tokio::test]
async fn plain_http_gets_400() {
    let webhook = start().await;
    let mut tcp = TcpStream::connect(webhook.address).await.unwrap();
    tcp.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n") && answer.contains("HTTPS"), "{answer}");
}

#[tokio::test]
async fn slow_headers_time_out() {
    let webhook = start().await;
    let mut connection = webhook.client().connect().await.unwrap();
    connection.0.write_all(b"POST /mutate-v1-pod HTTP/1.1\r\nHost").await.unwrap();
    let begun = Instant::now();
    let mut rest = Vec::new();
    // The connection may end with a response, a FIN or a reset.
    let _ = connection.0.read_to_end(&mut rest).await;
    assert!(
        (Duration::from_secs(4)..Duration::from_secs(8)).contains(&begun.elapsed()),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn endless_body_ends_at_the_requests_timeout() {
    let webhook = start().await;
    let head = "POST /mutate-v1-pod?timeout=1s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{";
    let begun = Instant::now();
    let answer = webhook.client().send(head).await.unwrap();
    assert_eq!(answer.status, 504, "{answer:?}");
    assert!(
        (Duration::from_millis(900)..Duration::from_secs(2)).contains(&begun.elapsed()),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn thousand_idle_connections_use_little_memory() {
    // Fewer open files than connections: the binary must raise its soft limit, as in a container.
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("peerpods");
    let shell = format!("#!/bin/sh\nulimit -Sn 512\nexec {} \"$@\"\n", env!("CARGO_BIN_EXE_peerpods"));
    std::fs::write(&script, shell).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let webhook = Webhook::start(&script, &[]).await;
    let client = webhook.client();
    let mut idle = Vec::new();
    for _ in 0..1000 {
        idle.push(client.connect().await.unwrap());
    }
    let begun = Instant::now();
    still_serves(&client).await;
    assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
    let resident = webhook.memory_kib("VmRSS") / 1024;
    assert!(resident < 96, "{resident} MiB with a thousand idle connections");
}

#[tokio::test]
async fn idle_connection_stays_open() {
    let webhook = start().await;
    let mut unused = webhook.client().connect().await.unwrap();
    let mut used = webhook.client().connect().await.unwrap();
    assert_eq!(used.send(post(PATH, &peer_pod())).await.unwrap().status, 200);
    // Longer than the timeouts of handshakes, headers and bodies.
    let mut bytes = [[0]; 2];
    let [first, second] = &mut bytes;
    let closed = async {
        tokio::select! { read = unused.0.read(first) => read, read = used.0.read(second) => read }
    };
    let closed = timeout(Duration::from_secs(12), closed).await;
    assert!(closed.is_err(), "closed after {closed:?}");
    for mut connection in [unused, used] {
        assert_eq!(connection.send(post(PATH, &peer_pod())).await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn rejected_request_is_one_log_line() {
    let mut webhook = Webhook::start(env!("CARGO_BIN_EXE_peerpods"), &["--log-level=debug"]).await;
    let forged = String::from_utf8(peer_pod()).unwrap().replace("CREATE", "x\\nforged");
    assert_eq!(webhook.client().send(post(PATH, forged.as_bytes())).await.unwrap().status, 400);
    let rejected = webhook.logged("rejected a request").await;
    assert_eq!(rejected["reason"], "Review");
    assert!(rejected["response"].as_str().unwrap().contains("x\nforged"), "{rejected}");
}

/// A free address of loopback for a port of the binary.
fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The response to a GET of `path` without TLS, within the timeout of a kubelet's probe.
async fn probe(client: &Client, path: &str) -> String {
    let get = async {
        let mut tcp = client.connect_tcp().await.unwrap();
        tcp.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).await.unwrap();
        answer
    };
    timeout(Duration::from_secs(1), get).await.expect("an answer within a second")
}

#[tokio::test]
async fn idle_and_unread_connections_do_not_delay_probes() {
    let health = free_address();
    let metrics = free_address();
    let arguments = [
        format!("--health-probe-bind-address={health}"),
        format!("--metrics-bind-address={metrics}"),
        "--metrics-auth=never".to_owned(),
    ];
    let arguments = arguments.each_ref().map(String::as_str);
    let webhook = Webhook::start(env!("CARGO_BIN_EXE_peerpods"), &arguments).await;
    for (address, path) in [(health, "/livez"), (metrics, "/metrics")] {
        let client = webhook.client_of(address);
        let mut held = Vec::new();
        for number in 0..80 {
            let tcp = client.at(number % 20 + 2).connect_tcp().await.unwrap();
            if number % 2 == 0 {
                // A client that never reads its answers.
                let _ = tcp.try_write("GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1000).as_bytes());
            }
            held.push(tcp);
        }
        let answer = probe(&client, path).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        // Another peer's connections are closed before one of a peer that has few.
        let mut single = client.at(100).connect_tcp().await.unwrap();
        for _ in 0..80 {
            held.push(client.at(50).connect_tcp().await.unwrap());
        }
        single.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        single.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

#[tokio::test]
async fn metrics_over_tls_are_served_to_clients_that_offer_http2() {
    let metrics = free_address();
    let bind = format!("--metrics-bind-address={metrics}");
    let webhook = Webhook::start(env!("CARGO_BIN_EXE_peerpods"), &[&bind, "--metrics-auth=always"]).await;
    let client = webhook.client_of(metrics).offering(&["h2", "http/1.1"]);
    let answer = client.send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert_eq!(answer.status, 401, "{answer:?}");
    assert!(answer.head.contains("www-authenticate: bearer"), "{answer:?}");
}

#[tokio::test]
async fn idle_connections_do_not_keep_others_out() {
    let webhook = Webhook::start(env!("CARGO_BIN_EXE_peerpods"), &["--max-connections=8"]).await;
    let client = webhook.client();
    let mut kept = client.at(100).connect().await.unwrap();
    assert_eq!(kept.send(post(PATH, &peer_pod())).await.unwrap().status, 200);
    let mut idle = Vec::new();
    for number in 2..22 {
        idle.push(client.at(number).connect().await.unwrap());
    }
    let begun = Instant::now();
    still_serves(&client).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(kept.send(post(PATH, &peer_pod())).await.unwrap().status, 200, "it has carried a review");
}

#[tokio::test]
async fn server_without_a_connection_to_replace_is_not_ready() {
    let health = free_address();
    let bind = format!("--health-probe-bind-address={health}");
    let webhook = Webhook::start(env!("CARGO_BIN_EXE_peerpods"), &[&bind, "--max-connections=2"]).await;
    let client = webhook.client();
    let health = webhook.client_of(health);
    assert!(probe(&health, "/readyz").await.starts_with("HTTP/1.1 200 "));
    let request = post(PATH, &peer_pod());
    let (head, tail) = request.split_at(request.len() - 10);
    let mut begun = Vec::new();
    for number in [2, 3] {
        let mut connection = client.at(number).connect().await.unwrap();
        assert_eq!(connection.send(&request).await.unwrap().status, 200);
        connection.0.write_all(head).await.unwrap();
        begun.push(connection);
    }
    eventually_starts_with(&health, "HTTP/1.1 503 ").await;
    for connection in &mut begun {
        connection.0.write_all(tail).await.unwrap();
        assert_eq!(connection.receive().await.unwrap().status, 200);
    }
    eventually_starts_with(&health, "HTTP/1.1 200 ").await;
}

async fn eventually_starts_with(client: &Client, status: &str) {
    let begun = Instant::now();
    loop {
        let answer = probe(client, "/readyz").await;
        if answer.starts_with(status) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "{answer}");
    }
}

#[tokio::test]
async fn uid_of_many_bytes_is_refused() {
    let webhook = start().await;
    let review = String::from_utf8(peer_pod()).unwrap().replace("u1", &"u".repeat(18 << 20));
    let answer = webhook.client().send(post(PATH, review.as_bytes())).await.unwrap();
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(answer.body.len() < 1000);
}

/// How long a connection may stay open with answers that are not read, with a timeout of a second.
const UNREAD: Duration = Duration::from_secs(8);

#[tokio::test]
async fn unread_answers_end_the_connection_after_their_timeout() {
    let webhook = start().await;
    let mut connection = webhook.client().connect().await.unwrap();
    let request = String::from_utf8(post(PATH, &peer_pod())).unwrap().replace("timeout=10s", "timeout=1s");
    let requests = request.repeat(100);
    let begun = Instant::now();
    // The server stops reading when its answers fill the buffers, and then closes the connection.
    let write = async { while connection.0.write_all(requests.as_bytes()).await.is_ok() {} };
    timeout(UNREAD * 3, write).await.expect("the connection ends");
    assert!(begun.elapsed() > Duration::from_secs(1), "{:?}", begun.elapsed());
    still_serves(&webhook.client()).await;
}

/// A frame of HTTP/2 (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A field of a HEADERS frame: literal, without indexing, with a name of its own (RFC 7541 §6.2.2).
fn field(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).unwrap();
    [&[0, length(name)], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
}

#[tokio::test]
async fn answer_behind_a_closed_window_ends_the_connection_after_its_timeout() {
    let webhook = start().await;
    let mut connection = webhook.client().offering(&["h2"]).connect().await.unwrap();
    let body = peer_pod();
    let headers = [
        field(":method", "POST"),
        field(":scheme", "https"),
        field(":path", "/mutate-v1-pod?timeout=1s"),
        field(":authority", "webhook.test.svc"),
        field("content-type", "application/json"),
        field("content-length", &body.len().to_string()),
    ];
    // SETTINGS_INITIAL_WINDOW_SIZE is 0: the client takes no byte of an answer.
    let settings = frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let request = [frame(1, 4, 1, &headers.concat()), frame(0, 1, 1, &body)].concat();
    let sent = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings, &request].concat();
    connection.0.write_all(&sent).await.unwrap();
    let begun = Instant::now();
    let mut received = Vec::new();
    let _ = timeout(UNREAD, connection.0.read_to_end(&mut received)).await.expect("the connection ends");
    assert!(begun.elapsed() > Duration::from_millis(900), "{:?}", begun.elapsed());
    assert!(!received.windows(9).any(|bytes| bytes == b"patchType"));
    still_serves(&webhook.client()).await;
}

#[tokio::test]
async fn nested_lists_use_bounded_memory() {
    let webhook = start().await;
    let client = webhook.client();
    let values = vec![r#""""#; 1000].join(",");
    let requirement = format!(r#"{{"key":"a","operator":"In","values":[{values}]}}"#);
    let term = format!(r#"{{"matchExpressions":[{}]}}"#, vec![&*requirement; 1000].join(","));
    let pod = format!(
        r#"{{"spec":{{"runtimeClassName":"kata-remote","containers":[{{}}],"affinity":{{"nodeAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":{{"nodeSelectorTerms":[{term}]}}}}}}}}}}"#
    );
    let request = post(PATH, &review(&pod));
    let mut sending = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let client = client.clone();
        let request = request.clone();
        sending.spawn(async move { client.send(&request).await.unwrap() });
    }
    while let Some(answer) = sending.join_next().await {
        let answer = answer.unwrap();
        let is_read = answer.status == 200 && answer.body.contains("lists and maps have more");
        assert!(is_read || answer.status == 429, "{answer:?}");
    }
    let peak = webhook.memory_kib("VmHWM") / 1024;
    assert!(peak < 80, "{peak} MiB at the peak");
    still_serves(&client).await;
}

#[tokio::test]
async fn client_without_a_certificate_of_the_ca_is_refused() {
    let authority = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.crt");
    std::fs::write(&file, authority.pem()).unwrap();
    let client_ca = format!("--client-ca={}", file.display());
    let webhook = Webhook::start(env!("CARGO_BIN_EXE_peerpods"), &[&client_ca]).await;
    let (certificate, key) = authority.issue("kube-apiserver");
    still_serves(&webhook.client().with_certificate(webhook.ca(), &certificate, &key)).await;
    let (foreign, key) = Authority::new().issue("kube-apiserver");
    for client in [webhook.client(), webhook.client().with_certificate(webhook.ca(), &foreign, &key)] {
        client.send(post(PATH, &peer_pod())).await.unwrap_err();
    }
}

/// Peer pods that the API server accepts, and that `peerpods` can't change: one with more owners than it reads, and one of 1.1 MiB.
fn unchangeable(class: &str) -> [Vec<u8>; 2] {
    let owners = vec![r#"{"apiVersion":"v1","kind":"ConfigMap","name":"a","uid":"u"}"#; 65].join(",");
    let container = r#"{"name":"c","resources":{"requests":{"cpu":"2"}}}"#;
    let argument = "x".repeat(1100 << 10);
    [
        format!(
            r#"{{"metadata":{{"ownerReferences":[{owners}]}},"spec":{{"runtimeClassName":"{class}","containers":[{container}]}}}}"#
        ),
        format!(
            r#"{{"spec":{{"runtimeClassName":"{class}","containers":[{container},{{"name":"d","args":["{argument}"]}}]}}}}"#
        ),
    ]
    .map(|pod| review(&pod))
}

#[tokio::test]
async fn unchangeable_peer_pod_is_denied_if_so_configured() {
    let webhook = start().await;
    for body in unchangeable("kata-remote") {
        let answer = webhook.client().send(post(PATH, &body)).await.unwrap().body;
        assert!(answer.contains(r#""allowed":true,"warnings":["the object "#), "{answer}");
    }
    let webhook = Webhook::start(env!("CARGO_BIN_EXE_peerpods"), &["--deny-unreadable"]).await;
    for body in unchangeable("kata-remote") {
        let answer = webhook.client().send(post(PATH, &body)).await.unwrap().body;
        assert!(
            answer.contains(r#""allowed":false"#) && answer.contains("peerpods: the object "),
            "{answer}"
        );
    }
    for body in unchangeable("gvisor") {
        let answer = webhook.client().send(post(PATH, &body)).await.unwrap().body;
        assert!(answer.contains(r#""allowed":true"#), "{answer}");
    }
}

#[tokio::test]
async fn log_line_of_a_request_has_its_uid() {
    let arguments = ["--log-level=debug", "--max-buffered-bytes=2048", "--max-body-bytes=2048"];
    let mut webhook = Webhook::start(env!("CARGO_BIN_EXE_peerpods"), &arguments).await;
    let annotations: Vec<_> = (10..70).map(|number| format!(r#""{number}":"""#)).collect();
    let pod = format!(r#"{{"metadata":{{"annotations":{{{}}}}}}}"#, annotations.join(","));
    let answer = webhook.client().send(post(PATH, &review(&pod))).await.unwrap();
    assert_eq!(answer.status, 429, "the view does not fit: {answer:?}");
    let rejected = webhook.logged("rejected a request").await;
    assert_eq!(rejected["span"]["uid"], "u1", "{rejected}");
}

#[tokio::test]
async fn shutdown_completes_requests() {
    let mut webhook = start().await;
    let client = webhook.client();
    let mut kept = client.connect().await.unwrap();
    assert_eq!(kept.send(post(PATH, &peer_pod())).await.unwrap().status, 200);
    let request = post(PATH, &peer_pod());
    let (head, tail) = request.split_at(request.len() - 10);
    let mut begun = client.connect().await.unwrap();
    begun.0.write_all(head).await.unwrap();
    webhook.terminate().await;
    webhook.logged("draining, and still answering requests").await;
    // New connections, idle ones and half-sent requests get a response with `connection: close`.
    for answer in [client.send(&request).await.unwrap(), kept.send(&request).await.unwrap(), {
        begun.0.write_all(tail).await.unwrap();
        begun.receive().await.unwrap()
    }] {
        assert_eq!(answer.status, 200);
        assert!(answer.head.contains("connection: close"), "{}", answer.head);
    }
    assert!(webhook.ended().await.success());
}

#[tokio::test]
async fn terminating_pod_is_not_ready() {
    let free = free_address();
    let health = format!("--health-probe-bind-address={free}");
    let mut webhook = Webhook::start(env!("CARGO_BIN_EXE_peerpods"), &[&health]).await;
    let ready = async || {
        let mut tcp = TcpStream::connect(free).await.unwrap();
        tcp.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).await.unwrap();
        answer
    };
    assert!(ready().await.starts_with("HTTP/1.1 200 "));
    webhook.terminate().await;
    webhook.logged("draining, and still answering requests").await;
    let answer = ready().await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("terminating"), "{answer}");
}
