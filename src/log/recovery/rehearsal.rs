//! Reading a log as an opening does, without opening it: whether this program could go on with it, found out beforehand.
//!
//! Changes nothing and takes no lock, so a process may be writing the log meanwhile. What is at its tail is not judged,
//! then: a frame that is being written is none yet. What a process that goes on may do to the files while they are looked
//! at, such as to recycle one, looks like damage: it is looked again.

use std::path::Path;

use super::super::disk::RealDisk;
use super::super::{LogId, LogOptions};
use super::{Before, OpenError, Opening, Replay, below_the_last_gap};
use crate::limits::SEGMENT_BYTES_DEFAULT;

/// Looks at a log that may change meanwhile, before what is found is believed.
const LOOKS: usize = 5;

/// Gives a new replay of `begin` each the newest checkpoint in `dir` that is of use, and every record from there, or from the head, on;
/// returns the one that was through. `None`: there is no log yet.
///
/// # Errors
/// See [`OpenError`]: what an opening would say of anything but the tail, each time that it was looked.
pub fn rehearse<R: Replay>(dir: &Path, mut begin: impl FnMut() -> R) -> Result<Option<R>, OpenError> {
    let mut looks = 1;
    loop {
        let mut replay = begin();
        // What an opening does without, if it must, the last look does without.
        match look(dir, looks < LOOKS, &mut replay) {
            Ok(found) => return Ok(found.map(|_| replay)),
            // Another program's log stays one.
            Err(error @ (OpenError::Newer { .. } | OpenError::Foreign { .. })) => return Err(error),
            Err(error) if looks == LOOKS => return Err(error),
            Err(_) => looks += 1,
        }
    }
}

fn look(dir: &Path, by_checkpoint: bool, replay: &mut dyn Replay) -> Result<Option<LogId>, OpenError> {
    if !dir.is_dir() {
        return Ok(None);
    }
    let disk = RealDisk::to_look_at(dir).map_err(|source| OpenError::Io {
        doing: "open the log's directory",
        dir: dir.to_path_buf(),
        source,
    })?;
    // Of a size are only the segments that an opening makes.
    let opening = Opening::new(&disk, LogOptions::new(SEGMENT_BYTES_DEFAULT));
    opening.by_checkpoint.set(by_checkpoint);
    let (found, _) = opening.list()?;
    let (strays, found) = below_the_last_gap(found);
    let Some(first) = found.first() else { return Ok(None) };
    let log_id = first.header.log_id;
    opening.check_numbers(&strays, &found)?;
    let (active, head, _) = opening.tail_and_head(&strays, &found, log_id)?;
    let skip = (head - first.number) as usize;
    let mut state = Before { next_seq: (head == 1).then_some(1), previous: None, epoch: 0 };
    let kept = opening.read_checkpoint(&found, first.header, &mut || Ok(skip..=active), replay)?;
    let begin = kept.as_ref().map_or(skip, |(begin, _)| *begin);
    if let Some((_, checkpoint)) = kept {
        let place = checkpoint.place;
        state = Before { next_seq: Some(place.seq), previous: Some(place.previous), epoch: place.epoch };
    }
    for (at, segment) in found.iter().enumerate().take(active + 1).skip(begin) {
        let (_, end, ended) = opening.replay_segment(segment, first.header, &mut state, replay)?;
        if at < active && !ended {
            return Err(opening.corrupt(segment.number, end, "a frame is damaged in the middle of the log"));
        }
    }
    Ok(Some(log_id))
}
