//! Listings of large jobs: a page ends by its bytes, and the next one goes on where it ended.

use super::*;
use crate::archive::{Ask, EndedPage, Found, History, Standing};
use crate::engine::view::JobPage;
use crate::job::event::Kind;
use crate::limits::{LIST_BYTES_MAX, LIST_JOB_BYTES, LIST_MAX};
use crate::log::reader::Reader;
use crate::types::Seq;

/// Jobs of this many bytes, so many that they are more than one page and less than three.
const LARGE: usize = 1_000_000;
const JOBS: usize = 2 * LIST_BYTES_MAX / LARGE;

/// An index that knows of all that has ended, by reading the log.
struct Knows(Reader);

impl History for Knows {
    fn shown(&self) {}

    fn covered(&self) -> Option<std::ops::Range<Seq>> {
        Some(self.0.first_seq()..self.0.visible_up_to())
    }

    fn ended(&self, ask: Ask) -> Option<EndedPage> {
        let all = self.0.scan(self.0.first_seq()).map_while(Result::ok);
        let ended = all.filter(|record| record.kind == Kind::Ended as u8 && record.seq < ask.before);
        let found = ended.map(|record| Found { seq: record.seq, position: record.position, failures: Vec::new() });
        let mut found: Vec<_> = found.collect();
        found.reverse();
        found.truncate(ask.limit);
        Some(EndedPage { found, down_to: self.0.first_seq() })
    }

    fn find(&self, _: Seq) -> Option<Option<Found>> {
        None
    }

    fn standing(&self) -> Standing {
        Standing::off()
    }
}

/// Pushes large jobs; their ids, the newest first.
fn large(handle: &Handle, start: Start) -> Vec<String> {
    let payload = format!("\"{}\"", "x".repeat(LARGE - 2));
    let pushed = |_| handle.push(NewJob { start, ..job("t", &payload) }).unwrap().id;
    let mut ids: Vec<_> = (0..JOBS).map(pushed).collect();
    ids.reverse();
    ids
}

/// All pages of a listing by this filter.
fn pages(handle: &Handle, mut filter: JobFilter) -> Vec<JobPage> {
    let mut pages = Vec::new();
    loop {
        let page = handle.jobs(&filter).unwrap();
        filter.cursor.clone_from(&page.next_cursor);
        pages.push(page);
        if filter.cursor.is_none() {
            return pages;
        }
        assert!(pages.len() <= 2 * JOBS, "it has no end");
    }
}

/// Whether these pages show just these jobs, each once, no page more than it may.
fn check(pages: &[JobPage], ids: &[String], state: &str) {
    let listed: Vec<_> = pages.iter().flat_map(|page| page.jobs.iter().map(|job| job.id.clone())).collect();
    assert_eq!(listed, ids);
    for page in pages {
        assert!(page.jobs.iter().all(|job| job.state == state && job.payload.as_ref().unwrap().get().len() == LARGE));
        assert!(page.jobs.len() * (LARGE + LIST_JOB_BYTES) <= LIST_BYTES_MAX, "{} at once", page.jobs.len());
    }
    assert!(pages.iter().filter(|page| !page.jobs.is_empty()).count() > JOBS * LARGE / LIST_BYTES_MAX);
}

fn all(state: &str) -> JobFilter {
    JobFilter { state: Some(state.to_owned()), limit: LIST_MAX, ..JobFilter::default() }
}

/// Ten thousand jobs of 100 KB each were one page: a few such calls at once took all memory, whatever `buffers_max` said.
#[test]
fn a_page_of_large_jobs_ends_by_its_bytes_and_none_is_left_out_or_shown_twice() {
    let dir = tempfile::tempdir().unwrap();
    let handle = Spec::new(dir.path()).with("t", "v1", Factory(Arc::new(|_| done()))).open();
    let waiting = large(&handle, Start::After(Duration::from_secs(1_000_000)));
    check(&pages(&handle, JobFilter { state: None, ..all("") }), &waiting, "delayed");
    let state = "completed";
    let mut ended = large(&handle, Start::Now);
    ended.iter().for_each(|id| drop(until(&handle, id, state)));
    let brief = || JobFilter { brief: true, ..all(state) };
    // Two workers: they end in some order.
    ended = pages(&handle, brief()).into_iter().flat_map(|page| page.jobs).map(|job| job.id).collect();
    assert_eq!(ended.len(), JOBS);
    check(&pages(&handle, all(state)), &ended, state);
    handle.use_history(Arc::new(Knows(handle.reader())));
    check(&pages(&handle, all(state)), &ended, state);
    let at_once = handle.jobs(&brief()).unwrap().jobs;
    assert_eq!(at_once.len(), JOBS, "what is not shown does not count");
    assert!(at_once.iter().all(|job| job.payload.is_none() && job.result.is_none()));
    handle.stop_and_wait();
}
