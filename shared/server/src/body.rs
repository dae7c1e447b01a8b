//! Reading a request's body within bounds.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::limits::{DISCARD, Limits};

/// Permits of the budget are counted in KiB.
const PERMIT: usize = 1024;

/// The bytes that all bodies being read may take together.
#[derive(Debug)]
pub(super) struct Budget {
    max_body: usize,
    permits: Arc<Semaphore>,
}

/// A whole body. Its share of the budget comes back when this is dropped.
#[derive(Debug)]
pub(super) struct Buffered {
    pub(super) bytes: Bytes,
    _permit: Option<OwnedSemaphorePermit>,
}

/// Why a body wasn't read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BodyError {
    /// Of a length that its sender doesn't tell beforehand.
    NoLength,
    /// Larger than one body may be.
    TooLarge,
    /// No room left beside the others.
    Busy,
    /// The sender went away or broke the protocol.
    Broken,
}

impl Budget {
    pub(super) fn new(limits: &Limits) -> Self {
        let permits = (limits.max_buffered_bytes / PERMIT).min(Semaphore::MAX_PERMITS);
        Self { max_body: limits.max_body_bytes, permits: Arc::new(Semaphore::new(permits)) }
    }

    /// Reads the whole of `body`. What is refused goes on being read and thrown away for a while.
    pub(super) async fn read(&self, mut body: Incoming) -> Result<Buffered, BodyError> {
        let result = self.collect(&mut body).await;
        if matches!(result, Err(BodyError::NoLength | BodyError::TooLarge | BodyError::Busy)) {
            discard(body);
        }
        result
    }

    async fn collect(&self, body: &mut Incoming) -> Result<Buffered, BodyError> {
        let announced = body.size_hint().exact().ok_or(BodyError::NoLength)?;
        let announced =
            usize::try_from(announced).ok().filter(|n| *n <= self.max_body).ok_or(BodyError::TooLarge)?;
        let mut permit = None;
        let Some(first) = frame(body).await? else {
            return Ok(Buffered { bytes: Bytes::new(), _permit: None });
        };
        self.reserve(&mut permit, first.len())?;
        // Most reviews arrive in one piece, which is then used as it is.
        let Some(second) = frame(body).await? else { return Ok(Buffered { bytes: first, _permit: permit }) };
        // Memory that is announced and never written to costs nothing; growing by steps would take it twice.
        let mut all = BytesMut::with_capacity(announced);
        all.extend_from_slice(&first);
        let mut next = Some(second);
        while let Some(data) = next {
            self.reserve(&mut permit, data.len())?;
            all.extend_from_slice(&data);
            next = frame(body).await?;
        }
        Ok(Buffered { bytes: all.freeze(), _permit: permit })
    }

    fn reserve(&self, permit: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> Result<(), BodyError> {
        let count = u32::try_from(bytes.div_ceil(PERMIT)).map_err(|_| BodyError::TooLarge)?;
        let more = Arc::clone(&self.permits).try_acquire_many_owned(count).map_err(|_| BodyError::Busy)?;
        match permit {
            Some(permit) => permit.merge(more),
            None => *permit = Some(more),
        }
        Ok(())
    }
}

async fn frame(body: &mut Incoming) -> Result<Option<Bytes>, BodyError> {
    while let Some(frame) = body.frame().await {
        // Trailers say nothing that matters here.
        if let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// Reads on without keeping anything: closing with unread data would reset the connection and lose the answer.
pub(super) fn discard(mut body: Incoming) {
    tokio::spawn(tokio::time::timeout(
        DISCARD,
        async move { while let Ok(Some(_)) = frame(&mut body).await {} },
    ));
}
