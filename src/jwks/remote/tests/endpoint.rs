//! A JWKS endpoint in memory, with every failure that a real one may have.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::Duration;

use http::HeaderValue;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::error::SourceError;
use crate::jose::{Algorithm, Jwk, SigningKey};
use crate::jwks::remote::error::FetchError;
use crate::jwks::remote::fetch::{FetchCause, FetchFuture, JwksEndpoint, JwksResponse, Validators};
use crate::jwks::remote::http_get::Failure;

pub(super) const KIDS: u8 = 6;
pub(super) const MATERIALS: u8 = 2;

/// A key that the endpoint may list: its kid, and the number of its key pair among those of that
/// kid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct TestKey {
    pub(super) kid: u8,
    pub(super) material: u8,
}

impl TestKey {
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..KIDS).flat_map(|kid| (0..MATERIALS).map(move |material| Self { kid, material }))
    }

    pub(super) fn kid(self) -> String {
        format!("k{}", self.kid)
    }

    fn json(self) -> &'static Value {
        &POOL[&self].0
    }

    pub(super) fn jwk(self) -> &'static Jwk {
        &POOL[&self].1
    }

    /// Signs claims, which are JSON.
    pub(super) fn sign(self, claims: &str) -> String {
        POOL[&self].2.sign(claims).unwrap()
    }
}

/// Generated once: it takes longer than the rest of a simulation.
static POOL: LazyLock<BTreeMap<TestKey, (Value, Jwk, SigningKey)>> = LazyLock::new(|| {
    let pool = TestKey::all().map(|test_key| {
        let key = SigningKey::generate(Algorithm::EdDSA).unwrap().with_kid(test_key.kid());
        let json = serde_json::from_str(key.public_jwk()).unwrap();
        let jwk = Jwk::from_jwk(&json).unwrap();
        (test_key, (json, jwk, key))
    });
    pool.collect()
});

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behaviour {
    Responds,
    Refuses,
    Hangs,
    ResetsMidway,
    Fails,
    AsksToRetryAfter(Duration),
    SendsHtml,
    SendsHalf,
    SendsTooMuch,
    SendsNoKeys,
    SendsNothing,
    Panics,
}

/// A fetch, as the endpoint sees it.
#[derive(Clone, Debug)]
pub(super) struct Fetch {
    pub(super) started: Instant,
    pub(super) cause: FetchCause,
    /// When it ended or was dropped, and whether it returned a set. `None` while it is in progress.
    pub(super) ended: Option<(Instant, bool)>,
    /// The keys that its response listed or confirmed.
    pub(super) listed: Option<BTreeMap<u8, u8>>,
}

/// The validators of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Etags {
    None,
    Honest,
    /// One for all contents: every conditional request gets a 304.
    Constant,
}

/// The state of the endpoint.
#[derive(Debug)]
pub(super) struct World {
    pub(super) listed: BTreeMap<u8, u8>,
    pub(super) behaviour: Behaviour,
    pub(super) latency: Duration,
    pub(super) max_age: Option<u64>,
    pub(super) etags: Etags,
    /// Whether two servers respond at random. Both list the key `k0`; one lists the other keys of
    /// even kids, one those of odd kids.
    pub(super) is_flapping: bool,
    pub(super) rng: fastrand::Rng,
    pub(super) fetches: Vec<Fetch>,
    /// The keys of the last good response in full.
    pub(super) served: Option<BTreeMap<u8, u8>>,
    /// The end of its last `Retry-After`.
    pub(super) retry_at: Option<Instant>,
    /// A violation of the protocol by the cache.
    pub(super) violation: Option<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Endpoint(Arc<Mutex<World>>);

impl Endpoint {
    pub(super) fn new(world: World) -> Self {
        Self(Arc::new(Mutex::new(world)))
    }

    /// An endpoint that lists `keys` and responds within 20 ms.
    pub(super) fn listing(keys: &[TestKey]) -> Self {
        Self::new(World {
            listed: keys.iter().map(|key| (key.kid, key.material)).collect(),
            behaviour: Behaviour::Responds,
            latency: Duration::from_millis(20),
            max_age: Some(3600),
            etags: Etags::None,
            is_flapping: false,
            rng: fastrand::Rng::with_seed(7),
            fetches: Vec::new(),
            served: None,
            retry_at: None,
            violation: None,
        })
    }

    pub(super) fn set(&self, behaviour: Behaviour) {
        self.world().behaviour = behaviour;
    }

    /// The number of all fetches, and of those for unknown keys.
    pub(super) fn fetches(&self) -> (usize, usize) {
        let world = self.world();
        (
            world.fetches.len(),
            world.fetches.iter().filter(|fetch| fetch.cause == FetchCause::UnknownKey).count(),
        )
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    /// The response, and the keys that it lists or confirms.
    fn respond(
        &self,
        cause: FetchCause,
        validators: &Validators,
    ) -> (Result<JwksResponse, Failure>, BTreeMap<u8, u8>) {
        let mut world = self.world();
        if cause != FetchCause::Scheduled && !validators.is_empty() {
            world.violation = Some(format!("a conditional fetch for {cause:?}"));
        }
        let listed = world.list();
        let keys: Vec<&Value> = listed
            .iter()
            .map(|(kid, material)| TestKey { kid: *kid, material: *material }.json())
            .collect();
        let body = json!({ "keys": keys }).to_string();
        let etag = match world.etags {
            Etags::Honest => HeaderValue::try_from(format!("\"{listed:?}\"")).unwrap(),
            Etags::None | Etags::Constant => HeaderValue::from_static("\"constant\""),
        };
        let lifetime = world.max_age.map(Duration::from_secs);
        let response = match world.behaviour {
            Behaviour::Responds if validators.etag.as_ref() == Some(&etag) => {
                let Some(served) = world.served.clone() else {
                    panic!("a conditional request before the first response");
                };
                let validators = Validators::default();
                return (Ok(JwksResponse { body: None, validators, lifetime }), served);
            }
            Behaviour::Responds => {
                let etag = Some(etag).filter(|_| world.etags != Etags::None);
                let validators = Validators { etag, ..Validators::default() };
                Ok(JwksResponse { body: Some(body.into()), validators, lifetime })
            }
            Behaviour::Refuses | Behaviour::Hangs | Behaviour::ResetsMidway => {
                Err(FetchError::Connection { source: SourceError::new("refused") }.into())
            }
            Behaviour::Fails => Err(FetchError::Status { status: 500, is_html: false }.into()),
            Behaviour::AsksToRetryAfter(wait) => {
                world.retry_at = Some(Instant::now() + wait);
                Err(Failure {
                    error: FetchError::Status { status: 429, is_html: false },
                    retry_after: Some(wait),
                })
            }
            Behaviour::SendsHtml => Ok(bad("<html></html>")),
            Behaviour::SendsHalf => Ok(bad(&body[..body.len() / 2])),
            Behaviour::SendsTooMuch => Err(FetchError::TooLarge { limit: 1 }.into()),
            Behaviour::SendsNoKeys => Ok(bad(r#"{"keys":[]}"#)),
            Behaviour::SendsNothing => Ok(bad("")),
            Behaviour::Panics => unreachable!("`fetch` panics before it calls this"),
        };
        (response, listed)
    }
}

impl World {
    /// The keys that the responding server lists.
    fn list(&mut self) -> BTreeMap<u8, u8> {
        let mut listed = self.listed.clone();
        if self.is_flapping {
            let server = self.rng.u8(..2);
            listed.retain(|kid, _| *kid == 0 || kid % 2 == server);
        }
        if listed.is_empty() { self.listed.clone() } else { listed }
    }
}

fn bad(body: &str) -> JwksResponse {
    JwksResponse {
        body: Some(body.as_bytes().to_vec()),
        validators: Validators::default(),
        lifetime: None,
    }
}

impl JwksEndpoint for Endpoint {
    fn fetch(&self, cause: FetchCause, validators: Validators) -> FetchFuture<'_> {
        Box::pin(async move {
            let (number, latency, behaviour) = {
                let mut world = self.world();
                let started = Instant::now();
                if world.fetches.last().is_some_and(|last| last.ended.is_none()) {
                    world.violation = Some("two fetches at once".to_owned());
                }
                world.fetches.push(Fetch { started, cause, ended: None, listed: None });
                (world.fetches.len() - 1, world.latency, world.behaviour)
            };
            let _guard = DropGuard { endpoint: self, number };
            sleep(latency / 2).await;
            assert!(behaviour != Behaviour::Panics, "a scripted panic");
            let (response, listed) = self.respond(cause, &validators);
            match behaviour {
                Behaviour::Hangs => std::future::pending().await,
                Behaviour::Refuses => {}
                _ => sleep(latency / 2).await,
            }
            let now = Instant::now();
            let good = is_good(&response);
            let mut world = self.world();
            world.fetches[number].ended = Some((now, good));
            if good {
                world.fetches[number].listed = Some(listed.clone());
                world.served = Some(listed);
                world.retry_at = None;
            }
            response
        })
    }

    fn printable_url(&self) -> String {
        "http://in-memory".to_owned()
    }
}

/// Records the end of a fetch that is dropped.
struct DropGuard<'e> {
    endpoint: &'e Endpoint,
    number: usize,
}

impl Drop for DropGuard<'_> {
    fn drop(&mut self) {
        self.endpoint.world().fetches[self.number].ended.get_or_insert((Instant::now(), false));
    }
}

/// Whether the response holds a set, judged by the beginning and the end of its body.
fn is_good(response: &Result<JwksResponse, Failure>) -> bool {
    match response {
        Ok(JwksResponse { body: Some(body), .. }) => {
            body.starts_with(b"{\"keys\":[{") && body.ends_with(b"}]}")
        }
        Ok(JwksResponse { body: None, .. }) => true,
        Err(_) => false,
    }
}
