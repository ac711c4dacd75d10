//! A backup of a running log: its segment is ended, and all ended ones are held while somebody copies them.

use crate::engine::command::To;
use crate::engine::core::Core;
use crate::log::Poisoned;
use crate::log::stream::Held;
use crate::refusal::Refusal;

impl Core {
    /// Ends the segment and holds all ended ones: everything that was acknowledged before is in them.
    pub(in crate::engine) fn hold_for_backup(&mut self, to: To<Result<Held, Refusal>>) -> Result<(), Poisoned> {
        self.commit()?;
        if !self.await_spare() {
            let detail = self.log.full().map_or_else(String::new, |why| why.to_string());
            self.reply(move |_| to.give(Err(Refusal::DiskFull { detail })));
            return Ok(());
        }
        self.end_segment()?;
        let held = Held::sealed(&self.log);
        self.reply(move |durable| to.give(if durable { Ok(held) } else { Err(Refusal::Poisoned) }));
        Ok(())
    }
}
