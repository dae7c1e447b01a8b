//! The memory for all requests together: their bodies as they arrive, the views that are parsed from them, and their answers until
//! the last byte is in the socket.
//!
//! A client that does not read leaves its answers in memory: in the buffers of hyper and rustls, or behind a flow-control window of
//! HTTP/2. Each answer therefore has a deadline for its last byte, and keeps its part of the budget until then.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::limits::Limits;

/// The budget is counted in KiB.
const UNIT: usize = 1024;
/// Bytes of a body above which it is large. Nearly all reviews are smaller.
const LARGE: usize = 256 << 10;

/// A budget of bytes. A quarter of it is for bodies that are not large, so that a few large pods do not take it all.
#[derive(Clone, Debug)]
pub(crate) struct MemoryBudget {
    all: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

/// The part of the budget that one request has, until this is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: MemoryBudget,
    bytes: usize,
    all: Option<OwnedSemaphorePermit>,
    large: Option<OwnedSemaphorePermit>,
    is_large: bool,
}

/// The budget has no room.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Exhausted;

impl MemoryBudget {
    pub(crate) fn new(limits: &Limits) -> Self {
        let all = limits.max_buffered_bytes;
        // A body of the maximal size must fit.
        let large = (all / 4 * 3).max(limits.max_body_bytes.min(all));
        let semaphore = |bytes: usize| Arc::new(Semaphore::new((bytes / UNIT).min(Semaphore::MAX_PERMITS)));
        Self { all: semaphore(all), large: semaphore(large) }
    }

    /// Makes an empty reservation for a request with a body of `length` bytes.
    pub(crate) fn reservation(&self, length: usize) -> Reservation {
        Reservation { budget: self.clone(), bytes: 0, all: None, large: None, is_large: length > LARGE }
    }
}

impl Reservation {
    /// Reserves `bytes` more.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), Exhausted> {
        let total = self.bytes.saturating_add(bytes);
        let held = self.bytes.div_ceil(UNIT);
        let more = u32::try_from(total.div_ceil(UNIT) - held).map_err(|_| Exhausted)?;
        let acquire =
            |budget: &Arc<Semaphore>| Arc::clone(budget).try_acquire_many_owned(more).map_err(|_| Exhausted);
        if self.is_large {
            merge(&mut self.large, acquire(&self.budget.large)?);
        }
        merge(&mut self.all, acquire(&self.budget.all)?);
        self.bytes = total;
        Ok(())
    }

    /// Gives back what exceeds `bytes`.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        if bytes >= self.bytes {
            return;
        }
        let excess = self.bytes.div_ceil(UNIT) - bytes.div_ceil(UNIT);
        for permit in [&mut self.all, &mut self.large].into_iter().flatten() {
            drop(permit.split(excess));
        }
        self.bytes = bytes;
    }
}

fn merge(permit: &mut Option<OwnedSemaphorePermit>, more: OwnedSemaphorePermit) {
    match permit {
        Some(permit) => permit.merge(more),
        None => *permit = Some(more),
    }
}

/// The answers of one connection that are not written.
#[derive(Debug, Default)]
pub(crate) struct PendingAnswers(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    next_id: u64,
    answers: Vec<PendingAnswer>,
}

#[derive(Debug)]
struct PendingAnswer {
    id: u64,
    /// When the connection ends if the answer is still here.
    deadline: Instant,
    /// Whether the connection has all of the answer, which the next complete flush writes.
    buffered: bool,
    _memory: Reservation,
}

/// The body of an answer.
pub(crate) struct AnswerBody {
    full: Full<Bytes>,
    unbuffered: Option<Unbuffered>,
}

/// The bytes of an answer that the connection has not taken yet.
pub(crate) struct AnswerData {
    bytes: Bytes,
    _unbuffered: Option<Unbuffered>,
}

/// An answer that the connection has not taken completely, until this is dropped.
struct Unbuffered {
    pending: Arc<PendingAnswers>,
    id: u64,
}

impl PendingAnswers {
    /// Makes the body of an answer, to be written by `deadline`.
    pub(crate) fn body(
        self: &Arc<Self>,
        full: Full<Bytes>,
        deadline: Instant,
        memory: Reservation,
    ) -> AnswerBody {
        let mut state = self.lock();
        let id = state.next_id;
        state.next_id += 1;
        state.answers.push(PendingAnswer { id, deadline, buffered: false, _memory: memory });
        AnswerBody { full, unbuffered: Some(Unbuffered { pending: Arc::clone(self), id }) }
    }

    /// Everything that the connection has taken is in the socket.
    pub(crate) fn flushed(&self) {
        self.lock().answers.retain(|answer| !answer.buffered);
    }

    /// The earliest deadline of an answer.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.lock().answers.iter().map(|answer| answer.deadline).min()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Unbuffered {
    fn drop(&mut self) {
        let mut state = self.pending.lock();
        if let Some(answer) = state.answers.iter_mut().find(|answer| answer.id == self.id) {
            answer.buffered = true;
        }
    }
}

impl Body for AnswerBody {
    type Data = AnswerData;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<AnswerData>, Infallible>>> {
        let frame = ready!(Pin::new(&mut self.full).poll_frame(cx));
        let unbuffered = self.unbuffered.take();
        Poll::Ready(frame.map(|frame| {
            frame.map(|frame| frame.map_data(|bytes| AnswerData { bytes, _unbuffered: unbuffered }))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.full.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.full.size_hint()
    }
}

impl Buf for AnswerData {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, bytes: usize) {
        self.bytes.advance(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;
    use futures::FutureExt;
    use http_body_util::BodyExt;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        limits: Limits,
    }

    fn budget(arguments: &[&str]) -> MemoryBudget {
        let arguments = ["test"].iter().chain(arguments);
        MemoryBudget::new(&Command::parse_from(arguments).limits)
    }

    #[test]
    fn large_bodies_leave_a_quarter_to_others() {
        let budget = budget(&["--max-buffered-bytes=4194304", "--max-body-bytes=1048576"]);
        let mut large = budget.reservation(3 << 20);
        large.grow(3 << 20).unwrap();
        assert_eq!(budget.reservation(LARGE + 1).grow(1), Err(Exhausted));
        let mut small = budget.reservation(LARGE);
        small.grow(1 << 20).unwrap();
        assert_eq!(small.grow(1), Err(Exhausted));
        large.shrink_to(100);
        small.grow(1 << 20).unwrap();
        drop((large, small));
        budget.reservation(1).grow(4 << 20).unwrap();
    }

    #[test]
    fn body_of_the_maximal_size_fits() {
        let budget = budget(&["--max-buffered-bytes=1048576", "--max-body-bytes=1048576"]);
        budget.reservation(1 << 20).grow(1 << 20).unwrap();
    }

    #[test]
    fn parts_of_a_unit_add_up() {
        let budget = budget(&["--max-buffered-bytes=4096", "--max-body-bytes=1024"]);
        let mut reservation = budget.reservation(100);
        for _ in 0..4096 {
            reservation.grow(1).unwrap();
        }
        assert_eq!(reservation.grow(1), Err(Exhausted));
        reservation.shrink_to(1);
        reservation.grow(4095).unwrap();
    }

    fn body(pending: &Arc<PendingAnswers>, text: &'static str, deadline: Instant) -> AnswerBody {
        let memory = budget(&[]).reservation(0);
        pending.body(Full::from(text), deadline, memory)
    }

    fn data(body: &mut AnswerBody) -> AnswerData {
        body.frame().now_or_never().unwrap().unwrap().unwrap().into_data().ok().unwrap()
    }

    #[tokio::test]
    async fn answer_is_pending_until_the_flush_after_its_last_byte() {
        let pending = Arc::new(PendingAnswers::default());
        let now = Instant::now();
        let mut first = body(&pending, "answer", now);
        let mut second = body(&pending, "answer", now + Duration::from_secs(1));
        let (mut data, after) = (data(&mut first), data(&mut second));
        assert!(first.is_end_stream());
        drop(first);
        data.advance(3);
        pending.flushed();
        assert_eq!(pending.deadline(), Some(now));
        data.advance(3);
        drop(data);
        assert_eq!(pending.deadline(), Some(now), "buffered, but not flushed");
        pending.flushed();
        assert_eq!(pending.deadline(), Some(now + Duration::from_secs(1)));
        drop((second, after));
        pending.flushed();
        assert_eq!(pending.deadline(), None);
    }

    #[tokio::test]
    async fn body_that_is_never_sent_is_not_pending() {
        let pending = Arc::new(PendingAnswers::default());
        drop(body(&pending, "of a HEAD request", Instant::now()));
        drop(body(&pending, "", Instant::now()));
        pending.flushed();
        assert_eq!(pending.deadline(), None);
    }
}
