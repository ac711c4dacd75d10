//! The description as a page: plain HTML that needs no script, and nothing from elsewhere but the house's own style.

use std::fmt::Write;

use serde_json::{Map, Value};

/// Makes the page of a description.
pub(super) fn page(document: &Value) -> String {
    let mut out = String::from(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>Biotope: its interface</title>\
         <link rel=\"icon\" href=\"data:,\"><link rel=\"stylesheet\" href=\"/assets/style.css\"></head>\n\
         <body class=\"docs\"><a class=\"skip\" href=\"#content\">To the content</a>\
         <nav class=\"top\"><a class=\"home\" href=\"/\">Biotope</a><span class=\"here\">API</span>\
         <span class=\"ways\"><a href=\"/jobs\">Jobs</a></span></nav>\n<main id=\"content\" tabindex=\"-1\">\n",
    );
    write_body(&mut out, document).expect("a String takes any write");
    out.push_str("</main></body></html>\n");
    out
}

fn write_body(out: &mut String, document: &Value) -> std::fmt::Result {
    writeln!(out, "<h1>The interface of biotope {}</h1>", text(&document["info"], "version"))?;
    writeln!(out, "<p>{}</p>", text(&document["info"], "description"))?;
    writeln!(out, "<p>For programs: <a href=\"/v1/openapi.json\">/v1/openapi.json</a></p>")?;
    let empty = Map::new();
    let paths = document["paths"].as_object().unwrap_or(&empty);
    let operations: Vec<(String, &str, &Value)> =
        paths.iter().flat_map(|(path, methods)| of_path(path, methods)).collect();
    writeln!(out, "<ul>")?;
    for (method, path, of) in &operations {
        let (id, summary) = (text(of, "operationId"), text(of, "summary"));
        writeln!(out, "<li><a href=\"#{id}\"><code>{method} {}</code></a> {summary}</li>", escaped(path))?;
    }
    writeln!(out, "</ul>")?;
    for (method, path, of) in &operations {
        operation(out, document, method, path, of)?;
    }
    writeln!(out, "<h2>Shapes</h2>")?;
    for (name, schema) in document.pointer("/components/schemas").and_then(Value::as_object).unwrap_or(&empty) {
        shape(out, name, schema)?;
    }
    Ok(())
}

fn of_path<'a>(path: &'a str, methods: &'a Value) -> Vec<(String, &'a str, &'a Value)> {
    let methods = methods.as_object().into_iter().flatten();
    methods.map(|(method, of)| (method.to_ascii_uppercase(), path, of)).collect()
}

fn operation(out: &mut String, document: &Value, method: &str, path: &str, of: &Value) -> std::fmt::Result {
    writeln!(out, "<section id=\"{}\"><h2><code>{method} {}</code></h2>", text(of, "operationId"), escaped(path))?;
    writeln!(out, "<p>{}.</p>", text(of, "summary"))?;
    let parameters = of["parameters"].as_array().filter(|all| !all.is_empty());
    if let Some(parameters) = parameters {
        writeln!(out, "<table><thead><tr><th>parameter</th><th>in</th><th>what</th><th></th></tr></thead><tbody>")?;
        for parameter in parameters {
            let (name, place) = (text(parameter, "name"), text(parameter, "in"));
            let (says, what) = (text(parameter, "description"), words(&parameter["schema"]));
            writeln!(out, "<tr><td><code>{name}</code></td><td>{place}</td><td>{what}</td><td>{says}</td></tr>")?;
        }
        writeln!(out, "</tbody></table>")?;
    }
    if let Some(content) = of.pointer("/requestBody/content").and_then(Value::as_object) {
        writeln!(out, "<p>Body: {}</p>", contents(content))?;
    }
    writeln!(out, "<table><thead><tr><th>status</th><th>when</th><th>answer</th></tr></thead><tbody>")?;
    for (status, answer) in of["responses"].as_object().into_iter().flatten() {
        let named = answer["$ref"].as_str().and_then(|place| document.pointer(place.strip_prefix('#')?));
        let answer = named.unwrap_or(answer);
        let content = answer["content"].as_object().map(contents).unwrap_or_default();
        writeln!(out, "<tr><td>{status}</td><td>{}</td><td>{content}</td></tr>", text(answer, "description"))?;
    }
    writeln!(out, "</tbody></table></section>")
}

fn shape(out: &mut String, name: &str, schema: &Value) -> std::fmt::Result {
    writeln!(out, "<section id=\"shape-{name}\"><h3>{name}</h3><p>{}</p>", text(schema, "description"))?;
    writeln!(out, "<table><thead><tr><th>member</th><th>what</th><th></th></tr></thead><tbody>")?;
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (member, of) in schema["properties"].as_object().into_iter().flatten() {
        let may = if required.contains(&member.as_str()) { "" } else { "may be absent" };
        writeln!(out, "<tr><td><code>{}</code></td><td>{}</td><td>{may}</td></tr>", escaped(member), words(of))?;
    }
    writeln!(out, "</tbody></table></section>")
}

fn contents(content: &Map<String, Value>) -> String {
    let of = |(kind, of): (&String, &Value)| format!("<code>{}</code> {}", escaped(kind), words(&of["schema"]));
    content.iter().map(of).collect::<Vec<_>>().join(", ")
}

/// A schema in some words.
fn words(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|reference| reference.rsplit('/').next()) {
        return format!("<a href=\"#shape-{name}\">{name}</a>");
    }
    if let Some(kinds) = schema["anyOf"].as_array() {
        return kinds.iter().map(words).collect::<Vec<_>>().join(" or ");
    }
    if let Some(values) = schema["enum"].as_array() {
        let shown = values.iter().filter_map(Value::as_str).map(|word| format!("<code>{}</code>", escaped(word)));
        return shown.collect::<Vec<_>>().join(", ");
    }
    let kind = match &schema["type"] {
        Value::String(kind) if kind == "array" => return format!("list of {}", words(&schema["items"])),
        Value::String(kind) => kind.clone(),
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
        _ => return "any JSON".to_owned(),
    };
    let mut more = String::new();
    for (key, says) in
        [("format", "as "), ("minimum", "from "), ("maximum", "to "), ("maxLength", "up to "), ("pattern", "like ")]
    {
        match &schema[key] {
            Value::Null => {}
            Value::String(value) => more += &format!(", {says}<code>{}</code>", escaped(value)),
            value => more += &format!(", {says}{value}"),
        }
    }
    format!("{kind}{more}")
}

/// A text; what stands between backticks is a word of programs.
fn text(value: &Value, key: &str) -> String {
    let shown = escaped(value[key].as_str().unwrap_or_default());
    let parts = shown.split('`').enumerate();
    parts.map(|(at, part)| if at % 2 == 1 { format!("<code>{part}</code>") } else { part.to_owned() }).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
