//! What people do about a type or a job: forms that are sent, done by the engine's handle, and answered by the way back.

use axum::Form;
use axum::extract::State;
use axum::extract::rejection::FormRejection;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use super::told::{Told, back_to, in_address};
use crate::engine::JobAction;
use crate::http::asked::Path;
use crate::http::audit::Done;
use crate::http::problem::Problem;
use crate::http::{App, answer};
use crate::rollover::plan::Word;

/// What the form of a purge says beside its address.
#[derive(Deserialize)]
pub(super) struct Said {
    /// The name of the type, as it was typed.
    #[serde(default)]
    name: String,
}

/// Something that can be done about a type.
enum Deed {
    Pause(bool),
    Rollout(Word),
}

impl Deed {
    /// What is asked for, and the word by which it is told that it was done.
    fn of(word: &str) -> Option<(Self, &'static str)> {
        Some(match word {
            "pause" => (Self::Pause(true), "paused"),
            "resume" => (Self::Pause(false), "resumed"),
            "pause-rollout" => (Self::Rollout(Word::Pause), "ramp-paused"),
            "resume-rollout" => (Self::Rollout(Word::Resume), "ramp-resumed"),
            "promote" => (Self::Rollout(Word::Promote), "promoted"),
            "abort" => (Self::Rollout(Word::Abort), "aborted"),
            "rollback" => (Self::Rollout(Word::Rollback), "rolled-back"),
            _ => return None,
        })
    }
}

fn no_deed(word: &str) -> Told {
    Problem::new(StatusCode::NOT_FOUND, "no_route", format!("nothing here is called {word:?}")).into()
}

/// What was sent in a form.
pub(super) fn sent<T>(form: Result<Form<T>, FormRejection>) -> Result<T, Told> {
    form.map(|Form(said)| said).map_err(|error| Problem::bad_request(error.body_text()).into())
}

/// Refuses what cannot be undone unless the name was typed.
pub(super) fn check_typed(typed: &str, name: &str) -> Result<(), Told> {
    if typed.trim() == name {
        return Ok(());
    }
    let detail = format!("nothing was done: to do this, type {name:?} into the field beside the button");
    Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "not_confirmed", detail).into())
}

pub(super) async fn of_type(
    State(app): State<App>,
    Path((name, word)): Path<(String, String)>,
) -> Result<Response, Told> {
    let (deed, done) = Deed::of(&word).ok_or_else(|| no_deed(&word))?;
    match deed {
        Deed::Pause(paused) => drop(answer(&app.handle, |then| app.handle.pause(&name, paused, then)).await??),
        Deed::Rollout(word) => drop(answer(&app.handle, |then| app.handle.rollout(&name, word, then)).await??),
    }
    Ok(back_to(&format!("/types/{}?done={done}", in_address(&name))))
}

/// Has an address of its own, so that a role of its own can be asked for it.
pub(super) async fn purge(
    State(app): State<App>,
    Path(name): Path<String>,
    form: Result<Form<Said>, FormRejection>,
) -> Result<Response, Told> {
    check_typed(&sent(form)?.name, &name)?;
    let purged = answer(&app.handle, |then| app.handle.purge(&name, then)).await??;
    let mut response = back_to(&format!("/types/{}?done=purged&count={purged}", in_address(&name)));
    response.extensions_mut().insert(Done::to(purged as u64));
    Ok(response)
}

pub(super) async fn of_job(State(app): State<App>, Path((id, word)): Path<(String, String)>) -> Result<Response, Told> {
    let action = job_action(&word).ok_or_else(|| no_deed(&word))?;
    answer(&app.handle, |then| app.handle.act(&id, action, then)).await??;
    Ok(back_to(&format!("/jobs/{}?done={word}", in_address(&id))))
}

/// What can be done to a job, by its word.
pub(super) fn job_action(word: &str) -> Option<JobAction> {
    match word {
        "retry" => Some(JobAction::Retry),
        "cancel" => Some(JobAction::Cancel),
        "discard" => Some(JobAction::Discard),
        _ => None,
    }
}
