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
//!   6     postcard: the accepted configs that are remembered               the second one, where there are any
//!   5     postcard: (born seq, job, number of its tenant) for some of the jobs with a state of their own
//!   7     postcard: (born seq, job, number of its tenant, least version) for those that need a version
//!   8     postcard: (born seq, workers of its failed attempts) for those of both that have such of which a worker has a number
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{GenerationRecord, Job, Noted, OwnedMinVersion, Table, TypeState, VersionRecord};
use crate::job::event::{Failure, Ramped, Settled, Totals};
use crate::job::queue::Chunk;
use crate::types::{Priority, Seq, UnixMs, WorkerType};

const META: u8 = 1;
const LINE: u8 = 2;
const LATER: u8 = 4;
const NOTED: u8 = 5;
const GENERATIONS: u8 = 6;
const NEEDY: u8 = 7;
const WORKERS: u8 = 8;
/// A block is ended when it has so many bytes.
const BLOCK_BYTES: usize = 256 << 10;
/// Jobs of one block of them.
const NOTED_AT_ONCE: usize = 1000;
/// The shape of these blocks. A checkpoint of another shape is of no use: then the log is read from its head.
const VERSION: u32 = 7;

#[derive(Serialize, Deserialize)]
struct Meta {
    version: u32,
    types: Vec<(WorkerType, u32, Totals, UnixMs, u32, Option<Ramped>)>,
    versions: Vec<(u32, VersionRecord)>,
    /// The newest one; the others, and what else is known of this one, are in a block of their own.
    generation: (u64, UnixMs, Vec<u32>),
    live_bytes: u64,
    homes: BTreeMap<u32, u64>,
    first_seq: Option<Seq>,
    clean_stop: bool,
}

/// Number, moment, targets, text and end of an accepted config.
type KeptGeneration = (u64, UnixMs, Vec<u32>, Option<String>, Option<Settled>);

fn kept(record: &GenerationRecord) -> KeptGeneration {
    let (text, settled) = (record.text.as_deref(), record.settled.as_deref());
    (record.number, record.at, record.targets.clone(), text.map(str::to_owned), settled.cloned())
}

fn remembered((number, at, targets, text, settled): KeptGeneration) -> GenerationRecord {
    GenerationRecord { number, at, targets, text: text.map(Arc::from), settled: settled.map(Arc::new) }
}

/// The picture.
pub struct Picture {
    meta: Vec<u8>,
    generations: Option<Vec<u8>>,
    lines: Vec<(u8, u32, Priority, Vec<Arc<Chunk>>)>,
    noted: Noted,
}

impl Table {
    /// Takes a picture.
    pub fn picture(&self) -> Picture {
        let generation = self.generation();
        let kept_type = |of_type: &TypeState| {
            let TypeState { name, route, totals, paused_since, previous, ramp, .. } = of_type;
            (name.clone(), *route, *totals, *paused_since, *previous, *ramp)
        };
        let mut versions: Vec<_> = self.versions.iter().map(|(no, version)| (*no, version.clone())).collect();
        versions.sort_unstable_by_key(|(no, ..)| *no);
        let meta = Meta {
            version: VERSION,
            types: self.types.iter().map(kept_type).collect(),
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
        let generations = (!self.generations().is_empty()).then(|| {
            let all: Vec<KeptGeneration> = self.generations().iter().map(kept).collect();
            postcard::to_extend(&all, vec![GENERATIONS]).expect("a plain value can be written into memory")
        });
        Picture { meta, generations, lines: lines.collect(), noted: self.noted.clone() }
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
            NOTED => {
                let jobs: Vec<(Seq, Job, u16)> = postcard::from_bytes(rest).map_err(|error| error.to_string())?;
                for (born, mut job, tenant) in jobs {
                    job.tenant = tenant;
                    self.load_noted(born, job);
                }
                Ok(())
            }
            NEEDY => {
                let jobs: Vec<(Seq, Job, u16, OwnedMinVersion)> =
                    postcard::from_bytes(rest).map_err(|error| error.to_string())?;
                for (born, mut job, tenant, min_version) in jobs {
                    job.tenant = tenant;
                    job.set_min_version(Some(min_version));
                    self.load_noted(born, job);
                }
                Ok(())
            }
            WORKERS => {
                let workers: Vec<(Seq, Vec<u32>)> = postcard::from_bytes(rest).map_err(|error| error.to_string())?;
                let put = workers.iter().try_for_each(|(born, workers)| self.load_workers(*born, workers));
                put.ok_or_else(|| "a block of workers is not of the jobs before it".to_owned())
            }
            GENERATIONS => {
                let all: Vec<KeptGeneration> = postcard::from_bytes(rest).map_err(|error| error.to_string())?;
                self.generations.load(all.into_iter().map(remembered).collect());
                Ok(())
            }
            other => Err(format!("a block of kind {other} is not known")),
        }
    }

    fn load_meta(&mut self, bytes: &[u8]) -> Result<(), String> {
        let meta: Meta = postcard::from_bytes(bytes).map_err(|error| error.to_string())?;
        if meta.version != VERSION {
            return Err(format!("it is of shape {}, this program knows {VERSION}", meta.version));
        }
        for (name, route, totals, paused_since, previous, ramp) in meta.types {
            let no = u32::try_from(self.types.len()).unwrap_or(u32::MAX) + 1;
            self.type_numbers.insert(name.clone(), no);
            self.types.push(TypeState { route, previous, ramp, paused_since, ..TypeState::new(name, totals) });
        }
        for (no, version) in &meta.versions {
            if let Some(of_type) = self.types.get_mut((version.type_no as usize).wrapping_sub(1)) {
                of_type.accepted(&version.label, *no, &self.noted);
            }
        }
        self.versions.extend(meta.versions);
        let (number, at, targets) = meta.generation;
        if number > 0 {
            self.generations.load(vec![GenerationRecord { number, at, targets, ..GenerationRecord::default() }]);
        }
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

    fn load_noted(&mut self, born: Seq, job: Job) {
        self.enter(born, &job);
        self.noted.insert(born, job);
    }

    fn load_workers(&mut self, born: Seq, workers: &[u32]) -> Option<()> {
        let mut job = self.noted.remove(born)?;
        job.set_workers(workers)?;
        self.noted.insert(born, job);
        Some(())
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
        let first = std::iter::once(self.meta.clone()).chain(self.generations.clone());
        first.chain(lines).chain(self.noted_blocks()).chain(self.needy_blocks()).chain(self.workers_blocks())
    }

    fn noted_blocks(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        let jobs = self.noted.iter().filter(|(_, job)| job.min_version().is_none());
        blocks_of(NOTED, jobs.map(|(born, job)| (born, job, job.tenant)))
    }

    fn needy_blocks(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        let jobs = self.noted.iter().filter_map(|(born, job)| Some((born, job, job.tenant, job.min_version()?)));
        blocks_of(NEEDY, jobs)
    }

    fn workers_blocks(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        let jobs = self.noted.iter().filter_map(|(born, job)| Some((born, Failure::workers(job.failures())?)));
        blocks_of(WORKERS, jobs)
    }
}

/// Blocks of so many values each.
fn blocks_of<T: Serialize>(kind: u8, values: impl Iterator<Item = T>) -> impl Iterator<Item = Vec<u8>> {
    let mut values = values.peekable();
    std::iter::from_fn(move || {
        values.peek()?;
        let some: Vec<T> = values.by_ref().take(NOTED_AT_ONCE).collect();
        Some(postcard::to_extend(&some, vec![kind]).expect("a plain value can be written into memory"))
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::event::{Enqueued, Event, Reserved, TypeNamed};
    use crate::job::tenant::tenant_no;
    use crate::log::Position;
    use crate::types::Fence;

    /// A table with fresh, delayed and reserved jobs, every other one of a tenant.
    fn table() -> Table {
        let mut table = Table::new([5; 16]);
        let mut put = |seq, event: Event<'_>| {
            table.apply(seq, Position { segment: 1, offset: 64, body: 100 }, &event).unwrap();
        };
        put(1, Event::TypeNamed(TypeNamed { no: 1, name: "a" }));
        for born in 2..12 {
            let meta = Enqueued {
                type_no: 1,
                task: "",
                priority: Priority::default(),
                tenant: (born % 2 == 0).then_some("acme"),
                created_ms: 1000,
                ready_ms: if born < 6 { 2000 } else { 0 },
                expires_ms: 0,
                max_attempts: 3,
                names: None,
                parent: None,
                min_version: None,
                trace: None,
            };
            put(born, Event::Enqueued(meta, b"{}"));
        }
        for born in 8..12 {
            let fence = Fence { epoch: 1, counter: born };
            put(born + 10, Event::Reserved(Reserved { born, fence, version_no: 1, at: 1000 }));
        }
        table
    }

    fn loaded(blocks: &[Vec<u8>]) -> Table {
        let mut table = Table::to_replay([5; 16]);
        blocks.iter().for_each(|block| table.load(block).unwrap());
        table
    }

    fn tenants(table: &Table) -> Vec<(Seq, u16)> {
        let mut tenants: Vec<(Seq, u16)> = table.jobs().map(|(born, job)| (born, job.tenant)).collect();
        tenants.sort_unstable();
        tenants
    }

    #[test]
    fn a_tenants_number_is_kept() {
        let table = table();
        let acme = tenant_no(Some("acme"));
        let expected: Vec<(Seq, u16)> = (2..12).map(|born| (born, if born % 2 == 0 { acme } else { 0 })).collect();
        assert_eq!(tenants(&table), expected);
        let blocks: Vec<Vec<u8>> = table.picture().blocks().collect();
        assert_eq!(tenants(&loaded(&blocks)), expected);
    }
}
