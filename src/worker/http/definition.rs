//! What an http worker is: its config, with the values that it names, and a hash over all of it.
//!
//! Reads files, and variables through the caller. Connects to nothing, looks no name up. Values of secrets and headers go
//! into the hash by what stands in for them, and nowhere else.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::HttpFactory;
use super::lookup;
use super::sign::{Secret, stand_in};
use crate::clock::RealClock;
use crate::config::target::{Target, own_addresses};
use crate::config::{EnvValue, HttpConfig, Problem};
use crate::types::WorkerType;
use crate::worker::definition::{Fields, Resolving, Surroundings};
use crate::worker::launch::OutputLimits;

/// A service, resolved: all that is needed to call it.
pub(super) struct Hook {
    pub(super) target: Target,
    /// Path and query, as they stand in a head.
    pub(super) uri: Uri,
    /// What `Host` says.
    pub(super) authority: HeaderValue,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) secrets: Vec<Secret>,
    /// For https.
    pub(super) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    pub(super) allow_private: bool,
    pub(super) limits: OutputLimits,
    pub(super) resolver: Arc<dyn Resolver>,
}

/// Finds the addresses of a name.
pub(super) trait Resolver: Send + Sync {
    /// Looks `host` up, once.
    fn look_up<'a>(&'a self, host: &'a str, port: u16) -> LookUp<'a>;
}

/// Addresses, in a while.
pub(super) type LookUp<'a> = Pin<Box<dyn Future<Output = std::io::Result<Vec<SocketAddr>>> + Send + 'a>>;

/// The system's own resolver.
struct System;

impl Resolver for System {
    fn look_up<'a>(&'a self, host: &'a str, port: u16) -> LookUp<'a> {
        if let Some(own) = own_addresses(host) {
            return Box::pin(std::future::ready(Ok(own.map(|address| SocketAddr::new(address, port)).to_vec())));
        }
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    }
}

/// Resolves an http worker. Returns what makes its workers, and the hash of its definition.
///
/// # Errors
/// Everything that is missing or cannot be used, each at its place in the config.
pub fn resolve(
    worker_type: &WorkerType,
    http: &HttpConfig,
    around: &Surroundings<'_>,
    limits: OutputLimits,
) -> Result<(HttpFactory, [u8; 32]), Vec<Problem>> {
    let mut resolving = Resolving::new(around, worker_type);
    let mut hash = Fields::new(b"http 1");
    for part in [http.target.authority.as_str(), http.target.path.as_str()] {
        hash.add(part.as_bytes());
    }
    hash.add(&[u8::from(http.target.tls), u8::from(http.allow_private)]);
    let headers = headers(&mut resolving, http, &mut hash);
    let secrets = secrets(&mut resolving, http, &mut hash);
    let tls = tls(&mut resolving, http, &mut hash);
    let head = (Uri::try_from(&http.target.path), HeaderValue::try_from(&http.target.authority));
    if !matches!(head, (Ok(_), Ok(_))) {
        let message = format!("{}{} cannot stand in a request", http.target.authority, http.target.path);
        resolving.problem("http", message, "percent-encode what is no plain letter or digit");
    }
    let (Ok(uri), Ok(authority)) = head else { return Err(resolving.problems) };
    if !resolving.problems.is_empty() {
        return Err(resolving.problems);
    }
    let (target, allow_private) = (http.target.clone(), http.allow_private);
    let resolver = Arc::new(lookup::Shared::new(Arc::new(System), RealClock::shared()));
    let hook = Hook { target, uri, authority, headers, secrets, tls, allow_private, limits, resolver };
    Ok((HttpFactory { hook: Arc::new(hook) }, hash.finish()))
}

/// A value that the config names, noted in the hash by where it is and by what stands in for it.
fn value(resolving: &mut Resolving<'_>, key: &str, named: &EnvValue, hash: &mut Fields) -> Option<String> {
    let value = resolving.value(key, named)?;
    match named {
        EnvValue::Text(_) => hash.add(b"text"),
        EnvValue::From(variable) => hash.add(format!("from {variable}").as_bytes()),
        EnvValue::File(path) => hash.add(format!("file {}", path.display()).as_bytes()),
    }
    hash.add(&stand_in(value.as_encoded_bytes()));
    let text = value.into_string().ok();
    if text.is_none() {
        resolving.problem(key, "the value is no UTF-8".to_owned(), "write plain text");
    }
    text
}

fn headers(resolving: &mut Resolving<'_>, http: &HttpConfig, hash: &mut Fields) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::new();
    for (name, named) in &http.headers {
        let key = format!("headers.{name}");
        hash.add(name.as_bytes());
        let Some(text) = value(resolving, &key, named, hash) else { continue };
        match (HeaderName::try_from(name.as_str()), HeaderValue::try_from(text)) {
            (Ok(name), Ok(mut value)) => {
                value.set_sensitive(true);
                headers.push((name, value));
            }
            (Err(_), _) | (_, Err(_)) => {
                resolving.problem(&key, "the value cannot stand in a header".to_owned(), "one line of plain text");
            }
        }
    }
    headers
}

fn secrets(resolving: &mut Resolving<'_>, http: &HttpConfig, hash: &mut Fields) -> Vec<Secret> {
    let mut secrets = Vec::new();
    for named in &http.secrets {
        hash.add(b"secret");
        let Some(text) = value(resolving, "secret", named, hash) else { continue };
        match Secret::parse(&text) {
            Ok(secret) => secrets.push(secret),
            Err(why) => {
                let help = "make one: echo whsec_$(head -c 32 /dev/urandom | base64)";
                resolving.problem("secret", format!("the secret {why}"), help);
            }
        }
    }
    secrets
}

fn tls(
    resolving: &mut Resolving<'_>,
    http: &HttpConfig,
    hash: &mut Fields,
) -> Option<(Arc<ClientConfig>, ServerName<'static>)> {
    let system = if http.target.tls { crate::trust::roots() } else { Ok(Arc::new(RootCertStore::empty())) };
    let mut roots = system.unwrap_or_else(|why| {
        resolving.problem("http", why, "name a file with -----BEGIN CERTIFICATE-----, or unset it");
        Arc::new(RootCertStore::empty())
    });
    if let Some(path) = &http.ca {
        let path = resolving.around.folder.join(path);
        hash.add(b"ca");
        hash.add_file(&path);
        if crate::trust::add(Arc::make_mut(&mut roots), &path) == 0 {
            let message = format!("{} holds no certificate in PEM", path.display());
            resolving.problem("ca", message, "name a file with -----BEGIN CERTIFICATE-----");
        }
    }
    if !http.target.tls {
        return None;
    }
    let Ok(name) = ServerName::try_from(http.target.host.clone()) else {
        let message = format!("no certificate can be for {:?}", http.target.host);
        resolving.problem("http", message, "name the host as its certificate does");
        return None;
    };
    let config =
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions();
    let Ok(config) = config else {
        resolving.problem("http", "TLS is not to be had".to_owned(), "use http, and a proxy that speaks TLS");
        return None;
    };
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Some((Arc::new(config), name))
}
