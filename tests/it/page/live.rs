//! Pages that stay open: current, at rest while nobody looks, honest while nobody answers, and deaf to what jobs bring along.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::browser::{self, Browser};
use crate::support::wait::until;
use crate::support::{Home, SOON, skipped};

#[test]
fn a_page_rests_while_hidden_and_says_so_when_biotope_is_gone() {
    if !browser::is_here() {
        return skipped("a_page_rests_while_hidden_and_says_so_when_biotope_is_gone", "no chromium with its driver");
    }
    let home = Home::new("[workers.echo]\nversion = \"v1\"\nexec = [\"cat\"]\n");
    let biotope = home.start();
    let browser = Browser::open();
    browser.go(&format!("http://127.0.0.1:{}/", home.port));
    browser.until_shown("the page", &["All is well", "echo"]);

    // Hidden, it asks nothing for as long as it would have asked twice; seen again, it asks at once, and is right.
    browser.run(
        "const select = window.getSelection; window.selections = 0;
         window.getSelection = () => { window.selections += 1; return select.call(window); };
         const ask = window.fetch; window.asked = 0; window.fetch = (...all) => { window.asked += 1; return ask(...all); };
         window.hide = (hidden) => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });
             document.dispatchEvent(new Event('visibilitychange')); };
         window.hide(true); window.asked = 0; setTimeout(() => { window.rested = window.asked; }, 5000);",
    );
    biotope.push_lines(&"{\"type\":\"echo\",\"delay\":\"1h\"}\n".repeat(4711));
    let rested = until("a while", SOON, || match browser.run("return window.rested ?? null") {
        Value::Null => Err("it goes on".to_owned()),
        rested => Ok(rested),
    });
    assert_eq!(rested, 0, "it asked while it was hidden");
    assert!(!browser.text().contains("4\u{2009}711"), "{}", browser.text());
    browser.run("window.hide(false)");
    browser.until_shown("what came in meanwhile", &["4\u{2009}711"]);
    // However much has changed, the browser is asked once for what costs it a layout of the page.
    let seldom = browser.run("return window.selections > 0 && window.selections <= window.asked + 1");
    assert_eq!(seldom, true, "{}", browser.run("return [window.selections, window.asked]"));

    // Nobody answers: it says so, shows what it last knew, and goes on by itself with the next process.
    biotope.kill();
    browser.until_shown("that nobody answers", &["Biotope does not answer", "s ago", "4\u{2009}711"]);
    let biotope = home.start();
    until("an answer", SOON, || {
        let text = browser.text();
        if text.contains("does not answer") { Err(text) } else { Ok(()) }
    });
    biotope.stop();
}

#[test]
fn a_rollover_is_watched_from_its_start_to_retirement() {
    if !browser::is_here() {
        return skipped("a_rollover_is_watched_from_its_start_to_retirement", "no chromium with its driver");
    }
    let config = |version: &str| {
        format!(
            "[workers.press]\nversion = \"{version}\"\nexec = [\"./{version}.sh\"]\n\
             rollout = {{ warm_for = \"0s\", min_samples = 1, hold = \"1h\", steps = [50] }}\n"
        )
    };
    let home = Home::new(&config("v1"));
    home.script("v1.sh", "echo $$ >>begun.txt\nread -r line <gate || true");
    home.script("v2.sh", "exit 0");
    home.pipe("gate");
    let biotope = home.start();
    let held = biotope.push(&json!({"type": "press"}));
    until("the run", SOON, || if home.text("begun.txt").is_empty() { Err("not begun".into()) } else { Ok(()) });
    let browser = Browser::open();
    browser.go(&format!("http://127.0.0.1:{}/types/press", home.port));
    browser.until_shown("v1 at work", &["v1", "current", "1 of 1 busy"]);
    browser.run("window.mark = 'same page'");

    // One page, without a reload: it ramps, is held, and goes on.
    home.configure(&config("v2"));
    biotope.signal(Signal::HUP);
    browser.until_shown("the ramp", &["v2 on a ramp at 50 %", "ramping 50 %", "current 50 %", "Promote v2"]);
    assert_eq!(browser.run("return window.mark"), "same page");
    browser.click("form[action$='/pause-rollout'] button");
    browser.until_shown("that it is held", &["The ramp is paused", "paused until", "Go on with the ramp"]);
    assert_eq!(biotope.of_type("press")["trial"]["paused"], true);
    browser.click("form[action$='/resume-rollout'] button");
    browser.until_shown("that it goes on", &["The rollout goes on", "Hold the ramp"]);

    // Promoted by hand, the old version drains, held up by its one job; once that is through it is gone.
    browser.click("#do-promote summary");
    browser.click("#do-promote button");
    browser.until_shown("the drain", &["Promoted: the new version", "draining", &format!("held up by {held}")]);
    browser.screenshots("drain");
    home.open_gate("gate");
    browser.until_shown("the retirement", &["retired"]);
    biotope.until_state(&held, "completed");
    let states =
        browser.run("return [...document.querySelectorAll('.all-versions .state')].map(part => part.innerText)");
    assert_eq!(states, json!(["retired", "current"]));
    browser.go(&format!("http://127.0.0.1:{}/", home.port));
    browser.until_shown("the first screen", &["All is well", "v2 current"]);
    assert!(!browser.text().contains("v1 retired"), "{}", browser.text());
    assert_eq!(browser.complaints(), Vec::<Value>::new(), "the console is clean");
    biotope.stop();
}

/// Markup that would run, as an id may be spelt: without blanks and quotes.
const AS_ID: &str = "<svg><a@onload=window.hurt=1>";
/// And as anything else may.
const MARKUP: &str = "</pre></textarea><img src=x onerror=window.hurt=1><script>window.hurt=1</script>'`";

#[test]
fn hostile_text_stays_text_on_every_page() {
    if !browser::is_here() {
        return skipped("hostile_text_stays_text_on_every_page", "no chromium with its driver");
    }
    let home = Home::new(
        "[workers.fails]\nversion = \"v1\"\nexec = [\"./fails.sh\"]\nmax_attempts = 1\n\
         [workers.tells]\nversion = \"v1\"\nexec = [\"./tells.sh\"]\n\
         [workers.does]\nversion = \"v1\"\nexec = [\"./does.sh\"]\n",
    );
    home.script("fails.sh", "cat >&2; exit 1");
    home.write("progress.txt", &format!("biotope:progress 40% {MARKUP}\n"));
    home.script("tells.sh", "cat progress.txt >&2\nread -r line <gate || true");
    home.write("next.txt", &json!({"type": "fails", "id": format!("{AS_ID}2"), "payload": MARKUP}).to_string());
    home.script("does.sh", "cat next.txt >\"$BIOTOPE_ENQUEUE\"; cat");
    home.pipe("gate");
    let biotope = home.start();
    let job = |of: &str, id: &str| json!({"type": of, "id": id, "idempotency_key": AS_ID, "payload": MARKUP, "tenant": MARKUP, "task": MARKUP});
    let ids: Vec<String> =
        ["fails", "tells", "does"].iter().map(|of| biotope.push(&job(of, &format!("{AS_ID}{of}")))).collect();
    let encoded = |id: &str| id.replace('<', "%3C").replace('>', "%3E");
    let state_of = |id: &str, state: &str| {
        until(state, SOON, || {
            let job = biotope.get(&format!("/v1/jobs/{}", encoded(id))).json();
            if job["state"] == state { Ok(job) } else { Err(job.to_string()) }
        })
    };
    state_of(&ids[0], "dead");
    state_of(&ids[2], "completed");
    state_of(&format!("{AS_ID}2"), "dead");
    until("the progress", SOON, || {
        let job = state_of(&ids[1], "reserved");
        if job["progress"].is_null() { Err(job.to_string()) } else { Ok(()) }
    });

    let browser = Browser::open();
    let search = "/jobs?tenant=%3C%2Fpre%3E%3C%2Ftextarea%3E%3Cimg%20src%3Dx%20onerror%3Dwindow.hurt%3D1%3E";
    let pages: [(&str, &[&str]); 8] = [
        ("/", &["fails has 2 jobs dead"]),
        ("/types/fails", &["Why jobs are dead", MARKUP]),
        ("/jobs", &[AS_ID, MARKUP, "dead", "completed"]),
        (&format!("/jobs/{}", encoded(&ids[0])), &[AS_ID, MARKUP, "Failed, and is dead"]),
        (&format!("/jobs/{}", encoded(&ids[1])), &["reserved", "40 %", MARKUP]),
        (&format!("/jobs/{}", encoded(&ids[2])), &["completed", MARKUP, "Jobs that it enqueued", &format!("{AS_ID}2")]),
        (search, &["jobs of tenant </pre></textarea><img src=x", "None."]),
        ("/jobs/all/retry?type=fails&state=dead&error=%3C%2Fpre%3E", &["with the error \u{201c}</pre>\u{201d}"]),
    ];
    for (path, parts) in pages {
        browser.go(&format!("http://127.0.0.1:{}{path}", home.port));
        browser.until_shown(path, parts);
        browser.fits(path);
        assert_eq!(browser.run("return window.hurt === undefined"), true, "{path}");
    }
    assert_eq!(browser.complaints(), Vec::<Value>::new(), "the console is clean");

    // And were any of it markup, the policy would not let it run.
    browser.run(
        "document.addEventListener('securitypolicyviolation', (event) => { window.refused = event.effectiveDirective; });
         document.body.insertAdjacentHTML('beforeend', '<img src=\"data:,\" onerror=\"window.hurt=1\">');",
    );
    let refused = until("a violation", SOON, || match browser.run("return window.refused ?? null") {
        Value::Null => Err("none".to_owned()),
        refused => Ok(refused),
    });
    assert_eq!(refused, "script-src-attr");
    assert_eq!(browser.run("return window.hurt === undefined"), true);
    home.open_gate("gate");
    biotope.stop();
}
