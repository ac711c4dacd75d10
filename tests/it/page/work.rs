//! What people do on the pages: find, retry, discard, pause, roll over.

use serde_json::{Value, json};

use super::browser::{self, Browser};
use crate::support::wait::until;
use crate::support::{Biotope, Home, SOON, http, skipped};

/// Fails as the payload says, until it is mended.
const FRAIL: &str = r#"[ -e mended ] && exit 0
read -r line
echo 'Traceback (most recent call last):
  File "press.py", line 41, in <module>
    main()
  File "press.py", line 37, in main
    press(job["payload"])' >&2
echo "PressError: $line" >&2
exit 1"#;

fn frail() -> Home {
    let home = Home::shipped("[workers.frail]\nversion = \"v1\"\nexec = [\"./frail.sh\"]\nmax_attempts = 1\n");
    home.script("frail.sh", FRAIL);
    home
}

fn until_dead(biotope: &Biotope<'_>, payloads: &[&str]) -> Vec<String> {
    let ids: Vec<String> =
        payloads.iter().map(|payload| biotope.push(&json!({"type": "frail", "payload": payload}))).collect();
    for id in &ids {
        biotope.until_state(id, "dead");
    }
    ids
}

#[test]
fn a_dead_job_is_found_and_redriven() {
    if !browser::is_here() {
        return skipped("a_dead_job_is_found_and_redriven", "no chromium with its driver");
    }
    let home = frail();
    let biotope = home.start();
    let ids = until_dead(&biotope, &["refused after 3 tries", "refused after 12 tries", "no such font"]);
    let browser = Browser::open();
    let url = |path: &str| format!("http://127.0.0.1:{}{path}", home.port);
    browser.go(&url("/"));
    browser.until_shown("what is dead", &["Worth a look", "frail has 3 jobs dead"]);

    // From the first screen to the type, where errors that say the same are told once; from there to its jobs, and to one.
    browser.click("#verdict li a");
    browser.until_shown("the type", &["Why jobs are dead", "refused after 12 tries", "no such font"]);
    let counts = browser
        .run("return [...document.querySelectorAll('.errors tbody td:first-child')].map(cell => cell.innerText)");
    assert_eq!(counts, json!(["2", "1"]));
    // What dies while somebody looks is among them, on the same page.
    browser.run("window.mark = 'same page'");
    until_dead(&biotope, &["out of ink"]);
    until("the next one", SOON, || {
        let counts = browser
            .run("return [...document.querySelectorAll('.errors tbody td:first-child')].map(cell => cell.innerText)");
        if counts == json!(["2", "1", "1"]) { Ok(()) } else { Err(counts.to_string()) }
    });
    assert_eq!(browser.run("return window.mark"), "same page");
    browser.fits("a type with dead jobs");
    browser.screenshots("type");
    browser.click(".errors tbody a.button");
    browser.until_shown("the search", &["Dead jobs of frail with the error", &ids[0], &ids[1]]);
    assert!(!browser.text().contains(&ids[2]), "{}", browser.text());
    browser.fits("a search");
    browser.screenshots("jobs");
    browser.go(&url(&format!("/jobs?q={}", ids[0])));
    browser.until_shown(
        "the job",
        &[
            &ids[0],
            "dead",
            "Failed, and is dead",
            "refused after 3 tries",
            "on v1, worker 1, after",
            "dead after 1 attempt",
        ],
    );
    browser.fits("a job");
    browser.screenshots("job");

    // One is retried by itself, and seen to be done without a reload by hand.
    home.write("mended", "");
    browser.click("form[action$='/retry'] button");
    browser.until_shown("the job done", &["completed", "Retried by hand", "Completed on v1, worker 1, after"]);

    // And all others together: counted first.
    browser.go(&url("/jobs?type=frail&state=dead"));
    browser.click("p.acts a.button:not(.danger)");
    browser.until_shown("how many are meant", &["Retry all dead jobs of frail", "3 jobs are meant"]);
    browser.click("form.confirm button");
    browser.until_shown("what was done", &["So many jobs have all their attempts again: 3."]);
    for id in &ids {
        biotope.until_state(id, "completed");
    }
    assert_eq!(browser.complaints(), Vec::<Value>::new(), "the console is clean");
    biotope.stop();
}

#[test]
fn what_cannot_be_undone_is_confirmed_by_name() {
    if !browser::is_here() {
        return skipped("what_cannot_be_undone_is_confirmed_by_name", "no chromium with its driver");
    }
    let home = frail();
    let biotope = home.start();
    let ids = until_dead(&biotope, &["one", "two"]);
    let browser = Browser::open();
    let url = |path: &str| format!("http://127.0.0.1:{}{path}", home.port);
    browser.go(&url("/jobs/all/discard?type=frail&state=dead"));
    browser.until_shown("how many are meant", &["Discard all dead jobs of frail", "2 jobs are meant", "gone for good"]);
    browser.fits("a bulk act");
    browser.screenshots("discard");
    browser.fill("form.confirm input[name=name]", "frial");
    browser.click("form.confirm button");
    browser.until_shown("a refusal", &["Nothing was done", "not_confirmed"]);
    assert_eq!(biotope.of_type("frail")["dead"], 2);
    // The refusal is a page that the console tells of; nothing else is.
    let said = browser.complaints();
    assert!(said.iter().all(|entry| entry.to_string().contains("422")), "{said:?}");
    // What dies after they were counted is not meant.
    browser.go(&url("/jobs/all/discard?type=frail&state=dead"));
    browser.until_shown("the question again", &["2 jobs are meant"]);
    let later = until_dead(&biotope, &["three"]);
    browser.fill("form.confirm input[name=name]", "frail");
    browser.click("form.confirm button");
    browser.until_shown("what was done", &["So many jobs were discarded: 2."]);
    for id in &ids {
        assert_eq!(biotope.job(id)["state"], "discarded");
    }
    assert_eq!(biotope.job(&later[0])["state"], "dead");

    // A purge, by keyboard alone: what opens, takes the name and sends it are the keys.
    let delayed = biotope.push(&json!({"type": "frail", "delay": "1h"}));
    browser.go(&url("/types/frail"));
    browser.until_shown("the type", &["Purge"]);
    browser.run("document.querySelector('#do-purge summary').focus()");
    browser.key("Enter");
    until("the question", SOON, || {
        let open = browser.run("return document.querySelector('#do-purge').open");
        if open == true { Ok(()) } else { Err(open.to_string()) }
    });
    browser.key("Tab");
    browser.write("frail");
    browser.key("Enter");
    browser.until_shown("what was done", &["Purged: so many jobs were cancelled or discarded: 2."]);
    assert_eq!(biotope.job(&delayed)["state"], "cancelled");
    assert_eq!(browser.complaints(), Vec::<Value>::new(), "the console is clean");
    biotope.stop();
}

/// A form as a browser sends it.
fn send(home: &Home, path: &str, body: &str) -> http::Answer {
    http::post(home.port, path, "application/x-www-form-urlencoded", body.as_bytes()).unwrap()
}

#[test]
fn forms_work_without_a_script_and_only_as_they_are_meant() {
    let home = frail();
    let biotope = home.start();
    let ids = until_dead(&biotope, &["one", "two"]);
    let paused = send(&home, "/types/frail/pause", "");
    assert_eq!((paused.status, paused.header("location")), (303, Some("/types/frail?done=paused")), "{paused:?}");
    assert_eq!(biotope.of_type("frail")["paused"], true);
    let page = String::from_utf8(biotope.get("/types/frail?done=paused").body).unwrap();
    assert!(page.contains("Paused: its jobs are taken in") && page.contains("/types/frail/resume"), "{page}");
    assert_eq!(send(&home, "/types/frail/resume", "").status, 303);
    assert_eq!(biotope.of_type("frail")["paused"], false);

    // Nothing is changed by an address that is only opened, and nothing without its confirmation.
    for path in ["/types/frail/purge", "/types/frail/pause", "/jobs/all/discard?type=frail&state=dead"] {
        biotope.get(path);
    }
    assert_eq!(send(&home, "/types/frail/purge", "name=frial").status, 422);
    assert_eq!(send(&home, "/jobs/all/discard", "type=frail&state=dead&name=").status, 422);
    assert_eq!(send(&home, "/jobs/all/discard", "state=completed&name=discard").status, 400);
    assert_eq!(send(&home, "/jobs/all/cancel", "type=frail&state=dead&name=frail").status, 400);
    let of_type = biotope.of_type("frail");
    assert_eq!((&of_type["paused"], &of_type["dead"]), (&json!(false), &json!(2)), "{of_type}");

    // An age is understood, stays as it was written, and means one moment from then on.
    let page = String::from_utf8(biotope.get("/jobs?state=dead&since=2h").body).unwrap();
    assert!(ids.iter().all(|id| page.contains(id)) && page.contains("name=\"since\" value=\"2h\""), "{page}");
    assert!(page.contains("<h1>Dead jobs of the last 2h</h1>"), "{page}");
    assert!(page.contains("href=\"/jobs/all/retry?state=dead&#38;since=20") && !page.contains("since=2h"), "{page}");
    assert_eq!(biotope.jobs("state=dead&since=2h").len(), 2);
    let refused = biotope.get("/jobs?since=yesterday");
    let says = String::from_utf8(refused.body).unwrap();
    assert!(refused.status == 400 && says.contains("or an age, like 15m, 2h or 7d"), "{says}");

    // What there is not is told on a page, with the status that belongs to it.
    for (path, status) in
        [("/types/none", 404), ("/jobs/none", 404), ("/jobs?state=lost", 400), ("/jobs?type=none", 404)]
    {
        let answer = biotope.get(path);
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(answer.status == status && text.starts_with("<!DOCTYPE html>"), "{path}: {answer:?}");
    }
    let refused = send(&home, &format!("/jobs/{}/cancel", ids[0]), "");
    assert_eq!(refused.status, 409, "{refused:?}");
    assert_eq!(send(&home, &format!("/jobs/{}/discard", ids[0]), "").status, 303);
    assert_eq!(biotope.job(&ids[0])["state"], "discarded");
    biotope.stop();
}

#[test]
fn the_steps_of_a_job_are_those_of_its_life() {
    let home = Home::shipped(
        "[workers.steps]\nversion = \"v1\"\nexec = [\"./steps.sh\"]\n\
         backoff = { first = \"10ms\", factor = 1, max = \"10ms\" }\n[workers.next]\nversion = \"v1\"\nexec = [\"cat\"]\n",
    );
    // Fails, is cut off by the end of the process, and then does its work.
    home.script(
        "steps.sh",
        "[ -e failed ] || { touch failed; echo 'no <ink>' >&2; echo 'at a.c:3' >&2; exit 1; }\n[ -e begun ] || { touch begun; read -r line <gate; }\n\
         echo '{\"type\":\"next\",\"id\":\"after&it\"}' >\"$BIOTOPE_ENQUEUE\"",
    );
    home.pipe("gate");
    let biotope = home.start();
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let id = biotope.push(&json!({"type": "steps", "traceparent": trace}));
    until("the second run", SOON, || if home.path("begun").exists() { Ok(()) } else { Err("not begun".into()) });
    biotope.kill();
    let biotope = home.start();
    biotope.until_state(&id, "completed");
    let page = String::from_utf8(biotope.get(&format!("/jobs/{id}")).body).unwrap();
    let steps = [
        "<b>Accepted</b>",
        "<b>Failed</b> on v1, worker 1, after ",
        "<p class=\"message\">./steps.sh exited with code 1: at a.c:3</p><pre tabindex=\"0\" aria-label=\"The end of what it wrote\">no &#60;ink&#62;\nat a.c:3</pre>",
        "<b>Lost with what ran it</b> on v1 after ",
        "<p class=\"message\">biotope itself ended</p>",
        "<b>Completed</b> on v1, worker 1, after ",
        "Jobs that it enqueued",
        "<a href=\"/jobs/after%26it\"><code>after&#38;it</code></a>",
    ];
    let places: Vec<usize> =
        steps.iter().map(|step| page.find(step).unwrap_or_else(|| panic!("{step} is missing in {page}"))).collect();
    assert!(places.is_sorted() && !page.contains("Not all of it can be read"), "{page}");
    assert!(page.contains(&format!("<dt>Trace</dt><dd><code>{trace}</code></dd>")), "{page}");
    let next = String::from_utf8(biotope.get("/jobs/after%26it").body).unwrap();
    assert!(next.contains(&format!("<dt>Enqueued by</dt><dd><a href=\"/jobs/{id}\">")), "{next}");
    biotope.stop();
}
