//! The tail at an opening: what is valid of the last segment is copied into another file, and synced, before anything is
//! served.
//!
//! After a failed sync the page cache may show bytes that the disk never took, and after a restart nobody knows. What is cut
//! is never copied along.

use std::io;
use std::sync::Arc;

use super::disk::{Disk, DiskFile};
use super::frame::{FRAME_HEADER_BYTES, SegmentHeader};
use super::meanwhile::Meanwhile;
use super::reader::HEADER_END;
use super::spare::is_want_of_space;
use super::{LogOptions, segment_name};

/// Bytes that are copied at once.
const COPY_BYTES: usize = 1 << 20;

/// The last segment, and where its valid part ends.
#[derive(Clone)]
pub(super) struct Tail {
    pub(super) file: Arc<dyn DiskFile>,
    /// As it was found.
    pub(super) header: SegmentHeader,
    pub(super) end: u32,
    pub(super) head: u32,
    pub(super) options: LogOptions,
}

/// A tail in its new file.
pub(super) struct Copied {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) bytes: u64,
    /// The spare segment, if it is still one.
    pub(super) spare: Option<Arc<dyn DiskFile>>,
}

/// The spare segment that was found: number, file and size.
type Spare = (u32, Arc<dyn DiskFile>, u64);

/// A copy that is made while the log is read, under a temporary name. If it is not used, or fails, it leaves nothing behind.
pub(super) struct Copying {
    disk: Arc<dyn Disk>,
    tail: Tail,
    made: Option<Meanwhile<io::Result<Arc<dyn DiskFile>>>>,
}

impl Copying {
    /// Begins to copy; where a log makes its segments step by step, does it.
    pub(super) fn begin(disk: &Arc<dyn Disk>, tail: Tail) -> Self {
        let (for_copy, of) = (Arc::clone(disk), tail.clone());
        let copy = move || {
            let file = of.new_file(for_copy.as_ref())?;
            let filled = of.fill(file.as_ref()).inspect_err(|_| drop(for_copy.remove(&of.temporary())));
            filled.map(|()| file)
        };
        let made = Some(Meanwhile::begin(tail.options.making, "tail", copy));
        Self { disk: Arc::clone(disk), tail, made }
    }

    fn file(&mut self) -> Option<Arc<dyn DiskFile>> {
        self.made.take()?.end()?.ok()
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        if self.file().is_some() {
            // What stays is removed by the next opening.
            drop(self.disk.remove(&self.tail.temporary()));
        }
    }
}

impl Tail {
    /// Copies it into a new file of the same name, if `copying` has not just done that; into the spare's file where there is
    /// no room for a new one. `cut_bytes` behind it must never be read again. When it returns, all of it is on stable
    /// storage.
    ///
    /// # Errors
    /// As the operating system says.
    pub(super) fn copy(
        &self,
        disk: &dyn Disk,
        cut_bytes: u64,
        spare: Option<Spare>,
        mut copying: Copying,
    ) -> io::Result<Copied> {
        let bytes = self.new_header().bytes;
        let spare = match spare {
            Some((number, _, spare_bytes)) if spare_bytes != self.options.segment_bytes => {
                disk.remove(&segment_name(number))?;
                None
            }
            other => other,
        };
        let copied = if copying.tail.end == self.end { copying.file() } else { None };
        drop(copying);
        let (file, spare) = match (copied, spare) {
            (Some(file), spare) => (file, spare),
            (None, spare) => {
                let (file, spare) = match (self.new_file(disk), spare) {
                    (Ok(file), spare) => (file, spare),
                    (Err(_), Some((number, _, spare_bytes))) if spare_bytes == bytes => {
                        disk.rename(&segment_name(number), &self.temporary())?;
                        // Its old name must be gone before its bytes are another segment's.
                        disk.sync_dir()?;
                        (disk.open(&self.temporary())?, None)
                    }
                    (Err(error), spare) if is_want_of_space(&error) => {
                        let spare = spare.map(|(_, file, _)| file);
                        return self.rewrite(disk, cut_bytes).map(|copied| Copied { spare, ..copied });
                    }
                    (Err(error), _) => return Err(error),
                };
                self.fill(file.as_ref())?;
                (file, spare)
            }
        };
        disk.rename(&self.temporary(), &segment_name(self.header.segment))?;
        disk.sync_dir()?;
        Ok(Copied { file, bytes, spare: spare.map(|(_, file, _)| file) })
    }

    fn temporary(&self) -> String {
        format!("{}.tmp", segment_name(self.header.segment))
    }

    fn new_header(&self) -> SegmentHeader {
        let fits = u64::from(self.end) + 4 * FRAME_HEADER_BYTES as u64 <= self.options.segment_bytes;
        let bytes = if fits { self.options.segment_bytes } else { self.header.bytes };
        SegmentHeader { head: self.head, bytes, ..self.header }
    }

    /// A new file of a temporary name and the size of a segment; where it fails, there is none.
    fn new_file(&self, disk: &dyn Disk) -> io::Result<Arc<dyn DiskFile>> {
        let file = disk.create(&self.temporary());
        let file = file.and_then(|file| file.allocate(self.new_header().bytes).map(|()| file));
        if file.is_err() {
            // It may be there, empty; if not, there is nothing to remove.
            drop(disk.remove(&self.temporary()));
        }
        file
    }

    /// Fills a new file, and syncs it.
    fn fill(&self, file: &dyn DiskFile) -> io::Result<()> {
        file.write_at(0, &self.new_header().encode())?;
        copy(self.file.as_ref(), file, self.end)?;
        file.sync_data()
    }

    /// Writes the tail over itself, where there is no room for another file: what the disk has of it stays as it is, and
    /// what it never took it takes now.
    fn rewrite(&self, disk: &dyn Disk, cut_bytes: u64) -> io::Result<Copied> {
        tracing::warn!(dir = %disk.place().display(), "no space to copy the log's tail; it is written in place");
        copy(self.file.as_ref(), self.file.as_ref(), self.end)?;
        // What is cut must never be read again behind what will be written here.
        let zeros = vec![0; COPY_BYTES];
        let mut left = usize::try_from(cut_bytes).unwrap_or(usize::MAX);
        let mut at = u64::from(self.end);
        while left > 0 {
            let part = left.min(COPY_BYTES);
            self.file.write_at(at, zeros.get(..part).unwrap_or(&zeros))?;
            at += part as u64;
            left -= part;
        }
        self.file.sync_data()?;
        Ok(Copied { file: Arc::clone(&self.file), bytes: self.header.bytes, spare: None })
    }
}

/// Writes an ended segment over itself and syncs it: what the disk has of it stays as it is, and what it never took it
/// takes now.
pub(super) fn rewrite_ended(file: &dyn DiskFile) -> io::Result<()> {
    copy(file, file, u32::try_from(file.bytes()?).unwrap_or(u32::MAX))?;
    file.sync_data()
}

/// Copies what lies between a segment's header and `end`.
fn copy(from: &dyn DiskFile, to: &dyn DiskFile, end: u32) -> io::Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    let mut at = u64::from(HEADER_END);
    while at < u64::from(end) {
        let part = usize::try_from(u64::from(end) - at).unwrap_or(COPY_BYTES).min(COPY_BYTES);
        let part = buffer.get_mut(..part).unwrap_or_default();
        if from.read_at(at, part)? < part.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        to.write_at(at, part)?;
        at += part.len() as u64;
    }
    Ok(())
}
