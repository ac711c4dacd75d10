//! `biotope backup` and `biotope restore`: whole copies of a data directory.

use std::path::Path;

use axum::http::Method;
use http_body_util::BodyExt;

use super::client::{Client, Url, whole};
use super::print;
use crate::care::{self, CareError, Source, Target};
use crate::exit::{CONFIG, DATA, Failure, IO, SYSTEM, UNAVAILABLE};
use crate::log::LogId;
use crate::log::look::Summary;
use crate::worker::native::Natives;

/// How looking after a directory ended, as a command ends.
pub(super) fn failed(error: &CareError) -> Failure {
    Failure::new(error.exit_code(), error.to_string())
}

/// The identity of a log to be made.
pub(super) fn new_id() -> Result<LogId, Failure> {
    let mut id = [0; 16];
    let drawn = getrandom::fill(&mut id);
    drawn.map_err(|error| Failure::new(SYSTEM, format!("cannot draw a random number: {error}")))?;
    Ok(id)
}

fn tell(what: &str, to: &Path, summary: &Summary) -> Result<(), Failure> {
    let (head, tail, records) = (summary.head, summary.tail, summary.records);
    print(&format!("{what} {}: segments {head} to {tail}, {records} records, read back and sound", to.display()))
}

/// Copies the data directory that a config names: by way of the process that runs on it, if one does.
pub(super) fn backup(config: &Path, natives: &Natives, to: &Path) -> Result<(), Failure> {
    let text = std::fs::read_to_string(config)
        .map_err(|error| Failure::new(CONFIG, format!("cannot read the config {}: {error}", config.display())))?;
    let parsed = crate::config::parse(&config.display().to_string(), &text, &natives.names())
        .map_err(|problems| Failure::new(CONFIG, problems.to_string()))?;
    let dir = config.parent().unwrap_or(Path::new(".")).join(&parsed.config.data_dir);
    let source = Source::open(&dir).map_err(|error| failed(&error))?;
    if source.live().is_some() {
        return backup_running(&Client::new(Url::of_config(config, natives)?)?, to);
    }
    let summary = care::backup(&source, to).map_err(|error| failed(&error))?;
    tell("backed up to", to, &summary)
}

/// Copies what a running biotope has.
pub(super) fn backup_running(client: &Client, to: &Path) -> Result<(), Failure> {
    let target = Target::make(to).map_err(|error| failed(&error))?;
    let mut receiver = target.receiver();
    let write = |error: &std::io::Error| Failure::new(IO, format!("no backup was made in {}: {error}", to.display()));
    client.block_on(async {
        let answer = client.send(Method::POST, "/v1/backup", "application/octet-stream", whole("")).await?;
        let mut body = answer.body;
        if !answer.status.is_success() {
            let text = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            return Err(client.refused(answer.status, &text));
        }
        while let Some(frame) = body.frame().await {
            let broke = |error| Failure::new(UNAVAILABLE, format!("the backup broke off: {error}"));
            if let Ok(piece) = frame.map_err(broke)?.into_data() {
                receiver.take(&piece).map_err(|error| write(&error))?;
            }
        }
        Ok(())
    })?;
    receiver.finish().map_err(|error| write(&error))?;
    let summary = target.read_back().map_err(|error| Failure::new(DATA, error.to_string()))?;
    target.finish().map_err(|error| failed(&error))?;
    tell("backed up to", to, &summary)
}

pub(super) fn restore(dir: &Path, to: &Path) -> Result<(), Failure> {
    let source = Source::open(dir).map_err(|error| failed(&error))?;
    let summary = care::restore(&source, to, new_id()?).map_err(|error| failed(&error))?;
    tell("restored to", to, &summary)
}
