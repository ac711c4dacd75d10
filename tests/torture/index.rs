//! D10, D17: the disk of the index of ended jobs is really full. The index is given up, jobs go on, and it heals by itself.

use std::sync::Arc;

use biotope::archive::{Archive, ArchiveOptions, History};
use biotope::clock::RealClock;
use biotope::engine::view::JobFilter;
use biotope::engine::{Engine, Handle};
use biotope::job::new::NewJob;
use biotope::worker::native::{Context, Natives, Raw};

use crate::ground::LoopDisk;
use crate::support::wait::until;
use crate::support::{Home, LATER, skipped, tell};

/// Pushes many jobs, and waits until they are done.
fn work(handle: &Handle, done: &mut usize, many: usize) {
    let jobs = (0..many).map(|_| NewJob::new("native".parse().unwrap(), "1")).collect();
    assert!(handle.push_many(jobs).iter().all(Result::is_ok));
    *done += many;
    until("all jobs done", LATER, || {
        let (to, answer) = std::sync::mpsc::channel();
        handle.ecosystem(Box::new(move |view| drop(to.send(view))));
        let completed = answer.recv().unwrap().unwrap().types[0].completed;
        if completed == *done as u64 { Ok(()) } else { Err(format!("{completed} of {done}")) }
    });
}

/// Ids of all that were completed, over all pages.
fn completed(handle: &Handle) -> Vec<String> {
    let mut filter = JobFilter { state: Some("completed".to_owned()), limit: 1000, ..JobFilter::default() };
    let mut ids = Vec::new();
    loop {
        let page = handle.jobs(&filter).unwrap();
        ids.extend(page.jobs.into_iter().map(|job| job.id));
        filter.cursor = page.next_cursor;
        if filter.cursor.is_none() {
            return ids;
        }
    }
}

#[test]
fn d10_d17_an_index_on_a_full_disk_is_given_up_and_heals_while_jobs_go_on() {
    let home = Home::bare();
    let disk = match LoopDisk::mount(&home, 64) {
        Ok(disk) => disk,
        Err(why) => return skipped("d10_d17_an_index_on_a_full_disk_is_given_up_and_heals_while_jobs_go_on", &why),
    };
    // The log has a disk of its own: what is tried here is the index alone.
    home.write("host.toml", "data_dir = \"jobs\"\n[workers.native]\nversion = \"v1\"\nbatch = 100\n");
    let mut natives = Natives::new();
    natives.register_fn("native", "1", |_: Raw, _: &mut Context<'_>| ()).unwrap();
    let spec = biotope::generation::load(&home.path("host.toml"), &natives).unwrap();
    let (handle, _) = Engine::open(spec, RealClock::shared()).unwrap();
    let options = ArchiveOptions { slice_keys: 5000, batch: 1000, free_min: 0, nice: 0, ..ArchiveOptions::default() };
    let dir = disk.place.join("history");
    let index = Arc::new(Archive::start(dir, handle.reader(), RealClock::shared(), options).unwrap());
    handle.use_history(Arc::clone(&index) as Arc<dyn History>);
    let mut done = 0;
    work(&handle, &mut done, 3000);
    let healed = |handle: &Handle| {
        until("an index that has seen everything", LATER, || {
            let standing = handle.history();
            if standing.state == "ok" && standing.behind == 0 { Ok(()) } else { Err(format!("{standing:?}")) }
        });
    };
    healed(&handle);
    assert_eq!(completed(&handle).len(), done);

    disk.fill();
    let standing = until("an index without space", LATER, || {
        work(&handle, &mut done, 2000);
        let standing = handle.history();
        if standing.state == "degraded" { Ok(standing) } else { Err(format!("{standing:?}")) }
    });
    tell(&format!("given up after {done} jobs: {standing:?}"));
    assert!(standing.reason.is_some_and(|reason| reason.contains("space")), "it says why");
    let by_the_log = completed(&handle);
    assert_eq!(by_the_log.len(), done, "the log has them all");

    disk.free();
    healed(&handle);
    assert_eq!(completed(&handle), by_the_log);
    index.stop();
    handle.stop_and_wait();
}
