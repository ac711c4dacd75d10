//! `biotope reload` and `biotope generations`: what a config changes, and what became of it.

use std::convert::Infallible;
use std::io::Write;
use std::time::Duration;

use axum::http::Method;
use serde::Deserialize;
use serde_json::Value;

use super::client::{ANSWER_TIMEOUT, Client, whole};
use super::print;
use super::rollovers::waited_for;
use super::show::{count, get, json, list_of, text};
use super::status::table;
use crate::engine::view::ReloadTypeView;
use crate::exit::{Failure, PARTIAL};
use crate::figures::in_short;

/// A reload that is waited for may drain for as long as the config says.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(630);
/// After this time it is told what it waits for: most are through by then.
const TELL_AFTER: Duration = Duration::from_secs(5);
/// How often that is told again, if it is something else by then.
const TELL_EVERY: Duration = Duration::from_secs(30);

pub(super) fn reload(client: &Client, wait: bool) -> Result<(), Failure> {
    let path = if wait { "/v1/reload?wait=true" } else { "/v1/reload" };
    let asking = client.answer_within(RELOAD_TIMEOUT, Method::POST, path, whole(""));
    let (_, answer) = client.block_on(async {
        tokio::select! {
            answer = asking => answer,
            never = tell_meanwhile(client) => match never {},
        }
    })?;
    if !wait {
        return print("accepted; `biotope status` or the page show how it goes");
    }
    let verdict: Value = json(&answer)?;
    for change in changes(&verdict) {
        print(&change)?;
    }
    let word = text(&verdict, "verdict");
    let unchanged = match count(&verdict, "unchanged") {
        0 => String::new(),
        1 => ", 1 worker type as before".to_owned(),
        count => format!(", {count} worker types as before"),
    };
    print(&format!("generation {}: {word}{unchanged}", count(&verdict, "generation")))?;
    if word == "partial" {
        return Err(Failure::new(
            PARTIAL,
            "at least one type does not run the version that the config asks for; the lines above say why",
        ));
    }
    Ok(())
}

/// Tells on stderr what a reload waits for, as long as it is polled.
async fn tell_meanwhile(client: &Client) -> Infallible {
    let mut told = Vec::new();
    tokio::time::sleep(TELL_AFTER).await;
    loop {
        // Who cannot tell now tells later: the reload goes on.
        let answer = client.answer_within(ANSWER_TIMEOUT, Method::GET, "/v1/ecosystem", whole("")).await;
        let view: Option<Value> = answer.ok().and_then(|(_, answer)| json(&answer).ok());
        let lines = view.map(|view| waited_for(&view)).unwrap_or_default();
        if lines != told {
            for line in &lines {
                drop(writeln!(std::io::stderr(), "waiting: {line}"));
            }
            told = lines;
        }
        tokio::time::sleep(TELL_EVERY).await;
    }
}

/// What a config changed, a line each.
fn changes(of: &Value) -> impl Iterator<Item = String> + '_ {
    let keys = keys(of).map(|keys| format!("changed live: {keys}"));
    keys.into_iter().chain(list_of(of, "types").iter().map(change))
}

fn keys(of: &Value) -> Option<String> {
    let keys: Vec<&str> = list_of(of, "keys").iter().filter_map(Value::as_str).collect();
    (!keys.is_empty()).then(|| keys.join(", "))
}

/// What it changed about one type.
fn change(of_type: &Value) -> String {
    // A newer biotope may say what this one does not know.
    ReloadTypeView::deserialize(of_type).map_or_else(|_| of_type.to_string(), |view| view.to_string())
}

pub(super) fn generations(client: &Client, as_json: bool) -> Result<(), Failure> {
    let view = get(client, "/v1/generations")?;
    if as_json {
        return print(&view.to_string());
    }
    let mut rows = vec![["GENERATION", "ACCEPTED", "RESULT", "CHANGES"].map(str::to_owned)];
    for known in list_of(&view, "generations") {
        let mut lines: Vec<String> = changes(known).map(|line| in_short(&line).to_owned()).collect();
        let left_out = count(known, "left_out");
        if left_out > 0 {
            lines.push(format!("and {left_out} more"));
        }
        let mut lines = lines.into_iter();
        let head = [count(known, "number").to_string(), text(known, "accepted_at").to_owned()];
        let [number, at] = head;
        rows.push([number, at, text(known, "verdict").to_owned(), lines.next().unwrap_or_default()]);
        rows.extend(lines.map(|line| [String::new(), String::new(), String::new(), line]));
    }
    print(&table(&rows, 4))?;
    for refused in list_of(&view, "refused") {
        let reason = text(refused, "reason").trim_end().replace('\n', "\n  ");
        print(&format!("\nrefused {}:\n  {reason}", text(refused, "at")))?;
    }
    Ok(())
}
