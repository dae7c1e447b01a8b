//! Bodies of answers, bounded one by one and together.

use std::mem::take;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use arch_decision::images::LookupError;

/// The largest manifest that registries are to take (the distribution specification's limit), and so the largest body.
const MAX: usize = 4 << 20;
/// Bytes of a body that are read without a permit.
const SMALL: usize = 64 << 10;
/// Larger ones at a time.
const LARGE_AT_A_TIME: usize = 2;

/// Where bodies are read to. Large ones take turns, and have the same few buffers: an allocator would have a set for each thread.
pub(crate) struct Bodies {
    turns: Arc<Semaphore>,
    buffers: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// The bytes read so far.
#[derive(Debug, Default)]
pub(crate) struct Body {
    bytes: Vec<u8>,
    turn: Option<LookupPermit>,
}

/// The turn of a large body.
#[derive(Debug)]
struct LookupPermit {
    buffers: Arc<Mutex<Vec<Vec<u8>>>>,
    _permit: OwnedSemaphorePermit,
}

impl Default for Bodies {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(LARGE_AT_A_TIME)), buffers: Arc::default() }
    }
}

impl Bodies {
    pub(crate) async fn read(&self, mut incoming: Incoming) -> Result<Body, LookupError> {
        let mut body = Body::default();
        while let Some(frame) = incoming.frame().await {
            let Ok(data) = frame.map_err(|_| LookupError::Unavailable)?.into_data() else { continue };
            let size = body.len() + data.len();
            if size > MAX {
                return Err(LookupError::Malformed);
            }
            if size > SMALL && body.turn.is_none() {
                self.enlarge(&mut body).await?;
            }
            body.bytes.extend_from_slice(&data);
        }
        Ok(body)
    }

    async fn enlarge(&self, body: &mut Body) -> Result<(), LookupError> {
        let permit = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| LookupError::Unavailable)?;
        let spare = self.buffers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut bytes = spare.unwrap_or_else(|| Vec::with_capacity(MAX));
        bytes.extend_from_slice(&body.bytes);
        *body =
            Body { bytes, turn: Some(LookupPermit { buffers: Arc::clone(&self.buffers), _permit: permit }) };
        Ok(())
    }
}

impl Body {
    /// Whether it is one of few.
    pub(crate) fn is_large(&self) -> bool {
        self.turn.is_some()
    }
}

impl Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Body {
    /// The buffer is back before the turn is over.
    fn drop(&mut self) {
        if let Some(turn) = &self.turn {
            let mut bytes = take(&mut self.bytes);
            bytes.clear();
            turn.buffers.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
        }
    }
}
