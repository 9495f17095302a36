//! A JWKS endpoint in memory that does whatever an endpoint may do.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::error::SourceError;
use crate::jose::Jwk;
use crate::jwks::remote::error::FetchError;
use crate::jwks::remote::fetch::{
    Exchange, Failure, FetchCause, Fetching, JwksResponse, Validators,
};

pub(super) const KIDS: u8 = 6;
pub(super) const MATERIALS: u8 = 2;

/// A key that may be listed: an id, and which of several keys stands under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Identity {
    pub(super) kid: u8,
    pub(super) material: u8,
}

impl Identity {
    pub(super) fn id(self) -> String {
        format!("k{}", self.kid)
    }

    fn jwk(self) -> &'static Value {
        &POOL[&self].0
    }

    /// The same key as the cache would have read it.
    pub(super) fn key(self) -> &'static Jwk {
        &POOL[&self].1
    }
}

/// Made once: generating keys would be most of the work of a seed.
static POOL: LazyLock<BTreeMap<Identity, (Value, Jwk)>> = LazyLock::new(|| {
    let identities =
        (0..KIDS).flat_map(|kid| (0..MATERIALS).map(move |material| Identity { kid, material }));
    let made = identities.map(|identity| {
        let x = URL_SAFE_NO_PAD.encode(Ed25519KeyPair::generate().unwrap().public_key().as_ref());
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "kid": identity.id(), "x": x});
        let key = Jwk::from_jwk(&jwk).unwrap();
        (identity, (jwk, key))
    });
    made.collect()
});

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behaviour {
    Answers,
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

/// One fetch, as the endpoint saw it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fetch {
    pub(super) begun: Instant,
    pub(super) cause: FetchCause,
    /// When it ended, or was cut off, and whether it brought a set. `None` while it is under way.
    pub(super) ended: Option<(Instant, bool)>,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) listed: BTreeMap<u8, u8>,
    pub(super) behaviour: Behaviour,
    pub(super) latency: Duration,
    pub(super) max_age: Option<u64>,
    pub(super) gives_etags: bool,
    pub(super) fetches: Vec<Fetch>,
    /// What the last good answer listed, and when its fetch began.
    pub(super) served: Option<(BTreeMap<u8, u8>, Instant)>,
    /// Until when it asked to be left alone.
    pub(super) retry_at: Option<Instant>,
    /// The first breach of the protocol that it saw.
    pub(super) complaint: Option<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Endpoint(Arc<Mutex<World>>);

impl Endpoint {
    pub(super) fn new(world: World) -> Self {
        Self(Arc::new(Mutex::new(world)))
    }

    /// An endpoint that lists `keys` and answers at once, as most tests begin.
    pub(super) fn listing(keys: &[Identity]) -> Self {
        Self::new(World {
            listed: keys.iter().map(|key| (key.kid, key.material)).collect(),
            behaviour: Behaviour::Answers,
            latency: Duration::from_millis(20),
            max_age: Some(3600),
            gives_etags: false,
            fetches: Vec::new(),
            served: None,
            retry_at: None,
            complaint: None,
        })
    }

    pub(super) fn set(&self, behaviour: Behaviour) {
        self.world().behaviour = behaviour;
    }

    /// How many fetches it has seen, and how many of those requests with unknown keys caused.
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

    /// What it says, read halfway through the exchange.
    fn answer(&self, known: &Validators) -> (Result<JwksResponse, Failure>, BTreeMap<u8, u8>) {
        let mut world = self.world();
        let keys: Vec<&Value> = world
            .listed
            .iter()
            .map(|(kid, material)| Identity { kid: *kid, material: *material }.jwk())
            .collect();
        let body = json!({ "keys": keys }).to_string();
        let etag = HeaderValue::try_from(format!("\"{:?}\"", world.listed)).unwrap();
        let lifetime = world.max_age.map(Duration::from_secs);
        let answer = match world.behaviour {
            Behaviour::Answers if world.gives_etags && known.etag.as_ref() == Some(&etag) => {
                if world.served.is_none() {
                    world.complaint = Some("a conditional request before any answer".to_owned());
                }
                Ok(JwksResponse { body: None, validators: Validators::default(), lifetime })
            }
            Behaviour::Answers => {
                let validators =
                    Validators { etag: world.gives_etags.then_some(etag), last_modified: None };
                Ok(JwksResponse { body: Some(body.into()), validators, lifetime })
            }
            Behaviour::Refuses | Behaviour::Hangs | Behaviour::ResetsMidway => {
                Err(FetchError::Connection { source: SourceError::new("refused") }.into())
            }
            Behaviour::Fails => Err(FetchError::Status { status: 500 }.into()),
            Behaviour::AsksToRetryAfter(wait) => {
                world.retry_at = Some(Instant::now() + wait);
                Err(Failure { error: FetchError::Status { status: 429 }, retry_after: Some(wait) })
            }
            Behaviour::SendsHtml => Ok(bad("<html></html>")),
            Behaviour::SendsHalf => Ok(bad(&body[..body.len() / 2])),
            Behaviour::SendsTooMuch => Err(FetchError::TooLarge { limit: 1 }.into()),
            Behaviour::SendsNoKeys => Ok(bad(r#"{"keys":[]}"#)),
            Behaviour::SendsNothing => Ok(bad("")),
            Behaviour::Panics => unreachable!("it does not come to an answer"),
        };
        (answer, world.listed.clone())
    }
}

fn bad(body: &str) -> JwksResponse {
    JwksResponse {
        body: Some(body.as_bytes().to_vec()),
        validators: Validators::default(),
        lifetime: None,
    }
}

impl Exchange for Endpoint {
    fn get(&self, cause: FetchCause, known: Validators) -> Fetching<'_> {
        Box::pin(async move {
            let (number, latency, behaviour) = {
                let mut world = self.world();
                let begun = Instant::now();
                if world.fetches.last().is_some_and(|last| last.ended.is_none()) {
                    world.complaint = Some("two fetches at once".to_owned());
                }
                world.fetches.push(Fetch { begun, cause, ended: None });
                (world.fetches.len() - 1, world.latency, world.behaviour)
            };
            let _end = End { endpoint: self, number };
            sleep(latency / 2).await;
            assert!(behaviour != Behaviour::Panics, "the exchange panics, as it was told to");
            let (answer, listed) = self.answer(&known);
            match behaviour {
                Behaviour::Hangs => std::future::pending().await,
                Behaviour::Refuses => {}
                _ => sleep(latency / 2).await,
            }
            let now = Instant::now();
            let good = brings_a_set(&answer);
            let mut world = self.world();
            world.fetches[number].ended = Some((now, good));
            if good {
                world.served = Some((listed, world.fetches[number].begun));
                world.retry_at = None;
            }
            answer
        })
    }

    fn endpoint(&self) -> String {
        "http://in-memory".to_owned()
    }
}

/// Notes that a fetch was cut off.
struct End<'e> {
    endpoint: &'e Endpoint,
    number: usize,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.endpoint.world().fetches[self.number].ended.get_or_insert((Instant::now(), false));
    }
}

/// Whether an answer brings a set, as far as its body tells.
fn brings_a_set(answer: &Result<JwksResponse, Failure>) -> bool {
    match answer {
        Ok(JwksResponse { body: Some(body), .. }) => {
            body.starts_with(b"{\"keys\":[{") && body.ends_with(b"}]}")
        }
        Ok(JwksResponse { body: None, .. }) => true,
        Err(_) => false,
    }
}
