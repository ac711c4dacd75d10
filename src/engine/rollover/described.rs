//! What a version is made of, where only the text of an accepted config says so any more.
//!
//! To make it again, files must be read: at an opening that is done at once, since nothing is served yet; later by a thread
//! beside the engine, while the command that hangs on it waits. Never trusts a text: only what comes to the same hash is
//! the same version.

use crate::engine::command::Command;
use crate::engine::core::Core;
use crate::engine::facts::Librarian;
use crate::engine::{Resolver, VersionSpec};
use crate::log::Poisoned;
use crate::types::WorkerType;

/// What is to be found out of a version, with all that is needed for it.
struct Wanted {
    text: std::sync::Arc<str>,
    name: WorkerType,
    hash: [u8; 32],
}

impl Wanted {
    /// Reads files.
    fn find(&self, resolver: &Resolver) -> Result<VersionSpec, String> {
        let described = resolver(&self.text).map_err(|why| why.lines().next().unwrap_or_default().to_owned())?;
        let same = |spec: &VersionSpec| spec.worker.worker_type == self.name && spec.definition_hash == self.hash;
        let found = described.versions.into_iter().find(same);
        found.ok_or_else(|| "its files have changed since it was accepted".to_owned())
    }
}

/// What was found out of a version.
pub(in crate::engine) struct Described {
    version_no: u32,
    found: Result<VersionSpec, String>,
}

impl Core {
    fn wanted(&self, version_no: u32) -> Result<Wanted, String> {
        let unknown = || "no config that is remembered says what it is".to_owned();
        let version = self.table.version(version_no).ok_or_else(unknown)?;
        let of_type = self.table.worker_type(version.type_no).ok_or_else(unknown)?;
        let text = self.table.text_for(version_no).ok_or_else(unknown)?;
        Ok(Wanted { text, name: of_type.name.clone(), hash: version.hash })
    }

    /// What a version is made of by the newest config that describes it, if it still comes to the same; reads files.
    ///
    /// # Errors
    /// Why it cannot be known, in words.
    pub(in crate::engine) fn spec_by_text(&self, version_no: u32) -> Result<VersionSpec, String> {
        self.wanted(version_no)?.find(&self.resolver)
    }

    /// What a version is made of, as long as that is remembered.
    ///
    /// # Errors
    /// Why it is not known, in words.
    pub(in crate::engine) fn spec_of(&self, type_no: u32, version_no: u32) -> Result<VersionSpec, String> {
        let of_type = self.types.get(&type_no);
        let live = self.pools.values().find(|run| run.version_no == version_no).map(|run| &run.spec);
        let past = of_type.and_then(|of| of.past.iter().rev().find(|past| past.version_no == version_no));
        let withheld = of_type.and_then(|of| of.withheld.as_ref().filter(|(no, _)| *no == version_no));
        if let Some(spec) = live.or(past.map(|past| &past.spec)).or(withheld.map(|(_, spec)| spec)) {
            return Ok(spec.clone());
        }
        match self.rollover.described.as_ref().filter(|described| described.version_no == version_no) {
            Some(described) => described.found.clone(),
            None => Err("what it was made of is not known any more".to_owned()),
        }
    }

    /// Whether a text is to be read before it can be said what a version is made of.
    pub(in crate::engine) fn is_to_be_described(&self, type_no: u32, version_no: u32) -> bool {
        let is_new = self.rollover.described.as_ref().is_none_or(|described| described.version_no != version_no);
        is_new && self.spec_of(type_no, version_no).is_err()
    }

    /// Has `then` handled again once it is known what a version is made of, or that it cannot be known.
    pub(in crate::engine) fn describe(&mut self, version_no: u32, then: Command) -> Result<(), Poisoned> {
        self.looking += 1;
        let answer = move |found, then| Command::Described {
            described: Box::new(Described { version_no, found }),
            then: Box::new(then),
        };
        let wanted = match self.wanted(version_no) {
            Ok(wanted) => wanted,
            Err(why) => return self.handle(answer(Err(why), then)),
        };
        if matches!(self.librarian, Librarian::Inline) {
            let found = wanted.find(&self.resolver);
            return self.handle(answer(found, then));
        }
        let (resolver, to_engine) = (self.resolver.clone(), self.to_self.clone());
        // What it is to do goes to it once it runs: if it does not, the command is still here.
        let (orders, inbox) = crossbeam_channel::bounded::<Command>(1);
        let thread = std::thread::Builder::new().name("describe".to_owned()).spawn(move || {
            if let Ok(then) = inbox.recv() {
                drop(to_engine.send(answer(wanted.find(&resolver), then)));
            }
        });
        match thread {
            Ok(_) => {
                drop(orders.send(then));
                Ok(())
            }
            Err(error) => self.handle(answer(Err(format!("no thread to read its files: {error}")), then)),
        }
    }

    /// It was found out, or could not be.
    pub(in crate::engine) fn described(&mut self, described: Described, then: Command) -> Result<(), Poisoned> {
        self.looking -= 1;
        self.rollover.described = Some(described);
        let done = self.handle(then);
        self.rollover.described = None;
        done
    }
}
