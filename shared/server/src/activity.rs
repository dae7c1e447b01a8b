//! What a connection is doing, and since when: the ground for its timeouts.
//!
//! hyper's own timer for headers also closes idle keep-alive connections, which the API server needs open, so it is off
//! and this watches from outside: [`Watched`] sees bytes arrive, the service says when a request begins and ends.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::limits::{HEADERS, IDLE};

/// The state of one connection.
#[derive(Debug)]
pub(super) struct Activity {
    opened: Instant,
    multiplexed: bool,
    in_flight: AtomicUsize,
    /// Bytes came that no request has begun with yet.
    receiving: AtomicBool,
    /// Milliseconds from `opened` to the last change of the above.
    since: AtomicU64,
}

impl Activity {
    /// A connection just opened. On a multiplexed one (HTTP/2) bytes may be pings and say nothing about a request.
    pub(super) fn new(multiplexed: bool) -> Arc<Self> {
        Arc::new(Self {
            opened: Instant::now(),
            multiplexed,
            in_flight: AtomicUsize::new(0),
            receiving: AtomicBool::new(false),
            since: AtomicU64::new(0),
        })
    }

    /// A request's headers are read; it lasts until what this returns is dropped.
    pub(super) fn request(self: &Arc<Self>) -> Busy {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.receiving.store(false, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    /// When the connection has overstayed, if nothing changes; never while a request is being answered.
    fn deadline(&self) -> Option<Instant> {
        if self.in_flight.load(Ordering::Relaxed) > 0 {
            return None;
        }
        let patience = if self.receiving.load(Ordering::Relaxed) { HEADERS } else { IDLE };
        Some(self.opened + Duration::from_millis(self.since.load(Ordering::Relaxed)) + patience)
    }

    /// Returns when the connection has overstayed.
    pub(super) async fn overstayed(&self) {
        loop {
            let now = Instant::now();
            let look_again = match self.deadline() {
                Some(deadline) if deadline <= now => return,
                Some(deadline) => deadline,
                None => now + HEADERS,
            };
            // A shorter patience may begin meanwhile.
            tokio::time::sleep_until(look_again.min(now + HEADERS).into()).await;
        }
    }

    fn bytes_came(&self) {
        if !self.multiplexed
            && self.in_flight.load(Ordering::Relaxed) == 0
            && !self.receiving.swap(true, Ordering::Relaxed)
        {
            self.touch();
        }
    }

    fn touch(&self) {
        self.since
            .store(u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// One request being answered on a connection.
pub(super) struct Busy(Arc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.touch();
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream that reports bytes read.
pub(super) struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.activity.bytes_came();
        }
        poll
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
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
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_request_that_comes_slowly_has_little_time() {
        let activity = Activity::new(false);
        let patience =
            || activity.deadline().map(|deadline| deadline.duration_since(activity.opened).as_secs());
        assert_eq!(patience(), Some(IDLE.as_secs()), "the API server may have dialled for later");
        activity.bytes_came();
        assert_eq!(patience(), Some(HEADERS.as_secs()));
        let busy = activity.request();
        activity.bytes_came();
        assert_eq!(patience(), None);
        drop(busy);
        assert_eq!(patience(), Some(IDLE.as_secs()));
    }
}
