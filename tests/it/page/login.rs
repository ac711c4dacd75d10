//! The form that asks for a token: who comes there, what it says, and the way back.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::browser::{self, Browser};
use crate::support::wait::until;
use crate::support::{Home, SOON, skipped};

const FIRST: &str = "first-0123456789abcdef";
const SECOND: &str = "second-0123456789abcdef";

fn secret(home: &Home, text: &str) {
    home.write("operate", text);
    std::fs::set_permissions(home.path("operate"), PermissionsExt::from_mode(0o600)).unwrap();
}

#[test]
fn whoever_logs_in_comes_back_where_he_was_also_when_a_session_ends() {
    if !browser::is_here() {
        return skipped(
            "whoever_logs_in_comes_back_where_he_was_also_when_a_session_ends",
            "no chromium with its driver",
        );
    }
    let home = Home::shipped("");
    secret(&home, FIRST);
    home.configure(
        "[http.tokens]\noperate = { file = \"operate\" }\n[workers.echo]\nversion = \"v1\"\nexec = [\"cat\"]\n",
    );
    let biotope = home.start();
    let browser = Browser::open();
    let at = |path: &str| {
        until(path, SOON, || {
            let place =
                browser.try_run("return document.readyState === 'complete' && location.pathname + location.search")?;
            if place == path { Ok(()) } else { Err(place.to_string()) }
        });
    };
    browser.go(&format!("http://127.0.0.1:{}/types/echo", home.port));
    at("/login?then=%2Ftypes%2Fecho");
    browser.until_shown("the form", &["Log in", "Token"]);
    browser.fits("the form");
    browser.screenshots("login");

    // By keyboard alone: the field has it from the beginning, and a token that is not known is told of beside it.
    browser.write("wrong-0123456789abcdef");
    browser.key("Enter");
    browser.until_shown("a refusal", &["This token is not known here."]);
    let field = "const field = document.activeElement; return [field.id, field.value, field.ariaInvalid,
        document.getElementById(field.getAttribute('aria-describedby')).role]";
    until("the keyboard in the field", SOON, || {
        let seen = browser.try_run(field)?;
        if seen == json!(["token", "", "true", "alert"]) { Ok(()) } else { Err(seen.to_string()) }
    });
    browser.fits("the form with a refusal");
    browser.screenshots("login-wrong");
    browser.write(FIRST);
    browser.key("Enter");
    at("/types/echo");
    browser.until_shown("the page", &["echo", "v1"]);
    browser.until_live();

    // The token is replaced: the page goes to the form by itself, and from there back.
    secret(&home, SECOND);
    let reloaded = home.command(&["reload", "--wait"]).env("BIOTOPE_TOKEN", FIRST).output().unwrap();
    assert!(!reloaded.status.success(), "operate is not enough");
    biotope.signal(rustix::process::Signal::HUP);
    at("/login?then=%2Ftypes%2Fecho");
    browser.until_shown("why", &["Your session has ended."]);
    browser.fits("the form after a session");
    browser.screenshots("login-ended");
    browser.write(SECOND);
    browser.key("Enter");
    at("/types/echo");

    // Another process knows no session: the page says that nobody answers, and then goes to the form.
    biotope.kill();
    browser.until_shown("that nobody answers", &["Biotope does not answer"]);
    let biotope = home.start();
    at("/login?then=%2Ftypes%2Fecho");
    browser.until_shown("why", &["Your session has ended."]);
    browser.write(SECOND);
    browser.key("Enter");
    at("/types/echo");
    // Who has a session is not asked again.
    browser.go(&format!("http://127.0.0.1:{}/login?then=%2Fjobs", home.port));
    at("/jobs");
    // What a session that is over and a process that is gone bring is told on the console; nothing else is.
    let said: Vec<Value> = browser.complaints_beside("net::ERR_");
    assert!(said.iter().all(|said| said.to_string().contains("401")), "{said:?}");
    biotope.stop();
}

#[test]
fn who_may_only_look_is_offered_nothing_and_a_refusal_is_a_page() {
    if !browser::is_here() {
        return skipped("who_may_only_look_is_offered_nothing_and_a_refusal_is_a_page", "no chromium with its driver");
    }
    let home = Home::shipped("");
    secret(&home, FIRST);
    home.write("read", SECOND);
    std::fs::set_permissions(home.path("read"), PermissionsExt::from_mode(0o600)).unwrap();
    home.configure(
        "[http.tokens]\noperate = { file = \"operate\" }\nread = { file = \"read\" }\n\
         [workers.frail]\nversion = \"v1\"\nexec = [\"false\"]\nmax_attempts = 1\n",
    );
    let biotope = home.start();
    let pushed = home.command(&["push", "frail", "1"]).env("BIOTOPE_TOKEN", FIRST).output().unwrap();
    assert!(pushed.status.success());
    let browser = Browser::open();
    let url = |path: &str| format!("http://127.0.0.1:{}{path}", home.port);
    let log_in = |token: &str| {
        browser.until_shown("the form", &["Log in", "Token"]);
        browser.fill("#token", token);
        browser.click(".login button");
    };
    browser.go(&url("/types/frail"));
    log_in(SECOND);
    browser.until_shown("why its job is dead", &["Why jobs are dead", "Log out"]);
    assert!(!browser.text().contains("Pause") && !browser.text().contains("Retry"), "{}", browser.text());
    browser.go(&url("/jobs/all/retry?type=frail&state=dead"));
    browser.until_shown("that it takes more", &["1 job is meant", "yours only looks"]);
    assert_eq!(browser.run("return document.querySelector('form.confirm')"), Value::Null);
    // Whatever is not there, or may not be, is told on a page.
    browser.go(&url("/nothing/here"));
    browser.until_shown("a refusal", &["Not with this token", "forbidden"]);
    browser.fits("a refusal");
    browser.screenshots("refused");
    browser.go(&url("/jobs"));
    browser.click("form[action='/logout'] button");
    log_in(FIRST);
    browser.until_shown("the first screen", &["Worth a look", "frail has 1 job dead"]);
    browser.go(&url("/types/frail"));
    browser.until_shown("what can be done", &["Pause", "Retry dead jobs"]);
    assert!(!browser.text().contains("Purge"), "that takes the role admin: {}", browser.text());
    biotope.stop();
}

#[test]
fn s9_a_link_from_elsewhere_leads_on_with_a_session_and_to_the_form_without() {
    const NAME: &str = "s9_a_link_from_elsewhere_leads_on_with_a_session_and_to_the_form_without";
    if !browser::is_here() {
        return skipped(NAME, "no chromium with its driver");
    }
    let home = Home::new("");
    secret(&home, FIRST);
    home.configure(
        "[http.tokens]\noperate = { file = \"operate\" }\n[workers.echo]\nversion = \"v1\"\nexec = [\"cat\"]\n",
    );
    let biotope = home.start();
    let browser = Browser::open();
    // As a mail in a browser, or a chat, has it.
    let follow = || {
        browser.go(&format!("data:text/html,<a href='http://127.0.0.1:{}/types/echo?a=b'>a job</a>", home.port));
        browser.click("a");
    };
    follow();
    browser.until_shown("the form", &["Log in", "Token"]);
    // The form led on by itself, and back to it: once.
    until("the form in the place of the first one", SOON, || {
        let seen =
            browser.try_run("return [location.pathname + location.search, navigation.activation.navigationType]")?;
        if seen == json!(["/login?then=%2Ftypes%2Fecho%3Fa%3Db", "replace"]) { Ok(()) } else { Err(seen.to_string()) }
    });
    browser.write(FIRST);
    browser.key("Enter");
    browser.until_shown("the page", &["echo", "v1"]);
    follow();
    browser.until_shown("the page, without a word of the form", &["echo", "v1"]);
    assert_eq!(browser.run("return location.pathname + location.search"), "/types/echo?a=b");
    biotope.stop();
}
