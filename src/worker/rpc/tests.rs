//! The protocol without a process: lines in, answers out.

use proptest::prelude::*;

use super::*;
use crate::worker::zoo::{assignment, limits};

/// A conversation in the middle of a cycle: hello is said, jobs 1 to `jobs` are asked.
fn session(jobs: u64) -> Session {
    let mut session = Session::new(limits());
    session.hello("zoo", "v1");
    session.handle_bytes(b"{\"id\":\"hello\",\"jsonrpc\":\"2.0\",\"result\":{\"protocol\":1}}\n");
    assert_eq!(session.poll(0), Ok(Some(Event::Hello)));
    for n in 1..=jobs {
        session.job(&assignment(n)).unwrap();
    }
    session
}

/// All events that `bytes` give, and the violation that ends them, if one does.
fn events(session: &mut Session, bytes: &[u8]) -> (Vec<Event>, Option<String>) {
    session.handle_bytes(bytes);
    let mut events = Vec::new();
    loop {
        match session.poll(0) {
            Ok(Some(event)) => events.push(event),
            Ok(None) => return (events, None),
            Err(violation) => return (events, Some(violation.to_string())),
        }
    }
}

/// The outcome of job 1 when the program answers with this member.
fn outcome(member: &str) -> Outcome {
    let line = format!("{{\"id\":\"1-1-1\",\"jsonrpc\":\"2.0\",{member}}}\n");
    match events(&mut session(1), line.as_bytes()) {
        (mut events, None) if events.len() == 1 => match events.remove(0) {
            Event::Answer(Lease { born: 1, .. }, outcome) => outcome,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

fn violation(line: &str) -> String {
    let (events, violation) = events(&mut session(1), format!("{line}\n").as_bytes());
    assert_eq!(events, []);
    violation.unwrap()
}

fn fail(error: &str) -> Outcome {
    Outcome::Fail { error: error.to_owned(), killed: false }
}

#[test]
fn result_becomes_done() {
    let done = |json: Option<&str>| Outcome::Done { result: json.map(|j| j.as_bytes().to_vec()), enqueue: vec![] };
    assert_eq!(outcome(r#""result":{"value": {"a": [1, 2.50]} }"#), done(Some(r#"{"a":[1,2.50]}"#)));
    assert_eq!(outcome(r#""result":{"value":null}"#), done(Some("null")));
    assert_eq!(outcome(r#""result":{}"#), done(None));
    assert_eq!(outcome(r#""result":null"#), done(None));
}

#[test]
fn error_becomes_what_it_says() {
    let error = |data: &str| outcome(&format!(r#""error":{{"code":-1,"message":"no stock"{data}}}"#));
    assert_eq!(error(""), fail("no stock"));
    assert_eq!(error(r#","data":{"outcome":"fail"}"#), fail("no stock"));
    assert_eq!(error(r#","data":{"outcome":"dead"}"#), Outcome::Dead { error: "no stock".into() });
    let defer = |after| Outcome::Defer { error: "no stock".into(), after };
    assert_eq!(error(r#","data":{"outcome":"retry"}"#), defer(None));
    let after = Some(Duration::from_millis(1500));
    assert_eq!(error(r#","data":{"outcome":"retry","after_ms":1500}"#), defer(after));
    assert_eq!(outcome(r#""error":{"code":7}"#), fail("error 7"));
    let Outcome::Fail { error: text, .. } = error(r#","data":{"outcome":"maybe"}"#) else { panic!() };
    assert!(text.starts_with("no stock (bad `data`: unknown variant `maybe`"), "{text}");
    let Outcome::Fail { error: text, .. } = outcome(r#""error":"oops""#) else { panic!() };
    assert!(text.starts_with("bad `error` (") && text.ends_with(": \"oops\""), "{text}");
}

#[test]
fn answer_that_makes_no_sense_fails_its_job_only() {
    let Outcome::Fail { error, .. } = outcome(r#""result":{"valeu":1}"#) else { panic!() };
    assert!(error.starts_with("bad answer: `result` is not {value?, enqueue?}: unknown field `valeu`"), "{error}");
    let big = format!(r#""result":{{"value":"{}"}}"#, "x".repeat(64 << 10));
    let want = "bad answer: the result is 65538 bytes of JSON, the most is 65536 (`result_max`)";
    assert_eq!(outcome(&big), fail(want));
}

#[test]
fn follow_ups_come_with_the_answer_all_or_none() {
    let Outcome::Done { result, enqueue } =
        outcome(r#""result":{"value":1,"enqueue":[{"type":"pay","payload":[ 1 ]},{"type":"ship"}]}"#)
    else {
        panic!()
    };
    assert_eq!(result.as_deref(), Some(&b"1"[..]));
    let got: Vec<_> = enqueue.iter().map(|job| (job.worker_type.as_str(), job.payload.as_slice())).collect();
    assert_eq!(got, [("pay", &b"[1]"[..]), ("ship", b"null")]);
    let Outcome::Fail { error, .. } = outcome(r#""result":{"enqueue":[{"type":"pay"},{"typ":"ship"}]}"#) else {
        panic!()
    };
    assert!(error.starts_with("bad answer: job 2 of `enqueue`: ") && error.contains("typ"), "{error}");
}

#[test]
fn too_many_follow_ups_fail_the_job() {
    let many = format!(r#""result":{{"enqueue":[1{}]}}"#, ",1".repeat(1000));
    assert_eq!(outcome(&many), fail("bad answer: `enqueue` holds 1001 jobs, the most is 1000"));
}

#[test]
fn violations_are_named_and_final() {
    let rest = |line: &str| violation(line);
    assert_eq!(rest(""), "wrote an empty line");
    assert!(rest("hello").starts_with("wrote a line that is no JSON-RPC 2.0 (expected value"));
    assert!(rest("{}").contains("missing field `jsonrpc`"));
    assert!(rest(r#"{"jsonrpc":"1.0","id":"1-1-1","result":1}"#).contains("`jsonrpc` is not \"2.0\""));
    assert!(rest(r#"{"jsonrpc":"2.0","id":"1-1-1"}"#).contains("neither `result` nor `error`"));
    assert!(rest(r#"{"jsonrpc":"2.0","id":"1-1-1","result":1,"error":{}}"#).contains("both `result` and `error`"));
    assert!(rest(r#"{"jsonrpc":"2.0"}"#).contains("neither `id` nor `method`"));
    assert_eq!(rest(r#"{"jsonrpc":"2.0","id":"x","method":"job"}"#), "asks for \"job\"; a worker answers");
    assert_eq!(rest(r#"{"jsonrpc":"2.0","id":17,"result":1}"#), "answered the unknown id 17");
    let parse_error = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"Parse error"}}"#;
    assert_eq!(rest(parse_error), "answered the unknown id null: Parse error");
    let mut broken = session(1);
    assert!(events(&mut broken, b"x\n").1.is_some());
    let good = b"{\"id\":\"1-1-1\",\"jsonrpc\":\"2.0\",\"result\":{}}\n";
    assert_eq!(events(&mut broken, good), events(&mut broken, b""));
    assert_eq!(broken.open_jobs().count(), 1);
}

#[test]
fn line_of_the_largest_size_passes_and_a_longer_one_does_not_gather() {
    let mut fine = session(1);
    let mut line = br#"{"jsonrpc":"2.0","method":"progress","params":""#.to_vec();
    line.resize(LINE_BYTES_MAX - 2, b'x');
    line.extend_from_slice(b"\"}\n");
    assert_eq!(events(&mut fine, &line), (vec![], None));
    let mut flooded = session(1);
    for _ in 0..LINE_BYTES_MAX / (1 << 20) {
        assert_eq!(events(&mut flooded, &vec![b'x'; 1 << 20]).1, None);
    }
    assert!(events(&mut flooded, &vec![b'x'; 1 << 20]).1.unwrap().contains("a line of more than"));
    events(&mut flooded, &vec![b'x'; 1 << 20]);
    assert_eq!(flooded.buffer.capacity(), 0);
}

#[test]
fn ids_of_a_cycle_are_unknown_after_its_wipe() {
    let mut session = session(1);
    let answer = b"{\"id\":\"1-1-1\",\"jsonrpc\":\"2.0\",\"result\":{}}\n";
    assert!(matches!(events(&mut session, answer), (events, None) if events.len() == 1));
    session.wipe();
    let wiped = b"{\"id\":\"wipe-1\",\"jsonrpc\":\"2.0\",\"result\":true}\n";
    assert_eq!(events(&mut session, wiped), (vec![Event::Wiped], None));
    assert_eq!(events(&mut session, answer).1.unwrap(), "answered the unknown id \"1-1-1\"");
}

#[test]
fn log_is_passed_on_and_other_notifications_are_not() {
    let text = "{\"jsonrpc\":\"2.0\",\"method\":\"log\",\"params\":{\"message\":\"hi\"}}\n\
                {\"jsonrpc\":\"2.0\",\"method\":\"extend\",\"params\":[]}\n{\"jsonrpc\":\"2.0\",\"method\":\"new\"}\n";
    let line = LogLine { lease: None, level: Level::Info, text: "{\"message\":\"hi\"}".into() };
    assert_eq!(events(&mut session(0), text.as_bytes()), (vec![Event::Log(line)], None));
}

/// What one notification says to a conversation with two jobs.
fn notice(method: &str, params: &str) -> Vec<Event> {
    let text = format!("{{\"jsonrpc\":\"2.0\",\"method\":\"{method}\",\"params\":{params}}}\n");
    let (events, violation) = events(&mut session(2), text.as_bytes());
    assert_eq!(violation, None, "{method} {params}");
    events
}

#[test]
fn a_log_line_may_have_a_level_and_name_an_open_job() {
    let line = |lease, level, text: &str| vec![Event::Log(LogLine { lease, level, text: text.into() })];
    let second = Some(assignment(2).lease);
    assert_eq!(notice("log", r#"{"id":"2-1-2","level":"warn","text":"a\nb"}"#), line(second, Level::Warn, "a\nb"));
    assert_eq!(notice("log", r#"{"id":"9-9-9","text":"x","more":1}"#), line(None, Level::Info, "x"));
    let odd = r#"{"level":"loud","text":"x"}"#;
    assert_eq!(notice("log", odd), line(None, Level::Info, odd), "as it is");
    let long = notice("log", &format!("{{\"text\":\"{}\"}}", "x".repeat(10_000)));
    assert!(matches!(&long[..], [Event::Log(line)] if line.text.len() == 2048));
}

#[test]
fn progress_is_of_an_open_job_in_a_share_or_in_percent_or_in_words() {
    let second = assignment(2).lease;
    let progress = |params: &str| match notice("progress", params).pop() {
        Some(Event::Progressed(lease, progress)) if lease == second => Some(progress),
        None => None,
        other => panic!("{other:?}"),
    };
    assert_eq!(progress(r#"{"id":"2-1-2","fraction":0.5}"#), Some(0.5.into()));
    assert_eq!(progress(r#"{"id":"2-1-2","percent":50,"text":"half"}"#), Some((0.5, "half").into()));
    assert_eq!(progress(r#"{"id":"2-1-2","text":"soon"}"#), Some("soon".into()));
    for none in [r#"{"id":"9-9-9","fraction":1}"#, r#"{"fraction":1}"#, r#"{"id":"2-1-2","fraction":"x"}"#, "7"] {
        assert_eq!(progress(none), None, "{none}");
    }
}

#[test]
fn extend_counts_for_an_open_job_alone() {
    let extend = |params: &str| format!("{{\"jsonrpc\":\"2.0\",\"method\":\"extend\",\"params\":{params}}}\n");
    let mut session = session(2);
    assert_eq!(
        events(&mut session, extend("{\"id\":\"1-1-1\"}").as_bytes()),
        (vec![Event::Extended(assignment(1).lease, None)], None)
    );
    let more = events(&mut session, extend("{\"id\":\"1-1-1\",\"ms\":1500}").as_bytes());
    assert_eq!(more.0, [Event::Extended(assignment(1).lease, Some(Duration::from_millis(1500)))]);
    for none in ["{\"id\":\"9-9-9\"}", "{\"id\":7}", "{}", "null"] {
        assert_eq!(events(&mut session, extend(none).as_bytes()), (vec![], None), "{none}");
    }
    let (answered, _) = events(&mut session, b"{\"id\":\"1-1-1\",\"jsonrpc\":\"2.0\",\"result\":null}\n");
    assert_eq!(answered.len(), 1);
    assert_eq!(events(&mut session, extend("{\"id\":\"1-1-1\"}").as_bytes()), (vec![], None), "too late");
}

#[test]
fn payload_with_line_breaks_stays_on_its_line() {
    let job = Assignment { payload: b"{\n\"a\\n\":\r\n1}".to_vec().into(), ..assignment(1) };
    let line = String::from_utf8(session(0).job(&job).unwrap()).unwrap();
    assert!(line.contains(r#""payload":{ "a\n":  1},"attempt""#), "{line}");
    let bad = Assignment { payload: b"{".to_vec().into(), ..assignment(1) };
    assert!(matches!(session(0).job(&bad), Err(Outcome::Dead { .. })));
}

/// Lines as programs write them, well and badly.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let id = prop_oneof![4 => (1..5_u64).prop_map(|n| format!("\"{n}-1-{n}\"")), 1 => "[0-9\"a-]{0,4}"];
    let member = prop_oneof![
        4 => "\"result\":(\\{\\}|null|1|\\{\"value\":[0-9]{1,3}\\}|\\{\"vale\":1\\})",
        2 => "\"error\":(\\{\"code\":1,\"message\":\"m\"\\}|7)",
        1 => "\"method\":\"(log|x)\"",
    ];
    prop_oneof![
        8 => (id, member).prop_map(|(id, member)| format!("{{\"id\":{id},\"jsonrpc\":\"2.0\",{member}}}\n").into_bytes()),
        1 => proptest::collection::vec(any::<u8>(), 0..40),
        1 => Just(b"{\"jsonrpc\":\"2.0\",\"method\":\"log\",\"params\":[1]}\n".to_vec()),
    ]
}

proptest! {
    #[test]
    fn any_lines_in_any_split_answer_each_job_at_most_once(
        lines in proptest::collection::vec(line(), 0..12),
        cuts in proptest::collection::vec(1..60_usize, 1..10),
    ) {
        let bytes = lines.concat();
        let mut whole = session(4);
        let want = events(&mut whole, &bytes);
        let mut split = session(4);
        let (mut got, mut end, mut rest) = (Vec::new(), None, &bytes[..]);
        for cut in cuts.iter().cycle() {
            let (chunk, behind) = rest.split_at((*cut).min(rest.len()));
            let (some, violation) = events(&mut split, chunk);
            got.extend(some);
            end = violation;
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(&(got, end), &want);
        let mut born: Vec<u64> = want.0.iter().filter_map(|event| match event {
            Event::Answer(lease, _) => Some(lease.born),
            Event::Hello | Event::Extended(..) | Event::Progressed(..) | Event::Wiped | Event::Log(_) => None,
        }).chain(whole.open_jobs().map(|lease| lease.born)).collect();
        born.sort_unstable();
        prop_assert_eq!(born, [1, 2, 3, 4]);
    }

    #[test]
    fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = events(&mut session(2), &bytes);
    }
}
