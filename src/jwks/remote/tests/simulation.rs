//! Rotation, outages and an attacker, in virtual time: the guarantees (a) to (e) are checked after
//! every step.
//!
//! A seed decides everything: what the endpoint does, which keys it lists, who calls with what,
//! when the wall clock is set and when the task dies. `M2M_SIMULATION_SEEDS` sets how many seeds
//! are run, 500 by default; `M2M_SIMULATION_SEED` runs one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::endpoint::{Behaviour, Endpoint, Identity, KIDS, MATERIALS, World};
use super::laws::{Laws, Seen};
use crate::clock::Clock;
use crate::jose::Algorithm;
use crate::jose::Jwk;
use crate::jwks::lookup::Lookup;
use crate::jwks::remote::handle::RemoteJwks;
use crate::jwks::remote::limits::Limits;
use crate::jwks::remote::snapshot::Snapshot;
use crate::jwks::remote::task::FetchTask;
use crate::rejection::Rejection;

const STEPS: usize = 250;

#[derive(Clone, Copy)]
enum Caller {
    Honest(Identity),
    /// Names keys that there never are.
    Attacker,
    /// Names keys that there may be, now or one day.
    Guesser,
}

/// What one request came to.
struct Outcome {
    caller: Caller,
    sent: Instant,
    result: Result<Arc<Jwk>, Rejection>,
}

struct Simulation {
    rng: fastrand::Rng,
    endpoint: Endpoint,
    jwks: RemoteJwks,
    clock: Clock,
    laws: Laws,
    attack: usize,
    outcomes: (mpsc::UnboundedSender<Outcome>, mpsc::UnboundedReceiver<Outcome>),
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let max_age = rng.choice([None, Some(0), Some(40), Some(300), Some(100_000)]).flatten();
        let limits = Limits {
            max_age: Duration::from_secs(rng.choice([60, 600, 3600]).unwrap()),
            stale_if_error: Duration::from_secs(rng.choice([0, 120, 24 * 3600]).unwrap()),
            timeout: Duration::from_secs(5),
            cooldown: Duration::from_secs(10),
            max_keys: 100,
        };
        let endpoint = Endpoint::new(World {
            listed: BTreeMap::from([(0, 0)]),
            behaviour: if rng.u8(..4) == 0 { Behaviour::Refuses } else { Behaviour::Answers },
            latency: Duration::from_millis(rng.u64(..300)),
            max_age,
            gives_etags: rng.bool(),
            fetches: Vec::new(),
            served: None,
            retry_at: None,
            complaint: None,
        });
        let clock = Clock::driven(1_800_000_000);
        let laws = Laws::new(&limits, max_age);
        let jwks = remote_jwks(&endpoint, limits, &clock, seed);
        let attack = rng.choice([0, 1, 20]).unwrap();
        Self { rng, endpoint, jwks, clock, laws, attack, outcomes: mpsc::unbounded_channel() }
    }

    async fn run(mut self) -> Result<Seen, String> {
        for _ in 0..STEPS {
            self.change_the_world();
            self.call();
            let pause = match self.rng.u8(..10) {
                0..5 => self.rng.u64(..500),
                5..9 => self.rng.u64(..8_000),
                _ => self.rng.u64(..200_000),
            };
            sleep(Duration::from_millis(pause)).await;
            self.check()?;
        }
        self.laws.check_fetches(&self.endpoint.world().fetches)?;
        Ok(self.laws.seen())
    }

    fn change_the_world(&mut self) {
        let mut world = self.endpoint.world();
        let kid = self.rng.u8(..KIDS);
        match self.rng.u8(..40) {
            0..4 if !world.listed.contains_key(&kid) => {
                let identity = Identity { kid, material: self.rng.u8(..MATERIALS) };
                world.listed.insert(kid, identity.material);
                self.laws.listed(identity);
            }
            4..6 if world.listed.len() > 1 => {
                if let Some(material) = world.listed.remove(&kid) {
                    self.laws.removed(Identity { kid, material });
                }
            }
            6 => {
                if let Some(material) = world.listed.get_mut(&kid) {
                    self.laws.removed(Identity { kid, material: *material });
                    *material = (*material + 1) % MATERIALS;
                    self.laws.reused(Identity { kid, material: *material });
                }
            }
            7..10 => {
                world.behaviour = self.rng.choice(TROUBLE).unwrap();
                self.laws.trouble();
            }
            10..16 if world.behaviour != Behaviour::Answers => {
                world.behaviour = Behaviour::Answers;
                self.laws.answers(world.retry_at);
            }
            16 => world.latency = Duration::from_millis(self.rng.u64(..300)),
            17 => self.clock.shift(self.rng.choice([-3600, -5, 5, 3600]).unwrap()),
            18 => {
                self.laws.trouble();
                if world.behaviour == Behaviour::Answers {
                    self.laws.answers(world.retry_at);
                }
                // Its end is noted in the world, if it was fetching.
                drop(world);
                self.jwks.cache().abort_task();
            }
            _ => {}
        }
    }

    /// One honest caller of each kind, and the attacker.
    fn call(&mut self) {
        let listed: Vec<Identity> = {
            let world = self.endpoint.world();
            world
                .listed
                .iter()
                .map(|(kid, material)| Identity { kid: *kid, material: *material })
                .collect()
        };
        let honest = self.rng.choice(&listed).copied().unwrap();
        self.laws.used(honest);
        // The attacker comes first: the honest caller finds the gate as he leaves it.
        for _ in 0..self.attack {
            let (caller, id) = match self.rng.u8(..4) {
                0 => (Caller::Attacker, format!("stale-{}", self.rng.u8(..3))),
                1 => (Caller::Guesser, format!("k{}", self.rng.u8(..KIDS))),
                _ => (Caller::Attacker, format!("random-{}", self.rng.u64(..))),
            };
            self.send(caller, &id);
        }
        if self.attack > 0 {
            self.jwks.bad_signature_seen();
        }
        self.send(Caller::Honest(honest), &honest.id());
    }

    fn send(&self, caller: Caller, id: &str) {
        let sent = Instant::now();
        let outcomes = self.outcomes.0.clone();
        let done = move |result| drop(outcomes.send(Outcome { caller, sent, result }));
        match self.jwks.look_up(Some(id), Algorithm::EdDSA, self.clock.unix_now()) {
            Lookup::Found(key) => done(Ok(key)),
            Lookup::Refused(err) => done(Err(err.into())),
            Lookup::Pending(key) => {
                tokio::spawn(async move { done(key.await.map_err(Rejection::from)) });
            }
        }
    }

    fn check(&mut self) -> Result<(), String> {
        while let Ok(Outcome { caller, sent, result }) = self.outcomes.1.try_recv() {
            match (caller, result) {
                (Caller::Honest(identity), result) => self.laws.answered(identity, sent, result)?,
                (Caller::Attacker, Ok(_)) => {
                    return Err("a key that was never listed was found".to_owned());
                }
                (Caller::Attacker | Caller::Guesser, _) => {}
            }
        }
        let (served, complaint) = {
            let world = self.endpoint.world();
            (world.served.clone(), world.complaint.clone())
        };
        if let Some(complaint) = complaint {
            return Err(complaint);
        }
        let now = self.clock.unix_now();
        let look_up =
            |identity: Identity| self.jwks.look_up(Some(&identity.id()), Algorithm::EdDSA, now);
        self.laws.check_keys(served.as_ref(), now, look_up)
    }
}

pub(super) const TROUBLE: [Behaviour; 10] = [
    Behaviour::Refuses,
    Behaviour::Hangs,
    Behaviour::ResetsMidway,
    Behaviour::Fails,
    Behaviour::AsksToRetryAfter(Duration::from_secs(90)),
    Behaviour::SendsHtml,
    Behaviour::SendsHalf,
    Behaviour::SendsTooMuch,
    Behaviour::SendsNoKeys,
    Behaviour::SendsNothing,
];

/// A key set that fetches from `endpoint`.
pub(super) fn remote_jwks(
    endpoint: &Endpoint,
    limits: Limits,
    clock: &Clock,
    seed: u64,
) -> RemoteJwks {
    let snapshot = Snapshot::new(&limits, clock);
    start_from(snapshot, endpoint, limits, clock, seed)
}

/// The same, from a snapshot that holds a key set.
pub(super) fn start_from(
    snapshot: Snapshot,
    endpoint: &Endpoint,
    limits: Limits,
    clock: &Clock,
    seed: u64,
) -> RemoteJwks {
    let (exchange, rng) = (Box::new(endpoint.clone()), fastrand::Rng::with_seed(seed));
    RemoteJwks::from_task(FetchTask::new(limits, snapshot, None, exchange, clock.clone(), rng))
}

fn run_seed(seed: u64) -> Result<Seen, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async { Simulation::new(seed).run().await })
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

#[test]
fn the_guarantees_hold_through_rotation_outage_and_attack() {
    let seeds = match from_env("M2M_SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..from_env("M2M_SIMULATION_SEEDS").unwrap_or(500),
    };
    // Each thread takes the next seed that is left.
    let next = AtomicU64::new(seeds.start);
    let run = || {
        let mut seen = Seen::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return seen;
            }
            match run_seed(seed) {
                Ok(of_this_seed) => seen += of_this_seed,
                Err(violation) => {
                    panic!("seed {seed}: {violation} (M2M_SIMULATION_SEED={seed} repeats it)")
                }
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
    let mut seen = Seen::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        for worker in workers {
            seen += worker.join().expect("a seed failed; it is printed above");
        }
    });
    assert!(
        seen.says_something_of_each(seeds.end - seeds.start),
        "a law had nothing to say: {seen:?}"
    );
}
