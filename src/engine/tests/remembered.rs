//! What is remembered of configs, across restarts and beyond the cleaning of the log.

use super::*;
use crate::engine::view::{GenerationEntry, GenerationsView};
use crate::engine::{Resolver, no_resolver};

fn said(mut spec: GenerationSpec, text: &str) -> GenerationSpec {
    spec.text = text.into();
    spec
}

fn generations(handle: &Handle) -> GenerationsView {
    wait(|then| handle.generations(then)).unwrap()
}

fn take(handle: &Handle, spec: GenerationSpec) -> ReloadVerdict {
    wait(|then| handle.reload(spec, then)).unwrap()
}

/// Once what a start began is over, too.
fn settled(handle: &Handle) -> Vec<GenerationEntry> {
    let settled = ask(|| Some(generations(handle).generations).filter(|known| known[0].verdict != "rolling"));
    settled.expect("it settles")
}

/// Number and verdict, and of each type: what changed, from what, to what, with which keys.
fn told(known: &[GenerationEntry]) -> Vec<String> {
    let line = |known: &GenerationEntry| {
        let types = known.types.iter().map(|of| {
            let part = |label: &Option<String>| label.clone().unwrap_or_default();
            format!(" {} {} {}>{} {:?}", of.worker_type, of.change, part(&of.from), part(&of.to), of.keys)
        });
        format!("{} {} {:?}{}", known.number, known.verdict, known.keys, types.collect::<String>())
    };
    known.iter().map(line).collect()
}

fn open(spec: GenerationSpec, resolver: Resolver) -> Handle {
    Engine::open_with(spec, resolver, RealClock::shared()).unwrap().0
}

#[test]
fn configs_are_remembered_with_what_they_changed_and_what_became_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let spec = || Spec::new(dir.path());
    let slower = || LiveConfig { timeout: Duration::from_secs(9), ..live() };
    let handle = open(said(spec().with("a", "v1", echo()).make(), "one"), no_resolver());
    settled(&handle);
    let two = || spec().with("a", "v2", echo()).with_live("b", "v1", echo(), live());
    assert_eq!(take(&handle, said(two().make(), "two")).verdict, "ok");
    let mut three = spec().with("a", "v3", Broken).with_live("b", "v1", echo(), slower()).make();
    three.config.stop_timeout = Duration::from_secs(11);
    assert_eq!(take(&handle, said(three, "three")).verdict, "partial");
    let mut elsewhere = two().make();
    elsewhere.config.data_dir = "/elsewhere".into();
    assert!(wait(|then| handle.reload(elsewhere, then)).is_err());
    handle.reload_failed("a typo".to_owned());
    let expected = [
        r#"3 partial ["stop_timeout"] a rejected v2>v3 [] b changed_live > ["timeout"]"#,
        r#"2 ok [] a rolled_over v1>v2 [] b added >v1 []"#,
        r#"1 ok [] a added >v1 []"#,
    ];
    let seen = generations(&handle);
    assert_eq!(told(&seen.generations), expected);
    let a = &seen.generations[0].types[0];
    assert_eq!(a.reason.as_deref(), Some("broken on purpose"));
    let refused: Vec<bool> = seen.refused.iter().map(|refused| refused.reason.contains("`data_dir`")).collect();
    assert_eq!((refused, &*seen.refused[0].reason), (vec![false, true], "a typo"), "the newest is the first");
    handle.stop_and_wait();

    // What could not start is tried again; nothing else is news, and what was refused is forgotten.
    let mut three = spec().with("a", "v3", Broken).with_live("b", "v1", echo(), slower()).make();
    three.config.stop_timeout = Duration::from_secs(11);
    let handle = open(said(three, "three"), no_resolver());
    let seen = settled(&handle);
    assert_eq!(told(&seen)[0], r#"3 partial [] a rejected v2>v3 []"#);
    assert_eq!(told(&seen)[1..], expected[1..]);
    assert!(generations(&handle).refused.is_empty());
    handle.stop_and_wait();
}

#[test]
fn a_start_with_another_config_is_a_reload_and_one_in_other_words_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let base = || Spec::new(dir.path()).with("a", "v1", echo()).with("b", "v1", echo());
    let handle = open(said(base().make(), "one"), no_resolver());
    assert_eq!(told(&settled(&handle)), ["1 ok [] a added >v1 [] b added >v1 []"]);
    // In other words, of which only the newest are kept.
    assert_eq!(take(&handle, said(base().make(), "one, as said")).verdict, "unchanged");
    handle.stop_and_wait();

    let path = dir.path().to_path_buf();
    let resolver: Resolver = Arc::new(move |text| {
        let spec = Spec::new(&path).with("a", "v1", echo()).with("b", "v1", echo()).make();
        if text == "one, as said" { Ok(said(spec, text)) } else { Err("never said".to_owned()) }
    });
    let handle = open(said(base().make(), "one, with a comment"), Arc::clone(&resolver));
    assert_eq!(told(&settled(&handle)), ["1 ok [] a added >v1 [] b added >v1 []"]);
    assert_eq!(take(&handle, said(base().make(), "one, as said")).verdict, "unchanged");
    handle.stop_and_wait();

    let slower = LiveConfig { timeout: Duration::from_secs(9), ..live() };
    let other = || Spec::new(dir.path()).with_live("a", "v1", echo(), slower.clone()).with("c", "v1", echo());
    let handle = open(said(other().make(), "two"), resolver);
    assert_eq!(
        told(&settled(&handle))[0],
        r#"2 ok [] b removed v1> [] a changed_live > ["timeout"] c added >v1 []"#,
        "it differs from what ran before"
    );
    handle.stop_and_wait();
}

#[test]
fn a_way_back_to_the_version_that_still_runs_is_no_change() {
    let dir = tempfile::tempdir().unwrap();
    let handle = Spec::new(dir.path()).with("a", "v1", echo()).open();
    settled(&handle);
    let (word, wait_for_it) = crossbeam_channel::bounded::<()>(0);
    let slow = versions::Slow(wait_for_it, echo().0);
    let (to, first) = crossbeam_channel::bounded(1);
    let two = Spec::new(dir.path()).with("a", "v2", slow).make();
    handle.reload(two, Box::new(move |answer| to.send(answer).unwrap()));
    let (to, second) = crossbeam_channel::bounded(1);
    let one = Spec::new(dir.path()).with("a", "v1", echo()).make();
    handle.reload(one, Box::new(move |answer| to.send(answer).unwrap()));
    drop(word);
    for verdict in [first, second] {
        let verdict = verdict.recv().unwrap().unwrap();
        assert_eq!((verdict.generation, verdict.types.len(), verdict.unchanged), (3, 0, 1));
    }
    let known = told(&settled(&handle));
    assert_eq!(known, ["3 ok []", "2 superseded []", "1 ok [] a added >v1 []"]);
    handle.stop_and_wait();
}
