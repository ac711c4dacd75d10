//! The operating system's part of the log: one flat directory of files, behind a trait with a real implementation.
//!
//! Batch-level, not byte-level: what the log needs, and nothing that a simulated disk could not take back at a crash.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::SeekFrom;

/// A directory of files.
pub trait Disk: Send + Sync {
    /// Names of all files.
    ///
    /// # Errors
    /// As the operating system says; likewise below.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes a file, empty even if one of that name was there. Its name is durable after `sync_dir`.
    ///
    /// # Errors
    /// See `list`.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file that is there, to read and write.
    ///
    /// # Errors
    /// See `list`.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames a file; one of the new name is replaced. Durable after `sync_dir`.
    ///
    /// # Errors
    /// See `list`.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file. Durable after `sync_dir`.
    ///
    /// # Errors
    /// See `list`.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes all names durable.
    ///
    /// # Errors
    /// See `list`.
    fn sync_dir(&self) -> io::Result<()>;
    /// Where the directory is, for messages.
    fn place(&self) -> PathBuf;
    /// What its file system has, if it says so.
    fn free(&self) -> Option<Free> {
        None
    }
    /// Whether what lies at [`Disk::place`] is still the directory that was opened.
    ///
    /// # Errors
    /// It was removed, or another one is there instead; or as the operating system says.
    fn check_place(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Free {
    /// All that there are.
    pub total: u64,
    /// Those that this process may still take.
    pub free: u64,
}

/// A file of a [`Disk`].
pub trait DiskFile: Send + Sync {
    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// As the operating system says; some of the bytes may have been written. Likewise below.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Reads up to `buffer.len()` bytes at `offset`; fewer only at the end of the file.
    ///
    /// # Errors
    /// See `write_at`.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// When it returns, all that was written to the file before is on stable storage.
    ///
    /// # Errors
    /// See `write_at`. After an error, what was written before may be lost, even if a later call returns `Ok`.
    fn sync_data(&self) -> io::Result<()>;
    /// Takes space for `bytes` bytes, which read as zeros where nothing was written.
    ///
    /// # Errors
    /// See `write_at`.
    fn allocate(&self, bytes: u64) -> io::Result<()>;
    /// A place at or after `offset` from which on nothing was ever written: what lies there reads as zeros.
    ///
    /// # Errors
    /// See `write_at`.
    fn written_to(&self, offset: u64) -> io::Result<u64>;
    /// Length in bytes.
    ///
    /// # Errors
    /// See `write_at`.
    fn bytes(&self) -> io::Result<u64>;
}

/// A directory of the real file system.
#[derive(Debug)]
pub struct RealDisk {
    dir: PathBuf,
    handle: File,
}

impl RealDisk {
    /// Opens `dir`, and makes it (mode 0700) with its parents if it is missing.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn open(dir: &Path) -> io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        if let Some(parent) = dir.parent() {
            // The directory's own name must be durable, too.
            File::open(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })?.sync_all()?;
        }
        Ok(Self { dir: dir.to_path_buf(), handle: File::open(dir)? })
    }

    /// Opens `dir`, which must be there, to look at it: files are opened to be read, and nothing is changed by looking.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn to_look_at(dir: &Path) -> io::Result<impl Disk + use<>> {
        Ok(ReadDisk(Self { dir: dir.to_path_buf(), handle: File::open(dir)? }))
    }
}

/// A directory that is only looked at.
struct ReadDisk(RealDisk);

impl Disk for ReadDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn create(&self, _: &str) -> io::Result<Arc<dyn DiskFile>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(File::open(self.0.dir.join(name))?)))
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn place(&self) -> PathBuf {
        self.0.place()
    }
}

impl Disk for RealDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.dir.join(name);
        Ok(Arc::new(RealFile(
            OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?,
        )))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(OpenOptions::new().read(true).write(true).open(self.dir.join(name))?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.dir.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn place(&self) -> PathBuf {
        self.dir.clone()
    }

    fn free(&self) -> Option<Free> {
        let system = rustix::fs::fstatvfs(&self.handle).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(system.f_frsize);
        // Some that are not of a disk say nothing.
        (system.f_blocks > 0).then(|| Free { total: bytes(system.f_blocks), free: bytes(system.f_bavail) })
    }

    fn check_place(&self) -> io::Result<()> {
        let there = std::fs::metadata(&self.dir)?;
        let opened = self.handle.metadata()?;
        if (there.dev(), there.ino()) == (opened.dev(), opened.ino()) {
            return Ok(());
        }
        Err(io::Error::other("the directory was replaced by another one while it was in use"))
    }
}

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.0.read_at(rest, offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        // Unlike std's own calls, this one is not called again by itself when a signal cuts in (D14).
        let allocated =
            rustix::io::retry_on_intr(|| rustix::fs::fallocate(&self.0, rustix::fs::FallocateFlags::empty(), 0, bytes));
        match allocated {
            // A file system without fallocate takes its space when it is written.
            Err(rustix::io::Errno::OPNOTSUPP) => self.0.set_len(bytes),
            other => other.map_err(io::Error::from),
        }
    }

    fn written_to(&self, offset: u64) -> io::Result<u64> {
        let mut end = offset;
        loop {
            let next = match rustix::fs::seek(&self.0, SeekFrom::Data(end)) {
                Err(rustix::io::Errno::NXIO) => return Ok(end),
                written => written.and_then(|at| rustix::fs::seek(&self.0, SeekFrom::Hole(at))),
            };
            match next {
                Ok(hole) if hole > end => end = hole,
                // A file system that does not know: everything may have been.
                _ => return self.bytes(),
            }
        }
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_behind_all_that_was_written_reads_as_zeros() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(dir.path()).unwrap();
        let file = disk.create("file").unwrap();
        assert_eq!(file.written_to(0).unwrap(), 0);
        file.allocate(1 << 20).unwrap();
        for (at, bytes) in [(10, 100), (300 << 10, 5000), ((1 << 20) - 1, 1)] {
            file.write_at(at, &vec![7; bytes]).unwrap();
            let end = at + bytes as u64;
            for from in [0, at, end] {
                let written_to = file.written_to(from).unwrap();
                assert!((end..=1 << 20).contains(&written_to), "{from}: {written_to}, and written to {end}");
                let mut rest = vec![1; 1 << 20];
                let read = file.read_at(written_to, &mut rest).unwrap();
                assert_eq!(read as u64, (1 << 20) - written_to);
                assert!(rest.iter().take(read).all(|byte| *byte == 0));
            }
        }
    }
}
