//! Nobody in who does not belong: tokens and their roles, sessions of the page, other sites' pages, TLS.

use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::http::{self, Answer};
use crate::support::wait::until;
use crate::support::{BIOTOPE, Home, SOON, repository, shown};

const ECHO: &str = "[workers.echo]\nversion = \"v1\"\nexec = [\"cat\"]\n";
const ADMIN: &str = "admin-0123456789abcdef";
const OPERATE: &str = "operate-0123456789abcdef";
const READ: &str = "read-0123456789abcdef";
const METRICS: &str = "metrics-0123456789abcdef";
const TOKENS: &str = "[http.tokens]\nadmin = { file = \"admin\" }\noperate = { file = \"operate\" }\n\
    read = { file = \"read\" }\nmetrics = { file = \"metrics\" }\n";

fn secret(home: &Home, name: &str, text: &str) {
    std::fs::write(home.path(name), format!("{text}\n")).unwrap();
    std::fs::set_permissions(home.path(name), PermissionsExt::from_mode(0o600)).unwrap();
}

/// A home that asks for tokens, one of each role.
fn guarded() -> Home {
    let home = Home::new("");
    for (name, token) in [("admin", ADMIN), ("operate", OPERATE), ("read", READ), ("metrics", METRICS)] {
        secret(&home, name, token);
    }
    home.configure(&format!("{TOKENS}{ECHO}"));
    home
}

/// A request with these lines in its head.
fn ask(home: &Home, request: &str, lines: &[&str], body: &str) -> Answer {
    let mut head = format!("{request} HTTP/1.1\r\nContent-Length: {}\r\n", body.len());
    for line in lines {
        head.push_str(&format!("{line}\r\n"));
    }
    http::request(home.port, &head, body.as_bytes()).unwrap()
}

fn with(home: &Home, token: &str, request: &str) -> Answer {
    ask(home, request, &[&format!("Authorization: Bearer {token}")], "")
}

fn code(answer: &Answer) -> (u16, Value) {
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:?}");
    (answer.status, answer.json()["code"].clone())
}

fn refused(home: &Home, words: &[&str]) {
    for command in [&["run"][..], &["check-config"]] {
        let output = home.cli(command);
        assert_eq!(output.status.code(), Some(78), "{}", shown(&output));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        for word in words {
            assert!(said.contains(word), "{word:?} is not in: {said}");
        }
    }
}

#[test]
fn s1_an_address_that_others_reach_is_served_only_with_a_token() {
    let home = guarded();
    let listen = |more: &str| {
        let text = format!("[http]\nlisten = \"0.0.0.0:{}\"\n{more}{ECHO}", home.port);
        home.write("biotope.toml", &text);
    };
    for too_little in ["", "[http.tokens]\n", "[http.tokens]\nmetrics = { file = \"metrics\" }\n"] {
        listen(too_little);
        refused(&home, &["can be reached from other machines", "[http.tokens]"]);
    }
    listen(TOKENS);
    let biotope = home.start();
    assert_eq!(code(&biotope.get("/v1/ecosystem")), (401, "unauthenticated".into()));
    assert_eq!(with(&home, READ, "GET /v1/ecosystem").status, 200);
    assert!(home.text("stderr.txt").contains("for everyone to read"), "{}", home.text("stderr.txt"));
    biotope.stop();
}

#[test]
fn s2_a_token_that_others_may_read_or_that_is_none_is_refused() {
    let home = guarded();
    std::fs::set_permissions(home.path("operate"), PermissionsExt::from_mode(0o644)).unwrap();
    refused(&home, &["operate", "open to others (mode 644)", "chmod 600"]);
    secret(&home, "operate", "short");
    refused(&home, &["holds no token"]);
    secret(&home, "operate", ADMIN);
    refused(&home, &["the same token"]);
    home.configure(&format!("{}{ECHO}", TOKENS.replace("{ file = \"read\" }", &format!("\"{READ}\""))));
    refused(&home, &["must not stand in the config itself"]);
}

#[test]
fn s2_no_token_is_in_logs_answers_or_arguments() {
    let home = guarded();
    let biotope = home.start();
    assert_eq!(code(&with(&home, "wrong-0123456789abcdef", "GET /v1/ecosystem")), (401, "wrong_token".into()));
    let seen = with(&home, ADMIN, "GET /v1/ecosystem");
    let generations = with(&home, ADMIN, "GET /v1/generations");
    let said = home.text("stderr.txt");
    assert!(said.contains("a token was shown that is not known"), "{said}");
    let all = format!("{said}{seen:?}{generations:?}");
    for token in [ADMIN, OPERATE, READ, METRICS, "wrong-0123456789abcdef"] {
        assert!(!all.contains(token), "{token} in {all}");
    }
    biotope.stop();
}

#[test]
fn s11_a_role_does_what_it_may_and_no_more() {
    let home = guarded();
    let biotope = home.start();
    for open in ["/healthz", "/readyz", "/login", "/assets/style.css"] {
        assert_eq!(biotope.get(open).status, 200, "{open}");
    }
    for closed in ["GET /v1/jobs", "GET /nothing/here", "POST /v1/reload", "DELETE /v1/jobs", "GET /fragment"] {
        let answer = ask(&home, closed, &[], "");
        assert_eq!(code(&answer), (401, "unauthenticated".into()), "{closed}");
        assert!(answer.header("www-authenticate").is_some_and(|how| how.starts_with("Bearer")), "{answer:?}");
    }
    let job = "{\"type\":\"echo\",\"payload\":1}";
    let push = |token: &str| {
        let token = format!("Authorization: Bearer {token}");
        ask(&home, "POST /v1/jobs", &[&token, "Content-Type: application/json"], job)
    };
    assert_eq!(code(&push(METRICS)), (403, "forbidden".into()));
    assert_eq!(code(&push(READ)), (403, "forbidden".into()));
    assert_eq!((push(OPERATE).status, push(ADMIN).status), (201, 201));
    assert_eq!(code(&with(&home, METRICS, "GET /v1/jobs")), (403, "forbidden".into()));
    assert_eq!((with(&home, METRICS, "GET /metrics").status, with(&home, READ, "GET /metrics").status), (200, 200));
    for token in [READ, OPERATE, ADMIN] {
        assert_eq!(with(&home, token, "GET /v1/jobs").status, 200);
    }
    for admins in ["POST /v1/reload", "POST /v1/upgrade", "POST /v1/backup", "POST /v1/types/echo/purge"] {
        assert_eq!(code(&with(&home, OPERATE, admins)), (403, "forbidden".into()), "{admins}");
    }
    assert_eq!(with(&home, ADMIN, "POST /v1/reload").status, 202);
    assert_eq!(with(&home, ADMIN, "POST /v1/types/echo/purge").status, 200);
    assert_eq!(with(&home, OPERATE, "POST /v1/types/echo/pause").status, 200);
    assert_eq!(code(&with(&home, OPERATE, "GET /nothing/here")), (403, "forbidden".into()));
    assert_eq!(code(&with(&home, ADMIN, "GET /nothing/here")), (404, "no_route".into()));
    biotope.stop();
}

#[test]
fn s9_a_browser_logs_in_has_a_session_and_ends_it() {
    let home = guarded();
    let biotope = home.start();
    let page = |lines: &[&str]| ask(&home, "GET /", &[&["Accept: text/html"], lines].concat(), "");
    let asked = page(&[]);
    assert_eq!((asked.status, asked.header("location")), (303, Some("/login")));
    let form = String::from_utf8(biotope.get("/login").body).unwrap();
    assert!(form.contains("method=\"post\" action=\"/login\"") && !form.contains("<script"), "{form}");

    let kind = "Content-Type: application/x-www-form-urlencoded";
    let wrong = ask(&home, "POST /login", &[kind], "token=wrong-0123456789abcdef");
    assert_eq!((wrong.status, wrong.header("set-cookie")), (401, None));
    let metrics = ask(&home, "POST /login", &[kind], &format!("token={METRICS}"));
    assert_eq!(metrics.status, 401, "metrics have no page");
    let from_elsewhere = ["Origin: http://evil.example", kind];
    let elsewhere = ask(&home, "POST /login", &from_elsewhere, &format!("token={OPERATE}"));
    assert_eq!(code(&elsewhere), (403, "wrong_origin".into()));
    let login = ask(&home, "POST /login", &[kind], &format!("token={OPERATE}"));
    assert_eq!((login.status, login.header("location")), (303, Some("/")));
    let cookie = login.header("set-cookie").unwrap().to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let shown = format!("Cookie: {}", cookie.split(';').next().unwrap());

    assert_eq!(page(&[&shown]).status, 200);
    assert_eq!(ask(&home, "POST /v1/types/echo/pause", &[&shown], "").status, 200);
    assert_eq!(code(&ask(&home, "POST /v1/reload", &[&shown], "")), (403, "forbidden".into()));
    for site in ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site", "Origin: http://evil.example"] {
        let answer = ask(&home, "POST /v1/types/echo/resume", &[&shown, site], "");
        assert_eq!(code(&answer), (403, "wrong_origin".into()), "{site}");
    }
    // A browser is told on pages what programs are told by codes; below /v1 everybody is a program.
    let html = "Accept: text/html,application/xhtml+xml";
    for (request, status, says) in
        [("GET /nothing/here", 403, "Not with this token"), ("POST /types/none/pause", 404, "Not here")]
    {
        let told = ask(&home, request, &[html, &shown], "");
        let text = String::from_utf8_lossy(&told.body).into_owned();
        assert!(told.status == status && text.starts_with("<!DOCTYPE html>") && text.contains(says), "{told:?}");
        assert!(told.header("content-security-policy").is_some_and(|policy| policy.starts_with("default-src 'none'")));
    }
    assert_eq!(code(&ask(&home, "GET /nothing/here", &[&shown], "")), (403, "forbidden".into()));
    assert_eq!(code(&ask(&home, "POST /v1/reload", &[html, &shown], "")), (403, "forbidden".into()));

    // Whoever has no session goes to the form and from there back to where he was, and to no other house.
    let referer = format!("Referer: http://127.0.0.1:{}/types/echo?done=paused", home.port);
    let sent = ask(&home, "POST /types/echo/pause", &[html, &referer], "");
    assert_eq!((sent.status, sent.header("location")), (303, Some("/login?then=%2Ftypes%2Fecho%3Fdone%3Dpaused")));
    let then = |way: &str| {
        let login = ask(&home, "POST /login", &[kind], &format!("token={OPERATE}&then={way}"));
        login.header("location").map(ToOwned::to_owned)
    };
    assert_eq!(then("%2Fjobs%3Fstate%3Ddead").as_deref(), Some("/jobs?state=dead"));
    for other in ["%2F%2Fevil.example", "https%3A%2F%2Fevil.example", "%2F%5Cevil.example", "%2Fa%0D%0AX%3A+y"] {
        assert_eq!(then(other).as_deref(), Some("/"), "{other}");
    }
    let out = ask(&home, "POST /logout", &[&shown], "");
    assert_eq!((out.status, out.header("location")), (303, Some("/login")));
    assert_eq!(page(&[&shown]).status, 303, "it is over");
    biotope.stop();
}

#[test]
fn s10_only_names_that_the_config_knows_are_served_on_every_route() {
    let home = Home::new("");
    home.configure(&format!("names = [\"jobs.example.com\"]\n{ECHO}"));
    let biotope = home.start();
    for path in ["/", "/fragment", "/healthz", "/readyz", "/login", "/assets/live.js", "/v1/ecosystem", "/none"] {
        let by = |host: &str| {
            use std::io::{Read, Write};
            let mut stream = std::net::TcpStream::connect(("127.0.0.1", home.port)).unwrap();
            stream.set_read_timeout(Some(SOON)).unwrap();
            write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
            let mut said = String::new();
            stream.read_to_string(&mut said).unwrap();
            said
        };
        assert!(!by("jobs.example.com").starts_with("HTTP/1.1 421"), "{path}");
        assert!(by("evil.example").starts_with("HTTP/1.1 421"), "{path}");
        assert!(by("jobs.example.com.evil.example").starts_with("HTTP/1.1 421"), "{path}");
    }
    biotope.stop();
}

fn by_token(home: &Home, token: &str, args: &[&str]) -> Output {
    home.command(args).env("BIOTOPE_TOKEN", token).output().unwrap()
}

#[test]
fn the_command_line_shows_a_token_and_a_reload_replaces_it() {
    let home = guarded();
    let biotope = home.start();
    let pushed = home.cli(&["push", "echo", "1"]);
    assert_eq!(pushed.status.code(), Some(0), "by the config's own: {}", shown(&pushed));
    let refused = by_token(&home, READ, &["push", "echo", "1"]);
    assert_eq!(refused.status.code(), Some(77), "{}", shown(&refused));
    let wrong = by_token(&home, "wrong-0123456789abcdef", &["status"]);
    assert_eq!(wrong.status.code(), Some(77), "{}", shown(&wrong));
    let by_url = std::process::Command::new(BIOTOPE)
        .args(["--url", &format!("http://127.0.0.1:{}", home.port), "status", "--json"])
        .env("BIOTOPE_TOKEN", READ)
        .output()
        .unwrap();
    assert_eq!(by_url.status.code(), Some(0), "{}", shown(&by_url));

    // Where the config has one that may not be shown, the refusal says why not.
    for name in ["admin", "operate", "read"] {
        std::fs::set_permissions(home.path(name), PermissionsExt::from_mode(0o640)).unwrap();
    }
    let unread = home.cli(&["status"]);
    assert_eq!(unread.status.code(), Some(77), "{}", shown(&unread));
    let said = String::from_utf8_lossy(&unread.stderr).into_owned();
    assert!(said.contains("BIOTOPE_TOKEN; ") && said.contains("admin is open to others (mode 640)"), "{said}");
    for name in ["admin", "operate", "read"] {
        std::fs::set_permissions(home.path(name), PermissionsExt::from_mode(0o600)).unwrap();
    }

    // The new one counts from when the reload is accepted, and the old one no more.
    secret(&home, "next", "another-0123456789abcdef");
    home.configure(&format!("{}{ECHO}", TOKENS.replace("\"operate\"", "\"next\"")));
    assert_eq!(with(&home, OPERATE, "GET /v1/jobs").status, 200);
    let reloaded = home.cli(&["reload", "--wait"]);
    assert_eq!(reloaded.status.code(), Some(0), "{}", shown(&reloaded));
    assert_eq!(code(&with(&home, OPERATE, "GET /v1/jobs")), (401, "wrong_token".into()));
    assert_eq!(with(&home, "another-0123456789abcdef", "GET /v1/jobs").status, 200);
    // A config that does not pass changes nothing.
    std::fs::set_permissions(home.path("next"), PermissionsExt::from_mode(0o666)).unwrap();
    assert_eq!(by_token(&home, ADMIN, &["reload", "--wait"]).status.code(), Some(78));
    assert_eq!(with(&home, "another-0123456789abcdef", "GET /v1/jobs").status, 200);
    biotope.stop();
}

fn certificate(home: &Home, prefix: &str) {
    let fixtures = repository().join("tests/fixtures/tls");
    for name in ["ca", "cert", "key"] {
        std::fs::copy(fixtures.join(format!("{prefix}{name}.pem")), home.path(&format!("{name}.pem"))).unwrap();
    }
}

#[test]
fn s1_https_is_served_and_its_certificate_replaced_by_a_reload() {
    let home = guarded();
    let biotope = home.start();
    certificate(&home, "");
    let tls = "names = [\"hook.test\"]\ntls = { cert = \"cert.pem\", key = \"key.pem\", ca = \"ca.pem\" }\n";
    home.configure(&format!("{tls}{TOKENS}{ECHO}"));
    biotope.signal(Signal::HUP);
    let until_served = |what: &str| {
        until(what, SOON, || {
            let output = home.cli(&["push", "echo", "1"]);
            if output.status.success() { Ok(()) } else { Err(shown(&output)) }
        });
    };
    until_served("https");
    let plain = http::get(home.port, "/healthz");
    assert!(plain.is_err(), "{plain:?}");

    // Another authority's certificate counts as soon as it is taken over; those who trust the first one alone see it.
    certificate(&home, "next-");
    let early = home.cli(&["status"]);
    assert_eq!(early.status.code(), Some(69), "{}", shown(&early));
    assert!(String::from_utf8_lossy(&early.stderr).contains("by TLS"), "{}", shown(&early));
    biotope.signal(Signal::HUP);
    until_served("by the next certificate");
    // A key that is of another certificate is refused, and what is served goes on.
    certificate(&home, "");
    std::fs::copy(repository().join("tests/fixtures/tls/next-key.pem"), home.path("key.pem")).unwrap();
    let checked = home.cli(&["check-config"]);
    assert_eq!(checked.status.code(), Some(78), "{}", shown(&checked));
    biotope.stop();
}

#[test]
fn s5_a_body_that_is_refused_is_never_taken_for_requests() {
    use std::io::{Read, Write};
    let home = Home::new(ECHO);
    let biotope = home.start();
    let hidden = format!("POST /v1/types/echo/pause HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n", home.port).repeat(50);
    let json = "Content-Type: application/json\r\n";
    for lines in [
        // Too long by what it says of itself, of a wrong kind, to a route that reads no body, and cut into wrong pieces.
        format!("POST /v1/jobs HTTP/1.1\r\n{json}Content-Length: 1073741824\r\n"),
        "POST /v1/jobs HTTP/1.1\r\nContent-Type: text/plain\r\nContent-Length: 1073741824\r\n".to_owned(),
        "POST /v1/nothing HTTP/1.1\r\nContent-Length: 1073741824\r\n".to_owned(),
        format!("POST /v1/jobs HTTP/1.1\r\n{json}Transfer-Encoding: chunked\r\n"),
        format!("POST /v1/jobs HTTP/1.1\r\n{json}Content-Length: 5\r\nContent-Length: 6\r\n"),
        format!("POST /v1/jobs HTTP/1.1\r\n{json}Content-Length: -1\r\n"),
        format!("POST /v1/jobs HTTP/1.1\r\n{json}Transfer-Encoding: gzip\r\n"),
    ] {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", home.port)).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        drop(write!(stream, "{lines}Host: 127.0.0.1:{}\r\n\r\n{hidden}", home.port));
        drop(stream.shutdown(std::net::Shutdown::Write));
        let mut said = Vec::new();
        // A reset is an end, too.
        drop(stream.read_to_end(&mut said));
        let said = String::from_utf8(said).unwrap();
        assert!(said.matches("HTTP/1.1 ").count() <= 1, "{lines}{said}");
        assert!(!said.contains("HTTP/1.1 200"), "{lines}{said}");
    }
    assert_eq!(biotope.of_type("echo")["paused"], false);
    biotope.stop();
}

#[test]
fn s8_what_a_listing_is_asked_for_is_bounded() {
    let home = Home::new(ECHO);
    let biotope = home.start();
    let long = "x".repeat(300);
    for query in [
        "limit=0",
        "limit=10001",
        "limit=-1",
        "limit=99999999999999999999",
        "state=nonsense",
        "since=yesterday",
        "error=",
        "unknown=1",
        "cursor=nonsense",
        &format!("error={long}"),
        &format!("tenant={long}"),
        &format!("type={long}"),
    ] {
        let answer = biotope.get(&format!("/v1/jobs?{query}"));
        assert_eq!(code(&answer).0, 400, "{query}: {answer:?}");
    }
    // What would be dear as a pattern is a plain text here.
    assert_eq!(biotope.get("/v1/jobs?error=(a*)*(a*)*(a*)*b").status, 200);
    biotope.stop();
}

#[test]
fn s15_no_payload_is_in_the_log_of_the_process() {
    let home = Home::new("[workers.fails]\nversion = \"v1\"\nexec = [\"./fails.sh\"]\nmax_attempts = 1\n");
    // What a worker itself writes on stderr is in the log, on one line, and as text.
    home.script("fails.sh", "cat >/dev/null; printf 'own \\033[31mred\\n' >&2; exit 1");
    let mut command = home.command(&["run"]);
    command.env("BIOTOPE_LOG", "debug");
    let biotope = home.start_by(command);
    let job = serde_json::json!({"type": "fails", "payload": "secret-payload \u{1b}[31m\n2026-01-01 INFO forged"});
    let id = biotope.push(&job);
    biotope.until_state(&id, "dead");
    let bad = biotope.post("/v1/jobs", "{\"type\":\"fails\",\"payload\":\"secret-payload\",\"x\":1}");
    assert_eq!(bad.status, 400);
    biotope.stop();
    let said = home.text("stderr.txt");
    assert!(said.contains("own ") && !said.contains('\u{1b}'), "{said}");
    assert!(!said.contains("secret-payload") && !said.contains("forged"), "{said}");
}
