//! The certificate that is shown, and its key.

use std::fmt;
use std::sync::Arc;

use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::{Problem, TlsConfig};
use crate::worker::definition::Surroundings;

/// What connections are made by that come from now on.
#[derive(Clone)]
pub struct Tls(Arc<ServerConfig>);

impl Tls {
    /// Reads both files.
    pub(super) fn load(config: &TlsConfig, around: &Surroundings<'_>) -> Result<Self, Problem> {
        let problem = |key: &str, message: String, help: &str| {
            around.places.problem(&format!("http.tls.{key}"), message, Some(help.to_owned()))
        };
        let path = around.folder.join(&config.cert);
        let certs = CertificateDer::pem_file_iter(&path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let certs = certs.ok().filter(|certs| !certs.is_empty()).ok_or_else(|| {
            let message = format!("{} holds no certificate in PEM", path.display());
            problem("cert", message, "name a file with -----BEGIN CERTIFICATE-----")
        })?;
        let path = around.folder.join(&config.key);
        let key = PrivateKeyDer::from_pem_file(&path).map_err(|_| {
            let message = format!("{} holds no key in PEM that can be read", path.display());
            problem("key", message, "name a file with -----BEGIN PRIVATE KEY-----")
        })?;
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let made = builder
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(certs, key));
        let mut made = made.map_err(|error| {
            problem("key", format!("certificate and key cannot be used: {error}"), "are they of each other?")
        })?;
        made.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Arc::new(made)))
    }

    /// For one connection.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}
