//! What a native worker is given: a value that its payload is read as, or the payload's text as it is.

use bytes::Bytes;
use serde::de::DeserializeOwned;

/// What a payload can be read as: every type that serde reads, and [`Raw`].
pub trait Payload: Sized {
    /// Reads a payload: JSON text on one line.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    fn read(payload: &Bytes) -> Result<Self, serde_json::Error>;
}

impl<T: DeserializeOwned> Payload for T {
    fn read(payload: &Bytes) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(payload)
    }
}

/// A payload that nobody reads for its worker: JSON text on one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw(pub Bytes);

impl Payload for Raw {
    fn read(payload: &Bytes) -> Result<Self, serde_json::Error> {
        Ok(Self(payload.clone()))
    }
}

impl std::ops::Deref for Raw {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
