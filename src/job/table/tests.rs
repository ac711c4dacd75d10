//! The table against its own records: whatever happened, a replay gives the same state, from the start or from a head.

mod held;

use std::fmt::Write;

use proptest::prelude::*;

use super::*;
use crate::job::event::{
    Enqueued, Failed, Kind, MinVersion, Names, Paused, Ramped, Redriven, Released, Reserved, Restated, Routed,
    TypeNamed, VersionAccepted, with_version_no,
};
use crate::types::{Fence, Label, Priority};

const LOG_ID: LogId = [5; 16];
const TYPES: [&str; 2] = ["a", "b"];
const LABELS: [&str; 4] = ["v1", "v2", "v10", "v3"];
/// A version that was never accepted.
const NO_VERSION: u32 = 99;

/// A log in memory: records as they would stand on disk.
#[derive(Default)]
struct Written(Vec<(Seq, u8, u8, Vec<u8>)>);

/// A table whose every event goes through bytes.
struct Life {
    table: Table,
    log: Written,
    next: Seq,
    now: UnixMs,
    /// The version that the next job needs.
    needs: Option<&'static str>,
}

fn place(seq: Seq) -> Position {
    Position { segment: 1, offset: u32::try_from(seq).unwrap() * 8, body: 100 }
}

fn apply(table: &mut Table, record: &(Seq, u8, u8, Vec<u8>)) -> Result<(), Illegal> {
    let (seq, kind, version, body) = record;
    let event = Event::decode(*kind, *version, body).unwrap();
    table.apply(*seq, place(*seq), &event)
}

impl Life {
    fn new() -> Self {
        let mut life =
            Self { table: Table::new(LOG_ID), log: Written::default(), next: 1, now: 1_000_000, needs: None };
        for (no, name) in (1..).zip(TYPES) {
            life.put(&Event::TypeNamed(TypeNamed { no, name })).unwrap();
        }
        life
    }

    fn put(&mut self, event: &Event<'_>) -> Result<Seq, Illegal> {
        let kind = event.record_kind();
        let mut body = Vec::new();
        event.encode(&mut body);
        assert!(body.len() <= event.bytes_max(), "the bound on an event's bytes holds");
        let record = (self.next, kind.kind, kind.version, body);
        apply(&mut self.table, &record)?;
        self.log.0.push(record);
        self.next += 1;
        Ok(self.next - 1)
    }

    fn enqueue(&mut self, type_no: u32, priority: u8, delay: u64, expires: u64, named: bool) {
        let (id, key) = (format!("id-{}", self.next), format!("key-{}", self.next));
        let meta = Enqueued {
            type_no,
            task: "task",
            priority: Priority::new(priority).unwrap(),
            tenant: [None, Some("tenant"), Some("another")][usize::try_from(self.next % 3).unwrap()],
            created_ms: self.now,
            ready_ms: if delay == 0 { 0 } else { self.now + delay },
            expires_ms: if expires == 0 { 0 } else { self.now + expires },
            max_attempts: 3,
            names: named.then_some(Names { id: Some(&id), key: Some(&key), digest: self.next }),
            parent: None,
            trace: None,
            min_version: self.needs.map(|label| {
                let of_type = self.table.worker_type(type_no).unwrap();
                let version_no = of_type.first_number(&label.parse().unwrap()).unwrap_or(0);
                MinVersion { label, version_no }
            }),
        };
        self.put(&Event::Enqueued(meta, b"{}")).unwrap();
    }

    /// Accepts a version with a label that its type has not had, or not with this hash.
    fn accept(&mut self, type_no: u32, label: &str) -> u32 {
        let no = self.table.versions().map(|(no, _)| no).max().unwrap_or(0) + 1;
        self.put(&Event::VersionAccepted(VersionAccepted { no, type_no, label, hash: [7; 32], at: self.now })).unwrap();
        no
    }

    fn route(&mut self, type_no: u32, version_no: u32) {
        self.put(&Event::Routed(Routed { type_no, version_no, at: self.now })).unwrap();
    }

    /// Tries a change of one job; what is illegal must leave everything as it was.
    fn try_change(&mut self, born: Seq, what: u8, amount: u64) {
        let at = self.now;
        let Some(job) = self.table.job(born) else { return };
        let body = self.enqueued_body(born);
        let names = decode_home(Kind::Enqueued as u8, &body).unwrap().0.names;
        let ended = |end| {
            let ended = Ended {
                born,
                end,
                at,
                type_no: job.type_no,
                version_no: NO_VERSION,
                attempts: job.attempts,
                given_back: job.given_back,
                created_ms: job.created_ms,
                home: job.home,
                names: names.clone(),
                worker: 1,
            };
            Event::Ended(ended, b"result")
        };
        let fence = Fence { epoch: 1, counter: amount };
        let again = |ready_ms| {
            let after = After::Again { ready_ms };
            Event::Failed(Failed { born, at, type_no: 1, version_no: 2, after, worker: 2 }, b"elsewhere")
        };
        let event = match what % 13 {
            0 | 1 => Event::Reserved(Reserved { born, fence, version_no: NO_VERSION, at }),
            2 => ended(End::Completed),
            3 => {
                let after = After::Retry { ready_ms: at + amount };
                Event::Failed(Failed { born, at, type_no: 1, version_no: 1, after, worker: 300 }, b"error")
            }
            4 => Event::Failed(
                Failed { born, at, type_no: 1, version_no: 1, after: After::Dead, worker: 0 },
                b"last error",
            ),
            5 => Event::Released(Released { born, at, release: Release::Interrupt, worker: 0 }, b""),
            6 => Event::Released(
                Released { born, at, release: Release::Deferral { ready_ms: at + amount }, worker: 7 },
                b"",
            ),
            7 => Event::Redriven(Redriven { born, at }),
            8 => ended(End::Cancelled),
            10 => again(0),
            11 => again(at + amount),
            12 => ended(End::Expired),
            _ => ended(End::Discarded),
        };
        let before = snapshot(&self.table);
        if self.put(&event).is_err() {
            assert_eq!(before, snapshot(&self.table));
        }
    }

    fn live(&self) -> Vec<Seq> {
        let mut live: Vec<Seq> = self.table.jobs().map(|(born, _)| born).collect();
        live.sort_unstable();
        live
    }

    /// Restates everything, as the cleaner does, and returns where a replay may begin.
    fn restate_all(&mut self) -> usize {
        let head = self.log.0.len();
        for (no, name) in (1..).zip(TYPES) {
            self.put(&Event::TypeNamed(TypeNamed { no, name })).unwrap();
        }
        for (no, _) in (1..).zip(TYPES) {
            let (totals, since) = self.table.worker_type(no).map(|of| (of.totals, of.paused_since)).unwrap();
            self.put(&Event::Totals(totals)).unwrap();
            self.put(&Event::Paused(Paused { type_no: no, since, at: self.now })).unwrap();
            let (route, trial) = self.table.worker_type(no).map(|of| (of.route, of.trial(no))).unwrap();
            self.put(&Event::Routed(Routed { type_no: no, version_no: route, at: self.now })).unwrap();
            self.put(&Event::Ramped(trial.unwrap_or(Ramped { type_no: no, ..Ramped::default() }))).unwrap();
        }
        for (type_no, no, label) in self.versions() {
            let (hash, at) = ([7; 32], self.now);
            self.put(&Event::VersionAccepted(VersionAccepted { no, type_no, label: label.as_str(), hash, at }))
                .unwrap();
        }
        for (type_no, _) in (1..).zip(TYPES) {
            self.route(type_no, self.table.worker_type(type_no).unwrap().route);
        }
        for born in self.live() {
            let job = self.table.job(born).unwrap();
            let restated: Restated = job.restate(born);
            let body = self.enqueued_body(born);
            let numbered = self.table.known_need(&job).and_then(|no| with_version_no(&body, no));
            self.put(&Event::Restated(restated, &numbered.unwrap_or(body))).unwrap();
        }
        head
    }

    /// All versions: type, number, label.
    fn versions(&self) -> Vec<(u32, u32, Label)> {
        let mut all: Vec<_> = self.table.versions().map(|(no, of)| (of.type_no, no, of.label.clone())).collect();
        all.sort_unstable();
        all
    }

    fn enqueued_body(&self, born: Seq) -> Vec<u8> {
        self.log.0.iter().find(|(seq, ..)| *seq == born).unwrap().3.clone()
    }
}

/// Everything that a table says of what lives, in words; without where payloads lie.
fn snapshot(table: &Table) -> String {
    let mut shown = String::new();
    for (no, of_type) in table.types() {
        let (queue, delayed) = (of_type.queue.len(), of_type.delayed);
        let (reserved, dead) = (of_type.reserved, of_type.dead);
        let (held, route, needy) = (of_type.held(), of_type.route, &of_type.needy);
        writeln!(shown, "{held} held, {needy:?}, to {route}, {:?}", of_type.first).unwrap();
        let (name, totals, paused) = (&of_type.name, of_type.totals, of_type.paused_since);
        writeln!(shown, "{name} {queue} {delayed} {reserved} {dead} {totals:?} {paused}").unwrap();
        writeln!(shown, "{} {} {:?}", of_type.route, of_type.previous, of_type.ramp).unwrap();
        let mut jobs: Vec<(Seq, Job)> = table.jobs().filter(|(_, job)| job.type_no == no).collect();
        jobs.sort_by_key(|(born, _)| *born);
        for (born, job) in jobs {
            assert_eq!(table.job(born), table.job_of(no, born));
            writeln!(shown, "{:?}, held {}", job.min_version().map(|min| &min.label), table.is_held(&job)).unwrap();
            let (restated, names) = (job.restate(born), job.names());
            writeln!(
                shown,
                "{restated:?} {names:?} {:?} {} {} {}",
                job.priority, job.max_attempts, job.named, job.tenant
            )
            .unwrap();
            if job.named {
                let (id, key) = (format!("id-{born}"), format!("key-{born}"));
                let newest = |seqs: Vec<Seq>| seqs.into_iter().max();
                let ids = table.ids().unwrap();
                assert_eq!(newest(ids.by_id(no, &id)), Some(job.home.seq), "a live job's id leads to its home");
                assert_eq!(newest(ids.by_key(no, &key)), Some(job.home.seq), "and so does its key");
            }
        }
    }
    writeln!(shown, "{:?} {:?} {}", table.next_moment(), table.oldest_dead(), table.live_jobs()).unwrap();
    shown
}

/// What stands in the queue of a type, and what is held: each ready job is one of both.
fn served_and_held(table: &mut Table, type_no: u32, next: Seq) -> (Vec<Seq>, Vec<Seq>) {
    let mut ready: Vec<(Seq, Job)> =
        table.jobs().filter(|(_, job)| job.type_no == type_no && job.state == State::Ready).collect();
    ready.sort_unstable_by_key(|(born, _)| *born);
    let route = table.worker_type(type_no).unwrap().route;
    let (may, not): (Vec<_>, Vec<_>) = ready.into_iter().partition(|(_, job)| table.may_run(job, route));
    let mut served = Vec::new();
    while let Some(born) = table.pick(type_no) {
        let fence = Fence { epoch: 9, counter: born };
        let reserved = Reserved { born, fence, version_no: NO_VERSION, at: 1 };
        table.apply(next + served.len() as u64, place(1), &Event::Reserved(reserved)).unwrap();
        served.push(born);
    }
    served.sort_unstable();
    assert_eq!(served, may.into_iter().map(|(born, _)| born).collect::<Vec<_>>(), "what may run is served");
    let held: Vec<Seq> = not.into_iter().map(|(born, _)| born).collect();
    assert_eq!(table.worker_type(type_no).unwrap().held(), held.len() as u64);
    (served, held)
}

fn replay(records: &[(Seq, u8, u8, Vec<u8>)], now: UnixMs) -> Table {
    let mut table = Table::to_replay(LOG_ID);
    let mut names = IdIndex::new(IdMaker::new(LOG_ID));
    // The first half was there when the log was opened; the second comes while the names of the first are gathered.
    let (before, since) = records.split_at(records.len() / 2);
    for record in before {
        apply(&mut table, record).unwrap();
        names.note_record(record.0, record.1, record.2, &record.3);
    }
    table.gather_names();
    since.iter().for_each(|record| apply(&mut table, record).unwrap());
    assert!(table.ids().is_none());
    table.names_gathered(Ok(names));
    table.ripen(now);
    table
}

/// The table as a checkpoint gives it back.
fn from_blocks(table: &Table) -> Table {
    let mut again = Table::to_replay(LOG_ID);
    for block in table.picture().blocks() {
        again.load(&block).unwrap();
    }
    again.gather_names();
    let (mut names, mut part) = (IdIndex::new(IdMaker::new(LOG_ID)), 0);
    while let Some((block, next)) = table.ids().unwrap().block(part, 1 << 18) {
        names.load(&block).unwrap();
        part = next;
    }
    again.names_gathered(Ok(names));
    again
}

#[test]
fn any_bytes_are_a_block_or_refused() {
    let mut life = Life::new();
    let jobs = if cfg!(miri) { 60 } else { 600 };
    (0..jobs).for_each(|n| life.enqueue(1 + n % 2, 5, 0, u64::from(n % 3), n % 2 == 0));
    let blocks: Vec<Vec<u8>> = life.table.picture().blocks().collect();
    let seed = fastrand::u64(..);
    eprintln!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..if cfg!(miri) { 4 } else { 2000 } {
        let mut table = Table::new(LOG_ID);
        for block in &blocks {
            let mut block = block.clone();
            if random.bool() {
                // What a chunk holds is believed, since the file's checksum was seen to; its shape is not.
                let at = random.usize(..block.len());
                if block[0] != 2 {
                    block[at] = random.u8(..);
                }
                block.truncate(block.len() - random.usize(..3).min(block.len() - 1));
            }
            if table.load(&block).is_err() {
                break;
            }
        }
    }
}

/// What happens in a life, at most: under Miri each step takes a while.
const STEPS: usize = if cfg!(miri) { 16 } else { 120 };

proptest! {
    #[test]
    fn a_replay_gives_the_same_state_from_the_start_and_from_a_head(
        steps in prop::collection::vec((0_u8..30, 0_u8..10, 0_u64..5_000, any::<prop::sample::Index>()), 1..STEPS),
        restate_at in any::<prop::sample::Index>(),
    ) {
        let mut life = Life::new();
        let mut head = 0;
        let restate_at = restate_at.index(steps.len());
        for (number, (what, priority, amount, which)) in steps.into_iter().enumerate() {
            life.now += 700;
            life.table.ripen(life.now);
            match what {
                0..=2 => {
                    let delay = if what == 1 { amount } else { 0 };
                    let expires = if priority > 7 { amount + 1 } else { 0 };
                    life.enqueue(1 + u32::from(what % 2), priority, delay, expires, priority % 2 == 0);
                }
                14 => {
                    life.needs = Some(LABELS[usize::try_from(amount % 4).unwrap()]);
                    let delay = if priority > 6 { amount } else { 0 };
                    life.enqueue(1 + u32::from(priority % 2), priority, delay, amount % 3 * 2_000, priority % 3 == 0);
                    life.needs = None;
                }
                15 | 16 => {
                    let (type_no, label) = (1 + u32::from(priority % 2), LABELS[usize::try_from(amount % 4).unwrap()]);
                    let versions = life.versions();
                    let same = |(of, _, known): &(u32, u32, Label)| *of == type_no && known.as_str() == label;
                    let of_type: Vec<u32> =
                        versions.iter().filter(|(of, ..)| *of == type_no).map(|(_, no, _)| *no).collect();
                    if what == 15 && !versions.iter().any(same) {
                        life.accept(type_no, label);
                    } else if !of_type.is_empty() {
                        let to = if priority == 9 { 0 } else { of_type[which.index(of_type.len())] };
                        life.route(type_no, to);
                    }
                }
                13 if amount % 2 == 0 => {
                    let paused = Paused { type_no: 1 + u32::from(priority % 2), since: amount, at: life.now };
                    life.put(&Event::Paused(paused)).unwrap();
                }
                13 => {
                    let (type_no, version_no) = (1 + u32::from(priority % 2), u32::from(priority / 2));
                    let percent = priority * 10;
                    let ramp = Ramped { type_no, version_no, percent, salt: amount, paused: percent > 50, previous: 3, at: life.now };
                    life.put(&Event::Ramped(ramp)).unwrap();
                    life.put(&Event::Routed(Routed { type_no, version_no, at: life.now })).unwrap();
                }
                _ => {
                    let live = life.live();
                    if !live.is_empty() {
                        life.try_change(live[which.index(live.len())], what, amount);
                    }
                }
            }
            if number == restate_at {
                let before = snapshot(&life.table);
                head = life.restate_all();
                prop_assert_eq!(before, snapshot(&life.table), "to restate changes nothing");
            }
        }
        life.table.ripen(life.now);
        let lived = snapshot(&life.table);
        prop_assert_eq!(&lived, &snapshot(&replay(&life.log.0, life.now)));
        prop_assert_eq!(&lived, &snapshot(&replay(&life.log.0[head..], life.now)));
        let mut again = from_blocks(&life.table);
        prop_assert_eq!(&lived, &snapshot(&again));
        for (type_no, _) in (1..).zip(TYPES) {
            let next = life.next;
            prop_assert_eq!(served_and_held(&mut again, type_no, next), served_and_held(&mut life.table, type_no, next));
        }
    }
}

#[test]
fn the_end_of_a_process_gives_its_jobs_back_three_times_at_most() {
    let mut life = Life::new();
    life.enqueue(1, 5, 0, 0, false);
    let born = life.live()[0];
    for epoch in 1..=3 {
        let fence = Fence { epoch, counter: 1 };
        life.put(&Event::Reserved(Reserved { born, fence, version_no: 1, at: life.now })).unwrap();
        // Its own, or its helper's beside it: both count.
        if epoch == 2 {
            let released = Released { born, at: life.now, release: Release::HostDeath { ready_ms: 0 }, worker: 0 };
            life.put(&Event::Released(released, b"")).unwrap();
        } else {
            assert_eq!(life.table.dying(), if epoch < 3 { vec![] } else { vec![born] });
            let opened = crate::job::event::Opened { epoch: epoch + 1, at: life.now };
            life.put(&Event::Opened(opened)).unwrap();
        }
        let state = life.table.job(born).unwrap().state;
        assert_eq!(state, if epoch < 3 { State::Ready } else { State::Dead });
    }
    assert_eq!((life.table.dying(), life.table.job(born).unwrap().attempts), (vec![], 0));
}

/// That a time has come is no record: one process sees it and leaves a checkpoint, the next reads the log alone, has its wall
/// clock an hour behind, and records what it finds. The third reads both.
#[test]
fn what_is_recorded_of_a_delayed_job_fits_a_checkpoint_that_saw_it_ready() {
    let mut recorded = BTreeSet::new();
    // One that expires has a state of its own; a fresh one lies among all that are not due.
    for (what, expires) in (0..14).flat_map(|what| [(what, 0), (what, 90_000)]) {
        let mut life = Life::new();
        life.enqueue(1, 5, 60_000, expires, false);
        let born = life.live()[0];
        let mut ripe = from_blocks(&life.table);
        ripe.ripen(life.now + 60_000);
        let from = life.log.0.len();
        if what < 13 {
            life.try_change(born, what, 1);
        } else {
            life.restate_all();
        }
        for record in &life.log.0[from..] {
            apply(&mut ripe, record).unwrap();
            recorded.insert(record.1);
        }
        [&mut life.table, &mut ripe].into_iter().for_each(|table| table.ripen(life.now + 60_000));
        assert_eq!(snapshot(&life.table), snapshot(&ripe), "{what}, {expires}");
    }
    let of_a_job = [Kind::Reserved, Kind::Ended, Kind::Failed, Kind::Redriven, Kind::Restated];
    assert!(of_a_job.iter().all(|kind| recorded.contains(&(*kind as u8))), "{recorded:?}");
}

/// Q11: what waits for years is kept as small as what waits for a worker, and comes in its order.
#[test]
fn q11_jobs_of_the_far_future_take_little_and_come_when_they_are_due() {
    const TEN_YEARS: u64 = 10 * 365 * 86_400_000;
    let mut life = Life::new();
    let mut random = fastrand::Rng::with_seed(11);
    let jobs = if cfg!(miri) { 300 } else { 3_000 };
    for _ in 0..jobs {
        life.now += random.u64(0..3);
        life.enqueue(1 + random.u32(0..2), random.u8(0..10), random.u64(1..TEN_YEARS), 0, random.bool());
    }
    // The end of time is as good as any other.
    life.now += 1;
    let last = u64::MAX - life.now;
    life.enqueue(1, 5, last, 0, false);
    assert_eq!((life.table.noted.len(), life.table.live_jobs()), (0, jobs + 1));
    let bytes: usize = life.table.picture().blocks().map(|block| block.len()).sum();
    assert!(bytes < 20 * usize::try_from(jobs).unwrap(), "{bytes} bytes of {jobs} jobs");
    assert_eq!(snapshot(&life.table), snapshot(&from_blocks(&life.table)));

    let mut due: Vec<(UnixMs, Seq)> = life.table.jobs().map(|(born, job)| (job.ready_ms, born)).collect();
    due.sort_unstable();
    for (ready_ms, born) in due.iter().step_by(if cfg!(miri) { 97 } else { 131 }) {
        assert_eq!(life.table.next_moment().min(Some(*ready_ms)), life.table.next_moment());
        life.table.ripen(ready_ms - 1);
        assert_eq!(life.table.job(*born).unwrap().state, State::Delayed);
        life.table.ripen(*ready_ms);
        assert_eq!(life.table.job(*born).unwrap().state, State::Ready);
        let ready: u64 = life.table.types().map(|(_, of_type)| of_type.queue.len()).sum();
        assert_eq!(ready, due.iter().filter(|(other, _)| other <= ready_ms).count() as u64);
    }
    life.table.ripen(u64::MAX);
    assert_eq!((life.table.next_moment(), life.table.noted.len()), (None, 0));
}
