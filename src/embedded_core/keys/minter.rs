//! Mints tokens, and bounds the number of mints in progress.

use std::num::NonZero;
use std::sync::Arc;
use std::thread;

use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::store::KeyStore;
use crate::clock::Clock;
use crate::jose::SigningKey;
use crate::jose::json::OrderedObject;
use crate::verify::SignatureLimit;

/// Maximum number of mints in progress. Their payloads take at most 32 MiB.
const MAX_MINTS: usize = 512;
const MAX_WAITING_MINTS: usize = MAX_MINTS / 2;

/// Signs tokens with the keys of a store.
#[derive(Debug)]
pub(crate) struct Minter {
    keys: Arc<KeyStore>,
    clock: Clock,
    /// Bounds the payloads in memory: each mint in progress holds at most one.
    in_progress: Arc<Semaphore>,
    /// Bounds the mints in progress that wait for a new key, so that mints with the static key are
    /// admitted meanwhile.
    waiting: Semaphore,
    /// One signature at a time for each processor. Not the blocking threads of the runtime: an
    /// application that occupies them would stop all mints.
    signatures: SignatureLimit,
}

impl Minter {
    pub(crate) fn new(keys: Arc<KeyStore>, clock: Clock) -> Self {
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        Self {
            keys,
            clock,
            in_progress: Arc::new(Semaphore::new(MAX_MINTS)),
            waiting: Semaphore::new(MAX_WAITING_MINTS),
            signatures: SignatureLimit::new(processors, processors),
        }
    }

    pub(crate) fn keys(&self) -> &Arc<KeyStore> {
        &self.keys
    }

    /// A permit for one mint. Fails at once at the limit, because a waiting mint holds memory too.
    pub(crate) fn admit(&self) -> Result<OwnedSemaphorePermit, MinterError> {
        self.in_progress.clone().try_acquire_owned().map_err(|_| MinterError::Busy)
    }

    /// Signs `token` into a compact JWS. `permit` is from [`admit`](Self::admit).
    pub(crate) async fn mint(
        &self,
        token: UnsignedToken,
        permit: OwnedSemaphorePermit,
    ) -> Result<String, MinterError> {
        let dynamic = token.key == KeyKind::Dynamic;
        let key =
            if dynamic { self.dynamic_key().await? } else { self.keys.current().static_key() };
        let validity_seconds = token.validity;
        let claims = token.into_claims(self.clock.unix_now());
        let jwt = self.sign(key.clone(), claims, permit).await.inspect_err(|_| {
            tracing::error!(kid = key.kid(), "signing failed");
        })?;
        tracing::info!(kid = key.kid(), dynamic, validity_seconds, "token minted");
        Ok(jwt)
    }

    /// The dynamic key that signs now. Waits for a new key only if every key is too old.
    async fn dynamic_key(&self) -> Result<SigningKey, MinterError> {
        if let Some(key) = self.keys.current().dynamic_key() {
            return Ok(key);
        }
        let _permit = self.waiting.try_acquire().map_err(|_| MinterError::Busy)?;
        self.keys.wait_for_new_key().await;
        Ok(self.keys.current().dynamic_or_newest_key())
    }

    /// Signs on a thread of the limit: on the async threads key sets would wait behind tokens. If
    /// the mint is dropped, the token is not signed, and its memory and `permit` are released when
    /// the token reaches the head of the queue.
    async fn sign(
        &self,
        key: SigningKey,
        claims: String,
        permit: OwnedSemaphorePermit,
    ) -> Result<String, MinterError> {
        let slot = self.signatures.enqueue().map_err(|_| MinterError::SigningFailed)?;
        let signing = slot.run(move |_| {
            let _permit = permit;
            Ok(key.sign(&claims))
        });
        signing.await.ok().and_then(Result::ok).ok_or(MinterError::SigningFailed)
    }
}

/// The kind of key that signs a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyKind {
    Static,
    Dynamic,
}

/// The content of a token, and the kind of key that signs it.
#[derive(Debug)]
pub(crate) struct UnsignedToken {
    issuer: String,
    payload: OrderedObject,
    /// Seconds from issue to expiry.
    validity: u64,
    key: KeyKind,
}

impl UnsignedToken {
    pub(crate) fn new(issuer: String, payload: OrderedObject, validity: u64, key: KeyKind) -> Self {
        Self { issuer, payload, validity, key }
    }

    /// The claims as JSON: `iat`, `exp` and `iss`, then those of the payload in their order. An
    /// `iat`, `exp` or `iss` of the payload replaces the value in place.
    fn into_claims(self, now: u64) -> String {
        let mut claims = OrderedObject::default();
        claims.insert("iat", now.to_string());
        claims.insert("exp", now.saturating_add(self.validity).to_string());
        claims.insert("iss", Value::from(self.issuer).to_string());
        for (name, json) in self.payload.into_members() {
            if name != "aud" {
                claims.insert(name, json);
            } else if let Some(audience) = audience(&json) {
                claims.insert(name, audience.to_string());
            }
        }
        claims.into_json()
    }
}

/// Why a token is not minted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MinterError {
    /// Too many mints are in progress, or wait for a new key.
    Busy,
    /// The crypto library failed, or the runtime is shutting down.
    SigningFailed,
}

/// The audience as a SuperTokens core writes it: only the strings of an array, and a string for an
/// array of one (RFC 7519 §4.1.3). `None` if there is no string.
fn audience(json: &str) -> Option<Value> {
    match serde_json::from_str(json).ok()? {
        Value::Array(mut audiences) => {
            audiences.retain(Value::is_string);
            if audiences.len() > 1 { Some(Value::Array(audiences)) } else { audiences.pop() }
        }
        value => value.is_string().then_some(value),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::task;
    use tokio::time::timeout;

    use super::*;
    use crate::embedded_core::keys::rotation::Rotation;

    /// A test fails if a mint takes longer. It only ends a hang.
    const TIMEOUT: Duration = Duration::from_secs(120);

    impl UnsignedToken {
        pub(crate) fn validity(&self) -> u64 {
            self.validity
        }

        pub(crate) fn key(&self) -> KeyKind {
            self.key
        }
    }

    async fn minter() -> Arc<Minter> {
        let hour = Duration::from_secs(3600);
        let rotation = Rotation::new(168 * hour, hour).unwrap();
        let keys = KeyStore::open(None, rotation, Clock::default()).await.unwrap();
        Arc::new(Minter::new(Arc::new(keys), Clock::default()))
    }

    fn token(payload: OrderedObject) -> UnsignedToken {
        UnsignedToken::new("i".to_owned(), payload, 60, KeyKind::Static)
    }

    /// Every permit to sign that is free.
    fn signature_permits(minter: &Minter) -> Vec<impl Sized + '_> {
        std::iter::from_fn(|| minter.signatures.try_acquire()).collect()
    }

    async fn mint(minter: Arc<Minter>) -> Result<String, MinterError> {
        let permit = minter.admit()?;
        minter.mint(token(OrderedObject::default()), permit).await
    }

    #[tokio::test]
    async fn concurrent_mints_sign_their_own_claims() {
        let minter = minter().await;
        let key = minter.keys.current().static_key();
        let signing: Vec<_> = (0..200)
            .map(|n| {
                let (minter, key) = (minter.clone(), key.clone());
                let permit = minter.admit().unwrap();
                let claims = format!(r#"{{"n":{n}}}"#);
                tokio::spawn(async move { minter.sign(key, claims, permit).await })
            })
            .collect();
        for (n, signing) in signing.into_iter().enumerate() {
            let jwt = signing.await.unwrap().ok();
            assert_eq!(jwt, key.sign(&format!(r#"{{"n":{n}}}"#)).ok());
        }
    }

    #[tokio::test]
    async fn dropped_mint_counts_until_it_leaves_the_queue() {
        let minter = minter().await;
        let busy = signature_permits(&minter);
        let dropped = tokio::spawn(mint(minter.clone()));
        task::yield_now().await;
        // Key sets do not wait for signatures.
        let key = minter.keys.current().static_key();
        assert!(minter.keys.current().to_json().contains(key.kid()));
        dropped.abort();
        assert!(dropped.await.unwrap_err().is_cancelled());
        assert_eq!(minter.in_progress.available_permits(), MAX_MINTS - 1);
        drop(busy);
        while minter.in_progress.available_permits() < MAX_MINTS {
            task::yield_now().await;
        }
        assert!(mint(minter).await.is_ok());
    }

    #[test]
    fn busy_blocking_threads_do_not_delay_a_mint() {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.max_blocking_threads(1).enable_time().build().unwrap();
        let (release, released) = std::sync::mpsc::channel::<()>();
        runtime.block_on(async {
            let minter = minter().await;
            let busy = task::spawn_blocking(move || released.recv());
            let minted = timeout(TIMEOUT, mint(minter)).await;
            assert!(minted.expect("the mint waits for a blocking thread").is_ok());
            drop(release);
            busy.await.unwrap().unwrap_err();
        });
    }

    #[test]
    fn unpolled_mints_do_not_delay_other_mints() {
        let runtime =
            || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let minter = runtime().block_on(minter());
        let busy = signature_permits(&minter);
        let idle: Vec<_> = (0..4 * busy.len())
            .map(|_| {
                let idle = runtime();
                idle.spawn(mint(minter.clone()));
                idle.block_on(task::yield_now());
                idle
            })
            .collect();
        drop(busy);
        let minted = runtime().block_on(async { timeout(TIMEOUT, mint(minter.clone())).await });
        assert!(minted.expect("the mint waits for idle runtimes").is_ok());
        drop(idle);
    }

    #[test]
    fn claims_keep_their_order_and_override_in_place() {
        let cases = [
            ("{}", r#"{"iat":100,"exp":160,"iss":"i"}"#),
            (
                r#"{"z":1,"a":{"y":null,"b":[]}}"#,
                r#"{"iat":100,"exp":160,"iss":"i","z":1,"a":{"y":null,"b":[]}}"#,
            ),
            (
                r#"{"x":1,"exp":"never","iat":null}"#,
                r#"{"iat":null,"exp":"never","iss":"i","x":1}"#,
            ),
            (r#"{"iss":7}"#, r#"{"iat":100,"exp":160,"iss":7}"#),
            (r#"{"x":1,"y":2,"x":3}"#, r#"{"iat":100,"exp":160,"iss":"i","x":3,"y":2}"#),
            (
                r#"{"aud":"a","é":"\u2028</x>"}"#,
                "{\"iat\":100,\"exp\":160,\"iss\":\"i\",\"aud\":\"a\",\"é\":\"\u{2028}</x>\"}",
            ),
            (r#"{"aud":["a"],"x":1}"#, r#"{"iat":100,"exp":160,"iss":"i","aud":"a","x":1}"#),
            (r#"{"aud":["b","a"]}"#, r#"{"iat":100,"exp":160,"iss":"i","aud":["b","a"]}"#),
            (r#"{"aud":[]}"#, r#"{"iat":100,"exp":160,"iss":"i"}"#),
            (r#"{"aud":""}"#, r#"{"iat":100,"exp":160,"iss":"i","aud":""}"#),
            (r#"{"aud":["a",1],"x":1}"#, r#"{"iat":100,"exp":160,"iss":"i","aud":"a","x":1}"#),
            (r#"{"aud":[null,"a"]}"#, r#"{"iat":100,"exp":160,"iss":"i","aud":"a"}"#),
            (r#"{"aud":["a",["b"]]}"#, r#"{"iat":100,"exp":160,"iss":"i","aud":"a"}"#),
            (r#"{"aud":["a",{}]}"#, r#"{"iat":100,"exp":160,"iss":"i","aud":"a"}"#),
            (
                r#"{"x":1,"aud":["b",true,"a","b"],"y":2}"#,
                r#"{"iat":100,"exp":160,"iss":"i","x":1,"aud":["b","a","b"],"y":2}"#,
            ),
            (r#"{"aud":["","a"]}"#, r#"{"iat":100,"exp":160,"iss":"i","aud":["","a"]}"#),
            (r#"{"x":1,"aud":[1],"y":2}"#, r#"{"iat":100,"exp":160,"iss":"i","x":1,"y":2}"#),
            (r#"{"aud":[[]]}"#, r#"{"iat":100,"exp":160,"iss":"i"}"#),
            (r#"{"aud":1.5}"#, r#"{"iat":100,"exp":160,"iss":"i"}"#),
            (r#"{"aud":null,"x":1}"#, r#"{"iat":100,"exp":160,"iss":"i","x":1}"#),
            (r#"{"aud":{"a":1}}"#, r#"{"iat":100,"exp":160,"iss":"i"}"#),
            (
                r#"{"x":9223372036854775807,"y":1.5}"#,
                r#"{"iat":100,"exp":160,"iss":"i","x":9223372036854775807,"y":1.5}"#,
            ),
        ];
        for (payload, expected) in cases {
            let read = OrderedObject::read(payload.as_bytes()).unwrap();
            assert_eq!(token(read).into_claims(100), expected, "{payload}");
        }
    }
}
