//! The producers of a campaign: each pushes one request after the other, and repeats what got no answer.
//!
//! Untidy on purpose: single jobs and bulks, ids, keys and neither, small and large payloads, all priorities, delays.
//! Every push is noted before it is sent, and every answer after it came.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::history::{Event, History};
use crate::support::LATER;
use crate::support::wait::until;
use crate::wire::{Answer, connect, get};
use crate::workers::{DOABLE, TYPES};

/// How many there are.
pub(crate) const PRODUCERS: usize = 3;
/// Jobs that may live before producers hold back.
const BACKLOG_MAX: u64 = 400;
/// Acknowledged ids that wait to be looked up.
const SAMPLE_MAX: usize = 256;

/// What producers, the watcher and the campaign share.
pub(crate) struct Shared {
    pub(crate) port: u16,
    pub(crate) history: History,
    /// No new pushes are begun; what has no answer yet is repeated until it has one.
    pub(crate) stop: AtomicBool,
    /// The watcher ends.
    pub(crate) watched: AtomicBool,
    /// No new pushes are begun for now.
    pub(crate) quiet: AtomicBool,
    hold: AtomicBool,
    jobs: Jobs,
    /// The first push that each producer wants an answer to; 0: none.
    pending: [AtomicU64; PRODUCERS],
    next: AtomicU64,
    sample: Mutex<Vec<String>>,
    /// Numbers of versions that did the work of all types, the newest last: a job may need one of them.
    served: Mutex<Vec<u32>>,
    /// The most jobs that were seen to wait for a version.
    pub(crate) parked: AtomicU64,
    /// The most segments that the head was seen to have passed.
    pub(crate) cleaned: AtomicU64,
    /// Connections that were refused, and answers that did not come.
    pub(crate) refused: AtomicU64,
    pub(crate) unknown: AtomicU64,
}

/// What a campaign pushes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Jobs {
    /// Everything that runs may come to, large payloads, delays.
    Untidy,
    /// Small jobs that any good version does in the end, and that die if a bad one is let near them.
    Doable,
    /// As these, with attempts enough for workers that are killed.
    Patient,
}

impl Shared {
    pub(crate) fn new(port: u16, history: History, jobs: Jobs) -> Self {
        Self {
            port,
            history,
            jobs,
            stop: AtomicBool::new(false),
            watched: AtomicBool::new(false),
            quiet: AtomicBool::new(false),
            hold: AtomicBool::new(false),
            pending: [const { AtomicU64::new(0) }; PRODUCERS],
            next: AtomicU64::new(1),
            sample: Mutex::default(),
            served: Mutex::default(),
            parked: AtomicU64::new(0),
            cleaned: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
        }
    }
}

/// A job on its way in.
struct Wanted {
    n: u64,
    named: bool,
    /// The number of the version that it needs, if it needs one.
    needs: Option<u32>,
    job: Value,
}

impl Shared {
    /// This version does the work of all types.
    pub(crate) fn serves(&self, version: u32) {
        self.served.lock().unwrap().push(version);
    }

    /// A version that a job may need: one of the last that did the work of all types, so that it is often there, and often
    /// gone back from.
    fn may_need(&self, random: &mut fastrand::Rng) -> Option<u32> {
        let served = self.served.lock().unwrap();
        let last = served.len().saturating_sub(4);
        if served.is_empty() || random.u8(..3) > 0 { None } else { Some(served[random.usize(last..served.len())]) }
    }

    /// Waits until everything that is pushed now has its answer. A name is remembered for as long as the log reaches back:
    /// who repeats a push over too many lives cannot know whether it is the same job.
    pub(crate) fn catch_up(&self) {
        let before: Vec<u64> = self.pending.iter().map(|push| push.load(Ordering::Relaxed)).collect();
        until("answers to pushes", LATER, || {
            let mut both = self.pending.iter().zip(&before);
            let open = both.any(|(now, before)| *before != 0 && now.load(Ordering::Relaxed) == *before);
            if open { Err(format!("{before:?} have none")) } else { Ok(()) }
        });
    }
}

/// Pushes until it is told to stop and everything has an answer.
pub(crate) fn produce(shared: &Shared, lane: usize, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut wanted: Vec<Wanted> = Vec::new();
    loop {
        // The first of them stays the first for as long as any is without an answer, whichever of them it is.
        if wanted.is_empty() {
            shared.pending[lane].store(0, Ordering::Relaxed);
            if shared.stop.load(Ordering::Relaxed) {
                return;
            }
            if shared.hold.load(Ordering::Relaxed) || shared.quiet.load(Ordering::Relaxed) {
                rest(10);
                continue;
            }
            wanted = some(shared, &mut random);
            shared.pending[lane].store(wanted[0].n, Ordering::Relaxed);
        }
        let Ok(line) = connect(shared.port) else {
            shared.refused.fetch_add(1, Ordering::Relaxed);
            rest(2);
            continue;
        };
        let pushes: Vec<Event> = wanted.iter().flat_map(pushed).collect();
        shared.history.add_all(&pushes);
        let jobs: Vec<Value> = wanted.iter().map(|one| one.job.clone()).collect();
        let answers = line.push(&jobs);
        let noted: Vec<Event> = wanted.iter().zip(&answers).map(|(one, answer)| noted(one.n, answer)).collect();
        shared.history.add_all(&noted);
        let unknown = answers.iter().filter(|answer| **answer == Answer::Unknown).count();
        shared.unknown.fetch_add(unknown as u64, Ordering::Relaxed);
        note_sample(shared, &mut random, &answers);
        let unanswered = wanted.into_iter().zip(answers);
        wanted = unanswered.filter(|(_, answer)| !matches!(answer, Answer::Yes(_))).map(|(one, _)| one).collect();
    }
}

fn pushed(one: &Wanted) -> impl Iterator<Item = Event> {
    let needs = one.needs.map(|version| Event::Needs { n: one.n, version });
    std::iter::once(Event::Push { n: one.n, named: one.named }).chain(needs)
}

fn noted(n: u64, answer: &Answer) -> Event {
    match answer {
        Answer::Yes(id) => Event::Acked { n, id: id.clone() },
        // Everything that is pushed here is in order: only want of room may be a reason for a no.
        Answer::No(429 | 507, _) => Event::Refused { n },
        Answer::No(status, code) => panic!("push {n} was refused: {status} {code}"),
        Answer::Unknown => Event::Unknown { n },
    }
}

fn note_sample(shared: &Shared, random: &mut fastrand::Rng, answers: &[Answer]) {
    let mut sample = shared.sample.lock().unwrap();
    for answer in answers {
        if let Answer::Yes(id) = answer {
            if sample.len() < SAMPLE_MAX {
                sample.push(id.clone());
            } else if random.u8(..8) == 0 {
                let at = random.usize(..sample.len());
                sample[at].clone_from(id);
            }
        }
    }
}

/// One job, or a bulk.
fn some(shared: &Shared, random: &mut fastrand::Rng) -> Vec<Wanted> {
    let many = [1, 1, 1, 2, 10, 40];
    let many = many[random.usize(..many.len())];
    let number = || shared.next.fetch_add(1, Ordering::Relaxed);
    match shared.jobs {
        Jobs::Untidy => (0..many).map(|_| one(number(), random)).collect(),
        Jobs::Doable | Jobs::Patient => (0..many).map(|_| doable(shared, number(), random)).collect(),
    }
}

/// A job that a good version does.
fn doable(shared: &Shared, n: u64, random: &mut fastrand::Rng) -> Wanted {
    let (worker_type, whats) = DOABLE[random.usize(..DOABLE.len())];
    let what = whats[random.usize(..whats.len())];
    let mut job = json!({
        "type": worker_type,
        "task": format!("{n} {what}"),
        "payload": {"n": n, "pad": "x".repeat(random.usize(..100))},
        "priority": random.u8(..9),
    });
    let members = job.as_object_mut().unwrap();
    if random.u8(..4) == 0 {
        members.insert("tenant".to_owned(), format!("t{}", random.u8(..40)).into());
    }
    let needs = shared.may_need(random);
    if let Some(version) = needs {
        // If no other version that runs is new enough, nobody makes up for a bad one: it needs attempts enough.
        members.insert("min_version".to_owned(), format!("v{version}").into());
    } else if shared.jobs == Jobs::Doable {
        // Whoever fails once by itself needs one attempt more.
        let least = if matches!(what, "fail" | "crash") { 2 } else { 1 };
        members.insert("max_attempts".to_owned(), random.u8(least..4).into());
    }
    let named = random.bool();
    if named {
        members.insert("id".to_owned(), format!("name-{n}").into());
    }
    Wanted { n, named, needs, job }
}

fn one(n: u64, random: &mut fastrand::Rng) -> Wanted {
    // Large ones go first and are soon through, so that the log moves on while little lives.
    let large = random.u8(..5) == 0;
    let (worker_type, whats) = TYPES[match (large, random.u8(..100)) {
        (false, 0) => 2,
        (false, 1..60) => 1,
        _ => 0,
    }];
    let what = if large { "ok" } else { whats[random.usize(..whats.len())] };
    let most = if large { 900_000 } else { [0, 10, 100, 1000, 5000][random.usize(..5)] };
    let mut job = json!({
        "type": worker_type,
        "task": format!("{n} {what}"),
        "payload": {"n": n, "pad": "x".repeat(random.usize(..=most))},
    });
    let members = job.as_object_mut().unwrap();
    if large || random.bool() {
        members.insert("priority".to_owned(), if large { 9 } else { random.u8(..9) }.into());
    }
    if random.u8(..4) == 0 {
        members.insert("tenant".to_owned(), ["é", "a b", "\u{1F41D}", "t"][random.usize(..4)].into());
    }
    if !large && random.u8(..8) == 0 {
        members.insert("delay".to_owned(), format!("{}ms", random.u16(1..200)).into());
    }
    let name = match random.u8(..4) {
        0 => Some("id"),
        1 => Some("idempotency_key"),
        _ => None,
    };
    if let Some(name) = name {
        members.insert(name.to_owned(), format!("name-{n}").into());
    }
    Wanted { n, named: name.is_some(), needs: None, job }
}

/// Looks again and again at how many jobs live, and whether what was acknowledged is completed by now.
pub(crate) fn watch(shared: &Shared, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    while !shared.watched.load(Ordering::Relaxed) {
        if let Some(seen) = get(shared.port, "/v1/ecosystem") {
            let live: u64 = seen["types"].as_array().unwrap().iter().map(alive).sum();
            shared.hold.store(live > BACKLOG_MAX, Ordering::Relaxed);
            let parked = seen["types"].as_array().unwrap().iter().filter_map(|of_type| of_type["parked"].as_u64());
            shared.parked.fetch_max(parked.sum(), Ordering::Relaxed);
            let head = seen["log"]["head_segment"].as_u64().unwrap();
            shared.cleaned.fetch_max(head - 1, Ordering::Relaxed);
        }
        for _ in 0..8 {
            look_up(shared, &mut random);
        }
        rest(10);
    }
}

fn look_up(shared: &Shared, random: &mut fastrand::Rng) {
    let picked = {
        let sample = shared.sample.lock().unwrap();
        if sample.is_empty() { return } else { sample[random.usize(..sample.len())].clone() }
    };
    let Some(job) = get(shared.port, &format!("/v1/jobs/{picked}")) else { return };
    if job["state"] == "completed" {
        shared.history.add(&Event::Done { id: picked.clone() });
        shared.sample.lock().unwrap().retain(|id| *id != picked);
    }
}

/// Jobs of a type that are not finished.
pub(crate) fn alive(of_type: &Value) -> u64 {
    ["ready", "delayed", "reserved", "parked", "dead"].iter().map(|state| of_type[state].as_u64().unwrap()).sum()
}

/// Lets so many milliseconds pass.
pub(crate) fn rest(ms: u64) {
    let end = crate::support::wait::now() + Duration::from_millis(ms);
    until("a moment", Duration::from_secs(60), || {
        if crate::support::wait::now() >= end { Ok(()) } else { Err(String::new()) }
    });
}
