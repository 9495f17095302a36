//! [`Verifier`]: verifies tokens with the keys of one source under one policy.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::cached_token::{CachedRejection, CachedToken};
use super::claims::ServiceClaims;
use super::concurrency::{Permit, SignatureLimit};
use super::deny_list::count_hit;
use super::mismatch::Mismatch;
use super::policy::{CheckedClaims, MarkerOrder, Policy};
use super::proof::Proof;
use super::refusal_log::RefusalLog;
use super::telemetry::{enqueued, run_queued};
use super::token_cache::TokenCache;
use super::unverified::Unverified;
use super::verified::Verified;
use crate::bearer;
use crate::clock::Clock;
use crate::jose::{Jwk, Jws, JwsHeader};
use crate::jwks::{KeySource, Lookup};
use crate::rejection::{Rejection, RejectionReason};

/// The default of [`Verifier::cache_capacity`], in tokens.
const CACHE_CAPACITY: usize = 4096;

/// Verifies tokens with the keys of a [`KeySource`] under a policy. Cheap to clone.
///
/// By default a token must be signed by one of the keys, be unexpired (with a leeway of 30 s), be
/// at most 8 KiB long, and hold `"source": "microservice"`. **Configure at least the
/// [`audience`](Self::audience)** if several services share one authority; otherwise each of them
/// accepts tokens that were issued for another.
///
/// ```
/// use std::time::Duration;
/// use tower_m2m::{RemoteJwks, Verifier, VerifyServiceTokenLayer};
///
/// let jwks = RemoteJwks::new("https://api.example.com/auth/jwt/jwks.json")?;
/// let verifier = Verifier::new(jwks)
///     .issuer("https://api.example.com")
///     .audience("billing")
///     .leeway(Duration::from_secs(5));
/// let layer = VerifyServiceTokenLayer::new(verifier);
/// # let _ = layer;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// The [docs of `server`](crate::server#order-of-checks) list the checks in their order.
#[derive(Clone)]
#[must_use]
pub struct Verifier {
    keys: KeySource,
    policy: Arc<Policy>,
    clock: Clock,
    marker_order: MarkerOrder,
    cache: Arc<TokenCache>,
    signatures: Arc<SignatureLimit>,
    refusals: RefusalLog,
    rules_logged: Arc<AtomicBool>,
}

/// The result for one token, or a future if the token has to wait.
pub(crate) enum Authentication {
    Done(Result<ServiceClaims, Rejection>),
    Pending(PendingAuthentication),
}

impl Authentication {
    /// The result, once the token has waited.
    pub(super) async fn outcome(self) -> Result<ServiceClaims, Rejection> {
        match self {
            Self::Done(outcome) => outcome,
            Self::Pending(pending) => pending.await,
        }
    }
}

/// Resolves to the result for a token that waits for its key or for a permit. Boxed, because few
/// tokens have to wait.
pub(crate) type PendingAuthentication =
    Pin<Box<dyn Future<Output = Result<ServiceClaims, Rejection>> + Send>>;

impl Verifier {
    /// Creates a verifier with the default policy. `keys` is a [`RemoteJwks`](crate::RemoteJwks) or
    /// a [`LocalJwks`](crate::LocalJwks).
    pub fn new(keys: impl Into<KeySource>) -> Self {
        Self {
            keys: keys.into(),
            policy: Arc::default(),
            clock: Clock::default(),
            marker_order: MarkerOrder::Last,
            cache: Arc::new(TokenCache::new(CACHE_CAPACITY)),
            signatures: SignatureLimit::of_process(),
            refusals: RefusalLog::default(),
            rules_logged: Arc::default(),
        }
    }

    /// Capacity of the token cache, in tokens. The signature of a cached token is not checked
    /// again. Default: 4 096; zero disables the cache.
    ///
    /// A cached token is admitted only while its dates are valid, the key that signed it may still
    /// be used, and no [deny list](Self::deny_list) has an entry for it. The clock for this check
    /// may be some milliseconds slow.
    ///
    /// Set the capacity to the number of tokens in use at one time, whatever the number of threads:
    ///
    /// ```
    /// # use tower_m2m::{RemoteJwks, Verifier};
    /// # let jwks = RemoteJwks::new("https://api.example.com/auth/jwt/jwks.json")?;
    /// // 200 calling services with one token each, and some that are being replaced.
    /// let verifier = Verifier::new(jwks).cache_capacity(256);
    /// # let _ = verifier;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Memory
    ///
    /// At most `tokens` × 4.5 KiB, and 0.5 MiB for each of at most 64 threads that verify tokens:
    /// by default 19 MiB with two threads and 50 MiB with 64 or more. In a container reserve twice
    /// that, because allocators fragment under constant eviction of tokens of different sizes.
    ///
    /// Less as long as the cache is not full, for tokens of 550 bytes:
    ///
    /// | for | takes up to |
    /// |---|---|
    /// | a [layer](crate::VerifyServiceTokenLayer) and its verifier | 18 KiB |
    /// | each cached token | 2 KiB |
    /// | each thread that verifies tokens | 5 KiB, and 64 bytes for each token that it finds cached |
    ///
    /// A token that takes more than 4 KiB together with its claims counts more than once. Threads
    /// beyond 64 use only the part of the cache that all threads share. Each verifier has its own
    /// cache, which its clones share and the last clone frees. A disabled cache takes no memory.
    pub fn cache_capacity(mut self, tokens: usize) -> Self {
        self.cache = Arc::new(TokenCache::new(tokens));
        self
    }

    /// Verifies one token, for instance from a queue message: the JWT alone, without `Bearer` and
    /// without white space around it.
    ///
    /// Waits if the key is unknown and has to be fetched, which needs a tokio runtime, or if too
    /// many signatures are being checked.
    ///
    /// ```
    /// # use tower_m2m::{EmbeddedCore, LocalJwks, SuperTokensCore};
    /// use tower_m2m::{RejectionReason, Verifier};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let core = EmbeddedCore::builder().build().await?;
    /// # let jwks = LocalJwks::from_json(core.jwks().await)?;
    /// # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    /// # let url = format!("http://{}", listener.local_addr()?);
    /// # tokio::spawn(async move { core.serve(listener, std::future::pending()).await });
    /// # let request = SuperTokensCore::new(url)?.service_token("https://api.example.com");
    /// # let value = request.claim("service", "orders").mint().await?.header_value();
    /// # let jwt = value.to_str()?.trim_start_matches("Bearer ");
    /// let verifier = Verifier::new(jwks);
    /// let claims = verifier.verify(jwt).await?;
    /// assert_eq!(claims.get("service").unwrap(), "orders");
    ///
    /// let rejection = verifier.audience("billing").verify(jwt).await.unwrap_err();
    /// assert_eq!(rejection.reason(), RejectionReason::WrongAudience);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// A [`Rejection`] with the first check that failed as its reason. With the kind
    /// [`KeysUnavailable`](crate::RejectionKind::KeysUnavailable) the token may be valid.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe. A fetch that the future waits for continues without it.
    pub async fn verify(&self, token: &str) -> Result<ServiceClaims, Rejection> {
        if let Some(outcome) = self.cached(token.as_bytes()) {
            return outcome;
        }
        self.authenticate_new(token).outcome().await
    }

    /// Verifies the bytes of a token, which may be empty or malformed.
    pub(crate) fn authenticate_token(&self, token: &[u8]) -> Authentication {
        // The cache is read before the b64token check, which every cached token passes.
        if let Some(outcome) = self.cached(token) {
            return Authentication::Done(outcome);
        }
        match bearer::b64token(token, self.policy.max_token_len()) {
            Ok(token) => self.authenticate_new(token),
            Err(reason) => Authentication::Done(Err(reason.into())),
        }
    }

    /// Reads the marker before the requirements of service tokens, so that the rejection of any
    /// other token with valid dates, key and signature is [`RejectionReason::NotMicroservice`].
    /// Shares the cache with the verifiers that read it last.
    pub(crate) fn with_marker_first(self) -> Self {
        Self { marker_order: MarkerOrder::First, ..self }
    }

    /// Logs the rules of the policy, unless a layer with it has done so.
    pub(crate) fn log_rules(&self) {
        if !self.rules_logged.swap(true, Ordering::Relaxed) {
            self.policy.log_rules();
        }
    }

    /// What the verifier requires of a token.
    pub(super) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Replaces the cache by an empty one that no other verifier shares.
    pub(super) fn with_own_cache(self) -> Self {
        Self { cache: Arc::new(TokenCache::new(self.cache.capacity())), ..self }
    }

    /// The log of requests that were refused under this policy.
    pub(crate) fn refusal_log(&self) -> &RefusalLog {
        &self.refusals
    }

    pub(crate) fn keys(&self) -> &KeySource {
        &self.keys
    }

    /// The expected value and the value in a token that was rejected for `reason`.
    pub(crate) fn mismatch(&self, reason: RejectionReason, token: &str) -> Mismatch {
        Mismatch::new(reason, token, &self.policy, &self.keys, self.clock.unix_now())
    }

    /// The cached result for a token, if it still applies.
    pub(crate) fn cached(&self, token: &[u8]) -> Option<Result<ServiceClaims, Rejection>> {
        let deny_lists = self.policy.deny_lists();
        deny_lists.ensure_watching();
        self.keys.ensure_watching();
        if !self.cache.is_cacheable(token) {
            return None;
        }
        let now = self.clock.coarse_unix_now();
        let result = self.cache.get(token, now, self.marker_order, deny_lists)?;
        self.cache.telemetry().hit();
        Some(result.map_err(rejected))
    }

    /// Verifies a token that is not cached.
    fn authenticate_new(&self, token: &str) -> Authentication {
        match self.parse(token) {
            Ok(jws) => self.authenticate_parsed(token, &jws),
            Err(reason) => Authentication::Done(Err(reason.into())),
        }
    }

    /// Parses a token. Rejects it by its header alone if its key is unknown and no fetch would be
    /// made, whatever its claims are.
    fn parse<'t>(&self, token: &'t str) -> Result<Jws<'t>, RejectionReason> {
        let header = JwsHeader::parse(token, self.policy.max_token_len())?;
        let (kid, algorithm) = (header.kid(), header.algorithm());
        if self.policy.allows(algorithm)
            && self.keys.would_refuse(kid, algorithm, self.clock.unix_now())
        {
            return Err(RejectionReason::UnknownKey);
        }
        header.decode()
    }

    /// Verifies a token that is not cached. `jws` is the parsed token.
    pub(super) fn authenticate_parsed(&self, token: &str, jws: &Jws<'_>) -> Authentication {
        match self.check(token, jws, None, None) {
            Ok(claims) => Authentication::Done(Ok(claims)),
            Err(Unverified::Rejected(rejection)) => Authentication::Done(Err(rejection)),
            Err(unverified) => {
                let verifier = self.clone();
                Authentication::Pending(Box::pin(verifier.wait(token.to_owned(), unverified)))
            }
        }
    }

    /// Waits for the key if it is unknown, then for a permit if none is free. After each wait the
    /// token is checked from the start, since it may have expired.
    async fn wait(self, token: String, unverified: Unverified) -> Result<ServiceClaims, Rejection> {
        let result = match unverified {
            Unverified::AwaitsKey(key) => {
                let jwk = key.await?;
                self.check_again(&token, Some(jwk), None)
            }
            Unverified::AwaitsPermit(_) | Unverified::Rejected(_) => Err(unverified),
        };
        match result {
            Err(Unverified::AwaitsPermit(slot)) => {
                run_queued(slot, move |permit| {
                    self.check_again(&token, None, Some(permit)).map_err(Unverified::into_rejection)
                })
                .await
            }
            result => result.map_err(Unverified::into_rejection),
        }
    }

    /// Checks a token that has waited. If many requests with the same token wait, the first one
    /// checks the signature and the others find the token cached.
    fn check_again(
        &self,
        token: &str,
        jwk: Option<Arc<Jwk>>,
        permit: Option<Permit<'_>>,
    ) -> Result<ServiceClaims, Unverified> {
        match self.cached(token.as_bytes()) {
            Some(outcome) => Ok(outcome?),
            None => {
                let jws = Jws::parse(token, self.policy.max_token_len())?;
                self.check(token, &jws, jwk, permit)
            }
        }
    }

    /// Runs checks 3 to 9 of the [order of checks](crate::server#order-of-checks); runs 6 before 4
    /// if the key is unknown. The signature is checked under `permit`, or under a free one. A token
    /// that passes 3 to 6 is cached, even if 7, 8 or a deny list rejects it, but not if it lacks a
    /// required claim. If the marker is read first, 8 comes before the requirements in 6.
    ///
    /// Not 6 before 5 for every token: an attacker chooses the claims of a forged one, and a scan
    /// of random claims costs up to 16 µs of mispredicted branches (bench `forged`, rows `unknown
    /// kid`). That time would add to the 26 µs of a forged token, and no permit would bound it.
    fn check(
        &self,
        token: &str,
        jws: &Jws<'_>,
        jwk: Option<Arc<Jwk>>,
        permit: Option<Permit<'_>>,
    ) -> Result<ServiceClaims, Unverified> {
        self.policy.check_form(token, jws)?;
        let jwk = match jwk {
            Some(jwk) => jwk,
            None => self.find_key(jws)?,
        };
        let Some(permit) = permit.or_else(|| self.signatures.try_acquire()) else {
            return Err(Unverified::AwaitsPermit(enqueued(self.signatures.enqueue())?));
        };
        let is_good = jws.is_signed_by(&jwk);
        drop(permit);
        self.cache.telemetry().miss();
        if !is_good {
            self.keys.bad_signature_seen();
            return Err(RejectionReason::BadSignature.into());
        }
        let CheckedClaims { validity, requirements } = self.check_claims(jws)?;
        let first_failed = |last| requirements.err().unwrap_or(last);
        let outcome = match jws.claims() {
            Err(reason) => Err(CachedRejection::Malformed(first_failed(reason))),
            Ok(claims) if self.policy.has_marker(&claims) => {
                requirements?;
                self.policy.check_required(&claims)?;
                let (keys, deny_lists) = (self.keys.clone(), self.policy.deny_lists().clone());
                let proof = Proof::new(Arc::clone(&jwk), jws.algorithm(), keys, deny_lists);
                let verified = Verified::new(claims, validity, self.clock.clone());
                Ok(ServiceClaims::verified(verified.proved_by(proof)))
            }
            Ok(_) => {
                let reason = first_failed(RejectionReason::NotMicroservice);
                Err(CachedRejection::Unmarked(reason))
            }
        };
        let checked = CachedToken::new(token, outcome, jwk, validity);
        let result = checked.result(self.marker_order, self.policy.deny_lists());
        if self.cache.is_cacheable(token.as_bytes()) {
            self.cache.insert(checked);
        }
        Ok(result.map_err(rejected)?)
    }

    /// Checks the registered claims. If the marker is read first, only the dates are checked here,
    /// because the requirements do not concern a token without the marker.
    fn check_claims(&self, jws: &Jws<'_>) -> Result<CheckedClaims, RejectionReason> {
        let checked = self.policy.check_claims(jws.payload(), self.clock.unix_now())?;
        match self.marker_order {
            MarkerOrder::First => Ok(checked),
            MarkerOrder::Last => checked.requirements.map(|()| checked),
        }
    }

    /// The key of a token. Checks the claims before an unknown key is looked up, so that a token
    /// with bad claims causes no fetch.
    fn find_key(&self, jws: &Jws<'_>) -> Result<Arc<Jwk>, Unverified> {
        let (kid, now) = (jws.kid(), self.clock.unix_now());
        if let Some(jwk) = self.keys.find(kid, jws.algorithm(), now) {
            return Ok(jwk);
        }
        // Of a verifier among several, `parse` has not checked this.
        if self.keys.would_refuse(kid, jws.algorithm(), now) {
            return Err(RejectionReason::UnknownKey.into());
        }
        self.check_claims(jws)?;
        match self.keys.look_up(kid, jws.algorithm(), now) {
            Lookup::Found(jwk) => Ok(jwk),
            Lookup::Refused(err) => Err(err.into()),
            Lookup::Pending(key) => Err(Unverified::AwaitsKey(key)),
        }
    }

    /// Changes the policy.
    pub(super) fn with_policy(mut self, change: impl FnOnce(&mut Policy)) -> Self {
        change(Arc::make_mut(&mut self.policy));
        // Results cached under the old policy no longer apply.
        self.cache = Arc::new(TokenCache::new(self.cache.capacity()));
        self.refusals = RefusalLog::new(Arc::clone(&self.policy), self.clock.clone());
        self.rules_logged = Arc::default();
        self
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn on_clock(self, clock: Clock) -> Self {
        let refusals = RefusalLog::new(Arc::clone(&self.policy), clock.clone());
        Self { clock, refusals, ..self }
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn with_signature_limit(self, signatures: Arc<SignatureLimit>) -> Self {
        Self { signatures, ..self }
    }

    #[cfg(test)]
    pub(super) fn cache(&self) -> &TokenCache {
        &self.cache
    }
}

/// Prints the keys and the policy.
impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("keys", &self.keys)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// The rejection of a token that was verified. Counts the hits of the deny lists here, where no
/// cache is locked.
fn rejected(reason: RejectionReason) -> Rejection {
    count_hit(reason);
    reason.into()
}
