//! Who takes a log's records over: what an opening needs to know of what its records mean.

use bytes::Bytes;

use super::super::frame::RecordRef;
use super::super::{LogId, Position, StoredRecord};

/// Who takes the log's records over.
pub trait Replay {
    /// Whether it takes checkpoints over, too.
    fn takes_checkpoints(&self) -> bool {
        false
    }

    /// All that it has is forgotten: the log is read from its head on, or a checkpoint follows.
    fn begin(&mut self, names_id: LogId);

    /// Takes a block of a checkpoint over, in order.
    ///
    /// # Errors
    /// The checkpoint is of no use.
    fn block(&mut self, _: &[u8]) -> Result<(), String> {
        Err("nobody takes checkpoints over".to_owned())
    }

    /// Takes the record that lies there over, in order.
    ///
    /// # Errors
    /// It cannot have been written.
    fn record(&mut self, names_id: LogId, position: Position, record: RecordRef<'_>) -> Result<(), String>;
}

impl<F: FnMut(LogId, StoredRecord) -> Result<(), String>> Replay for F {
    fn begin(&mut self, _: LogId) {}

    fn record(&mut self, names_id: LogId, position: Position, record: RecordRef<'_>) -> Result<(), String> {
        self(names_id, StoredRecord::new(position, record, Bytes::copy_from_slice(record.body)))
    }
}
