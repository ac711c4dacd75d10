//! A picture of the table, and the blocks of bytes that a checkpoint keeps of it.
//!
//! Pure. To take a picture costs a pointer for some hundred waiting jobs and for each shard of the others; what happens to
//! the table afterwards is not in it. The index of chosen names is kept by itself: see `IdIndex::block`.
//!
//! ```text
//! block   kind u8 │ …
//!   1     postcard: types, versions, generation, counts                   the first one
//!   2     type u32 │ priority u8 │ for each chunk: jobs u32 │ first u64 │ last u64 │ bytes u32 │ bytes
//!   4     as 2, of jobs that are delayed
//!   3     postcard: (born seq, job) for some of the jobs with a state of their own
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{GenerationRecord, Job, Noted, Table, TypeState, VersionRecord};
use crate::job::event::Totals;
use crate::job::queue::{Chunk, Queue};
use crate::types::{Label, Priority, Seq, UnixMs, WorkerType};

const META: u8 = 1;
const LINE: u8 = 2;
const NOTED: u8 = 3;
const LATER: u8 = 4;
/// A block is ended when it has so many bytes.
const BLOCK_BYTES: usize = 256 << 10;
/// Jobs of one block of them.
const NOTED_AT_ONCE: usize = 1000;
/// The shape of these blocks.
const VERSION: u32 = 4;

#[derive(Serialize, Deserialize)]
struct Meta {
    version: u32,
    types: Vec<(WorkerType, u32, Totals, UnixMs)>,
    versions: Vec<(u32, u32, Label, [u8; 32], UnixMs, bool)>,
    generation: (u64, UnixMs, Vec<u32>),
    live_bytes: u64,
    homes: BTreeMap<u32, u64>,
    first_seq: Option<Seq>,
    clean_stop: bool,
}

/// The picture.
pub struct Picture {
    meta: Vec<u8>,
    lines: Vec<(u8, u32, Priority, Vec<Arc<Chunk>>)>,
    noted: Noted,
}

impl Table {
    /// Takes a picture.
    pub fn picture(&self) -> Picture {
        let generation = &self.generation;
        let version = |(no, version): (&u32, &VersionRecord)| {
            (*no, version.type_no, version.label.clone(), version.hash, version.at, version.rejected)
        };
        let kept = |of_type: &TypeState| (of_type.name.clone(), of_type.route, of_type.totals, of_type.paused_since);
        let mut versions: Vec<_> = self.versions.iter().map(version).collect();
        versions.sort_unstable_by_key(|(no, ..)| *no);
        let meta = Meta {
            version: VERSION,
            types: self.types.iter().map(kept).collect(),
            versions,
            generation: (generation.number, generation.at, generation.targets.clone()),
            live_bytes: self.live_bytes,
            homes: self.homes.clone(),
            first_seq: self.first_seq,
            clean_stop: self.clean_stop,
        };
        let lines = self.types().flat_map(|(no, of_type)| {
            [(LINE, &of_type.queue), (LATER, &of_type.later)].into_iter().flat_map(move |(kind, queue)| {
                let lines = queue.by_priority().filter(|(_, line)| line.fresh() > 0);
                lines.map(move |(priority, line)| (kind, no, priority, line.picture()))
            })
        });
        // A plain value can always be written into memory.
        let meta = postcard::to_extend(&meta, vec![META]).expect("a plain value can be written into memory");
        Picture { meta, lines: lines.collect(), noted: self.noted.clone() }
    }

    /// Takes a block of a checkpoint over, in the order in which they were written.
    ///
    /// # Errors
    /// The block is none of ours; the table is of no use then.
    pub fn load(&mut self, block: &[u8]) -> Result<(), String> {
        let (kind, rest) = block.split_first().ok_or("an empty block")?;
        match *kind {
            META => self.load_meta(rest),
            LINE | LATER => self
                .load_line(*kind == LATER, rest)
                .ok_or_else(|| "a block of waiting jobs does not have its shape".to_owned()),
            NOTED => self.load_noted(rest),
            other => Err(format!("a block of kind {other} is not known")),
        }
    }

    fn load_meta(&mut self, bytes: &[u8]) -> Result<(), String> {
        let meta: Meta = postcard::from_bytes(bytes).map_err(|error| error.to_string())?;
        // The one before had delayed jobs among those with a state of their own, which is as good.
        if !(VERSION - 1..=VERSION).contains(&meta.version) {
            return Err(format!("it is of shape {}, this program knows {VERSION}", meta.version));
        }
        for (name, route, totals, paused_since) in meta.types {
            let no = u32::try_from(self.types.len()).unwrap_or(u32::MAX) + 1;
            self.type_numbers.insert(name.clone(), no);
            let (queue, later, due) = (Queue::default(), Queue::default(), BTreeSet::new());
            let (delayed, reserved, dead) = (0, 0, 0);
            self.types.push(TypeState {
                name,
                queue,
                later,
                due,
                delayed,
                reserved,
                dead,
                totals,
                route,
                paused_since,
            });
        }
        for (no, type_no, label, hash, at, rejected) in meta.versions {
            self.versions.insert(no, VersionRecord { type_no, label, hash, at, rejected });
        }
        let (number, at, targets) = meta.generation;
        self.generation = GenerationRecord { number, at, targets };
        (self.live_bytes, self.homes) = (meta.live_bytes, meta.homes);
        (self.first_seq, self.clean_stop) = (meta.first_seq, meta.clean_stop);
        Ok(())
    }

    fn load_line(&mut self, later: bool, mut rest: &[u8]) -> Option<()> {
        let type_no = number(&mut rest)?;
        let (priority, more) = rest.split_first()?;
        let priority = Priority::new(*priority)?;
        rest = more;
        let of_type = self.types.get_mut((type_no as usize).checked_sub(1)?)?;
        while !rest.is_empty() {
            let (jobs, first, last) = (number(&mut rest)?, long(&mut rest)?, long(&mut rest)?);
            let bytes = number(&mut rest)? as usize;
            let chunk = Chunk::kept(first, last, jobs, rest.get(..bytes)?);
            rest = rest.get(bytes..)?;
            if later {
                // When each is due is in no other place.
                let jobs = chunk.looked_through()?;
                of_type.due.extend(jobs.iter().map(|job| (job.ready_ms, job.born)));
                of_type.delayed += jobs.len() as u64;
            }
            let queue = if later { &mut of_type.later } else { &mut of_type.queue };
            queue.extend(priority, chunk)?;
        }
        Some(())
    }

    fn load_noted(&mut self, bytes: &[u8]) -> Result<(), String> {
        let jobs: Vec<(Seq, Job)> = postcard::from_bytes(bytes).map_err(|error| error.to_string())?;
        for (born, job) in jobs {
            self.enter(born, &job);
            self.noted.insert(born, job);
        }
        Ok(())
    }
}

fn number(rest: &mut &[u8]) -> Option<u32> {
    let (bytes, more) = rest.split_first_chunk()?;
    *rest = more;
    Some(u32::from_le_bytes(*bytes))
}

fn long(rest: &mut &[u8]) -> Option<u64> {
    let (bytes, more) = rest.split_first_chunk()?;
    *rest = more;
    Some(u64::from_le_bytes(*bytes))
}

impl Picture {
    /// The blocks, but for those of names.
    pub fn blocks(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        let lines = self
            .lines
            .iter()
            .flat_map(|(kind, type_no, priority, chunks)| line_blocks(*kind, *type_no, *priority, chunks));
        std::iter::once(self.meta.clone()).chain(lines).chain(self.noted_blocks())
    }

    fn noted_blocks(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        let mut jobs = self.noted.iter().peekable();
        std::iter::from_fn(move || {
            jobs.peek()?;
            let some: Vec<(Seq, &Job)> = jobs.by_ref().take(NOTED_AT_ONCE).collect();
            Some(postcard::to_extend(&some, vec![NOTED]).expect("a plain value can be written into memory"))
        })
    }
}

fn line_blocks(
    kind: u8,
    type_no: u32,
    priority: Priority,
    chunks: &[Arc<Chunk>],
) -> impl Iterator<Item = Vec<u8>> + '_ {
    let mut rest = chunks.iter().peekable();
    std::iter::from_fn(move || {
        rest.peek()?;
        let mut block = vec![kind];
        block.extend_from_slice(&type_no.to_le_bytes());
        block.push(priority.get());
        while let Some(chunk) = rest.next_if(|_| block.len() < BLOCK_BYTES) {
            block.extend_from_slice(&u32::try_from(chunk.jobs()).unwrap_or(0).to_le_bytes());
            block.extend_from_slice(&chunk.first().to_le_bytes());
            block.extend_from_slice(&chunk.last().to_le_bytes());
            block.extend_from_slice(&u32::try_from(chunk.bytes().len()).unwrap_or(0).to_le_bytes());
            block.extend_from_slice(chunk.bytes());
        }
        Some(block)
    })
}
