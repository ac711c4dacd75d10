//! How near the core runs to its disk, and what a waiting job costs: one program, a question a file.
//!
//! `cargo bench --bench core -- QUESTION [JOBS]`; `benches/README.md` lists the questions. Without one it answers all of
//! them with as many jobs as a machine has time for. An id carries every variable: sync policy, bytes of a record,
//! threads.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a program that measures, and prints")]

mod churn;
mod flat;
mod hand_off;
mod log_append;
mod memory;
#[cfg(feature = "daemon")]
mod persistent;
#[cfg(feature = "daemon")]
mod programs;
mod push;
mod raw;
#[cfg(feature = "daemon")]
mod rollover;
#[cfg(feature = "daemon")]
mod services;
mod setup;

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(feature = "daemon")]
    if let Some(lock) = biotope::worker::spawner::asked() {
        return biotope::worker::spawner::serve(&lock);
    }
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let jobs = |word: Option<&&str>, usual: usize| word.map_or(usual, |word| word.parse().expect("a number of jobs"));
    match words.as_slice() {
        [] => {
            log_append::run();
            push::run();
            flat::run(100_000);
            memory::run("made", 200_000);
            memory::run("named", 200_000);
            churn::run(1_000_000);
            #[cfg(feature = "daemon")]
            services::run(64, 50_000);
            #[cfg(feature = "daemon")]
            programs::run(1_000, 0);
            #[cfg(feature = "daemon")]
            persistent::run(20_000);
            hand_off::run();
            #[cfg(feature = "daemon")]
            rollover::run();
        }
        ["log_append"] => log_append::run(),
        ["push"] => push::run(),
        ["churn", rest @ ..] => churn::run(jobs(rest.first(), 20_000_000)),
        ["flat", rest @ ..] => flat::run(jobs(rest.first(), 1_000_000)),
        ["memory", names @ ("made" | "named" | "delayed"), rest @ ..] => {
            memory::run(names, jobs(rest.first(), 1_000_000))
        }
        #[cfg(feature = "daemon")]
        ["services", rest @ ..] => services::run(64, jobs(rest.first(), 100_000)),
        #[cfg(feature = "daemon")]
        ["programs", rest @ ..] => programs::run(jobs(rest.first(), 2_000), jobs(rest.get(1), 0)),
        #[cfg(feature = "daemon")]
        ["persistent", rest @ ..] => persistent::run(jobs(rest.first(), 50_000)),
        ["hand_off"] => hand_off::run(),
        #[cfg(feature = "daemon")]
        ["rollover"] => rollover::run(),
        #[cfg(feature = "daemon")]
        ["endpoint"] => services::serve(),
        ["fill", dir, names, number] => memory::fill(dir.as_ref(), names, jobs(Some(number), 0)),
        ["serve", dir] => memory::serve(dir.as_ref()),
        other => panic!(
            "no such question: {other:?}; log_append, push, flat [JOBS], churn [JOBS], memory made|named|delayed [JOBS], \
             services [JOBS], programs [JOBS [WAITING]], persistent [JOBS], hand_off, rollover"
        ),
    }
    ExitCode::SUCCESS
}
