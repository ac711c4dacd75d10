//! D1 for a program that embeds the library: native workers, pushes in process, killed again and again.
//!
//! The test starts itself as the host: a process of its own that opens the engine, pushes, and runs what is pushed, all
//! of it noted in the history. It is much faster than HTTP and child processes, so the log turns over many times.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use biotope::clock::RealClock;
use biotope::engine::view::{EcosystemView, JobFilter, JobView, TypeView};
use biotope::engine::{Engine, Handle, JobAction};
use biotope::job::new::NewJob;
use biotope::worker::native::{Context, Failure, Natives, Raw};

use crate::checker::check;
use crate::ground::history_dir;
use crate::history::{Event, Fault, History, How};
use crate::kills::{number, seed};
use crate::producer::rest;
use crate::support::wait::until;
use crate::support::{Home, LATER, tell};

const NAME: &str = "native::d1_a_killed_host_of_native_workers_loses_nothing_acknowledged";
/// Jobs that may wait or run before the producers hold back.
const BACKLOG_MAX: u64 = 300;
/// Numbers of pushes that one life may take.
const LIFE: u64 = 1 << 32;

#[test]
fn d1_a_killed_host_of_native_workers_loses_nothing_acknowledged() {
    if let Some(config) = std::env::var_os("TORTURE_HOST") {
        return host(Path::new(&config));
    }
    let mut random = fastrand::Rng::with_seed(seed());
    let kills = number("TORTURE_NATIVE_KILLS", 20, 1000);
    let mut left = kills;
    while left > 0 {
        let lives = left.min(50);
        campaign(&mut random, lives);
        left -= lives;
    }
}

fn campaign(random: &mut fastrand::Rng, lives: u64) {
    let home = Home::bare();
    home.configure_with(
        "[log]\nsegment = \"8MiB\"\nretain = \"0B\"",
        "[workers.native]\nversion = \"v1\"\nconcurrency = 2\nbatch = 16\nmax_attempts = 1000\n\
         backoff = { first = \"5ms\", factor = 2, max = \"20ms\" }",
    );
    let dir = history_dir();
    let history = History::new(dir.path());
    let start = |life: u64| {
        let mut host = Command::new(std::env::current_exe().unwrap());
        host.args([NAME, "--exact", "--nocapture"]).stdin(Stdio::null());
        host.env("TORTURE_HOST", home.path("biotope.toml")).env("TORTURE_LIFE", life.to_string());
        host.env("TORTURE_HISTORY", history.path()).env("RUST_BACKTRACE", "0");
        let said = std::fs::File::create(home.path("stderr.txt")).unwrap();
        host.stdout(said.try_clone().unwrap()).stderr(said).spawn().unwrap()
    };
    let acked = || std::fs::read_to_string(history.path()).unwrap().matches("\"ev\":\"acked\"").count();
    for life in 1..=lives {
        let before = acked();
        let mut host = start(life);
        // However slow all is, some lives are long enough for something to be done.
        if life % 5 == 0 {
            until("an answer", LATER, || if acked() > before { Ok(()) } else { Err(home.text("stderr.txt")) });
        }
        rest(if random.u8(..4) > 0 { random.u64(10..150) } else { random.u64(..500) });
        let ended = host.try_wait().unwrap();
        assert!(ended.is_none(), "life {life} ended by itself: {}", home.text("stderr.txt"));
        host.kill().unwrap();
        host.wait().unwrap();
        history.add(&Event::Gone { by: Fault::Kill });
    }
    // The last life pushes nothing, drains, and stops in good order.
    let mut host = start(0);
    let status =
        until("the end of the host", LATER, || host.try_wait().unwrap().ok_or_else(|| home.text("stderr.txt")));
    assert!(status.success(), "{}", home.text("stderr.txt"));

    let events = history.events();
    match check(&events) {
        Ok(figures) => {
            tell(&format!(
                "native: {figures:?}, {}",
                home.text("stderr.txt").lines().find(|line| line.contains("cleaned")).unwrap()
            ));
            // Few, where much else runs: a life may be over before it has pushed anything.
            assert!(figures.acked > lives * 2, "too little was going on: {figures:?}");
        }
        Err(violations) => {
            let first: Vec<String> = violations.iter().take(20).map(ToString::to_string).collect();
            panic!("{} violations:\n{}", violations.len(), first.join("\n"));
        }
    }
}

/// The host's life: with a number, it pushes until it is killed; without, it drains and stops.
fn host(config: &Path) {
    let history = Arc::new(History::join(Path::new(&std::env::var_os("TORTURE_HISTORY").unwrap())));
    let life: u64 = std::env::var("TORTURE_LIFE").unwrap().parse().unwrap();
    let mut natives = Natives::new();
    let noted = Arc::clone(&history);
    natives
        .register_fn("native", "1", move |payload: Raw, context: &mut Context<'_>| run(&noted, &payload, context))
        .unwrap();
    let spec = biotope::generation::load(config, &natives).unwrap();
    let (handle, _) = Engine::open(spec, RealClock::shared()).unwrap();
    history.add(&Event::Up);
    if life == 0 {
        drain(&handle, &history);
        handle.stop_and_wait();
        return;
    }
    let next = AtomicU64::new(life * LIFE);
    std::thread::scope(|scope| {
        for lane in 0..3 {
            let (handle, history, next) = (&handle, &history, &next);
            scope.spawn(move || produce(handle, history, next, life * 7 + lane));
        }
    });
}

/// Pushes for ever.
fn produce(handle: &Handle, history: &History, next: &AtomicU64, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    loop {
        // The dead stay until the end: with them the producers would hold back for good where much is done.
        if ecosystem(handle).types.iter().map(|of_type| alive(of_type) - of_type.dead).sum::<u64>() > BACKLOG_MAX {
            rest(1);
            continue;
        }
        let many = random.u64(1..=60);
        let numbers: Vec<u64> = (0..many).map(|_| next.fetch_add(1, Ordering::Relaxed)).collect();
        let jobs: Vec<NewJob> = numbers.iter().map(|n| job(*n, &mut random)).collect();
        let push = |(n, job): (&u64, &NewJob)| Event::Push { n: *n, named: job.id.is_some() };
        history.add_all(&numbers.iter().zip(&jobs).map(push).collect::<Vec<_>>());
        let answers = handle.push_many(jobs);
        let noted = numbers.iter().zip(answers).map(|(n, answer)| match answer {
            Ok(pushed) => Event::Acked { n: *n, id: pushed.id },
            Err(refusal) => panic!("push {n} was refused: {refusal}"),
        });
        history.add_all(&noted.collect::<Vec<_>>());
    }
}

fn job(n: u64, random: &mut fastrand::Rng) -> NewJob {
    let what = ["ok", "ok", "ok", "ok", "ok", "ok", "fail", "defer", "panic", "dead"][random.usize(..10)];
    let most = [0, 50, 500, 200_000][random.usize(..4)];
    let mut job = NewJob::new("native".parse().unwrap(), payload(n, random.usize(..=most)));
    job.task = format!("{n} {what}");
    if random.bool() {
        job.id = Some(format!("name-{n}").parse().unwrap());
    }
    job
}

fn payload(n: u64, pad: usize) -> String {
    format!("{{\"n\":{n},\"pad\":\"{}\"}}", "x".repeat(pad))
}

fn run(history: &History, given: &[u8], job: &Context<'_>) -> Result<(), Failure> {
    let (n, what) = job.task().split_once(' ').unwrap();
    let n = n.parse().unwrap();
    let (id, fence) = (job.id().to_owned(), job.fence());
    history.add(&Event::Begin { n, id: id.clone(), attempt: job.attempt(), fence, at: 0 });
    let end = |how| history.add(&Event::End { n, id: id.clone(), fence, how });
    let error = "as told";
    if *given != *payload(n, given.len() - payload(n, 0).len()).as_bytes() {
        end(How::Wrong);
    } else if what == "fail" && job.attempt() == 1 {
        end(How::Fail);
        return Err(error.into());
    } else if what == "panic" && job.attempt() == 1 {
        end(How::Crash);
        panic!("as told");
    } else if what == "defer" && fence % 2 == 1 {
        end(How::Defer);
        return Err(Failure::retry_after(Duration::from_millis(1), error));
    } else if what == "dead" {
        end(How::Dead);
        return Err(Failure::dead(error));
    } else {
        end(How::Ok);
    }
    Ok(())
}

/// Waits until nothing lives, decides on the dead, and notes that it is so.
fn drain(handle: &Handle, history: &History) {
    let view = until("an empty queue", LATER, || {
        let (to, answers) = crossbeam_channel::unbounded();
        for dead in dead(handle) {
            let id = dead.id.clone();
            let (event, action) = if dead.host_deaths >= 3 {
                (Event::Redriven { id }, JobAction::Retry)
            } else {
                (Event::Discarded { id }, JobAction::Discard)
            };
            history.add(&event);
            let to = to.clone();
            handle.act(&dead.id, action, Box::new(move |done| to.send(done).unwrap()));
        }
        drop(to);
        // A job with a chosen id is looked up first: asked again meanwhile, it would be decided on twice.
        answers.iter().for_each(|done| done.map(drop).unwrap());
        let view = ecosystem(handle);
        if view.types.iter().all(|of_type| alive(of_type) == 0) { Ok(view) } else { Err(format!("{view:?}")) }
    });
    tell(&format!("{} segments cleaned, {} written", view.log.head_segment - 1, view.log.active_segment));
    history.add(&Event::Drained { completed: view.types.iter().map(|of_type| of_type.completed).sum() });
}

/// All dead jobs, page by page.
fn dead(handle: &Handle) -> Vec<JobView> {
    let mut filter = JobFilter { state: Some("dead".to_owned()), limit: 1000, ..JobFilter::default() };
    let mut dead = Vec::new();
    loop {
        let page = handle.jobs(&filter).unwrap();
        dead.extend(page.jobs);
        filter.cursor = page.next_cursor;
        if filter.cursor.is_none() {
            return dead;
        }
    }
}

fn alive(of_type: &TypeView) -> u64 {
    of_type.ready + of_type.delayed + of_type.reserved + of_type.parked + of_type.dead
}

fn ecosystem(handle: &Handle) -> EcosystemView {
    let (to, from) = crossbeam_channel::bounded(1);
    handle.ecosystem(Box::new(move |view| to.send(view).unwrap()));
    from.recv().unwrap().unwrap()
}
