//! Kills a core with SIGKILL again and again, while it mints tokens and rotates its keys each
//! second.
//!
//! After each restart the core must list, unchanged, every key that it listed before and that has
//! not expired, and the tokens that these keys signed must verify. `M2M_KILLS` sets the number of
//! kills (10 by default), `M2M_SEED` repeats a run.
#![allow(clippy::print_stdout)] // prints the seed and the counts

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::env;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::Client;
use serde_json::{Value, json};
use tokio::time::timeout;
use tower_m2m::{LocalJwks, Verifier};

use crate::support::{ISSUER, decode, example};

/// In seconds, as is `ACCESS_TOKEN_VALIDITY`. The core creates a key every `ROTATE_EVERY / 2` and
/// lists it for `ROTATE_EVERY + 2 * ACCESS_TOKEN_VALIDITY`.
const ROTATE_EVERY: u64 = 1;
const ACCESS_TOKEN_VALIDITY: u64 = 5;
const KEPT_MILLIS: u64 = (ROTATE_EVERY + 2 * ACCESS_TOKEN_VALIDITY) * 1000;

/// The longest time until a process is killed, in seconds. The core creates its next key after half
/// a second, so some processes are killed while they write the key.
const LONGEST_RUN: f64 = 0.8;

/// The number of tokens from earlier processes that are verified after each restart, in addition to
/// all tokens from the process just killed. After the last restart all tokens are verified.
const SAMPLE: usize = 50;

#[tokio::test]
async fn core_killed_at_any_moment_loses_no_key() {
    let number = |name: &str, default| {
        env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let kills = number("M2M_KILLS", 10);
    let seed = number("M2M_SEED", u64::from(std::process::id()));
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let folder = tempfile::tempdir().unwrap();
    let client = Client::builder().tls_certs_only([]).pool_max_idle_per_host(0).build().unwrap();
    let mut received = Received::default();
    let (mut lost, mut refused, mut verified) = (Vec::new(), Vec::new(), 0);

    for kill in 0..=kills {
        let mut core = Core::start(&folder.path().join("data"), &client);
        let keys = core.keys().await.expect("the core listens but lists no keys");
        let now = unix_millis();
        for (kid, key) in &received.keys {
            if is_kept(kid, now) && keys.get(kid) != Some(key) {
                lost.push(kid.clone());
            }
        }
        let listed: Vec<_> = keys.values().collect();
        let jwks = LocalJwks::from_json(json!({ "keys": listed }).to_string()).unwrap();
        let verifier = Verifier::new(jwks).issuer(ISSUER);
        let last = kill == kills;
        if !last {
            rng.shuffle(&mut received.old);
        }
        let sample = if last { received.old.len() } else { SAMPLE.min(received.old.len()) };
        for token in received.new.iter().chain(&received.old[..sample]) {
            if is_kept(&token.kid, now) {
                verified += 1;
                if let Err(rejection) = verifier.verify(&token.jwt).await {
                    refused.push(format!("{}: {rejection}", token.kid));
                }
            }
        }
        received.old.append(&mut received.new);
        received.keys.extend(keys);
        if last {
            break;
        }
        if kill % 2 == 0 {
            let run = Duration::from_secs_f64(rng.f64() * LONGEST_RUN);
            // Killed at a random moment.
            let _ = timeout(run, core.mint_and_list_until(&mut received, |_, _| false)).await;
        } else {
            // Killed as soon as a client has received a new key and a token.
            core.mint_and_list_until(&mut received, |is_new, has_token| is_new && has_token).await;
        }
        core.process.kill().unwrap();
        core.process.wait().unwrap();
    }

    println!(
        "{kills} kills, {} keys listed, {} of them lost; {} tokens minted, {verified} verifications after a restart, \
         {} refused",
        received.keys.len(),
        lost.len(),
        received.old.len(),
        refused.len(),
    );
    assert_eq!((lost, refused), (vec![], vec![]), "seed {seed}");
    // Every other process is killed only after it has minted a token.
    assert!(received.old.len() as u64 >= kills / 2, "too few tokens were minted");
}

/// The keys and tokens received from the core so far.
#[derive(Default)]
struct Received {
    keys: BTreeMap<String, Value>,
    /// Tokens that the last process minted.
    new: Vec<Token>,
    /// Tokens that earlier processes minted.
    old: Vec<Token>,
}

struct Token {
    jwt: String,
    kid: String,
}

/// A running core, killed on drop.
struct Core {
    process: Child,
    url: String,
    client: Client,
}

impl Core {
    fn start(folder: &Path, client: &Client) -> Self {
        let mut process = example("core")
            .args(["--listen", "127.0.0.1:0", "--data"])
            .arg(folder)
            .args(["--rotate-every", &ROTATE_EVERY.to_string()])
            .args(["--access-token-validity", &ACCESS_TOKEN_VALIDITY.to_string()])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line
            .trim()
            .strip_prefix("listening on ")
            .unwrap_or_else(|| panic!("unexpected first line: {line:?}"))
            .to_owned();
        Self { process, url, client: client.clone() }
    }

    /// Mints tokens and fetches key sets until `is_done` returns true. The arguments of `is_done`
    /// are whether the process has listed a new key and whether it has minted a token. Two loops
    /// fetch concurrently, because the core must store a new key before it lists the key to any of
    /// several clients.
    async fn mint_and_list_until(
        &self,
        received: &mut Received,
        is_done: impl Fn(bool, bool) -> bool,
    ) {
        let has_new_key = Cell::new(false);
        let received = RefCell::new(received);
        let mint = async {
            for round in 0_u64.. {
                let token = self.mint(round % 2 == 0).await;
                received.borrow_mut().new.extend(token);
            }
        };
        let list = async || {
            loop {
                let Some(keys) = self.keys().await else { continue };
                let mut received = received.borrow_mut();
                let is_new = keys.keys().any(|kid| !received.keys.contains_key(kid));
                has_new_key.set(has_new_key.get() || is_new);
                received.keys.extend(keys);
                if is_done(has_new_key.get(), !received.new.is_empty()) {
                    return;
                }
            }
        };
        tokio::select! {
            () = mint => {}
            () = list() => {}
            () = list() => {}
        }
    }

    async fn keys(&self) -> Option<BTreeMap<String, Value>> {
        let response =
            self.client.get(format!("{}/.well-known/jwks.json", self.url)).send().await.ok()?;
        let mut body: Value = response.json().await.ok()?;
        let keys = body["keys"].as_array_mut()?.drain(..);
        Some(keys.map(|key| (key["kid"].as_str().unwrap().to_owned(), key)).collect())
    }

    async fn mint(&self, static_key: bool) -> Option<Token> {
        let body = json!({
            "payload": { "source": "microservice" }, "validity": 3600, "useStaticSigningKey": static_key,
            "algorithm": "RS256", "jwksDomain": ISSUER,
        });
        let response =
            self.client.post(format!("{}/recipe/jwt", self.url)).json(&body).send().await.ok()?;
        let body: Value = response.json().await.ok()?;
        let jwt = body["jwt"].as_str()?.to_owned();
        let kid = decode(&jwt, 0)["kid"].as_str().unwrap().to_owned();
        Some(Token { jwt, kid })
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Whether the core must list the key at `now`, in milliseconds. It always lists a static key.
fn is_kept(kid: &str, now: u64) -> bool {
    kid.strip_prefix("d-").is_none_or(|created| now < created.parse::<u64>().unwrap() + KEPT_MILLIS)
}

// The test and the core share no other clock.
#[allow(clippy::disallowed_methods)]
fn unix_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}
