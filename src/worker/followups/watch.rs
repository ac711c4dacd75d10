//! Tells whether a file that was made for a run, or the directory that it is alone in, was touched since: by inotify.
//!
//! Owns the process's one instance of it, which is never closed: to close one takes the kernel milliseconds. Reads no
//! content. Where there is none to be had, everything counts as touched.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::fd::OwnedFd;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

/// Bytes of events that one read takes: one event with the longest of names fits in.
const EVENTS_BYTES: usize = 4 << 10;
/// Events that are taken in at once: more than the kernel keeps, so that a program that goes on making some cannot hold us.
const EVENTS_MAX: usize = 1 << 16;

/// All that is watched.
struct Eye {
    instance: OwnedFd,
    /// What was touched, by the number of its watch.
    touched: Mutex<HashMap<i32, bool>>,
}

/// The process's; `None`: no instance to be had.
fn eye() -> Option<&'static Eye> {
    static EYE: OnceLock<Option<Eye>> = OnceLock::new();
    let make = || {
        let instance = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?;
        Some(Eye { instance, touched: Mutex::default() })
    };
    EYE.get_or_init(make).as_ref()
}

/// A directory and the file in it, watched until this is dropped.
#[derive(Debug)]
pub(super) struct Watch(Vec<i32>);

impl Watch {
    /// Watches a file that was just made, and the directory that it is alone in; `None` if that cannot be. What happens before it
    /// returns is not seen, but for a change of what is in the file.
    pub(super) fn new(dir: &Path, file: &Path) -> Option<Self> {
        let own = WatchFlags::OPEN | WatchFlags::MODIFY | WatchFlags::ATTRIB | WatchFlags::MOVE_SELF;
        let beside = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
        let eye = eye()?;
        let mut watch = Self(vec![eye.add(file, own | WatchFlags::DELETE_SELF | WatchFlags::DONT_FOLLOW)?]);
        watch.0.push(eye.add(dir, beside)?);
        Some(watch)
    }

    /// Whether anybody has opened, changed, moved or linked the file since, or has put something beside it.
    pub(super) fn is_touched(&self) -> bool {
        let Some(eye) = eye() else { return true };
        let mut touched = eye.touched();
        eye.look(&mut touched);
        self.0.iter().any(|watch| touched.get(watch).is_none_or(|touched| *touched))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Some(eye) = eye() else { return };
        let mut touched = eye.touched();
        for watch in self.0.drain(..) {
            if touched.remove(&watch).is_some() {
                // Gone with its file, perhaps.
                let _ = inotify::remove_watch(&eye.instance, watch);
            }
        }
    }
}

impl Eye {
    fn touched(&self) -> MutexGuard<'_, HashMap<i32, bool>> {
        // Nothing that panics is done under it.
        self.touched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, path: &Path, what: WatchFlags) -> Option<i32> {
        let mut touched = self.touched();
        let watch = inotify::add_watch(&self.instance, path, what).ok()?;
        // Of the same file before, if that was watched.
        self.look(&mut touched);
        touched.insert(watch, false);
        Some(watch)
    }

    /// Takes in what has happened; nothing of what is not watched any more.
    fn look(&self, touched: &mut HashMap<i32, bool>) {
        let mut room = [MaybeUninit::uninit(); EVENTS_BYTES];
        let mut events = Reader::new(&self.instance, &mut room);
        for _ in 0..EVENTS_MAX {
            match events.next() {
                Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => {
                    touched.values_mut().for_each(|touched| *touched = true);
                }
                Ok(event) => {
                    if let Some(touched) = touched.get_mut(&event.wd()) {
                        *touched = true;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => break,
            }
        }
        // What cannot be told is not to be relied upon.
        touched.values_mut().for_each(|touched| *touched = true);
    }
}
