//! A thread that reads what is ended of the log again, now and then and slowly, so that damage is found while a copy may
//! still be had. Sleeps all the time between; what it finds is told by the log's reader, wherever that is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::clock::Clock;
use crate::log::Reader;
use crate::log::scrub::Scrub;
use crate::types::UnixMs;

/// The first pass begins so long after the start, or earlier where passes follow one another faster.
const FIRST_AFTER: Duration = Duration::from_secs(3600);
/// Bytes between two pauses.
const PORTION_BYTES: u64 = 256 << 10;

/// The thread; it ends with this.
pub(in crate::engine) struct Scrubber {
    ended: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// When the last pass was through; 0: none was. Stored by the thread, loaded by the engine; it guards nothing, so relaxed.
    passed_at: Arc<AtomicU64>,
}

impl Scrubber {
    /// Starts the thread: a pass each `every`, at most `rate` bytes a second.
    pub(in crate::engine) fn start(
        reader: Reader,
        clock: Arc<dyn Clock>,
        every: Duration,
        rate: u64,
    ) -> std::io::Result<Self> {
        let (ended, end) = crossbeam_channel::bounded(0);
        let passed_at = Arc::new(AtomicU64::new(0));
        let told = Arc::clone(&passed_at);
        let builder = std::thread::Builder::new().name("scrubber".to_owned());
        let thread = builder.spawn(move || {
            let mut pause = every.min(FIRST_AFTER);
            while sleeps(&end, pause) {
                match pass(&reader, rate, &end) {
                    None => return,
                    Some(complete) if complete => told.store(clock.wall_ms(), Ordering::Relaxed),
                    Some(_) => {}
                }
                pause = every;
            }
        })?;
        Ok(Self { ended: Some(ended), thread: Some(thread), passed_at })
    }

    /// When the last pass was through, if one was.
    pub(in crate::engine) fn passed_at(&self) -> Option<UnixMs> {
        Some(self.passed_at.load(Ordering::Relaxed)).filter(|at| *at != 0)
    }
}

impl Drop for Scrubber {
    fn drop(&mut self) {
        self.ended = None;
        // The directory is another one's to open once this engine is gone. A thread that panicked has said so.
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// Sleeps; says whether nobody ended it meanwhile.
fn sleeps(end: &Receiver<()>, pause: Duration) -> bool {
    matches!(end.recv_timeout(pause), Err(RecvTimeoutError::Timeout))
}

/// Reads all of it once; says whether all could be read, and nothing if somebody ended it.
fn pass(reader: &Reader, rate: u64, end: &Receiver<()>) -> Option<bool> {
    let mut scrub = Scrub::new(reader);
    let mut bytes = 0;
    while let Some(more) = scrub.step() {
        bytes += more;
        if bytes >= PORTION_BYTES {
            if !sleeps(end, Duration::from_secs_f64(bytes as f64 / rate as f64)) {
                return None;
            }
            bytes = 0;
        }
    }
    Some(scrub.is_complete())
}
