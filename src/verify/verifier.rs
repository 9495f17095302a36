//! The verifier: one policy over one source of keys.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::cached_token::CachedToken;
use super::claims::ServiceClaims;
use super::concurrency::{Permit, QueueSlot, SignatureLimit};
use super::policy::Policy;
use super::token_cache::TokenCache;
use crate::bearer;
use crate::clock::Clock;
use crate::jose::{Algorithm, Jwk, Jws};
#[cfg(feature = "reqwest")]
use crate::jwks::FetchError;
use crate::jwks::{KeySource, Lookup, LookupError, PendingKey};
use crate::rejection::{Rejection, RejectionReason};

/// The default of [`Verifier::cache_capacity`], in tokens.
const CACHE_CAPACITY: usize = 4096;

/// Verifies tokens: one policy over one source of keys. Cheap to clone.
///
/// By default a token must be signed by one of the keys, be current with a leeway of 30 s, be at
/// most 8 KiB long, and hold `"source": "microservice"`. Issuer, audience and subject are mandatory
/// once configured; **configure at least the audience** where several services share one authority,
/// or a token made for one of them is good for all.
///
/// ```
/// use tower_m2m::{LocalJwks, RejectionKind, Verifier};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let jwks = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
/// let verifier = Verifier::new(LocalJwks::from_json(jwks)?)
///     .issuer("https://api.example.com")
///     .audience("billing");
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
    cache: Arc<TokenCache>,
    signatures: Arc<SignatureLimit>,
}

/// The outcome for one credential, as far as it is known without waiting.
pub(crate) enum Authentication {
    Done(Result<ServiceClaims, Rejection>),
    Pending(PendingAuthentication),
}

/// Resolves once the token's key is known and a core is free. Boxed: the rare slow path.
pub(crate) type PendingAuthentication =
    Pin<Box<dyn Future<Output = Result<ServiceClaims, Rejection>> + Send>>;

impl Verifier {
    /// A verifier with the default policy over `keys`, a [`RemoteJwks`](crate::RemoteJwks) or a
    /// [`LocalJwks`](crate::LocalJwks).
    pub fn new(keys: impl Into<KeySource>) -> Self {
        Self {
            keys: keys.into(),
            policy: Arc::default(),
            clock: Clock::default(),
            cache: Arc::new(TokenCache::new(CACHE_CAPACITY)),
            signatures: SignatureLimit::of_process(),
        }
    }

    /// Requires `iss` to be exactly this string (RFC 7519 §4.1.1). Not required by default.
    ///
    /// SuperTokens puts the API domain here without a base path: `https://api.example.com`.
    pub fn issuer(self, issuer: impl Into<String>) -> Self {
        self.with(|policy| policy.require_issuer(issuer.into()))
    }

    /// Requires `aud` to be, or to hold, this string (RFC 7519 §4.1.3). Called again it accepts one
    /// more audience. Not required by default.
    pub fn audience(self, audience: impl Into<String>) -> Self {
        self.with(|policy| policy.add_audience(audience.into()))
    }

    /// Requires `sub` to be exactly this string (RFC 7519 §4.1.2). Not required by default.
    pub fn subject(self, subject: impl Into<String>) -> Self {
        self.with(|policy| policy.require_subject(subject.into()))
    }

    /// Allows these algorithms alone (RFC 8725 §3.1). By default every [`Algorithm`] is allowed
    /// that the key is for.
    pub fn algorithms(self, algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        self.with(|policy| policy.allow_only(algorithms.into_iter().collect()))
    }

    /// How far the clocks of the two sides may be apart, in whole seconds. 30 s by default; more
    /// than 5 min is cut to 5 min.
    pub fn leeway(self, leeway: Duration) -> Self {
        self.with(|policy| policy.allow_leeway(leeway))
    }

    /// Refuses tokens whose `exp` − `iat` is more than this, in whole seconds; `iat` becomes
    /// mandatory. Unbounded by default, since SuperTokens' own default is 100 years.
    pub fn max_lifetime(self, lifetime: Duration) -> Self {
        self.with(|policy| policy.limit_lifetime(lifetime))
    }

    /// Refuses longer tokens before anything in them is decoded. In bytes; 8 KiB by default.
    pub fn max_token_len(self, bytes: usize) -> Self {
        self.with(|policy| policy.limit_token_len(bytes))
    }

    /// Replaces the marker: the claim that only service tokens hold, and its exact value, of any
    /// JSON type. `source` and `microservice` by default.
    ///
    /// The marker separates services from end users whose tokens the same keys sign. Choose a claim
    /// that no end user's token can have: an OAuth2 access token of SuperTokens, for instance, has
    /// `stt` 1.
    pub fn marker(self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.with(|policy| policy.require_marker(name.into(), value.into()))
    }

    /// How many verified tokens are cached, so that their signature is not checked again. 4 096 by
    /// default; zero caches none.
    ///
    /// A cached token is admitted only while its dates hold, by a clock that may be some
    /// milliseconds behind, and the very key that proved it may still be used.
    ///
    /// # Memory
    ///
    /// `tokens` × 4.5 KiB, and 0.5 MiB for each of at most 64 threads that verify at once: by
    /// default 19 MiB with two threads and 50 MiB with 64 or more. Further threads use only the
    /// cache that all share. With a capacity of zero nothing is taken. In a container plan for
    /// twice that: allocators fragment under constant eviction of tokens of varied size.
    ///
    /// Set the capacity to the number of tokens in use at one time; the number of threads does not
    /// matter for it. A token that takes more than 4 KiB together with its claims counts more than
    /// once. Each verifier has a cache of its own, which clones share and the last clone frees.
    pub fn cache_capacity(mut self, tokens: usize) -> Self {
        self.cache = Arc::new(TokenCache::new(tokens));
        self
    }

    /// Verifies one token: the header's text after `Bearer `, or the token that a message carries.
    ///
    /// # Errors
    ///
    /// The reason is the first check that failed.
    /// [`RejectionKind::KeysUnavailable`](crate::RejectionKind::KeysUnavailable) says nothing about
    /// the token.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends its wait, for a key or for a free core, and nothing else: a fetch
    /// in flight continues.
    pub async fn verify(&self, token: &str) -> Result<ServiceClaims, Rejection> {
        if let Some(outcome) = self.cached(token.as_bytes()) {
            return outcome;
        }
        match self.authenticate_new(token) {
            Authentication::Done(outcome) => outcome,
            Authentication::Pending(pending) => pending.await,
        }
    }

    /// Verifies the credential after the scheme `Bearer`, which may hold any bytes.
    pub(crate) fn authenticate(&self, credential: &[u8]) -> Authentication {
        // First: a cached token is well-formed.
        if let Some(outcome) = self.cached(credential) {
            return Authentication::Done(outcome);
        }
        match bearer::b64token(credential, self.policy.max_token_len()) {
            Ok(token) => self.authenticate_new(token),
            Err(reason) => Authentication::Done(Err(reason.into())),
        }
    }

    /// Why the last fetch of the keys failed. `None` if it succeeded, or if the keys are local.
    #[cfg(feature = "reqwest")]
    pub(crate) fn last_fetch_error(&self) -> Option<FetchError> {
        self.keys.last_fetch_error()
    }

    /// The outcome for a token that was verified before.
    pub(crate) fn cached(&self, token: &[u8]) -> Option<Result<ServiceClaims, Rejection>> {
        self.cache.get(token, self.clock.coarse_unix_now())
    }

    /// Verifies a token that is not cached.
    fn authenticate_new(&self, token: &str) -> Authentication {
        match self.check(token, None, None) {
            Ok(claims) => Authentication::Done(Ok(claims)),
            Err(Unverified::Rejected(rejection)) => Authentication::Done(Err(rejection)),
            Err(waits) => {
                Authentication::Pending(Box::pin(self.clone().finish(token.to_owned(), waits)))
            }
        }
    }

    /// Waits for the key, then for a permit, each if the token lacks it. After each wait the token
    /// is checked from the start: its dates must hold then.
    async fn finish(self, token: String, waits: Unverified) -> Result<ServiceClaims, Rejection> {
        let result = match waits {
            Unverified::AwaitsKey(key) => {
                let jwk = key.await?;
                self.check_again(&token, Some(jwk), None)
            }
            Unverified::AwaitsPermit(_) | Unverified::Rejected(_) => Err(waits),
        };
        match result {
            Err(Unverified::AwaitsPermit(slot)) => {
                slot.run(move |permit| {
                    self.check_again(&token, None, Some(permit)).map_err(Unverified::into_rejection)
                })
                .await
            }
            result => result.map_err(Unverified::into_rejection),
        }
    }

    /// Checks a token that has waited. Of many requests with one token, the first checks its
    /// signature and the others find it cached.
    fn check_again(
        &self,
        token: &str,
        jwk: Option<Arc<Jwk>>,
        permit: Option<Permit<'_>>,
    ) -> Result<ServiceClaims, Unverified> {
        match self.cached(token.as_bytes()) {
            Some(outcome) => Ok(outcome?),
            None => self.check(token, jwk, permit),
        }
    }

    /// The steps 1 to 6 of the module docs. The signature is checked under `permit` or one that is
    /// free. Caches every token with a good signature and current claims, including those refused
    /// for the rest.
    fn check(
        &self,
        token: &str,
        jwk: Option<Arc<Jwk>>,
        permit: Option<Permit<'_>>,
    ) -> Result<ServiceClaims, Unverified> {
        let jws = self.policy.parse(token)?;
        let jwk = match jwk {
            Some(jwk) => jwk,
            None => self.find_key(&jws)?,
        };
        let Some(permit) = permit.or_else(|| self.signatures.try_acquire()) else {
            return Err(Unverified::AwaitsPermit(self.signatures.enqueue()?));
        };
        let is_good = jws.is_signed_by(&jwk);
        drop(permit);
        if !is_good {
            self.keys.bad_signature_seen();
            return Err(RejectionReason::BadSignature.into());
        }
        let validity = self.policy.check_claims(jws.payload(), self.clock.unix_now())?;
        let outcome = jws.claims().and_then(|claims| {
            self.policy.check_marker(&claims)?;
            Ok(ServiceClaims::verified(claims, validity.expires_at()))
        });
        if self.cache.capacity() > 0 {
            self.cache.insert(CachedToken::new(token, outcome.clone(), jwk, validity));
        }
        Ok(outcome?)
    }

    /// The key of a token. The claims are checked before an unknown key is fetched, so that only a
    /// token that would pass can cause a fetch.
    fn find_key(&self, jws: &Jws<'_>) -> Result<Arc<Jwk>, Unverified> {
        let (kid, now) = (jws.kid(), self.clock.unix_now());
        if let Some(jwk) = self.keys.find(kid, jws.algorithm(), now) {
            return Ok(jwk);
        }
        self.policy.check_claims(jws.payload(), now)?;
        match self.keys.look_up(kid, jws.algorithm(), now) {
            Lookup::Found(jwk) => Ok(jwk),
            Lookup::Refused(err) => Err(err.into()),
            Lookup::Pending(key) => Err(Unverified::AwaitsKey(key)),
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Policy)) -> Self {
        change(Arc::make_mut(&mut self.policy));
        // Results cached under the old policy no longer apply.
        self.cache = Arc::new(TokenCache::new(self.cache.capacity()));
        self
    }

    #[cfg(test)]
    pub(super) fn on_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    #[cfg(test)]
    pub(super) fn with_signature_limit(self, signatures: Arc<SignatureLimit>) -> Self {
        Self { signatures, ..self }
    }

    #[cfg(test)]
    pub(super) fn cache(&self) -> &TokenCache {
        &self.cache
    }
}

/// Why a check gave no claims.
enum Unverified {
    Rejected(Rejection),
    /// The key is not in the set; the fetch that tells whether it exists has not ended.
    AwaitsKey(PendingKey),
    /// The signature limit is exhausted.
    AwaitsPermit(QueueSlot),
}

impl Unverified {
    /// The answer for a token that waits no longer.
    fn into_rejection(self) -> Rejection {
        match self {
            Self::Rejected(rejection) => rejection,
            // A refresh removed the key while the token was queued.
            Self::AwaitsKey(_) => RejectionReason::UnknownKey.into(),
            Self::AwaitsPermit(_) => RejectionReason::TooManyWaiting.into(),
        }
    }
}

impl<E: Into<Rejection>> From<E> for Unverified {
    fn from(err: E) -> Self {
        Self::Rejected(err.into())
    }
}

impl From<LookupError> for Rejection {
    fn from(err: LookupError) -> Self {
        let (reason, retry_after) = match err {
            LookupError::UnknownKey => return RejectionReason::UnknownKey.into(),
            LookupError::QueueFull => return RejectionReason::TooManyWaiting.into(),
            LookupError::NotLoaded { retry_after } => (RejectionReason::KeysNotLoaded, retry_after),
            LookupError::Stale { retry_after } => (RejectionReason::KeysStale, retry_after),
            LookupError::FetchFailed { retry_after } => (RejectionReason::FetchFailed, retry_after),
        };
        Self::with_retry_after(reason, retry_after)
    }
}
