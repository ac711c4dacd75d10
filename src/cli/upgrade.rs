//! Replacing the binary of a running biotope, and seeing what becomes of it.

use std::time::Duration;

use axum::http::Method;
use serde_json::Value;

use super::client::{Client, whole};
use super::print;
use super::show::{count, get, json, text};
use crate::clock::{Clock, RealClock};
use crate::exit::{Failure, PARTIAL, TEMPORARY};

/// How long the new file may be asked.
const CHECK_TIMEOUT: Duration = Duration::from_secs(120);
/// How long running jobs, and the new image's start, are waited for.
const TAKEOVER_TIMEOUT: Duration = Duration::from_secs(630);
/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(super) fn upgrade(client: &Client, wait: bool) -> Result<(), Failure> {
    let path = if wait { "/v1/upgrade?wait=true" } else { "/v1/upgrade" };
    let (_, answer) = client.ask_within(CHECK_TIMEOUT, Method::POST, path, whole(""))?;
    if !wait {
        return print("accepted; `biotope status` or the page show how it goes");
    }
    let underway: Value = json(&answer)?;
    let (attempt, from, to) = (count(&underway, "attempt"), text(&underway, "from"), text(&underway, "to"));
    let until = RealClock.mono().saturating_add(TAKEOVER_TIMEOUT);
    while RealClock.mono() < until {
        // While neither image serves, this waits in the socket's queue.
        let view = get(client, "/v1/ecosystem")?;
        let binary = view.get("binary").unwrap_or(&Value::Null);
        if count(binary, "attempts") >= attempt && text(binary, "state") == "serving" {
            return match binary.get("last_error").and_then(Value::as_str) {
                None => print(&format!("biotope {to} took over from {from}")),
                Some(why) => Err(Failure::new(PARTIAL, format!("biotope {from} goes on: {why}"))),
            };
        }
        client.block_on(async { tokio::time::sleep(LOOK_EVERY).await });
    }
    Err(Failure::new(TEMPORARY, "running jobs have not ended yet; `biotope status` and the page show how it goes"))
}
