//! What the command line shows a running biotope, and what it trusts.
//!
//! A token comes from `BIOTOPE_TOKEN`, or from where the config says that it is; never from an argument, which everyone on
//! the machine may read.

use std::path::Path;
use std::sync::Arc;

use axum::http::HeaderValue;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::access::{Role, read_token};
use crate::config::AccessConfig;
use crate::exit::{CONFIG, Failure, USAGE};

/// Holds a token.
const TOKEN: &str = "BIOTOPE_TOKEN";
/// Names a file of certificates in PEM that are trusted besides.
const CA: &str = "BIOTOPE_CA";

/// How a biotope is spoken to by https, and who it must be.
pub(super) type Tls = (Arc<ClientConfig>, ServerName<'static>);

/// The token that is shown, if there is one.
pub(super) fn of_environment() -> Result<Option<HeaderValue>, Failure> {
    let Some(token) = std::env::var_os(TOKEN) else { return Ok(None) };
    let shown = bearer(token.as_encoded_bytes());
    shown.map(Some).ok_or_else(|| Failure::new(USAGE, format!("{TOKEN} holds no token: one line of letters and signs")))
}

/// As [`of_environment`]; else the highest token of the config that this user may read, or why none of them may be shown.
pub(super) fn of_config(
    access: &AccessConfig,
    folder: &Path,
) -> Result<(Option<HeaderValue>, Option<String>), Failure> {
    if let Some(token) = of_environment()? {
        return Ok((Some(token), None));
    }
    let mut places: Vec<_> = access.tokens.iter().filter(|(role, _)| *role > Role::Metrics).collect();
    places.sort_by_key(|(role, _)| std::cmp::Reverse(*role));
    let variable = |name: &str| std::env::var_os(name);
    let mut unread = None;
    for (_, place) in places {
        match read_token(place, folder, &variable) {
            Ok(token) => return Ok((bearer(&token), None)),
            Err((why, remedy)) => unread = unread.or(Some(format!("{why}: {remedy}"))),
        }
    }
    Ok((None, unread))
}

fn bearer(token: &[u8]) -> Option<HeaderValue> {
    let shown = [b"Bearer ", token.trim_ascii()].concat();
    let mut shown = HeaderValue::from_bytes(&shown).ok()?;
    shown.set_sensitive(true);
    Some(shown)
}

/// What https is spoken by with who must be `name`; trusted are the well-known authorities, those of `BIOTOPE_CA`, and `ca`.
pub(super) fn tls(name: &str, ca: Option<&Path>) -> Result<Tls, Failure> {
    let mut roots = crate::trust::roots().map_err(|why| Failure::new(CONFIG, why))?;
    let named = std::env::var_os(CA);
    for path in ca.into_iter().chain(named.as_deref().map(Path::new)) {
        if crate::trust::add(Arc::make_mut(&mut roots), path) == 0 {
            return Err(Failure::new(CONFIG, format!("{} holds no certificate in PEM", path.display())));
        }
    }
    let bad = |_| Failure::new(USAGE, format!("no certificate can be for {name:?}"));
    let name = ServerName::try_from(name.trim_matches(['[', ']']).to_owned()).map_err(bad)?;
    let config =
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions();
    let config = config.map_err(|error| Failure::new(CONFIG, format!("TLS is not to be had: {error}")))?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((Arc::new(config), name))
}
