//! What a worker's process finds in its environment: which variables, and where their values come from.

use std::path::PathBuf;

use toml::de::DeValue;

use super::EnvValue;
use super::section::{Gathered, Section, Value, kind, text_of};

fn is_variable(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
}

pub(super) fn env(gathered: &mut Gathered, section: &mut Section<'_>) -> Vec<(String, EnvValue)> {
    let path = section.path_of("env");
    let Some(value) = section.get(gathered, "env") else { return Vec::new() };
    let Some(table) = value.get_ref().as_table() else {
        let help = "write env = { NAME = \"value\" }";
        gathered.add(value.span(), format!("`{path}` is {}, not a table", kind(value)), help);
        return Vec::new();
    };
    let mut env = Vec::new();
    for (name, value) in table {
        let key = name.get_ref().to_string();
        gathered.places.spans.insert(format!("{path}.{key}"), value.span());
        if !is_variable(&key) || key.starts_with("BIOTOPE_") {
            let help = "no `=`, and BIOTOPE_… is set by biotope itself";
            gathered.add(name.span(), format!("{key:?} cannot be the name of a variable"), help);
            continue;
        }
        if let Some(read) = env_value(gathered, value, &format!("{path}.{key}")) {
            env.push((key, read));
        }
    }
    env.sort_by(|a, b| a.0.cmp(&b.0));
    env
}

pub(super) fn env_value(gathered: &mut Gathered, value: Value<'_>, path: &str) -> Option<EnvValue> {
    if let DeValue::String(text) = value.get_ref() {
        return Some(EnvValue::Text(text.clone().into_owned()));
    }
    let entries: Vec<_> = value.get_ref().as_table().into_iter().flatten().collect();
    let entry = match entries.as_slice() {
        [(name, inner)] => Some((name.get_ref().as_ref(), *inner)),
        _ => None,
    };
    match entry {
        Some(("from", inner)) => text_of(gathered, inner, &format!("{path}.from")).map(EnvValue::From),
        Some(("file", inner)) => {
            text_of(gathered, inner, &format!("{path}.file")).map(|file| EnvValue::File(PathBuf::from(file)))
        }
        _ => {
            let help = "write \"value\", { from = \"VARIABLE\" }, or { file = \"path\" }";
            gathered.add(value.span(), format!("`{path}` is no value of a variable"), help);
            None
        }
    }
}

pub(super) fn env_pass(gathered: &mut Gathered, section: &mut Section<'_>) -> Vec<String> {
    let Some((names, span)) = section.texts(gathered, "env_pass") else { return vec!["LANG".to_owned()] };
    for bad in names.iter().filter(|name| !is_variable(name)) {
        gathered.add(span.clone(), format!("{bad:?} cannot be the name of a variable"), "");
    }
    names
}
