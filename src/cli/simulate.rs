//! `biotope simulate`: the core in simulated worlds, for everybody who wants to see it hold.

use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::print;
use crate::clock::{Clock, RealClock};
use crate::exit::{BUG, Failure};
use crate::simulate::{self, Campaign};

/// How long worlds are simulated if nothing is said.
const MINUTES: f64 = 1.0;

/// What is simulated.
#[derive(Debug, Args)]
pub(super) struct SimulateArgs {
    /// The first world's seed; each world takes the next one [default: drawn, and printed]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Worlds to simulate
    #[arg(long, value_name = "N")]
    runs: Option<u64>,
    /// Minutes after which no world is begun [default: 1, unless --runs is given]
    #[arg(long, value_name = "M", value_parser = minutes)]
    minutes: Option<f64>,
    /// Threads [default: one a core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Instead of worlds: open every image that a power cut may leave of the small workloads
    #[arg(long)]
    crash_images: bool,
    /// Instead of worlds: fail every call of the disk in the small workloads, once and for ever
    #[arg(long)]
    failed_calls: bool,
    /// Instead of worlds: flip so many bits of a log, or all of them
    #[arg(long, value_name = "N|all")]
    bits: Option<String>,
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=1e6).contains(&minutes) { Ok(minutes) } else { Err("not between 0 and 1000000".to_owned()) }
}

/// Simulates. What does not hold is a bug (70).
pub(super) fn simulate(args: &SimulateArgs) -> Result<(), Failure> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = args.threads.unwrap_or(cores).clamp(1, 1024);
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..1 << 48));
    print(&format!("{}, seed {seed}, {threads} threads", program()))?;
    let mut elsewhere = false;
    if args.crash_images {
        elsewhere = true;
        crash_images(threads)?;
    }
    if args.failed_calls {
        elsewhere = true;
        failed_calls(threads)?;
    }
    if let Some(bits) = &args.bits {
        elsewhere = true;
        flip_bits(seed, bits, threads)?;
    }
    if elsewhere { Ok(()) } else { worlds(args, seed, threads) }
}

/// The program that found something: its version, its commit if the build knew it, and its own checksum.
fn program() -> String {
    let sum = crate::own::path().and_then(std::fs::read).map(|bytes| crc32fast::hash(&bytes));
    let sum = sum.map_or_else(|_| "unreadable".to_owned(), |sum| format!("{sum:08x}"));
    format!("biotope {}, program {sum}", super::version::of_program())
}

fn bar(length: Option<u64>, what: &'static str) -> ProgressBar {
    // It draws on a terminal only.
    let bar = length.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    let template = if length.is_some() {
        "{elapsed} {wide_bar} {pos}/{len} {msg}, {per_sec}"
    } else {
        "{spinner} {elapsed} {pos} {msg}, {per_sec}"
    };
    let style = ProgressStyle::with_template(template);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(what);
    bar
}

fn worlds(args: &SimulateArgs, seed: u64, threads: usize) -> Result<(), Failure> {
    let minutes = args.minutes.or(args.runs.is_none().then_some(MINUTES));
    let time = minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0));
    let campaign = Campaign { seed, runs: args.runs, time, threads };
    let bar = bar(args.runs, "worlds");
    let report = campaign.run(&RealClock, &|more| bar.inc(more));
    bar.finish_and_clear();
    print(report.figures.to_string().trim_end())?;
    let crashes = report.figures.total("crash");
    let seconds = report.took.as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let rate = crashes as f64 / seconds.max(0.001) / threads as f64;
    print(&format!(
        "{} worlds held, {crashes} crashes and starts in {seconds:.1} s, {rate:.0} a second and thread",
        report.worlds
    ))?;
    if let Some(failure) = report.failure {
        let again = format!("again: biotope simulate --seed {} --runs 1 --threads 1", failure.seed);
        return Err(Failure::new(BUG, format!("something does not hold; {}\n{failure}{again}", program())));
    }
    if report.missing.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(BUG, format!("never happened in {} worlds: {}", report.worlds, report.missing.join(", "))))
    }
}

fn crash_images(threads: usize) -> Result<(), Failure> {
    let bar = bar(Some(simulate::workload_count()), "workloads");
    let counts = simulate::crash_images(threads, &|more| bar.inc(more));
    bar.finish_and_clear();
    let counts = counts.map_err(|what| Failure::new(BUG, format!("a crash image does not hold: {what}")))?;
    print(&format!(
        "crash images: {} workloads cut at {} calls, {} images, {} of them distinct and opened, {} openings cut",
        counts.workloads, counts.cuts, counts.images, counts.distinct, counts.recoveries
    ))
}

fn failed_calls(threads: usize) -> Result<(), Failure> {
    let bar = bar(Some(simulate::workload_count()), "workloads");
    let figures = simulate::failed_calls(threads, &|more| bar.inc(more));
    bar.finish_and_clear();
    let figures = figures.map_err(|what| Failure::new(BUG, format!("a failed call does not hold: {what}")))?;
    let rows = |column: &str| figures.total(column);
    let [once, ever] = ["Once", "ForEver"]
        .map(|fault| rows(&format!("{fault} fault while serving")) + rows(&format!("{fault} fault while opening")));
    print(figures.to_string().trim_end())?;
    print(&format!("failed calls: {} workloads, {once} calls failed once, {ever} for ever", simulate::workload_count()))
}

fn flip_bits(seed: u64, bits: &str, threads: usize) -> Result<(), Failure> {
    let sample = match bits {
        "all" => None,
        number => Some(number.parse().map_err(|_| {
            Failure::new(crate::exit::USAGE, format!("--bits takes a number, or all, and not {number:?}"))
        })?),
    };
    let clock = RealClock;
    let began = clock.mono();
    let bar = bar(sample, "bits");
    let counts = simulate::flip_bits(seed, sample, threads, &|more| bar.inc(more));
    bar.finish_and_clear();
    let counts =
        counts.map_err(|what| Failure::new(BUG, format!("a flipped bit is not noticed (seed {seed}): {what}")))?;
    print(&format!(
        "bits: a log of {} bits; {} flipped under a reader, all noticed; {} flipped before it was opened: {} refused, {} in the last seal; {:.1} s",
        counts.bits,
        counts.read,
        counts.refused + counts.cut,
        counts.refused,
        counts.cut,
        clock.mono().saturating_sub(began).as_secs_f64()
    ))
}
