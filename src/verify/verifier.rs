//! The verifier: one policy over one source of keys.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::policy::{Policy, Validity};
use super::verdicts::{Proof, Proved, Verdicts};
use crate::algorithm::Algorithm;
use crate::claims::ServiceClaims;
use crate::clock::Clock;
use crate::jwks::{Key, KeySource, Lookup, Ticket};
use crate::jws::Jws;
use crate::rejection::{Rejection, RejectionReason};

/// Judges tokens: a policy over a source of keys. Cheap to clone.
///
/// By default a token must be signed by one of the keys, be current with a leeway of 30 s, be at most 8 KiB long, and
/// hold `"source": "microservice"`. Issuer, audience and subject are mandatory once configured; **configure at least the
/// audience** where several services share one authority, or a token made for one of them is good for all.
///
/// ```
/// use tower_m2m::{FixedJwks, RejectionKind, Verifier};
///
/// # fn main() -> Result<(), tower_m2m::ConfigError> {
/// # let jwks = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
/// let verifier = Verifier::new(FixedJwks::from_json(jwks)?).issuer("https://api.example.com").audience("billing");
///
/// let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// let rejection = runtime.block_on(verifier.verify("not.a.token")).unwrap_err();
/// assert_eq!(rejection.kind(), RejectionKind::InvalidToken);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Verifier {
    keys: KeySource,
    policy: Arc<Policy>,
    clock: Clock,
    verdicts: Arc<Verdicts>,
}

/// How many verdicts are remembered, unless it is said otherwise.
const CACHE_CAPACITY: usize = 4096;

/// How far a token could be judged without waiting.
pub(crate) enum Attempt {
    Decided(Result<ServiceClaims, Rejection>),
    /// The key is not in the set; the ticket lets the caller wait for the fetch that settles it.
    Waiting(Ticket),
}

impl Verifier {
    /// A verifier with the default policy over `keys`, a [`RemoteJwks`](crate::RemoteJwks) or a
    /// [`FixedJwks`](crate::FixedJwks).
    pub fn new(keys: impl Into<KeySource>) -> Self {
        Self {
            keys: keys.into(),
            policy: Arc::default(),
            clock: Clock::default(),
            verdicts: Arc::new(Verdicts::new(CACHE_CAPACITY)),
        }
    }

    /// Requires `iss` to be exactly this string (RFC 7519 §4.1.1). Not required by default.
    ///
    /// SuperTokens puts the API domain here without a base path: `https://api.example.com`.
    pub fn issuer(self, issuer: impl Into<String>) -> Self {
        self.with(|policy| policy.issuer = Some(issuer.into()))
    }

    /// Requires `aud` to be, or to hold, this string (RFC 7519 §4.1.3). Called again it accepts one more audience. Not
    /// required by default.
    pub fn audience(self, audience: impl Into<String>) -> Self {
        self.with(|policy| policy.audience.push(audience.into()))
    }

    /// Requires `sub` to be exactly this string (RFC 7519 §4.1.2). Not required by default.
    pub fn subject(self, subject: impl Into<String>) -> Self {
        self.with(|policy| policy.subject = Some(subject.into()))
    }

    /// Allows these algorithms alone (RFC 8725 §3.1). By default every [`Algorithm`] is allowed that the key is for.
    pub fn algorithms(self, algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        self.with(|policy| policy.algorithms = algorithms.into_iter().collect())
    }

    /// How far the clocks of the two sides may be apart, in whole seconds. 30 s by default; more than 5 min is cut to
    /// 5 min.
    pub fn leeway(self, leeway: Duration) -> Self {
        self.with(|policy| policy.set_leeway(leeway))
    }

    /// Refuses tokens whose `exp` − `iat` is more than this, in whole seconds; `iat` becomes mandatory. Unbounded by
    /// default, since SuperTokens' own default is 100 years.
    pub fn max_lifetime(self, lifetime: Duration) -> Self {
        self.with(|policy| policy.max_lifetime = Some(lifetime))
    }

    /// Refuses longer tokens before anything in them is decoded. In bytes; 8 KiB by default.
    pub fn max_token_len(self, bytes: usize) -> Self {
        self.with(|policy| policy.max_token_len = bytes)
    }

    /// The claim that tells a microservice's token from others, and its exact value. `source` and `microservice` by
    /// default.
    pub fn marker(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.with(|policy| policy.marker = (name.into(), Value::String(value.into())))
    }

    /// For authorities that cannot set a marker: requires `claim` to be exactly `value` instead, of whatever JSON type.
    /// An OAuth2 access token of SuperTokens, for instance, has `stt` 1.
    ///
    /// The marker is a wall between services and end users whose tokens the same keys sign. This replaces it by another
    /// wall, never by none: choose a claim that no end user's token can have.
    pub fn without_marker_requiring(self, claim: impl Into<String>, value: impl Into<Value>) -> Self {
        self.with(|policy| policy.marker = (claim.into(), value.into()))
    }

    /// How many tokens are remembered once they are verified, so that their signature is not checked again. 4 096 by
    /// default, which takes at most 16 MiB, and up to half a MiB more for each thread that verifies; zero remembers none.
    ///
    /// A verdict is used only while the token's dates hold and the very key that proved it may still be used.
    pub fn cache_capacity(mut self, tokens: usize) -> Self {
        self.verdicts = Arc::new(Verdicts::new(tokens));
        self
    }

    /// Judges one token: the text between `Bearer ` and the end of the header, or whatever a message carries.
    ///
    /// # Errors
    ///
    /// The first check that failed. [`RejectionKind::KeysUnavailable`](crate::RejectionKind::KeysUnavailable) says
    /// nothing about the token.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the wait for a key and nothing else; a fetch that is under way goes on.
    pub async fn verify(&self, token: &str) -> Result<ServiceClaims, Rejection> {
        if let Some(decided) = self.recall(token.as_bytes()) {
            return decided;
        }
        match self.attempt(token) {
            Attempt::Decided(decided) => decided,
            Attempt::Waiting(ticket) => self.resume(token, ticket).await,
        }
    }

    /// What is known of a token that was verified before. Takes any bytes: what is known is well-formed.
    pub(crate) fn recall(&self, token: &[u8]) -> Option<Result<ServiceClaims, Rejection>> {
        self.verdicts.recall(token, self.clock.unix_now())
    }

    #[cfg(test)]
    pub(super) fn on_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    #[cfg(test)]
    pub(super) fn verdicts(&self) -> &Verdicts {
        &self.verdicts
    }

    /// The longest token that is read, in bytes.
    pub(crate) fn longest_token(&self) -> usize {
        self.policy.max_token_len
    }

    /// Judges a token as far as that needs no waiting, which is all the way unless its key is unknown.
    pub(crate) fn attempt(&self, token: &str) -> Attempt {
        let unproven = match self.parse(token) {
            Ok(unproven) => unproven,
            Err(reason) => return Attempt::Decided(Err(reason.into())),
        };
        let Jws { key_id, algorithm, .. } = &unproven.jws;
        match self.keys.look_up(key_id.as_deref(), *algorithm, self.clock.unix_now()) {
            Lookup::Found(key) => Attempt::Decided(self.prove(token, unproven, key)),
            Lookup::Refused(rejection) => Attempt::Decided(Err(rejection)),
            Lookup::Wait(ticket) => Attempt::Waiting(ticket),
        }
    }

    /// Judges a token whose key had to be waited for.
    pub(crate) async fn resume(&self, token: &str, ticket: Ticket) -> Result<ServiceClaims, Rejection> {
        let key = ticket.wait().await?;
        // Parsed again rather than kept: time has passed, and the dates must hold now.
        self.prove(token, self.parse(token)?, key)
    }

    /// Steps 1 and 2: everything that needs no key.
    fn parse<'t>(&self, token: &'t str) -> Result<Unproven<'t>, RejectionReason> {
        let jws = Jws::parse(token, self.policy.max_token_len)?;
        if !self.policy.algorithms.contains(&jws.algorithm) {
            return Err(RejectionReason::AlgorithmNotAllowed);
        }
        let claims = jws.claims()?;
        let validity = self.policy.check_claims(&claims, self.clock.unix_now())?;
        Ok(Unproven { jws, claims, validity })
    }

    /// Steps 4 and 5. What has a good signature is remembered, whoever it belongs to.
    fn prove(&self, token: &str, unproven: Unproven<'_>, key: Arc<Key>) -> Result<ServiceClaims, Rejection> {
        let Unproven { jws, claims, validity } = unproven;
        if !key.verify(jws.algorithm, jws.signing_input.as_bytes(), &jws.signature) {
            self.keys.bad_signature_seen();
            return Err(RejectionReason::BadSignature.into());
        }
        let verdict = match self.policy.check_marker(&claims) {
            Ok(()) => Proved::Caller(ServiceClaims::proven(claims, validity.expires_at)),
            Err(_) => Proved::NotMicroservice,
        };
        let proof = Proof { verdict, key, validity };
        let decided = proof.decided();
        self.verdicts.remember(token, proof);
        decided
    }

    fn with(mut self, change: impl FnOnce(&mut Policy)) -> Self {
        change(Arc::make_mut(&mut self.policy));
        // Another policy, other verdicts.
        self.verdicts = Arc::new(Verdicts::new(self.verdicts.capacity()));
        self
    }
}

/// A token that passed every check that needs no key.
struct Unproven<'t> {
    jws: Jws<'t>,
    claims: Map<String, Value>,
    validity: Validity,
}
