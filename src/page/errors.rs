//! Errors that say the same, told once: grouped by their text, whatever numbers stand in it.

use super::jobs;
use crate::engine::Handle;
use crate::engine::view::{JobFilter, JobView};
use crate::figures::in_short;
use crate::limits::ERROR_SEARCH_BYTES_MAX;
use crate::refusal::Refusal;
use crate::types::WorkerType;

/// Dead jobs that are looked at for their errors.
const DEAD_LOOKED_AT: usize = 500;
/// Calls of the listing for them, each of which reads a bounded part of the log.
const DEAD_CALLS_MAX: usize = 4;

/// Groups that are shown.
const GROUPS_SHOWN: usize = 20;
/// A hexadecimal word with a digit in it that is as long as this is an id.
const ID_FROM: usize = 8;

/// The dead jobs of a type by their errors, of as many as were looked at.
#[derive(Debug, Default)]
pub(super) struct Errors {
    pub(super) groups: Vec<Group>,
    pub(super) looked_at: usize,
    /// Whether there are more.
    pub(super) more: bool,
}

/// Jobs that failed alike.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) count: usize,
    /// What it says: the first line of the newest one, and the last where that is another.
    pub(super) says: String,
    /// A part of the text that all of them have, to search for.
    pub(super) search: String,
    /// The versions on which they failed last.
    pub(super) versions: Vec<String>,
    /// The newest one.
    pub(super) id: String,
    /// When that failed.
    pub(super) at: Option<String>,
}

/// Whether a word is an id: hexadecimal, with a digit, and long.
fn is_id(word: &str) -> bool {
    let is_hex = word.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    is_hex && word.len() >= ID_FROM && word.bytes().any(|byte| byte.is_ascii_digit())
}

/// The text without the numbers in it, which differ from one to the next of its kind: the parts between them.
fn parts(error: &str) -> Vec<&str> {
    let place = |part: &str| part.as_ptr() as usize - error.as_ptr() as usize;
    let mut parts = Vec::new();
    let mut from = 0;
    for word in error.split(|c: char| !c.is_ascii_alphanumeric() && c != '-') {
        let pieces: Vec<&str> =
            if is_id(word) { vec![word] } else { word.split(|c: char| !c.is_ascii_digit()).collect() };
        for number in pieces.into_iter().filter(|piece| !piece.is_empty()) {
            parts.push(error.get(from..place(number)).unwrap_or_default());
            from = place(number) + number.len();
        }
    }
    parts.push(error.get(from..).unwrap_or_default());
    parts
}

/// A text without the blanks and marks around it.
fn bare(text: &str) -> &str {
    text.trim_matches(|c: char| !c.is_alphanumeric())
}

/// A part of an error to look for: all of its group have it, and of the others as few as can be; the longest such one.
fn to_search(error: &str, others: &[&str]) -> String {
    let lines = parts(error).into_iter().flat_map(str::lines).map(bare).filter(|line| !line.is_empty());
    let hits = |line: &str| others.iter().filter(|other| other.contains(line)).count();
    let best = lines.min_by_key(|line| (hits(line), std::cmp::Reverse(line.len()))).unwrap_or_default();
    let mut end = best.len().min(ERROR_SEARCH_BYTES_MAX);
    while !best.is_char_boundary(end) {
        end -= 1;
    }
    best.get(..end).unwrap_or_default().to_owned()
}

fn says(error: &str) -> String {
    let mut lines = error.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = in_short(lines.next().unwrap_or_default());
    let between = if first.ends_with(':') { "" } else { " …" };
    lines.next_back().map_or_else(|| first.clone(), |last| format!("{first}{between} {}", in_short(last)))
}

/// The newest dead jobs of a type, by their errors.
pub(super) fn of_dead(handle: &Handle, of: WorkerType) -> Result<Errors, Refusal> {
    let state = Some("dead".to_owned());
    let filter = JobFilter { worker_type: Some(of), state, limit: DEAD_LOOKED_AT, ..JobFilter::default() };
    let (dead, next) = jobs::gather(handle, filter, DEAD_CALLS_MAX)?;
    Ok(Errors { groups: groups(&dead), looked_at: dead.len(), more: next.is_some() })
}

/// The largest groups of these jobs, newest job first.
pub(super) fn groups(jobs: &[JobView]) -> Vec<Group> {
    let mut groups: Vec<(&str, Vec<&str>, Group)> = Vec::new();
    for job in jobs {
        let error = job.error.as_deref().unwrap_or_default();
        let key = parts(error);
        let version = job.failures.last().and_then(|failure| failure.version.clone()).or_else(|| job.version.clone());
        if let Some((_, _, group)) = groups.iter_mut().find(|(_, known, _)| *known == key) {
            group.count += 1;
            if let Some(version) = version.filter(|version| !group.versions.contains(version)) {
                group.versions.push(version);
            }
            continue;
        }
        let group = Group {
            count: 1,
            says: says(error),
            search: String::new(),
            versions: version.into_iter().collect(),
            id: job.id.clone(),
            at: job.failures.last().map(|failure| failure.at.clone()),
        };
        groups.push((error, key, group));
    }
    groups.sort_by_key(|(_, _, group)| std::cmp::Reverse(group.count));
    groups.truncate(GROUPS_SHOWN);
    let errors: Vec<&str> = groups.iter().map(|(error, _, _)| *error).collect();
    let with_search = |(error, _, group): (&str, _, Group)| {
        let others: Vec<&str> = errors.iter().copied().filter(|other| *other != error).collect();
        Group { search: to_search(error, &others), ..group }
    };
    groups.into_iter().map(with_search).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::tests::job;

    #[test]
    fn what_differs_in_numbers_alone_is_the_same() {
        let all = ["refused after 3 tries (pid 4711)", "refused after 12 tries (pid 9)", "no such font", ""];
        let jobs: Vec<JobView> = all.iter().enumerate().map(|(no, error)| job(&format!("j{no}"), error)).collect();
        let groups = groups(&jobs);
        let counts: Vec<(usize, &str, &str)> =
            groups.iter().map(|group| (group.count, &*group.says, &*group.search)).collect();
        let refused = (2, "refused after 3 tries (pid 4711)", "refused after");
        assert_eq!(counts, [refused, (1, "no such font", "no such font"), (1, "", "")]);
        assert_eq!((&*groups[0].id, &groups[0].versions), ("j0", &vec!["v1".to_owned()]));
    }

    #[test]
    fn words_are_no_numbers_and_ids_are() {
        assert_eq!(parts("bad face 12"), ["bad face ", ""]);
        assert_eq!(parts("order 0199c0de-aaaa-7000 is gone"), ["order ", " is gone"]);
        assert_eq!(parts("x86 or utf8"), ["x", " or utf", ""]);
        assert_eq!(parts("dead beef"), ["dead beef"]);
    }

    #[test]
    fn a_trace_is_told_by_its_first_and_its_last_line() {
        let error = "Traceback (most recent call last):\n  File \"a.py\", line 3\nValueError: no";
        assert_eq!(says(error), "Traceback (most recent call last): ValueError: no");
        assert_eq!(says("first it did\nand then it died"), "first it did … and then it died");
        assert_eq!(to_search(error, &[]), "Traceback (most recent call last");
        // What others say too does not find these.
        assert_eq!(to_search(error, &[&error.replace("ValueError: no", "KeyError")]), "ValueError: no");
        assert!(to_search(&"\u{e9}".repeat(400), &[]).len() <= ERROR_SEARCH_BYTES_MAX);
    }
}
