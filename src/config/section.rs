//! One table of the file, read key by key: what is not asked for in the end is an unknown key.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Places, Problem};
use super::units;

/// What helps where a text stands bare.
const IN_QUOTES: &str = "write it in \"quotes\"";

/// What reading gathers.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) problems: Vec<Problem>,
    pub(super) places: Places,
}

impl Gathered {
    pub(super) fn add(&mut self, span: Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        let help = help.into();
        let help = (!help.is_empty()).then_some(help);
        self.problems.push(Problem { message: message.into(), span, help });
    }

    /// A problem of what stands at a path.
    pub(super) fn add_at(&mut self, path: &str, message: String, help: impl Into<String>) {
        let problem = self.places.problem(path, message, Some(help.into()));
        self.problems.push(problem);
    }
}

/// A table that is read.
pub(super) struct Section<'a> {
    path: String,
    span: Range<usize>,
    table: Option<&'a DeTable<'a>>,
    asked: Vec<&'static str>,
}

/// A value and its place.
pub(super) type Value<'a> = &'a Spanned<DeValue<'a>>;

impl<'a> Section<'a> {
    /// A table at a path, empty if it is missing.
    pub(super) fn new(path: &str, span: Range<usize>, table: Option<&'a DeTable<'a>>) -> Self {
        Self { path: path.to_owned(), span, table, asked: Vec::new() }
    }

    /// Path of this table.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Path of a key in this table.
    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Whether a key is given, known or not.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.iter().any(|(name, _)| name.get_ref() == key))
    }

    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// The value of a key.
    pub(super) fn get(&mut self, gathered: &mut Gathered, key: &'static str) -> Option<Value<'a>> {
        self.asked.push(key);
        let value = self.table?.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)?;
        gathered.places.spans.insert(self.path_of(key), value.span());
        Some(value)
    }

    /// A table of this table.
    pub(super) fn section(&mut self, gathered: &mut Gathered, key: &'static str) -> Self {
        let path = self.path_of(key);
        let Some(value) = self.get(gathered, key) else { return Self::new(&path, self.span.clone(), None) };
        let table = value.get_ref().as_table();
        if table.is_none() {
            gathered.add(value.span(), format!("`{path}` is {}, not a table", kind(value)), format!("write [{path}]"));
        }
        Self::new(&path, value.span(), table)
    }

    /// A text.
    pub(super) fn text(&mut self, gathered: &mut Gathered, key: &'static str) -> Option<(String, Range<usize>)> {
        let value = self.get(gathered, key)?;
        let text = text_of(gathered, value, &self.path_of(key))?;
        Some((text, value.span()))
    }

    /// A text that `parse` turns into a value of the wanted kind and range.
    pub(super) fn parsed<T>(
        &mut self,
        gathered: &mut Gathered,
        key: &'static str,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> T {
        let Some(value) = self.get(gathered, key) else { return default };
        let path = self.path_of(key);
        // What a bare number lacks most often is its unit, and the quotes with it.
        let bare = if let DeValue::Integer(number) = value.get_ref() { Some(number.to_string()) } else { None };
        let is_bare = bare.is_some();
        let Some(text) = bare.or_else(|| text_of(gathered, value, &path)) else { return default };
        let help = match parse(&text) {
            Ok(read) if !is_bare => return read,
            Ok(_) => IN_QUOTES.to_owned(),
            Err(help) => help,
        };
        let message = match is_bare {
            true => format!("`{path}` is {}, not a string", kind(value)),
            false => format!("`{path}` cannot be {text:?}"),
        };
        gathered.add(value.span(), message, help);
        default
    }

    /// A duration within a range.
    pub(super) fn duration(
        &mut self,
        gathered: &mut Gathered,
        key: &'static str,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        self.parsed(gathered, key, default, |text| {
            let value = units::duration(text)?;
            let show = units::show_duration;
            let outside = format!("it must lie between {:?} and {:?}", show(*range.start()), show(*range.end()));
            if range.contains(&value) { Ok(value) } else { Err(outside) }
        })
    }

    /// A size in bytes within a range.
    pub(super) fn size(
        &mut self,
        gathered: &mut Gathered,
        key: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> u64 {
        self.parsed(gathered, key, default, |text| {
            let value = units::size(text)?;
            let show = units::show_size;
            let outside = format!("it must lie between {:?} and {:?}", show(*range.start()), show(*range.end()));
            if range.contains(&value) { Ok(value) } else { Err(outside) }
        })
    }

    /// A whole number within a range.
    pub(super) fn number(
        &mut self,
        gathered: &mut Gathered,
        key: &'static str,
        default: u32,
        range: RangeInclusive<u32>,
    ) -> u32 {
        let Some(value) = self.get(gathered, key) else { return default };
        let path = self.path_of(key);
        let DeValue::Integer(number) = value.get_ref() else {
            let help = format!("write a whole number between {} and {}", range.start(), range.end());
            gathered.add(value.span(), format!("`{path}` is {}, not a whole number", kind(value)), help);
            return default;
        };
        let read = u32::from_str_radix(number.as_str(), number.radix()).ok().filter(|number| range.contains(number));
        if read.is_none() {
            let help = format!("it must lie between {} and {}", range.start(), range.end());
            gathered.add(value.span(), format!("`{path}` cannot be {number}"), help);
        }
        read.unwrap_or(default)
    }

    /// True or false.
    pub(super) fn flag(&mut self, gathered: &mut Gathered, key: &'static str, default: bool) -> bool {
        let Some(value) = self.get(gathered, key) else { return default };
        let DeValue::Boolean(flag) = value.get_ref() else {
            let path = self.path_of(key);
            gathered.add(
                value.span(),
                format!("`{path}` is {}, not true or false", kind(value)),
                "write true or false",
            );
            return default;
        };
        *flag
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, gathered: &mut Gathered, key: &'static str) -> Option<(Vec<String>, Range<usize>)> {
        let value = self.get(gathered, key)?;
        let path = self.path_of(key);
        let DeValue::Array(items) = value.get_ref() else {
            let help = format!("write {key} = [\"…\", \"…\"]");
            gathered.add(value.span(), format!("`{path}` is {}, not a list of strings", kind(value)), help);
            return None;
        };
        let texts: Vec<String> =
            items.iter().filter_map(|item| text_of(gathered, item, &format!("an entry of {path}"))).collect();
        (texts.len() == items.len()).then(|| (texts, value.span()))
    }

    /// Every key that was not asked for is a problem.
    pub(super) fn finish(self, gathered: &mut Gathered) {
        for (name, _) in self.table.into_iter().flatten() {
            let key = name.get_ref().as_ref();
            if self.asked.contains(&key) {
                continue;
            }
            let path = self.path_of(key);
            let help = match closest(key, self.asked.iter().copied()) {
                Some(known) => format!("did you mean `{known}`?"),
                None if self.asked.is_empty() => String::new(),
                None => format!("known here: {}", self.asked.join(", ")),
            };
            gathered.add(name.span(), format!("unknown key `{path}`"), help);
        }
    }
}

/// The known word that a misspelt one most probably stands for.
pub(super) fn closest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let scored = known.map(|known| (strsim::damerau_levenshtein(word, known), known));
    scored.filter(|(distance, known)| *distance <= 1 + known.len() / 4).min().map(|(_, known)| known)
}

pub(super) fn text_of(gathered: &mut Gathered, value: Value<'_>, path: &str) -> Option<String> {
    let DeValue::String(text) = value.get_ref() else {
        gathered.add(value.span(), format!("`{path}` is {}, not a string", kind(value)), IN_QUOTES);
        return None;
    };
    Some(text.clone().into_owned())
}

/// The kind of a value, with its article.
pub(super) fn kind(value: Value<'_>) -> &'static str {
    match value.get_ref() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
