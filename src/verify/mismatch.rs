//! [`Mismatch`]: the value that a verifier expected and the value in the rejected token.

use serde_json::Value;

use super::excerpt::excerpt;
use super::policy::Policy;
use crate::error::escape_and_cut;
use crate::jose::json::{self, RawValue};
use crate::jose::{Jws, NumericDate};
use crate::jwks::KeySource;
use crate::rejection::RejectionReason as R;

/// The value that a verifier expected, and the value in the token that it rejected.
///
/// Shown only to the service that minted the token. The log of a called service shows less of a
/// token; see [`RefusalLog`](super::refusal_log::RefusalLog).
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// The claim or header member that was rejected. `None` if the whole token was.
    pub(crate) name: Option<String>,
    /// `None` if the [`RejectionReason`](R) says it.
    pub(crate) expected: Option<String>,
    /// Printable ASCII of at most 64 characters. `None` if the token lacks it.
    pub(crate) received: Option<String>,
}

impl Mismatch {
    /// `now` is in Unix seconds.
    pub(super) fn new(reason: R, token: &str, policy: &Policy, keys: &KeySource, now: u64) -> Self {
        Self {
            name: name(reason, policy),
            expected: match reason {
                R::NotMicroservice => Some(match policy.marker().1 {
                    Value::String(text) => text.clone(),
                    value => value.to_string(),
                }),
                R::UnknownKey | R::BadSignature => {
                    let keys = keys.endpoint().unwrap_or("the local key set");
                    Some(format!("a key of {keys}"))
                }
                R::NotYetValid | R::IssuedInFuture => {
                    Some(format!("at most {}", now.saturating_add(policy.leeway())))
                }
                R::Expired => Some(format!("more than {}", now.saturating_sub(policy.leeway()))),
                _ => policy.expected(reason),
            },
            received: received(reason, token, policy),
        }
    }
}

fn name(reason: R, policy: &Policy) -> Option<String> {
    let name = match reason {
        R::AlgorithmNotAllowed => "alg",
        R::UnknownKey | R::BadSignature => "kid",
        R::MalformedExpiration | R::Expired => "exp",
        R::MalformedNotBefore | R::NotYetValid => "nbf",
        R::MalformedIssuedAt | R::IssuedInFuture => "iat",
        R::LifetimeTooLong => "exp - iat",
        R::WrongIssuer => "iss",
        R::WrongAudience => "aud",
        R::WrongSubject => "sub",
        R::NotMicroservice => policy.marker().0,
        _ => return None,
    };
    Some(name.to_owned())
}

fn received(reason: R, token: &str, policy: &Policy) -> Option<String> {
    if reason == R::TokenTooLong {
        return Some(format!("{} bytes", token.len()));
    }
    let jws = Jws::parse(token, policy.max_token_len()).ok()?;
    let claim = |name: &str| claim(jws.payload(), name);
    match reason {
        R::AlgorithmNotAllowed => Some(jws.algorithm().to_string()),
        R::UnknownKey | R::BadSignature => jws.kid().map(escape_and_cut),
        R::LifetimeTooLong => {
            let date = |name| Some(NumericDate::read(claim(name)?)?.floor);
            Some(format!("{} s", date("exp")?.saturating_sub(date("iat")?)))
        }
        _ => claim(&name(reason, policy)?).map(excerpt),
    }
}

fn claim<'j>(payload: &'j [u8], name: &str) -> Option<RawValue<'j>> {
    let mut found = None;
    json::members(payload, |member, value| {
        if member.is(name) {
            found = Some(value);
        }
        Some(())
    })?;
    found
}
