//! Segments made one ahead, on a thread of its own, so that no commit waits for a new file.
//!
//! A segment is ready when its file has all its bytes, its header is synced, its name is the number, and the name is
//! synced. An old segment's file is taken again where one is at hand: overwriting in place syncs faster than growing.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::disk::{Disk, DiskFile};
use super::frame::SegmentHeader;

/// How long a maker that found no space waits before it tries again.
const RETRY_EVERY: Duration = Duration::from_millis(500);
/// Bytes of zeros that are written at once into a new segment.
const ZEROS_BYTES: usize = 1 << 20;

/// A segment to be made.
pub(super) struct Order {
    pub(super) header: SegmentHeader,
    /// Name of a file that has the right size and may be overwritten.
    pub(super) recycle: Option<String>,
    /// Whether the bytes are written, not only allocated.
    pub(super) write: bool,
}

/// The writer's end of the maker's thread.
pub(super) struct SpareMaker {
    orders: Option<Sender<Order>>,
    ready: Receiver<Arc<dyn DiskFile>>,
    /// Why no segment can be made; stored by the maker's thread, loaded by the writer.
    trouble: Arc<ArcSwapOption<String>>,
    /// Why the thread gave up; likewise.
    broken: Arc<ArcSwapOption<String>>,
    /// Set when the thread shall leave what it makes: stored by the writer, loaded between two steps; it guards nothing.
    leave: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl SpareMaker {
    /// Starts the thread. `settled` is called whenever a segment was made after there was trouble.
    pub(super) fn start(disk: Arc<dyn Disk>) -> io::Result<Self> {
        let (orders, inbox) = crossbeam_channel::bounded::<Order>(2);
        let (done, ready) = crossbeam_channel::bounded(2);
        let trouble = Arc::new(ArcSwapOption::empty());
        let said = Arc::clone(&trouble);
        let broken = Arc::new(ArcSwapOption::empty());
        let gave_up = Arc::clone(&broken);
        let leave = Arc::new(AtomicBool::new(false));
        let leaving = Arc::clone(&leave);
        let thread = std::thread::Builder::new()
            .name("segment-maker".to_owned())
            .spawn(move || run(disk.as_ref(), &inbox, &done, &said, &gave_up, &leaving))?;
        Ok(Self { orders: Some(orders), ready, trouble, broken, leave, thread: Some(thread) })
    }

    /// Orders the next segment.
    pub(super) fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // The thread lives until this sender is dropped.
            drop(orders.send(order));
        }
    }

    /// Waits for the segment that was ordered first; `None` if the thread is gone.
    pub(super) fn take(&self) -> Option<Arc<dyn DiskFile>> {
        self.ready.recv().ok()
    }

    /// Whether a segment is ready.
    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Why no segment can ever be made again.
    pub(super) fn broken(&self) -> Option<Arc<String>> {
        self.broken.load_full()
    }

    /// Why no segment can be made just now.
    pub(super) fn trouble(&self) -> Option<Arc<String>> {
        self.trouble.load_full()
    }
}

impl Drop for SpareMaker {
    fn drop(&mut self) {
        self.orders = None;
        self.leave.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn run(
    disk: &dyn Disk,
    inbox: &Receiver<Order>,
    done: &Sender<Arc<dyn DiskFile>>,
    said: &ArcSwapOption<String>,
    broken: &ArcSwapOption<String>,
    leave: &AtomicBool,
) {
    let mut waiting = std::collections::VecDeque::new();
    loop {
        if waiting.is_empty() {
            match inbox.recv() {
                Ok(order) => waiting.push_back(order),
                Err(_) => return,
            }
        }
        let Some(order) = waiting.front_mut() else { continue };
        match make(disk, order, leave) {
            Ok(file) => {
                waiting.pop_front();
                said.store(None);
                if done.send(file).is_err() {
                    return;
                }
            }
            Err(error) if !is_want_of_space(&error) => {
                // A disk that fails here fails anywhere: the next commit is told.
                drop(disk.remove(&temporary(&order.header)));
                if !leave.load(Ordering::Relaxed) {
                    let said = format!("making a segment in {}: {error}", disk.place().display());
                    broken.store(Some(Arc::new(said)));
                }
                return;
            }
            Err(error) => {
                // A half-made or once failed file is never used again: the next try begins with a fresh one.
                order.recycle = None;
                drop(disk.remove(&temporary(&order.header)));
                said.store(Some(Arc::new(format!(
                    "no new segment could be made in {}: {error}",
                    disk.place().display()
                ))));
                match inbox.recv_timeout(RETRY_EVERY) {
                    Ok(order) => waiting.push_back(order),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        }
    }
}

/// Whether an error will pass by itself, once there is space again.
pub(super) fn is_want_of_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

fn temporary(header: &SegmentHeader) -> String {
    format!("{}.tmp", super::segment_name(header.segment))
}

/// Makes one segment. When it returns, its header and its name are on stable storage.
pub(super) fn make(disk: &dyn Disk, order: &Order, leave: &AtomicBool) -> io::Result<Arc<dyn DiskFile>> {
    let name = temporary(&order.header);
    let file = if let Some(old) = &order.recycle {
        disk.rename(old, &name)?;
        disk.open(&name)?
    } else {
        let file = disk.create(&name)?;
        file.allocate(order.header.bytes)?;
        if order.write {
            let zeros = vec![0; ZEROS_BYTES];
            let mut at = 0;
            while at < order.header.bytes {
                let part = usize::try_from(order.header.bytes - at).unwrap_or(ZEROS_BYTES).min(ZEROS_BYTES);
                file.write_at(at, zeros.get(..part).unwrap_or(&zeros))?;
                at += part as u64;
                // Step by step, so that a commit never waits behind a whole segment of zeros.
                file.sync_data()?;
                if leave.load(Ordering::Relaxed) {
                    return Err(io::ErrorKind::Interrupted.into());
                }
            }
        }
        file
    };
    file.write_at(0, &order.header.encode())?;
    file.sync_data()?;
    disk.rename(&name, &super::segment_name(order.header.segment))?;
    disk.sync_dir()?;
    Ok(file)
}
