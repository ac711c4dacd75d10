//! A conversation for a fuzz target: what a program's bytes make of three jobs.

use std::time::Duration;

use bytes::Bytes;

use super::{Event, Session};
use crate::types::{Fence, Lease};
use crate::worker::launch::OutputLimits;
use crate::worker::{Assignment, Run};

const JOBS: u64 = 3;

/// All that comes of what a program says, which arrives in these pieces: it is greeted, given three jobs once it has
/// answered, asked to wipe once they are all answered, and given three more.
///
/// # Panics
/// A job is answered twice, or what follows a violation is not that violation.
pub fn told(pieces: &[&[u8]]) -> Vec<String> {
    let mut session = Session::new(OutputLimits { result_max: 64, payload_max: 64 });
    let mut told = Vec::new();
    let mut open = 0;
    let mut next = 1;
    drop(session.hello("mail", "v1"));
    for piece in pieces {
        session.handle_bytes(piece);
        loop {
            match session.poll(1_764_000_000_000) {
                Ok(None) => break,
                Ok(Some(event)) => {
                    told.push(format!("{event:?}"));
                    match event {
                        Event::Hello | Event::Wiped => {
                            open = ask(&mut session, next);
                            next += JOBS;
                        }
                        Event::Answer(lease, _) => {
                            assert!(session.open_jobs().all(|other| other != lease), "it is answered and still open");
                            open -= 1;
                            if open == 0 {
                                drop(session.wipe());
                            }
                        }
                        Event::Log(_) | Event::Extended(..) | Event::Progressed(..) => {}
                    }
                }
                Err(violation) => {
                    assert_eq!(session.poll(0), Err(violation.clone()), "another violation follows the first");
                    told.push(violation.to_string());
                    told.extend(session.open_jobs().map(|lease| format!("open {lease:?}")));
                    return told;
                }
            }
        }
        assert_eq!(session.open_jobs().count(), open, "as many are open as were asked and not answered");
    }
    told
}

fn ask(session: &mut Session, first: u64) -> usize {
    for born in first..first + JOBS {
        let lease = Lease { born, fence: Fence { epoch: 1, counter: 1 } };
        let job = Assignment {
            lease,
            id: format!("job-{born}").into(),
            worker_type: "mail".into(),
            version: "v1".into(),
            task: String::new(),
            payload: Bytes::from_static(b"{}"),
            attempt: 1,
            max_attempts: 4,
            tenant: None,
            traceparent: None,
            created_ms: 1_700_000_000_000,
            deadline_ms: 1_764_000_030_000,
            run: Run::alone(lease, 1_764_000_030_000),
            timeout: Duration::from_secs(30),
            timeout_max: Duration::from_secs(300),
            kill_after: Duration::from_secs(5),
        };
        drop(session.job(&job).expect("its payload is JSON"));
    }
    session.open_jobs().count()
}
