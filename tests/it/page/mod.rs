//! The pages in a real browser.

mod browser;
mod live;
mod login;
mod reach;
mod work;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::wait::until;
use crate::support::{Home, SOON, skipped};
use browser::Browser;

const ECHO: &str = "[workers.echo]\nversion = \"v1\"\nexec = [\"cat\"]\n";

#[test]
fn the_page_shows_what_lives_here_and_keeps_itself_current() {
    let name = "the_page_shows_what_lives_here_and_keeps_itself_current";
    if !browser::is_here() {
        return skipped("the_page_shows_what_lives_here_and_keeps_itself_current", "no chromium with its driver");
    }
    let home = Home::shipped(ECHO);
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
    browser.fits("the first screen");
    for width in browser::WIDTHS {
        browser.resize(width);
        let delayed = browser.run("return document.querySelector('[data-label=Delayed]').checkVisibility()");
        assert_eq!(delayed, true, "the number of delayed jobs is seen at {width} px");
    }
    assert_eq!(browser.complaints(), Vec::<Value>::new(), "the console is clean");
    biotope.stop();
}

#[test]
fn what_fails_is_seen_first_and_what_is_opened_stays_open() {
    if !browser::is_here() {
        return skipped("what_fails_is_seen_first_and_what_is_opened_stays_open", "no chromium with its driver");
    }
    let home = Home::shipped(&format!(
        "{ECHO}[workers.dies]\nversion = \"v1\"\nmode = \"persistent\"\nexec = [\"false\"]\n\
         [workers.long]\nversion = \"v1\"\nexec = [\"sleep\", \"1000\"]\nkill_after = \"10ms\"\ntimeout = \"10m\"\n\
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
        let shown = ["Needs you now", "dies v1 is failing: false exited with code 1", "Run"];
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

    // A click away is the type, with its workers and what they hold.
    browser.resize(1280);
    browser.run("document.querySelector('#type-long th a').click()");
    browser.until_shown("the page of a type", &["v1", "1 of 1 busy", "Memory", "KiB"]);
    browser.fits("the page of a type");
    // What somebody opens stays open while the page goes on, and the keyboard stays where it is: it is another element, and
    // the same part.
    browser.run(
        "const part = document.querySelector('#workers-v1'); part.open = true; part.mark = 'old';
         part.querySelector('summary').focus()",
    );
    until("another look", SOON, || {
        let mark = browser.run("return document.querySelector('#workers-v1').mark ?? 'new'");
        if mark == "new" { Ok(()) } else { Err(mark.to_string()) }
    });
    let open = browser.run("return document.querySelector('#workers-v1').open");
    let text = browser.run("return document.querySelector('#workers-v1').innerText");
    assert!(open == true && text.as_str().unwrap().contains(&held), "{open} {text}");
    assert_eq!(browser.run("return document.activeElement.closest('details')?.id"), "workers-v1");
    browser.go(&format!("http://127.0.0.1:{}/types/stays", home.port));
    browser.until_shown("processes that stay", &["Workers"]);
    assert_eq!(browser.run("return document.querySelector('#workers-v1').open"), false);
    assert_eq!(browser.complaints(), Vec::<Value>::new(), "the console is clean");
    biotope.kill();
}

/// The text, and that it fits.
fn until_shown(browser: &Browser, what: &str, parts: &[&str]) {
    browser.until_shown(what, parts);
    browser.fits(what);
}

#[test]
fn a_rollover_is_seen_from_its_ramp_to_its_withdrawal() {
    if !browser::is_here() {
        return skipped("a_rollover_is_seen_from_its_ramp_to_its_withdrawal", "no chromium with its driver");
    }
    let config = |version: &str, script: &str| {
        let ramp = "rollout = { steps = [50], hold = \"1h\", min_samples = 200 }";
        format!(
            "[workers.press]\nversion = \"{version}\"\nexec = [\"./{script}\"]\n{ramp}\n\
             [workers.long]\nversion = \"{version}\"\nexec = [\"./long.sh\"]\ntimeout = \"10m\"\n"
        )
    };
    let home = Home::shipped(&config("v1", "good.sh"));
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
    let line = ["v2 on a ramp at 50 % (next all), held 5", " min more, 200 more first attempts needed"];
    let drain = format!("held up by {held}");
    let parts = ["All is well", "press v2 on a ramp at 50 %", "long v1 drains, 1 in flight", line[0], line[1], &drain];
    until_shown(&browser, "the ramp and the drain", &parts);
    // The route between the versions is drawn as long as their shares.
    let route = browser.run(
        "return [...document.querySelectorAll('#type-press svg.route rect')].map(part => part.getAttribute('width'))",
    );
    assert_eq!(route, json!(["50", "50"]));
    browser.screenshots("rollover");
    let status = String::from_utf8(home.cli(&["status"]).stdout).unwrap();
    for part in ["v1 current 50 %, v2 ramping 50 %", line[0], line[1], "long v1: 1 in flight", &drain] {
        assert!(status.contains(part), "{part} is missing in {status}");
    }
    home.open_gate("gate");
    biotope.until_version("long", "v1", "warm");
    until_shown(&browser, "the warm version", &["v1 warm", "v1 stays warm for a way back", "min more"]);

    // Nobody touches anything: the bad version is withdrawn, and the page says why and what to do.
    let total = 60;
    biotope.push_lines(&"{\"type\":\"press\"}\n".repeat(total));
    biotope.until_count("press", "completed", total as u64);
    let told = "press v2 was withdrawn, and the config still asks for it: v2 failed";
    let parts = ["Worth a look", told, "biotope rollout resume press", "v2 quarantined: v2 failed"];
    until_shown(&browser, "the withdrawal", &parts);
    // Who only hears the page is told; and the tab says it by its colour.
    assert_eq!(browser.run("return document.querySelector('[role=status]#told').textContent"), "Worth a look");
    assert!(browser.run("return document.getElementById('icon').href").as_str().unwrap().contains("%23d29b2b"));
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
    assert_eq!(
        browser.complaints_beside("net::ERR_"),
        Vec::<Value>::new(),
        "but for what a process that is gone brings"
    );
    biotope.stop();
}
