//! One connection: handshake, protocol, timeouts, end.

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::activity::{Activity, Watched};
use super::drain::Stage;
use super::endpoint::Endpoint;
use super::limits::{HANDSHAKE, HEADER_BYTES, RECORD, STREAMS};
use super::records::Records;
use podshaper_core::admission::Webhook;

/// What Go's server says in this case.
const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\nContent-Length: 54\r\n\r\nthis port speaks HTTPS; the request came without TLS.\n";

/// Why a connection ended before it could serve.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error("a client spoke HTTP without TLS")]
    PlainHttp,
    #[error("no TLS handshake within {HANDSHAKE:?}")]
    Slow,
    #[error("TLS handshake failed: {0}")]
    Tls(std::io::Error),
}

/// Serves `tcp` until either side ends it.
pub(super) async fn serve<W: Webhook>(
    tcp: TcpStream,
    tls: TlsAcceptor,
    endpoint: Arc<Endpoint<W>>,
    stage: watch::Receiver<Stage>,
) -> Result<(), HandshakeError> {
    let _ = tcp.set_nodelay(true);
    let stream = timeout(HANDSHAKE, handshake(tcp, tls)).await.map_err(|_| HandshakeError::Slow)??;
    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let activity = Activity::new(h2);
    let io = TokioIo::new(Watched::new(Records::new(stream), Arc::clone(&activity)));
    let service = {
        let activity = Arc::clone(&activity);
        service_fn(move |request| {
            let busy = activity.request();
            let reply = endpoint.serve(request);
            async move {
                let reply = reply.await;
                drop(busy);
                Ok::<_, std::convert::Infallible>(reply)
            }
        })
    };
    if h2 {
        let connection = http2::Builder::new(TokioExecutor::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(u32::try_from(HEADER_BYTES).unwrap_or(u32::MAX))
            .serve_connection(io, service);
        // GOAWAY lets requests under way finish, so it can be said as soon as draining begins.
        drive(connection, http2::Connection::graceful_shutdown, Stage::Draining, stage, &activity).await;
    } else {
        let connection = http1::Builder::new()
            .header_read_timeout(None::<Duration>)
            .max_buf_size(HEADER_BYTES)
            .serve_connection(io, service);
        drive(connection, http1::Connection::graceful_shutdown, Stage::Closing, stage, &activity).await;
    }
    Ok(())
}

/// Runs a connection to its end; from `leave_at` on it is asked to end.
async fn drive<C: Future>(
    connection: C,
    leave: impl FnOnce(std::pin::Pin<&mut C>),
    leave_at: Stage,
    mut stage: watch::Receiver<Stage>,
    activity: &Activity,
) {
    let mut connection = std::pin::pin!(connection);
    // An error here is the client's: it went away or broke the protocol, and hyper has answered what could be answered.
    tokio::select! {
        biased;
        _ = connection.as_mut() => return,
        () = activity.overstayed() => return,
        _ = stage.wait_for(|stage| *stage >= leave_at) => leave(connection.as_mut()),
    }
    tokio::select! {
        biased;
        _ = connection => {},
        () = activity.overstayed() => {},
    }
}

async fn handshake(
    mut tcp: TcpStream,
    tls: TlsAcceptor,
) -> Result<TlsStream<BufReader<TcpStream>>, HandshakeError> {
    let mut first = [0];
    // 0x16 begins a TLS record; a capital letter begins an HTTP method.
    if matches!(tcp.peek(&mut first).await, Ok(1)) && first[0].is_ascii_uppercase() {
        let _ = tcp.write_all(PLAIN_HTTP).await;
        let _ = tcp.shutdown().await;
        return Err(HandshakeError::PlainHttp);
    }
    tls.accept(BufReader::with_capacity(RECORD, tcp)).await.map_err(HandshakeError::Tls)
}
