//! Strict parsing of a compact JWS (RFC 7515 §7.1). This crate does not parse with `jsonwebtoken`,
//! which ignores `crit`.
//!
//! Parsing has three steps. [`JwsHeader::parse`] reads in one pass what names the key: length,
//! parts, and the members of [`Header`]. [`JwsHeader::decode`] decodes the other parts for the
//! signature check. Both allocate only the decoded parts and up to four short header strings, so
//! rejecting a forged token costs little more than the signature check. After the check,
//! [`Jws::claims`] reads header and claims in full, and rejects duplicate members and deep nesting.
//! The header's `jku`, `jwk`, `x5u` and `x5c` are never used.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::algorithm::Algorithm;
use super::json::{self, RawValue};
use super::jwk::Jwk;
use crate::rejection::RejectionReason;

/// The longest encoded header, in bytes: 2 KiB when decoded.
const MAX_HEADER_LEN: usize = (2048_usize * 4).div_ceil(3);

/// The longest `kid`, in bytes.
pub(super) const MAX_KID_LEN: usize = 256;

/// The accepted values of `typ`: RFC 7519 §5.1, RFC 9068 §2.1, and JWT-SVID §2.3.
const TYPES: [&str; 3] = ["jwt", "at+jwt", "jose"];

/// The header of a compact JWS. The other parts are not decoded.
#[derive(Debug)]
pub(crate) struct JwsHeader<'t> {
    algorithm: Algorithm,
    kid: Option<String>,
    /// The first two parts as sent, which the signature covers.
    signing_input: &'t str,
    header: Vec<u8>,
    payload: &'t str,
    signature: &'t str,
}

/// A compact JWS whose signature has not been checked.
#[derive(Debug)]
pub(crate) struct Jws<'t> {
    header: JwsHeader<'t>,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

impl<'t> JwsHeader<'t> {
    /// Parses the header of `token`, which may be at most `max_len` bytes long.
    pub(crate) fn parse(token: &'t str, max_len: usize) -> Result<Self, RejectionReason> {
        if token.len() > max_len {
            return Err(RejectionReason::TokenTooLong);
        }
        let (header, payload, signature) =
            three_parts(token).ok_or(RejectionReason::NotThreeParts)?;
        let signing_input = &token[..header.len() + 1 + payload.len()];

        if header.len() > MAX_HEADER_LEN {
            return Err(RejectionReason::MalformedHeader);
        }
        let header = decode(header)?;
        let (algorithm, kid) =
            Header::scan(&header).ok_or(RejectionReason::MalformedHeader)?.check()?;
        Ok(Self { algorithm, kid, signing_input, header, payload, signature })
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(crate) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Decodes the payload and the signature.
    pub(crate) fn decode(self) -> Result<Jws<'t>, RejectionReason> {
        let (payload, signature) = (decode(self.payload)?, decode(self.signature)?);
        Ok(Jws { header: self, payload, signature })
    }
}

impl<'t> Jws<'t> {
    /// Parses `token`, which may be at most `max_len` bytes long.
    pub(crate) fn parse(token: &'t str, max_len: usize) -> Result<Self, RejectionReason> {
        JwsHeader::parse(token, max_len)?.decode()
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        self.header.algorithm
    }

    pub(crate) fn kid(&self) -> Option<&str> {
        self.header.kid()
    }

    pub(crate) fn payload(&self) -> &[u8] {
        &self.payload
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn signing_input(&self) -> &str {
        self.header.signing_input
    }

    /// Checks the signature (RFC 7515 §5.2). `false` if the algorithm does not fit the key.
    pub(crate) fn is_signed_by(&self, jwk: &Jwk) -> bool {
        let Self { header, signature, .. } = self;
        jwk.verify(header.algorithm, header.signing_input.as_bytes(), signature)
    }

    /// The payload as a claims set (RFC 7519 §4): an object without duplicate members. Also
    /// validates the whole header the same way.
    ///
    /// Costs up to forty times as much as the signature check, so call it after the check. An empty
    /// payload is rejected here and not by [`parse`](Self::parse), because RFC 7515 §3 allows a JWS
    /// to have one.
    pub(crate) fn claims(&self) -> Result<Map<String, Value>, RejectionReason> {
        if self.payload.is_empty() {
            return Err(RejectionReason::NotThreeParts);
        }
        json::object(&self.header.header).ok_or(RejectionReason::MalformedHeader)?;
        json::object(&self.payload).ok_or(RejectionReason::MalformedClaims)
    }
}

/// The claims of a token that another service verifies. Checks its form alone: three parts of
/// canonical base64url, of which the first two are JSON objects. The algorithm, the type and every
/// other member of the header are for the reader of the token to check.
pub(crate) fn claims_to_carry(
    token: &str,
    max_len: usize,
) -> Result<Map<String, Value>, RejectionReason> {
    if token.len() > max_len {
        return Err(RejectionReason::TokenTooLong);
    }
    let (header, payload, signature) = three_parts(token).ok_or(RejectionReason::NotThreeParts)?;
    let (header, payload) = (decode(header)?, decode(payload)?);
    decode(signature)?;
    json::object(&header).ok_or(RejectionReason::MalformedHeader)?;
    json::object(&payload).ok_or(RejectionReason::MalformedClaims)
}

/// Splits a token into exactly three parts, of which header and signature are not empty. A JWE has
/// five parts and is rejected here.
fn three_parts(token: &str) -> Option<(&str, &str, &str)> {
    let mut parts = token.split('.');
    let (header, payload, signature) = (parts.next()?, parts.next()?, parts.next()?);
    let whole = parts.next().is_none() && !header.is_empty() && !signature.is_empty();
    whole.then_some((header, payload, signature))
}

/// Decodes canonical unpadded base64url: the engine rejects padding, the standard alphabet and
/// non-zero trailing bits.
fn decode(part: &str) -> Result<Vec<u8>, RejectionReason> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| RejectionReason::NotBase64Url)
}

/// The header members (RFC 7515 §4.1) that are checked, as raw text.
#[derive(Default)]
struct Header<'h> {
    alg: Option<RawValue<'h>>,
    kid: Option<RawValue<'h>>,
    typ: Option<RawValue<'h>>,
    cty: Option<RawValue<'h>>,
    /// The header has `crit` or `b64`.
    is_critical: bool,
    /// The header has `enc` or `zip`.
    is_encrypted: bool,
}

impl<'h> Header<'h> {
    /// `None` if the bytes are not one object, or if `alg`, `kid`, `typ` or `cty` occurs twice.
    fn scan(bytes: &'h [u8]) -> Option<Self> {
        let mut header = Self::default();
        json::members(bytes, |name, value| {
            let member = match name.unescape_into(&mut [0; 5]) {
                b"alg" => &mut header.alg,
                b"kid" => &mut header.kid,
                b"typ" => &mut header.typ,
                b"cty" => &mut header.cty,
                b"crit" | b"b64" => {
                    header.is_critical = true;
                    return Some(());
                }
                b"enc" | b"zip" => {
                    header.is_encrypted = true;
                    return Some(());
                }
                _ => return Some(()),
            };
            member.replace(value).is_none().then_some(())
        })?;
        Some(header)
    }

    fn check(self) -> Result<(Algorithm, Option<String>), RejectionReason> {
        // RFC 7515 §4.1.11: a token with an unsupported critical member must be rejected, and this
        // crate supports none.
        if self.is_critical {
            return Err(RejectionReason::CriticalHeader);
        }
        if self.is_encrypted {
            return Err(RejectionReason::EncryptedToken);
        }
        match self.cty.map(text) {
            None => {}
            Some(Some(cty)) if !is_media_type(&cty, "jwt") => {}
            Some(_) => return Err(RejectionReason::NestedToken),
        }
        // RFC 8725 §3.11: the type excludes tokens for other uses, such as DPoP proofs and security
        // events.
        match self.typ.map(text) {
            None => {}
            Some(Some(typ)) if TYPES.iter().any(|accepted| is_media_type(&typ, accepted)) => {}
            Some(_) => return Err(RejectionReason::UnsupportedTokenType),
        }

        let algorithm = self.alg.and_then(text).and_then(|alg| Algorithm::from_name(&alg));
        let algorithm = algorithm.ok_or(RejectionReason::UnsupportedAlgorithm)?;
        let kid = match self.kid.map(text) {
            None => None,
            Some(Some(kid)) if (1..=MAX_KID_LEN).contains(&kid.len()) => Some(kid),
            Some(_) => return Err(RejectionReason::MalformedKid),
        };
        Ok((algorithm, kid))
    }
}

fn text(value: RawValue<'_>) -> Option<String> {
    value.as_string()?.unescape()
}

/// Compares media types case-insensitively, with `application/` optional (RFC 7515 §4.1.9).
fn is_media_type(value: &str, subtype: &str) -> bool {
    const PREFIX: &str = "application/";
    let bare = match value.split_at_checked(PREFIX.len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(PREFIX) => rest,
        _ => value,
    };
    bare.eq_ignore_ascii_case(subtype)
}

#[cfg(test)]
mod tests {
    use super::*;
    use RejectionReason as R;

    fn token(header: &str, payload: &str) -> String {
        format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload))
    }

    fn rejection(token: &str) -> Option<R> {
        Jws::parse(token, 8192).and_then(|jws| jws.claims()).err()
    }

    #[test]
    fn headers_are_checked_strictly() {
        let kid = |len: usize| format!(r#"{{"alg":"RS256","kid":"{}"}}"#, "k".repeat(len));
        let cases = [
            (r#"{"alg":"RS256"}"#, None),
            (r#"{"alg":"RS256","kid":"s-1","typ":"JWT"}"#, None),
            (r#"{"alg":"RS256","typ":"jwt"}"#, None),
            (r#"{"alg":"RS256","typ":"Application/AT+jwt"}"#, None),
            (r#"{"alg":"RS256","typ":"JOSE"}"#, None),
            (r#"{"alg":"RS256","typ":"application/jose"}"#, None),
            (
                r#"{"alg":"Ed25519","version":"5","jku":"http://x","jwk":{},"x5u":"y","x5c":[]}"#,
                None,
            ),
            (r#"{"alg":"RS256","cty":"json"}"#, None),
            (&kid(256), None),
            (&kid(257), Some(R::MalformedKid)),
            (&kid(0), Some(R::MalformedKid)),
            (r#"{"alg":"RS256","kid":7}"#, Some(R::MalformedKid)),
            (r#"{"alg":"RS256","kid":null}"#, Some(R::MalformedKid)),
            (r#"{"alg":"none"}"#, Some(R::UnsupportedAlgorithm)),
            (r#"{"alg":"nOnE"}"#, Some(R::UnsupportedAlgorithm)),
            (r#"{"alg":"HS256"}"#, Some(R::UnsupportedAlgorithm)),
            (r#"{"alg":["RS256"]}"#, Some(R::UnsupportedAlgorithm)),
            (r#"{"typ":"JWT"}"#, Some(R::UnsupportedAlgorithm)),
            (r#"{"alg":"RS256","crit":["exp"]}"#, Some(R::CriticalHeader)),
            (r#"{"alg":"RS256","crit":[]}"#, Some(R::CriticalHeader)),
            (r#"{"alg":"RS256","crit":null}"#, Some(R::CriticalHeader)),
            (r#"{"alg":"RS256","b64":true}"#, Some(R::CriticalHeader)),
            (r#"{"alg":"RS256","b64":false}"#, Some(R::CriticalHeader)),
            (r#"{"alg":"RS256","enc":"A128GCM"}"#, Some(R::EncryptedToken)),
            (r#"{"alg":"RS256","zip":"DEF"}"#, Some(R::EncryptedToken)),
            (r#"{"alg":"RS256","cty":"JWT"}"#, Some(R::NestedToken)),
            (r#"{"alg":"RS256","cty":"application/jwt"}"#, Some(R::NestedToken)),
            (r#"{"alg":"RS256","cty":1}"#, Some(R::NestedToken)),
            (r#"{"alg":"RS256","typ":"dpop+jwt"}"#, Some(R::UnsupportedTokenType)),
            (r#"{"alg":"RS256","typ":"secevent+jwt"}"#, Some(R::UnsupportedTokenType)),
            (r#"{"alg":"RS256","typ":"JOSE+JSON"}"#, Some(R::UnsupportedTokenType)),
            (r#"{"alg":"RS256","typ":"application-jwt"}"#, Some(R::UnsupportedTokenType)),
            (r#"{"alg":"RS256","typ":null}"#, Some(R::UnsupportedTokenType)),
            (r#"{"alg":"RS256","alg":"RS256"}"#, Some(R::MalformedHeader)),
            (r#"{"alg":"RS256","\u0061lg":"RS256"}"#, Some(R::MalformedHeader)),
            (r#"{"alg":"RS256","\u0063rit":[]}"#, Some(R::CriticalHeader)),
            (r#"{"alg":"RS256","kid":"k","kid":"k"}"#, Some(R::MalformedHeader)),
            (r#"{"alg":"RS256","typ":"JWT","t\u0079p":"JWT"}"#, Some(R::MalformedHeader)),
            (r#"{"alg":"RS256","cty":"a","cty":"a"}"#, Some(R::MalformedHeader)),
            (r#"{"alg":"RS256","x":1,"x":1}"#, Some(R::MalformedHeader)),
            (r#"{"alg":"RS256","x":{"y":1,"y":1}}"#, Some(R::MalformedHeader)),
            (r#"{"alg":"RS256","x":1e999}"#, Some(R::MalformedHeader)),
            (r#"["alg"]"#, Some(R::MalformedHeader)),
            (r#"{"alg":"RS256"} x"#, Some(R::MalformedHeader)),
        ];
        for (header, expected) in cases {
            assert_eq!(rejection(&token(header, "{}")), expected, "{header}");
        }
    }

    #[test]
    fn header_of_more_than_2_kib_is_rejected() {
        let padded = |len: usize| format!(r#"{{"alg":"RS256","x":"{}"}}"#, "x".repeat(len - 22));
        assert_eq!(padded(2048).len(), 2048);
        assert_eq!(rejection(&token(&padded(2048), "{}")), None);
        assert_eq!(rejection(&token(&padded(2049), "{}")), Some(R::MalformedHeader));
    }

    #[test]
    fn noncanonical_form_or_encoding_is_rejected() {
        let good = token(r#"{"alg":"RS256"}"#, r#"{"a":1}"#);
        let (header, rest) = good.split_once('.').unwrap();
        let (payload, _) = rest.split_once('.').unwrap();
        let cases = [
            (format!("{header}.{payload}.c2ln"), None),
            (format!("{header}.{payload}"), Some(R::NotThreeParts)),
            (format!("{header}.{payload}."), Some(R::NotThreeParts)),
            (format!(".{payload}.c2ln"), Some(R::NotThreeParts)),
            (format!("{header}..c2ln"), Some(R::NotThreeParts)),
            (format!("{header}.{payload}.c2ln.x"), Some(R::NotThreeParts)),
            (format!("{header}.a.b.c.d"), Some(R::NotThreeParts)),
            (".".repeat(8192), Some(R::NotThreeParts)),
            (format!("{header}.{payload}.c2lnZ"), Some(R::NotBase64Url)),
            (format!("{header}.{payload}.c2k="), Some(R::NotBase64Url)),
            (format!("{header}.{payload}.c2l"), Some(R::NotBase64Url)), // non-zero trailing bits
            (format!("{header}.{payload}.c+/n"), Some(R::NotBase64Url)),
            (format!("{header}.{payload}=.c2ln"), Some(R::NotBase64Url)),
            (format!("{header}=.{payload}.c2ln"), Some(R::NotBase64Url)),
            (format!("{header}.{payload}.c2 n"), Some(R::NotBase64Url)),
            ("x".repeat(8193), Some(R::TokenTooLong)),
            (String::new(), Some(R::NotThreeParts)),
        ];
        for (token, expected) in cases {
            assert_eq!(rejection(&token), expected, "{}", &token[..token.len().min(80)]);
        }
    }

    #[test]
    fn empty_payload_is_parsed_but_is_no_claims_set() {
        let token = format!("{}..c2ln", URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256"}"#));
        let jws = Jws::parse(&token, 8192).unwrap();
        assert_eq!((jws.payload.len(), jws.claims().err()), (0, Some(R::NotThreeParts)));
    }

    #[test]
    fn claims_must_be_one_strict_object() {
        for payload in
            ["[]", "\"x\"", "1", "", "{} {}", r#"{"exp":1,"exp":2}"#, r#"{"\u0065xp":1,"exp":2}"#]
        {
            let expected = if payload.is_empty() { R::NotThreeParts } else { R::MalformedClaims };
            assert_eq!(
                rejection(&token(r#"{"alg":"RS256"}"#, payload)),
                Some(expected),
                "{payload}"
            );
        }
    }

    #[test]
    fn signature_covers_the_text_as_sent() {
        let token = token(r#"{"alg":"ES256","kid":"k"}"#, "{}");
        let jws = Jws::parse(&token, 8192).unwrap();
        assert_eq!(jws.signing_input(), token.rsplit_once('.').unwrap().0);
        assert_eq!((jws.algorithm(), jws.kid()), (Algorithm::ES256, Some("k")));
        assert_eq!((jws.payload.as_slice(), jws.signature.as_slice()), (&b"{}"[..], &b"sig"[..]));
    }
}
