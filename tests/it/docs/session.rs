//! Terminals as a reader has them, in an empty directory of their own.
//!
//! The first one takes commands one after the other and waits for each. `in terminal N` opens another, whose command may
//! stay. What a document calls by name (its port, `/usr/local/bin`, `/var/lib/biotope`) is put where this test may write.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal};

use crate::support::wait::until;
use crate::support::{BIOTOPE, Home, LATER, SOON, free_port, repository};

/// Folders of a server that the documents name.
const FOLDERS: [&str; 4] = ["/usr/local/bin", "/var/lib/biotope", "/var/log", "/etc/biotope"];
/// Ports that the documents name.
const PORTS: [&str; 2] = ["7420", "8080"];
/// What ends the output of one command; nothing else prints such a character.
const MARK: char = '\u{1}';
/// Commands that only look: what they show may come a moment later, and a reader looks again.
const LOOKS: [&str; 8] = [
    "biotope status",
    "biotope jobs list",
    "biotope jobs show",
    "biotope why",
    "biotope generations",
    "cat ",
    "tail ",
    "curl -s http",
];

/// The terminals of one document.
pub(super) struct Session {
    document: String,
    home: Home,
    ports: BTreeMap<&'static str, u16>,
    shell: Running,
    others: BTreeMap<String, Running>,
    files: u32,
}

/// A shell, or what was started in a terminal of its own. Dropped, it is killed with all of its process group.
struct Running {
    child: Child,
    /// What it prints.
    log: PathBuf,
    /// How much of that has been looked at, in bytes.
    seen: usize,
}

impl Drop for Running {
    fn drop(&mut self) {
        let group = Pid::from_child(&self.child);
        // Even where the shell has ended, what it started may live in its group.
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
        drop(self.child.wait());
    }
}

impl Running {
    fn start(mut command: Command, log: &Path) -> Self {
        let out = OpenOptions::new().create(true).append(true).open(log).unwrap();
        let err = out.try_clone().unwrap();
        let child = command.stdout(out).stderr(err).process_group(0).spawn().unwrap();
        Self { child, log: log.to_owned(), seen: 0 }
    }

    /// What it has printed since it was last looked at.
    fn new_output(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(bytes.get(self.seen..).unwrap_or_default()).into_owned()
    }
}

impl Session {
    /// An empty directory, with the binary under test in the path; with `examples/` in it where the document says that it
    /// begins in a clone of the repository.
    pub(super) fn new(document: &str, in_clone: bool) -> Self {
        let home = Home::bare();
        let root = home.path("root");
        for folder in FOLDERS {
            std::fs::create_dir_all(root.join(folder.trim_start_matches('/'))).unwrap();
        }
        let here = home.path("here");
        std::fs::create_dir(&here).unwrap();
        std::fs::hard_link(BIOTOPE, root.join("usr/local/bin/biotope")).unwrap();
        if in_clone {
            let copied = Command::new("cp").arg("-a").arg(repository().join("examples")).arg(&here).status().unwrap();
            assert!(copied.success());
        }
        std::fs::hard_link(BIOTOPE, here.join("biotope-new")).unwrap();
        let command = Self::command_in(&home, &[]);
        let shell = Running::start(command, &home.path("shell.log"));
        let ports = PORTS.into_iter().map(|port| (port, free_port())).collect();
        let session = Self { document: document.to_owned(), home, ports, shell, others: BTreeMap::new(), files: 0 };
        if in_clone {
            session.place_examples();
        }
        session
    }

    fn command_in(home: &Home, args: &[&Path]) -> Command {
        let bin = home.path("root/usr/local/bin");
        let system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let mut command = Command::new("sh");
        command.args(args).current_dir(home.path("here")).env_clear();
        // A document shows what a terminal shows.
        command.env("BIOTOPE_LOG_FORMAT", "text");
        command.env("PATH", format!("{}:{system}", bin.display())).env("HOME", home.path("here"));
        command.env("LANG", "C.UTF-8");
        command.stdin(if args.is_empty() { Stdio::piped() } else { Stdio::null() });
        command
    }

    /// Has the configs of the examples name this session's port.
    fn place_examples(&self) {
        for example in std::fs::read_dir(self.home.path("here/examples")).unwrap() {
            let Ok(files) = std::fs::read_dir(example.unwrap().path()) else { continue };
            for path in files.map(|file| file.unwrap().path()) {
                if path.extension().is_some_and(|extension| extension == "toml") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    std::fs::write(&path, self.placed(&text)).unwrap();
                }
            }
        }
    }

    /// The document's text with what it names where this test may have it.
    fn placed(&self, text: &str) -> String {
        // The ports first, and in one pass: a folder's path may have a port's number in it, and so may another port (28080).
        let mut text = self.with_ports(text);
        for folder in FOLDERS {
            text = text.replace(folder, self.home.path("root").join(&folder[1..]).to_str().unwrap());
        }
        self.with_listen(&text)
    }

    fn with_ports(&self, text: &str) -> String {
        let (mut placed, mut rest) = (String::new(), text);
        while let Some((at, named, port)) =
            self.ports.iter().filter_map(|(named, port)| Some((rest.find(named)?, named, port))).min()
        {
            write!(placed, "{}{port}", &rest[..at]).unwrap();
            rest = &rest[at + named.len()..];
        }
        placed + rest
    }

    /// A config that is written and says nothing of `listen` is served at 7420: here at this session's port. Its log's files are
    /// the smallest that may be, since a build for tests takes seconds to read one of the usual size.
    fn with_listen(&self, text: &str) -> String {
        let mut lines: Vec<String> = Vec::new();
        let mut config: Option<(String, usize)> = None;
        let mut small_log = Vec::new();
        for line in text.lines() {
            if let Some((end, from)) = &config
                && line == end
            {
                let body = &lines[*from..];
                let is_config = body.iter().any(|line| line.starts_with("[workers."));
                if is_config && !body.iter().any(|line| line == "[log]") {
                    small_log = ["[log]", "segment = \"8MiB\""].map(str::to_owned).to_vec();
                }
                if is_config && !body.iter().any(|line| line.trim_start().starts_with("listen")) {
                    let listen = format!("listen = \"127.0.0.1:{}\"", self.ports["7420"]);
                    match body.iter().position(|line| line == "[http]") {
                        Some(at) => lines.insert(from + at + 1, listen),
                        None => lines.extend(["[http]".to_owned(), listen]),
                    }
                }
                lines.append(&mut small_log);
                config = None;
            }
            lines.push(line.to_owned());
            if let (Some((before, end)), None) = (line.split_once("<<'"), &config)
                && before.contains(".toml")
            {
                config = Some((end.trim_end_matches('\'').to_owned(), lines.len()));
            }
        }
        lines.join("\n") + "\n"
    }

    fn file(&mut self, text: &str) -> PathBuf {
        self.files += 1;
        let name = format!("commands-{}.sh", self.files);
        self.home.write(&name, text);
        self.home.path(&name)
    }

    fn fail(&self, at: usize, why: &str) -> ! {
        panic!("{}:{at}: {why}", self.document);
    }

    /// Runs a block of commands in the first terminal: each must succeed.
    pub(super) fn run(&mut self, at: usize, commands: &str) {
        let commands = format!("set -e\n{}set +e\n", self.placed(commands));
        let (status, output) = self.in_shell(at, &commands);
        if status != 0 {
            self.fail(at, &format!("exit code {status}\n{output}"));
        }
    }

    /// Runs one command in the first terminal, and compares what it prints. It may fail where `may_fail` says so.
    pub(super) fn run_and_compare(&mut self, at: usize, command: &str, expected: &str, may_fail: bool) {
        let expected = self.placed(expected);
        let looks = LOOKS.iter().any(|look| command.starts_with(look));
        let command = self.placed(command);
        let what = format!("{}:{at}: {command}", self.document);
        let mut first = true;
        until(&what, LATER, || {
            if !first && !looks {
                self.fail(at, "it printed something else");
            }
            first = false;
            let (status, output) = self.in_shell(at, &command);
            let seen = format!("exit code {status}, and printed\n{output}where the document has\n{expected}");
            if (status == 0 || may_fail) && is_like(&expected, &output) {
                return Ok(());
            }
            if looks { Err(seen) } else { self.fail(at, &format!("{command}{seen}")) }
        });
    }

    /// What commands print, but for what says that they take their time.
    fn in_shell(&mut self, at: usize, commands: &str) -> (i32, String) {
        let file = self.file(commands);
        // The status that the last command left is the next one's `$?`.
        let line = format!(
            "(exit \"${{status_:-0}}\"); . {} </dev/null; status_=$?; printf '{MARK}%s{MARK}\\n' \"$status_\"\n",
            file.display()
        );
        let sent = self.shell.child.stdin.as_mut().unwrap().write_all(line.as_bytes());
        let document = format!("{}:{at}", self.document);
        let (status, output) = until(&document, LATER, || {
            let output = self.shell.new_output();
            let mut parts = output.split(MARK);
            if let (Some(before), Some(status), Some(_)) = (parts.next(), parts.next(), parts.next()) {
                return Ok((status.parse().unwrap(), before.to_owned()));
            }
            match self.shell.child.try_wait().unwrap() {
                Some(status) => Ok((status.code().unwrap_or(-1).max(1), format!("{output}\n(the shell ended)"))),
                None => Err(format!("{sent:?}\n{output}")),
            }
        });
        self.shell.seen = std::fs::read(&self.shell.log).unwrap_or_default().len();
        let lines = output.split_inclusive('\n').filter(|line| !line.starts_with("waiting: "));
        (status, lines.collect())
    }

    /// Starts a command in another terminal, and waits until it has printed what the document shows.
    pub(super) fn start(&mut self, at: usize, terminal: &str, command: &str, expected: &str) {
        let command = format!("{}\n", self.placed(command));
        if let Some(mut before) = self.others.remove(terminal) {
            until(&format!("{}:{at}: {terminal} is free", self.document), SOON, || {
                before.child.try_wait().unwrap().ok_or_else(|| before.new_output())
            });
        }
        let file = self.file(&command);
        let log = self.home.path(&format!("terminal-{}.log", self.files));
        let running = Running::start(Self::command_in(&self.home, &[&file]), &log);
        self.others.insert(terminal.to_owned(), running);
        self.wait_for(at, terminal, expected);
    }

    /// Presses Ctrl-C in another terminal, and waits for its command's end.
    pub(super) fn interrupt(&mut self, at: usize, terminal: &str, expected: &str) {
        let Some(running) = self.others.get_mut(terminal) else { self.fail(at, "nothing runs there") };
        rustix::process::kill_process_group(Pid::from_child(&running.child), Signal::INT).unwrap();
        let what = format!("{}:{at}: Ctrl-C", self.document);
        until(&what, LATER, || running.child.try_wait().unwrap().ok_or_else(|| running.new_output()));
        self.wait_for(at, terminal, expected);
    }

    /// Waits until another terminal shows these lines, one after the other, whatever stands between them.
    pub(super) fn wait_for(&mut self, at: usize, terminal: &str, expected: &str) {
        let expected = self.placed(expected);
        let Some(running) = self.others.get_mut(terminal) else { self.fail(at, "nothing runs there") };
        until(&format!("{}:{at}: {expected}", self.document), LATER, || {
            let output = running.new_output();
            let mut lines = output.lines();
            let wanted = |line: &&str| !line.trim().is_empty() && line.trim() != "…";
            if expected.lines().filter(wanted).all(|wanted| lines.any(|line| is_like_line(wanted, line))) {
                running.seen += output.len() - lines.map(|line| line.len() + 1).sum::<usize>().min(output.len());
                return Ok(());
            }
            Err(format!("{output}\n{:?}", running.child.try_wait()))
        });
    }
}

/// Whether an output is what the document shows: `…` in a line is any text, a line of it any lines, and runs of blanks count
/// as one.
fn is_like(expected: &str, output: &str) -> bool {
    fn matches(expected: &[&str], output: &[&str]) -> bool {
        match expected.split_first() {
            None => output.is_empty(),
            Some((&"…", rest)) => (0..=output.len()).any(|skipped| matches(rest, &output[skipped..])),
            Some((wanted, rest)) => {
                output.split_first().is_some_and(|(line, others)| is_like_line(wanted, line) && matches(rest, others))
            }
        }
    }
    let lines = |text: &str| text.trim().lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>();
    let (expected, output) = (lines(expected), lines(output));
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    let output: Vec<&str> = output.iter().map(String::as_str).collect();
    matches(&expected, &output)
}

pub(super) fn is_like_line(wanted: &str, line: &str) -> bool {
    let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (wanted, line) = (squeezed(wanted), squeezed(line));
    let mut parts = wanted.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

#[test]
fn an_output_is_like_what_is_shown_or_it_is_not() {
    assert!(is_like("a  b\n…\nd … f\n", "a b\nx\ny\nd e f\n") && is_like("…", "") && is_like("a…", "a"));
    assert!(is_like("x\n…\n", "x\n") && is_like("1 … 2 … 3", "1 a 2 b 3"));
    for (expected, output) in [("a\n", "a\nb\n"), ("a … c", "a b"), ("a\n…\nc", "a\nb"), ("…b", "ba"), ("", "x")]
    {
        assert!(!is_like(expected, output), "{expected:?} {output:?}");
    }
}
