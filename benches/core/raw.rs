//! The limits: what the disk does with the same bytes and nothing else. Every file was written before, as a recycled
//! segment was.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Condvar, Mutex};

use biotope::clock::{Clock, RealClock};

/// Bytes of a file that is written round and round.
const FILE_BYTES: u64 = 64 << 20;

/// A file that was written before.
pub(crate) struct Recycled {
    file: File,
    at: u64,
}

impl Recycled {
    pub(crate) fn new(dir: &Path) -> Self {
        let file = File::create(dir.join("raw")).unwrap();
        for at in 0..FILE_BYTES >> 20 {
            file.write_all_at(&vec![1; 1 << 20], at << 20).unwrap();
        }
        file.sync_all().unwrap();
        Self { file, at: 0 }
    }

    /// Writes and syncs.
    pub(crate) fn put(&mut self, frame: &[u8]) {
        if self.at + frame.len() as u64 > FILE_BYTES {
            self.at = 0;
        }
        self.file.write_all_at(frame, self.at).unwrap();
        self.file.sync_data().unwrap();
        self.at += frame.len() as u64;
    }
}

/// Frames of this size, so many: bytes a second.
pub(crate) fn frames(dir: &Path, bytes: usize, count: usize) -> f64 {
    let mut recycled = Recycled::new(dir);
    let frame = vec![7; bytes];
    let began = RealClock.mono();
    for _ in 0..count {
        recycled.put(&frame);
    }
    (bytes * count) as f64 / (RealClock.mono() - began).as_secs_f64()
}

struct Group {
    buffer: Vec<u8>,
    /// Records that were put into the buffer, and those that are synced.
    taken: u64,
    durable: u64,
    /// The file, while nobody writes.
    file: Option<Recycled>,
}

/// The plainest group commit: producers put a record each into one buffer; whoever finds nobody writing writes it, syncs,
/// and wakes all. Returns records a second, and records a sync.
pub(crate) fn group_commit(dir: &Path, record: usize, producers: usize, each: usize) -> (f64, f64) {
    let file = Some(Recycled::new(dir));
    let group = Mutex::new(Group { buffer: Vec::new(), taken: 0, durable: 0, file });
    let (synced, syncs) = (Condvar::new(), Mutex::new(0_u64));
    let produce = || {
        let bytes = vec![7; record];
        for _ in 0..each {
            let mut mine = group.lock().unwrap();
            mine.buffer.extend_from_slice(&bytes);
            mine.taken += 1;
            let number = mine.taken;
            while mine.durable < number {
                let Some(mut file) = mine.file.take() else {
                    mine = synced.wait(mine).unwrap();
                    continue;
                };
                let (frame, up_to) = (std::mem::take(&mut mine.buffer), mine.taken);
                drop(mine);
                file.put(&frame);
                *syncs.lock().unwrap() += 1;
                mine = group.lock().unwrap();
                mine.file = Some(file);
                mine.durable = up_to;
                synced.notify_all();
            }
        }
    };
    let began = RealClock.mono();
    std::thread::scope(|scope| (0..producers).for_each(|_| drop(scope.spawn(produce))));
    let all = (producers * each) as f64;
    (all / (RealClock.mono() - began).as_secs_f64(), all / *syncs.lock().unwrap() as f64)
}
