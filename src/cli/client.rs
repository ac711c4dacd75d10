//! Speaking to a running biotope: one connection a request, by https where it speaks that.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderValue, Method, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::credentials;
use crate::config::Config;
use crate::config::target::own_addresses;
use crate::exit::{CONFIG, DATA, Failure, NEEDS_RESTART, PERMISSION, SYSTEM, TEMPORARY, UNAVAILABLE, USAGE};
use crate::worker::native::Natives;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take, where nothing is waited for on purpose.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Where a biotope is served.
#[derive(Debug)]
pub(super) struct Url {
    /// Host and port.
    authority: String,
    /// For https.
    tls: Option<credentials::Tls>,
    /// What is shown there.
    token: Option<HeaderValue>,
    /// Why no token of the config is.
    unread: Option<String>,
}

impl Url {
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        let uri: Option<axum::http::Uri> = text.parse().ok();
        let bad = || Failure::new(USAGE, format!("--url {text:?}: write it like http://127.0.0.1:7420"));
        let scheme = |uri: &axum::http::Uri| matches!(uri.scheme_str(), Some("http" | "https"));
        let uri = uri.filter(|uri| scheme(uri) && uri.path().len() <= 1).ok_or_else(bad)?;
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(bad)?;
        let is_https = uri.scheme_str() == Some("https");
        let port = authority.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let tls = is_https.then(|| credentials::tls(authority.host(), None)).transpose()?;
        let authority = format!("{}:{port}", authority.host());
        Ok(Self { authority, tls, token: credentials::of_environment()?, unread: None })
    }

    /// Where the config says. Only what it says of HTTP counts here: a biotope that runs has its workers already, and is
    /// looked at most when its file is being mended.
    pub(super) fn of_config(path: &Path, natives: &Natives) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::new(CONFIG, format!("cannot read the config {}: {error}", path.display())))?;
        let draft = crate::config::draft(&path.display().to_string(), &text, &natives.names())
            .map_err(|problems| Failure::new(CONFIG, problems.to_string()))?;
        if draft.is_wrong_at("http") {
            return Err(Failure::new(CONFIG, draft.places.problems(draft.problems).to_string()));
        }
        let Config { mut listen, access, .. } = draft.config;
        if listen.ip().is_unspecified() {
            listen.set_ip(if listen.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
        }
        let folder = crate::generation::folder_of(path)
            .map_err(|error| Failure::new(CONFIG, format!("cannot find the folder of {}: {error}", path.display())))?;
        let name = access.names.first().cloned().unwrap_or_else(|| listen.ip().to_string());
        let tls = access.tls.as_ref().map(|tls| {
            let ca = tls.ca.as_ref().map(|ca| folder.join(ca));
            credentials::tls(&name, ca.as_deref())
        });
        let (token, unread) = credentials::of_config(&access, &folder)?;
        Ok(Self { authority: listen.to_string(), tls: tls.transpose()?, token, unread })
    }
}

/// No TLS came about: why, and what to do.
fn no_tls(authority: &str, error: &std::io::Error) -> Failure {
    use tokio_rustls::rustls::{CertificateError, Error};
    let told = error.to_string();
    let remedy = match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidMessage(_)) => "it speaks no TLS, or not yet: `kill -HUP` has it take the config over",
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "name who signed it in `http.tls.ca`, or in a file that BIOTOPE_CA names"
        }
        Some(Error::InvalidCertificate(CertificateError::Other(_))) if told.contains("CaUsedAsEndEntity") => {
            "its certificate is that of an authority: make one with basicConstraints CA:FALSE"
        }
        _ => "are certificate and name those that the config has?",
    };
    Failure::new(UNAVAILABLE, format!("no biotope answers at https://{authority} by TLS: {told}; {remedy}"))
}

/// A body that is sent.
pub(super) type Body = BoxBody<Bytes, std::io::Error>;

/// A whole body.
pub(super) fn whole(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed()
}

/// An answer that is still being read.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Incoming,
}

/// Makes requests.
pub(super) struct Client {
    runtime: tokio::runtime::Runtime,
    url: Url,
}

impl Client {
    pub(super) fn new(url: Url) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::new(SYSTEM, format!("no runtime for the request: {error}")))?;
        Ok(Self { runtime, url })
    }

    pub(super) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Sends a request; returns when the answer's head is there.
    pub(super) async fn send(&self, method: Method, path: &str, kind: &str, body: Body) -> Result<Answer, Failure> {
        let authority = &self.url.authority;
        let gone = |why: String| {
            let scheme = if self.url.tls.is_some() { "https" } else { "http" };
            Failure::new(UNAVAILABLE, format!("no biotope answers at {scheme}://{authority}: {why}; is it running?"))
        };
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, connect(authority));
        let stream = match connecting.await {
            Ok(stream) => stream.map_err(|error| gone(error.to_string()))?,
            Err(_) => return Err(gone("no connection within 5 s".to_owned())),
        };
        let speaking = match &self.url.tls {
            None => speak(stream).await,
            Some((config, name)) => {
                let secured = TlsConnector::from(Arc::clone(config)).connect(name.clone(), stream);
                let secured = tokio::time::timeout(CONNECT_TIMEOUT, secured).await;
                let secured = secured.map_err(|_| gone("no TLS within 5 s".to_owned()))?;
                speak(secured.map_err(|error| no_tls(authority, &error))?).await
            }
        };
        let mut sender = speaking.map_err(|error| gone(error.to_string()))?;
        let mut request = Request::builder();
        if let Some(token) = &self.url.token {
            request = request.header(header::AUTHORIZATION, token);
        }
        let request = request
            .method(method)
            .uri(path)
            .header(header::HOST, authority)
            .header(header::CONTENT_TYPE, kind)
            .body(body)
            .map_err(|error| Failure::new(USAGE, format!("that cannot be asked: {error}")))?;
        let response = sender.send_request(request).await.map_err(|error| gone(error.to_string()))?;
        Ok(Answer { status: response.status(), body: response.into_body() })
    }

    /// Sends a request and waits for the whole answer, which must be a success.
    pub(super) fn ask(&self, method: Method, path: &str, body: Body) -> Result<(StatusCode, Bytes), Failure> {
        self.ask_within(ANSWER_TIMEOUT, method, path, body)
    }

    pub(super) fn ask_within(
        &self,
        within: Duration,
        method: Method,
        path: &str,
        body: Body,
    ) -> Result<(StatusCode, Bytes), Failure> {
        self.block_on(self.answer_within(within, method, path, body))
    }

    /// As [`Client::ask`], for who does something else meanwhile.
    pub(super) async fn answer_within(
        &self,
        within: Duration,
        method: Method,
        path: &str,
        body: Body,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let asking = async {
            let answer = self.send(method, path, "application/json", body).await?;
            let text = answer
                .body
                .collect()
                .await
                .map_err(|error| Failure::new(UNAVAILABLE, format!("the answer broke off: {error}")))?;
            Ok((answer.status, text.to_bytes()))
        };
        let (status, text) = tokio::time::timeout(within, asking)
            .await
            .map_err(|_| Failure::new(TEMPORARY, format!("no answer within {} s", within.as_secs())))??;
        if status.is_success() { Ok((status, text)) } else { Err(self.refused(status, &text)) }
    }

    /// A problem as a failure: its own words, and why nothing was shown where a token is asked for.
    pub(super) fn refused(&self, status: StatusCode, text: &[u8]) -> Failure {
        #[derive(serde::Deserialize)]
        struct Problem {
            detail: String,
            code: String,
        }
        let problem: Option<Problem> = serde_json::from_slice(text).ok();
        let code = match problem.as_ref().map(|problem| problem.code.as_str()) {
            Some("invalid_config") => CONFIG,
            Some("needs_restart") => NEEDS_RESTART,
            Some("busy" | "disk_full" | "reload_timeout") => TEMPORARY,
            Some("stopping" | "poisoned") => UNAVAILABLE,
            Some("unauthenticated" | "wrong_token" | "forbidden" | "too_many_attempts") => PERMISSION,
            _ => DATA,
        };
        let mut message = problem.map_or_else(|| format!("the answer was {status}"), |problem| problem.detail);
        if let (StatusCode::UNAUTHORIZED, Some(unread)) = (status, &self.url.unread) {
            message = format!("{message}; {unread}");
        }
        Failure::new(code, message)
    }
}

/// Connects to a host and port. `localhost` needs no file that says where that is.
async fn connect(authority: &str) -> std::io::Result<TcpStream> {
    let own = authority.rsplit_once(':').and_then(|(host, port)| Some((own_addresses(host)?, port.parse().ok()?)));
    match own {
        Some((own, port)) => TcpStream::connect(own.map(|address| SocketAddr::new(address, port)).as_slice()).await,
        None => TcpStream::connect(authority).await,
    }
}

/// Speaks HTTP over a connection.
async fn speak<S>(stream: S) -> hyper::Result<SendRequest<Body>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

/// A path's segment or a query's value, escaped.
pub(super) fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_and_a_wrong_one_refused() {
        assert_eq!(Url::parse("http://127.0.0.1:7421").unwrap().authority, "127.0.0.1:7421");
        assert_eq!(Url::parse("http://[::1]:7421/").unwrap().authority, "[::1]:7421");
        assert_eq!(Url::parse("http://localhost").unwrap().authority, "localhost:80");
        let secured = Url::parse("https://jobs.example.com").unwrap();
        assert_eq!((secured.authority.as_str(), secured.tls.is_some()), ("jobs.example.com:443", true));
        for bad in ["", "127.0.0.1:7420", "http://me@127.0.0.1", "http://a/b", "ftp://x"] {
            assert_eq!(Url::parse(bad).unwrap_err().code, USAGE, "{bad}");
        }
    }

    #[test]
    fn why_there_is_no_tls_is_told_with_what_to_do() {
        use tokio_rustls::rustls::{CertificateError, Error, InvalidMessage, OtherError};
        let told = |error| no_tls("h:1", &std::io::Error::new(std::io::ErrorKind::InvalidData, error)).message;
        // As webpki says of a certificate that was made without a word on what it is for.
        let authority = OtherError(Arc::new(std::io::Error::other("CaUsedAsEndEntity")));
        for (error, remedy) in [
            (Error::InvalidMessage(InvalidMessage::InvalidContentType), "kill -HUP"),
            (Error::InvalidCertificate(CertificateError::UnknownIssuer), "http.tls.ca"),
            (Error::InvalidCertificate(CertificateError::Other(authority)), "CA:FALSE"),
            (Error::InvalidCertificate(CertificateError::Expired), "certificate and name"),
        ] {
            let told = told(error);
            assert!(told.starts_with("no biotope answers at https://h:1 by TLS: ") && told.contains(remedy), "{told}");
        }
    }

    #[test]
    fn what_is_not_plain_is_escaped() {
        assert_eq!(escape("order:1+2 ä"), "order%3A1%2B2%20%C3%A4");
    }
}
