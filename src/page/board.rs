//! What viewers share: one look at the engine and one rendering for all who ask at the same time, however many they are.
//!
//! Owns the last look. Who opens a page never sees anything older than his request; who only keeps one current may be given
//! what is at most a tick old, but nothing from before the last event that readers were told of.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use super::errors::{self, Errors};
use super::overview::{Look, Screen, screen};
use crate::engine::view::TypeView;
use crate::http::problem::Problem;
use crate::http::{App, answer, blocking};
use crate::types::WorkerType;

/// How old a look may be for who has one already.
const TICK: Duration = Duration::from_secs(1);

/// How old the errors of a type may be for who has them already: to find them, the log is read.
const ERRORS_TICK: Duration = Duration::from_secs(5);

/// What was shown last, and from when on it was looked at.
struct Kept<T> {
    since: Duration,
    shown: Arc<T>,
}

/// The last look, and the last rendering of it.
#[derive(Default)]
pub(super) struct Board {
    look: Mutex<Option<Kept<Look>>>,
    screen: Mutex<Option<Kept<Screen>>>,
    /// By type, with the counts that tell whether they are others by now.
    errors: Mutex<HashMap<WorkerType, (Counts, Kept<Errors>)>>,
}

/// How many jobs of a type are dead, how many attempts have failed, and how many jobs were discarded.
type Counts = [u64; 3];

/// How fresh it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fresh {
    /// As it is now, for who opens a page.
    Now,
    /// At most a tick ago, and not before what readers of events have been told.
    Tick,
}

impl Fresh {
    /// The moment from which on a look will do at `now`, when readers of events were told something last at `told`.
    fn since(self, now: Duration, told: Duration) -> Duration {
        match self {
            Self::Now => now,
            // Who comes because he was told of something sees it.
            Self::Tick => now.saturating_sub(TICK).max(told),
        }
    }

    fn since_in(self, app: &App) -> Duration {
        self.since(app.clock.mono(), app.events.grown_at())
    }
}

impl<T> Kept<T> {
    fn if_since(&self, since: Duration) -> Option<Arc<T>> {
        (self.since >= since).then(|| Arc::clone(&self.shown))
    }
}

impl Board {
    /// A look at everything.
    pub(super) async fn look(&self, app: &App, fresh: Fresh) -> Result<Arc<Look>, Problem> {
        self.look_since(app, fresh.since_in(app)).await.map(|(_, look)| look)
    }

    async fn look_since(&self, app: &App, wanted: Duration) -> Result<(Duration, Arc<Look>), Problem> {
        // Who comes while somebody looks waits here, and is served by the next look with all others who wait.
        let mut kept = self.look.lock().await;
        if let Some(kept) = kept.as_ref()
            && let Some(shown) = kept.if_since(wanted)
        {
            return Ok((kept.since, shown));
        }
        let since = app.clock.mono();
        let mut view = answer(&app.handle, |then| app.handle.ecosystem(then)).await??;
        view.binary = Some(app.upgrader.view());
        let generations = answer(&app.handle, |then| app.handle.generations(then)).await??;
        let shown = Arc::new(Look { view, generations, now: app.clock.wall_ms() });
        *kept = Some(Kept { since, shown: Arc::clone(&shown) });
        Ok((since, shown))
    }

    /// The errors of a type's dead jobs.
    pub(super) async fn errors(&self, app: &App, of: &TypeView, fresh: Fresh) -> Result<Arc<Errors>, Problem> {
        if of.dead == 0 {
            return Ok(Arc::default());
        }
        let (counts, now) = ([of.dead, of.failed, of.discarded], app.clock.mono());
        let mut kept = self.errors.lock().await;
        if let Some((of_counts, errors)) = kept.get(&of.worker_type)
            && fresh == Fresh::Tick
            && (*of_counts == counts || errors.since + ERRORS_TICK > now)
        {
            return Ok(Arc::clone(&errors.shown));
        }
        let (handle, name) = (app.handle.clone(), of.worker_type.clone());
        let shown = Arc::new(blocking(move || errors::of_dead(&handle, name)).await??);
        kept.insert(of.worker_type.clone(), (counts, Kept { since: now, shown: Arc::clone(&shown) }));
        Ok(shown)
    }

    /// The first screen.
    pub(super) async fn screen(&self, app: &App, fresh: Fresh) -> Result<Arc<Screen>, Problem> {
        let wanted = fresh.since_in(app);
        let mut kept = self.screen.lock().await;
        if let Some(shown) = kept.as_ref().and_then(|kept| kept.if_since(wanted)) {
            return Ok(shown);
        }
        let (since, look) = self.look_since(app, wanted).await?;
        let shown = Arc::new(screen(&look)?);
        *kept = Some(Kept { since, shown: Arc::clone(&shown) });
        Ok(shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_told_of_something_sees_it() {
        let at = Duration::from_millis;
        let kept = Kept { since: at(9_500), shown: Arc::new(()) };
        let does = |fresh: Fresh, now, told| kept.if_since(fresh.since(at(now), at(told))).is_some();
        assert!(does(Fresh::Tick, 10_000, 3_000), "nothing is new, and it is not old");
        assert!(!does(Fresh::Tick, 10_000, 9_600), "it began before that was told");
        assert!(does(Fresh::Tick, 10_000, 9_500), "it began when that was told");
        assert!(!does(Fresh::Tick, 10_501, 3_000), "it is old");
        assert!(!does(Fresh::Now, 10_000, 3_000) && does(Fresh::Now, 9_500, 9_500));
    }
}
