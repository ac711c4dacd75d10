//! The tail at an opening: what is valid of the last segment is copied into another file, and synced, before anything is
//! served.
//!
//! After a failed sync the page cache may show bytes that the disk never took, and after a restart nobody knows. What is cut
//! is never copied along.

use std::io;
use std::sync::Arc;

use super::disk::{Disk, DiskFile};
use super::frame::{FRAME_HEADER_BYTES, SegmentHeader};
use super::reader::HEADER_END;
use super::spare::is_want_of_space;
use super::{LogOptions, segment_name};

/// Bytes that are copied at once.
const COPY_BYTES: usize = 1 << 20;

/// The last segment, where its valid part ends, and how much behind it must never be read again.
pub(super) struct Tail<'a> {
    pub(super) file: &'a Arc<dyn DiskFile>,
    pub(super) header: SegmentHeader,
    pub(super) end: u32,
    pub(super) cut_bytes: u64,
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

impl Tail<'_> {
    /// Copies it into a new file of the same name; into the spare's file where there is no room for a new one. When it
    /// returns, all of it is on stable storage.
    ///
    /// # Errors
    /// As the operating system says.
    pub(super) fn copy(
        &self,
        disk: &dyn Disk,
        options: LogOptions,
        head: u32,
        spare: Option<Spare>,
    ) -> io::Result<Copied> {
        let fits = u64::from(self.end) + 4 * FRAME_HEADER_BYTES as u64 <= options.segment_bytes;
        let bytes = if fits { options.segment_bytes } else { self.header.bytes };
        let header = SegmentHeader { head, bytes, ..self.header };
        let spare = match spare {
            Some((number, _, bytes)) if bytes != options.segment_bytes => {
                disk.remove(&segment_name(number))?;
                None
            }
            other => other,
        };
        let name = segment_name(header.segment);
        let temporary = format!("{name}.tmp");
        let fresh = disk.create(&temporary).and_then(|file| file.allocate(bytes).map(|()| file));
        if fresh.is_err() {
            // It may be there, empty; if not, there is nothing to remove.
            drop(disk.remove(&temporary));
        }
        let (file, spare) = match (fresh, spare) {
            (Ok(file), spare) => (file, spare),
            (Err(_), Some((number, _, spare_bytes))) if spare_bytes == bytes => {
                disk.rename(&segment_name(number), &temporary)?;
                // Its old name must be gone before its bytes are another segment's.
                disk.sync_dir()?;
                (disk.open(&temporary)?, None)
            }
            (Err(error), None) if is_want_of_space(&error) => return self.rewrite(disk),
            (Err(error), _) => return Err(error),
        };
        file.write_at(0, &header.encode())?;
        copy(self.file.as_ref(), file.as_ref(), self.end)?;
        file.sync_data()?;
        disk.rename(&temporary, &name)?;
        disk.sync_dir()?;
        Ok(Copied { file, bytes, spare: spare.map(|(_, file, _)| file) })
    }

    /// Writes the tail over itself, where there is no room for another file: what the disk has of it stays as it is, and
    /// what it never took it takes now.
    fn rewrite(&self, disk: &dyn Disk) -> io::Result<Copied> {
        tracing::warn!(dir = %disk.place().display(), "no space to copy the log's tail; it is written in place");
        copy(self.file.as_ref(), self.file.as_ref(), self.end)?;
        // What is cut must never be read again behind what will be written here.
        let zeros = vec![0; COPY_BYTES];
        let mut left = usize::try_from(self.cut_bytes).unwrap_or(usize::MAX);
        let mut at = u64::from(self.end);
        while left > 0 {
            let part = left.min(COPY_BYTES);
            self.file.write_at(at, zeros.get(..part).unwrap_or(&zeros))?;
            at += part as u64;
            left -= part;
        }
        self.file.sync_data()?;
        Ok(Copied { file: Arc::clone(self.file), bytes: self.header.bytes, spare: None })
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
