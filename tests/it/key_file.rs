//! A local key set whose file changes.

use std::fs::{create_dir, remove_dir, remove_file, rename, write};
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;
use tokio::time::{Instant, advance, sleep};
use tower_m2m::testing::TestAuthority;
use tower_m2m::{Expected, KeySource, LocalJwks, RemoteJwks, Verifier};

use crate::manual_clock::ManualClock;
use crate::pem::public_der;
use crate::support::{Logs, chain};
use crate::transport::scripted::{Script, Server};

/// The time from one read to after the next.
const ONE_READ: Duration = Duration::from_millis(10_001);

/// Two authorities, a file in a folder, and a token of each authority.
struct Fixture {
    folder: TempDir,
    path: PathBuf,
    authorities: [TestAuthority; 2],
    tokens: [String; 2],
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jwks.json");
        let authorities = [(); 2].map(|()| TestAuthority::offline());
        let tokens = authorities.each_ref().map(|authority| authority.token().sign());
        Self { folder, path, authorities, tokens }
    }

    /// The key set of these authorities.
    fn set(&self, of: &[usize]) -> String {
        let keys: Vec<_> = of.iter().map(|number| self.authorities[*number].jwk()).collect();
        format!(r#"{{"keys":[{}]}}"#, keys.join(","))
    }

    /// The key of this authority in PEM.
    fn pem(&self, of: usize) -> String {
        let text = STANDARD.encode(public_der(&self.authorities[of]));
        format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
    }

    /// Replaces the file at once.
    fn write(&self, content: impl AsRef<[u8]>) {
        let new = self.folder.path().join("new");
        write(&new, content).unwrap();
        rename(new, &self.path).unwrap();
    }

    /// Advances the clock, and waits until a read has been logged: `times` so far. Not a sleep:
    /// a verification may wait for a permit, and time would pass.
    async fn read(&self, clock: &ManualClock, logs: &Logs, event: &str, times: usize) {
        clock.advance(ONE_READ).await;
        logs.wait_for_times(event, times).await;
    }

    fn watch(&self) -> (LocalJwks, Verifier) {
        let keys = LocalJwks::watch_file(&self.path).unwrap();
        (keys.clone(), Verifier::new(keys))
    }

    /// The numbers of the authorities whose tokens are accepted.
    async fn accepted(&self, verifier: &Verifier) -> Vec<usize> {
        let mut accepted = Vec::new();
        for (number, token) in self.tokens.iter().enumerate() {
            if verifier.verify(token).await.is_ok() {
                accepted.push(number);
            }
        }
        accepted
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn changed_file_is_in_use_within_10_s() {
    let (fixture, clock, logs) = (Fixture::new(), ManualClock::new(), Logs::of_this_thread());
    // (content, accepted authorities); a PEM key verifies tokens with any kid.
    let contents = [
        (fixture.set(&[0]), vec![0]),
        (fixture.set(&[0, 1]), vec![0, 1]),
        (fixture.set(&[1]), vec![1]),
        (fixture.pem(0), vec![0]),
        (fixture.pem(1), vec![1]),
        (fixture.set(&[1, 0]), vec![0, 1]),
    ];
    fixture.write(&contents[0].0);
    let (keys, verifier) = fixture.watch();
    // A clone has the same set, and cached tokens of removed keys are rejected.
    let clone = Verifier::new(keys);
    for (number, after) in contents.iter().enumerate().skip(1) {
        fixture.write(&after.0);
        let written = Instant::now();
        clock.advance(Duration::from_secs(9)).await;
        assert_eq!(fixture.accepted(&verifier).await, contents[number - 1].1);
        clock.advance(ONE_READ - Duration::from_secs(9)).await;
        logs.wait_for_times("key file changed", number).await;
        // While the test waits for a read that is late, the clock runs on.
        assert_eq!(written.elapsed(), ONE_READ, "{number}");
        for verifier in [&verifier, &clone] {
            assert_eq!(fixture.accepted(verifier).await, after.1);
        }
    }
}

#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn link_that_the_kubelet_swaps_is_followed() {
    use std::fs::remove_dir_all;
    use std::os::unix::fs::symlink;

    let (fixture, clock, logs) = (Fixture::new(), ManualClock::new(), Logs::of_this_thread());
    let at = |name: &str| fixture.folder.path().join(name);
    // jwks.json -> ..data/jwks.json, ..data -> a folder for each version.
    let swap = |version: &str, content: String| {
        create_dir(at(version)).unwrap();
        write(at(version).join("jwks.json"), content).unwrap();
        symlink(version, at("..data_tmp")).unwrap();
        rename(at("..data_tmp"), at("..data")).unwrap();
    };
    let versions =
        ["..2026_01_01_00_00_00.1", "..2026_01_01_00_01_00.2", "..2026_01_01_00_02_00.3"];
    swap(versions[0], fixture.set(&[0]));
    symlink("..data/jwks.json", &fixture.path).unwrap();
    let (_, verifier) = fixture.watch();
    assert_eq!(fixture.accepted(&verifier).await, [0]);
    for (swaps, number) in [(1, 1), (2, 0)] {
        swap(versions[swaps], fixture.set(&[number]));
        remove_dir_all(at(versions[swaps - 1])).unwrap();
        fixture.read(&clock, &logs, "key file changed", swaps).await;
        assert_eq!(fixture.accepted(&verifier).await, [number]);
    }
}

type Spoil = fn(&Fixture);

/// Ways in which a file cannot be used, each with a part of the error.
fn bad_files() -> Vec<(Spoil, &'static str)> {
    let mut bad: Vec<(Spoil, &str)> = vec![
        (|fixture| remove_file(&fixture.path).unwrap(), "No such file"),
        (|fixture| fixture.write(""), "not a JWK Set"),
        (|fixture| fixture.write("<html>"), "not a JWK Set"),
        (|fixture| fixture.write(r#"{"keys":[]}"#), "no usable key"),
        (|fixture| fixture.write(r#"{"keys":[{"kty":"oct","k":"AQAB"}]}"#), "no usable key"),
        (|fixture| fixture.write(&fixture.set(&[1])[..40]), "not a JWK Set"),
        (
            |fixture| {
                fixture.write("-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n")
            },
            "is not a public key",
        ),
        (|fixture| fixture.write(fixture.pem(0) + &fixture.pem(1)), "two PEM keys fit"),
        (
            |fixture| fixture.write(fixture.set(&[1]) + &" ".repeat(1 << 20)),
            "it is larger than 1048576 bytes",
        ),
        (
            |fixture| {
                remove_file(&fixture.path).unwrap();
                create_dir(&fixture.path).unwrap();
            },
            "it is not a regular file",
        ),
    ];
    #[cfg(unix)]
    bad.push((
        |fixture| {
            use std::fs::{Permissions, set_permissions};
            use std::os::unix::fs::PermissionsExt;

            fixture.write(fixture.set(&[1]));
            set_permissions(&fixture.path, Permissions::from_mode(0o646)).unwrap();
        },
        "all users can write it",
    ));
    bad
}

#[tokio::test(start_paused = true)]
async fn bad_file_keeps_the_last_keys_until_a_good_read() {
    for (spoil, problem) in bad_files() {
        let (fixture, clock, logs) = (Fixture::new(), ManualClock::new(), Logs::of_this_thread());
        fixture.write(fixture.set(&[0]));
        let (_, verifier) = fixture.watch();
        spoil(&fixture);
        for reads in 1..4 {
            fixture.read(&clock, &logs, " unusable file=", reads).await;
            assert_eq!(fixture.accepted(&verifier).await, [0], "{problem}");
        }
        let text = logs.text();
        let unusable: Vec<_> =
            text.lines().filter(|line| line.contains("key file unusable")).collect();
        assert_eq!(unusable.len(), 1, "{problem}: {text}");
        assert!(unusable[0].contains(" WARN ") && unusable[0].contains(problem), "{text}");
        assert!(unusable[0].contains("jwks.json") && unusable[0].ends_with("keys=1"), "{text}");
        assert_eq!(text.matches("key file still unusable").count(), 2, "{problem}: {text}");
        // A skipped key is warned of once, although the file is read each time.
        assert!(text.matches("key skipped kid").count() <= 1, "{text}");
        if fixture.path.is_dir() {
            remove_dir(&fixture.path).unwrap();
        }
        fixture.write(fixture.set(&[1]));
        fixture.read(&clock, &logs, "key file changed", 1).await;
        assert_eq!(fixture.accepted(&verifier).await, [1], "{problem}");
        assert_eq!(logs.text().matches("key file recovered").count(), 1, "{problem}");
        assert_eq!(logs.text().matches("key file changed").count(), 1, "{problem}");
    }
}

#[test]
fn bad_file_at_the_start_is_an_error() {
    for (spoil, problem) in bad_files() {
        let fixture = Fixture::new();
        fixture.write(fixture.set(&[0]));
        spoil(&fixture);
        let text = chain(&LocalJwks::watch_file(&fixture.path).unwrap_err());
        assert!(text.contains(problem) && text.contains("jwks.json"), "{problem}: {text}");
        assert_eq!(chain(&LocalJwks::from_file(&fixture.path).unwrap_err()), text);
    }
}

#[tokio::test(start_paused = true)]
async fn next_read_restores_the_keys_of_the_file() {
    let (fixture, clock, logs) = (Fixture::new(), ManualClock::new(), Logs::of_this_thread());
    fixture.write(fixture.set(&[0]));
    let (keys, verifier) = fixture.watch();
    for reads in 1..3 {
        keys.replace(fixture.set(&[1])).unwrap();
        assert_eq!(fixture.accepted(&verifier).await, [1]);
        fixture.read(&clock, &logs, "key file changed", reads).await;
        assert_eq!(fixture.accepted(&verifier).await, [0]);
    }
    assert_eq!(logs.text().matches("ERROR").count(), 2, "{}", logs.text());
    assert_eq!(logs.text().matches("key set with a file replaced").count(), 2);
}

#[tokio::test(start_paused = true)]
async fn empty_file_is_unusable_after_a_replacement_too() {
    let (fixture, clock, logs) = (Fixture::new(), ManualClock::new(), Logs::of_this_thread());
    fixture.write(fixture.set(&[0]));
    let (keys, verifier) = fixture.watch();
    keys.replace(fixture.set(&[1])).unwrap();
    fixture.write("");
    fixture.read(&clock, &logs, "key file unusable", 1).await;
    assert_eq!(fixture.accepted(&verifier).await, [1]);
}

/// A cached token looks no key up.
#[test]
fn cached_token_restarts_the_watch_on_its_runtime() {
    let fixture = Fixture::new();
    fixture.write(fixture.set(&[0]));
    let start_up = runtime();
    let verifier = start_up.block_on(async {
        let (_, verifier) = fixture.watch();
        yield_now().await;
        verifier.verify(&fixture.tokens[0]).await.unwrap();
        verifier
    });
    drop(start_up);
    fixture.write(fixture.set(&[1]));
    runtime().block_on(async {
        advance(Duration::from_secs(60)).await;
        assert!(verifier.verify(&fixture.tokens[0]).await.is_ok(), "it was cached");
        // The read is overdue.
        sleep(Duration::from_millis(1)).await;
        assert_eq!(fixture.accepted(&verifier).await, [1]);
    });
}

#[test]
fn watch_outside_a_runtime_starts_with_the_next_use() {
    let fixture = Fixture::new();
    fixture.write(fixture.set(&[0]));
    let (_, verifier) = fixture.watch();
    fixture.write(fixture.set(&[1]));
    runtime().block_on(async {
        sleep(Duration::from_secs(60)).await;
        assert!(verifier.verify(&fixture.tokens[1]).await.is_err(), "no use");
        sleep(ONE_READ).await;
        assert_eq!(fixture.accepted(&verifier).await, [1]);
    });
}

#[test]
fn last_handle_stops_the_watch() {
    let runtime = runtime();
    runtime.block_on(async {
        let fixture = Fixture::new();
        fixture.write(fixture.set(&[0]));
        let (keys, verifier) = fixture.watch();
        yield_now().await;
        drop(keys);
        yield_now().await;
        assert_eq!(runtime.metrics().num_alive_tasks(), 1);
        drop(verifier);
        yield_now().await;
        assert_eq!(runtime.metrics().num_alive_tasks(), 0);
    });
}

/// SPIFFE Trust Domain and Bundle §4, JWT-SVID §3.
#[tokio::test]
async fn spiffe_bundle_verifies_jwt_svids() {
    let authority = TestAuthority::offline();
    let mut jwk: Value = serde_json::from_str(&authority.jwk()).unwrap();
    jwk["use"] = json!("jwt-svid");
    // The key of RFC 7517 §A.1.
    let x509 = json!({
        "kty": "EC", "use": "x509-svid", "crv": "P-256", "x5c": ["MIIBzTCCAXOgAwIBAgIJAJ"],
        "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
        "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
    });
    let bundle = json!({
        "keys": [x509, jwk], "spiffe_sequence": 1, "spiffe_refresh_hint": 300,
    })
    .to_string();
    let fixture = Fixture::new();
    fixture.write(&bundle);
    let server = Server::start(Script::ok(&bundle));
    let sources: [KeySource; 4] = [
        LocalJwks::from_json(&bundle).unwrap().into(),
        LocalJwks::from_file(&fixture.path).unwrap().into(),
        LocalJwks::watch_file(&fixture.path).unwrap().into(),
        RemoteJwks::new(server.url()).unwrap().into(),
    ];
    let header = json!({ "alg": "EdDSA", "typ": "JOSE", "kid": authority.kid() }).to_string();
    let token = |subject: &str| {
        let claims = json!({
            "sub": subject, "aud": ["billing"], "exp": crate::support::now() + 3600,
        });
        authority.sign_parts(&header, &claims.to_string())
    };
    for source in sources {
        let verifier = Verifier::new(source)
            .audience("billing")
            .marker("sub", Expected::prefix("spiffe://example.org/"));
        assert!(verifier.verify(&token("spiffe://example.org/orders")).await.is_ok());
        assert!(verifier.verify(&token("spiffe://example.com/orders")).await.is_err());
    }
}
