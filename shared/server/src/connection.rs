//! One connection: TLS handshake, protocol, timeouts, shutdown.
//!
//! hyper's timer for headers also closes idle keep-alive connections, which the API server needs open. So it is off, and
//! [`Activity`] watches the connection from outside: the stream reports bytes, the service reports requests.

use std::convert::Infallible;
use std::io::{self, BufRead, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::CONNECTION;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use podshaper_core::admission::Webhook;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::connection_pool::{RequestCounter, RequestGuard, Slot};
use crate::endpoint::{Endpoint, Reply};
use crate::memory::{AnswerBody, PendingAnswers};

/// The longest TLS handshake.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest time from the first byte of a request to the end of its headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest time without a request. The API server closes idle connections after 90 s; closing earlier would lose the
/// calls that it is sending. This includes connections that have never carried a request: if another one becomes free first,
/// Go keeps the connection that it has dialled for later (`dialConnFor` of net/http).
const IDLE_TIMEOUT: Duration = Duration::from_mins(2);
/// The least time for the client to read an answer.
const MIN_WRITE_TIMEOUT: Duration = Duration::from_secs(1);
/// The time between two checks of the deadlines, by which a connection may exceed one.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// The largest size of all headers of a request.
const MAX_HEADER_BYTES: usize = 32 << 10;
/// The largest TLS record, so that most requests take one system call. rustls would read 4 KiB at a time.
const TLS_RECORD_BYTES: usize = 16 << 10;
/// The streams of one HTTP/2 connection.
const MAX_STREAMS: u32 = 250;

/// The response of Go's server to HTTP on an HTTPS port.
const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\nContent-Length: 48\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// Why a connection carries no request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("the client sent an HTTP request to the HTTPS port")]
    PlainHttp,
    #[error("the TLS handshake took longer than {HANDSHAKE_TIMEOUT:?}")]
    Timeout,
    #[error("the TLS handshake failed: {0}")]
    Tls(io::Error),
}

/// The stage of the server: [`drain`](crate::drain) has the reasons for the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Serving,
    Draining,
    Closing,
}

/// Serves `tcp` until either side closes it, or another connection takes its slot.
pub(crate) async fn serve<W: Webhook>(
    tcp: TcpStream,
    tls: TlsAcceptor,
    endpoint: Arc<Endpoint<W>>,
    slot: Arc<Slot>,
    stage: watch::Receiver<Stage>,
) -> Result<(), HandshakeError> {
    tokio::select! {
        biased;
        result = serve_slot(tcp, tls, endpoint, &slot, stage) => result,
        () = slot.evicted() => Ok(()),
    }
}

async fn serve_slot<W: Webhook>(
    tcp: TcpStream,
    tls: TlsAcceptor,
    endpoint: Arc<Endpoint<W>>,
    slot: &Arc<Slot>,
    stage: watch::Receiver<Stage>,
) -> Result<(), HandshakeError> {
    let _ = tcp.set_nodelay(true);
    let tls =
        timeout(HANDSHAKE_TIMEOUT, handshake(tcp, tls)).await.map_err(|_| HandshakeError::Timeout)??;
    let is_h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    let activity = Arc::new(Activity::new(is_h2, Arc::clone(slot.requests())));
    let io = TokioIo::new(TlsConnection { tls, activity: Arc::clone(&activity) });
    let (served_activity, served_slot, served_stage) =
        (Arc::clone(&activity), Arc::clone(slot), stage.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let activity = Arc::clone(&served_activity);
        let slot = Arc::clone(&served_slot);
        let in_flight = activity.begin_request();
        let stage = served_stage.clone();
        let reply = endpoint.serve(request);
        async move {
            let reply = reply.await;
            if reply.is_review {
                slot.set_reviewed();
            }
            let mut response = activity.response(reply);
            if !is_h2 && *stage.borrow() >= Stage::Draining {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            drop(in_flight);
            Ok::<_, Infallible>(response)
        }
    });
    if is_h2 {
        let connection = http2::Builder::new(TokioExecutor::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(u32::try_from(MAX_HEADER_BYTES).unwrap_or(u32::MAX))
            .serve_connection(io, service);
        // After GOAWAY the requests in flight still end, so it can be sent as soon as draining begins.
        drive(connection, http2::Connection::graceful_shutdown, Stage::Draining, stage, &activity).await;
    } else {
        let connection = http1::Builder::new()
            .header_read_timeout(None::<Duration>)
            .max_buf_size(MAX_HEADER_BYTES)
            .serve_connection(io, service);
        drive(connection, http1::Connection::graceful_shutdown, Stage::Closing, stage, &activity).await;
    }
    Ok(())
}

/// Runs a connection to its end, and shuts it down from `shutdown_at` on.
async fn drive<C: Future>(
    connection: C,
    shut_down: impl FnOnce(Pin<&mut C>),
    shutdown_at: Stage,
    mut stage: watch::Receiver<Stage>,
    activity: &Activity,
) {
    let mut connection = pin!(connection);
    // A connection fails when the client has left or has broken the protocol. hyper has responded if it could.
    tokio::select! {
        biased;
        _ = connection.as_mut() => return,
        () = activity.timed_out() => return,
        _ = stage.wait_for(|stage| *stage >= shutdown_at) => shut_down(connection.as_mut()),
    }
    tokio::select! {
        biased;
        _ = connection => {},
        () = activity.timed_out() => {},
    }
}

async fn handshake(
    mut tcp: TcpStream,
    tls: TlsAcceptor,
) -> Result<TlsStream<BufReader<TcpStream>>, HandshakeError> {
    let mut first = [0];
    // A TLS record begins with 0x16, an HTTP method with a capital letter.
    if matches!(tcp.peek(&mut first).await, Ok(1)) && first[0].is_ascii_uppercase() {
        let _ = tcp.write_all(PLAIN_HTTP).await;
        let _ = tcp.shutdown().await;
        return Err(HandshakeError::PlainHttp);
    }
    tls.accept(BufReader::with_capacity(TLS_RECORD_BYTES, tcp)).await.map_err(HandshakeError::Tls)
}

/// The state of a connection that its timeouts depend on.
#[derive(Debug)]
struct Activity {
    requests: Arc<RequestCounter>,
    answers: Arc<PendingAnswers>,
    /// On HTTP/2 bytes may be pings, so they don't begin a request.
    multiplexed: bool,
    /// Whether bytes have arrived that no request has begun with yet.
    receiving: AtomicBool,
}

impl Activity {
    fn new(multiplexed: bool, requests: Arc<RequestCounter>) -> Self {
        Self { requests, answers: Arc::default(), multiplexed, receiving: AtomicBool::new(false) }
    }

    /// The response to a request. The client has as long to read it as it gave the request.
    fn response(&self, reply: Reply) -> Response<AnswerBody> {
        let deadline = Instant::now() + reply.timeout.max(MIN_WRITE_TIMEOUT);
        reply.response.map(|full| self.answers.body(full, deadline, reply.memory))
    }

    /// The headers of a request are complete.
    fn begin_request(&self) -> RequestGuard {
        let guard = self.requests.begin();
        self.receiving.store(false, Ordering::Relaxed);
        guard
    }

    fn bytes_arrived(&self) {
        if !self.multiplexed
            && self.requests.in_flight() == 0
            && !self.receiving.swap(true, Ordering::Relaxed)
        {
            self.requests.touch();
        }
    }

    /// When the connection times out if nothing changes. `None` while a request is in flight and all answers are written.
    fn deadline(&self) -> Option<Instant> {
        let unread = self.answers.deadline();
        if self.requests.in_flight() > 0 {
            return unread;
        }
        let receiving = self.receiving.load(Ordering::Relaxed);
        let idle = self.requests.last_change() + if receiving { HEADER_TIMEOUT } else { IDLE_TIMEOUT };
        Some(unread.map_or(idle, |unread| unread.min(idle)))
    }

    async fn timed_out(&self) {
        loop {
            let now = Instant::now();
            let next_check = match self.deadline() {
                Some(deadline) if deadline <= now => return,
                Some(deadline) => deadline,
                None => now + CHECK_INTERVAL,
            };
            // An earlier deadline may begin in the meantime.
            sleep_until(next_check.min(now + CHECK_INTERVAL)).await;
        }
    }
}

/// A TLS connection that reports the bytes it reads and decrypts whole records.
///
/// rustls reads 4 KiB, looks for a record, and moves the rest of an incomplete one. A review is one record of 5 to 16 KiB, so
/// rustls gets all bytes that have arrived at once.
#[derive(Debug)]
struct TlsConnection {
    tls: TlsStream<BufReader<TcpStream>>,
    activity: Arc<Activity>,
}

impl TlsConnection {
    /// Decrypts what has arrived until there is something to read.
    fn poll_decrypt(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (tcp, session) = self.tls.get_mut();
        let mut tcp = Pin::new(tcp);
        while session.wants_read() {
            let mut arrived = ready!(tcp.as_mut().poll_fill_buf(cx))?;
            let before = arrived.len();
            // Reading nothing means the end, and an error that rustls has no room before it processes what it has.
            while let Ok(1..) = session.read_tls(&mut arrived)
                && !arrived.is_empty()
            {}
            let taken = before - arrived.len();
            tcp.as_mut().consume(taken);
            session
                .process_new_packets()
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if taken == 0 {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for TlsConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Err(error) = ready!(self.poll_decrypt(cx)) {
            // This sends the TLS alert. A flush would only return the error again.
            let _ = Pin::new(&mut self.tls).poll_shutdown(cx);
            return Poll::Ready(Err(error));
        }
        let mut plaintext = self.tls.get_mut().1.reader();
        let record = plaintext.fill_buf()?;
        let record = record.get(..buf.remaining()).unwrap_or(record);
        let read = record.len();
        buf.put_slice(record);
        plaintext.consume(read);
        if read > 0 {
            self.activity.bytes_arrived();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TlsConnection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.tls).poll_flush(cx));
        // hyper flushes only when it has written all that it has buffered.
        self.activity.answers.flushed();
        Poll::Ready(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::CertifiedKey;
    use rustls::{ClientConfig, RootCertStore, ServerConfig};
    use rustls_pki_types::PrivatePkcs8KeyDer;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;
    use tokio_rustls::{TlsConnector, client};

    use super::*;

    async fn connect() -> (client::TlsStream<TcpStream>, TlsConnection) {
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key.into())
            .unwrap();
        // A client that closes with unread tickets resets the connection.
        server.send_tls13_tickets = 0;
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let accepted = BufReader::with_capacity(TLS_RECORD_BYTES, listener.accept().await.unwrap().0);
        let connector = TlsConnector::from(Arc::new(client));
        let (client, server) = tokio::join!(
            connector.connect("localhost".try_into().unwrap(), tcp),
            TlsAcceptor::from(Arc::new(server)).accept(accepted)
        );
        (
            client.unwrap(),
            TlsConnection {
                tls: server.unwrap(),
                activity: Arc::new(Activity::new(false, RequestCounter::new())),
            },
        )
    }

    #[tokio::test]
    async fn records_of_every_length_are_decrypted() {
        let (mut client, mut server) = connect().await;
        let sent: Vec<u8> = (0..400_000_u32).flat_map(u32::to_le_bytes).collect();
        let expected = sent.clone();
        let sending = tokio::spawn(async move {
            let mut rest = &*sent;
            for length in [1, 16_384, 2, 16_383, 4_096, 4_095, 40_000, 12_000, 3].iter().cycle() {
                let (piece, after) = rest.split_at((*length).min(rest.len()));
                client.write_all(piece).await.unwrap();
                client.flush().await.unwrap();
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            client.shutdown().await.unwrap();
        });
        let mut received = Vec::new();
        server.read_to_end(&mut received).await.unwrap();
        sending.await.unwrap();
        assert!(received == expected);
    }

    #[tokio::test]
    async fn missing_close_notify_is_an_error_after_the_data() {
        let (mut client, mut server) = connect().await;
        client.write_all(b"half a rev").await.unwrap();
        client.flush().await.unwrap();
        drop(client);
        let mut received = Vec::new();
        let error = server.read_to_end(&mut received).await.unwrap_err();
        assert_eq!((error.kind(), &*received), (io::ErrorKind::UnexpectedEof, &b"half a rev"[..]));
    }

    #[tokio::test]
    async fn invalid_record_is_answered_with_an_alert() {
        let (mut client, mut server) = connect().await;
        client
            .get_mut()
            .0
            .write_all(b"\x17\x03\x03\x00\x20this was never encrypted by any one")
            .await
            .unwrap();
        let error = server.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let alert = client.read_u8().await.unwrap_err();
        assert!(alert.to_string().contains("BadRecordMac"), "{alert}");
    }

    #[test]
    fn slow_headers_time_out_before_an_idle_connection() {
        let activity = Activity::new(false, RequestCounter::new());
        let remaining =
            || activity.deadline().map(|deadline| deadline.duration_since(activity.requests.last_change()));
        assert_eq!(remaining(), Some(IDLE_TIMEOUT), "the API server may keep it for later");
        activity.bytes_arrived();
        assert_eq!(remaining(), Some(HEADER_TIMEOUT));
        let request = activity.begin_request();
        activity.bytes_arrived();
        assert_eq!(remaining(), None);
        drop(request);
        assert_eq!(remaining(), Some(IDLE_TIMEOUT));
    }
}
