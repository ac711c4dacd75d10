//! Segments made one ahead, so that no commit waits for a new file: on a thread of its own, or step by step.
//!
//! A segment is ready when its file has all its bytes, its header is synced, its name is the number, and the name is
//! synced. An old segment's file is taken again where one is at hand: overwriting in place syncs faster than growing.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use super::Making;
use super::disk::{Disk, DiskFile};
use super::frame::SegmentHeader;

/// How long a maker that found no space waits before it tries again.
const RETRY_EVERY: Duration = Duration::from_millis(500);
/// Bytes of zeros that are written at once into a new segment.
const ZEROS_BYTES: usize = 1 << 20;

/// A segment to be made.
pub(super) struct Order {
    pub(super) header: SegmentHeader,
    /// Whether the bytes are written, not only allocated.
    pub(super) write: bool,
}

/// How it stands with the segment that was ordered.
#[derive(Default)]
struct Standing {
    /// Name of a file of a segment's size that may be overwritten: for the order that is open, or the next one.
    kept: Option<String>,
    ready: Option<Arc<dyn DiskFile>>,
    /// Why none can be made just now.
    trouble: Option<Arc<String>>,
    /// Whether that is for want of space.
    wants_space: bool,
    /// Why none can ever be made again.
    broken: Option<Arc<String>>,
}

/// What the maker and the log's writer share.
struct Shared {
    disk: Arc<dyn Disk>,
    standing: Mutex<Standing>,
    changed: Condvar,
    /// Set when what is being made shall be left: stored by the writer, loaded between two steps; it guards nothing.
    leave: AtomicBool,
}

/// Who carries out an order.
enum Maker {
    Thread { orders: Option<Sender<Order>>, thread: Option<std::thread::JoinHandle<()>> },
    Stepped { order: Option<Order> },
}

/// The writer's end: at most one order is open.
pub(super) struct SpareMaker {
    shared: Arc<Shared>,
    maker: Maker,
}

impl SpareMaker {
    pub(super) fn start(disk: Arc<dyn Disk>, making: Making) -> io::Result<Self> {
        let (standing, changed) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { disk, standing, changed, leave: AtomicBool::new(false) });
        let maker = match making {
            Making::Stepped => Maker::Stepped { order: None },
            Making::Thread => {
                let (orders, inbox) = crossbeam_channel::bounded::<Order>(1);
                let work = Arc::clone(&shared);
                let builder = std::thread::Builder::new().name("segment-maker".to_owned());
                let thread = Some(builder.spawn(move || {
                    let alarm = Alarm(&work);
                    work.run(&inbox);
                    drop(alarm);
                })?);
                Maker::Thread { orders: Some(orders), thread }
            }
        };
        Ok(Self { shared, maker })
    }

    /// Orders the next segment.
    pub(super) fn order(&mut self, order: Order) {
        match &mut self.maker {
            // The thread lives until this sender is dropped.
            Maker::Thread { orders, .. } => drop(orders.as_ref().map(|orders| orders.send(order))),
            Maker::Stepped { order: open } => *open = Some(order),
        }
    }

    /// Tries once to make what was ordered, if that is nobody else's work.
    pub(super) fn step(&mut self) {
        if let Maker::Stepped { order: open } = &mut self.maker
            && let Some(order) = open.take()
            && !self.shared.attempt(&order)
        {
            *open = Some(order);
        }
    }

    /// Waits until the segment is ready, or it is known why it is not; says whether it is ready.
    pub(super) fn settle(&mut self) -> bool {
        self.step();
        let stepped = matches!(self.maker, Maker::Stepped { .. });
        let mut standing = self.shared.standing();
        // Nobody else would change it: a rotation that failed has taken the segment, and ordered none.
        while !stepped && standing.ready.is_none() && standing.trouble.is_none() && standing.broken.is_none() {
            standing = self.shared.changed.wait(standing).unwrap_or_else(PoisonError::into_inner);
        }
        standing.ready.is_some()
    }

    /// Waits for the segment that was ordered; `None` if none can ever be made again.
    pub(super) fn take(&mut self) -> Option<Arc<dyn DiskFile>> {
        self.step();
        let stepped = matches!(self.maker, Maker::Stepped { .. });
        let mut standing = self.shared.standing();
        loop {
            if standing.ready.is_some() || standing.broken.is_some() || stepped {
                return standing.ready.take();
            }
            standing = self.shared.changed.wait(standing).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Keeps the file of that name, of a segment's size, to be overwritten: an order that finds no space needs none then.
    pub(super) fn keep(&self, name: String) {
        self.shared.standing().kept = Some(name);
    }

    /// Whether a file is kept.
    pub(super) fn keeps(&self) -> bool {
        self.shared.standing().kept.is_some()
    }

    /// Whether a segment is ready.
    pub(super) fn is_ready(&self) -> bool {
        self.shared.standing().ready.is_some()
    }

    /// Why no segment can ever be made again.
    pub(super) fn broken(&self) -> Option<Arc<String>> {
        self.shared.standing().broken.clone()
    }

    /// Whether none can be made just now for want of space.
    pub(super) fn wants_space(&self) -> bool {
        let standing = self.shared.standing();
        standing.trouble.is_some() && standing.wants_space
    }

    /// Why no segment can be made just now.
    pub(super) fn trouble(&self) -> Option<Arc<String>> {
        self.shared.standing().trouble.clone()
    }
}

impl Drop for SpareMaker {
    fn drop(&mut self) {
        self.shared.leave.store(true, Ordering::Relaxed);
        if let Maker::Thread { orders, thread } = &mut self.maker {
            *orders = None;
            drop(thread.take().map(std::thread::JoinHandle::join));
        }
    }
}

/// Speaks up when the thread panics, so that nobody waits for it.
struct Alarm<'a>(&'a Shared);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.standing().broken = Some(Arc::new("the thread that makes segments failed by a bug".to_owned()));
            self.0.changed.notify_all();
        }
    }
}

impl Shared {
    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, inbox: &Receiver<Order>) {
        while let Ok(order) = inbox.recv() {
            while !self.attempt(&order) {
                // Nothing more is ordered before this one is made: what comes is the end.
                if inbox.recv_timeout(RETRY_EVERY).is_err_and(|error| error.is_disconnected()) {
                    return;
                }
            }
        }
    }

    /// Tries to carry out an order; `false` if it is worth another try.
    fn attempt(&self, order: &Order) -> bool {
        let disk = self.disk.as_ref();
        let kept = self.standing().kept.take();
        let made = make(disk, order, kept.as_deref(), &self.leave);
        if made.is_err() {
            // A half-made or once failed file is never used again: the next try begins with another one.
            drop(disk.remove(&temporary(&order.header)));
        }
        let mut standing = self.standing();
        let settled = match made {
            Ok(file) => {
                standing.ready = Some(file);
                if standing.trouble.take().is_some() {
                    tracing::info!("a new segment could be made again: all goes on");
                }
                true
            }
            Err(error) if is_want_of_space(&error) || is_want_of_descriptors(&error) => {
                let said = format!("no new segment could be made in {}: {error}", disk.place().display());
                if standing.trouble.is_none() {
                    tracing::warn!("{said}; until one can, new jobs are refused, and a start that needs one waits");
                }
                standing.trouble = Some(Arc::new(said));
                standing.wants_space = is_want_of_space(&error);
                false
            }
            Err(error) => {
                // A disk that fails here fails anywhere: the next commit is told.
                let said = format!("making a segment in {}: {error}", disk.place().display());
                standing.broken = Some(Arc::new(said));
                true
            }
        };
        drop(standing);
        self.changed.notify_all();
        settled
    }
}

/// Whether an error will pass by itself, once there is space again.
pub(super) fn is_want_of_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// Whether there was no descriptor for a file: it was not touched, and one may be free soon.
fn is_want_of_descriptors(error: &io::Error) -> bool {
    let known = error.raw_os_error().map(rustix::io::Errno::from_raw_os_error);
    known.is_some_and(|known| [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE].contains(&known))
}

fn temporary(header: &SegmentHeader) -> String {
    format!("{}.tmp", super::segment_name(header.segment))
}

/// Makes one segment, of the file named `old` if there is one. When it returns, its header and its name are on stable
/// storage.
pub(super) fn make(
    disk: &dyn Disk,
    order: &Order,
    old: Option<&str>,
    leave: &AtomicBool,
) -> io::Result<Arc<dyn DiskFile>> {
    let name = temporary(&order.header);
    let file = if let Some(old) = old {
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
