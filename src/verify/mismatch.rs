//! [`Mismatch`]: the value that a verifier expected and the value in the rejected token.

use super::claim_path::ClaimPath;
use super::claim_rule::ClaimRule;
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
        let jws = Jws::parse(token, policy.max_token_len()).ok();
        if let Some(rule) = rule(reason, jws.as_ref(), policy) {
            return Self {
                name: Some(rule.path().to_string()),
                expected: Some(rule.expected().to_string()),
                received: jws
                    .as_ref()
                    .and_then(|jws| Some(excerpt(claim(jws.payload(), rule.path())?))),
            };
        }
        Self {
            name: name(reason),
            expected: match reason {
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
            received: received(reason, token, jws.as_ref()),
        }
    }
}

/// The rule that the claims of the token do not meet.
fn rule<'p>(reason: R, jws: Option<&Jws<'_>>, policy: &'p Policy) -> Option<&'p ClaimRule> {
    match reason {
        R::NotMicroservice => Some(policy.marker()),
        R::ClaimRefused => {
            let claims = jws?.claims().ok()?;
            policy.required().iter().find(|rule| !rule.is_met_by(&claims))
        }
        _ => None,
    }
}

fn name(reason: R) -> Option<String> {
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
        _ => return None,
    };
    Some(name.to_owned())
}

fn received(reason: R, token: &str, jws: Option<&Jws<'_>>) -> Option<String> {
    if reason == R::TokenTooLong {
        return Some(format!("{} bytes", token.len()));
    }
    let jws = jws?;
    let claim = |name: &str| claim(jws.payload(), &name.into());
    match reason {
        R::AlgorithmNotAllowed => Some(jws.algorithm().to_string()),
        R::UnknownKey | R::BadSignature => jws.kid().map(escape_and_cut),
        R::LifetimeTooLong => {
            let date = |name| Some(NumericDate::read(claim(name)?)?.floor);
            Some(format!("{} s", date("exp")?.saturating_sub(date("iat")?)))
        }
        _ => claim(&name(reason)?).map(excerpt),
    }
}

fn claim<'j>(payload: &'j [u8], path: &ClaimPath) -> Option<RawValue<'j>> {
    let mut found = None;
    let mut object = payload;
    for name in path.names() {
        found = None;
        json::members(object, |member, value| {
            if member.is(name) {
                found = Some(value);
            }
            Some(())
        })?;
        object = found?.as_bytes();
    }
    found
}
