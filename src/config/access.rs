//! `[http]` again: under which names it is served, by which tokens, and by which certificate.
//!
//! A token never stands in the config: that says where it is.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::EnvValue;
use super::request::secrets;
use super::section::{Gathered, Section};

/// Names of one config.
const NAMES_MAX: usize = 32;

/// What a token lets its bearer do; each role may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Read metrics.
    Metrics,
    /// Look at everything.
    Read,
    /// Enqueue, and what else is done to jobs and types, but for a purge.
    Operate,
    /// Everything: have config and binary replaced, and the log copied.
    Admin,
}

impl Role {
    /// All of them, the least first.
    pub const ALL: [Self; 4] = [Self::Metrics, Self::Read, Self::Operate, Self::Admin];

    /// As the config calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }
}

/// Who may come in, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessConfig {
    /// Names under which it is served, in small letters, beside those of the machine itself.
    pub names: Vec<String>,
    /// Where the tokens are, with what each lets its bearer do. None: whoever gets in may do everything.
    pub tokens: Vec<(Role, EnvValue)>,
    /// For https.
    pub tls: Option<TlsConfig>,
}

/// A certificate and its key, as paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// Certificates in PEM, the server's own first.
    pub cert: PathBuf,
    /// The key of the first one, in PEM.
    pub key: PathBuf,
    /// What biotope's own command line trusts, in PEM, beside the well-known authorities.
    pub ca: Option<PathBuf>,
}

/// Reads who may come in to what is served at `listen`.
pub(super) fn read(gathered: &mut Gathered, http: &mut Section<'_>, listen: SocketAddr) -> AccessConfig {
    let names = names(gathered, http);
    let given = http.has("tokens");
    let tokens = tokens(gathered, http);
    let tls = tls(gathered, http);
    let is_guarded = given && tokens.iter().any(|(role, _)| *role > Role::Metrics);
    if !listen.ip().is_loopback() && !is_guarded {
        let message =
            format!("`http.listen` {listen} can be reached from other machines, and nobody is asked for a token");
        let help = "add [http.tokens] with admin = { file = \"admin.token\" }, or listen on loopback: 127.0.0.1";
        gathered.add_at("http.listen", message, help);
    }
    AccessConfig { names, tokens, tls }
}

fn names(gathered: &mut Gathered, http: &mut Section<'_>) -> Vec<String> {
    let Some((names, span)) = http.texts(gathered, "names") else { return Vec::new() };
    let fits = |name: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        !name.is_empty() && name.len() <= 253 && name.chars().all(plain)
    };
    for bad in names.iter().filter(|name| !fits(name)) {
        gathered.add(
            span.clone(),
            format!("{bad:?} cannot be the name of a host"),
            "like \"jobs.example.com\", no port",
        );
    }
    if names.len() > NAMES_MAX {
        gathered.add(span, format!("`http.names` holds {} names, the most is {NAMES_MAX}", names.len()), "");
    }
    names.iter().map(|name| name.to_ascii_lowercase()).collect()
}

fn tokens(gathered: &mut Gathered, http: &mut Section<'_>) -> Vec<(Role, EnvValue)> {
    let mut section = http.section(gathered, "tokens");
    let mut tokens = Vec::new();
    for role in Role::ALL {
        tokens.extend(secrets(gathered, &mut section, role.name()).into_iter().map(|value| (role, value)));
    }
    section.finish(gathered);
    tokens
}

fn tls(gathered: &mut Gathered, http: &mut Section<'_>) -> Option<TlsConfig> {
    let given = http.has("tls");
    let mut section = http.section(gathered, "tls");
    let mut path = |key| section.text(gathered, key).map(|(path, _)| PathBuf::from(path));
    let (cert, key, ca) = (path("cert"), path("key"), path("ca"));
    let span = section.span();
    section.finish(gathered);
    match (cert, key) {
        (Some(cert), Some(key)) => Some(TlsConfig { cert, key, ca }),
        _ if !given => None,
        _ => {
            let help = "write cert = \"cert.pem\" and key = \"key.pem\"";
            gathered.add(span, "`http.tls` names not both, a certificate and its key", help);
            None
        }
    }
}

impl AccessConfig {
    /// Keys that have another value in `other`.
    pub(super) fn differ(&self, other: &Self) -> [(&'static str, bool); 3] {
        let Self { names, tokens, tls } = self;
        [
            ("http.names", *names != other.names),
            ("http.tokens", *tokens != other.tokens),
            ("http.tls", *tls != other.tls),
        ]
    }
}
