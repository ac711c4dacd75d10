//! The index against a plain list of what ended: as it grows, after every damage, and made anew.

mod world;

use std::path::{Path, PathBuf};

use fastrand::Rng;

use super::{Archive, ArchiveOptions, History};
use world::{SMALL, World, check, until};

const LOG_ID: [u8; 16] = [9; 16];

fn rng() -> Rng {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    Rng::with_seed(seed)
}

fn world(dir: &Path, rng: &mut Rng, steps: usize) -> World {
    let mut world = World::open(&dir.join("log"), LOG_ID);
    world.steps(rng, steps);
    world
}

/// The files of an index, in order.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// The directories of an index, in order.
fn slices(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.is_dir());
    found.sort();
    found
}

/// Whether an index was given up, and begun anew.
fn was_set_aside(dir: &Path) -> bool {
    dir.with_extension("aside").exists()
}

#[test]
fn the_index_finds_what_ended_and_forgets_what_left_the_log() {
    let mut rng = rng();
    let dir = tempfile::tempdir().unwrap();
    let mut world = world(dir.path(), &mut rng, 3000);
    let history = dir.path().join("history");
    let index = world.index(&history, SMALL);
    check(&index, &world);
    assert!(slices(&history).len() >= 2, "{:?}", slices(&history));
    for _ in 0..6 {
        world.steps(&mut rng, 1500);
        if rng.bool() {
            world.clean();
        }
        check(&index, &world);
    }
    while world.log.figures().head < world.log.figures().active {
        world.clean();
    }
    world.steps(&mut rng, 100);
    check(&index, &world);
    let first = world.reader().first_seq();
    let needed = until(&index, || {
        let names: Vec<_> = slices(&history).iter().map(|dir| dir.file_name().unwrap().to_owned()).collect();
        // The oldest one speaks for something that is there, if the next one begins later than the log.
        let next: Option<u64> = names.get(1).map(|name| name.to_str().unwrap().parse().unwrap());
        next.is_none_or(|next| next > first).then_some(names.len())
    });
    assert!(needed >= 1, "what speaks only for what has left the log is removed, the rest is not");
    assert_eq!(index.standing().state, "ok");
    index.stop();
}

#[test]
fn a_restart_goes_on_where_the_watermark_is() {
    let mut rng = rng();
    let dir = tempfile::tempdir().unwrap();
    let mut world = world(dir.path(), &mut rng, 2000);
    let history = dir.path().join("history");
    for _ in 0..4 {
        let index = world.index(&history, SMALL);
        check(&index, &world);
        world.steps(&mut rng, 500);
        // Stopped or just left, as a killed process leaves it: the next one must find the same.
        index.stop();
    }
    let seen = world.reader().visible_up_to();
    let index = world.index(&history, SMALL);
    let fresh = world.index(&dir.path().join("fresh"), SMALL);
    let contents = |index: &Archive| index.contents(seen).expect("the contents");
    check(&index, &world);
    check(&fresh, &world);
    let (mut grown, mut anew) = (contents(&index), contents(&fresh));
    grown.sort();
    anew.sort();
    assert!(!was_set_aside(&history));
    let differ = |a: &[(Vec<u8>, Vec<u8>)], b: &[(Vec<u8>, Vec<u8>)]| -> Vec<_> {
        a.iter().filter(|pair| !b.contains(pair)).map(|(key, value)| format!("{key:?} {value:?}")).collect()
    };
    assert!(grown == anew, "grown alone: {:#?}\nanew alone: {:#?}", differ(&grown, &anew), differ(&anew, &grown));
    index.stop();
    fresh.stop();
}

/// Damages that an index may suffer while nobody has it open.
const DAMAGES: [&str; 9] = [
    "everything deleted",
    "a file deleted",
    "a file cut",
    "a file emptied",
    "bytes overwritten",
    "bits flipped",
    "a stranger's file",
    "no directory but a file",
    "a directory deleted",
];

fn damage(kind: &str, history: &Path, rng: &mut Rng) {
    let files = files(history);
    let file = &files[rng.usize(0..files.len())];
    let mut bytes = std::fs::read(file).unwrap();
    let some = rng.usize(1..2000);
    match kind {
        "everything deleted" => return std::fs::remove_dir_all(history).unwrap(),
        "a file deleted" => return std::fs::remove_file(file).unwrap(),
        "a file cut" => bytes.truncate(rng.usize(0..=bytes.len())),
        "a file emptied" => bytes.clear(),
        "bytes overwritten" => {
            let at = rng.usize(0..=bytes.len());
            for byte in bytes.iter_mut().skip(at).take(some) {
                *byte = rng.u8(..);
            }
        }
        "bits flipped" => {
            for _ in 0..some.min(bytes.len()) {
                let at = rng.usize(0..bytes.len());
                bytes[at] ^= 1 << rng.u8(0..8);
            }
        }
        "a stranger's file" => return std::fs::write(history.join("notes.txt"), "mine").unwrap(),
        "no directory but a file" => {
            std::fs::remove_dir_all(history).unwrap();
            return std::fs::write(history, "no directory").unwrap();
        }
        "a directory deleted" => {
            let dirs = slices(history);
            return std::fs::remove_dir_all(&dirs[rng.usize(0..dirs.len())]).unwrap();
        }
        other => panic!("{other}"),
    }
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn d17_a_lost_or_damaged_index_heals_to_the_same_answers() {
    let mut rng = rng();
    let dir = tempfile::tempdir().unwrap();
    let mut world = world(dir.path(), &mut rng, 2500);
    let history = dir.path().join("history");
    let index = world.index(&history, SMALL);
    check(&index, &world);
    index.stop();
    let rounds = if std::env::var_os("BIOTOPE_TEST_LONG").is_some() { 20 } else { 2 };
    for round in 0..rounds {
        for kind in DAMAGES {
            damage(kind, &history, &mut rng);
            world.steps(&mut rng, 20);
            let index = world.index(&history, SMALL);
            // A failure names the damage.
            let said = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&index, &world)));
            assert!(said.is_ok(), "round {round}: {kind}: {:?}", index.standing());
            assert_eq!(index.standing().state, "ok", "round {round}: {kind}");
            index.stop();
        }
    }
}

#[test]
fn d17_an_index_of_another_log_or_ahead_of_it_is_made_anew() {
    let mut rng = rng();
    let dir = tempfile::tempdir().unwrap();
    let history = dir.path().join("history");
    let first = {
        let world = world(&dir.path().join("first"), &mut rng, 1000);
        let index = world.index(&history, SMALL);
        check(&index, &world);
        index.stop();
        world
    };
    // The same log id, and fewer records: the index is ahead.
    let mut fewer = world(&dir.path().join("fewer"), &mut rng, 300);
    let index = fewer.index(&history, SMALL);
    check(&index, &fewer);
    assert!(was_set_aside(&history));
    index.stop();
    std::fs::remove_dir_all(history.with_extension("aside")).unwrap();
    // More records than the index knows, but not those that it knows: the log went another way.
    let other = world(&dir.path().join("other"), &mut rng, 800);
    let index = other.index(&history, SMALL);
    check(&index, &other);
    assert!(was_set_aside(&history));
    assert_eq!(other.reader().damaged(), [], "an index that is wrong says nothing of the log");
    index.stop();
    std::fs::remove_dir_all(history.with_extension("aside")).unwrap();
    // Another log.
    let mut foreign = World::open(&dir.path().join("foreign"), [7; 16]);
    foreign.steps(&mut rng, 1500);
    let index = foreign.index(&history, SMALL);
    check(&index, &foreign);
    assert!(was_set_aside(&history));
    index.stop();
    // The right one again, and the same one twice.
    fewer.steps(&mut rng, 10);
    for world in [&first, &first] {
        let index = world.index(&history, SMALL);
        check(&index, world);
        index.stop();
    }
}

#[test]
fn where_space_is_short_or_the_quota_is_met_the_index_says_so_and_answers_for_the_rest() {
    let mut rng = rng();
    let dir = tempfile::tempdir().unwrap();
    let world = world(dir.path(), &mut rng, 4000);
    let wants_more = ArchiveOptions { free_min: u64::MAX, ..SMALL };
    let index = world.index(&dir.path().join("short"), wants_more);
    let standing = until(&index, || Some(index.standing()).filter(|standing| standing.state == "degraded"));
    assert!(standing.behind > 0 && standing.reason.as_ref().unwrap().contains("are free"), "{standing:?}");
    assert_eq!(index.covered(), None, "it has seen nothing, and does not claim to have");
    index.stop();

    let small = ArchiveOptions { bytes_max: 1, ..SMALL };
    let index = world.index(&dir.path().join("quota"), small);
    let visible = world.reader().visible_up_to();
    let covered = until(&index, || index.covered().filter(|covered| covered.end == visible));
    assert!(covered.start > 1, "the oldest directories gave way: {covered:?}");
    let ask = super::Ask { before: visible, limit: 10_000, ..super::Ask::default() };
    let page = index.ended(ask.clone()).unwrap();
    assert_eq!(page.down_to, covered.start);
    let expected: Vec<_> = world.expected(&ask).into_iter().filter(|(seq, _)| *seq >= covered.start).collect();
    assert_eq!(page.found.len(), expected.len());
    index.stop();
}
