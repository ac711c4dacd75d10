//! The last config that a log knows.

use super::{CareError, Source};
use crate::job::event::{Event, Kind};
use crate::log::look::{RecordSeen, Seen, look};

/// Number and text of the last config that was accepted in a directory; `None` where the log does not know the text.
///
/// # Errors
/// `Look`.
pub fn last_config(source: &Source) -> Result<Option<(u64, String)>, CareError> {
    let mut last: Option<(u64, String)> = None;
    look(source.disk(), source.live().is_some(), &mut |seen| {
        let Seen::Frame(frame) = seen else { return Ok::<(), CareError>(()) };
        for record in &frame.records {
            let RecordSeen::Whole(record) = record else { continue };
            if record.kind != Kind::Generation as u8 {
                continue;
            }
            // Each segment says again what was accepted before, the older ones without their texts.
            if let Ok(Event::Generation(generation, text)) = Event::decode(record.kind, record.version, &record.body)
                && last.as_ref().is_none_or(|(number, _)| generation.number >= *number)
                && !text.is_empty()
            {
                last = Some((generation.number, text.to_owned()));
            }
        }
        Ok(())
    })?;
    Ok(last)
}
