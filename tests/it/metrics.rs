//! `/metrics`: what it counts, in which format, and that the tools of Prometheus are content with it and with the rules.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::{Biotope, Home, LATER, has_program, repository, shown, skipped};

/// The figure with this name and these labels, as they are written.
fn figure(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

fn metrics(biotope: &Biotope<'_>) -> String {
    let answer = biotope.get("/metrics");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    String::from_utf8(answer.body).unwrap()
}

const WORKERS: &str = "[workers.well]\nversion = \"v1\"\nexec = [\"true\"]\nrollout = { warm_for = \"0s\" }\n\
                       [workers.ill]\nversion = \"v1\"\nexec = [\"false\"]\nmax_attempts = 1\n";

/// Ten jobs that are completed, and three that die.
fn worked(home: &Home) -> Biotope<'_> {
    let biotope = home.start();
    for number in 0..13 {
        biotope.push(&json!({"type": if number < 10 { "well" } else { "ill" }, "payload": "secret"}));
    }
    biotope.until_count("well", "completed", 10);
    biotope.until_count("ill", "dead", 3);
    biotope
}

#[test]
fn figures_add_up_to_what_was_done() {
    let home = Home::new(WORKERS);
    let biotope = worked(&home);
    let text = metrics(&biotope);
    for (series, value) in [
        ("biotope_jobs_enqueued_total{type=\"well\"}", 10.0),
        ("biotope_jobs_ended_total{type=\"well\",outcome=\"completed\"}", 10.0),
        ("biotope_jobs{type=\"well\",state=\"ready\"}", 0.0),
        ("biotope_jobs{type=\"ill\",state=\"dead\"}", 3.0),
        ("biotope_attempts_failed_total{type=\"ill\"}", 3.0),
        ("biotope_runs_total{type=\"well\",version=\"v1\",outcome=\"completed\"}", 10.0),
        ("biotope_runs_total{type=\"ill\",version=\"v1\",outcome=\"failed\"}", 3.0),
        ("biotope_run_seconds_count{type=\"well\",version=\"v1\"}", 10.0),
        ("biotope_run_seconds_bucket{type=\"well\",version=\"v1\",le=\"+Inf\"}", 10.0),
        ("biotope_wait_seconds_count{type=\"well\",version=\"v1\"}", 10.0),
        ("biotope_version_state{type=\"well\",version=\"v1\",state=\"current\"}", 1.0),
        ("biotope_version_share_ratio{type=\"well\",version=\"v1\"}", 1.0),
        ("biotope_workers{type=\"well\",version=\"v1\"}", 1.0),
        ("biotope_config_last_reload_success", 1.0),
        ("biotope_config_generation", 1.0),
        ("biotope_log_full", 0.0),
    ] {
        assert_eq!(figure(&text, series), Some(value), "{series} in\n{text}");
    }
    let some = |series: &str| figure(&text, series).unwrap_or_else(|| panic!("{series} in\n{text}"));
    assert!(some("biotope_run_seconds_sum{type=\"well\",version=\"v1\"}") > 0.0);
    assert!(some("biotope_log_sync_seconds_count") >= 13.0, "every push was answered by a sync of its own");
    let records = some("biotope_log_group_records_sum");
    let durable = some("biotope_log_durable_up_to");
    assert!(records > 26.0 && records < durable, "{records} of {durable}");
    assert!(some("biotope_log_used_bytes") >= 4e6);
    assert!(!text.contains("secret"), "{text}");
    assert_eq!(biotope.get("/metrics").status, 200);

    // What a version did is told on when it is gone, and a refused config shows.
    home.configure(&WORKERS.replace("[workers.well]\nversion = \"v1\"", "[workers.well]\nversion = \"v2\""));
    let reload = home.cli(&["reload", "--wait"]);
    assert_eq!(reload.status.code(), Some(0), "{}", shown(&reload));
    biotope.push(&json!({"type": "well"}));
    biotope.until_count("well", "completed", 11);
    biotope.until_version("well", "v1", "retired");
    home.configure("[workers.well]\nversion = 3\n");
    assert_eq!(home.cli(&["reload", "--wait"]).status.code(), Some(78));
    let text = metrics(&biotope);
    for (series, value) in [
        ("biotope_runs_total{type=\"well\",version=\"v1\",outcome=\"completed\"}", 10.0),
        ("biotope_version_state{type=\"well\",version=\"v1\",state=\"retired\"}", 1.0),
        ("biotope_runs_total{type=\"well\",version=\"v2\",outcome=\"completed\"}", 1.0),
        ("biotope_config_last_reload_success", 0.0),
        ("biotope_config_generation", 2.0),
    ] {
        assert_eq!(figure(&text, series), Some(value), "{series} in\n{text}");
    }
    biotope.stop();
}

/// Runs promtool with these arguments and this on its stdin; `None`: it cannot be had.
fn promtool(arguments: &[&str], stdin: &str) -> Option<std::process::Output> {
    // Where tests/run puts it, and where a package does.
    let unpacked = repository().join("target/tools/usr/bin/promtool");
    let program = if unpacked.is_file() { unpacked } else { "promtool".into() };
    if !program.is_absolute() && !has_program("promtool") {
        return None;
    }
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(repository().join("examples/monitoring"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    Some(child.wait_with_output().unwrap())
}

#[test]
fn promtool_finds_nothing_wrong_with_the_figures() {
    let home = Home::new(WORKERS);
    let biotope = worked(&home);
    let Some(checked) = promtool(&["check", "metrics"], &metrics(&biotope)) else {
        return skipped("promtool_finds_nothing_wrong_with_the_figures", "there is no promtool");
    };
    assert!(checked.status.success() && checked.stdout.is_empty() && checked.stderr.is_empty(), "{}", shown(&checked));
    biotope.stop();
}

#[test]
fn the_alert_rules_tell_what_is_ill_and_nothing_else() {
    let Some(tested) = promtool(&["test", "rules", "alerts.test.yml"], "") else {
        return skipped("the_alert_rules_tell_what_is_ill_and_nothing_else", "there is no promtool");
    };
    assert!(tested.status.success(), "{}", shown(&tested));
}

#[test]
fn rules_dashboard_and_reference_name_figures_that_there_are() {
    let home = Home::new(WORKERS);
    let biotope = worked(&home);
    let text = metrics(&biotope);
    let families: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let read = |path: &str| std::fs::read_to_string(repository().join(path)).unwrap();
    let named = |path: &str| -> Vec<String> {
        let text = read(path);
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words.filter(|word| word.starts_with("biotope_")).map(str::to_owned).collect()
    };
    for path in ["examples/monitoring/alerts.yml", "examples/monitoring/dashboard.json", "docs/monitoring.md"] {
        let named = named(path);
        assert!(named.len() > 8, "{path}: {named:?}");
        for name in named {
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
            assert!(families.contains(&family), "{path} names {name}, and there is none in\n{text}");
        }
    }
    let reference = named("docs/monitoring.md");
    for family in families {
        assert!(reference.iter().any(|name| name == family), "docs/monitoring.md does not name {family}");
    }
    serde_json::from_str::<serde_json::Value>(&read("examples/monitoring/dashboard.json")).unwrap();
    biotope.stop();
}

#[test]
fn who_asks_for_openmetrics_gets_it() {
    use std::io::Read;
    let home = Home::new(WORKERS);
    let biotope = home.start();
    let ask = |accept: &str| {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", home.port)).unwrap();
        stream.set_read_timeout(Some(LATER)).unwrap();
        let head = format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    let open = ask("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1");
    assert!(open.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"), "{open}");
    assert!(open.contains("# EOF\n") && open.contains("# TYPE biotope_jobs_enqueued counter\n"), "{open}");
    for plain in ["*/*", "text/plain", "application/openmetrics-text;q=0"] {
        assert!(!ask(plain).contains("# EOF"), "{plain}");
    }
    biotope.stop();
}
