//! Signatures by the Standard Webhooks scheme: `v1,` and the base64 of an HMAC-SHA256 over id, time and body.
//!
//! Pure. A secret is never shown.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// What a secret's text begins with.
const PREFIX: &str = "whsec_";
/// Bytes of a secret, by the scheme.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A secret, made ready to sign.
#[derive(Clone)]
pub(super) struct Secret(Hmac<Sha256>);

impl Secret {
    /// Reads `whsec_…`.
    ///
    /// # Errors
    /// What is wrong with it; says nothing of its value.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or_else(|| format!("does not begin with {PREFIX}"))?;
        let key = STANDARD.decode(encoded).map_err(|_| format!("is no base64 after {PREFIX}"))?;
        if !SECRET_BYTES.contains(&key.len()) {
            let (least, most) = (SECRET_BYTES.start(), SECRET_BYTES.end());
            return Err(format!("is {} bytes long, not {least} to {most}", key.len()));
        }
        Self::new(&key).ok_or_else(|| "cannot be used".to_owned())
    }

    fn new(key: &[u8]) -> Option<Self> {
        Hmac::new_from_slice(key).ok().map(Self)
    }

    fn sign(&self, parts: [&[u8]; 3]) -> String {
        let [id, time, body] = parts;
        let mut mac = self.0.clone();
        for part in [id, b".", time, b".", body] {
            mac.update(part);
        }
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

/// What stands in `webhook-signature`: a signature by each secret, with spaces between.
pub(super) fn signatures(secrets: &[Secret], id: &str, time: &[u8], body: &[u8]) -> String {
    let signed = secrets.iter().map(|secret| secret.sign([id.as_bytes(), time, body]));
    signed.collect::<Vec<_>>().join(" ")
}

/// Stands for a value in a hash: by a key that is the value itself, so that it tells nothing that the value's owner does
/// not know.
pub(super) fn stand_in(value: &[u8]) -> Vec<u8> {
    let Some(Secret(mut mac)) = Secret::new(value) else { return Vec::new() };
    mac.update(b"biotope http 1");
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signature_is_that_of_the_schemes_own_example() {
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signed = signatures(&[secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", b"1614265330", b"{\"test\": 2432232314}");
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_bad_secret_is_told_without_its_value() {
        for (text, told) in [
            ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "begin with whsec_"),
            ("whsec_????", "base64"),
            ("whsec_c2hvcnQ=", "5 bytes"),
            ("", "begin"),
        ] {
            let error = Secret::parse(text).err().unwrap();
            assert!(error.contains(told) && (text.is_empty() || !error.contains(text)), "{error}");
        }
    }
}
