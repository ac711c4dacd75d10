//! Sessions of the page: who has shown a token once need not show it with every request of his browser.
//!
//! Kept in memory alone, and of an id only its hash. A session ends by itself, with its token, or when its owner says so;
//! with the process, too.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use sha2::{Digest, Sha256};

use crate::access::{Access, Hash, Role};
use crate::clock::Clock;

/// How long a session lasts.
pub(super) const LASTS: Duration = Duration::from_secs(12 * 3600);
/// Sessions at once; one more, and the oldest ends.
const SESSIONS_MAX: usize = 1000;
/// The cookie's name.
const COOKIE: &str = "biotope_session";
/// Random bytes of an id.
const ID_BYTES: usize = 32;

struct Session {
    token: Hash,
    /// By the clock that never goes back.
    began: Duration,
}

/// All sessions.
pub(super) struct Sessions {
    clock: Arc<dyn Clock>,
    by_id: Mutex<HashMap<Hash, Session>>,
}

impl Sessions {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, by_id: Mutex::default() }
    }

    fn by_id(&self) -> MutexGuard<'_, HashMap<Hash, Session>> {
        // Nothing that panics is done under it.
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a session of who has shown this token; its cookie. `None`: the system gives nothing random.
    pub(super) fn begin(&self, token: Hash, secure: bool) -> Option<String> {
        let mut id = [0; ID_BYTES];
        getrandom::fill(&mut id).ok()?;
        let id = BASE64.encode(id);
        let now = self.clock.mono();
        let mut by_id = self.by_id();
        by_id.retain(|_, session| now.saturating_sub(session.began) < LASTS);
        if by_id.len() >= SESSIONS_MAX {
            let oldest = by_id.iter().min_by_key(|(_, session)| session.began).map(|(id, _)| *id);
            oldest.map(|oldest| by_id.remove(&oldest));
        }
        by_id.insert(Sha256::digest(&id).into(), Session { token, began: now });
        Some(cookie(&id, LASTS, secure))
    }

    /// What who shows this cookie may do.
    pub(super) fn role_of(&self, headers: &HeaderMap, access: &Access) -> Option<Role> {
        let id = id_of(headers)?;
        let now = self.clock.mono();
        let by_id = self.by_id();
        let session = by_id.get(&Hash::from(Sha256::digest(id)))?;
        let lasts = now.saturating_sub(session.began) < LASTS;
        // A token that is known no more ends what it began.
        if lasts { access.role_of_hash(&session.token) } else { None }
    }

    /// Ends the session of who shows this cookie; the cookie that takes it away.
    pub(super) fn end(&self, headers: &HeaderMap, secure: bool) -> String {
        if let Some(id) = id_of(headers) {
            self.by_id().remove(&Hash::from(Sha256::digest(id)));
        }
        cookie("", Duration::ZERO, secure)
    }
}

/// A cookie that no script reads, and that no other site's page has sent along.
fn cookie(id: &str, lasts: Duration, secure: bool) -> String {
    let secure = if secure { "; Secure" } else { "" };
    format!("{COOKIE}={id}; Path=/; HttpOnly; SameSite=Strict; Max-Age={}{secure}", lasts.as_secs())
}

/// Whether somebody shows a cookie of a session, be it over or not.
pub(super) fn shows_session(headers: &HeaderMap) -> bool {
    id_of(headers).is_some_and(|id| !id.is_empty())
}

fn id_of(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|cookies| cookies.to_str().ok());
    let mut named = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
    named.find(|(name, _)| *name == COOKIE).map(|(_, id)| id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::UnixMs;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Default)]
    struct Hours(AtomicU64);

    impl Clock for Hours {
        fn wall_ms(&self) -> UnixMs {
            0
        }

        fn mono(&self) -> Duration {
            Duration::from_secs(self.0.load(Ordering::Relaxed) * 3600)
        }
    }

    fn headers(cookie: &str) -> HeaderMap {
        let pair = cookie.split(';').next().unwrap();
        HeaderMap::from_iter([(header::COOKIE, format!("a=b; {pair}").parse().unwrap())])
    }

    fn sessions() -> (Sessions, Arc<Hours>, Access, Hash) {
        let clock = Arc::new(Hours::default());
        let access = Access::of(&[(Role::Operate, b"0123456789abcdef")]);
        let (_, hash) = access.role_of(b"0123456789abcdef").unwrap();
        (Sessions::new(Arc::clone(&clock) as Arc<dyn Clock>), clock, access, hash)
    }

    #[test]
    fn s9_a_session_lasts_its_time_and_not_longer_than_its_token_or_its_owner_wants() {
        let (sessions, clock, access, hash) = sessions();
        let cookie = sessions.begin(hash, true).unwrap();
        for word in ["HttpOnly", "SameSite=Strict", "Secure", "Path=/", "Max-Age=43200"] {
            assert!(cookie.contains(word), "{cookie}");
        }
        assert!(!sessions.begin(hash, false).unwrap().contains("Secure"));
        let shown = headers(&cookie);
        clock.0.store(11, Ordering::Relaxed);
        assert_eq!(sessions.role_of(&shown, &access), Some(Role::Operate));
        assert_eq!(sessions.role_of(&shown, &Access::of(&[(Role::Read, b"another-token-it-is")])), None, "revoked");
        assert_eq!(sessions.role_of(&headers("biotope_session=x"), &access), None);
        assert_eq!(sessions.role_of(&HeaderMap::new(), &access), None);
        clock.0.store(12, Ordering::Relaxed);
        assert_eq!(sessions.role_of(&shown, &access), None, "over");
        let cookie = sessions.begin(hash, false).unwrap();
        let gone = sessions.end(&headers(&cookie), false);
        assert!(gone.contains("Max-Age=0"), "{gone}");
        assert_eq!(sessions.role_of(&headers(&cookie), &access), None, "logged out");
    }

    #[test]
    fn s4_there_are_only_so_many_and_the_oldest_ends() {
        let (sessions, clock, access, hash) = sessions();
        let first = sessions.begin(hash, false).unwrap();
        clock.0.store(1, Ordering::Relaxed);
        let second = sessions.begin(hash, false).unwrap();
        for _ in 0..SESSIONS_MAX - 1 {
            sessions.begin(hash, false).unwrap();
        }
        assert_eq!(sessions.by_id().len(), SESSIONS_MAX);
        assert_eq!(sessions.role_of(&headers(&first), &access), None);
        assert_eq!(sessions.role_of(&headers(&second), &access), Some(Role::Operate));
    }
}
