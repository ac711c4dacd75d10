//! The command line: what people and scripts type.
//!
//! Owns arguments, exit codes (sysexits) and what is printed. Speaks to a running biotope by HTTP alone; `run` is the
//! daemon's. Results go to stdout, everything else to stderr, one readable line an error.

mod client;
mod copies;
mod credentials;
mod log;
mod pages;
mod push;
mod reload;
mod rollovers;
mod show;
mod simulate;
mod status;
mod upgrade;
mod version;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::daemon::Given;
use crate::exit::{CONFIG, Failure, IO, USAGE};
use crate::figures::counted;
use crate::systemd::Sockets;
use crate::takeover::Arrival;
use crate::worker::native::Natives;
use client::{Client, Url};

/// One binary in which worker ecosystems live: a durable job log, worker pools, and rollover by signal.
#[derive(Debug, Parser)]
#[command(name = "biotope", version = version::of_program(), max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    /// The config file [default: ./biotope.toml, then /etc/biotope/biotope.toml]
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "url")]
    config: Option<PathBuf>,
    /// Where a biotope runs, instead of what the config says
    #[arg(long, global = true, value_name = "URL")]
    url: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a biotope until a signal ends it
    #[command(after_help = "Example: biotope run /etc/biotope/biotope.toml")]
    Run {
        /// The config file
        file: Option<PathBuf>,
        /// Do not start with a config that does not pass; without this, the last accepted one runs then
        #[arg(long)]
        strict: bool,
    },
    /// Check a config file, and everything that it names
    #[command(after_help = "Example: biotope check-config biotope.toml && biotope reload --wait")]
    CheckConfig {
        /// The config file
        file: Option<PathBuf>,
    },
    /// Enqueue a job, or one a line
    #[command(after_help = "Example: biotope push order-processor '{\"order\":\"o-1\"}'")]
    Push(PushArgs),
    /// Show what lives here
    #[command(after_help = "Example: biotope status")]
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Say in one sentence why a job is not running now
    #[command(after_help = "Example: biotope why 01997b4e-0000-7000-8000-000000000000")]
    Why {
        /// Its id
        id: String,
    },
    /// Have the config file taken over, as SIGHUP does
    #[command(after_help = "Example: biotope reload --wait")]
    Reload {
        /// Wait until all versions are up or rejected, and old ones gone
        #[arg(long)]
        wait: bool,
    },
    /// List the last configs: when, what they changed, what became of them; and those that were refused
    #[command(after_help = "Example: biotope generations --json")]
    Generations {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Replace the running program by the file that lies where it was started from, as SIGUSR2 does
    #[command(
        after_help = "Example: cp biotope-2 /usr/local/bin/.new && mv /usr/local/bin/.new /usr/local/bin/biotope && biotope upgrade --wait"
    )]
    Upgrade {
        /// Wait until the new one serves, or the old one goes on
        #[arg(long)]
        wait: bool,
    },
    /// Say whether this program could take over from one that runs; asked by that one
    #[command(hide = true)]
    TakeoverCheck,
    /// List, show or change jobs
    #[command(subcommand, after_help = "Example: biotope jobs list --state dead")]
    Jobs(JobsCommand),
    /// Look into a log: verify, dump, salvage
    #[command(subcommand, after_help = "Example: biotope log verify data")]
    Log(log::LogCommand),
    /// Copy everything that is acknowledged up to now, from a running biotope or a stopped one
    #[command(after_help = "Example: biotope --config biotope.toml backup backups/monday")]
    Backup {
        /// The directory to make
        dir: PathBuf,
    },
    /// Make a data directory of a backup, with a log of its own identity
    #[command(after_help = "Example: biotope restore backups/monday --to data")]
    Restore {
        /// The backup
        dir: PathBuf,
        /// The data directory to make
        #[arg(long, value_name = "DATA_DIR")]
        to: PathBuf,
    },
    /// Cancel all waiting jobs of a type, and discard its dead ones
    #[command(after_help = "Example: biotope purge order-processor")]
    Purge(TypeArg),
    /// Let the jobs of a type wait until it is resumed; what runs goes on, new jobs are taken in
    #[command(after_help = "Example: biotope pause order-processor")]
    Pause(TypeArg),
    /// Have the jobs of a paused type worked on again
    #[command(after_help = "Example: biotope resume order-processor")]
    Resume(TypeArg),
    /// Steer how the new version of a type takes over
    #[command(subcommand, after_help = "Example: biotope rollout promote order-processor")]
    Rollout(RolloutCommand),
    /// Go back to the version of a type that was there before
    #[command(after_help = "Example: biotope rollback order-processor")]
    Rollback(TypeArg),
    /// Run the core in simulated worlds with faults and crashes, and see whether it holds
    #[command(after_help = "Example: biotope simulate --minutes 5")]
    Simulate(simulate::SimulateArgs),
    /// Print what a shell has to know to complete commands and options
    #[command(after_help = "Example: biotope completions bash >~/.local/share/bash-completion/completions/biotope")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the pages of the manual, one for each command; without DIR, print the first
    #[command(after_help = "Example: biotope man /usr/local/share/man/man1 && man biotope-jobs-list")]
    Man {
        /// The directory
        dir: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
struct TypeArg {
    /// The worker type
    #[arg(value_name = "TYPE")]
    worker_type: String,
}

#[derive(Debug, Args)]
struct PushArgs {
    /// The worker type; with --file or -, of jobs that name none
    #[arg(value_name = "TYPE")]
    worker_type: Option<String>,
    /// The payload; `-` reads jobs from stdin, one a line
    #[arg(value_name = "JSON", conflicts_with = "file")]
    payload: Option<String>,
    /// Jobs, one a line (NDJSON); `-` reads them from stdin
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The version that may run the job first, or one that was accepted after it; jobs of a file say so themselves
    #[arg(long, value_name = "VERSION", conflicts_with = "file")]
    min_version: Option<String>,
}

#[derive(Debug, Subcommand)]
enum RolloutCommand {
    /// Keep the new version's share as it is
    #[command(after_help = "Example: biotope rollout pause order-processor")]
    Pause(TypeArg),
    /// Let its share grow again; or try a version again that was withdrawn
    #[command(after_help = "Example: biotope rollout resume order-processor")]
    Resume(TypeArg),
    /// Have it take over now
    #[command(after_help = "Example: biotope rollout promote order-processor")]
    Promote(TypeArg),
    /// Withdraw it now
    #[command(after_help = "Example: biotope rollout abort order-processor")]
    Abort(TypeArg),
}

#[derive(Debug, Subcommand)]
enum JobsCommand {
    /// List jobs, newest first
    #[command(after_help = "Example: biotope jobs list --type order-processor --state dead --limit 20")]
    List {
        /// Only of this worker type
        #[arg(long = "type", value_name = "TYPE")]
        worker_type: Option<String>,
        /// Only in this state
        #[arg(long)]
        state: Option<String>,
        /// Only of this tenant
        #[arg(long)]
        tenant: Option<String>,
        /// Only with this text in the last error
        #[arg(long, value_name = "TEXT")]
        error: Option<String>,
        /// Only ended, failed last or, if neither, accepted since then: RFC 3339, or an age like 15m, 2h or 7d
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
        /// At most so many; 0: all
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Go on where an earlier listing ended; where that is it says on stderr
        #[arg(long)]
        cursor: Option<String>,
        /// One JSON object a line, with payload and result
        #[arg(long)]
        json: bool,
    },
    /// Show one job
    #[command(after_help = "Example: biotope jobs show 01997b4e-0000-7000-8000-000000000000")]
    Show {
        /// Its id
        id: String,
        /// What became of it instead, step by step: each attempt with its version, worker, duration and error
        #[arg(long)]
        steps: bool,
    },
    /// Give dead jobs all their attempts again, or run delayed ones now
    #[command(after_help = "Example: biotope jobs retry --failed-on order-processor@v2")]
    Retry {
        /// Their ids
        #[arg(required_unless_present = "failed_on", conflicts_with = "failed_on")]
        ids: Vec<String>,
        /// All dead jobs of this type whose last failed attempt was on this version
        #[arg(long, value_name = "TYPE@VERSION")]
        failed_on: Option<String>,
    },
    /// Cancel jobs that wait or run
    #[command(after_help = "Example: biotope jobs cancel 01997b4e-0000-7000-8000-000000000000")]
    Cancel {
        /// Their ids
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Discard dead jobs
    #[command(after_help = "Example: biotope jobs discard 01997b4e-0000-7000-8000-000000000000")]
    Discard {
        /// Their ids
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

/// Runs the command that the process was started with. `natives` are workers of this program itself.
pub fn main(natives: Natives) -> ExitCode {
    crate::own::note();
    crate::heap::set_out();
    crate::names::look_up_by_what_is_built_in();
    // This program is also the helper of a biotope that runs (`worker::spawner`), which nobody types.
    if let Some(lock) = crate::worker::spawner::asked() {
        return crate::worker::spawner::serve(&lock);
    }
    // From here on an image before this one in the same process, if there is one, is brought back whatever fails.
    let arrival = match crate::takeover::arrive() {
        Ok(arrival) => arrival,
        Err(failure) => {
            crate::takeover::retreat(&failure.message);
            return failed(&failure);
        }
    };
    // The next act, for the same reason: before anything is opened. What an image before has left comes of that one.
    let sockets = if arrival.is_some() { Sockets::default() } else { Sockets::of_environment() };
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are what was asked for; everything else is a mistake in the use.
            let code = if error.use_stderr() { USAGE } else { 0 };
            match misuse(&error) {
                Some(line) => drop(writeln!(std::io::stderr(), "{line}")),
                None => drop(error.print()),
            }
            return ExitCode::from(code);
        }
    };
    match dispatch(cli, natives, arrival, sockets) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            crate::takeover::retreat(&failure.message);
            failed(&failure)
        }
    }
}

fn failed(failure: &Failure) -> ExitCode {
    if !failure.message.is_empty() {
        // The problems of a config are shown as a compiler shows its own, over several lines.
        let name = if failure.message.starts_with("error: ") { "" } else { "biotope: " };
        crate::logfile::last_word(&format!("{name}{}", failure.message));
    }
    ExitCode::from(failure.code)
}

/// A mistake in the use, in one line; `None` where the whole help is the answer.
fn misuse(error: &clap::Error) -> Option<String> {
    use clap::error::ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
    if matches!(error.kind(), DisplayHelp | DisplayHelpOnMissingArgumentOrSubcommand | DisplayVersion) {
        return None;
    }
    let text = error.render().to_string();
    let (told, usage) = text.split_once("\nUsage: ").unwrap_or((&text, "biotope"));
    let told = told.split("\nFor more information").next().unwrap_or(told).trim_start_matches("error: ");
    let words: Vec<&str> = told.split_whitespace().collect();
    // The usage begins with the command that was meant.
    let is_name = |word: &&str| word.starts_with(|letter: char| letter.is_ascii_lowercase());
    let command: Vec<&str> = usage.split_whitespace().take_while(is_name).collect();
    Some(format!("biotope: {}; `{} --help` tells more", words.join(" "), command.join(" ")))
}

fn dispatch(cli: Cli, natives: Natives, arrival: Option<Arrival>, sockets: Sockets) -> Result<(), Failure> {
    let given = cli.config.as_deref();
    match cli.command {
        Command::Run { file, strict } => {
            let config = own_config(&cli.url, given, file.as_deref())?;
            crate::daemon::run(&config, &natives, strict, Given { arrival, sockets })
        }
        Command::TakeoverCheck => print(&crate::takeover::answer(&config_path(given)?, &natives)?),
        Command::CheckConfig { file } => check_config(&own_config(&cli.url, given, file.as_deref())?, &natives),
        Command::Simulate(args) => simulate::simulate(&args),
        Command::Completions { shell } => pages::completions(shell),
        Command::Man { dir } => pages::man(dir.as_deref()),
        Command::Log(command) => log::run(&command),
        Command::Restore { dir, to } => copies::restore(&dir, &to),
        Command::Backup { dir } => match &cli.url {
            Some(url) => copies::backup_running(&Client::new(Url::parse(url)?)?, &dir),
            None => copies::backup(&config_path(given)?, &natives, &dir),
        },
        command => {
            let url = match &cli.url {
                Some(url) => Url::parse(url)?,
                None => Url::of_config(&config_path(given)?, &natives)?,
            };
            let client = Client::new(url)?;
            match command {
                Command::Push(args) => push::push(&client, &args),
                Command::Status { json } => status::status(&client, json),
                Command::Why { id } => show::why(&client, &id),
                Command::Reload { wait } => reload::reload(&client, wait),
                Command::Generations { json } => reload::generations(&client, json),
                Command::Upgrade { wait } => upgrade::upgrade(&client, wait),
                Command::Jobs(command) => jobs(&client, &command),
                Command::Purge(of) => show::purge(&client, &of.worker_type),
                Command::Pause(of) => show::pause(&client, &of.worker_type, true),
                Command::Resume(of) => show::pause(&client, &of.worker_type, false),
                Command::Rollout(command) => rollout(&client, &command),
                Command::Rollback(of) => show::rollout(&client, &of.worker_type, "rollback"),
                Command::Run { .. } | Command::CheckConfig { .. } | Command::Simulate(_) | Command::Log(_) => Ok(()),
                Command::Backup { .. } | Command::Restore { .. } | Command::TakeoverCheck => Ok(()),
                Command::Completions { .. } | Command::Man { .. } => Ok(()),
            }
        }
    }
}

fn rollout(client: &Client, command: &RolloutCommand) -> Result<(), Failure> {
    let (of, word) = match command {
        RolloutCommand::Pause(of) => (of, "rollout/pause"),
        RolloutCommand::Resume(of) => (of, "rollout/resume"),
        RolloutCommand::Promote(of) => (of, "rollout/promote"),
        RolloutCommand::Abort(of) => (of, "rollout/abort"),
    };
    show::rollout(client, &of.worker_type, word)
}

fn jobs(client: &Client, command: &JobsCommand) -> Result<(), Failure> {
    match command {
        JobsCommand::List { worker_type, state, tenant, error, since, limit, cursor, json } => {
            let filter =
                [("type", worker_type), ("state", state), ("tenant", tenant), ("error", error), ("since", since)];
            let filter = filter.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?))).collect();
            show::list(client, filter, *limit, cursor.clone(), *json)
        }
        JobsCommand::Show { id, steps: false } => show::job(client, id),
        JobsCommand::Show { id, steps: true } => show::steps(client, id),
        JobsCommand::Retry { failed_on: Some(failed_on), .. } => show::retry_failed(client, failed_on),
        JobsCommand::Retry { ids, failed_on: None } => show::act(client, ids, "retry"),
        JobsCommand::Cancel { ids } => show::act(client, ids, "cancel"),
        JobsCommand::Discard { ids } => show::act(client, ids, "discard"),
    }
}

/// The config file of a command that needs no running biotope. A file behind the command is nearer than --config, which
/// may come from an alias.
fn own_config(url: &Option<String>, given: Option<&Path>, file: Option<&Path>) -> Result<PathBuf, Failure> {
    if url.is_some() {
        return Err(Failure::new(USAGE, "--url names a biotope that runs already; this command takes a config file"));
    }
    config_path(file.or(given))
}

/// The config file that is meant.
fn config_path(given: Option<&Path>) -> Result<PathBuf, Failure> {
    const PLACES: [&str; 2] = ["biotope.toml", "/etc/biotope/biotope.toml"];
    if let Some(given) = given {
        return Ok(given.to_path_buf());
    }
    let found = PLACES.into_iter().map(PathBuf::from).find(|path| path.is_file());
    found.ok_or_else(|| {
        Failure::new(
            CONFIG,
            "there is neither ./biotope.toml nor /etc/biotope/biotope.toml; name one with --config FILE",
        )
    })
}

fn check_config(path: &Path, natives: &Natives) -> Result<(), Failure> {
    match crate::generation::load(path, natives) {
        Ok(spec) => print(&format!("{}: ok, {}", path.display(), counted(spec.versions.len() as u64, "worker type"))),
        Err(error) => Err(Failure::new(CONFIG, error.to_string())),
    }
}

/// Prints a line on stdout. A reader that went away has what it wanted: that ends the command, without a word.
pub(crate) fn print(line: &str) -> Result<(), Failure> {
    if print_while_read(line)? { Ok(()) } else { Err(Failure::new(0, "")) }
}

/// Prints a line on stdout; says whether somebody reads it.
fn print_while_read(line: &str) -> Result<bool, Failure> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::new(IO, format!("cannot write to stdout: {error}"))),
    }
}

#[cfg(test)]
mod tests;
