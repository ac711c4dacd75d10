//! Damage that is found in a log while it serves: told, remembered, and kept for whoever looks into it.
//!
//! Of each segment the first place that was found bad. It is written beside the segment, so that it is known after a
//! start, too; and where that cannot be written, it is known until this process ends. A damaged segment that nothing lives
//! in any more is set aside, instead of being written over: what is known of it lasts until somebody removes that file.
//! The first three of them are: more would tell no more, and fill the disk.
//!
//! ```text
//! data_dir/log/0000000042.damage        offset, seq, and what is wrong: a line of text
//! data_dir/log/0000000042.seg.damaged   the segment, once the head has passed it
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::disk::Disk;
use super::reader::ReadError;
use super::{segment_name, segment_number};
use crate::limits::SET_ASIDE_MAX;
use crate::types::Seq;

const SUFFIX: &str = ".damage";
/// Longest text that is read of what is wrong.
const TEXT_BYTES_MAX: usize = 1024;

/// A place that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Number of the segment.
    pub segment: u32,
    /// Offset in bytes.
    pub offset: u32,
    /// The record that was expected there.
    pub seq: Seq,
    /// What is wrong, for people.
    pub what: String,
}

/// What is known to be damaged, by segment.
pub(super) struct Damages {
    disk: Arc<dyn Disk>,
    known: Mutex<BTreeMap<u32, Place>>,
    /// Segments that were set aside.
    aside: Mutex<BTreeSet<u32>>,
}

fn note_name(segment: u32) -> String {
    format!("{segment:010}{SUFFIX}")
}

fn set_aside_name(segment: u32) -> String {
    format!("{}.damaged", segment_name(segment))
}

impl Damages {
    /// Those that earlier processes found. `names`: all files of the directory.
    pub(super) fn load(disk: Arc<dyn Disk>, names: &[String]) -> Self {
        let number = |name: &String| name.strip_suffix(SUFFIX).filter(|digits| digits.len() == 10)?.parse().ok();
        let mut known = BTreeMap::new();
        // A file that was set aside says as much, though its note could not be written, or was removed.
        let aside = set_aside_among(names);
        for &segment in &aside {
            let what = format!("segment {segment} was set aside, since it is damaged");
            known.insert(segment, Place { segment, offset: 0, seq: 0, what });
        }
        for segment in names.iter().filter_map(number) {
            if names.contains(&segment_name(segment)) || aside.contains(&segment) {
                known.insert(segment, read_note(disk.as_ref(), segment));
            } else {
                // Its segment was removed: whoever did that knows. A note that stays is looked at again.
                drop(disk.remove(&note_name(segment)));
            }
        }
        Self { disk, known: Mutex::new(known), aside: Mutex::new(aside) }
    }

    /// Notes what a read says of the disk, if that is news. A read that failed says nothing: it may not fail again.
    pub(super) fn notice(&self, error: &ReadError) {
        let ReadError::Damaged { segment, offset, seq } = *error else { return };
        let place = Place { segment, offset, seq, what: error.to_string() };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains_key(&segment) {
            return;
        }
        known.insert(segment, place.clone());
        drop(known);
        tracing::error!(
            segment,
            offset,
            seq,
            "the log is damaged: see `biotope log verify`, keep a backup, `biotope log salvage` saves the rest"
        );
        if let Err(error) = self.write_note(&place) {
            tracing::warn!(%error, segment, "the damage could not be noted on disk; it is known until this process ends");
        }
    }

    fn write_note(&self, place: &Place) -> io::Result<()> {
        let (name, temporary) = (note_name(place.segment), format!("{}.tmp", note_name(place.segment)));
        let file = self.disk.create(&temporary)?;
        file.write_at(0, format!("{} {} {}\n", place.offset, place.seq, place.what).as_bytes())?;
        file.sync_data()?;
        self.disk.rename(&temporary, &name)?;
        self.disk.sync_dir()
    }

    /// All that is known, by segment.
    pub(super) fn all(&self) -> Vec<Place> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// How many segments were set aside.
    pub(super) fn set_aside_count(&self) -> usize {
        self.aside.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Sets the file of a segment aside that the head has passed, if it is damaged, and there are not enough of these; durable
    /// after `sync_dir`. `None`: it may be removed or used again.
    pub(super) fn set_aside(&self, segment: u32) -> Option<io::Result<()>> {
        if !self.known.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&segment) {
            return None;
        }
        let mut aside = self.aside.lock().unwrap_or_else(PoisonError::into_inner);
        if aside.len() >= SET_ASIDE_MAX {
            tracing::warn!(segment, kept = aside.len(), "a damaged segment is not kept: remove those that are");
            return None;
        }
        let renamed = self.disk.rename(&segment_name(segment), &set_aside_name(segment));
        if renamed.is_ok() {
            aside.insert(segment);
        }
        Some(renamed)
    }
}

/// The segments that were set aside, by the names of a log's files.
pub fn set_aside_among(names: &[String]) -> BTreeSet<u32> {
    names.iter().filter_map(|name| segment_number(name.strip_suffix(".damaged")?)).collect()
}

fn read_note(disk: &dyn Disk, segment: u32) -> Place {
    let mut bytes = vec![0; TEXT_BYTES_MAX];
    let read = disk.open(&note_name(segment)).and_then(|file| file.read_at(0, &mut bytes)).unwrap_or(0);
    let text = String::from_utf8_lossy(bytes.get(..read).unwrap_or_default()).trim_end().to_owned();
    let mut words = text.splitn(3, ' ');
    let (offset, seq) =
        (words.next().and_then(|word| word.parse().ok()), words.next().and_then(|word| word.parse().ok()));
    let what = words.next().map_or_else(|| format!("segment {segment} is damaged"), str::to_owned);
    // A note of which no more can be read is one all the same.
    Place { segment, offset: offset.unwrap_or(0), seq: seq.unwrap_or(0), what }
}
