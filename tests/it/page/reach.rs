//! Who reaches the page otherwise than by a pointer and a script: by keyboard, and in a browser that runs none.

use serde_json::{Value, json};

use super::browser::{self, Browser};
use crate::support::wait::until;
use crate::support::{Home, SOON, skipped};

const TYPES: &str = "[workers.frail]\nversion = \"v1\"\nexec = [\"false\"]\nmax_attempts = 1\n\
    [workers.echo]\nversion = \"v1\"\nexec = [\"cat\"]\n";

#[test]
fn all_that_can_be_done_is_reached_by_keyboard_and_seen_where_it_is() {
    if !browser::is_here() {
        return skipped(
            "all_that_can_be_done_is_reached_by_keyboard_and_seen_where_it_is",
            "no chromium with its driver",
        );
    }
    let home = Home::shipped(TYPES);
    let biotope = home.start();
    let id = biotope.push(&json!({"type": "frail"}));
    biotope.until_state(&id, "dead");
    let browser = Browser::open();
    browser.resize(1280);
    for path in ["/", "/types/frail", "/jobs", &format!("/jobs/{id}"), "/jobs/all/discard?type=frail&state=dead"] {
        browser.go(&format!("http://127.0.0.1:{}{path}", home.port));
        browser.until_shown(path, &["Biotope"]);
        // First the way past what stands on every page.
        browser.key("Tab");
        let first = "const at = document.activeElement, place = at.getBoundingClientRect();
            return at.className === 'skip' && place.left >= 0 && place.top >= 0";
        assert_eq!(browser.run(first), true, "{path}: {}", browser.run("return document.activeElement.outerHTML"));
        // All that can be reached is reached, one after the other, and is seen to be where the keyboard is.
        browser.run(
            "window.unseen = []; window.reached = new Set([document.activeElement]);
             document.addEventListener('focusin', (event) => { const look = getComputedStyle(event.target);
                 window.reached.add(event.target);
                 if (look.outlineStyle !== 'solid' || parseFloat(look.outlineWidth) < 2) window.unseen.push(event.target.outerHTML); });
             window.all = [...document.querySelectorAll('a[href], button, input:not([type=hidden]), select, summary')]
                 .filter(part => part.checkVisibility());",
        );
        let all = browser.run("return window.all.length").as_u64().unwrap();
        for _ in 0..all + 2 {
            browser.key("Tab");
        }
        let missed = browser.run("return window.all.filter(part => part.isConnected && !window.reached.has(part)).map(part => part.outerHTML)");
        assert_eq!(missed, json!([]), "{path}: not reached");
        assert_eq!(browser.run("return window.unseen"), json!([]), "{path}: not seen where it is");
        // And every field and picture has a name.
        let nameless = browser.run(
            "return [...document.querySelectorAll('input:not([type=hidden]), select, svg')].filter(part => !(part.labels?.length
                 || part.ariaLabel || part.getAttribute('aria-label') || part.getAttribute('aria-hidden'))).map(part => part.outerHTML)",
        );
        assert_eq!(nameless, json!([]), "{path}: without a name");
    }
    // Past it, the keyboard is at the content.
    browser.go(&format!("http://127.0.0.1:{}/", home.port));
    browser.key("Tab");
    browser.key("Enter");
    until("the content", SOON, || {
        let at = browser.run("return document.activeElement.id");
        if at == "content" { Ok(()) } else { Err(at.to_string()) }
    });
    assert_eq!(browser.complaints(), Vec::<Value>::new(), "the console is clean");
    biotope.stop();
}

#[test]
fn without_a_script_there_are_the_same_tables_and_forms() {
    if !browser::is_here() {
        return skipped("without_a_script_there_are_the_same_tables_and_forms", "no chromium with its driver");
    }
    let home = Home::shipped(TYPES);
    let biotope = home.start();
    biotope.until_state(&biotope.push(&json!({"type": "frail"})), "dead");
    let browser = Browser::open();
    browser.without_scripts();
    browser.go(&format!("http://127.0.0.1:{}/", home.port));
    browser.until_shown("the first screen", &["Worth a look", "frail has 1 job dead", "echo"]);
    // It would ask for itself again in the middle of being looked at: a picture that is taken then may never be done.
    browser.run("window.stop()");
    assert_eq!(browser.run("return document.getElementById('pulse').hidden"), true, "nobody says that it is live");
    browser.fits("without a script");
    browser.screenshots("no-script");
    browser.press("#verdict li a");
    browser.until_shown("the type", &["Why jobs are dead", "Pause"]);
    browser.press("form[action$='/pause'] button");
    browser.until_shown("that it is paused", &["Paused: its jobs are taken in, and wait.", "Resume"]);
    assert_eq!(biotope.of_type("frail")["paused"], true);
    // It goes on by itself nevertheless: a page without a script asks for itself again.
    browser.go(&format!("http://127.0.0.1:{}/", home.port));
    biotope.push_lines(&"{\"type\":\"echo\",\"delay\":\"1h\"}\n".repeat(4711));
    browser.until_shown("what came in", &["4\u{2009}711"]);
    biotope.stop();
}
