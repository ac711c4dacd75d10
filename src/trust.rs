//! Whose certificates are believed: the authorities of the system, or, where it has none, those that are built in.
//!
//! Owns where they are looked for. A file that changes is read again when it is next asked for; nothing is kept of a
//! connection, and nothing is written.
//!
//! ```text
//! SSL_CERT_FILE ─► the first of the files of the system ─► those that are built in
//! ```

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

/// The variable by which a file is named instead of the system's, as to other programs.
const VARIABLE: &str = "SSL_CERT_FILE";

/// Where systems have theirs.
const FILES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What the file system says of a file that was read: device, inode, size and time of change.
type Stamp = [u64; 5];

/// The authorities that were read last.
static KNOWN: Mutex<Option<(PathBuf, Stamp, Arc<RootCertStore>)>> = Mutex::new(None);

/// The authorities that are believed.
///
/// # Errors
/// `SSL_CERT_FILE` names a file that holds none.
pub(crate) fn roots() -> Result<Arc<RootCertStore>, String> {
    found(std::env::var_os(VARIABLE).filter(|named| !named.is_empty()), &FILES.map(Path::new))
}

fn found(named: Option<OsString>, files: &[&Path]) -> Result<Arc<RootCertStore>, String> {
    if let Some(named) = named {
        let path = Path::new(&named);
        let why = || format!("{VARIABLE} names {}, which holds no certificate in PEM", path.display());
        return read_once(path).ok_or_else(why);
    }
    let built_in = || Arc::new(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() });
    Ok(files.iter().find_map(|path| read_once(path)).unwrap_or_else(built_in))
}

/// The authorities of a file, if there are any. Many workers ask for the same ones: they share them.
fn read_once(path: &Path) -> Option<Arc<RootCertStore>> {
    let seen = std::fs::metadata(path).ok()?;
    let [seconds, nanos] = [seen.mtime(), seen.mtime_nsec()].map(i64::cast_unsigned);
    let stamp = [seen.dev(), seen.ino(), seen.size(), seconds, nanos];
    // Nothing that panics is done under it.
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, _, roots)) = known.as_ref().filter(|(of, at, _)| of == path && *at == stamp) {
        return Some(Arc::clone(roots));
    }
    let mut roots = RootCertStore::empty();
    if add(&mut roots, path) == 0 {
        return None;
    }
    let roots = Arc::new(roots);
    *known = Some((path.to_path_buf(), stamp, Arc::clone(&roots)));
    Some(roots)
}

/// Adds the authorities of a file in PEM; says how many were taken.
pub(crate) fn add(roots: &mut RootCertStore, path: &Path) -> usize {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    // One of a kind that nobody knows costs no other.
    found.map_or(0, |found| roots.add_parsable_certificates(found).0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio_rustls::rustls::client::WebPkiServerVerifier;
    use tokio_rustls::rustls::client::danger::ServerCertVerifier;
    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::pki_types::{ServerName, UnixTime};
    use tokio_rustls::rustls::{CertificateError, Error};

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls").join(name)
    }

    #[test]
    fn the_systems_authorities_go_before_those_that_are_built_in() {
        let dir = tempfile::tempdir().unwrap();
        let (none, file) = (dir.path().join("none.pem"), dir.path().join("certs.pem"));
        let count = |roots: Result<Arc<RootCertStore>, String>| roots.unwrap().len();
        let built_in = webpki_roots::TLS_SERVER_ROOTS.len();
        assert!(built_in > 50);
        assert_eq!(count(found(None, &[&none])), built_in, "there is no file");
        std::fs::write(&file, "no certificate\n").unwrap();
        assert_eq!(count(found(None, &[&none, &file])), built_in, "there is none in it");
        std::fs::copy(fixture("ca.pem"), &file).unwrap();
        assert_eq!(count(found(None, &[&none, &file])), 1);
        assert_eq!(count(found(Some(file.clone().into()), &[])), 1);
        let why = found(Some(none.into()), &[&file]).unwrap_err();
        assert!(why.contains("holds no certificate"), "{why}");
    }

    /// A chain that a server of the open internet once showed, whose root is built in: judged as the connections of http workers
    /// do, at a time when it was valid.
    #[test]
    fn the_authorities_that_are_built_in_vouch_for_a_server_of_the_open_internet() {
        let chain: Vec<_> =
            CertificateDer::pem_file_iter(fixture("public-chain.pem")).unwrap().map(Result::unwrap).collect();
        let judge = |roots: Arc<RootCertStore>, name: &'static str, date: &str| {
            let provider = Arc::new(ring::default_provider());
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build().unwrap();
            let at: jiff::Timestamp = date.parse().unwrap();
            let now = UnixTime::since_unix_epoch(Duration::from_secs(at.as_second().cast_unsigned()));
            let name = ServerName::try_from(name).unwrap();
            verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], now).map(drop)
        };
        let (built_in, name, valid) = (found(None, &[]).unwrap(), "www.google.com", "2023-02-01T00:00:00Z");
        assert_eq!(judge(Arc::clone(&built_in), name, valid), Ok(()));
        let wrong = |error| Err(Error::InvalidCertificate(error));
        assert_eq!(
            judge(found(None, &[&fixture("ca.pem")]).unwrap(), name, valid),
            wrong(CertificateError::UnknownIssuer)
        );
        for (name, date) in [("www.example.com", valid), (name, "2023-06-01T00:00:00Z")] {
            let refused = judge(Arc::clone(&built_in), name, date);
            assert!(matches!(refused, Err(Error::InvalidCertificate(_))), "{name} {date}: {refused:?}");
        }
    }

    #[test]
    fn a_file_is_read_once_until_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("certs.pem");
        std::fs::copy(fixture("ca.pem"), &file).unwrap();
        let first = read_once(&file).unwrap();
        let both = [std::fs::read(fixture("ca.pem")).unwrap(), std::fs::read(fixture("next-ca.pem")).unwrap()].concat();
        std::fs::write(&file, both).unwrap();
        let second = read_once(&file).unwrap();
        assert_eq!((first.len(), second.len()), (1, 2));
    }
}
