//! `biotope log`: looking into a log that is there, running or not, sound or not.

use std::path::PathBuf;

use clap::Subcommand;

use super::copies::{failed, new_id};
use super::print;
use crate::care::{self, DumpError, Source, damage_words};
use crate::exit::{DATA, Failure};
use crate::types::Seq;

#[derive(Debug, Subcommand)]
pub(super) enum LogCommand {
    /// Read every record and tell every place that does not hold; exit 65 if there is one
    #[command(
        after_help = "Changes nothing and takes no lock. Where a biotope runs on the directory, what is sealed and \
                            what is durable is looked at.\n\nExample: biotope log verify data"
    )]
    Verify {
        /// A data directory, or a backup
        dir: PathBuf,
    },
    /// Show the records, a line each
    #[command(after_help = "Example: biotope log dump data --json --from 1000 | head")]
    Dump {
        /// A data directory, or a backup
        dir: PathBuf,
        /// One JSON object a line, with payloads and results
        #[arg(long)]
        json: bool,
        /// Begin with this record
        #[arg(long, value_name = "SEQ", default_value_t = 1)]
        from: Seq,
    },
    /// Save what can be saved of a damaged log, and tell everything that is dropped
    #[command(after_help = "The original is never changed. The new directory has a log of its own identity.\n\n\
                            Example: biotope log salvage data --to data-salvaged")]
    Salvage {
        /// The data directory that is damaged
        dir: PathBuf,
        /// The data directory to make
        #[arg(long, value_name = "DIR2")]
        to: PathBuf,
    },
}

pub(super) fn run(command: &LogCommand) -> Result<(), Failure> {
    match command {
        LogCommand::Verify { dir } => verify(dir),
        LogCommand::Dump { dir, json, from } => {
            let source = Source::open(dir).map_err(|error| failed(&error))?;
            let dumped = care::dump(&source, *from, *json, &mut |line| print(line));
            dumped.map_err(|error| match error {
                DumpError::Care(error) => failed(&error),
                DumpError::Out(failure) => failure,
            })
        }
        LogCommand::Salvage { dir, to } => salvage(dir, to),
    }
}

fn verify(dir: &std::path::Path) -> Result<(), Failure> {
    let source = Source::open(dir).map_err(|error| failed(&error))?;
    let found = care::verify(&source).map_err(|error| failed(&error))?;
    let summary = &found.summary;
    if let Some(pid) = source.live() {
        print(&format!("process {pid} runs on it: what is sealed and what is durable was looked at"))?;
    }
    print(&format!(
        "segments {} to {}, {} frames, {} records, seqs {} to {}, epoch {}",
        summary.head,
        summary.tail,
        summary.frames,
        summary.records,
        summary.first_seq,
        summary.next_seq.saturating_sub(1),
        summary.epoch
    ))?;
    if let Some(live) = found.live_jobs {
        print(&format!("{live} jobs live"))?;
    }
    if summary.torn_bytes > 0 && source.live().is_none() {
        print(&format!(
            "{} B of an unfinished write at the end: nothing in them was acknowledged",
            summary.torn_bytes
        ))?;
    }
    for segment in &found.set_aside {
        print(&format!(
            "segment {segment} was damaged, and is kept beside the log, which needs nothing of it any more: remove it at will"
        ))?;
    }
    for damage in &found.damages {
        print(&format!("DAMAGED {}", damage_words(damage)))?;
    }
    if let Some((seq, why)) = &found.illegal {
        print(&format!("DAMAGED record {seq}: {why}"))?;
    }
    if found.is_sound() {
        return print("sound");
    }
    let count = summary.damages.max(1);
    let dir = dir.display();
    let noun = if count == 1 { "place does" } else { "places do" };
    let help = format!("restore a backup, or save the rest: biotope log salvage {dir} --to NEW_DIR");
    Err(Failure::new(DATA, format!("{dir}: {count} {noun} not hold; {help}")))
}

fn salvage(dir: &std::path::Path, to: &std::path::Path) -> Result<(), Failure> {
    let source = Source::open(dir).map_err(|error| failed(&error))?;
    let mut told = Ok(());
    let saved = care::salvage(&source, to, new_id()?, &mut |line| {
        if told.is_ok() {
            told = print(&format!("dropped: {line}"));
        }
    });
    let saved = saved.map_err(|error| failed(&error))?;
    told?;
    let torn = saved.summary.torn_bytes;
    if torn > 0 {
        print(&format!("dropped: {torn} B of an unfinished write at the end: nothing in them was acknowledged"))?;
    }
    let (kept, dropped, live) = (saved.summary.records, saved.dropped, saved.live_jobs);
    let line = format!("{kept} records hold, {dropped} are dropped, {live} jobs live in {}", to.display());
    print(&line)?;
    if dropped > 0 {
        print("a job whose end was dropped runs again; a job whose first record was dropped is gone")?;
    }
    Ok(())
}
