//! Mints tokens, and bounds the number of mints in progress.

use std::sync::Arc;

use serde_json::{Map, Value};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinSet;

use super::store::KeyStore;
use crate::clock::Clock;
use crate::jose::SigningKey;

/// Maximum number of mints in progress. Their payloads take at most 32 MiB.
const MAX_MINTS: usize = 512;
const MAX_WAITING_MINTS: usize = MAX_MINTS / 2;

/// Signs tokens with the keys of a store.
#[derive(Debug)]
pub(crate) struct Minter {
    keys: Arc<KeyStore>,
    clock: Clock,
    /// Bounds the payloads in memory: each mint in progress holds at most one.
    in_progress: Semaphore,
    /// Bounds the mints in progress that wait for a new key, so that mints with the static key are
    /// admitted meanwhile.
    waiting: Semaphore,
}

impl Minter {
    pub(crate) fn new(keys: Arc<KeyStore>, clock: Clock) -> Self {
        let (in_progress, waiting) = (Semaphore::new(MAX_MINTS), Semaphore::new(MAX_WAITING_MINTS));
        Self { keys, clock, in_progress, waiting }
    }

    pub(crate) fn keys(&self) -> &Arc<KeyStore> {
        &self.keys
    }

    /// A permit for one mint. Fails at once at the limit, because a waiting mint holds memory too.
    pub(crate) fn admit(&self) -> Result<SemaphorePermit<'_>, MinterError> {
        self.in_progress.try_acquire().map_err(|_| MinterError::Busy)
    }

    /// Signs `token` into a compact JWS.
    pub(crate) async fn mint(&self, token: UnsignedToken) -> Result<String, MinterError> {
        let dynamic = token.key == KeyKind::Dynamic;
        let key =
            if dynamic { self.dynamic_key().await? } else { self.keys.current().static_key() };
        let validity_seconds = token.validity;
        let claims = token.into_claims(self.clock.unix_now());
        let jwt = self.sign(key.clone(), claims).await.inspect_err(|_| {
            tracing::error!(kid = key.kid(), "signing failed");
        })?;
        tracing::info!(kid = key.kid(), dynamic, validity_seconds, "token minted");
        Ok(jwt)
    }

    /// The dynamic key that signs now. Waits for a new key only if every key is too old.
    async fn dynamic_key(&self) -> Result<Arc<SigningKey>, MinterError> {
        if let Some(key) = self.keys.current().dynamic_key() {
            return Ok(key);
        }
        let _permit = self.waiting.try_acquire().map_err(|_| MinterError::Busy)?;
        self.keys.wait_for_new_key().await;
        Ok(self.keys.current().dynamic_or_newest_key())
    }

    /// Signs on a blocking thread. On the async threads, signing would delay other responses.
    async fn sign(&self, key: Arc<SigningKey>, claims: String) -> Result<String, MinterError> {
        let jwt = run_blocking(move || key.sign(&claims)).await;
        jwt.and_then(Result::ok).ok_or(MinterError::SigningFailed)
    }
}

/// Runs `work` on a blocking thread. `None` if it panics or the runtime shuts down.
///
/// Dropping the future cancels `work` that no thread has started: `JoinSet` aborts it, a plain
/// `JoinHandle` would not. [`MAX_MINTS`] also bounds the threads. With a semaphore of one permit
/// per processor, waiting tasks that are not polled could hold all permits.
async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let mut job = JoinSet::new();
    job.spawn_blocking(work);
    job.join_next().await?.ok()
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
    payload: Map<String, Value>,
    /// Seconds from issue to expiry.
    validity: u64,
    key: KeyKind,
}

impl UnsignedToken {
    pub(crate) fn new(
        issuer: String,
        payload: Map<String, Value>,
        validity: u64,
        key: KeyKind,
    ) -> Self {
        Self { issuer, payload, validity, key }
    }

    /// The claims as JSON: `iat`, `exp` and `iss`, then those of the payload in their order. An
    /// `iat`, `exp` or `iss` of the payload replaces the value in place.
    fn into_claims(self, now: u64) -> String {
        let mut claims = Map::with_capacity(3 + self.payload.len());
        claims.insert("iat".to_owned(), now.into());
        claims.insert("exp".to_owned(), now.saturating_add(self.validity).into());
        claims.insert("iss".to_owned(), self.issuer.into());
        for (name, value) in self.payload {
            if name != "aud" {
                claims.insert(name, value);
            } else if let Some(audience) = audience(value) {
                claims.insert(name, audience);
            }
        }
        Value::Object(claims).to_string()
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

/// The audience as a SuperTokens core writes it: a string for an array of one (RFC 7519 §4.1.3).
/// `None` if the value is not an audience.
fn audience(value: Value) -> Option<Value> {
    match value {
        Value::String(_) => Some(value),
        Value::Array(mut audiences) if audiences.iter().all(Value::is_string) => {
            match audiences.len() {
                0 | 1 => audiences.pop(),
                _ => Some(Value::Array(audiences)),
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use tokio::task;
    use tokio::time::timeout;

    use super::*;
    use crate::embedded_core::keys::rotation::Rotation;

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

    fn token(payload: Map<String, Value>) -> UnsignedToken {
        UnsignedToken::new("i".to_owned(), payload, 60, KeyKind::Static)
    }

    #[tokio::test]
    async fn concurrent_mints_sign_their_own_claims() {
        let minter = minter().await;
        let key = minter.keys.current().static_key();
        let signing: Vec<_> = (0..200)
            .map(|n| {
                let (minter, key) = (minter.clone(), key.clone());
                tokio::spawn(async move { minter.sign(key, format!(r#"{{"n":{n}}}"#)).await })
            })
            .collect();
        for (n, signing) in signing.into_iter().enumerate() {
            let jwt = signing.await.unwrap().ok();
            assert_eq!(jwt, key.sign(&format!(r#"{{"n":{n}}}"#)).ok());
        }
    }

    #[test]
    fn mint_dropped_while_queued_is_not_signed() {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.max_blocking_threads(1).build().unwrap();
        let (release, released) = mpsc::channel::<()>();
        let has_run = Arc::new(AtomicBool::new(false));
        runtime.block_on(async {
            let occupies_the_thread = task::spawn_blocking(move || released.recv());
            let waiting = tokio::spawn({
                let has_run = has_run.clone();
                run_blocking(move || has_run.store(true, Ordering::Relaxed))
            });
            task::yield_now().await;
            waiting.abort();
            assert!(waiting.await.unwrap_err().is_cancelled());
            drop(release);
            occupies_the_thread.await.unwrap().unwrap_err();
            run_blocking(|| ()).await.unwrap();
        });
        assert!(!has_run.load(Ordering::Relaxed));
    }

    #[test]
    fn unpolled_mints_do_not_delay_other_mints() {
        let runtime =
            || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let minter = runtime().block_on(minter());
        let mint = |minter: Arc<Minter>| async move { minter.mint(token(Map::new())).await };
        let processors = thread::available_parallelism().unwrap().get();
        let idle: Vec<_> = (0..4 * processors)
            .map(|_| {
                let idle = runtime();
                idle.spawn(mint(minter.clone()));
                idle.block_on(task::yield_now());
                idle
            })
            .collect();
        let minted = runtime()
            .block_on(async { timeout(Duration::from_secs(20), mint(minter.clone())).await });
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
            (r#"{"aud":["a",1]}"#, r#"{"iat":100,"exp":160,"iss":"i"}"#),
            (r#"{"aud":null,"x":1}"#, r#"{"iat":100,"exp":160,"iss":"i","x":1}"#),
            (r#"{"aud":{"a":1}}"#, r#"{"iat":100,"exp":160,"iss":"i"}"#),
            (
                r#"{"x":9223372036854775807,"y":1.5}"#,
                r#"{"iat":100,"exp":160,"iss":"i","x":9223372036854775807,"y":1.5}"#,
            ),
        ];
        for (payload, expected) in cases {
            let payload_map = crate::jose::json::lenient_object(payload.as_bytes()).unwrap();
            let token = UnsignedToken::new("i".to_owned(), payload_map, 60, KeyKind::Static);
            assert_eq!(token.into_claims(100), expected, "{payload}");
        }
    }
}
