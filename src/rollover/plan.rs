//! From what a config asks of a type, or somebody's command, and what stands, to what is done.
//!
//! Pure. Versions go by their numbers.

/// What stands of one type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// The version that new work goes to.
    pub current: Option<u32>,
    /// The one that starts, or is tried again and again.
    pub starting: Option<u32>,
    /// Whether that could not be started when it was last tried.
    pub not_up: bool,
    /// The one on trial that has not taken over: it does its first jobs, or gets a share.
    pub on_trial: Option<u32>,
    /// The one whose workers stay for a way back.
    pub warm: Option<u32>,
    /// The one that work went to before, as recorded.
    pub previous: Option<u32>,
}

/// What a config asks of one type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// The version.
    pub version_no: u32,
    /// Whether its settings differ from those that stand.
    pub live_changed: bool,
    /// Whether it was withdrawn.
    pub quarantined: bool,
    /// Whether the config before asked for it already: then nobody wants anything else now.
    pub same_as_before: bool,
}

/// What is to be done about one type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Same,
    /// Other settings for what runs.
    Live,
    /// What runs goes on: the version that is asked for was withdrawn.
    Withheld,
    /// What new work goes to now is asked for again: what starts, or is on trial, ends.
    Stay,
    /// The version whose workers stayed takes over again, at once.
    Back,
    /// The version is started after the one that starts, since nothing else serves the type yet.
    StartNext,
    /// The version is started.
    Start,
}

/// What a config that asks for this is to lead to.
pub fn step(standing: Standing, asked: Asked) -> Step {
    let is = |version: Option<u32>| version == Some(asked.version_no);
    let heading_for = standing.starting.or(standing.on_trial).or(standing.current);
    if is(heading_for) {
        return if asked.live_changed { Step::Live } else { Step::Same };
    }
    if asked.quarantined && serving(standing).is_some() {
        return Step::Withheld;
    }
    // Somebody has gone back since that config was taken over: to read it once more is no reason to undo that.
    if asked.same_as_before && is_back(standing, asked) {
        return if asked.live_changed { Step::Live } else { Step::Same };
    }
    if is(standing.current) {
        return Step::Stay;
    }
    if is(standing.warm) {
        return Step::Back;
    }
    if standing.current.is_none() && standing.starting.is_some() && !standing.not_up {
        return Step::StartNext;
    }
    Step::Start
}

fn is_back(standing: Standing, asked: Asked) -> bool {
    serving(standing).is_some() && standing.previous == Some(asked.version_no)
}

/// The version that does the work, or is about to.
fn serving(standing: Standing) -> Option<u32> {
    standing.current.or(standing.starting.filter(|_| !standing.not_up))
}

/// Somebody's word about the rollover of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// The share stays as it is.
    Pause,
    /// It grows again; or a version that was withdrawn is tried again.
    Resume,
    /// The version takes over now.
    Promote,
    /// The version is withdrawn now.
    Abort,
    /// Work goes to the version before.
    Rollback,
}

/// What somebody's word leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// The trial stays where it is.
    Hold,
    /// The trial goes on.
    GoOn,
    /// The version on trial takes over.
    TakeOver,
    /// The version on trial is withdrawn.
    Withdraw,
    /// The version whose workers stayed takes over.
    Back,
    /// This version is started.
    Start(u32),
}

/// Why nothing can be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Idle {
    /// Nothing of its work is done.
    #[error("the config does not have the type")]
    NotInConfig,
    /// There is no ramp.
    #[error("no version is on trial")]
    NoTrial,
    /// It has taken over already: only to withdraw it makes sense.
    #[error("the version has taken over already; `abort` withdraws it, `rollback` goes back to the one before")]
    TakenOver,
    /// Nothing to go back to.
    #[error("there is no version to go back to")]
    NoPrevious,
    /// What was there before was withdrawn.
    #[error(
        "the version before was withdrawn; to try it again nevertheless, change the config back to it and use `resume`"
    )]
    PreviousWithdrawn,
    /// It starts: there is nothing to decide yet.
    #[error("the version still starts")]
    Starts,
}

/// What more is to be known for somebody's word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Known {
    /// The version on probation, if one is.
    pub probation: Option<u32>,
    /// The version that the config asks for, if it was withdrawn.
    pub withdrawn: Option<u32>,
    /// Whether the version before was withdrawn.
    pub previous_withdrawn: bool,
}

/// What somebody's word is to lead to.
///
/// # Errors
/// Nothing is there that it could be about.
pub fn deed(word: Word, standing: Standing, known: Known) -> Result<Deed, Idle> {
    let nothing = || match (standing.starting, known.probation) {
        (Some(_), _) => Idle::Starts,
        (None, Some(_)) => Idle::TakenOver,
        (None, None) => Idle::NoTrial,
    };
    match (word, standing.on_trial) {
        (Word::Pause, Some(_)) => Ok(Deed::Hold),
        (Word::Resume, Some(_)) => Ok(Deed::GoOn),
        (Word::Resume, None) => known.withdrawn.map(Deed::Start).ok_or_else(nothing),
        (Word::Promote, Some(_)) => Ok(Deed::TakeOver),
        (Word::Abort | Word::Rollback, Some(_)) => Ok(Deed::Withdraw),
        (Word::Abort, None) if known.probation.is_some() => Ok(Deed::Withdraw),
        (Word::Pause | Word::Promote | Word::Abort, None) => Err(nothing()),
        (Word::Rollback, None) if known.previous_withdrawn => Err(Idle::PreviousWithdrawn),
        (Word::Rollback, None) => match (standing.warm, standing.previous) {
            (Some(warm), Some(previous)) if warm == previous => Ok(Deed::Back),
            (_, Some(previous)) => Ok(Deed::Start(previous)),
            (_, None) => Err(Idle::NoPrevious),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing() -> Standing {
        Standing { current: Some(1), ..Standing::default() }
    }

    fn asked(version_no: u32) -> Asked {
        Asked { version_no, live_changed: false, quarantined: false, same_as_before: false }
    }

    #[test]
    fn every_config_leads_where_it_should() {
        let nothing = Standing::default();
        let starts = Standing { starting: Some(2), ..standing() };
        let first_starts = Standing { starting: Some(1), ..nothing };
        let first_fails = Standing { not_up: true, ..first_starts };
        let on_trial = Standing { on_trial: Some(2), ..standing() };
        let over = Standing { current: Some(2), warm: Some(1), previous: Some(1), ..nothing };
        let cold = Standing { warm: None, ..over };
        let back = Standing { current: Some(1), warm: Some(2), previous: Some(2), ..nothing };
        let live = |no| Asked { live_changed: true, ..asked(no) };
        let withdrawn = |no| Asked { quarantined: true, ..asked(no) };
        let again = |no| Asked { same_as_before: true, ..asked(no) };
        let cases = [
            (nothing, asked(1), Step::Start),
            (nothing, withdrawn(1), Step::Start),
            (standing(), asked(1), Step::Same),
            (standing(), live(1), Step::Live),
            (standing(), asked(2), Step::Start),
            (standing(), withdrawn(2), Step::Withheld),
            (first_starts, asked(2), Step::StartNext),
            (first_starts, withdrawn(2), Step::Withheld),
            (Standing { previous: Some(2), ..first_starts }, again(2), Step::Same),
            (first_fails, asked(2), Step::Start),
            (first_fails, withdrawn(2), Step::Start),
            (starts, asked(2), Step::Same),
            (starts, live(2), Step::Live),
            (starts, asked(3), Step::Start),
            (starts, asked(1), Step::Stay),
            (on_trial, asked(2), Step::Same),
            (on_trial, asked(3), Step::Start),
            (on_trial, asked(1), Step::Stay),
            (over, asked(1), Step::Back),
            (cold, asked(1), Step::Start),
            (over, again(1), Step::Same),
            (over, asked(3), Step::Start),
            (back, asked(2), Step::Back),
            (back, again(2), Step::Same),
        ];
        for (standing, asked, expected) in cases {
            assert_eq!(step(standing, asked), expected, "{standing:?} {asked:?}");
        }
    }

    #[test]
    fn every_word_is_carried_out_or_answered_with_a_reason() {
        let on_trial = Standing { on_trial: Some(2), ..standing() };
        let over = Standing { current: Some(2), warm: Some(1), previous: Some(1), ..Standing::default() };
        let cold = Standing { warm: None, ..over };
        let starts = Standing { starting: Some(2), ..standing() };
        let none = Known::default();
        let probation = Known { probation: Some(2), ..none };
        let withdrawn = Known { withdrawn: Some(2), ..none };
        let cases = [
            (Word::Pause, on_trial, none, Ok(Deed::Hold)),
            (Word::Resume, on_trial, none, Ok(Deed::GoOn)),
            (Word::Promote, on_trial, none, Ok(Deed::TakeOver)),
            (Word::Abort, on_trial, none, Ok(Deed::Withdraw)),
            (Word::Rollback, on_trial, none, Ok(Deed::Withdraw)),
            (Word::Pause, standing(), none, Err(Idle::NoTrial)),
            (Word::Promote, starts, none, Err(Idle::Starts)),
            (Word::Promote, over, probation, Err(Idle::TakenOver)),
            (Word::Abort, over, probation, Ok(Deed::Withdraw)),
            (Word::Abort, over, none, Err(Idle::NoTrial)),
            (Word::Resume, standing(), withdrawn, Ok(Deed::Start(2))),
            (Word::Resume, standing(), none, Err(Idle::NoTrial)),
            (Word::Rollback, over, probation, Ok(Deed::Back)),
            (Word::Rollback, cold, none, Ok(Deed::Start(1))),
            (Word::Rollback, standing(), none, Err(Idle::NoPrevious)),
            (Word::Rollback, over, Known { previous_withdrawn: true, ..none }, Err(Idle::PreviousWithdrawn)),
        ];
        for (word, standing, known, expected) in cases {
            assert_eq!(deed(word, standing, known), expected, "{word:?} {standing:?} {known:?}");
        }
    }
}
