//! What a service is sent, and that its signature holds: by an HMAC of the tests' own.

use sha2::{Digest, Sha256};

use super::*;
use crate::worker::http::head;

/// HMAC-SHA256 as RFC 2104 says, for keys of at most a block.
fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let padded = |pad: u8| -> Vec<u8> { (0..64).map(|at| key.get(at).unwrap_or(&0) ^ pad).collect() };
    let inner = Sha256::digest([padded(0x36).as_slice(), message].concat());
    Sha256::digest([padded(0x5c).as_slice(), inner.as_slice()].concat()).to_vec()
}

/// Base64 as RFC 4648 says.
fn base64(bytes: &[u8]) -> String {
    let letters: Vec<char> = ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['+', '/']).collect();
    let mut out = String::new();
    for three in bytes.chunks(3) {
        let number = (0..3).fold(0_usize, |number, at| (number << 8) | usize::from(*three.get(at).unwrap_or(&0)));
        for at in 0..4 {
            out.push(if at <= three.len() { letters[(number >> (18 - 6 * at)) & 63] } else { '=' });
        }
    }
    out
}

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[test]
fn a_job_is_sent_as_a_cloud_event_with_a_signature_by_every_secret() {
    let service = Service::answering(OK);
    let hook = hook(&format!(
        "http = \"http://127.0.0.1:{}/in?x=1\"\nallow_private = true\n\
         secret = [{{ from = \"NEW\" }}, {{ from = \"OLD\" }}]\nheaders = {{ Authorization = {{ from = \"TOKEN\" }} }}",
        service.port
    ));
    let job = Assignment {
        task: "Größe 1".to_owned(),
        tenant: Some("acme".to_owned()),
        traceparent: Some(TRACE.parse().unwrap()),
        payload: "{\"text\":\"ä\"}".as_bytes().to_vec().into(),
        ..assignment(7)
    };
    let before = RealClock.wall_ms() / 1000;
    assert_eq!(done(run(hook, job, PATIENT)), "");
    let requests = service.requests();
    let [request] = requests.as_slice() else { panic!("{requests:?}") };
    assert_eq!(request.line, "POST /in?x=1 HTTP/1.1");
    assert_eq!(request.body, "{\"text\":\"ä\"}".as_bytes());
    for (name, value) in [
        ("host", format!("127.0.0.1:{}", service.port).as_str()),
        ("content-type", "application/json"),
        ("content-length", "13"),
        ("authorization", "Bearer t0ken"),
        ("ce-specversion", "1.0"),
        ("ce-id", "job-7"),
        ("ce-source", "/biotope/zoo"),
        ("ce-type", "zoo"),
        ("ce-time", "2023-11-14T22:13:20Z"),
        ("ce-workerversion", "v1"),
        ("ce-task", "Gr%C3%B6%C3%9Fe%201"),
        ("ce-tenant", "acme"),
        ("ce-attempt", "1"),
        ("ce-maxattempts", "2"),
        ("ce-fence", "1099511627783"),
        ("ce-deadline", "2030-03-17T17:46:40Z"),
        ("webhook-id", "job-7"),
        ("traceparent", TRACE),
    ] {
        assert_eq!(request.header(name), Some(value), "{name} in {request:?}");
    }
    let time = request.header("webhook-timestamp").unwrap();
    let now = RealClock.wall_ms() / 1000;
    assert!((before..=now).contains(&time.parse().unwrap()), "{time}");
    let signed = [format!("job-7.{time}.").as_bytes(), &request.body].concat();
    let new: Vec<u8> = vec![
        0x31, 0xf2, 0x90, 0xf6, 0xbf, 0x06, 0x29, 0x8a, 0xab, 0x4f, 0x08, 0xd4, 0x3c, 0x3f, 0x08, 0x2c, 0xf6, 0x48,
        0xa3, 0x62, 0xda, 0x2d, 0xa4, 0xb0,
    ];
    let old: Vec<u8> = (0..32).collect();
    let expected = format!("v1,{} v1,{}", base64(&hmac(&new, &signed)), base64(&hmac(&old, &signed)));
    assert_eq!(request.header("webhook-signature"), Some(expected.as_str()));
}

#[test]
fn what_says_nothing_is_left_out() {
    let hook = hook("http = \"https://example.com\"");
    let job = Assignment { task: String::new(), tenant: None, ..assignment(1) };
    let request = head::Writer::default().request(&hook, &job, 1_700_000_000_999).unwrap();
    for name in ["ce-task", "ce-tenant", "traceparent", "webhook-signature", "authorization"] {
        assert!(!request.headers().contains_key(name), "{name}");
    }
    assert_eq!(request.headers()["webhook-timestamp"], "1700000000");
    assert_eq!(request.uri(), "/");
}
