//! [`TokenBuilder`]: good tokens, and tokens with one defect.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderValue;
use serde_json::Value;

use super::bearer::bearer;
use super::keys::{Keys, SIGNS, generate, new_kid};
use super::token_members::TokenMembers;

const HOUR: u64 = 3600;
const ANOTHER_AUDIENCE: &str = "another-audience.test";

/// Builds a token of a [`TestAuthority`](super::TestAuthority). Created by its method
/// [`token`](super::TestAuthority::token).
///
/// Without further calls the authority's [`verifier`](super::TestAuthority::verifier) accepts the
/// token. It has the marker `"source": "microservice"`, the authority's `iss`, a `jti`, `iat` now and
/// `exp` in an hour, by the authority's [clock](super::TestAuthority::clock). Your own claims are set
/// with [`claim`](Self::claim) and [`audience`](Self::audience). Each method from
/// [`expired`](Self::expired) on adds one defect, and names the
/// [`RejectionReason`](crate::RejectionReason) that a verifier gives for it.
///
/// Dates count from the call of [`token`](super::TestAuthority::token). The key is the one that is
/// current at the call of [`sign`](Self::sign) or [`bearer`](Self::bearer), so a token of the old key
/// must be signed before a rotation.
///
/// ```
/// use tower_m2m::RejectionReason;
/// use tower_m2m::testing::TestAuthority;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let authority = TestAuthority::offline();
/// let verifier = authority.verifier().audience("billing");
/// let token = authority.token().claim("service", "orders").audience("billing");
///
/// let claims = verifier.verify(&token.clone().sign()).await.unwrap();
/// assert_eq!(claims.get("service").unwrap(), "orders");
///
/// let rejection = verifier.verify(&token.forged().sign()).await.unwrap_err();
/// assert_eq!(rejection.reason(), RejectionReason::BadSignature);
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `sign` is called"]
pub struct TokenBuilder {
    keys: Keys,
    /// When the builder was made, in Unix seconds.
    now: u64,
    header: TokenMembers,
    claims: TokenMembers,
    audiences: Vec<String>,
    /// Whether a key that is not listed signs the token, in place of the current one.
    is_forged: bool,
}

impl TokenBuilder {
    /// A good token, issued at `now`, in Unix seconds.
    pub(super) fn new(keys: Keys, issuer: &str, now: u64) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut claims = TokenMembers::default();
        claims.set("source", r#""microservice""#);
        claims.set("iss", Value::from(issuer));
        claims.set("iat", now);
        claims.set("exp", now + HOUR);
        claims.set("jti", Value::from(format!("jti-{}", NEXT.fetch_add(1, Ordering::Relaxed))));
        let mut header = TokenMembers::default();
        header.set("typ", r#""JWT""#);
        header.set("alg", r#""EdDSA""#);
        Self { keys, now, header, claims, audiences: Vec::new(), is_forged: false }
    }

    /// Sets a claim to this value. A further call with the same name replaces it.
    pub fn claim(self, name: impl AsRef<str>, value: impl Into<Value>) -> Self {
        self.raw(name, value.into().to_string())
    }

    /// Sets each of these claims, a JSON object.
    ///
    /// # Panics
    ///
    /// If `claims` is not a JSON object.
    #[allow(clippy::needless_pass_by_value)] // `json!` makes a value
    pub fn claims(self, claims: Value) -> Self {
        let claims = claims.as_object().expect("claims are a JSON object").iter();
        claims.fold(self, |token, (name, value)| token.claim(name, value.clone()))
    }

    /// Adds an audience. Each further call adds one more (RFC 7519 §4.1.3).
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audiences.push(audience.into());
        let aud = match &*self.audiences {
            [one] => Value::from(&**one),
            several => Value::from(several),
        };
        self.claim("aud", aud)
    }

    /// Sets `sub` (RFC 7519 §4.1.2).
    pub fn subject(self, subject: impl Into<String>) -> Self {
        self.claim("sub", subject.into())
    }

    /// Sets `exp` to this time from now, in whole seconds. By default 1 h. A verifier accepts the
    /// token for 30 s longer, its leeway.
    pub fn validity(self, validity: Duration) -> Self {
        let exp = self.now.saturating_add(validity.as_secs());
        self.claim("exp", exp)
    }

    /// Was issued two hours ago and expired one hour ago:
    /// [`Expired`](crate::RejectionReason::Expired).
    pub fn expired(self) -> Self {
        let (iat, exp) = (self.now.saturating_sub(2 * HOUR), self.now.saturating_sub(HOUR));
        self.claim("iat", iat).claim("exp", exp)
    }

    /// Becomes valid in an hour and expires in two:
    /// [`NotYetValid`](crate::RejectionReason::NotYetValid).
    pub fn not_yet_valid(self) -> Self {
        let (nbf, exp) = (self.now + HOUR, self.now + 2 * HOUR);
        self.claim("nbf", nbf).claim("exp", exp)
    }

    /// Is for another audience, whatever audiences were set:
    /// [`WrongAudience`](crate::RejectionReason::WrongAudience), if the verifier has an audience.
    pub fn wrong_audience(mut self) -> Self {
        self.audiences.clear();
        self.claim("aud", ANOTHER_AUDIENCE)
    }

    /// Lacks the [marker](crate::Verifier::marker), as the token of an end user does:
    /// [`NotMicroservice`](crate::RejectionReason::NotMicroservice).
    pub fn without_marker(self) -> Self {
        self.without("source")
    }

    /// Is signed with a key that is not listed, and has that key's `kid`:
    /// [`UnknownKey`](crate::RejectionReason::UnknownKey).
    pub fn unknown_key(self) -> Self {
        self.kid(new_kid()).forged()
    }

    /// Has the `kid` of the current key, but the signature of another one:
    /// [`BadSignature`](crate::RejectionReason::BadSignature).
    pub fn forged(mut self) -> Self {
        self.is_forged = true;
        self
    }

    /// Names `none` as its algorithm (RFC 7518 §3.6):
    /// [`UnsupportedAlgorithm`](crate::RejectionReason::UnsupportedAlgorithm). The token keeps a
    /// signature, so that the verifier refuses it for its algorithm, not for a missing third part.
    pub fn alg_none(self) -> Self {
        self.header("alg", r#""none""#)
    }

    /// Has this `kid` instead of the current key's. If no key with it is listed:
    /// [`UnknownKey`](crate::RejectionReason::UnknownKey); if one is:
    /// [`BadSignature`](crate::RejectionReason::BadSignature).
    pub fn kid(self, kid: impl Into<String>) -> Self {
        let kid = Value::from(kid.into()).to_string();
        self.header("kid", kid)
    }

    /// Lacks a claim. Without `exp`:
    /// [`MalformedExpiration`](crate::RejectionReason::MalformedExpiration); without `iss`:
    /// [`WrongIssuer`](crate::RejectionReason::WrongIssuer).
    pub fn without(mut self, claim: impl AsRef<str>) -> Self {
        self.claims.remove(claim.as_ref());
        self
    }

    /// Sets a claim to this JSON text, which is not checked. With text that is not JSON:
    /// [`MalformedClaims`](crate::RejectionReason::MalformedClaims).
    pub fn raw(mut self, claim: impl AsRef<str>, json: impl AsRef<str>) -> Self {
        self.claims.set(claim.as_ref(), json.as_ref());
        self
    }

    /// Sets a member of the header to this JSON text, which is not checked. With `"typ"` and
    /// `"\"dpop+jwt\""`, for instance:
    /// [`UnsupportedTokenType`](crate::RejectionReason::UnsupportedTokenType).
    pub fn header(mut self, name: impl AsRef<str>, json: impl AsRef<str>) -> Self {
        self.header.set(name.as_ref(), json.as_ref());
        self
    }

    /// Signs the token with the authority's current key, unless a defect replaces the key.
    #[must_use]
    pub fn sign(self) -> String {
        let claims = self.claims.to_json();
        self.sign_text(&claims)
    }

    /// Signs this text in the place of the claims.
    pub(super) fn sign_text(self, claims: &str) -> String {
        let mut header = self.header;
        self.keys.with_current(|current| {
            header.set_default("kid", Value::from(current.kid()));
            let forger = self.is_forged.then(|| generate(new_kid()));
            let key = forger.as_ref().unwrap_or(current);
            key.sign_parts(&header.to_json(), claims).expect(SIGNS)
        })
    }

    /// [Signs](Self::sign) the token, as the value of an `Authorization` header.
    #[must_use]
    pub fn bearer(self) -> HeaderValue {
        bearer(self.sign())
    }
}
