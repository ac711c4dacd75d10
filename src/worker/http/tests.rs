//! A zoo of bad services on loopback, and what becomes of a job with each; what a good one is sent.

mod sent;
mod service;
mod tls;

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use super::definition::{LookUp, Resolver};
use super::*;
use crate::config::{self, KindConfig};
use crate::worker::definition::Surroundings;
use crate::worker::zoo::{assignment, cutoff, limits, until};
use service::{OK, Service};

const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(20);
const PATIENT: RequestTimeouts = RequestTimeouts { connect: LONG, first_byte: LONG };

/// What a worker table with these lines makes.
fn hook(lines: &str) -> Hook {
    let text = format!("[workers.zoo]\nversion = \"v1\"\n{lines}\n");
    let parsed = config::parse("b.toml", &text, &Default::default()).unwrap_or_else(|problems| panic!("{problems}"));
    let worker = parsed.config.workers.into_iter().next().unwrap();
    let KindConfig::Http(http) = &worker.kind else { panic!() };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls");
    let variable = |name: &str| match name {
        "NEW" => Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into()),
        "OLD" => Some("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".into()),
        "TOKEN" => Some("Bearer t0ken".into()),
        _ => None,
    };
    let around = Surroundings { folder: &folder, variable: &variable, places: &parsed.places };
    let resolved = definition::resolve(&worker.worker_type, http, &around, limits());
    let (factory, _) = resolved.unwrap_or_else(|problems| panic!("{problems:?}"));
    Arc::into_inner(factory.hook).unwrap()
}

fn local(service: &Service) -> Hook {
    hook(&format!("http = \"http://127.0.0.1:{}/in?x=1\"\nallow_private = true", service.port))
}

/// Runs jobs one after the other on a caller.
fn run_on(caller: &Caller, jobs: Vec<Assignment>, timeouts: RequestTimeouts) -> Vec<Outcome> {
    let runtime = runtime().unwrap();
    let mut outcomes = Vec::new();
    for job in jobs {
        outcomes.push(runtime.block_on(caller.call(&job, timeouts)));
    }
    runtime.shutdown_background();
    outcomes
}

/// Runs jobs one after the other in a lane of a caller.
fn run_in_lane(caller: &Caller, jobs: Vec<Assignment>, timeouts: RequestTimeouts) -> Vec<Outcome> {
    struct All<'a>(std::vec::IntoIter<Assignment>, RequestTimeouts, &'a std::sync::Mutex<Vec<Outcome>>);
    impl Jobs for All<'_> {
        fn next(&mut self) -> Option<(Assignment, RequestTimeouts)> {
            Some((self.0.next()?, self.1))
        }

        fn ended(&mut self, outcome: Outcome) {
            self.2.lock().unwrap().push(outcome);
        }
    }
    let (runtime, outcomes) = (runtime().unwrap(), std::sync::Mutex::default());
    runtime.block_on(caller.run_all(Box::new(All(jobs.into_iter(), timeouts, &outcomes))));
    runtime.shutdown_background();
    outcomes.into_inner().unwrap()
}

fn run(hook: Hook, job: Assignment, timeouts: RequestTimeouts) -> Outcome {
    let begun = RealClock.mono();
    let outcome = run_on(&Caller::new(&Arc::new(hook)), vec![job], timeouts).remove(0);
    assert!(RealClock.mono() - begun < LONG, "{outcome:?}");
    outcome
}

/// What becomes of a job whose service answers each request so.
fn answered(answer: &str) -> Outcome {
    run(local(&Service::answering(answer)), assignment(1), PATIENT)
}

fn failure(outcome: Outcome) -> String {
    match outcome {
        Outcome::Fail { error, killed: false } => error,
        other => panic!("{other:?}"),
    }
}

fn done(outcome: Outcome) -> String {
    match outcome {
        Outcome::Done { result, .. } => String::from_utf8(result.unwrap_or_default()).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn n6_every_status_has_its_outcome() {
    let text = |status: &str| format!("HTTP/1.1 {status}\r\nContent-Length: 5\r\n\r\nwords");
    assert_eq!(done(answered(&text("200 OK"))), "\"words\"");
    assert_eq!(done(answered("HTTP/1.1 204 No Content\r\n\r\n")), "");
    assert_eq!(done(answered("HTTP/1.1 201 Created\r\nContent-Length: 10\r\n\r\n{\"a\" : 1}\n")), "{\"a\":1}");
    for status in [408, 425, 429, 500, 502, 503, 599] {
        match answered(&text(&format!("{status} X"))) {
            Outcome::Defer { error, after: None } => assert!(error.contains("words"), "{error}"),
            other => panic!("{status}: {other:?}"),
        }
    }
    for status in [400, 401, 404, 410, 413, 422, 499] {
        match answered(&text(&format!("{status} X"))) {
            Outcome::Dead { error } => assert!(error.starts_with(&format!("127.0.0.1 answered {status}")), "{error}"),
            other => panic!("{status}: {other:?}"),
        }
    }
    for status in [300, 304, 600] {
        assert!(failure(answered(&text(&format!("{status} X")))).contains(&status.to_string()));
    }
}

#[test]
fn n6_retry_after_is_honoured() {
    match answered("HTTP/1.1 429 Slow down\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n") {
        Outcome::Defer { after, .. } => assert_eq!(after, Some(Duration::from_secs(7))),
        other => panic!("{other:?}"),
    }
}

#[test]
fn n6_redirects_are_not_followed() {
    let service = Service::answering("HTTP/1.1 302 Found\r\nLocation: /in\r\nContent-Length: 0\r\n\r\n");
    let error = failure(run(local(&service), assignment(1), PATIENT));
    assert!(error.contains("302") && error.contains("redirects are not followed"), "{error}");
    assert_eq!(service.requests().len(), 1);
}

#[test]
fn n6_every_hang_runs_into_its_deadline() {
    let silent = Service::silent();
    let tls = hook(&format!("http = \"https://127.0.0.1:{}/\"\nallow_private = true", silent.port));
    let error = failure(run(tls, assignment(1), RequestTimeouts { connect: SHORT, first_byte: LONG }));
    assert!(error.contains("connect_timeout"), "{error}");
    let error = failure(run(local(&silent), assignment(1), RequestTimeouts { connect: LONG, first_byte: SHORT }));
    assert!(error.contains("first_byte_timeout"), "{error}");
    for head in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"a"] {
        let service = Service::hanging_after(head);
        let error = failure(run(local(&service), Assignment { timeout: SHORT, ..assignment(1) }, PATIENT));
        assert!(error.contains("timed out"), "{head:?}: {error}");
    }
}

#[test]
fn n6_slow_drip_runs_into_the_deadline_of_the_whole() {
    for head in ["HTTP/1.1 200 OK\r\nX: ", "HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"] {
        let service = Service::dripping(head);
        let timeouts = RequestTimeouts { connect: LONG, first_byte: LONG };
        let error = failure(run(local(&service), Assignment { timeout: SHORT * 2, ..assignment(1) }, timeouts));
        assert!(error.contains("timed out"), "{head:?}: {error}");
    }
}

#[test]
fn n6_a_body_without_end_is_not_read_in() {
    let service = Service::flooding("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
    let error = failure(run(local(&service), assignment(1), PATIENT));
    assert!(error.contains("more than 65536 bytes (`result_max`)"), "{error}");
    until("the flood ends, since nobody reads it", || service.ended() == 1);
    let service = Service::flooding("HTTP/1.1 500 No\r\nConnection: close\r\n\r\n");
    assert!(matches!(run(local(&service), assignment(1), PATIENT), Outcome::Defer { .. }));
    let service = Service::flooding("HTTP/1.1 200 OK\r\nX: ");
    let error = failure(run(local(&service), assignment(1), PATIENT));
    assert!(error.contains("did not answer in HTTP"), "{error}");
}

#[test]
fn n6_a_service_that_breaks_off_fails_the_job() {
    for (answer, told) in [
        ("", "closed the connection before it answered"),
        ("HTTP/1.1 200", "closed the connection before it answered"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", "broke off"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "broke off"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab", "broke off"),
    ] {
        let service = Service::closing_after(answer);
        let error = failure(run(local(&service), assignment(1), PATIENT));
        assert!(error.contains(told), "{answer:?}: {error}");
        assert_eq!(service.requests().len(), 1, "a first connection is not tried twice");
    }
    let error = failure(run(local(&Service::answering("SSH-2.0-OpenSSH_9.2\r\n")), assignment(1), PATIENT));
    assert!(error.contains("did not answer in HTTP"), "{error}");
    let gone = Service::silent();
    let port = gone.port;
    drop(gone);
    let nobody = hook(&format!("http = \"http://127.0.0.1:{port}/\"\nallow_private = true"));
    let error = failure(run(nobody, assignment(1), PATIENT));
    assert!(error.contains("could not be reached"), "{error}");
}

#[test]
fn n6_what_comes_after_an_answer_is_no_answer_to_the_next_job() {
    let service = Service::answering(
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n7HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    );
    for run_jobs in [run_on, run_in_lane] {
        let caller = Caller::new(&Arc::new(local(&service)));
        let outcomes = run_jobs(&caller, vec![assignment(1), assignment(2)], PATIENT);
        assert_eq!(outcomes.len(), 2);
        for outcome in outcomes {
            assert_eq!(done(outcome), "7");
        }
    }
}

#[test]
fn connections_are_used_again_and_a_closed_one_is_made_anew() {
    for run_jobs in [run_on, run_in_lane] {
        let service = Service::answering(OK);
        let caller = Caller::new(&Arc::new(local(&service)));
        let outcomes = run_jobs(&caller, (1..=20).map(assignment).collect(), PATIENT);
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Done { .. })), "{outcomes:?}");
        assert_eq!((outcomes.len(), service.requests().len(), service.connections()), (20, 20, 1));
        let service = Service::closing_after(OK);
        let caller = Caller::new(&Arc::new(local(&service)));
        let outcomes = run_jobs(&caller, (1..=5).map(assignment).collect(), PATIENT);
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Done { .. })), "{outcomes:?}");
        assert_eq!(outcomes.len(), 5);
    }
}

#[test]
fn a_request_that_the_service_had_for_a_while_is_not_sent_again() {
    let tries = |after| {
        let service = Service::giving_up(after);
        let caller = Caller::new(&Arc::new(local(&service)));
        let error = failure(run_in_lane(&caller, vec![assignment(1), assignment(2)], PATIENT).remove(1));
        let told = error.matches("closed the connection before it answered").count();
        assert_eq!(told, service.requests().len() - 1, "whatever was tried is told: {error}");
        told
    };
    assert_eq!(tries(connect::STALE_WITHIN + SHORT), 1);
    // A busy machine may take its time for this.
    assert!((1..=2).contains(&tries(Duration::from_millis(1))));
}

#[test]
fn a_job_in_a_lane_is_sent_as_itself_whatever_came_before() {
    let service = Service::answering("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX-More: 1\r\n\r\n7");
    let caller = Caller::new(&Arc::new(local(&service)));
    let full = Assignment { task: "a b".to_owned(), tenant: Some("acme".to_owned()), ..assignment(1) };
    let other = Assignment {
        task: String::new(),
        version: "v2".into(),
        attempt: 12,
        created_ms: 0,
        deadline_ms: 1,
        ..assignment(3)
    };
    let outcomes = run_in_lane(&caller, vec![full, assignment(2), other], PATIENT);
    assert!(outcomes.into_iter().all(|outcome| done(outcome) == "7"));
    let requests = service.requests();
    let sent = |at: usize, name: &str| requests[at].header(name).map(str::to_owned);
    let all = |name: &str| [0, 1, 2].map(|at| sent(at, name).unwrap_or_default());
    assert_eq!(all("ce-id"), ["job-1", "job-2", "job-3"]);
    assert_eq!(all("webhook-id"), ["job-1", "job-2", "job-3"]);
    assert_eq!(all("ce-task"), ["a%20b", "feed", ""]);
    assert_eq!(all("ce-tenant"), ["acme", "", ""]);
    assert_eq!(all("ce-workerversion"), ["v1", "v1", "v2"]);
    assert_eq!(all("ce-attempt"), ["1", "1", "12"]);
    assert_eq!(all("ce-deadline")[1..], ["2030-03-17T17:46:40Z", "1970-01-01T00:00:00.001Z"]);
    assert_eq!(all("ce-time")[2], "1970-01-01T00:00:00Z");
    assert_eq!(all("x-more"), ["", "", ""], "nothing of an answer goes into the next request");
}

#[test]
fn follow_up_jobs_come_with_the_answer() {
    let body = r#"{"value": 7, "enqueue": [{"type": "mail", "payload": 1}, {"type": "bill"}]}"#;
    let answer = |kind: &str, body: &str| {
        answered(&format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
    };
    match answer("Application/vnd.biotope+json; charset=utf-8", body) {
        Outcome::Done { result: Some(result), enqueue } => {
            assert_eq!((result.as_slice(), enqueue.len()), (&b"7"[..], 2));
            assert_eq!(enqueue[0].worker_type.as_str(), "mail");
        }
        other => panic!("{other:?}"),
    }
    match answer("application/json", body) {
        Outcome::Done { result: Some(_), enqueue } => assert!(enqueue.is_empty(), "plain JSON is a result"),
        other => panic!("{other:?}"),
    }
    let error = failure(answer("application/vnd.biotope+json", r#"{"enqueue": [{"type": "mail"}, {"typ": "x"}]}"#));
    assert!(error.contains("job 2 of `enqueue`"), "{error}");
    let error = failure(answer("application/vnd.biotope+json", "no"));
    assert!(error.contains("cannot be taken"), "{error}");
}

#[test]
fn a_call_is_cut_off_while_its_service_hangs() {
    let service = Service::hanging_after("");
    let cut = cutoff();
    let factory = HttpFactory { hook: Arc::new(local(&service)) };
    let mut worker = factory.make(&cut);
    worker.start(SHORT).unwrap();
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| {
            until("the request", || service.requests().len() == 1);
            cut.set();
        });
        crate::worker::zoo::outcomes(worker.as_mut(), vec![assignment(1)])
    });
    assert_eq!(outcome, [(1, Outcome::Interrupted)]);
    worker.stop();
}

/// Says what the test wants, and counts how often it was asked.
struct Told(std::io::Result<Vec<&'static str>>, AtomicU32);

impl Resolver for Told {
    fn look_up<'a>(&'a self, _: &'a str, port: u16) -> LookUp<'a> {
        // Whoever asks a second time gets another answer: this machine.
        let first = self.1.fetch_add(1, Ordering::SeqCst) == 0;
        let found = match &self.0 {
            Ok(addresses) if first => {
                Ok(addresses.iter().map(|text| (text.parse::<std::net::IpAddr>().unwrap(), port).into()).collect())
            }
            Ok(_) => Ok(vec![([127, 0, 0, 1], port).into()]),
            Err(error) => Err(std::io::Error::new(error.kind(), error.to_string())),
        };
        Box::pin(std::future::ready(found))
    }
}

fn told(lines: &str, addresses: std::io::Result<Vec<&'static str>>) -> (Hook, Arc<Told>) {
    let resolver = Arc::new(Told(addresses, AtomicU32::new(0)));
    (Hook { resolver: resolver.clone(), ..hook(lines) }, resolver)
}

#[test]
fn n6_a_name_that_is_not_found_fails_the_job() {
    let (hook, _) = told("http = \"https://nowhere.invalid/\"", Err(std::io::Error::other("no such name")));
    let error = failure(run(hook, assignment(1), PATIENT));
    assert!(error.contains("nowhere.invalid has no address that can be found: no such name"), "{error}");
}

#[test]
fn security_12_a_name_with_a_private_address_is_not_called() {
    let service = Service::answering(OK);
    let url = format!("http = \"http://hooks.example.com:{}/\"", service.port);
    for address in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254", "10.0.0.7", "fd00::1"] {
        let (hook, resolver) = told(&url, Ok(vec![address]));
        let error = failure(run(hook, assignment(1), PATIENT));
        assert!(error.contains("no public one") && error.contains("allow_private"), "{address}: {error}");
        assert_eq!(resolver.1.load(Ordering::SeqCst), 1, "looked up once");
    }
    assert_eq!(service.connections(), 0);
    let (allowed, _) = told(&format!("{url}\nallow_private = true"), Ok(vec!["127.0.0.1"]));
    assert_eq!(done(run(allowed, assignment(1), PATIENT)), "");
    // One in the system's own words.
    let local = hook(&format!("http = \"http://localhost:{}/\"", service.port));
    assert!(failure(run(local, assignment(1), PATIENT)).contains("no public one"));
}

#[test]
fn security_12_what_is_connected_to_is_what_was_checked() {
    // The port is the same, so only the address decides: the name says 127.0.0.2 first, and 127.0.0.1 ever after.
    let service = Service::answering(OK);
    let lines = format!("http = \"http://hooks.example.com:{}/\"\nallow_private = true", service.port);
    let (hook, resolver) = told(&lines, Ok(vec!["127.0.0.2"]));
    let error = failure(run(hook, assignment(1), PATIENT));
    assert!(error.contains("could not be reached at 127.0.0.2"), "{error}");
    assert_eq!((resolver.1.load(Ordering::SeqCst), service.connections()), (1, 0));
    let runtime = runtime().unwrap();
    let (mixed, _) = told("http = \"https://hooks.example.com/\"", Ok(vec!["127.0.0.1", "8.8.8.8", "::1"]));
    let addresses = runtime.block_on(connect::addresses(&mixed)).unwrap();
    assert_eq!(addresses, [([8, 8, 8, 8], 443).into()], "of a name with both, only what is public");
}
