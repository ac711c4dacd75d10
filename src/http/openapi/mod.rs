//! The interface over HTTP, described: `GET /v1/openapi.json` for programs, `GET /docs` for people.
//!
//! Owns the description, which is kept by hand beside the routes; tests hold that every route stands in it and the other way
//! round, and that it is what docs/openapi.json says. `UPDATE_FIXTURES=1` writes that file.

mod operations;
mod page;
mod schemas;

use std::sync::LazyLock;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use operations::{OPERATIONS, Operation, Parameter};
use schemas::schemas;

/// Refusals that any call may meet.
const ANYWHERE: [u16; 8] = [400, 401, 403, 408, 421, 429, 500, 503];

static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
    let mut text = serde_json::to_string_pretty(&document()).unwrap_or_default();
    text.push('\n');
    text
});
static PAGE: LazyLock<String> = LazyLock::new(|| page::page(&document()));

pub(super) async fn show() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.as_str()).into_response()
}

pub(super) async fn docs() -> Response {
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], PAGE.as_str()).into_response()
}

/// All of it.
fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for operation in OPERATIONS {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        if let Some(methods) = path.as_object_mut() {
            methods.insert(operation.method.to_owned(), described(operation));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Biotope",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Jobs, the workers that do them, and how one version of those takes over from another. \
                            A refusal is a problem (RFC 9457) with a code that stays the same.",
            "license": { "name": "MIT OR Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "responses": problems(),
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
        // Where the config has no tokens, none is asked for.
        "security": [{ "token": [] }, {}],
    })
}

fn described(operation: &Operation) -> Value {
    let in_path = operation.path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    let parameters = in_path.map(|name| parameter_of_path(operation, name));
    let others = operation.parameters.iter().map(|parameter| shown(parameter, parameter.place));
    let parameters: Vec<Value> = parameters.chain(others).collect();
    let mut answers: Map<String, Value> = Map::new();
    for (status, says, content) in operation.answers {
        let mut answer = json!({ "description": says });
        if let (Some(members), false) = (answer.as_object_mut(), content.is_empty()) {
            members.insert("content".to_owned(), content_of(content));
            if *status == 201 {
                let schema = json!({ "type": "string" });
                members.insert("headers".to_owned(), json!({ "Location": { "schema": schema } }));
            }
        }
        answers.insert(status.to_string(), answer);
    }
    for status in ANYWHERE.iter().chain(operation.problems) {
        let named = || json!({ "$ref": format!("#/components/responses/Problem{status}") });
        answers.entry(status.to_string()).or_insert_with(named);
    }
    let mut of = json!({
        "operationId": operation.id,
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": parameters,
        "responses": answers,
    });
    if let (Some(of), false) = (of.as_object_mut(), operation.body.is_empty()) {
        of.insert("requestBody".to_owned(), json!({ "required": true, "content": content_of(operation.body) }));
    }
    of
}

/// Content by kind, each with the name of its schema.
fn content_of(content: &[(&str, &str)]) -> Value {
    let of = |(kind, schema): &(&str, &str)| {
        let schema = match *schema {
            "text" => json!({ "type": "string" }),
            "any" => json!({}),
            name => json!({ "$ref": format!("#/components/schemas/{name}") }),
        };
        ((*kind).to_owned(), json!({ "schema": schema }))
    };
    Value::Object(content.iter().map(of).collect())
}

fn shown(parameter: &Parameter, place: &str) -> Value {
    let schema: Value = serde_json::from_str(parameter.schema).unwrap_or_default();
    json!({
        "name": parameter.name,
        "in": place,
        "required": parameter.required,
        "description": parameter.says,
        "schema": schema,
    })
}

fn parameter_of_path(operation: &Operation, name: &'static str) -> Value {
    let (says, schema) = match name {
        "id" => ("The job's id.", r#"{"type":"string","minLength":1,"maxLength":128}"#),
        "type" => ("The worker type.", r#"{"type":"string","minLength":1,"maxLength":64}"#),
        "action" => ("What to do.", r#"{"enum":["retry","cancel","discard"]}"#),
        _ => ("What to do.", r#"{"enum":["pause","resume","promote","abort"]}"#),
    };
    debug_assert!(operation.path.contains(name), "it is taken from there");
    shown(&Parameter { name, place: "path", required: true, schema, says }, "path")
}

/// Every refusal that a call names, by its status.
fn problems() -> Value {
    let named = OPERATIONS.iter().flat_map(|operation| operation.problems).chain(&ANYWHERE);
    Value::Object(named.map(|status| (format!("Problem{status}"), problem(*status))).collect())
}

/// A refusal with this status.
fn problem(status: u16) -> Value {
    let (says, retries) = match status {
        400 => ("What was asked cannot be understood: `bad_request`, `invalid_json`, `invalid_job`.", false),
        401 => ("No token, or none that is known: `unauthenticated`, `wrong_token` (docs/access.md).", false),
        403 => ("The token's role may not, or a page of another site may not: `forbidden`, `wrong_origin`.", false),
        404 => ("There is no such thing: `not_found`, `unknown_type`, `unknown_version`, `no_route`.", false),
        408 => ("The body did not arrive in time: `timeout`.", false),
        409 => ("As it stands, that cannot be done: `wrong_state`, `no_rollout`.", false),
        413 => ("Larger than the config allows: `too_large`.", false),
        415 => ("Content of another kind: `wrong_content_type`.", false),
        421 => ("The Host header names another machine: `wrong_host`.", false),
        422 => {
            ("Understood, and refused: `key_conflict`, `invalid_config`, `needs_restart`, `upgrade_refused`.", false)
        }
        429 => ("More than the bounds allow: `busy`, `too_many_attempts`. The same call may pass later.", true),
        500 => ("A record on which the answer hangs is damaged, or a bug: `damaged`, `bug`.", false),
        503 => ("Not now: `stopping`, `poisoned`, `damaged`.", true),
        504 => ("It goes on, and was not settled in time: `reload_timeout`.", false),
        507 => ("The disk is full: `disk_full`. Outcomes still go in.", false),
        _ => ("Refused.", false),
    };
    let mut answer = json!({
        "description": says,
        "content": content_of(&[("application/problem+json", "Problem")]),
    });
    if let (Some(members), true) = (answer.as_object_mut(), retries) {
        let schema = json!({ "type": "integer" });
        members.insert("headers".to_owned(), json!({ "Retry-After": { "schema": schema } }));
    }
    answer
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn read(path: &str) -> String {
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
    }

    #[test]
    fn the_committed_file_is_what_is_served() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
        if std::env::var_os("UPDATE_FIXTURES").is_some() {
            std::fs::write(&path, DOCUMENT.as_str()).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap();
        assert!(
            committed == *DOCUMENT,
            "docs/openapi.json is not what src/http/openapi says: UPDATE_FIXTURES=1 cargo test --lib openapi writes it"
        );
    }

    /// Methods and paths of a source text's `.route(...)` calls.
    fn routes(source: &str) -> BTreeSet<(String, String)> {
        let mut found = BTreeSet::new();
        for call in source.split(".route(\"").skip(1) {
            let (path, rest) = call.split_once('"').unwrap();
            let handlers = rest.split(".route(").next().unwrap().split(".merge(").next().unwrap();
            for method in ["get", "post", "put", "delete", "patch"] {
                if handlers.contains(&format!(" {method}(")) || handlers.contains(&format!(".{method}(")) {
                    found.insert((method.to_owned(), path.to_owned()));
                }
            }
        }
        found
    }

    #[test]
    fn every_route_is_described_and_every_description_is_of_a_route() {
        let document = document();
        let described: BTreeSet<(String, String)> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, methods)| {
                methods.as_object().unwrap().keys().map(|method| (method.clone(), path.clone()))
            })
            .collect();
        let routes = routes(&read("src/http/mod.rs"));
        assert!(routes.len() > 20 && routes.contains(&("get".to_owned(), "/v1/jobs".to_owned())), "{routes:?}");
        // Those of people: the page's, and what leads to it.
        let of_people = |path: &str| matches!(path, "/docs" | "/login" | "/logout");
        let routes: BTreeSet<_> = routes.into_iter().filter(|(_, path)| !of_people(path)).collect();
        assert_eq!(routes, described);
        assert_eq!(
            OPERATIONS.iter().map(|of| of.id).collect::<BTreeSet<_>>().len(),
            OPERATIONS.len(),
            "ids are unique"
        );
    }

    #[test]
    fn everything_that_is_named_is_there() {
        let document = document();
        let text = document.to_string();
        for named in text.split("#/components/schemas/").skip(1) {
            let name = named.split('"').next().unwrap();
            assert!(document["components"]["schemas"].get(name).is_some(), "{name}");
        }
        for named in text.split("\"$ref\":\"#").skip(1) {
            let place = named.split('"').next().unwrap();
            assert!(document.pointer(place).is_some(), "{place}");
        }
        for operation in OPERATIONS {
            for parameter in operation.parameters {
                let schema: Result<Value, _> = serde_json::from_str(parameter.schema);
                assert!(schema.is_ok(), "{} {}", operation.id, parameter.name);
            }
        }
    }

    #[test]
    fn every_code_of_a_refusal_is_in_the_description() {
        let text = document().to_string();
        let source = read("src/refusal.rs");
        let codes = source.split("=> \"").skip(1).filter_map(|rest| rest.split('"').next());
        let codes: Vec<&str> = codes.collect();
        assert!(codes.len() > 12, "{codes:?}");
        for code in codes {
            assert!(text.contains(&format!("`{code}`")), "{code} stands in no description");
        }
    }

    #[test]
    fn the_page_for_people_needs_nothing_from_elsewhere() {
        for operation in OPERATIONS {
            assert!(PAGE.contains(&format!("id=\"{}\"", operation.id)), "{}", operation.id);
        }
        let with_full = OPERATIONS.iter().filter(|operation| operation.problems.contains(&507)).count();
        assert!(with_full > 1, "what many calls share is shown with each");
        assert_eq!(PAGE.matches("<td>507</td><td>The disk is full").count(), with_full);
        assert!(!PAGE.contains("<script") && !PAGE.contains("http://") && !PAGE.contains("https://"));
        assert!(!PAGE.contains(" style=") && !PAGE.contains("onclick"));
    }
}
