//! A log for which there is no descriptor, or no space, just now.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::disk::{Disk, DiskFile};
use super::super::{LogOptions, recovery};
use super::{SMALL, commit};
use crate::simulate::disk::SimDisk;

/// A disk that has no descriptor left, so many times.
pub(crate) struct NoDescriptor(pub(crate) SimDisk, pub(crate) AtomicUsize);

impl Disk for NoDescriptor {
    fn list(&self) -> std::io::Result<Vec<String>> {
        self.0.list()
    }
    fn create(&self, name: &str) -> std::io::Result<Arc<dyn DiskFile>> {
        let left = self.1.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left.is_ok() { Err(rustix::io::Errno::MFILE.into()) } else { self.0.create(name) }
    }
    fn open(&self, name: &str) -> std::io::Result<Arc<dyn DiskFile>> {
        self.0.open(name)
    }
    fn rename(&self, from: &str, to: &str) -> std::io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, name: &str) -> std::io::Result<()> {
        self.0.remove(name)
    }
    fn sync_dir(&self) -> std::io::Result<()> {
        self.0.sync_dir()
    }
    fn place(&self) -> std::path::PathBuf {
        self.0.place()
    }
}

/// No file was touched: once the log took that for a disk that had failed, and the process ended.
#[test]
fn p11_a_segment_for_which_no_descriptor_is_left_is_made_later() {
    let disk = Arc::new(NoDescriptor(SimDisk::new(1), 0.into()));
    let mut log = recovery::open(Arc::clone(&disk) as Arc<dyn Disk>, SMALL, [1; 16], &mut |_, _| Ok(())).unwrap().log;
    disk.1.store(2, Ordering::SeqCst);
    for _ in 0..2 {
        log.make_ahead();
        assert!(log.check().is_ok());
        assert!(log.full().unwrap().contains("open files"), "{:?}", log.full());
        commit(&mut log, &[b"goes on"]);
    }
    log.make_ahead();
    assert!(log.full().is_none());
    log.rotate().unwrap();
}

/// The spare has the new size and the tail the old one: neither takes the other's place.
#[test]
fn d9_a_full_disk_is_opened_after_segments_were_made_smaller() {
    let smaller = LogOptions { segment_bytes: 2048, ..SMALL };
    let disk = SimDisk::new(1);
    let mut log = recovery::open(Arc::new(disk.clone()), SMALL, [1; 16], &mut |_, _| Ok(())).unwrap().log;
    for _ in 0..4 {
        commit(&mut log, &[&[b'x'; 600]]);
    }
    assert_eq!(log.figures().active, 1, "a tail that is larger than the new segments");
    drop(log);
    let open = |disk: SimDisk| {
        let mut records = 0;
        let opened = recovery::open(Arc::new(disk), smaller, [1; 16], &mut |_, _| {
            records += 1;
            Ok(())
        });
        opened.map(|opened| (opened.log, records)).map_err(|error| error.to_string())
    };
    let (mut log, _) = open(disk.clone()).unwrap();
    log.make_ahead();
    drop(log);
    disk.set_space(Some(disk.used()));
    let (mut log, records) = open(disk.clone()).unwrap();
    assert_eq!(records, 4);
    commit(&mut log, &[b"goes on"]);
    assert!(log.full().is_none(), "the spare is kept");
}
