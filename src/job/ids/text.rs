//! A job's id as text, where it stands by itself: the ones that we make need no memory of their own.

use std::fmt;
use std::ops::Deref;

/// A job's id, made or chosen. Reads as text.
#[derive(Clone)]
pub struct JobId(Text);

#[derive(Clone)]
enum Text {
    /// A uuid with hyphens: ASCII.
    Made([u8; 36]),
    Chosen(Box<str>),
}

impl JobId {
    pub(super) fn made(id: uuid::Uuid) -> Self {
        let mut text = [0; 36];
        id.hyphenated().encode_lower(&mut text);
        Self(Text::Made(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Text::Made(text) => std::str::from_utf8(text).unwrap_or_default(),
            Text::Chosen(text) => text,
        }
    }
}

impl From<&str> for JobId {
    fn from(text: &str) -> Self {
        Self(Text::Chosen(text.into()))
    }
}

impl From<String> for JobId {
    fn from(text: String) -> Self {
        Self(Text::Chosen(text.into()))
    }
}

impl Deref for JobId {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for JobId {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl PartialEq for JobId {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for JobId {}

impl PartialEq<str> for JobId {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for JobId {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl PartialEq<String> for JobId {
    fn eq(&self, other: &String) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<JobId> for String {
    fn eq(&self, other: &JobId) -> bool {
        self == other.as_str()
    }
}
