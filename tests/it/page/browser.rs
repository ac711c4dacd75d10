//! A real browser, driven over WebDriver.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

use crate::support::wait::until;
use crate::support::{Home, SOON, has_program, http, repository};

/// Widths that pages are looked at in: a telephone, a desk, a wall.
pub(crate) const WIDTHS: [u32; 3] = [360, 1280, 2560];

/// Whether there is a browser here.
pub(crate) fn is_here() -> bool {
    has_program("chromedriver") && has_program("chromium")
}

/// A browser with one tab. Dropped, it is closed, and whatever is left of it killed.
pub(crate) struct Browser {
    driver: Child,
    port: u16,
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    pub(crate) fn open() -> Self {
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
                // Where a page asks for itself again, the driver may wait in vain for one that has gone already.
                "timeouts": {"pageLoad": 30_000},
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

    /// What the driver does; it does nothing while one page goes and another comes, and is asked again then.
    fn call(&self, path: &str, body: &Value) -> Value {
        until(&format!("{path}: {body}"), SOON, || self.try_call(path, body))
    }

    fn try_call(&self, path: &str, body: &Value) -> Result<Value, String> {
        let path = format!("{}{path}", self.session);
        let answer = http::post(self.port, &path, "application/json", body.to_string().as_bytes()).unwrap();
        if answer.status == 200 { Ok(answer.json()["value"].clone()) } else { Err(format!("{answer:?}")) }
    }

    pub(crate) fn go(&self, url: &str) {
        self.call("/url", &json!({"url": url}));
    }

    /// Makes the page as wide as a device of so many pixels, whatever a window can be.
    pub(crate) fn resize(&self, width: u32) {
        let metrics = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500});
        self.cdp("Emulation.setDeviceMetricsOverride", &metrics);
    }

    fn cdp(&self, cmd: &str, params: &Value) -> Value {
        self.call("/goog/cdp/execute", &json!({"cmd": cmd, "params": params}))
    }

    /// Writes what the page looks like below target/screenshots: at each width, light and dark.
    pub(crate) fn screenshots(&self, name: &str) {
        let dir: PathBuf = repository().join("target/screenshots");
        std::fs::create_dir_all(&dir).unwrap();
        for scheme in ["light", "dark"] {
            let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
            self.cdp("Emulation.setEmulatedMedia", &json!({"features": features}));
            for width in WIDTHS {
                self.resize(width);
                let shot = self.cdp("Page.captureScreenshot", &json!({"format": "png", "captureBeyondViewport": true}));
                let png = base64::prelude::BASE64_STANDARD.decode(shot["data"].as_str().unwrap()).unwrap();
                std::fs::write(dir.join(format!("{name}-{width}-{scheme}.png")), png).unwrap();
            }
        }
        self.cdp("Emulation.setEmulatedMedia", &json!({"features": []}));
    }

    /// Nothing hangs over the edge, and the page does not scroll sideways, whatever its width.
    pub(crate) fn fits(&self, what: &str) {
        for width in WIDTHS {
            self.resize(width);
            let hidden = self.run(
                "const edge = document.documentElement.clientWidth;
                 return [...document.querySelectorAll('body *')].filter(part => part.getBoundingClientRect().right > edge + 1 &&
                     part.getBoundingClientRect().height > 1 && !part.closest('thead')).map(part => part.outerHTML);",
            );
            assert_eq!(hidden, json!([]), "{what}: over the edge at {width} px");
            let page = "document.documentElement";
            let wide = self.run(&format!("return {page}.scrollWidth - {page}.clientWidth"));
            assert_eq!(wide, 0, "{what}: the page scrolls sideways at {width} px");
        }
    }

    /// Clicks on what a selector names, once it is there.
    pub(crate) fn click(&self, selector: &str) {
        let script = format!(
            "const part = document.querySelector({}); if (part) setTimeout(() => part.click()); return part !== null",
            Value::from(selector)
        );
        until(selector, SOON, || match self.try_run(&script) {
            Ok(Value::Bool(true)) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }

    /// From now on no page runs a script.
    pub(crate) fn without_scripts(&self) {
        self.cdp("Emulation.setScriptExecutionDisabled", &json!({"value": true}));
    }

    /// Presses what a selector names, as a pointer does; for pages that run no script.
    pub(crate) fn press(&self, selector: &str) {
        // Such a page asks for itself again and again: what was found on one is nothing on the next.
        until(selector, SOON, || {
            let found = self.try_call("/element", &json!({"using": "css selector", "value": selector}))?;
            let id = found.as_object().and_then(|found| found.values().next()).and_then(Value::as_str).unwrap();
            self.try_call(&format!("/element/{id}/click"), &json!({}))
        });
    }

    /// Writes into a field.
    pub(crate) fn fill(&self, selector: &str, text: &str) {
        let (selector, text) = (Value::from(selector), Value::from(text));
        self.run(&format!("document.querySelector({selector}).value = {text}"));
    }

    /// Writes where the keyboard is, once that is a field.
    pub(crate) fn write(&self, text: &str) {
        until("a field that has the keyboard", SOON, || {
            let at = self.try_run("return document.activeElement?.tagName ?? null")?;
            if at == "INPUT" { Ok(()) } else { Err(at.to_string()) }
        });
        self.cdp("Input.insertText", &json!({"text": text}));
    }

    /// Presses a key.
    pub(crate) fn key(&self, key: &str) {
        let (code, text) = if key == "Enter" { (13, "\r") } else { (9, "") };
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            let params = json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text});
            self.cdp("Input.dispatchKeyEvent", &params);
        }
    }

    /// Waits until all of these stand on the page.
    pub(crate) fn until_shown(&self, what: &str, parts: &[&str]) {
        until(what, SOON, || {
            // While one page goes and another comes there is none to ask.
            let text = self.try_run("return document.body.innerText")?;
            let text = text.as_str().unwrap_or_default();
            match parts.iter().find(|part| !text.contains(**part)) {
                Some(missing) => Err(format!("{missing} is missing in {text}")),
                None => Ok(()),
            }
        });
    }

    /// Waits until the page follows the events.
    pub(crate) fn until_live(&self) {
        until("that it is live", SOON, || {
            let says = self.try_run("return document.getElementById('pulse')?.textContent ?? null")?;
            if says == "live" { Ok(()) } else { Err(says.to_string()) }
        });
    }

    pub(crate) fn run(&self, script: &str) -> Value {
        self.call("/execute/sync", &json!({"script": script, "args": []}))
    }

    pub(crate) fn try_run(&self, script: &str) -> Result<Value, String> {
        self.try_call("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// The page as a person reads it.
    pub(crate) fn text(&self) -> String {
        self.run("return document.body.innerText").as_str().unwrap().to_owned()
    }

    /// The same, but for what has this in it.
    pub(crate) fn complaints_beside(&self, expected: &str) -> Vec<Value> {
        self.complaints().into_iter().filter(|said| !said.to_string().contains(expected)).collect()
    }

    /// What the console said above the level of a remark.
    pub(crate) fn complaints(&self) -> Vec<Value> {
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
