//! The description of the interface: what a running biotope answers is what it says.

use serde_json::{Value, json};

use crate::support::{Home, repository};

/// Compares an answer with a schema of the description; says where it is something else.
fn differs(root: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    if let Some(name) = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix("#/components/schemas/")) {
        return differs(root, &root["components"]["schemas"][name], value, at);
    }
    if let Some(any) = schema["anyOf"].as_array() {
        let tried: Vec<_> = any.iter().map(|of| differs(root, of, value, at)).collect();
        return if tried.iter().any(Result::is_ok) { Ok(()) } else { Err(format!("{at}: {tried:?}")) };
    }
    if let Some(values) = schema["enum"].as_array() {
        return if values.contains(value) { Ok(()) } else { Err(format!("{at}: {value} is none of {values:?}")) };
    }
    let fits = match schema["type"].as_str() {
        None => true,
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_u64() || value.is_i64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        Some(other) => panic!("{at}: {other}"),
    };
    if !fits {
        return Err(format!("{at}: {value} is no {}", schema["type"]));
    }
    for required in schema["required"].as_array().into_iter().flatten() {
        let name = required.as_str().unwrap();
        if value.get(name).is_none() {
            return Err(format!("{at}.{name} is missing"));
        }
    }
    if let (Some(properties), Some(members)) = (schema["properties"].as_object(), value.as_object()) {
        for (name, member) in members {
            let Some(of) = properties.get(name) else {
                return Err(format!("{at}.{name} is not described: add it in src/http/openapi/schemas.rs"));
            };
            differs(root, of, member, &format!("{at}.{name}"))?;
        }
    }
    for (number, item) in value.as_array().into_iter().flatten().enumerate() {
        differs(root, &schema["items"], item, &format!("{at}[{number}]"))?;
    }
    Ok(())
}

const WORKERS: &str = "[workers.well]\nversion = \"v1\"\nexec = [\"./well.sh\"]\n\
                       [workers.ill]\nversion = \"v1\"\nexec = [\"false\"]\nmax_attempts = 1\n\
                       [workers.stays]\nversion = \"v1\"\nexec = [\"false\"]\nmode = \"persistent\"\n\
                       [workers.grows]\nversion = \"v1\"\nexec = [\"true\"]\nconcurrency = { min = 1, max = 3 }\n";

#[test]
fn answers_are_what_the_description_says() {
    let home = Home::new(WORKERS);
    home.script("well.sh", "echo '{\"a\":1}'");
    let biotope = home.start();
    let described = biotope.get("/v1/openapi.json").json();
    let committed = std::fs::read_to_string(repository().join("docs/openapi.json")).unwrap();
    assert_eq!(described, serde_json::from_str::<Value>(&committed).unwrap());
    let is = |name: &str, value: &Value| {
        let schema = json!({ "$ref": format!("#/components/schemas/{name}") });
        if let Err(what) = differs(&described, &schema, value, name) {
            panic!("{what}\nin {value:#}");
        }
    };
    let answered = |name: &str, status: u16, answer: crate::support::http::Answer| {
        assert_eq!(answer.status, status, "{answer:?}");
        is(name, &answer.json());
        answer.json()
    };
    let job = |of: Value| biotope.post("/v1/jobs", &of.to_string());
    let id =
        answered("Pushed", 201, job(json!({"type": "well", "id": "a", "tenant": "t", "idempotency_key": "k"})))["id"]
            .clone();
    answered("Pushed", 200, job(json!({"type": "well", "id": "a", "tenant": "t", "idempotency_key": "k"})));
    answered("Problem", 422, job(json!({"type": "well", "id": "a", "payload": 1})));
    assert_eq!(id, "a");
    biotope.until_state("a", "completed");
    for (job, state) in [
        (json!({"type": "ill", "id": "b"}), "dead"),
        (json!({"type": "well", "id": "c", "delay": "1h", "expires_at": "2999-01-01T00:00:00Z"}), "delayed"),
        (json!({"type": "well", "id": "d", "min_version": "v9"}), "parked"),
        (json!({"type": "stays", "id": "e"}), "ready"),
    ] {
        let id = biotope.push(&job);
        is("Job", &biotope.until_state(&id, state));
    }
    is("Job", &biotope.job("a"));
    for id in ["a", "b", "c", "d", "e"] {
        answered("Why", 200, biotope.get(&format!("/v1/jobs/{id}/why")));
        answered("Timeline", 200, biotope.get(&format!("/v1/jobs/{id}/timeline")));
    }
    let page = answered("JobPage", 200, biotope.get("/v1/jobs?limit=2"));
    assert!(page["next_cursor"].is_string(), "{page}");
    answered("JobPage", 200, biotope.get("/v1/jobs?state=dead&type=ill"));
    answered("PausedType", 200, biotope.post("/v1/types/well/pause", ""));
    answered("Ecosystem", 200, biotope.get("/v1/ecosystem"));
    answered("PausedType", 200, biotope.post("/v1/types/well/resume", ""));
    answered("Retried", 200, biotope.post("/v1/types/ill/retry?failed_on=v1", ""));
    answered("Job", 200, biotope.post("/v1/jobs/c/cancel", ""));
    answered("Problem", 409, biotope.post("/v1/jobs/a/retry", ""));
    answered("Purged", 200, biotope.post("/v1/types/well/purge", ""));
    home.configure(&WORKERS.replace("[workers.well]\nversion = \"v1\"", "[workers.well]\nversion = \"v2\""));
    answered("Reload", 200, biotope.post("/v1/reload?wait=true", ""));
    answered("Ecosystem", 200, biotope.get("/v1/ecosystem"));
    answered("Rollout", 200, biotope.post("/v1/types/well/rollback", ""));
    home.configure("[workers.well]\n");
    answered("Problem", 422, biotope.post("/v1/reload?wait=true", ""));
    answered("Generations", 200, biotope.get("/v1/generations"));
    answered("Accepted", 202, biotope.post("/v1/reload", ""));
    answered("Health", 200, biotope.get("/healthz"));
    answered("Health", 200, biotope.get("/readyz"));
    answered("Problem", 404, biotope.get("/nothing"));

    let docs = biotope.get("/docs");
    assert_eq!((docs.status, docs.header("content-type")), (200, Some("text/html; charset=utf-8")), "{docs:?}");
    assert!(docs.header("content-security-policy").unwrap().contains("default-src 'none'"));
    let text = String::from_utf8(docs.body).unwrap();
    assert!(text.contains("POST /v1/jobs") && text.contains("id=\"shape-Job\""), "{text}");
    biotope.kill();
}

/// Prints for each ASCII character whether it may be a name, and whether it may end one.
const MATCHES: &str = "\
import re, sys
pattern = re.compile(sys.argv[1])
for character in map(chr, range(128)):
    print(int(bool(pattern.fullmatch(character))), int(bool(pattern.fullmatch('a' + character))))
";

#[test]
fn the_pattern_of_a_chosen_name_is_what_is_taken() {
    let text = std::fs::read_to_string(repository().join("docs/openapi.json")).unwrap();
    let described: Value = serde_json::from_str(&text).unwrap();
    let members = &described["components"]["schemas"]["NewJob"]["properties"];
    assert_eq!(members["id"], members["idempotency_key"]);
    let pattern = members["id"]["pattern"].as_str().unwrap();
    let output = std::process::Command::new("python3").args(["-I", "-S", "-c", MATCHES, pattern]).output().unwrap();
    let taken = |name: String| u8::from(name.parse::<biotope::types::ChosenId>().is_ok());
    let expected = (0..128_u8).map(char::from).map(|c| format!("{} {}\n", taken(c.into()), taken(format!("a{c}"))));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected.collect::<String>());
}
