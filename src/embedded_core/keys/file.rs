//! The format of the key file: JSON with each private key in its PKCS#8 form (RFC 5208 §5), and a
//! digest over the JSON of the keys.
//!
//! Every buffer with a private key is zeroed on drop.

use std::iter;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::error::Unspecified;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::dynamic_key::DynamicKey;
use super::signing_keys::SigningKeys;
use crate::jose::SigningKey;
use crate::jose::json::{self, RawString, RawValue};

/// Capacity for one key: about 1 220 bytes of PKCS#8, in base64, and its `kid`.
const ENTRY: usize = 2048;
/// Capacity for the text around the keys.
const FRAME: usize = 256;
const MEMBERS: [&str; 3] = ["version", "keys", "sha256"];
const CORRUPT: &str = "it is corrupt";

/// The content of a key file.
pub(super) fn encode(keys: &SigningKeys) -> Result<Zeroizing<String>, Unspecified> {
    // Both buffers are allocated at full size: one that grows leaves copies in memory.
    let mut text =
        Zeroizing::new(String::with_capacity(FRAME + ENTRY * (1 + keys.dynamic().len())));
    // Every set has a dynamic key, so the array is always opened.
    let before = [r#"{"static":"#, r#","dynamic":["#].into_iter().chain(iter::repeat(","));
    let dynamic = keys.dynamic().iter().map(DynamicKey::key);
    for (before, key) in before.zip(iter::once(keys.static_key()).chain(dynamic)) {
        // A `kid` needs no escaping: it is letters, digits and hyphens.
        text.extend([before, r#"{"kid":""#, key.kid(), r#"","pkcs8":""#]);
        STANDARD.encode_string(key.to_pkcs8()?.as_slice(), &mut text);
        text.push_str("\"}");
    }
    text.push_str("]}");
    let mut document = Zeroizing::new(String::with_capacity(FRAME + text.len()));
    let digest = sha256(text.as_bytes());
    document.extend([r#"{"version":1,"keys":"#, &text, r#","sha256":""#, &digest, "\"}\n"]);
    Ok(document)
}

/// The keys in a key file, or what is wrong with it. The reason never quotes the content.
pub(super) fn decode(content: &[u8]) -> Result<SigningKeys, &'static str> {
    let (keys, digest) = read(content)?;
    // The digest detects damage, such as a flipped bit in a `kid`, which would invalidate tokens
    // silently. It does not stop an attacker, who could write the digest too.
    if !digest.is(&sha256(keys.as_bytes())) {
        return Err("it is corrupt: its digest does not match");
    }
    let keys: Keys<'_> = serde_json::from_slice(keys.as_bytes()).map_err(|_| CORRUPT)?;
    let static_key = keys.static_key.read().ok_or("its static key is unusable")?;
    let dynamic =
        keys.dynamic.iter().map(|entry| DynamicKey::from_key(entry.read()?)).collect::<Option<_>>();
    let dynamic = dynamic.ok_or("a dynamic key in it is unusable")?;
    SigningKeys::from_stored(static_key, dynamic)
        .ok_or("it has no dynamic key, or two with the same kid")
}

/// The members `keys` and `sha256` of a key file of version 1. `keys` is not parsed, because the
/// digest covers its text.
///
/// Unknown members are ignored: a file of a later version may have them and is not corrupt.
fn read(content: &[u8]) -> Result<(RawValue<'_>, RawString<'_>), &'static str> {
    if !json::is_valid(content) {
        return Err(CORRUPT);
    }
    let mut members = [None; MEMBERS.len()];
    json::members(content, |name, value| {
        let Some(at) = MEMBERS.iter().position(|member| name.is(member)) else { return Some(()) };
        members[at].replace(value).is_none().then_some(())
    })
    .ok_or(CORRUPT)?;
    let [version, keys, digest] = members;
    // The version is checked first: a file of another version may lack the other members.
    if version.ok_or(CORRUPT)?.as_bytes() != b"1" {
        return Err("its version is not supported");
    }
    let digest = digest.and_then(RawValue::as_string).ok_or(CORRUPT)?;
    Ok((keys.ok_or(CORRUPT)?, digest))
}

fn sha256(text: &[u8]) -> String {
    STANDARD.encode(digest(&SHA256, text))
}

/// Borrows its strings, so that no private key is copied.
#[derive(Deserialize)]
struct Keys<'a> {
    #[serde(borrow, rename = "static")]
    static_key: Entry<'a>,
    #[serde(borrow)]
    dynamic: Vec<Entry<'a>>,
}

#[derive(Deserialize)]
struct Entry<'a> {
    kid: &'a str,
    pkcs8: &'a str,
}

impl Entry<'_> {
    fn read(&self) -> Option<SigningKey> {
        // The `kid` is written into JSON without escaping.
        if !self.kid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return None;
        }
        let pkcs8 = Zeroizing::new(STANDARD.decode(self.pkcs8).ok()?);
        let key = SigningKey::from_pkcs8(&pkcs8).ok()?;
        key.is_rsa_2048().then(|| key.with_kid(self.kid.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::rsa::{KeyPair, KeySize};

    use super::*;
    use crate::jose::Algorithm;

    fn keys() -> SigningKeys {
        SigningKeys::generate(|| 1_700_000_000_000).unwrap()
    }

    fn kids(keys: &SigningKeys) -> Vec<String> {
        let dynamic = keys.dynamic().iter().map(|dynamic| dynamic.key().kid().to_owned());
        std::iter::once(keys.static_key().kid().to_owned()).chain(dynamic).collect()
    }

    #[test]
    fn decoded_keys_sign_as_the_encoded_ones() {
        let keys = keys();
        let content = encode(&keys).unwrap();
        let read = decode(content.as_bytes()).unwrap();
        assert_eq!(kids(&read), kids(&keys));
        // RSASSA-PKCS1-v1_5 is deterministic, so equal keys make equal signatures.
        assert_eq!(read.static_key().sign("{}").unwrap(), keys.static_key().sign("{}").unwrap());
        assert_eq!(read.dynamic()[0].key().public_jwk(), keys.dynamic()[0].key().public_jwk());
    }

    #[test]
    fn buffers_never_grow() {
        let content = encode(&keys()).unwrap();
        assert!(content.len() < FRAME + 2 * ENTRY, "{}", content.len());
        assert!(content.capacity() < FRAME + 3 * ENTRY, "{}", content.capacity());
    }

    #[test]
    fn damage_is_detected_and_never_quoted() {
        let content = encode(&keys()).unwrap();
        let mut damaged: Vec<Vec<u8>> =
            (0..content.len()).step_by(97).map(|at| content.as_bytes()[..at].to_vec()).collect();
        for at in (0..content.len()).step_by(61) {
            let mut changed = content.as_bytes().to_vec();
            changed[at] ^= 1;
            damaged.push(changed);
        }
        damaged.extend([
            b"null".to_vec(),
            b"{}".to_vec(),
            vec![0; 4096],
            [content.as_bytes(), b"x"].concat(),
        ]);
        for content in damaged {
            let reason = decode(&content).expect_err(&String::from_utf8_lossy(&content));
            assert!(reason.starts_with("it"), "{reason}");
        }
    }

    #[test]
    fn unusable_keys_with_a_valid_digest_are_refused() {
        let content = encode(&keys()).unwrap();
        let document: serde_json::Value = serde_json::from_str(&content).unwrap();
        let with = |keys: String| {
            let digest = sha256(keys.as_bytes());
            decode(format!(r#"{{"version":1,"keys":{keys},"sha256":"{digest}"}}"#).as_bytes()).err()
        };
        let whole = document["keys"].to_string();
        assert_eq!(with(whole.clone()), None);
        assert_eq!(with(whole.replace("\"d-1", "\"x-1")), Some("a dynamic key in it is unusable"));
        assert_eq!(with(whole.replace("\"d-1", "\"d-01")), Some("a dynamic key in it is unusable"));
        assert_eq!(with(whole.replace("\"s-", "\"s- ")), Some("its static key is unusable"));
        let fixed = &document["keys"]["static"];
        let stored = fixed["pkcs8"].as_str().unwrap();
        let rsa_3072 = KeyPair::generate(KeySize::Rsa3072).unwrap().as_der().unwrap();
        let ec = SigningKey::generate(Algorithm::ES256).unwrap().to_pkcs8().unwrap();
        for other in [rsa_3072.as_ref(), &ec[..], b"damaged"] {
            let whole = whole.replace(stored, &STANDARD.encode(other));
            assert_eq!(with(whole), Some("its static key is unusable"));
        }
        let no_dynamic = format!(r#"{{"static":{fixed},"dynamic":[]}}"#);
        assert_eq!(with(no_dynamic), Some("it has no dynamic key, or two with the same kid"));
        let newer = content.replacen(r#""version":1"#, r#""version":2"#, 1);
        assert_eq!(decode(newer.as_bytes()).err(), Some("its version is not supported"));
    }

    #[test]
    fn unknown_members_do_not_hide_the_version() {
        let cases = [
            (r#"{"version":2,"x":1,"keys":{},"sha256":""}"#, "its version is not supported"),
            (r#"{"x":[{}],"version":"1.1"}"#, "its version is not supported"),
            (r#"{"version":2,"version":2}"#, "it is corrupt"),
            (r#"{"x":1,"keys":{},"sha256":""}"#, "it is corrupt"),
            (r#"{"version":1,"x":1,"sha256":""}"#, "it is corrupt"),
        ];
        for (content, reason) in cases {
            assert_eq!(decode(content.as_bytes()).err(), Some(reason), "{content}");
        }
        let content = encode(&keys()).unwrap();
        assert!(decode(content.replacen('{', r#"{"x":1,"#, 1).as_bytes()).is_ok());
    }
}
