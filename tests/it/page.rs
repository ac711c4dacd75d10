//! The status page in a real browser, driven over WebDriver.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

use crate::support::wait::until;
use crate::support::{Home, SOON, has_program, http, skipped};

const ECHO: &str = "[workers.echo]\nversion = \"v1\"\nexec = [\"cat\"]\n";

/// A browser with one tab. Dropped, it is closed, and whatever is left of it killed.
struct Browser {
    driver: Child,
    port: u16,
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    fn open() -> Self {
        let port = Home::bare().port;
        let profile = tempfile::tempdir().unwrap();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        // Owned from here on, so that a failure below ends the driver, too.
        let mut browser = Self { driver, port, session: String::new(), _profile: profile };
        until("chromedriver", SOON, || match http::get(port, "/status") {
            Ok(answer) if answer.json()["value"]["ready"] == true => Ok(()),
            other => Err(format!("{other:?}")),
        });
        let profile = format!("--user-data-dir={}", browser._profile.path().display());
        let answer = browser.call(
            "/session",
            &json!({"capabilities": {"alwaysMatch": {
                "goog:loggingPrefs": {"browser": "ALL"},
                "goog:chromeOptions": {"args": [
                    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic",
                    "--no-first-run", "--disable-background-networking", "--disable-component-update",
                    "--disable-sync", "--window-size=1100,900", profile,
                ]},
            }}}),
        );
        browser.session = format!("/session/{}", answer["sessionId"].as_str().unwrap());
        browser
    }

    fn call(&self, path: &str, body: &Value) -> Value {
        let path = format!("{}{path}", self.session);
        let answer = http::post(self.port, &path, "application/json", body.to_string().as_bytes()).unwrap();
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()["value"].clone()
    }

    fn go(&self, url: &str) {
        self.call("/url", &json!({"url": url}));
    }

    /// Makes the page as wide as a device of so many pixels, whatever a window can be.
    fn resize(&self, width: u32) {
        let metrics = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500});
        self.call("/goog/cdp/execute", &json!({"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics}));
    }

    fn run(&self, script: &str) -> Value {
        self.call("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// The page as a person reads it.
    fn text(&self) -> String {
        self.run("return document.body.innerText").as_str().unwrap().to_owned()
    }

    /// What the console said above the level of a remark.
    fn complaints(&self) -> Vec<Value> {
        let log = self.call("/se/log", &json!({"type": "browser"}));
        let entries = log.as_array().unwrap().clone();
        entries.into_iter().filter(|entry| entry["level"] == "SEVERE" || entry["level"] == "WARNING").collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            drop(http::delete(self.port, &self.session));
        }
        let _ = rustix::process::kill_process_group(Pid::from_child(&self.driver), Signal::KILL);
        drop(self.driver.wait());
    }
}

#[test]
fn the_page_shows_what_lives_here_and_keeps_itself_current() {
    let name = "the_page_shows_what_lives_here_and_keeps_itself_current";
    if !has_program("chromedriver") || !has_program("chromium") {
        return skipped("the_page_shows_what_lives_here_and_keeps_itself_current", "no chromium with its driver");
    }
    let home = Home::new(ECHO);
    let biotope = home.start();
    biotope.push(&json!({"type": "echo"}));
    biotope.until_count("echo", "completed", 1);

    let browser = Browser::open();
    browser.go(&format!("http://127.0.0.1:{}/", home.port));
    let text = browser.text();
    assert!(text.contains("echo") && text.contains("v1"), "{name}: {text}");
    assert!(browser.run("return document.title").as_str().is_some_and(|title| !title.is_empty()));
    assert_eq!(browser.run("return document.documentElement.lang"), "en");

    // Rendered on the server: all of it is in the page itself, before any script runs.
    let page = biotope.get("/");
    assert!(page.header("content-type").unwrap().starts_with("text/html"), "{page:?}");
    assert!(page.header("content-security-policy").is_some(), "{page:?}");
    assert!(String::from_utf8_lossy(&page.body).contains("echo"), "{page:?}");

    // Kept current without a reload: a mark set in the page is still there when the numbers have moved.
    browser.run("window.mark = 'same page'");
    let lines: String =
        (0..4711).map(|n| format!("{{\"type\":\"echo\",\"payload\":{n},\"delay\":\"1h\"}}\n")).collect();
    biotope.push_lines(&lines);
    until("the new jobs on the page", SOON, || {
        let text = browser.text();
        if text.replace([',', ' ', '\u{202f}', '\u{a0}', '\u{2009}'], "").contains("4711") { Ok(()) } else { Err(text) }
    });
    assert_eq!(browser.run("return window.mark"), "same page");

    // As narrow as a telephone and as wide as a wall, nothing hangs over the edge, and no number hides behind it.
    for width in [360, 1280, 2560] {
        browser.resize(width);
        let hidden = browser.run(
            "const edge = document.documentElement.clientWidth;
             return [...document.querySelectorAll('main *')].filter(part => part.getBoundingClientRect().right > edge + 1 &&
                 part.getBoundingClientRect().height > 1 && !part.closest('thead')).map(part => part.outerHTML);",
        );
        assert_eq!(hidden, json!([]), "over the edge at {width} px");
        let wide = browser.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth");
        assert_eq!(wide, 0, "the page scrolls sideways at {width} px");
        let delayed = browser.run("return document.querySelector('[data-label=Delayed]').checkVisibility()");
        assert_eq!(delayed, true, "the number of delayed jobs is seen at {width} px");
    }
    assert_eq!(browser.complaints(), Vec::<Value>::new(), "the console is clean");
    biotope.stop();
}

#[test]
fn what_fails_is_seen_first_and_what_is_opened_stays_open() {
    if !has_program("chromedriver") || !has_program("chromium") {
        return skipped("what_fails_is_seen_first_and_what_is_opened_stays_open", "no chromium with its driver");
    }
    let home = Home::new(&format!(
        "{ECHO}[workers.dies]\nversion = \"v1\"\nmode = \"persistent\"\nexec = [\"false\"]\n\
         [workers.long]\nversion = \"v1\"\nexec = [\"sleep\", \"1000\"]\nkill_after = \"10ms\"\n\
         [workers.stays]\nversion = \"v1\"\nmode = \"persistent\"\nexec = [\"./stays.sh\"]\nconcurrency = 3\n"
    ));
    home.script(
        "stays.sh",
        r#"while IFS= read -r line; do id=${line#*\"id\":\"}; echo "{\"jsonrpc\":\"2.0\",\"id\":\"${id%%\"*}\",\"result\":{\"protocol\":1}}"; done"#,
    );
    let biotope = home.start();
    biotope.until_state(&biotope.push(&json!({"type": "echo"})), "completed");
    let held = biotope.push(&json!({"type": "long"}));
    let browser = Browser::open();
    browser.go(&format!("http://127.0.0.1:{}/", home.port));
    until("a process, and a failing version", SOON, || {
        let text = browser.text();
        let shown = ["Needs you now", "dies v1 is failing: false exited with code 1", "Memory", "Run"];
        if shown.iter().all(|part| text.contains(part)) { Ok(()) } else { Err(text) }
    });
    // Above everything else, at a glance on a small screen, too.
    for width in [360, 1280] {
        browser.resize(width);
        let seen = browser.run("return document.querySelector('.verdict.bad li').getBoundingClientRect().bottom");
        assert!(seen.as_f64().unwrap() < 400.0, "{seen} at {width} px");
        let wide = browser.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth");
        assert_eq!(wide, 0, "the page scrolls sideways at {width} px");
    }
    let hidden = browser.run(
        "const all = document.querySelector('.wide'); return all.scrollWidth - all.clientWidth + ' of ' + all.clientWidth",
    );
    assert!(hidden.as_str().unwrap().starts_with("0 of "), "columns lie behind the edge: {hidden}");

    // What somebody opens stays open while the page goes on: it is another element, and the same part.
    browser.run("const part = document.querySelector('#workers-long-v1'); part.open = true; part.mark = 'old'");
    until("another look", SOON, || {
        let mark = browser.run("return document.querySelector('#workers-long-v1').mark ?? 'new'");
        if mark == "new" { Ok(()) } else { Err(mark.to_string()) }
    });
    let open = browser.run("return document.querySelector('#workers-long-v1').open");
    let text = browser.run("return document.querySelector('#workers-long-v1').innerText");
    assert!(open == true && text.as_str().unwrap().contains(&held), "{open} {text}");
    assert_eq!(browser.run("return document.querySelector('#workers-stays-v1').open"), false);
    assert_eq!(browser.complaints(), Vec::<Value>::new(), "the console is clean");
    biotope.kill();
}

/// The text and its absence of overhang, as narrow as a telephone and on a desk.
fn until_shown(browser: &Browser, what: &str, parts: &[&str]) {
    until(what, SOON, || {
        let text = browser.text();
        match parts.iter().find(|part| !text.contains(**part)) {
            Some(missing) => Err(format!("{missing} is missing in {text}")),
            None => Ok(()),
        }
    });
    for width in [360, 1280] {
        browser.resize(width);
        let wide = browser.run(
            "const all = document.querySelector('.wide'), page = document.documentElement;
             return [page.scrollWidth - page.clientWidth, all.scrollWidth - all.clientWidth]",
        );
        assert_eq!(wide, json!([0, 0]), "{what}: something lies behind the edge at {width} px");
    }
}

#[test]
fn a_rollover_is_seen_from_its_ramp_to_its_withdrawal() {
    if !has_program("chromedriver") || !has_program("chromium") {
        return skipped("a_rollover_is_seen_from_its_ramp_to_its_withdrawal", "no chromium with its driver");
    }
    let config = |version: &str, script: &str| {
        let ramp = "rollout = { steps = [50], hold = \"1h\", min_samples = 200 }";
        format!(
            "[workers.press]\nversion = \"{version}\"\nexec = [\"./{script}\"]\n{ramp}\n\
             [workers.long]\nversion = \"{version}\"\nexec = [\"./long.sh\"]\n"
        )
    };
    let home = Home::new(&config("v1", "good.sh"));
    home.script("good.sh", "true");
    home.script("bad.sh", "echo 'no such font' >&2; exit 65");
    home.script("long.sh", "echo $$ >>begun.txt\nread -r line <gate || true");
    home.pipe("gate");
    let biotope = home.start();
    let held = biotope.push(&json!({"type": "long"}));
    until("the run", SOON, || if home.text("begun.txt").is_empty() { Err("not begun".into()) } else { Ok(()) });
    home.configure(&config("v2", "bad.sh"));
    biotope.signal(Signal::HUP);
    biotope.until_version("press", "v2", "ramping");
    biotope.until_version("long", "v1", "draining");

    // What goes on is told in the head, and is nothing to worry about.
    let browser = Browser::open();
    browser.go(&format!("http://127.0.0.1:{}/", home.port));
    let line = "v2 on a ramp at 50 % (next all), held 59 min more, 200 more first attempts needed";
    let drain = format!("held up by {held}");
    let parts = ["All is well", "press v2 on a ramp at 50 %", "long v1 drains, 1 in flight", line, &drain];
    until_shown(&browser, "the ramp and the drain", &parts);
    let status = String::from_utf8(home.cli(&["status"]).stdout).unwrap();
    for part in ["v1 current 50 %, v2 ramping 50 %", line, "long v1: 1 in flight", &drain] {
        assert!(status.contains(part), "{part} is missing in {status}");
    }
    home.open_gate("gate");
    biotope.until_version("long", "v1", "warm");
    until_shown(&browser, "the warm version", &["v1 warm", "min more"]);

    // Nobody touches anything: the bad version is withdrawn, and the page says why and what to do.
    let total = 60;
    biotope.push_lines(&"{\"type\":\"press\"}\n".repeat(total));
    biotope.until_count("press", "completed", total as u64);
    let told = "press v2 was withdrawn, and the config still asks for it: v2 failed";
    let parts = ["Worth a look", told, "biotope rollout resume press", "v2 quarantined", "quarantined: v2 failed"];
    until_shown(&browser, "the withdrawal", &parts);
    let status = String::from_utf8(home.cli(&["status"]).stdout).unwrap();
    assert!(status.contains(told) && status.contains("v2 quarantined"), "{status}");
    assert_eq!(biotope.of_type("press")["dead"], 0);

    // The withdrawal outlives the process, and is history once nobody asks for that version.
    biotope.kill();
    let biotope = home.start();
    until_shown(&browser, "the withdrawal after a crash", &["Worth a look", told]);
    home.configure(&config("v1", "good.sh"));
    biotope.signal(Signal::HUP);
    until("nothing to look at", SOON, || {
        let text = browser.text();
        if text.contains("All is well") && !text.contains(told) { Ok(()) } else { Err(text) }
    });
    assert_eq!(browser.complaints().iter().filter(|said| !said.to_string().contains("CONNECTION_REFUSED")).count(), 0);
    biotope.stop();
}

#[test]
fn hostile_text_stays_text_on_the_page() {
    if !has_program("chromedriver") || !has_program("chromium") {
        return skipped("hostile_text_stays_text_on_the_page", "no chromium with its driver");
    }
    let script = "<img src=x onerror=\"window.hurt=1\"><script>window.hurt=1</script>";
    let home = Home::new("[workers.fails]\nversion = \"v1\"\nexec = [\"./fails.sh\"]\nmax_attempts = 1\n");
    home.script("fails.sh", "cat >&2; exit 1");
    let biotope = home.start();
    let id = biotope.push(&json!({"type": "fails", "payload": script, "tenant": script, "task": script}));
    biotope.until_state(&id, "dead");
    let browser = Browser::open();
    browser.go(&format!("http://127.0.0.1:{}/", home.port));
    until("the dead job on the page", SOON, || {
        let text = browser.text();
        if text.contains("fails") { Ok(()) } else { Err(text) }
    });
    assert_eq!(browser.run("return window.hurt === undefined"), true);
    assert_eq!(browser.complaints(), Vec::<Value>::new(), "the console is clean");
    biotope.stop();
}
