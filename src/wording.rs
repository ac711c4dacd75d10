//! How rollovers and the steps of a job read: one wording for the page and the command line.
//!
//! Owns the words; knows no views, since the page has values and the command line what an answer says.

use crate::figures::{ago, in_short};

/// A version on trial.
pub(crate) struct Trial<'a> {
    pub(crate) worker_type: &'a str,
    pub(crate) version: &'a str,
    pub(crate) baseline: &'a str,
    pub(crate) state: &'a str,
    pub(crate) percent: u64,
    /// The share that comes next; none: all.
    pub(crate) next: Option<u64>,
    pub(crate) paused: bool,
    /// It had taken over.
    pub(crate) stepped_back: bool,
    pub(crate) held_for_ms: u64,
    pub(crate) samples: u64,
    pub(crate) samples_missing: u64,
    /// First attempts on the one before meanwhile.
    pub(crate) beside: u64,
    /// The evidence.
    pub(crate) says: &'a str,
    /// That its runs take longer than those of the one before, if they do.
    pub(crate) slower: Option<&'a str>,
}

/// First attempts that a ramp should have been given by now, and was not, from which on that is told: chance does so once in
/// hundreds of millions.
const MISSED_MIN: u64 = 20;

/// A version that takes nothing new, and holds jobs.
pub(crate) struct Drain<'a> {
    pub(crate) in_flight: u64,
    /// Since when.
    pub(crate) for_ms: u64,
    pub(crate) eta_ms: Option<u64>,
    pub(crate) cut_off_in_ms: Option<u64>,
    /// The job that has been held for longest, and for how long.
    pub(crate) held_up_by: Option<(&'a str, u64)>,
}

/// The state of a version, with its share where it has a part of the work.
pub(crate) fn state(state: &str, percent: u64) -> String {
    let word = if state == "gating" { "first jobs" } else { state };
    if (1..100).contains(&percent) { format!("{word} {percent} %") } else { word.to_owned() }
}

/// A step of a job's life, by its word on the wire.
pub(crate) fn step(what: &str) -> &'static str {
    match what {
        "accepted" => "Accepted",
        "completed" => "Completed",
        "failed" => "Failed",
        "failed_uncharged" => "Failed, at no cost",
        "died" => "Failed, and is dead",
        "given_back" => "Given back by a drain or a stop, at no cost",
        "deferred" => "Given back for later by its worker",
        "not_started" => "No worker could be started",
        "lost" => "Lost with what ran it",
        "running" => "Runs",
        "redriven" => "Retried by hand: all attempts again",
        "cancelled" => "Cancelled",
        "expired" => "Expired",
        "discarded" => "Discarded",
        _ => "Went on",
    }
}

impl Trial<'_> {
    /// Whether somebody should know that it goes on.
    pub(crate) fn is_suspected(&self) -> bool {
        self.state == "suspected"
    }

    /// What goes on, in a few words.
    pub(crate) fn short(&self) -> String {
        let paused = if self.paused { ", paused" } else { "" };
        let Self { worker_type, version, percent, .. } = self;
        match self.state {
            "first_jobs" => format!("{worker_type} {version} does its first jobs"),
            "ramp" => format!("{worker_type} {version} on a ramp at {percent} %{paused}"),
            state => format!("{worker_type} {version} {}", if state == "probation" { "on probation" } else { state }),
        }
    }

    /// What goes on, what it waits for, and the evidence.
    pub(crate) fn words(&self) -> String {
        let Self { version, baseline, percent, .. } = self;
        let stands = match self.state {
            "first_jobs" => format!("{version} does its first jobs one at a time, {baseline} all others"),
            "ramp" => self.ramp(),
            "suspected" if !self.stepped_back => format!(
                "more fails on {version} than on {baseline}: its share stays at {percent} %, and most of that goes to {baseline}, \
                 until it is clear who is to blame"
            ),
            "suspected" => format!(
                "{version} had taken over, and more failed than before: {baseline} does all but {percent} % until it is \
                 clear who is to blame"
            ),
            "probation" => format!("{version} has taken over, on probation as long as {baseline} is kept"),
            other => format!("{version} {other}"),
        };
        if self.samples == 0 { stands } else { format!("{stands}; {}", self.says) }
    }

    fn ramp(&self) -> String {
        let next = self.next.map_or_else(|| "all".to_owned(), |next| format!("{next} %"));
        let mut line = format!("{} on a ramp at {} % (next {next})", self.version, self.percent);
        if self.paused {
            return line + &format!(", paused until `biotope rollout resume {}`", self.worker_type);
        }
        if self.held_for_ms > 0 {
            line += &format!(", held {} more", ago(&self.held_for_ms));
        }
        if self.samples == 0 && self.beside * self.percent / 100 >= MISSED_MIN {
            return line + &self.takes_nobody();
        }
        match self.samples_missing {
            0 => {}
            1 => line += ", 1 more first attempt needed",
            missing => line += &format!(", {missing} more first attempts needed"),
        }
        line
    }

    /// A share is of tenants, where jobs have any: of a few, a small one may hold none.
    fn takes_nobody(&self) -> String {
        let Self { worker_type, beside, .. } = self;
        format!(
            ", and none of the {beside} first attempts since was of a tenant in it: there are few. A larger step may hold some; \
             `biotope rollout promote {worker_type}` has it take over"
        )
    }

    /// What to know of a version under a suspicion.
    pub(crate) fn suspicion(&self) -> String {
        let Self { worker_type, .. } = self;
        format!("{worker_type}: {}; `biotope rollout abort {worker_type}` withdraws it now", self.words())
    }

    /// What to know of a version whose runs take longer.
    pub(crate) fn slowness(&self) -> Option<String> {
        let name = self.worker_type;
        let slower = self.slower?;
        Some(format!("{name}: {slower}; `biotope rollout abort {name}` withdraws it, if that is too long"))
    }

    /// What to know where nearly all fails.
    pub(crate) fn storm(&self) -> String {
        let Self { worker_type, version, baseline, .. } = self;
        format!(
            "{worker_type}: nearly all attempts fail while {version} is on trial; none is charged, and nothing dies. Look for \
             what {version} and {baseline} both need; `biotope pause {worker_type}` has the jobs wait"
        )
    }
}

impl Drain<'_> {
    /// What it holds, and when that is over.
    pub(crate) fn words(&self) -> String {
        let mut line = format!("{} in flight, draining for {}", self.in_flight, ago(&self.for_ms));
        if let Some(eta) = self.eta_ms {
            line += &format!(", through in about {}", ago(&eta));
        }
        if let Some(left) = self.cut_off_in_ms {
            line += &format!(", cut off in {}", ago(&left));
        }
        if let Some((job, age)) = self.held_up_by {
            line += &format!("; held up by {job}, at it for {}", ago(&age));
        }
        line
    }
}

/// What to know of a version that was withdrawn while the config asks for it.
pub(crate) fn withdrawn(worker_type: &str, version: &str, why: &str) -> String {
    format!(
        "{worker_type} {version} was withdrawn, and the config still asks for it: {}; put another version in the config and \
         reload, or try it again by `biotope rollout resume {worker_type}`",
        in_short(why)
    )
}

/// What to know of a version that did not come up.
pub(crate) fn rejected(worker_type: &str, version: &str, why: &str) -> String {
    format!("{worker_type} {version} was rejected: {}; mend it, then `biotope reload --wait`", in_short(why))
}

/// What to know of a version whose probation ended before its time.
pub(crate) fn no_way_back(worker_type: &str, says: &str) -> String {
    format!(
        "{worker_type}: {}; nothing makes up for its failures. If it does worse, put the version before in the config and reload",
        in_short(says)
    )
}

/// What to know of a config that not all runs of.
pub(crate) fn partial(generation: u64) -> String {
    format!("Not all of config generation {generation} runs: `biotope generations` says what does not, and why")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_is_told_with_what_it_waits_for() {
        let says = "v2 failed 1 of 9 first attempts that v1 then did";
        let trial = |state| Trial {
            worker_type: "press",
            version: "v2",
            baseline: "v1",
            state,
            percent: 10,
            next: None,
            paused: false,
            stepped_back: false,
            held_for_ms: 0,
            samples: 9,
            samples_missing: 1,
            beside: 1999,
            says,
            slower: None,
        };
        let ramp = trial("ramp");
        let line = format!("v2 on a ramp at 10 % (next all), 1 more first attempt needed; {says}");
        assert_eq!((ramp.words(), ramp.short()), (line, "press v2 on a ramp at 10 %".to_owned()));
        let paused = Trial { paused: true, samples: 0, ..trial("ramp") };
        assert_eq!(paused.words(), "v2 on a ramp at 10 % (next all), paused until `biotope rollout resume press`");
        assert_eq!(paused.short(), "press v2 on a ramp at 10 %, paused");
        assert!(
            trial("first_jobs").words().starts_with("v2 does its first jobs one at a time, v1 all others; v2 failed")
        );
        assert_eq!(trial("probation").short(), "press v2 on probation");
        let suspected = trial("suspected");
        assert!(suspected.is_suspected() && !ramp.is_suspected());
        let told = suspected.suspicion();
        assert!(told.contains("its share stays at 10 %") && told.contains("`biotope rollout abort press`"), "{told}");
        let back = Trial { stepped_back: true, ..suspected };
        assert!(back.suspicion().contains("v1 does all but 10 %"), "{}", back.suspicion());
    }

    #[test]
    fn a_way_back_that_is_none_is_told_with_what_to_do() {
        let told = no_way_back("press", "v2 was on probation, and v1 is gone\nfor good");
        assert!(told.starts_with("press: v2 was on probation, and v1 is gone; nothing makes up"), "{told}");
    }

    #[test]
    fn a_share_that_no_tenant_is_in_is_told() {
        let ramp = |percent, samples, beside| Trial {
            worker_type: "press",
            version: "v2",
            baseline: "v1",
            state: "ramp",
            percent,
            next: None,
            paused: false,
            stepped_back: false,
            held_for_ms: 0,
            samples,
            samples_missing: 100,
            beside,
            says: "",
            slower: None,
        };
        let nobody = ramp(1, 0, 2000).words();
        assert!(nobody.contains("none of the 2000 first attempts since was of a tenant in it"), "{nobody}");
        assert!(nobody.contains("`biotope rollout promote press`"), "{nobody}");
        for some in [ramp(1, 0, 1999), ramp(1, 1, 9000)] {
            assert!(some.words().contains("100 more first attempts needed"), "{}", some.words());
        }
    }

    #[test]
    fn a_share_stands_with_the_state_where_there_are_two() {
        let cases = [("ramping", 10), ("current", 90), ("current", 100), ("gating", 0), ("warm", 0)];
        let words = ["ramping 10 %", "current 90 %", "current", "first jobs", "warm"];
        assert_eq!(cases.map(|(of, percent)| state(of, percent)), words);
    }

    #[test]
    fn a_drain_of_which_nothing_is_known_is_told_short() {
        let drain = Drain { in_flight: 1, for_ms: 500, eta_ms: None, cut_off_in_ms: None, held_up_by: None };
        assert_eq!(drain.words(), "1 in flight, draining for 500 ms");
    }
}
