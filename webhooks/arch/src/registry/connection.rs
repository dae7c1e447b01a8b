//! Connections to registries, of which there is a largest number: tenants can name any number of hosts.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Largest number of open connections, idle ones included. `podshaper-server` leaves 256 files for everything but its own connections.
const CONNECTIONS: usize = 160;

/// The limit of open connections.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionLimit(Arc<Semaphore>);

/// Permission to open a connection.
#[derive(Debug)]
pub(crate) struct ConnectionPermit(
    #[expect(dead_code, reason = "it counts while it exists")] OwnedSemaphorePermit,
);

/// A connection that counts until it is closed.
#[derive(Debug)]
pub(crate) struct CountedStream {
    stream: TcpStream,
    _permit: ConnectionPermit,
}

impl Default for ConnectionLimit {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(CONNECTIONS)))
    }
}

impl ConnectionLimit {
    /// Waits until another connection may be opened.
    pub(crate) async fn permit(&self) -> io::Result<ConnectionPermit> {
        Arc::clone(&self.0).acquire_owned().await.map(ConnectionPermit).map_err(io::Error::other)
    }
}

impl ConnectionLimit {
    /// The permission to open another connection, if there is one now.
    pub(crate) fn try_permit(&self) -> Option<ConnectionPermit> {
        Arc::clone(&self.0).try_acquire_owned().ok().map(ConnectionPermit)
    }
}

impl CountedStream {
    pub(crate) fn new(stream: TcpStream, permit: ConnectionPermit) -> Self {
        Self { stream, _permit: permit }
    }
}

impl Connection for CountedStream {
    fn connected(&self) -> Connected {
        self.stream.connected()
    }
}

impl AsyncRead for CountedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for CountedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn open_connections_are_limited() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let limit = ConnectionLimit::default();
        let mut open = Vec::new();
        for _ in 0..CONNECTIONS {
            let permit = limit.permit().await.unwrap();
            let (stream, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
            open.push((CountedStream::new(stream.unwrap(), permit), accepted.unwrap()));
        }
        assert!(timeout(Duration::from_millis(20), limit.permit()).await.is_err());
        open.pop();
        assert!(limit.permit().await.is_ok());
    }
}
