//! A service that speaks TLS, with a certificate for `hook.test` by an authority of the tests' own.

use std::io::Write;

use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls").join(name)
}

fn service() -> Service {
    let certificate = CertificateDer::from_pem_file(fixture("cert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(fixture("key.pem")).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap());
    Service::by(move |stream| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = StreamOwned::new(connection, stream.try_clone().unwrap());
        while service::Request::read(&mut stream).is_some() {
            drop(stream.write_all(OK.as_bytes()).and_then(|()| stream.flush()));
        }
    })
}

fn call(service: &Service, host: &str, more: &str) -> Outcome {
    let lines = format!("http = \"https://{host}:{}/\"\nallow_private = true\n{more}", service.port);
    let (hook, _) = told(&lines, Ok(vec!["127.0.0.1"]));
    run(hook, assignment(1), PATIENT)
}

#[test]
fn a_certificate_is_taken_that_is_of_the_host_and_of_an_authority_that_is_trusted() {
    let service = service();
    assert_eq!(done(call(&service, "hook.test", "ca = \"ca.pem\"")), "");
    let error = failure(call(&service, "hook.test", ""));
    assert!(error.contains("TLS") && error.contains("UnknownIssuer"), "{error}");
    let error = failure(call(&service, "other.test", "ca = \"ca.pem\""));
    assert!(error.contains("TLS") && error.contains("not valid for name"), "{error}");
}
