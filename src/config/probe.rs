//! `probe`: the payload that a new version must complete before it gets work; any value, as the JSON that stands for it.

use std::sync::Arc;

use serde_json::{Map, Number, Value as Json};
use toml::de::DeValue;

use super::section::{Gathered, Section, Value};
use super::units;
use crate::limits::PROBE_BYTES_MAX;

/// Reads the key; the text is JSON on one line.
pub(super) fn read(gathered: &mut Gathered, section: &mut Section<'_>) -> Option<Arc<str>> {
    let value = section.get(gathered, "probe")?;
    let path = section.path_of("probe");
    let json = match json(value) {
        Ok(json) => json.to_string(),
        Err((at, what)) => {
            gathered.add(at.span(), format!("`{path}` holds {what}"), "write it as a string");
            return None;
        }
    };
    if json.len() > PROBE_BYTES_MAX {
        let most = units::show_size(PROBE_BYTES_MAX as u64);
        gathered.add(value.span(), format!("`{path}` has {} bytes of JSON, the most is {most}", json.len()), "");
        return None;
    }
    Some(json.into())
}

/// The JSON that stands for a value; a date is its text. `Err`: the part of it that has none, and what it is.
fn json(value: Value<'_>) -> Result<Json, (Value<'_>, &'static str)> {
    Ok(match value.get_ref() {
        DeValue::String(text) => Json::from(text.as_ref()),
        DeValue::Boolean(is) => Json::from(*is),
        DeValue::Datetime(date) => Json::from(date.to_string()),
        DeValue::Integer(number) => {
            let number = i64::from_str_radix(number.as_str(), number.radix());
            Json::from(number.map_err(|_| (value, "a number that is too large"))?)
        }
        DeValue::Float(number) => {
            let number = number.as_str().parse().ok().and_then(Number::from_f64);
            Json::from(number.ok_or((value, "a number that JSON does not have"))?)
        }
        DeValue::Array(list) => Json::Array(list.iter().map(json).collect::<Result<_, _>>()?),
        DeValue::Table(table) => {
            let member = |(key, value)| Ok((key_of(key), json(value)?));
            Json::Object(table.iter().map(member).collect::<Result<Map<_, _>, _>>()?)
        }
    })
}

fn key_of(key: &toml::Spanned<std::borrow::Cow<'_, str>>) -> String {
    key.get_ref().to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::config::parse;

    fn probe(value: &str) -> Result<String, String> {
        let text = format!("[workers.w]\nversion = \"v1\"\nexec = [\"cat\"]\nprobe = {value}\n");
        let parsed = parse("x.toml", &text, &BTreeSet::new()).map_err(|problems| problems.to_string())?;
        Ok(parsed.config.workers[0].live.probe.as_deref().unwrap().to_owned())
    }

    #[test]
    fn any_value_is_a_payload() {
        let same = [
            ("true", "true"),
            ("'a\"b'", r#""a\"b""#),
            ("0x1F", "31"),
            ("1_000", "1000"),
            ("1.5", "1.5"),
            ("1979-05-27T07:32:00Z", "\"1979-05-27T07:32:00Z\""),
            ("[1, \"two\", { three = [] }]", r#"[1,"two",{"three":[]}]"#),
            ("{ b = 1, a.c = \"\\n\" }", r#"{"a":{"c":"\n"},"b":1}"#),
        ];
        for (value, json) in same {
            assert_eq!(probe(value).as_deref(), Ok(json), "{value}");
        }
    }

    #[test]
    fn what_json_does_not_have_is_refused_at_its_place() {
        for (value, word) in [("nan", "JSON"), ("[inf]", "JSON"), ("9223372036854775808", "too large")] {
            let refused = probe(value).unwrap_err();
            assert!(refused.contains(word) && refused.contains("x.toml:4"), "{refused}");
        }
        let large = format!("\"{}\"", "x".repeat(crate::limits::PROBE_BYTES_MAX));
        assert!(probe(&large).unwrap_err().contains("the most is 64KiB"));
    }
}
