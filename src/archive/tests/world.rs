//! A log with jobs that come and go at random, and a plain list of those that ended.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;

use crate::archive::{Archive, ArchiveOptions, Ask, History, plain};
use crate::clock::{Clock, RealClock};
use crate::job::event::{
    After, End, Ended, Enqueued, Event, Failed, Failure, GivenBack, Home, Names, Redriven, Restated,
};
use crate::job::transition::State;
use crate::log::disk::RealDisk;
use crate::log::{Log, LogOptions, Making, Reader, recovery};
use crate::types::{Fence, Priority, Seq, UnixMs};

const OPTIONS: LogOptions = LogOptions {
    segment_bytes: 256 << 10,
    frame_bytes_full: 64 << 10,
    frame_bytes_max: 128 << 10,
    making: Making::Thread,
};
/// Small enough that a few thousand jobs fill several directories.
pub(super) const SMALL: ArchiveOptions =
    ArchiveOptions { slice_keys: 300, batch: 500, bytes_max: 1 << 40, free_min: 0, nice: 0 };
pub(super) const TENANTS: [&str; 3] = ["acme", "Zürich", "t3"];
pub(super) const ERRORS: [&str; 4] = ["connection refused", "No such\n\tfile: ÄRGER", "exit 3", "timed out after 5s"];
pub(super) const ENDS: [End; 4] = [End::Completed, End::Cancelled, End::Expired, End::Discarded];

/// A clock that runs: each look of the index's thread at it is some time later, so that what is due is not waited for.
#[derive(Default)]
pub(super) struct RunningClock(AtomicU64);

impl Clock for RunningClock {
    fn wall_ms(&self) -> UnixMs {
        self.0.load(Ordering::Relaxed)
    }

    fn mono(&self) -> Duration {
        let later = if std::thread::current().name() == Some("history") { 300 } else { 0 };
        Duration::from_millis(self.0.fetch_add(later, Ordering::Relaxed))
    }
}

/// Asks again and again, for two minutes at most.
pub(super) fn until<T>(index: &Archive, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = RealClock.mono() + Duration::from_secs(120);
    loop {
        index.shown();
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(RealClock.mono() < end, "no answer: {:?}, covered: {:?}", index.standing(), index.covered());
        // The index's thread tells nobody when it is through.
        let _: Result<_, _> = crossbeam_channel::after(Duration::from_millis(2)).recv();
    }
}

/// A live job.
#[derive(Debug, Clone)]
struct Live {
    type_no: u32,
    tenant: Option<&'static str>,
    home: Home,
    attempts: u16,
    failures: Vec<(Seq, String)>,
}

/// An ended one.
#[derive(Debug, Clone)]
pub(super) struct Gone {
    pub(super) seq: Seq,
    pub(super) born: Seq,
    type_no: u32,
    end: End,
    at: UnixMs,
    home: Seq,
    tenant: Option<&'static str>,
    failures: Vec<(Seq, String)>,
}

pub(super) struct World {
    pub(super) log: Log,
    pub(super) ended: Vec<Gone>,
    live: BTreeMap<Seq, Live>,
    now: UnixMs,
}

impl World {
    pub(super) fn open(dir: &Path, log_id: [u8; 16]) -> Self {
        let disk = Arc::new(RealDisk::open(dir).unwrap());
        let opened = recovery::open(disk, OPTIONS, log_id, &mut |_, _| Ok(())).unwrap();
        Self { log: opened.log, ended: Vec::new(), live: BTreeMap::new(), now: 1_000_000 }
    }

    pub(super) fn reader(&self) -> Reader {
        self.log.reader()
    }

    pub(super) fn index(&self, dir: &Path, options: ArchiveOptions) -> Archive {
        let clock = Arc::new(RunningClock::default());
        Archive::start(dir.to_path_buf(), self.reader(), clock, options).unwrap()
    }

    fn put(&mut self, event: &Event<'_>) -> Home {
        if !self.log.has_room(1, event.bytes_max()) {
            self.commit();
            if !self.log.has_room(1, event.bytes_max()) {
                self.log.rotate().unwrap();
            }
        }
        let (seq, position) = self.log.append(event.record_kind(), false, |out| event.encode(out));
        Home::new(seq, position)
    }

    pub(super) fn commit(&mut self) {
        self.log.write().unwrap();
        self.log.sync().unwrap();
        self.log.show();
    }

    /// So many random steps; what they did can be read afterwards.
    pub(super) fn steps(&mut self, rng: &mut Rng, count: usize) {
        for _ in 0..count {
            self.now += rng.u64(0..50);
            let picked = self.live.keys().nth(rng.usize(0..self.live.len().max(1))).copied();
            match (rng.u8(0..10), picked) {
                (0..4, _) | (_, None) => self.enqueue(rng),
                (4..6, Some(born)) => self.fail(rng, born),
                (6, Some(born)) if rng.bool() => self.restate(born),
                (6, Some(born)) => drop(self.put(&Event::Redriven(Redriven { born, at: self.now }))),
                (_, Some(born)) => self.end(rng, born),
            }
            if rng.u8(0..40) == 0 {
                self.commit();
            }
        }
        self.commit();
    }

    fn enqueue(&mut self, rng: &mut Rng) {
        let tenant = rng.choice(TENANTS.iter().copied()).filter(|_| rng.bool());
        let type_no = rng.u32(1..4);
        let payload = vec![b'1'; rng.usize(1..200)];
        let name = format!("id-{}", self.now);
        let names = rng.bool().then_some(Names { id: Some(&name), key: None, digest: 7 });
        let meta = Enqueued {
            type_no,
            task: "",
            priority: Priority::default(),
            tenant,
            created_ms: self.now,
            ready_ms: 0,
            expires_ms: 0,
            max_attempts: 9,
            names,
            parent: None,
            min_version: None,
            trace: None,
        };
        let home = self.put(&Event::Enqueued(meta, &payload));
        self.live.insert(home.seq, Live { type_no, tenant, home, attempts: 0, failures: Vec::new() });
    }

    fn fail(&mut self, rng: &mut Rng, born: Seq) {
        let Some(mut live) = self.live.remove(&born) else { return };
        let error = format!("{} of {born}", ERRORS[rng.usize(0..ERRORS.len())]);
        let after = if rng.bool() { After::Dead } else { After::Retry { ready_ms: self.now } };
        let failed = Failed { born, at: self.now, type_no: live.type_no, version_no: 0, after, worker: 1 };
        let home = self.put(&Event::Failed(failed, error.as_bytes()));
        live.attempts += 1;
        live.failures.push((home.seq, error));
        self.live.insert(born, live);
    }

    fn restate(&mut self, born: Seq) {
        let Some(mut live) = self.live.remove(&born) else { return };
        let body = {
            let body = self.log.reader().look(live.home.position(), live.home.seq);
            // Not written yet: it stays where it is.
            let Ok(body) = body else { return drop(self.live.insert(born, live)) };
            body
        };
        let enqueued = if live.home.seq == born {
            body.clone()
        } else {
            match Event::decode(crate::job::event::Kind::Restated as u8, 1, &body).unwrap() {
                Event::Restated(_, enqueued) => body.slice_ref(enqueued),
                other => panic!("{other:?}"),
            }
        };
        let failures = live.failures.iter().map(|(_, error)| Failure {
            attempt: 1,
            at: self.now,
            version_no: 0,
            error: error.clone(),
            worker: 0,
        });
        let restated = Restated {
            born,
            state: State::Ready,
            attempts: live.attempts,
            given_back: GivenBack::default(),
            ready_ms: 0,
            fence: Fence::default(),
            version_no: 0,
            since_ms: 0,
            failures: failures.collect(),
        };
        live.home = self.put(&Event::Restated(restated, &enqueued));
        if let Some((_, error)) = live.failures.pop() {
            live.failures = vec![(live.home.seq, error)];
        }
        self.live.insert(born, live);
    }

    fn end(&mut self, rng: &mut Rng, born: Seq) {
        let Some(live) = self.live.remove(&born) else { return };
        let end = ENDS[rng.usize(0..4)];
        let ended = Ended {
            born,
            end,
            at: self.now,
            type_no: live.type_no,
            version_no: 0,
            attempts: live.attempts,
            given_back: GivenBack::default(),
            created_ms: 1,
            home: live.home,
            names: None,
            worker: 1,
        };
        let seq = self.put(&Event::Ended(ended, b"7")).seq;
        let (type_no, at, home, tenant) = (live.type_no, self.now, live.home.seq, live.tenant);
        self.ended.push(Gone { seq, born, type_no, end, at, home, tenant, failures: live.failures });
    }

    /// Cleans the head segment: what lives in it is restated, then the head moves.
    pub(super) fn clean(&mut self) {
        self.commit();
        let figures = self.log.figures();
        if figures.head >= figures.active {
            return;
        }
        let here = self.live.iter().filter(|(_, live)| live.home.segment == figures.head);
        for born in here.map(|(born, _)| *born).collect::<Vec<_>>() {
            self.restate(born);
        }
        self.log.move_head(figures.head + 1);
        // The next frame says so, and the one after it lets the files go.
        for _ in 0..2 {
            let now = self.now;
            self.put(&Event::Redriven(Redriven { born: 1, at: now }));
            self.commit();
        }
    }

    /// What the log has, by the plain list: seqs, newest first, with how many failures can be read.
    pub(super) fn expected(&self, ask: &Ask) -> Vec<(Seq, usize)> {
        let first = self.log.reader().first_seq();
        let wanted = self.ended.iter().rev().filter(|gone| gone.seq >= first && gone.seq < ask.before);
        let wanted = wanted.filter(|gone| {
            let error = gone.failures.last().filter(|(seq, _)| *seq >= first).map(|(_, error)| plain(error));
            ask.type_no.is_none_or(|no| no == gone.type_no)
                && ask.end.is_none_or(|end| end == gone.end)
                && ask.since.is_none_or(|since| gone.at >= since)
                && ask.tenant.as_deref().is_none_or(|tenant| gone.home >= first && gone.tenant == Some(tenant))
                && ask.error.as_deref().is_none_or(|part| error.is_some_and(|error| error.contains(part)))
        });
        let readable = |gone: &Gone| gone.failures.iter().filter(|(seq, _)| *seq >= first).count();
        wanted.map(|gone| (gone.seq, readable(gone))).collect()
    }

    /// Every filter, by itself and some together.
    pub(super) fn asks(&self) -> Vec<Ask> {
        let all = Ask { before: self.log.reader().visible_up_to(), limit: 50, ..Ask::default() };
        let mut asks = vec![all.clone()];
        asks.extend((1..5).map(|no| Ask { type_no: Some(no), ..all.clone() }));
        asks.extend(ENDS.map(|end| Ask { end: Some(end), ..all.clone() }));
        asks.extend(TENANTS.map(|tenant| Ask { tenant: Some(tenant.to_owned()), limit: 7, ..all.clone() }));
        asks.extend(ERRORS.map(|error| Ask { error: Some(plain(error)), ..all.clone() }));
        asks.push(Ask { error: Some("nothing says this".to_owned()), ..all.clone() });
        asks.push(Ask { since: Some(self.now / 2), ..all.clone() });
        asks.push(Ask { before: all.before / 2, limit: 3, ..all.clone() });
        asks.push(Ask { type_no: Some(2), end: Some(End::Completed), tenant: Some("acme".to_owned()), ..all });
        asks
    }
}

/// Everything that an index answers to a question, over all pages; waits until it has seen what is asked for.
pub(super) fn answer(index: &Archive, world: &World, ask: &Ask) -> Vec<(Seq, usize)> {
    let first = world.reader().first_seq();
    until(index, || {
        let covered = index.covered()?;
        if covered.end < ask.before || covered.start > first {
            return None;
        }
        let mut all = Vec::new();
        let mut ask = ask.clone();
        while ask.before > first {
            let page = index.ended(ask.clone())?;
            assert!(page.found.len() <= ask.limit && page.down_to < ask.before, "{page:?} for {ask:?}");
            all.extend(page.found.iter().map(|found| (found.seq, found.failures.len())));
            ask.before = page.down_to;
        }
        Some(all)
    })
}

/// An index that answers every question as the plain list does.
pub(super) fn check(index: &Archive, world: &World) {
    for ask in world.asks() {
        assert_eq!(answer(index, world, &ask), world.expected(&ask), "{ask:?}, {:?}", index.standing());
    }
    let first = world.reader().first_seq();
    for gone in world.ended.iter().step_by(17) {
        let found = until(index, || index.find(gone.born));
        assert_eq!(found.map(|found| found.seq), (gone.seq >= first).then_some(gone.seq), "{gone:?}");
    }
}
