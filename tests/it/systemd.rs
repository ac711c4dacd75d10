//! What systemd is told, and what it hands over: by a socket that stands in for it, and hears every datagram in its order.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Weak};
use std::time::Duration;

use biotope::clock::monotonic_us;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::support::manager::{Manager, Told};
use crate::support::wait::until;
use crate::support::{BIOTOPE, Biotope, Home, SOON, UNHURRIED, has_program, http, long, program, shown, skipped};

/// Jobs that run until their gate is opened.
const SLOW: &str = "[workers.slow]\nversion = \"v1\"\nexec = [\"./slow.sh\"]\ntimeout = \"10m\"\n";

fn slow(home: &Home) {
    home.script("slow.sh", "echo run >>runs\nread -r line <gate || true\necho '\"finished\"'");
    home.pipe("gate");
}

/// Enqueues a job that then runs.
fn run_slow(home: &Home, biotope: &Biotope<'_>) -> String {
    let before = home.text("runs").lines().count();
    let id = biotope.push(&json!({"type": "slow"}));
    until("the run", SOON, || if home.text("runs").lines().count() > before { Ok(()) } else { Err("none".into()) });
    id
}

/// A biotope that a manager watches over; what is told at its start is checked.
fn start<'a>(home: &'a Home, manager: &Manager, mut command: Command) -> Biotope<'a> {
    manager.watches(&mut command);
    let biotope = home.start_by(command);
    let opening = manager.next();
    assert_eq!(opening.names(), ["STATUS", "EXTEND_TIMEOUT_USEC"], "{opening:?}");
    assert_eq!(opening.status(), "opening the log");
    let ready = manager.next();
    assert_eq!(ready.names(), ["READY", "STATUS"], "{ready:?}");
    assert_eq!((ready.get("READY"), ready.status()), (Some("1"), &*format!("serves http://127.0.0.1:{}/", home.port)));
    biotope
}

/// Sends the signal, waits until a reload has begun and is over, and checks both; how it stands then.
fn reload(biotope: &Biotope<'_>, manager: &Manager) -> String {
    let before = monotonic_us();
    biotope.signal(Signal::HUP);
    let told = manager.until("the beginning of a reload", |told| told.get("RELOADING").is_some());
    let begun = told.last().unwrap();
    assert_eq!(begun.names(), ["RELOADING", "MONOTONIC_USEC", "STATUS"], "in one datagram");
    let at: u64 = begun.get("MONOTONIC_USEC").unwrap().parse().unwrap();
    assert!((before..=monotonic_us()).contains(&at), "{before} <= {at}");
    let told = manager.until("the end of a reload", |told| told.get("READY").is_some());
    let over = told.last().unwrap();
    assert_eq!(over.names(), ["READY", "STATUS"]);
    over.status().to_owned()
}

#[test]
fn systemd_is_told_of_start_reloads_and_stop_in_order_and_in_words() {
    let patient = "stop_timeout = \"10m\"";
    let home = Home::bare();
    home.configure_with(patient, SLOW);
    slow(&home);
    let manager = Manager::new();
    let biotope = start(&home, &manager, home.command(&["run"]));
    let serves = format!("serves http://127.0.0.1:{}/: ", home.port);
    let told = manager.until("what lives here", |told| told.status().starts_with(&serves));
    assert!(told.last().unwrap().status().starts_with(&format!("{serves}1 worker type, 0 waiting, 0 running, 0 dead")));

    // A job runs, and another one waits: a reload is over when it is accepted, and says what still goes on.
    let running = run_slow(&home, &biotope);
    let waiting = biotope.push(&json!({"type": "slow", "delay": "1h"}));
    home.configure_with(patient, &SLOW.replace("v1", "v2"));
    let status = reload(&biotope, &manager);
    assert!(status.starts_with(&format!("{serves}1 worker type, 1 waiting, 1 running, 0 dead")), "{status}");
    biotope.until_version("slow", "v2", "current");
    // Where v2 was up at once, that was told already.
    if !status.contains("draining: slow v1") {
        let told = manager.until("what drains", |told| told.status().contains("draining: slow v1"));
        assert!(told.iter().all(|told| told.names() == ["STATUS"]), "{told:?}");
    }

    // One that is refused is over, too; what ran goes on, and the reason is told on one line.
    home.configure("[workers.slow]\nversion = \"v3\"\nexce = [\"./slow.sh\"]\n");
    let status = reload(&biotope, &manager);
    assert!(status.contains("the config was refused, what ran goes on: "), "{status}");
    home.configure_with(patient, &SLOW.replace("v1", "v2"));
    let status = reload(&biotope, &manager);
    assert!(!status.contains("refused"), "{status}");

    // A stop says so at once, and asks for more time as long as something runs.
    biotope.signal(Signal::TERM);
    let told = manager.until("the stop", |told| told.get("STOPPING").is_some());
    assert_eq!(told.last().unwrap().names(), ["STOPPING", "STATUS", "EXTEND_TIMEOUT_USEC"]);
    let runs = "stopping: 1 job still runs, 1 wait for the next start";
    let told = manager.until("what still runs", |told| told.status().starts_with(runs));
    assert_eq!(told.last().unwrap().names(), ["STATUS", "EXTEND_TIMEOUT_USEC"], "{told:?}");
    let told = manager.until("that more time is needed", |told| told.names() == ["EXTEND_TIMEOUT_USEC"]);
    let more: u64 = told.last().unwrap().get("EXTEND_TIMEOUT_USEC").unwrap().parse().unwrap();
    assert!(more >= 30_000_000, "{more}: longer than until the next time");
    home.open_gate("gate");
    let told = manager.until("the end", |told| told.status().starts_with("biotope stopped"));
    let strange = |told: &&Told| told.get("READY").is_some() || told.get("WATCHDOG").is_some();
    assert!(!told.iter().any(|told| strange(&told)), "{told:?}");
    let mut biotope = biotope;
    assert_eq!(biotope.until_end().code(), Some(0));
    assert!(manager.within(Duration::from_millis(500)).is_none(), "these were the last words");

    let biotope = start(&home, &manager, home.command(&["run"]));
    assert_eq!(biotope.job(&running)["state"], "completed");
    assert_eq!(biotope.job(&waiting)["state"], "delayed");
    biotope.stop();
}

#[test]
fn a_start_that_fails_says_why() {
    let home = Home::new("[workers.slow]\nversion = \"v1\"\n");
    let manager = Manager::at(&std::env::temp_dir().join(format!("biotope-{}", std::process::id())));
    let mut command = home.command(&["run"]);
    manager.watches(&mut command);
    let ran = command.output().unwrap();
    assert_eq!(ran.status.code(), Some(78), "{}", shown(&ran));
    let told = manager.next();
    assert_eq!(told.names(), ["STATUS"]);
    assert!(told.status().starts_with("did not start: error: "), "{told:?}");
    drop(std::fs::remove_file(std::env::temp_dir().join(format!("biotope-{}", std::process::id()))));
}

/// A command that runs the home's own copy of the binary.
fn own_copy(home: &Home) -> Command {
    put_same(home);
    let mut command = Command::new(home.path("biotope"));
    command.envs([UNHURRIED]);
    command.arg("--config").arg(home.path("biotope.toml")).arg("run").current_dir(home.path("."));
    command
}

/// Puts a copy of the binary in the place of the home's.
fn put_same(home: &Home) {
    program(&home.path("biotope"), &std::fs::read(BIOTOPE).unwrap());
}

/// Has another image take over, or not, and checks what is told of that.
fn takes_over(ill: Option<&str>, words: &str) {
    let home = Home::new(SLOW);
    slow(&home);
    let manager = Manager::new();
    let mut command = own_copy(&home);
    command.env("WATCHDOG_USEC", "90000000").envs(ill.map(|ill| (UNHURRIED.0, ill)));
    let biotope = start(&home, &manager, command);
    manager.until("the first beat", |told| told.get("WATCHDOG") == Some("1"));
    put_same(&home);
    biotope.signal(Signal::USR2);
    let told = manager.until("that another image takes over", |told| told.get("RELOADING").is_some());
    let begun = told.last().unwrap();
    assert_eq!(begun.names(), ["RELOADING", "MONOTONIC_USEC", "STATUS", "EXTEND_TIMEOUT_USEC"]);
    assert_eq!(begun.status(), "a new binary takes over");
    let told = manager.until("that one is up", |told| told.get("READY").is_some());
    let up = told.last().unwrap();
    assert_eq!(up.names(), ["READY", "STATUS"]);
    assert!(up.status().contains(words), "{up:?}");
    // Who serves is the same process, so that nobody has to be told its number; and it never was about to stop.
    assert!(told.iter().all(|told| told.get("MAINPID").is_none() && told.get("STOPPING").is_none()), "{told:?}");
    assert_eq!(home.text("data/LOCK").trim(), biotope.pid().as_raw_nonzero().to_string());
    manager.until("the next image's beat", |told| told.get("WATCHDOG") == Some("1"));
    biotope.stop();
}

#[test]
fn systemd_is_told_when_another_binary_takes_over() {
    takes_over(None, "took over from biotope ");
}

#[test]
fn systemd_is_told_when_another_binary_does_not_come_up() {
    takes_over(Some("exit@opened"), "the new file did not come up: ");
}

/// Numbers of the processes below one, at any depth.
fn below(pid: Pid) -> Vec<i32> {
    let parent = |of: &str| -> Option<i32> {
        let stat = std::fs::read_to_string(format!("/proc/{of}/stat")).ok()?;
        stat.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()
    };
    let all = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let all: Vec<(i32, i32)> = all.filter_map(|name| Some((name.parse().ok()?, parent(&name)?))).collect();
    let mut found = vec![pid.as_raw_nonzero().get()];
    let mut at = 0;
    while let Some(of) = found.get(at).copied() {
        found.extend(all.iter().filter(|(_, parent)| *parent == of).map(|(child, _)| *child));
        at += 1;
    }
    found.split_off(1)
}

#[test]
fn what_systemd_says_to_the_process_is_for_no_child_of_it() {
    let home = Home::new(SLOW);
    slow(&home);
    let manager = Manager::new();
    let mut command = home.command(&["run"]);
    command.env("WATCHDOG_USEC", "600000000").env("CREDENTIALS_DIRECTORY", "/nowhere");
    let biotope = start(&home, &manager, command);
    run_slow(&home, &biotope);
    let children = below(biotope.pid());
    // The one that starts programs, and the program.
    assert!(children.len() >= 2, "{children:?}");
    for child in children {
        let Ok(env) = std::fs::read(format!("/proc/{child}/environ")) else { continue };
        let env = String::from_utf8_lossy(&env);
        for name in ["NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_", "CREDENTIALS_DIRECTORY"] {
            assert!(!env.split('\0').any(|pair| pair.starts_with(name)), "{child}: {env}");
        }
    }
    home.open_gate("gate");
    biotope.stop();
}

/// A tracer of one thread, by which that thread alone is held up in a system call; ended when this is dropped.
struct Held(Child);

impl Held {
    /// Holds a thread up in its next call of this kind.
    fn in_call(thread: i32, name: &str) -> Self {
        let mut strace = Command::new("strace");
        strace.args(["-qq", "-o", "/dev/null", "-e", &format!("trace={name}")]);
        strace.args(["-e", &format!("inject={name}:delay_enter=600s"), "-p", &thread.to_string()]);
        let held = Self(strace.stdin(Stdio::null()).spawn().unwrap());
        until("the tracer is there", SOON, || {
            let status = std::fs::read_to_string(format!("/proc/{thread}/status")).unwrap();
            let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:")).map(str::trim);
            if tracer.is_some_and(|tracer| tracer != "0") { Ok(()) } else { Err(status) }
        });
        held
    }

    fn let_go(mut self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        drop(self.0.wait());
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            drop(self.0.kill());
            drop(self.0.wait());
        }
    }
}

/// The number of a process's thread of this name.
fn thread(pid: Pid, name: &str) -> i32 {
    let tasks = format!("/proc/{}/task", pid.as_raw_nonzero());
    let is_it =
        |task: &String| std::fs::read_to_string(format!("{tasks}/{task}/comm")).is_ok_and(|it| it.trim() == name);
    let mut all = std::fs::read_dir(&tasks).unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    all.find(is_it).unwrap().parse().unwrap()
}

/// Whether a thread is held up in a system call by who traces it.
fn is_held(pid: Pid, thread: i32, call: i64) -> Result<(), String> {
    let of = |file: &str| {
        std::fs::read_to_string(format!("/proc/{}/task/{thread}/{file}", pid.as_raw_nonzero())).unwrap_or_default()
    };
    let (stat, syscall) = (of("stat"), of("syscall"));
    let is_traced = stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('t'));
    let is_there = syscall.split(' ').next() == Some(&call.to_string());
    if is_traced && is_there { Ok(()) } else { Err(format!("{stat}\n{syscall}")) }
}

/// Has `then` hold up and let go the engine's thread of a biotope whose manager takes it for dead after 0.6 s without a beat.
fn watched(name: &str, then: impl FnOnce(&Home, &Manager, &Biotope<'_>, i32)) {
    if !has_program("strace") {
        return skipped(name, "no strace here");
    }
    let home = Home::new(SLOW);
    slow(&home);
    let manager = Manager::new();
    let mut command = home.command(&["run"]);
    command.env("WATCHDOG_USEC", "600000");
    let biotope = start(&home, &manager, command);
    for _ in 0..3 {
        let told = manager.until("a beat", |told| told.get("WATCHDOG").is_some());
        assert_eq!(told.last().unwrap().names(), ["WATCHDOG"]);
    }
    then(&home, &manager, &biotope, thread(biotope.pid(), "engine"));
    manager.until("it beats by itself again", |told| told.get("WATCHDOG").is_some());
    biotope.stop();
}

#[test]
fn an_engine_that_hangs_is_silent_though_all_else_goes_on() {
    watched("an_engine_that_hangs_is_silent_though_all_else_goes_on", |home, manager, biotope, engine| {
        // Held up where it waits for commands, and so not by a disk; every other thread of the process runs.
        let held = Held::in_call(engine, "futex");
        until("the engine is held up", SOON, || is_held(biotope.pid(), engine, libc::SYS_futex));
        until("silence for five times as long as may be", SOON, || match manager.within(Duration::from_secs(3)) {
            None => is_held(biotope.pid(), engine, libc::SYS_futex),
            Some(told) => Err(format!("{told:?}")),
        });
        assert_eq!(http::get(home.port, "/healthz").map(|answer| answer.status).ok(), Some(200), "HTTP is not held up");
        held.let_go();
    });
}

#[test]
fn an_engine_that_waits_for_its_disk_counts_as_one_that_goes_on() {
    watched("an_engine_that_waits_for_its_disk_counts_as_one_that_goes_on", |_, manager, biotope, engine| {
        let held = Held::in_call(engine, "fdatasync");
        std::thread::scope(|scope| {
            let push = scope.spawn(|| biotope.push(&json!({"type": "slow", "delay": "1h"})));
            until("the engine is in a sync", SOON, || is_held(biotope.pid(), engine, libc::SYS_fdatasync));
            // What it beat before it went there has been heard by now; what comes from then on another thread beats for it.
            while manager.within(Duration::ZERO).is_some() {}
            for _ in 0..5 {
                manager.until("a beat for who waits", |told| told.get("WATCHDOG").is_some());
            }
            assert_eq!(is_held(biotope.pid(), engine, libc::SYS_fdatasync), Ok(()));
            assert!(!push.is_finished(), "nothing is acknowledged before its sync");
            held.let_go();
            push.join().unwrap();
        });
    });
}

/// Listens as systemd does, and becomes the program that it hands the socket to; or keeps the socket, and starts that again
/// whenever it has ended well.
const ACTIVATE: &str = r"
import os, socket, sys
again, port, *args = sys.argv[1:]
listener = socket.create_server(('127.0.0.1', int(port)))
os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
print(os.readlink('/proc/self/fd/3'), file=open('socket', 'w'))
while again == 'again' and (child := os.fork()):
    if os.waitpid(child, 0)[1]:
        sys.exit(1)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', LISTEN_FDNAMES='http')
os.execv(args[0], args)
";

/// A command that is handed a socket at a port, `"once"`, or `"again"` when it has ended.
fn activated(home: &Home, port: u16, again: &str) -> Command {
    put_same(home);
    let mut command = Command::new("python3");
    command.envs([UNHURRIED]).args(["-c", ACTIVATE, again, &port.to_string()]).arg(home.path("biotope"));
    command.arg("--config").arg(home.path("biotope.toml")).arg("run").current_dir(home.path("."));
    command
}

/// Sockets of a process that listen at a port, by what the system calls them.
fn listeners(pid: Pid, port: u16) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let at = format!("0100007F:{port:04X}");
    let listens = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next() == Some(&at) && fields.nth(1) == Some("0A")
    };
    let inodes = table.lines().filter(listens).filter_map(|line| line.split_whitespace().nth(9));
    let inodes: Vec<String> = inodes.map(|inode| format!("socket:[{inode}]")).collect();
    let fds = std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())).unwrap().flatten();
    let to = fds.filter_map(|fd| Some(std::fs::read_link(fd.path()).ok()?.display().to_string()));
    to.filter(|to| inodes.contains(to)).collect()
}

#[test]
fn a_socket_that_systemd_listens_on_is_served_by_one_image_after_the_other() {
    let home = Home::new("[workers.echo]\nversion = \"v1\"\nexec = [\"cat\"]\n");
    let biotope = home.start_by(activated(&home, home.port, "once"));
    let given = home.text("socket").trim().to_owned();
    let serves_it = |when: &str| {
        let at = listeners(biotope.pid(), home.port);
        assert!(!at.is_empty() && at.iter().all(|one| *one == given), "{when}: {at:?} instead of {given}");
    };
    serves_it("at first");
    let environ = || std::fs::read(format!("/proc/{}/environ", biotope.pid().as_raw_nonzero())).unwrap();
    assert!(String::from_utf8_lossy(&environ()).contains("LISTEN_FDS=1"));
    put_same(&home);
    let upgraded = home.cli(&["upgrade", "--wait"]);
    assert_eq!(upgraded.status.code(), Some(0), "{}", shown(&upgraded));
    serves_it("by the next image");
    assert!(!String::from_utf8_lossy(&environ()).contains("LISTEN_"), "what it is given it has by other means");
    let id = biotope.push(&json!({"type": "echo", "payload": 1}));
    biotope.until_state(&id, "completed");
    biotope.stop();
}

/// Pushes one job after the other, each over a connection of its own, as long as that goes on; how many were taken.
fn push_on(port: u16, going_on: &Weak<()>) -> u64 {
    let job = json!({"type": "echo"}).to_string();
    let mut taken = 0;
    while going_on.strong_count() > 0 {
        let answer = http::post(port, "/v1/jobs", "application/json", job.as_bytes()).unwrap();
        match answer.status {
            201 => taken += 1,
            _ => assert_eq!(answer.json()["code"], "stopping", "{answer:?}"),
        }
    }
    taken
}

#[test]
fn who_connects_to_its_socket_while_it_is_started_anew_is_answered() {
    let home = Home::new("[workers.echo]\nversion = \"v1\"\nexec = [\"cat\"]\n");
    let biotope = home.start_by(activated(&home, home.port, "again"));
    let taken: u64 = std::thread::scope(|scope| {
        // Gone when this thread is through, or does not come through.
        let going_on = Arc::new(());
        let push = |going_on: Weak<()>| scope.spawn(move || push_on(home.port, &going_on));
        let producers: Vec<_> = (0..4).map(|_| push(Arc::downgrade(&going_on))).collect();
        for starts in 1..=if long() { 30 } else { 3 } {
            let pid = home.text("data/LOCK").trim().parse().unwrap();
            kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
            until("the next one serves", SOON, || {
                let said = home.text("stderr.txt");
                if said.matches("status page: ").count() > starts { Ok(()) } else { Err(said) }
            });
        }
        drop(going_on);
        producers.into_iter().map(|producer| producer.join().unwrap()).sum()
    });
    assert_eq!(biotope.of_type("echo")["enqueued"], taken, "what was taken, and nothing twice");
}

#[test]
fn a_socket_at_another_address_than_the_configs_is_an_error() {
    let home = Home::new(SLOW);
    slow(&home);
    let elsewhere = Home::bare().port;
    let ran = activated(&home, elsewhere, "once").output().unwrap();
    assert_eq!(ran.status.code(), Some(78), "{}", shown(&ran));
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(said.contains(&format!("http at 127.0.0.1:{elsewhere}")) && said.contains("http.listen"), "{said}");
    assert!(!Path::new(&home.path("data/log")).exists(), "nothing was begun");
}
