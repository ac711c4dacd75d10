//! Who may come in over HTTP: tokens by what stands in for them, names, and what TLS is spoken by.
//!
//! Owns how a config's places become that; the files and variables are read here, when the config is, and a token itself is
//! kept nowhere: only its hash. Decides nothing about requests, and knows none.

#[cfg(feature = "daemon")]
mod tls;
mod token;

use std::net::IpAddr;

use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

pub use crate::config::Role;
#[cfg(feature = "daemon")]
pub use tls::Tls;
pub use token::read_token;

use crate::config::{AccessConfig, Config, Problem};
use crate::worker::definition::Surroundings;

/// What stands in for a token.
pub type Hash = [u8; 32];

/// Who may come in, and how.
#[derive(Debug, Default)]
pub struct Access {
    listen: Option<IpAddr>,
    names: Vec<String>,
    tokens: Vec<(Role, Hash)>,
    /// For https.
    #[cfg(feature = "daemon")]
    pub tls: Option<Tls>,
}

/// Reads what the config names.
///
/// # Errors
/// Everything that is missing, open to others, or no token, certificate or key, each at its place.
pub fn resolve(config: &Config, around: &Surroundings<'_>) -> Result<Access, Vec<Problem>> {
    let AccessConfig { names, tokens, tls } = &config.access;
    let mut problems = Vec::new();
    let mut known = Vec::new();
    for (role, place) in tokens {
        match read_token(place, around.folder, around.variable) {
            Ok(token) => known.push((*role, token::hash(&token))),
            Err((message, help)) => {
                let key = format!("http.tokens.{}", role.name());
                problems.push(around.places.problem(&key, message, Some(help)));
            }
        }
    }
    for (at, (role, hash)) in known.iter().enumerate() {
        if known.iter().take(at).any(|(_, other)| other == hash) {
            let key = format!("http.tokens.{}", role.name());
            let message = format!("`{key}` is the same token as another one");
            problems.push(around.places.problem(&key, message, Some("make one for each".to_owned())));
        }
    }
    #[cfg(feature = "daemon")]
    let tls = tls.as_ref().and_then(|tls| Tls::load(tls, around).map_err(|problem| problems.push(problem)).ok());
    #[cfg(not(feature = "daemon"))]
    let _ = tls;
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Access {
        listen: Some(config.listen.ip()),
        names: names.clone(),
        tokens: known,
        #[cfg(feature = "daemon")]
        tls,
    })
}

impl Access {
    /// One with these tokens.
    #[cfg(test)]
    pub(crate) fn of(tokens: &[(Role, &[u8])]) -> Self {
        let tokens = tokens.iter().map(|(role, token)| (*role, token::hash(token))).collect();
        Self { tokens, ..Self::default() }
    }

    /// Whether it is served by https.
    #[cfg(feature = "daemon")]
    pub fn speaks_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether anybody is asked for a token.
    pub fn asks(&self) -> bool {
        !self.tokens.is_empty()
    }

    /// What the bearer of this token may do, and what stands in for it; in a time that tells nothing of the known ones.
    pub fn role_of(&self, presented: &[u8]) -> Option<(Role, Hash)> {
        let hash = token::hash(presented);
        self.role_of_hash(&hash).map(|role| (role, hash))
    }

    /// What the bearer of a token may do that this stands in for, if it is still known.
    pub fn role_of_hash(&self, hash: &Hash) -> Option<Role> {
        // 0 for none; all are compared, whichever fits.
        let mut found = 0_u8;
        for (role, known) in &self.tokens {
            let fits: Choice = known.ct_eq(hash);
            found = u8::conditional_select(&found, &(*role as u8 + 1), fits);
        }
        Role::ALL.get(usize::from(found).wrapping_sub(1)).copied()
    }

    /// Whether a host, by name or address and without its port, is this one. What is only known by a name that others can
    /// give an address to is none; nor is an address that is not listened on.
    pub fn is_own_name(&self, host: &str) -> bool {
        if host.eq_ignore_ascii_case("localhost") || self.names.iter().any(|name| name.eq_ignore_ascii_case(host)) {
            return true;
        }
        let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() else { return false };
        let listens = |listen: IpAddr| listen == address || listen.is_unspecified();
        address.is_loopback() || self.listen.is_some_and(listens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(tokens: &[(Role, &[u8])]) -> Access {
        let listen = Some("10.0.0.7".parse().unwrap());
        Access { listen, names: vec!["jobs.example.com".to_owned()], ..Access::of(tokens) }
    }

    #[test]
    fn a_token_is_its_role_and_no_part_of_it_is_any() {
        let access = access(&[(Role::Admin, b"0123456789abcdef"), (Role::Read, b"fedcba9876543210")]);
        let role = |text: &str| access.role_of(text.as_bytes()).map(|(role, _)| role);
        assert_eq!(role("0123456789abcdef"), Some(Role::Admin));
        assert_eq!(role("fedcba9876543210"), Some(Role::Read));
        for wrong in ["", "0123456789abcde", "0123456789abcdef0", "0123456789ABCDEF", "0123456789abcdee"] {
            assert_eq!(role(wrong), None, "{wrong}");
        }
        assert!(Role::Metrics < Role::Read && Role::Read < Role::Operate && Role::Operate < Role::Admin);
    }

    #[test]
    fn only_its_own_names_and_addresses_are_its_own() {
        let access = access(&[]);
        for own in ["localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "[::1]", "10.0.0.7", "Jobs.Example.com"] {
            assert!(access.is_own_name(own), "{own}");
        }
        for other in ["", "10.0.0.8", "example.com", "jobs.example.com.evil.example", "xjobs.example.com", "localhost."]
        {
            assert!(!access.is_own_name(other), "{other}");
        }
        let everywhere = Access { listen: Some("0.0.0.0".parse().unwrap()), ..Access::default() };
        assert!(everywhere.is_own_name("10.0.0.8") && !everywhere.is_own_name("evil.example"));
    }
}
