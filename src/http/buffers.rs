//! Bytes of bodies and answers that are in memory at once, over all connections.
//!
//! Each request has a small share of its own, which is always there; what goes beyond comes out of one bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::engine::Handle;
use crate::refusal::Refusal;

/// Bytes that each request may have in memory whatever the others do.
const OWN_BYTES: usize = 32 << 10;
/// How often it is tried again while the others hold too much.
const TRY_AGAIN: Duration = Duration::from_millis(20);

/// The bound that all share. Cheap to clone.
#[derive(Clone)]
pub struct Buffers {
    handle: Handle,
    /// Bytes beyond everyone's own. A bound and no order, so relaxed.
    taken: Arc<AtomicUsize>,
}

impl Buffers {
    /// As large as the config says.
    pub fn new(handle: Handle) -> Self {
        Self { handle, taken: Arc::default() }
    }

    /// A share of nothing yet.
    pub(super) fn share(&self) -> Share {
        Share { buffers: self.clone(), held: 0 }
    }

    fn try_take(&self, bytes: usize) -> bool {
        let max = self.handle.serving().buffers_max;
        // One always gets in, whatever its size.
        let more = |taken: usize| taken.checked_add(bytes).filter(|all| taken == 0 || *all <= max);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }
}

/// What one request holds; dropped, it is free again.
pub(super) struct Share {
    buffers: Buffers,
    /// Of the common bound.
    held: usize,
}

impl Share {
    /// Holds so many bytes from now on.
    ///
    /// # Errors
    /// `Busy`: the others hold too much. It still holds what it held.
    pub(super) fn hold(&mut self, bytes: usize) -> Result<(), Refusal> {
        let wanted = bytes.saturating_sub(OWN_BYTES);
        if wanted > self.held {
            if !self.buffers.try_take(wanted - self.held) {
                return Err(Refusal::Busy { what: "bytes of requests and answers, `http.buffers_max`" });
            }
        } else {
            self.buffers.taken.fetch_sub(self.held - wanted, Ordering::Relaxed);
        }
        self.held = wanted;
        Ok(())
    }
}

impl Share {
    /// As [`Share::hold`]; waits for the others for a while.
    pub(super) async fn hold_in_time(&mut self, bytes: usize, most: Duration) -> Result<(), Refusal> {
        let holds = async {
            while self.hold(bytes).is_err() {
                tokio::time::sleep(TRY_AGAIN).await;
            }
        };
        let in_time = tokio::time::timeout(most, holds).await;
        if in_time.is_err() { self.hold(bytes) } else { Ok(()) }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.buffers.taken.fetch_sub(self.held, Ordering::Relaxed);
    }
}
