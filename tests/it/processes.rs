//! The processes of workers: what they are started as, and that nothing of them outlives its time.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::wait::until;
use crate::support::{Biotope, Home, SOON, skipped};

/// The first process of a group, stopped, until this is dropped.
struct Stopped {
    pid: Pid,
    /// Another one of its group, a child of ours: the kernel wakes what is stopped in a group that nobody is a parent of.
    company: Child,
}

impl Stopped {
    fn stop(pid: Pid) -> Self {
        let company = Command::new("sleep").arg("1000").process_group(pid.as_raw_nonzero().get()).spawn().unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        Self { pid, company }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // It may have been killed.
        let _ = kill_process(self.pid, Signal::CONT);
        drop(self.company.kill());
        drop(self.company.wait());
    }
}

/// Waits for a file with numbers of processes.
fn pids(home: &Home, file: &str, count: usize) -> Vec<Pid> {
    until("the numbers of processes", SOON, || {
        let text = home.text(file);
        let pids: Vec<Pid> = text.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect();
        if pids.len() == count { Ok(pids) } else { Err(text) }
    })
}

/// What the runs of a job were lost with, as its steps say.
fn lost_with(biotope: &Biotope<'_>, id: &str) -> Vec<String> {
    let timeline = biotope.get(&format!("/v1/jobs/{id}/timeline")).json();
    let lost = timeline["steps"].as_array().unwrap().iter().filter(|step| step["what"] == "lost");
    lost.map(|step| step["says"].as_str().unwrap().to_owned()).collect()
}

/// Whether a process runs: neither gone nor only waiting to be reaped.
fn runs(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

#[test]
fn p14_a_job_runs_again_when_nothing_of_its_run_before_is_left() {
    let home = Home::new("[workers.leaver]\nversion = \"v1\"\nexec = [\"./leaver.sh\"]\n");
    home.script("leaver.sh", LEAVER);
    let biotope = home.start();
    let id = biotope.push(&json!({"type": "leaver"}));
    let mut left = pids(&home, "pids.txt", 2);
    left.extend(pids(&home, "escaped.txt", 1));
    // Who shall end them is held up when biotope is killed, so that they outlive it.
    let stopped = Stopped::stop(helper(&home));
    biotope.kill();
    let biotope = home.start();
    until("somebody who waits for the end of all", SOON, || {
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        let waiting = locks.lines().filter(|line| line.contains("-> FLOCK"));
        let waits = |line: &str| {
            let pid = line.split_whitespace().nth(5).unwrap_or_default();
            let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            command.contains(&home.path("data/SPAWNER").display().to_string())
        };
        if waiting.clone().any(waits) { Ok(()) } else { Err(locks.clone()) }
    });
    assert!(left.iter().all(|pid| runs(*pid)), "this test has nothing to see: {left:?}");
    drop(stopped);
    let job = biotope.until_state(&id, "completed");
    assert_eq!((&job["result"], &job["host_deaths"]), (&Value::Null, &json!(1)), "{job}");
    assert_eq!(lost_with(&biotope, &id), ["biotope itself ended"]);
    assert!(!left.iter().any(|pid| runs(*pid)), "{left:?}");
    biotope.stop();
}

#[test]
fn p14_nothing_is_left_of_a_run_when_biotope_and_its_helper_are_killed_at_once() {
    let home = Home::new("[workers.leaver]\nversion = \"v1\"\nexec = [\"./leaver.sh\"]\n");
    home.script("leaver.sh", LEAVER);
    // Of another data directory, and of none.
    let others = [Some("BIOTOPE_SPAWNER=1:1"), None].map(|mark| {
        let marked = mark.map(|mark| mark.split_once('=').unwrap());
        Command::new("sleep").arg("100").envs(marked).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    });
    let biotope = home.start();
    let id = biotope.push(&json!({"type": "leaver"}));
    pids(&home, "pids.txt", 2);
    let escaped = pids(&home, "escaped.txt", 1);
    // It cannot see the end of biotope before its own.
    let helper = helper(&home);
    let stopped = Stopped::stop(helper);
    biotope.kill();
    kill_process(helper, Signal::KILL).unwrap();
    until_gone("the end of the helper", &[helper]);
    assert!(runs(escaped[0]), "this test has nothing to see");
    drop(stopped);
    let biotope = home.start();
    let job = biotope.until_state(&id, "completed");
    assert_eq!((&job["result"], &job["host_deaths"]), (&Value::Null, &json!(1)), "{job}");
    assert!(!runs(escaped[0]), "{escaped:?}");
    for mut other in others {
        assert_eq!(other.try_wait().unwrap(), None, "somebody else's was killed");
        other.kill().unwrap();
        other.wait().unwrap();
    }
    biotope.stop();
}

/// The helper, as it says itself.
fn helper(home: &Home) -> Pid {
    pids(home, "data/SPAWNER", 1).remove(0)
}

/// Waits until none of these runs.
fn until_gone(what: &str, pids: &[Pid]) {
    until(what, SOON, || {
        let left: Vec<_> = pids.iter().filter(|pid| runs(**pid)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?} of {pids:?}")) }
    });
}

/// Its first run leaves a child, and one that has left its session, and waits; any other says who of them still runs.
const LEAVER: &str = "if mkdir begun 2>/dev/null; then\n\
       sleep 1000 & child=$!\n\
       setsid sh -c 'echo $$ >escaped.txt; exec sleep 1000' &\n\
       echo $$ $child >pids.txt\n\
       wait\n\
     fi\n\
     for pid in $(cat pids.txt escaped.txt); do\n\
       ! grep -q '^State:.[^ZX]' /proc/$pid/status 2>/dev/null || echo \"$pid runs\"\n\
     done";

/// A persistent worker in sh that has a child outside of its session, and answers with its number.
const KEEPER: &str = r#"setsid sh -c 'echo $$ >kept.txt; exec sleep 1000' &
while IFS= read -r line; do
    id=${line#*\"id\":\"}; id=${id%%\"*}
    case $line in *'"method":"hello"'*) result='{"protocol":1}' ;; *) result="{\"value\":$$}" ;; esac
    case $line in *'"method":"wipe"'*) result='{}' ;; esac
    printf '{"jsonrpc":"2.0","id":"%s","result":%s}\n' "$id" "$result"
done"#;

#[test]
fn p14_a_killed_helper_is_replaced_when_nothing_that_it_started_is_left() {
    let worker = "version = \"v1\"\nbackoff = { first = \"10ms\", factor = 1, max = \"10ms\" }\n";
    let home = Home::new(&format!(
        "[workers.leaver]\n{worker}exec = [\"./leaver.sh\"]\n\
         [workers.keeper]\n{worker}exec = [\"./keeper.sh\"]\nmode = \"persistent\"\n"
    ));
    home.script("leaver.sh", LEAVER);
    home.script("keeper.sh", KEEPER);
    let biotope = home.start();
    let kept = biotope.until_state(&biotope.push(&json!({"type": "keeper"})), "completed")["result"].as_i64().unwrap();
    let leaver = biotope.push(&json!({"type": "leaver"}));
    let mut left = pids(&home, "pids.txt", 2);
    left.extend(pids(&home, "escaped.txt", 1));
    left.extend(pids(&home, "kept.txt", 1));
    left.push(Pid::from_raw(i32::try_from(kept).unwrap()).unwrap());
    assert!(left.iter().all(|pid| runs(*pid)), "this test has nothing to see: {left:?}");
    let old = helper(&home);
    kill_process(old, Signal::KILL).unwrap();
    let job = biotope.until_state(&leaver, "completed");
    // It was not its fault, and it ran again when nothing of its first run was left.
    assert_eq!((&job["result"], &job["attempts"], &job["host_deaths"]), (&Value::Null, &json!(0), &json!(1)), "{job}");
    assert_eq!(lost_with(&biotope, &leaver), ["./leaver.sh was killed with the process that starts children"]);
    until_gone("the end of all that the helper had started", &left);
    assert_ne!(helper(&home), old);
    let job = biotope.until_state(&biotope.push(&json!({"type": "keeper"})), "completed");
    assert_eq!(job["attempts"], 0, "{job}");
    assert_ne!(job["result"].as_i64(), Some(kept));
    // The dead were buried.
    let own = biotope.pid().as_raw_nonzero().to_string();
    until("the burial of the dead", SOON, || {
        let zombies = crate::zoo::processes(|stat, _| stat[0] == "Z" && stat[1] == own);
        if zombies.is_empty() { Ok(()) } else { Err(format!("{zombies:?}")) }
    });
    biotope.stop();
}

#[test]
fn p14_a_job_that_kills_the_helper_is_dead_after_three_times_and_others_lose_no_attempt() {
    let worker = "version = \"v1\"\nbackoff = { first = \"10ms\", factor = 1, max = \"10ms\" }\n";
    let home = Home::new(&format!(
        "[workers.killer]\n{worker}exec = [\"./killer.sh\"]\n[workers.beside]\n{worker}exec = [\"./beside.sh\"]\n"
    ));
    // The helper is the parent of both.
    let killer = "echo $BIOTOPE_ATTEMPT >>attempts.txt\n\
                  test $(wc -l <attempts.txt) = 1 || until test -e go; do sleep 0.01; done\n\
                  kill -KILL $PPID; exec sleep 1000";
    home.script("killer.sh", killer);
    home.script("beside.sh", "mkdir begun 2>/dev/null || exit 0; echo $$ >pids.txt; exec sleep 1000");
    let biotope = home.start();
    let beside = biotope.push(&json!({"type": "beside"}));
    pids(&home, "pids.txt", 1);
    let killer = biotope.push(&json!({"type": "killer"}));
    let job = biotope.until_state(&beside, "completed");
    assert_eq!((&job["attempts"], &job["host_deaths"]), (&json!(0), &json!(1)), "{job}");
    std::fs::write(home.path("go"), "").unwrap();
    let dead = biotope.until_state(&killer, "dead");
    assert_eq!((&dead["attempts"], &dead["host_deaths"]), (&json!(0), &json!(3)), "{dead}");
    let why = dead["error"].as_str().unwrap_or_default();
    assert!(why.contains("its process that starts children, ended while the job ran, once too often"), "{dead}");
    assert_eq!(home.text("attempts.txt"), "1\n1\n1\n");
    biotope.stop();
}

#[test]
fn p14_what_a_killed_helper_leaves_ends_at_once_also_if_nobody_needs_it() {
    let home = Home::new("[workers.keeper]\nversion = \"v1\"\nexec = [\"./keeper.sh\"]\nmode = \"persistent\"\n");
    home.script("keeper.sh", KEEPER);
    let biotope = home.start();
    let kept = pids(&home, "kept.txt", 1);
    assert!(runs(kept[0]), "this test has nothing to see");
    kill_process(helper(&home), Signal::KILL).unwrap();
    until_gone("the end of what has left its session", &kept);
    biotope.stop();
}

#[test]
fn p14_a_stopped_helper_holds_nothing_up_for_long() {
    // Shorter than a helper may be silent, and long enough to see the first job at work.
    let worker =
        "version = \"v1\"\nmax_attempts = 1\nstart_timeout = \"1s\"\ntimeout = \"5s\"\nkill_after = \"100ms\"\n";
    let home = Home::new(&format!(
        "[workers.waits]\n{worker}exec = [\"./waits.sh\"]\n[workers.starts]\n{worker}exec = [\"true\"]\n\
         [workers.stays]\n{worker}exec = [\"./stays.sh\"]\nmode = \"persistent\"\n"
    ));
    home.script("waits.sh", "read -r payload; echo $$ >pids.txt; exec sleep 1000");
    home.script("stays.sh", KEEPER);
    let biotope = home.start();
    let waits = biotope.push(&json!({"type": "waits"}));
    let left = pids(&home, "pids.txt", 1);
    // It may run before biotope is told so.
    until("the process of the worker", SOON, || {
        let shown = &biotope.of_type("waits")["versions"][0]["workers"][0]["pid"];
        if *shown == left[0].as_raw_nonzero().get() { Ok(()) } else { Err(shown.to_string()) }
    });
    let old = helper(&home);
    let stopped = Stopped::stop(old);
    let starts = biotope.push(&json!({"type": "starts"}));
    // The next helper starts it a moment later: what is shown on is why a worker had to be started again.
    until("a reason", SOON, || {
        let shown = biotope.of_type("starts")["versions"][0]["last_restart"].to_string();
        if shown.contains("did not answer within 10s, and was ended") { Ok(()) } else { Err(shown) }
    });
    // It was not started, so it costs nothing; what was to be ended has ended.
    assert_eq!(biotope.until_state(&starts, "completed")["attempts"], 0);
    let job = biotope.until_state(&waits, "dead");
    assert!(job["error"].as_str().unwrap().contains("waits.sh timed out after 5s"), "{job}");
    assert!(!runs(left[0]) && !runs(old), "{left:?}");
    drop(stopped);

    // A stop does not wait for it either.
    let stopped = Stopped::stop(helper(&home));
    biotope.stop();
    drop(stopped);
}

/// What the one job of a worker with these lines and this script gives.
fn result_of(home: &Home, lines: &str, script: &str) -> String {
    home.configure(&format!("[workers.shows]\nversion = \"v1\"\nexec = [\"./shows.sh\"]\n{lines}\n"));
    home.script("shows.sh", script);
    let biotope = home.start();
    let id = biotope.push(&json!({"type": "shows"}));
    let job = biotope.until_state(&id, "completed");
    biotope.stop();
    job["result"].as_str().unwrap_or_else(|| panic!("{job}")).trim().to_owned()
}

#[test]
fn a_child_has_its_umask_and_its_limits() {
    let lines = "umask = \"027\"\nlimits = { memory = \"2GiB\", open_files = 77, processes = 5000, cpu = \"90s\", \
                 file_size = \"1MiB\", core = \"0B\" }";
    let script = "umask; grep -E 'address|open files|processes|cpu|file size|core' /proc/self/limits | tr -s ' '";
    let shown = result_of(&Home::bare(), lines, script);
    let expected = [
        "0027",
        "Max cpu time 90 90 seconds",
        "Max file size 1048576 1048576 bytes",
        "Max core file size 0 0 bytes",
        "Max processes 5000 5000 processes",
        "Max open files 77 77 files",
        "Max address space 2147483648 2147483648 bytes",
    ];
    assert_eq!(shown.lines().map(str::trim).collect::<Vec<_>>(), expected);
}

#[test]
fn a_child_runs_as_its_user_with_no_other_group_and_may_enqueue() {
    let name = "a_child_runs_as_its_user_with_no_other_group_and_may_enqueue";
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let nobody = users.lines().find(|line| line.starts_with("nobody:"));
    let (true, Some(nobody)) = (rustix::process::geteuid().is_root(), nobody) else {
        return skipped(name, "needs root, and a user nobody to run as");
    };
    let ids: Vec<&str> = nobody.split(':').skip(2).take(2).collect();
    let home = Home::bare();
    // The user must get to its directory and its program.
    std::fs::set_permissions(home.path("."), std::fs::Permissions::from_mode(0o755)).unwrap();
    let script = "echo '{\"type\":\"shows\",\"delay\":\"1h\",\"id\":\"next\"}' >\"$BIOTOPE_ENQUEUE\" || exit 65\n\
                  grep -E '^(Uid|Gid|Groups):' /proc/self/status | tr -s '\\t ' ' '";
    let shown = result_of(&home, "user = \"nobody\"", script);
    let four = |id: &str| [id; 4].join(" ");
    let expected = [format!("Uid: {}", four(ids[0])), format!("Gid: {}", four(ids[1])), format!("Groups: {}", ids[1])];
    assert_eq!(shown.lines().map(str::trim).collect::<Vec<_>>(), expected);
    let biotope = home.start();
    assert_eq!(biotope.job("next")["state"], "delayed");
    biotope.stop();
}

#[test]
fn a_child_is_in_all_groups_of_its_user() {
    let name = "a_child_is_in_all_groups_of_its_user";
    let groups = std::fs::read_to_string("/etc/group").unwrap();
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    // Somebody who is in another group than its own.
    let user = groups.lines().find_map(|line| {
        let user = line.rsplit(':').next()?.split(',').next().filter(|user| !user.is_empty() && *user != "root")?;
        users.lines().any(|line| line.starts_with(&format!("{user}:"))).then(|| user.to_owned())
    });
    let (true, Some(user)) = (rustix::process::geteuid().is_root(), user) else {
        return skipped(name, "needs root, and a user who is in another group than its own");
    };
    let home = Home::bare();
    std::fs::set_permissions(home.path("."), std::fs::Permissions::from_mode(0o755)).unwrap();
    let shown = result_of(&home, &format!("user = \"{user}\""), "id -G");
    let expected = Command::new("id").args(["-G", &user]).output().unwrap().stdout;
    let sorted = |text: &str| {
        let mut groups: Vec<u32> = text.split_whitespace().map(|group| group.parse().unwrap()).collect();
        groups.sort_unstable();
        groups
    };
    let expected = sorted(&String::from_utf8(expected).unwrap());
    assert!(expected.len() > 1, "{expected:?}");
    assert_eq!(sorted(&shown), expected);
}

#[test]
fn a_user_that_may_not_enter_its_directory_is_told_so() {
    let name = "a_user_that_may_not_enter_its_directory_is_told_so";
    if !rustix::process::geteuid().is_root() || !std::fs::read_to_string("/etc/passwd").unwrap().contains("nobody:") {
        return skipped(name, "needs root, and a user nobody to run as");
    }
    let home = Home::bare();
    std::fs::set_permissions(home.path("."), std::fs::Permissions::from_mode(0o700)).unwrap();
    home.configure("[workers.shows]\nversion = \"v1\"\nexec = [\"true\"]\nuser = \"nobody\"\n");
    let biotope = home.start();
    let id = biotope.push(&json!({"type": "shows"}));
    until("a reason", SOON, || {
        let shown = biotope.of_type("shows")["versions"][0]["reason"].to_string();
        if shown.contains("Permission denied") { Ok(()) } else { Err(shown) }
    });
    assert_eq!(biotope.job(&id)["attempts"], 0);
    biotope.stop();
}

#[test]
fn a_user_or_a_limit_that_cannot_be_had_is_told_at_its_place() {
    let home = Home::bare();
    home.script("shows.sh", "true");
    home.configure(
        "[workers.shows]\nversion = \"v1\"\nexec = [\"./shows.sh\"]\nuser = \"no-such-user-here\"\n\
         limits = { open_files = 1000000000 }\n",
    );
    let output = home.cli(&["run"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    for part in ["there is no user \"no-such-user-here\"", "biotope itself was started with a limit of", "2 problems"] {
        assert!(said.contains(part), "{part} is not in:\n{said}");
    }
}
