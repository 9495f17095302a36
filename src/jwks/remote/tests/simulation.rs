//! Simulates rotation, outages and an attacker in virtual time, and checks the guarantees (a) to
//! (e) after every step.
//!
//! A simulation is determined by its seed: what the endpoint does, which keys it lists, which
//! requests arrive, when the wall clock is set and when the task ends. `M2M_SIMULATION_SEEDS` is
//! the number of seeds, 200 by default; `M2M_SIMULATION_SEED` runs one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::coverage::Coverage;
use super::endpoint::{Behaviour, Endpoint, Etags, KIDS, MATERIALS, TestKey, World};
use super::invariants::Invariants;
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
    /// Uses a listed key.
    Honest(TestKey),
    /// Uses kids that are never listed.
    Attacker,
    /// Uses kids that may be listed.
    Guesser,
}

/// The outcome of one request.
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
    invariants: Invariants,
    /// The keys that may be listed. Without those that were listed before, if none returns.
    unused: Option<BTreeSet<TestKey>>,
    /// The number of requests of the attacker in each step.
    attack: usize,
    outcomes: (mpsc::UnboundedSender<Outcome>, mpsc::UnboundedReceiver<Outcome>),
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let max_age = rng.choice([None, Some(0), Some(40), Some(300), Some(100_000)]).flatten();
        let limits = Limits {
            min_age: Duration::from_secs(30),
            max_age: Duration::from_secs(rng.choice([60, 600, 3600]).unwrap()),
            stale_if_error: Duration::from_secs(rng.choice([0, 120, 24 * 3600]).unwrap()),
            timeout: Duration::from_secs(5),
            cooldown: Duration::from_secs(10),
            max_keys: 100,
        };
        let world = World {
            listed: BTreeMap::from([(0, 0)]),
            behaviour: if rng.u8(..4) == 0 { Behaviour::Refuses } else { Behaviour::Responds },
            latency: Duration::from_millis(rng.u64(..300)),
            max_age,
            etags: rng.choice([Etags::None, Etags::Honest, Etags::Constant]).unwrap(),
            is_flapping: rng.u8(..4) == 0,
            rng: rng.fork(),
            fetches: Vec::new(),
            served: None,
            retry_at: None,
            violation: None,
        };
        let clock = Clock::driven(1_800_000_000);
        let invariants = Invariants::new(&limits, &world);
        let endpoint = Endpoint::new(world);
        let unused = rng.bool().then(|| TestKey::all().skip(1).collect());
        let jwks = remote_jwks(&endpoint, limits, &clock, seed);
        let attack = rng.choice([0, 1, 20]).unwrap();
        let outcomes = mpsc::unbounded_channel();
        Self { rng, endpoint, jwks, clock, invariants, unused, attack, outcomes }
    }

    async fn run(mut self) -> Result<Coverage, String> {
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
        self.invariants.check_fetches(&self.endpoint.world().fetches)?;
        Ok(self.invariants.coverage())
    }

    fn change_the_world(&mut self) {
        let mut world = self.endpoint.world();
        let kid = self.rng.u8(..KIDS);
        match self.rng.u8(..40) {
            0..4 if !world.listed.contains_key(&kid) => {
                let test_key = TestKey { kid, material: self.rng.u8(..MATERIALS) };
                if self.unused.as_mut().is_none_or(|unused| unused.remove(&test_key)) {
                    world.listed.insert(kid, test_key.material);
                    self.invariants.key_listed(test_key);
                }
            }
            4..6 if world.listed.len() > 1 => {
                if let Some(material) = world.listed.remove(&kid) {
                    self.invariants.key_removed(TestKey { kid, material });
                }
            }
            6 if self.unused.is_none() => {
                if let Some(material) = world.listed.get_mut(&kid) {
                    self.invariants.key_removed(TestKey { kid, material: *material });
                    *material = (*material + 1) % MATERIALS;
                    self.invariants.kid_reused(TestKey { kid, material: *material });
                }
            }
            7..10 => {
                world.behaviour = self.rng.choice(FAILURES).unwrap();
                self.invariants.endpoint_failed();
            }
            10..16 if world.behaviour != Behaviour::Responds => {
                world.behaviour = Behaviour::Responds;
                self.invariants.endpoint_recovered(world.retry_at);
            }
            16 => world.latency = Duration::from_millis(self.rng.u64(..300)),
            17 => {
                let seconds = self.rng.choice([-3600, -5, 5, 3600]).unwrap();
                self.clock.shift(seconds);
                self.invariants.clock_shifted(seconds);
            }
            18 => {
                self.invariants.endpoint_failed();
                if world.behaviour == Behaviour::Responds {
                    self.invariants.endpoint_recovered(world.retry_at);
                }
                // Aborting the task drops a fetch in progress, which locks `world`.
                drop(world);
                self.jwks.shared().abort_task();
            }
            19 => {
                let jwks = self.jwks.clone();
                tokio::spawn(async move { jwks.refresh().await });
            }
            _ => {}
        }
    }

    /// Sends the attacker's requests and one of an honest caller.
    fn call(&mut self) {
        let listed: Vec<TestKey> = {
            let world = self.endpoint.world();
            world
                .listed
                .iter()
                .map(|(kid, material)| TestKey { kid: *kid, material: *material })
                .collect()
        };
        let honest = self.rng.choice(&listed).copied().unwrap();
        self.invariants.key_used(honest);
        // The attacker first, to exhaust the fetch limit.
        for _ in 0..self.attack {
            let (caller, kid) = match self.rng.u8(..4) {
                0 => (Caller::Attacker, format!("stale-{}", self.rng.u8(..3))),
                1 => (Caller::Guesser, format!("k{}", self.rng.u8(..KIDS))),
                _ => (Caller::Attacker, format!("random-{}", self.rng.u64(..))),
            };
            self.send(caller, &kid);
        }
        if self.attack > 0 {
            self.jwks.bad_signature_seen();
        }
        self.send(Caller::Honest(honest), &honest.kid());
    }

    fn send(&self, caller: Caller, kid: &str) {
        let sent = Instant::now();
        let outcomes = self.outcomes.0.clone();
        let done = move |result| drop(outcomes.send(Outcome { caller, sent, result }));
        match self.jwks.look_up(Some(kid), Algorithm::EdDSA, self.clock.unix_now()) {
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
                (Caller::Honest(test_key), result) => {
                    self.invariants.check_result(test_key, sent, result)?
                }
                (Caller::Attacker, Ok(_)) => {
                    return Err("a key that was never listed was found".to_owned());
                }
                (Caller::Attacker | Caller::Guesser, _) => {}
            }
        }
        {
            let world = self.endpoint.world();
            if let Some(violation) = &world.violation {
                return Err(violation.clone());
            }
            self.invariants.read(&world.fetches);
        }
        let now = self.clock.unix_now();
        let look_up =
            |test_key: TestKey| self.jwks.look_up(Some(&test_key.kid()), Algorithm::EdDSA, now);
        self.invariants.check_keys(now, look_up)
    }
}

pub(super) const FAILURES: [Behaviour; 10] = [
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

/// A key set that starts from a snapshot.
pub(super) fn start_from(
    snapshot: Snapshot,
    endpoint: &Endpoint,
    limits: Limits,
    clock: &Clock,
    seed: u64,
) -> RemoteJwks {
    let (endpoint, rng) = (Box::new(endpoint.clone()), fastrand::Rng::with_seed(seed));
    RemoteJwks::from_task(FetchTask::new(limits, snapshot, None, endpoint, clock.clone(), rng))
}

fn run_seed(seed: u64) -> Result<Coverage, String> {
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
        None => 0..from_env("M2M_SIMULATION_SEEDS").unwrap_or(200),
    };
    // The next seed, for whichever thread is free.
    let next = AtomicU64::new(seeds.start);
    let run = || {
        let mut coverage = Coverage::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return coverage;
            }
            match run_seed(seed) {
                Ok(of_this_seed) => coverage += of_this_seed,
                Err(violation) => {
                    panic!("seed {seed}: {violation} (M2M_SIMULATION_SEED={seed} repeats it)")
                }
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
    let mut coverage = Coverage::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        for worker in workers {
            coverage += worker.join().expect("a seed failed, see above");
        }
    });
    assert!(
        coverage.covers_each(seeds.end - seeds.start),
        "an invariant never applied: {coverage:?}"
    );
}
