//! Pages that stay open: current, at rest while nobody looks, honest while nobody answers, and deaf to what jobs bring along.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::browser::{self, Browser};
use crate::events::{Reader, of};
use crate::support::wait::until;
use crate::support::{Home, SOON, skipped, tell};

/// Remembers what the page asks for, with the event that it had last; `hide` is what a tab does that is put aside.
const WATCH: &str = "const ask = window.fetch; window.asked = [];
    window.fetch = (...all) => { window.asked.push([all[0], all[1]?.headers?.['Last-Event-ID'] ?? '']); return ask(...all); };
    window.hide = (hidden) => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });
        document.dispatchEvent(new Event('visibilitychange')); };";

#[test]
fn a_page_rests_while_hidden_and_says_so_when_biotope_is_gone() {
    if !browser::is_here() {
        return skipped("a_page_rests_while_hidden_and_says_so_when_biotope_is_gone", "no chromium with its driver");
    }
    let home = Home::shipped("[workers.echo]\nversion = \"v1\"\nexec = [\"cat\"]\n");
    let biotope = home.start();
    let browser = Browser::open();
    browser.go(&format!("http://127.0.0.1:{}/", home.port));
    browser.until_shown("the page", &["All is well", "echo"]);

    // Hidden, it asks nothing for longer than it would have waited, though readers are told of what happens; seen again, it
    // asks at once, is right, and has the stream go on where it was.
    browser.until_live();
    browser.run(&format!(
        "{WATCH} const select = window.getSelection; window.selections = 0;
         window.getSelection = () => {{ window.selections += 1; return select.call(window); }};
         hide(true); window.asked = []; setTimeout(() => {{ window.rested = window.asked.length; }}, 6000);"
    ));
    let mut reader = Reader::new(&home, None);
    biotope.push_lines(&"{\"type\":\"echo\",\"delay\":\"1h\"}\n".repeat(4711));
    reader.until(|data| of(data, "echo")["delayed"] == 4711);
    drop(reader);
    let rested = until("a while", SOON, || match browser.run("return window.rested ?? null") {
        Value::Null => Err("it goes on".to_owned()),
        rested => Ok(rested),
    });
    assert_eq!(rested, 0, "it asked while it was hidden");
    assert!(!browser.text().contains("4\u{2009}711"), "{}", browser.text());
    // From now on nothing is asked by the clock: what is seen was told.
    browser.run(
        "const later = window.setTimeout;
         window.setTimeout = (then, ms) => (ms >= 5000 ? 0 : later(then, ms)); hide(false)",
    );
    browser.until_shown("what came in meanwhile", &["4\u{2009}711"]);
    let resumed = browser
        .run("return window.asked.filter(([url, last]) => url === '/v1/events' && /^\\d+-\\d+$/.test(last)).length");
    assert_eq!(resumed, 1, "{}", browser.run("return window.asked"));
    for more in 1..=2 {
        biotope.push_lines("{\"type\":\"echo\",\"delay\":\"1h\"}\n");
        browser.until_shown("what is told", &[&format!("4\u{2009}{}", 711 + more)]);
    }
    // However much has changed, the browser is asked once for what costs it a layout of the page.
    let seldom = browser.run("return window.selections > 0 && window.selections <= window.asked.length");
    assert_eq!(seldom, true, "{}", browser.run("return [window.selections, window.asked]"));

    // Nobody answers: it says so, shows what it last knew, and goes on by itself with the next process.
    biotope.kill();
    browser.until_shown("that nobody answers", &["Biotope does not answer", "s ago", "4\u{2009}713"]);
    let biotope = home.start();
    until("an answer", SOON, || {
        let text = browser.text();
        if text.contains("does not answer") { Err(text) } else { Ok(()) }
    });
    biotope.stop();
}

#[test]
fn a_page_that_has_slept_looks_at_once_and_follows_anew() {
    if !browser::is_here() {
        return skipped("a_page_that_has_slept_looks_at_once_and_follows_anew", "no chromium with its driver");
    }
    let home = Home::shipped("[workers.echo]\nversion = \"v1\"\nexec = [\"cat\"]\n");
    let biotope = home.start();
    let browser = Browser::open();
    browser.go(&format!("http://127.0.0.1:{}/", home.port));
    browser.until_live();
    // An hour has passed since it looked at the clock last: a line that was open then is not to be trusted.
    browser.run(&format!("{WATCH} const now = Date.now; Date.now = () => now.call(Date) + 3600000;"));
    until("another stream, and a look", SOON, || {
        let asked = browser.run("return window.asked.map(([url]) => url)");
        let all = asked.as_array().unwrap();
        if all.contains(&json!("/v1/events")) && all.contains(&json!("/fragment")) {
            Ok(())
        } else {
            Err(asked.to_string())
        }
    });
    browser.until_live();
    assert_eq!(browser.run("return document.getElementById('lost').hidden"), true);
    biotope.stop();
}

#[test]
fn two_hundred_types_and_thousands_of_events_cost_what_has_changed() {
    let name = "two_hundred_types_and_thousands_of_events_cost_what_has_changed";
    if !browser::is_here() {
        return skipped(
            "two_hundred_types_and_thousands_of_events_cost_what_has_changed",
            "no chromium with its driver",
        );
    }
    let of_type = |no: usize| format!("[workers.t{no:03}]\nversion = \"v1\"\nexec = [\"cat\"]\n");
    let home = Home::shipped(&(0..200).map(of_type).collect::<String>());
    let biotope = home.start();
    let browser = Browser::open();
    browser.go(&format!("http://127.0.0.1:{}/", home.port));
    browser.until_shown("all types", &["All is well", "t000", "t199"]);
    browser.until_live();
    browser.fits("two hundred types");

    // A stream of our own in the place of the house's: ten thousand events a second, all of which say that something is new.
    browser.run(&format!(
        "{WATCH} const passed = window.fetch, parse = JSON.parse, enc = new TextEncoder(); window.parsed = 0;
         JSON.parse = (text) => {{ window.parsed += 1; return parse(text); }};
         window.fetch = (...all) => all[0] !== '/v1/events' ? passed(...all) : Promise.resolve(new Response(
             new ReadableStream({{ start(to) {{ window.tell = (text) => to.enqueue(enc.encode(text)); }} }})));
         hide(true); hide(false); window.asked = []; window.parsed = 0; window.began = performance.now(); window.told = 0;
         const flood = setInterval(() => {{
             let text = '';
             for (let no = 0; no < 1000; no += 1) text += `id: 1-${{window.told += 1}}\nevent: change\ndata: {{\"types\":[]}}\n\n`;
             window.tell(text);
             if (window.told >= 40000) {{ clearInterval(flood); window.done = performance.now() - window.began; }}
         }}, 100);"
    ));
    let took =
        until("the flood", SOON, || browser.run("return window.done ?? null").as_f64().ok_or("not done".to_owned()));
    let asked = browser.run("return window.asked.length").as_u64().unwrap();
    let parsed = browser.run("return window.parsed").as_u64().unwrap();
    tell(&format!("{name}: 40000 events in {took:.0} ms, {parsed} of them read, {asked} looks"));
    let most = took / 1000.0 + 2.0;
    assert!(asked >= 2 && asked as f64 <= most && parsed as f64 <= most, "{asked} looks, {parsed} read in {took} ms");

    // One type of two hundred changes, and of two hundred rows one is made anew.
    browser.run(
        "window.made = []; new MutationObserver((all) => { for (const one of all) window.made.push(...[...one.addedNodes,
             ...one.removedNodes].filter(node => node.nodeName === 'TBODY').map(node => node.id)); })
             .observe(document.getElementById('live'), { childList: true, subtree: true });",
    );
    biotope.until_state(&biotope.push(&json!({"type": "t123"})), "completed");
    until("the row", SOON, || {
        browser.run("window.tell(`id: 1-99999\nevent: change\ndata: {\"types\":[]}\n\n`)");
        let text = browser.run("return document.querySelector('#type-t123').innerText").to_string();
        if text.contains("calm") { Err(text) } else { Ok(()) }
    });
    let made = browser.run("return [...new Set(window.made)]");
    assert_eq!(made, json!(["type-t123"]));
    assert_eq!(browser.complaints(), Vec::<Value>::new(), "the console is clean");
    biotope.stop();
}

#[test]
fn a_rollover_is_watched_from_its_start_to_retirement() {
    if !browser::is_here() {
        return skipped("a_rollover_is_watched_from_its_start_to_retirement", "no chromium with its driver");
    }
    let config = |version: &str| {
        format!(
            "[workers.press]\nversion = \"{version}\"\nexec = [\"./{version}.sh\"]\ntimeout = \"10m\"\n\
             rollout = {{ warm_for = \"0s\", min_samples = 1, hold = \"1h\", steps = [50] }}\n"
        )
    };
    let home = Home::shipped(&config("v1"));
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

/// Types whose workers say, and bring along, what would run if it were markup.
fn hostile() -> Home {
    let home = Home::shipped(
        "[workers.fails]\nversion = \"v1\"\nexec = [\"./fails.sh\"]\nmax_attempts = 1\n\
         [workers.tells]\nversion = \"v1\"\nexec = [\"./tells.sh\"]\ntimeout = \"10m\"\n\
         [workers.does]\nversion = \"v1\"\nexec = [\"./does.sh\"]\n\
         [workers.breaks]\nversion = \"v1\"\nmode = \"persistent\"\nexec = [\"./breaks.sh\"]\n",
    );
    home.write("markup.txt", &format!("{MARKUP}\n"));
    home.script("breaks.sh", "cat markup.txt >&2; exit 1");
    home.script("fails.sh", "cat >&2; exit 1");
    home.write("progress.txt", &format!("biotope:progress 40% {MARKUP}\n"));
    home.script("tells.sh", "cat progress.txt >&2\nread -r line <gate || true");
    home.write("next.txt", &json!({"type": "fails", "id": format!("{AS_ID}2"), "payload": MARKUP}).to_string());
    home.script("does.sh", "cat next.txt >\"$BIOTOPE_ENQUEUE\"; cat");
    home.pipe("gate");
    home
}

/// Each page shows these texts, fits, and runs none of it.
fn nothing_runs(browser: &Browser, home: &Home, pages: &[(&str, &[&str])]) {
    for (path, parts) in pages {
        browser.go(&format!("http://127.0.0.1:{}{path}", home.port));
        // Where there are workers, what they hold is a click away.
        browser.run("for (const part of document.querySelectorAll('details')) part.open = true");
        browser.until_shown(path, parts);
        browser.fits(path);
        assert_eq!(browser.run("return window.hurt === undefined"), true, "{path}");
    }
}

#[test]
fn hostile_text_stays_text_on_every_page() {
    if !browser::is_here() {
        return skipped("hostile_text_stays_text_on_every_page", "no chromium with its driver");
    }
    let home = hostile();
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

    // A config that is refused says it, too.
    let refused = "<img src=x onerror=window.hurt=2>";
    home.configure(&format!("[workers.fails]\nversion = \"{refused}\"\nexec = [\"true\"]\n"));
    biotope.signal(Signal::HUP);
    until("the refusal, and the failing version", SOON, || {
        let view = biotope.ecosystem();
        if !view["generation"]["last_error"].is_null() && view.to_string().contains("\"failing\":") {
            Ok(())
        } else {
            Err(view.to_string())
        }
    });

    let browser = Browser::open();
    let search = "/jobs?tenant=%3C%2Fpre%3E%3C%2Ftextarea%3E%3Cimg%20src%3Dx%20onerror%3Dwindow.hurt%3D1%3E";
    let pages: [(&str, &[&str]); 13] = [
        ("/", &["fails has 2 jobs dead", "breaks v1 is failing", "<img src=x onerror=window.hurt=1>", refused]),
        ("/types/breaks", &["failing for", "<img src=x onerror=window.hurt=1>"]),
        ("/types/fails", &["Why jobs are dead", MARKUP]),
        ("/jobs", &[AS_ID, MARKUP, "dead", "completed"]),
        (&format!("/jobs/{}", encoded(&ids[0])), &[AS_ID, MARKUP, "Failed, and is dead"]),
        (&format!("/jobs/{}", encoded(&ids[1])), &["reserved", "40 %", MARKUP, "process ", "last beat"]),
        (&format!("/jobs/{}", encoded(&ids[2])), &["completed", MARKUP, "Jobs that it enqueued", &format!("{AS_ID}2")]),
        ("/types/tells", &["holds", &ids[1]]),
        ("/types/%3Cimg%20src=x%20onerror=window.hurt=1%3E", &["Not here", "<img src=x onerror=window.hurt=1>"]),
        ("/jobs?state=%3Cimg%20src=x%20onerror=window.hurt=1%3E", &["Not so", "<img src=x onerror=window.hurt=1>"]),
        ("/jobs?q=%3Cimg%20src=x%20onerror=window.hurt=1%3E", &["<img src=x onerror=window.hurt=1>"]),
        (search, &["Jobs of tenant </pre></textarea><img src=x", "None."]),
        ("/jobs/all/retry?type=fails&state=dead&error=%3C%2Fpre%3E", &["with the error \u{201c}</pre>\u{201d}"]),
    ];
    nothing_runs(&browser, &home, &pages);
    // Two of them are refusals, which the console tells of by their status alone.
    let said = browser.complaints();
    let refusals =
        said.iter().filter(|said| said.to_string().contains("Failed to load resource: the server responded"));
    assert!(said.len() == 2 && refusals.count() == 2, "{said:?}");

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
