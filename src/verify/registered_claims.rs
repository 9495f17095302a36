//! The claims of a token that are checked before anything is deserialized.

use crate::jose::json::{self, RawValue};

/// The raw values of the claims (RFC 7519 §4.1, RFC 7800 §3.1) that are checked before anything is
/// deserialized.
#[derive(Default)]
pub(super) struct RegisteredClaims<'j> {
    pub(super) exp: Option<RawValue<'j>>,
    pub(super) nbf: Option<RawValue<'j>>,
    pub(super) iat: Option<RawValue<'j>>,
    pub(super) iss: Option<RawValue<'j>>,
    pub(super) aud: Option<RawValue<'j>>,
    pub(super) sub: Option<RawValue<'j>>,
    pub(super) cnf: Option<RawValue<'j>>,
}

impl<'j> RegisteredClaims<'j> {
    /// Scans a payload. `None` if it is not a single JSON object, or if one of these claims occurs
    /// twice. The rest of the JSON is not validated; see [`json::members`].
    pub(super) fn scan(payload: &'j [u8]) -> Option<Self> {
        let mut claims = Self::default();
        json::members(payload, |name, value| {
            let claim = match name.unescape_into(&mut [0; 5]) {
                b"exp" => &mut claims.exp,
                b"nbf" => &mut claims.nbf,
                b"iat" => &mut claims.iat,
                b"iss" => &mut claims.iss,
                b"aud" => &mut claims.aud,
                b"sub" => &mut claims.sub,
                b"cnf" => &mut claims.cnf,
                _ => return Some(()),
            };
            claim.replace(value).is_none().then_some(())
        })?;
        Some(claims)
    }
}

/// The raw `iss` of a payload, or `Some(None)` if it has none. `None` if the payload is not a
/// single JSON object, or if `iss` occurs twice.
///
/// Unlike [`RegisteredClaims::scan`] it ignores the other claims, so that a token which has one of
/// them twice is rejected by the verifier of its issuer, like any other token of that issuer.
#[allow(clippy::option_option)] // as `RegisteredClaims` has it: malformed, missing, or a value
pub(super) fn issuer(payload: &[u8]) -> Option<Option<RawValue<'_>>> {
    let mut iss = None;
    json::members(payload, |name, value| {
        if !name.is("iss") {
            return Some(());
        }
        iss.replace(value).is_none().then_some(())
    })?;
    Some(iss)
}
