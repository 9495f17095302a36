//! The verifier: one policy over one source of keys.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::cached_token::CachedToken;
use super::claims::ServiceClaims;
use super::concurrency::{Place, Turn, Turns};
use super::policy::{NamedClaims, Policy};
use super::token_cache::TokenCache;
use crate::clock::Clock;
use crate::jose::{Algorithm, Jwk, Jws};
use crate::jwks::{KeySource, Lookup, LookupError, PendingKey};
use crate::rejection::{Rejection, RejectionReason};

/// Judges tokens: a policy over a source of keys. Cheap to clone.
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
/// let verifier = Verifier::new(LocalJwks::from_json(jwks)?).issuer("https://api.example.com").audience("billing");
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
    turns: Arc<Turns>,
}

/// The default of [`Verifier::cache_capacity`], in tokens.
const CACHE_CAPACITY: usize = 4096;

/// How far a token could be judged without waiting.
pub(crate) enum Attempt {
    Decided(Result<ServiceClaims, Rejection>),
    Waiting(Wait),
}

/// What a token waits for.
pub(crate) enum Wait {
    /// The key is not in the set; the ticket lets the caller wait for the fetch that settles it.
    Key(PendingKey),
    /// As many signatures as may be are being checked.
    Turn(Place),
}

impl From<LookupError> for Rejection {
    fn from(err: LookupError) -> Self {
        match err {
            LookupError::UnknownKey => RejectionReason::UnknownKey.into(),
            LookupError::QueueFull => RejectionReason::TooManyWaiting.into(),
            LookupError::NotLoaded { retry_after } => {
                Self::retry_after(RejectionReason::KeysNotLoaded, retry_after)
            }
            LookupError::Stale { retry_after } => {
                Self::retry_after(RejectionReason::KeysStale, retry_after)
            }
            LookupError::FetchFailed { retry_after } => {
                Self::retry_after(RejectionReason::FetchFailed, retry_after)
            }
        }
    }
}

impl Verifier {
    /// A verifier with the default policy over `keys`, a [`RemoteJwks`](crate::RemoteJwks) or a
    /// [`LocalJwks`](crate::LocalJwks).
    pub fn new(keys: impl Into<KeySource>) -> Self {
        Self {
            keys: keys.into(),
            policy: Arc::default(),
            clock: Clock::default(),
            cache: Arc::new(TokenCache::new(CACHE_CAPACITY)),
            turns: Turns::of_this_process(),
        }
    }

    /// Requires `iss` to be exactly this string (RFC 7519 §4.1.1). Not required by default.
    ///
    /// SuperTokens puts the API domain here without a base path: `https://api.example.com`.
    pub fn issuer(self, issuer: impl Into<String>) -> Self {
        self.with(|policy| policy.issuer = Some(issuer.into()))
    }

    /// Requires `aud` to be, or to hold, this string (RFC 7519 §4.1.3). Called again it accepts one
    /// more audience. Not required by default.
    pub fn audience(self, audience: impl Into<String>) -> Self {
        self.with(|policy| policy.audience.push(audience.into()))
    }

    /// Requires `sub` to be exactly this string (RFC 7519 §4.1.2). Not required by default.
    pub fn subject(self, subject: impl Into<String>) -> Self {
        self.with(|policy| policy.subject = Some(subject.into()))
    }

    /// Allows these algorithms alone (RFC 8725 §3.1). By default every [`Algorithm`] is allowed
    /// that the key is for.
    pub fn algorithms(self, algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        self.with(|policy| policy.algorithms = algorithms.into_iter().collect())
    }

    /// How far the clocks of the two sides may be apart, in whole seconds. 30 s by default; more
    /// than 5 min is cut to 5 min.
    pub fn leeway(self, leeway: Duration) -> Self {
        self.with(|policy| policy.set_leeway(leeway))
    }

    /// Refuses tokens whose `exp` − `iat` is more than this, in whole seconds; `iat` becomes
    /// mandatory. Unbounded by default, since SuperTokens' own default is 100 years.
    pub fn max_lifetime(self, lifetime: Duration) -> Self {
        self.with(|policy| policy.max_lifetime = Some(lifetime))
    }

    /// Refuses longer tokens before anything in them is decoded. In bytes; 8 KiB by default.
    pub fn max_token_len(self, bytes: usize) -> Self {
        self.with(|policy| policy.max_token_len = bytes)
    }

    /// Replaces the marker: the claim that only service tokens hold, and its exact value, of any
    /// JSON type. `source` and `microservice` by default.
    ///
    /// The marker separates services from end users whose tokens the same keys sign. Choose a claim
    /// that no end user's token can have: an OAuth2 access token of SuperTokens, for instance, has
    /// `stt` 1.
    pub fn marker(self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.with(|policy| policy.marker = (name.into(), value.into()))
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

    /// Judges one token: the text between `Bearer ` and the end of the header, or whatever a
    /// message carries.
    ///
    /// # Errors
    ///
    /// The first check that failed.
    /// [`RejectionKind::KeysUnavailable`](crate::RejectionKind::KeysUnavailable) says nothing about
    /// the token.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the wait, for a key or for the signature's turn, and nothing
    /// else; a fetch that is under way goes on.
    pub async fn verify(&self, token: &str) -> Result<ServiceClaims, Rejection> {
        if let Some(decided) = self.cached(token.as_bytes()) {
            return decided;
        }
        match self.attempt(token) {
            Attempt::Decided(decided) => decided,
            Attempt::Waiting(wait) => self.clone().resume(token.to_owned(), wait).await,
        }
    }

    /// The outcome for a token that was verified before. Takes any bytes: cached tokens are
    /// well-formed.
    pub(crate) fn cached(&self, token: &[u8]) -> Option<Result<ServiceClaims, Rejection>> {
        self.cache.get(token, self.clock.coarse_unix_now())
    }

    #[cfg(test)]
    pub(super) fn on_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    #[cfg(test)]
    pub(super) fn cache(&self) -> &TokenCache {
        &self.cache
    }

    /// The longest token that is read, in bytes.
    pub(crate) fn longest_token(&self) -> usize {
        self.policy.max_token_len
    }

    /// Judges a token as far as that needs no waiting, which is all the way unless its key is
    /// unknown or too many signatures are being checked.
    pub(crate) fn attempt(&self, token: &str) -> Attempt {
        let (jws, lookup) = match self
            .parse(token)
            .and_then(|jws| self.look_up(&jws).map(|lookup| (jws, lookup)))
        {
            Ok(found) => found,
            Err(reason) => return Attempt::Decided(Err(reason.into())),
        };
        match lookup {
            Lookup::Found(key) => match self.turns.take() {
                Some(turn) => Attempt::Decided(self.prove(token, &jws, key, turn)),
                None => match self.turns.queue() {
                    Ok(place) => Attempt::Waiting(Wait::Turn(place)),
                    Err(rejection) => Attempt::Decided(Err(rejection)),
                },
            },
            Lookup::Refused(err) => Attempt::Decided(Err(err.into())),
            Lookup::Pending(ticket) => Attempt::Waiting(Wait::Key(ticket)),
        }
    }

    /// Judges a token that had to wait. It is parsed again: time has passed, and the dates must
    /// hold now.
    pub(crate) async fn resume(
        self,
        token: String,
        wait: Wait,
    ) -> Result<ServiceClaims, Rejection> {
        let place = match wait {
            Wait::Turn(place) => place,
            Wait::Key(ticket) => {
                let key = ticket.await?;
                // Of many that came with one token, the first is the one to check its signature.
                if let Some(decided) = self.cached(token.as_bytes()) {
                    return decided;
                }
                if let Some(turn) = self.turns.take() {
                    return self.prove(&token, &self.parse(&token)?, key, turn);
                }
                self.turns.queue()?
            }
        };
        place.in_turn(move |turn| self.judge_in(turn, &token)).await
    }

    /// Judges a token that has waited for its turn.
    fn judge_in(&self, turn: Turn<'_>, token: &str) -> Result<ServiceClaims, Rejection> {
        // Others with the same token may have come first.
        if let Some(decided) = self.cached(token.as_bytes()) {
            return decided;
        }
        let jws = self.parse(token)?;
        match self.look_up(&jws)? {
            Lookup::Found(key) => self.prove(token, &jws, key, turn),
            Lookup::Refused(err) => Err(err.into()),
            // The key was removed by a refresh while the token was queued.
            Lookup::Pending(_) => Err(RejectionReason::UnknownKey.into()),
        }
    }

    /// Step 1.
    fn parse<'t>(&self, token: &'t str) -> Result<Jws<'t>, RejectionReason> {
        let jws = Jws::parse(token, self.policy.max_token_len)?;
        if jws.payload.is_empty() {
            return Err(RejectionReason::NotThreeParts);
        }
        if !self.policy.algorithms.contains(&jws.algorithm) {
            return Err(RejectionReason::AlgorithmNotAllowed);
        }
        Ok(jws)
    }

    /// Step 2. Only a token whose claims would pass may ask for a fetch.
    fn look_up(&self, jws: &Jws<'_>) -> Result<Lookup, RejectionReason> {
        let (kid, now) = (jws.kid.as_deref(), self.clock.unix_now());
        if let Some(key) = self.keys.find(kid, jws.algorithm, now) {
            return Ok(Lookup::Found(key));
        }
        self.policy.check_claims(&NamedClaims::scan(&jws.payload)?, now)?;
        Ok(self.keys.look_up(kid, jws.algorithm, now))
    }

    /// Steps 3 to 6. Caches every token with a good signature and current claims, including those
    /// refused for the rest.
    fn prove(
        &self,
        token: &str,
        jws: &Jws<'_>,
        key: Arc<Jwk>,
        turn: Turn<'_>,
    ) -> Result<ServiceClaims, Rejection> {
        let good = key.verify(jws.algorithm, jws.signing_input.as_bytes(), &jws.signature);
        drop(turn);
        if !good {
            self.keys.bad_signature_seen();
            return Err(RejectionReason::BadSignature.into());
        }
        let validity =
            self.policy.check_claims(&NamedClaims::scan(&jws.payload)?, self.clock.unix_now())?;
        let outcome = jws.claims().and_then(|claims| {
            self.policy.check_marker(&claims)?;
            Ok(ServiceClaims::proven(claims, validity.expires_at))
        });
        if self.cache.capacity() > 0 {
            self.cache.insert(CachedToken::new(token, outcome.clone(), key, validity));
        }
        outcome.map_err(Rejection::from)
    }

    fn with(mut self, change: impl FnOnce(&mut Policy)) -> Self {
        change(Arc::make_mut(&mut self.policy));
        // Results cached under the old policy no longer apply.
        self.cache = Arc::new(TokenCache::new(self.cache.capacity()));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jwks::LocalJwks;
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    /// A verifier that checks one signature at once, and tokens for it: good ones, numbered, and a
    /// forged one.
    fn one_at_once() -> (Verifier, impl Fn(u32) -> String, String) {
        let pair = Ed25519KeyPair::generate().unwrap();
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": URL_SAFE_NO_PAD.encode(pair.public_key())});
        let keys = LocalJwks::from_json(json!({ "keys": [jwk] }).to_string()).unwrap();
        let verifier = Verifier { turns: Arc::new(Turns::new(1)), ..Verifier::new(keys) };
        let sign = move |number: u32| {
            let claims = json!({"exp": 4_953_600_000_u64, "source": "microservice", "n": number})
                .to_string();
            let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","kid":"k"}"#);
            let input = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
            format!("{input}.{}", URL_SAFE_NO_PAD.encode(pair.sign(input.as_bytes())))
        };
        let forged =
            format!("{}.{}", sign(0).rsplit_once('.').unwrap().0, URL_SAFE_NO_PAD.encode([1; 64]));
        (verifier, sign, forged)
    }

    fn reason<T>(decided: Result<T, Rejection>) -> Option<RejectionReason> {
        decided.err().map(|rejection| rejection.reason())
    }

    #[tokio::test]
    async fn a_token_beyond_the_cap_waits_and_a_known_one_does_not() {
        let (verifier, sign, forged) = one_at_once();
        let known = sign(1);
        verifier.verify(&known).await.unwrap();

        let turn = verifier.turns.take().unwrap();
        assert!(verifier.cached(known.as_bytes()).is_some_and(|decided| decided.is_ok()));
        // What fails before its signature needs no turn.
        assert!(matches!(verifier.attempt("not.a.token"), Attempt::Decided(Err(_))));
        let (new, again) = (sign(2), sign(2));
        let [new, again, forged] = [new, again, forged].map(|token| {
            let verifier = verifier.clone();
            tokio::spawn(async move { verifier.verify(&token).await })
        });
        tokio::task::yield_now().await;
        assert!(!new.is_finished() && !again.is_finished() && !forged.is_finished());
        drop(turn);
        assert_eq!(new.await.unwrap().unwrap().get("n"), Some(&json!(2)));
        assert_eq!(again.await.unwrap().unwrap().get("n"), Some(&json!(2)));
        assert_eq!(reason(forged.await.unwrap()), Some(RejectionReason::BadSignature));
        assert!(verifier.turns.take().is_some());
    }

    #[tokio::test]
    async fn beyond_the_waiting_there_is_no_verdict() {
        let (verifier, sign, forged) = one_at_once();
        let turn = verifier.turns.take().unwrap();
        let places: Vec<_> = std::iter::from_fn(|| verifier.turns.queue().ok()).collect();
        for token in [sign(1), forged] {
            let rejection = verifier.verify(&token).await.unwrap_err();
            assert_eq!(rejection.reason(), RejectionReason::TooManyWaiting);
            assert_eq!(rejection.kind(), crate::RejectionKind::KeysUnavailable);
        }
        drop((turn, places));
        assert!(verifier.verify(&sign(1)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_expires_while_it_waits_is_refused() {
        let (verifier, sign, _) = one_at_once();
        let verifier = Verifier { clock: Clock::driven(4_953_600_000), ..verifier };
        let (turn, token) = (verifier.turns.take().unwrap(), sign(1));
        let Attempt::Waiting(wait) = verifier.attempt(&token) else { panic!("it does not wait") };
        verifier.clock.shift(30);
        drop(turn);
        assert_eq!(
            reason(verifier.clone().resume(token, wait).await),
            Some(RejectionReason::Expired)
        );
    }

    #[tokio::test]
    async fn a_key_that_is_retired_meanwhile_proves_nothing() {
        let (verifier, sign, _) = one_at_once();
        let (turn, token) = (verifier.turns.take().unwrap(), sign(1));
        let Attempt::Waiting(wait) = verifier.attempt(&token) else { panic!("it does not wait") };
        let Lookup::Found(key) = verifier.keys.look_up(Some("k"), Algorithm::EdDSA, 0) else {
            panic!("no key")
        };
        key.use_until(0);
        drop(turn);
        assert_eq!(
            reason(verifier.clone().resume(token, wait).await),
            Some(RejectionReason::UnknownKey)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn queued_token_that_would_not_pass_asks_for_no_key() {
        let (verifier, sign, _) = one_at_once();
        let verifier = Verifier { clock: Clock::driven(4_953_600_000), ..verifier };
        let (turn, token) = (verifier.turns.take().unwrap(), sign(1));
        let Attempt::Waiting(wait) = verifier.attempt(&token) else { panic!("it does not wait") };
        let Lookup::Found(key) = verifier.keys.look_up(Some("k"), Algorithm::EdDSA, 0) else {
            panic!("no key")
        };
        key.use_until(0);
        verifier.clock.shift(30);
        drop(turn);
        assert_eq!(
            reason(verifier.clone().resume(token, wait).await),
            Some(RejectionReason::Expired)
        );
    }

    #[tokio::test]
    async fn the_longest_token_is_as_long_as_was_configured() {
        let (verifier, sign, _) = one_at_once();
        assert_eq!(verifier.longest_token(), 8192);
        let token = sign(1);
        for (shorter_by, expected) in [(0, None), (1, Some(RejectionReason::TokenTooLong))] {
            let verifier = verifier.clone().max_token_len(token.len() - shorter_by);
            assert_eq!(verifier.longest_token(), token.len() - shorter_by);
            assert_eq!(reason(verifier.verify(&token).await), expected);
        }
    }

    #[tokio::test]
    async fn a_verdict_outlives_the_time_in_which_its_key_may_not_be_used() {
        let (verifier, sign, _) = one_at_once();
        let token = sign(1);
        verifier.verify(&token).await.unwrap();
        let Lookup::Found(key) = verifier.keys.look_up(Some("k"), Algorithm::EdDSA, 0) else {
            panic!("no key")
        };
        key.use_until(0);
        assert!(verifier.cached(token.as_bytes()).is_none());
        key.use_until(u64::MAX);
        assert!(verifier.cached(token.as_bytes()).is_some_and(|decided| decided.is_ok()));
    }

    #[test]
    fn every_way_to_configure_shares_the_cap_and_keeps_the_capacity() {
        let (verifier, ..) = one_at_once();
        let _turn = verifier.turns.take().unwrap();
        let configured = verifier.clone().cache_capacity(7).audience("billing");
        assert!(configured.turns.take().is_none());
        assert_eq!(configured.cache.capacity(), 7);
    }
}
