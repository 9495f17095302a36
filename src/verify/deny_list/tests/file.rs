//! A watched file, in virtual time.

use std::fs::{create_dir, remove_file, rename, write};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;
use tokio::time::{advance, sleep};

use super::super::entry::DenyEntry;
use super::super::error::DenyListError;
use super::super::list::DenyList;
use super::super::token_facts::TokenFacts;
use crate::clock::Clock;

const START: u64 = 1_800_000_000;

/// From one read to after the next.
const ONE_READ: Duration = Duration::from_secs(10);

const K1: &str = r#"[{"key":"k1"}]"#;
const K2: &str = r#"[{"key":"k2"}]"#;

struct Fixture {
    folder: TempDir,
    path: PathBuf,
    clock: Clock,
    list: DenyList,
}

impl Fixture {
    /// A list, and a file with this content that it does not watch yet.
    fn unwatched(content: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("denied.json");
        write(&path, content).unwrap();
        let clock = Clock::driven(START);
        let list = DenyList::on_clock(clock.clone());
        Self { folder, path, clock, list }
    }

    fn new(content: &str) -> Self {
        let fixture = Self::unwatched(content);
        fixture.list.watch_file(&fixture.path).unwrap();
        fixture
    }

    /// Replaces the file at once.
    fn write(&self, content: impl AsRef<[u8]>) {
        let new = self.folder.path().join("new");
        write(&new, content).unwrap();
        rename(new, &self.path).unwrap();
    }

    /// The kids among `k1`, `k2` and `k3` that the list denies.
    fn denied(&self) -> Vec<&'static str> {
        let token = |kid| TokenFacts { claims: None, issued_at: None, kid: Some(kid) };
        ["k1", "k2", "k3"]
            .into_iter()
            .filter(|kid| self.list.denial(token(kid)).is_some())
            .collect()
    }

    /// Waits until a read has ended. Time passes only while nothing is read.
    async fn after_a_read(&self) {
        sleep(ONE_READ + Duration::from_millis(1)).await;
    }

    fn age(&self) -> u64 {
        self.list.health().age.unwrap().as_secs()
    }

    /// The last error of the file with its source.
    fn error(&self) -> String {
        let error = self.list.health().last_error;
        error.map(|err| crate::error::Chain(&err).to_string()).unwrap_or_default()
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn changed_file_is_in_force_within_10_s() {
    let fixture = Fixture::new(K1);
    let generation = fixture.list.generation();
    assert_eq!(fixture.denied(), ["k1"]);
    fixture.write(K2);
    sleep(Duration::from_secs(9)).await;
    assert_eq!(fixture.denied(), ["k1"]);
    sleep(Duration::from_millis(1001)).await;
    assert_eq!(fixture.denied(), ["k2"]);
    fixture.write("[]");
    fixture.after_a_read().await;
    assert!(fixture.denied().is_empty());
    assert_eq!(fixture.list.generation(), generation + 2);
}

#[tokio::test(start_paused = true)]
async fn unchanged_file_is_confirmed_but_not_published() {
    let fixture = Fixture::new(K1);
    let generation = fixture.list.generation();
    for _ in 0..3 {
        fixture.after_a_read().await;
        let health = fixture.list.health();
        assert!(health.age.unwrap() < Duration::from_secs(1), "{health:?}");
        assert_eq!((health.entries, health.last_error), (1, None));
        assert_eq!(health.file.as_deref(), Some(&*fixture.path));
    }
    // The same content in another file.
    fixture.write(K1);
    fixture.after_a_read().await;
    assert_eq!(fixture.list.generation(), generation);
}

#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn swapped_link_is_followed() {
    use std::os::unix::fs::symlink;

    // As in a ConfigMap: denied.json -> ..data/denied.json, ..data -> ..v1.
    let fixture = Fixture::unwatched("[]");
    remove_file(&fixture.path).unwrap();
    let in_folder = |name: &str| fixture.folder.path().join(name);
    for (version, content) in [("..v1", K1), ("..v2", K2)] {
        create_dir(in_folder(version)).unwrap();
        write(in_folder(version).join("denied.json"), content).unwrap();
    }
    symlink("..v1", in_folder("..data")).unwrap();
    symlink("..data/denied.json", &fixture.path).unwrap();
    fixture.list.watch_file(&fixture.path).unwrap();
    assert_eq!(fixture.denied(), ["k1"]);

    symlink("..v2", in_folder("..data_tmp")).unwrap();
    rename(in_folder("..data_tmp"), in_folder("..data")).unwrap();
    fixture.after_a_read().await;
    assert_eq!(fixture.denied(), ["k2"]);
}

type Spoil = fn(&Fixture);

/// Ways in which a file cannot be used, each with a part of the error.
fn bad_files() -> Vec<(Spoil, &'static str)> {
    let mut bad: Vec<(Spoil, &str)> = vec![
        (|fixture| remove_file(&fixture.path).unwrap(), "cannot be read: No such file"),
        (|fixture| fixture.write(""), "is not a JSON array of entries: EOF"),
        (|fixture| fixture.write("[{}]"), "entry 1 of deny list file"),
        (|fixture| fixture.write(r#"[{"key":"k3"},{"key":""}]"#), "entry 2 of deny list file"),
        (|fixture| fixture.write(b"[\xff]"), "is not a JSON array of entries: expected value"),
        (
            |fixture| fixture.write(format!("{K2}{}", " ".repeat(4 << 20))),
            "cannot be read: it is larger than 4194304 bytes",
        ),
        (
            |fixture| fixture.write(format!("[{}]", vec![r#"{"key":"k2"}"#; 100_001].join(","))),
            "has more than 100000 entries",
        ),
        (
            |fixture| {
                remove_file(&fixture.path).unwrap();
                create_dir(&fixture.path).unwrap();
            },
            "cannot be read: it is not a regular file",
        ),
    ];
    #[cfg(unix)]
    bad.push((
        |fixture| {
            use std::fs::{Permissions, set_permissions};
            use std::os::unix::fs::PermissionsExt;

            fixture.write(K2);
            set_permissions(&fixture.path, Permissions::from_mode(0o646)).unwrap();
        },
        "cannot be read: all users can write it; use chmod o-w",
    ));
    bad
}

#[tokio::test(start_paused = true)]
async fn bad_file_keeps_the_last_entries_until_it_is_good() {
    for (spoil, problem) in bad_files() {
        let fixture = Fixture::new(K1);
        spoil(&fixture);
        for reads in 1..4 {
            fixture.after_a_read().await;
            assert!(fixture.error().contains(problem), "{problem}: {}", fixture.error());
            assert_eq!(fixture.denied(), ["k1"], "{problem}");
            assert_eq!(fixture.age(), 10 * reads, "{problem}");
        }
        if fixture.path.is_dir() {
            std::fs::remove_dir(&fixture.path).unwrap();
        }
        fixture.write(K2);
        fixture.after_a_read().await;
        assert_eq!((fixture.error().as_str(), fixture.age()), ("", 0), "{problem}");
        assert_eq!(fixture.denied(), ["k2"], "{problem}");
    }
}

#[tokio::test(start_paused = true)]
async fn old_content_recovers_the_list_too() {
    let fixture = Fixture::new(K1);
    let generation = fixture.list.generation();
    fixture.write("{}");
    fixture.after_a_read().await;
    assert_ne!(fixture.error(), "");
    fixture.write(K1);
    fixture.after_a_read().await;
    assert_eq!((fixture.error().as_str(), fixture.age()), ("", 0));
    assert_eq!((fixture.denied(), fixture.list.generation()), (vec!["k1"], generation));
}

#[tokio::test(start_paused = true)]
async fn bad_file_at_the_start_is_an_error() {
    for (spoil, problem) in bad_files() {
        let fixture = Fixture::unwatched(K1);
        spoil(&fixture);
        let err = fixture.list.watch_file(&fixture.path).unwrap_err();
        let text = crate::error::Chain(&err).to_string();
        assert!(text.contains(problem), "{problem}: {text}");
        assert!(text.contains("denied.json"), "{text}");
        let health = fixture.list.health();
        assert_eq!((health.entries, health.age, health.file), (0, None, None), "{problem}");
        // The list can watch another file.
        let good = fixture.folder.path().join("good.json");
        write(&good, K2).unwrap();
        fixture.list.watch_file(&good).unwrap();
        assert_eq!(fixture.denied(), ["k2"]);
    }
}

#[tokio::test(start_paused = true)]
async fn list_watches_one_file() {
    let fixture = Fixture::new(K1);
    let other = fixture.folder.path().join("other.json");
    write(&other, K2).unwrap();
    for path in [&other, &fixture.path] {
        let err = fixture.list.clone().watch_file(path).unwrap_err();
        assert_eq!(err, DenyListError::AlreadyWatching { path: fixture.path.clone() });
    }
    assert_eq!(fixture.denied(), ["k1"]);
}

#[test]
fn threads_that_watch_at_once_get_one_watch() {
    let fixture = Fixture::unwatched(K1);
    let barrier = std::sync::Barrier::new(4);
    let watch = || {
        barrier.wait();
        fixture.list.watch_file(&fixture.path).is_ok()
    };
    let watches = std::thread::scope(|scope| {
        let threads = [(); 4].map(|()| scope.spawn(watch));
        threads.map(|thread| thread.join().unwrap()).into_iter().filter(|is_ok| *is_ok).count()
    });
    assert_eq!((watches, fixture.list.generation()), (1, 1));
}

#[test]
fn watch_outside_a_runtime_starts_with_the_next_use() {
    let fixture = Fixture::new(K1);
    fixture.write(K2);
    runtime().block_on(async {
        sleep(Duration::from_secs(60)).await;
        assert_eq!(fixture.denied(), ["k1"], "no use");
        let _ = fixture.list.health();
        yield_now().await;
        // The read is overdue.
        sleep(Duration::from_millis(1)).await;
        assert_eq!(fixture.denied(), ["k2"]);
    });
}

#[test]
fn watch_moves_to_another_runtime() {
    let fixture = Fixture::unwatched(K1);
    let first = runtime();
    first.block_on(async {
        fixture.list.watch_file(&fixture.path).unwrap();
        yield_now().await;
    });
    // Each runtime has a clock of its own, so that of the next one must be advanced further.
    let is_current = |runtime: &Runtime, seconds, content: &str, kid| {
        fixture.write(content);
        runtime.block_on(async {
            advance(Duration::from_secs(seconds)).await;
            fixture.list.ensure_watching();
            sleep(Duration::from_millis(1)).await;
            fixture.denied() == [kid]
        })
    };
    assert!(is_current(&first, 100, K2, "k2"));
    drop(first);
    let second = runtime();
    assert!(is_current(&second, 200, K1, "k1"), "its runtime was shut down");
    // Not driven any more.
    let third = runtime();
    assert!(is_current(&third, 300, K2, "k2"), "its runtime is not driven");
}

#[tokio::test(start_paused = true)]
async fn read_is_made_up_for_after_a_suspension() {
    let fixture = Fixture::new(K1);
    yield_now().await;
    fixture.write(K2);
    // The monotonic clock stands still.
    fixture.clock.shift(3600);
    assert_eq!(fixture.denied(), ["k1"]);
    fixture.list.ensure_watching();
    sleep(Duration::from_millis(1)).await;
    assert_eq!(fixture.denied(), ["k2"]);
}

#[tokio::test(start_paused = true)]
async fn read_that_does_not_end_is_an_error_and_has_no_second() {
    let fixture = Fixture::new(K1);
    let stuck = fixture.list.watch().unwrap().block_reads();
    fixture.write(K2);
    fixture.after_a_read().await;
    assert!(fixture.error().ends_with("cannot be read: reading it takes more than 30 s"));
    assert_eq!(fixture.denied(), ["k1"]);
    drop(stuck);
    fixture.after_a_read().await;
    assert_eq!((fixture.error().as_str(), fixture.denied()), ("", vec!["k2"]));
}

#[test]
fn last_handle_stops_the_watch() {
    let runtime = runtime();
    runtime.block_on(async {
        let fixture = Fixture::new(K1);
        let clone = fixture.list.clone();
        yield_now().await;
        drop(fixture);
        yield_now().await;
        assert_eq!(runtime.metrics().num_alive_tasks(), 1);
        drop(clone);
        yield_now().await;
        assert_eq!(runtime.metrics().num_alive_tasks(), 0);
    });
}

#[cfg(feature = "testing")]
#[tokio::test(start_paused = true)]
async fn file_denies_a_cached_token_and_lifts_it() {
    use crate::testing::TestAuthority;

    let authority = TestAuthority::offline();
    let fixture = Fixture::new("[]");
    let verifier = authority.verifier().deny_list(fixture.list.clone());
    let token = authority.token().claim("service", "orders").sign();
    for _ in 0..2 {
        for is_denied in [false, true] {
            let entry = json!([{"claim": {"path": "service", "expected": "orders"}}]).to_string();
            fixture.write(if is_denied { &entry } else { "[]" });
            fixture.after_a_read().await;
            for _ in 0..2 {
                assert_eq!(verifier.verify(&token).await.is_err(), is_denied);
            }
            assert!(verifier.cached(token.as_bytes()).is_some());
        }
    }
}

/// A cached token is the only use.
#[cfg(feature = "testing")]
#[test]
fn cached_token_starts_the_watch() {
    use crate::testing::TestAuthority;

    let authority = TestAuthority::offline();
    let fixture = Fixture::unwatched("[]");
    let verifier = authority.verifier().deny_list(fixture.list.clone());
    let token = authority.token().sign();
    runtime().block_on(async { verifier.verify(&token).await.unwrap() });
    fixture.list.watch_file(&fixture.path).unwrap();
    fixture.write(K1);
    runtime().block_on(async {
        advance(Duration::from_secs(60)).await;
        assert!(verifier.cached(token.as_bytes()).unwrap().is_ok());
        yield_now().await;
        sleep(Duration::from_millis(1)).await;
        assert_eq!(fixture.denied(), ["k1"]);
    });
}

#[tokio::test(start_paused = true)]
async fn next_read_puts_the_entries_of_the_file_back() {
    let fixture = Fixture::new(K1);
    fixture.after_a_read().await;
    fixture.list.replace([DenyEntry::key("k2")]);
    assert_eq!(fixture.denied(), ["k2"]);
    fixture.after_a_read().await;
    assert_eq!(fixture.denied(), ["k1"]);
    // A file that cannot be read leaves the entries in force.
    fixture.list.replace([]);
    fixture.write("");
    fixture.after_a_read().await;
    assert!(fixture.denied().is_empty());
    fixture.write(K1);
    fixture.after_a_read().await;
    assert_eq!(fixture.denied(), ["k1"]);
}

#[tokio::test(start_paused = true)]
async fn empty_file_is_an_error_after_a_replacement_too() {
    let fixture = Fixture::new(K1);
    fixture.list.replace([DenyEntry::key("k2")]);
    fixture.write("");
    fixture.after_a_read().await;
    assert_ne!(fixture.error(), "");
    assert_eq!(fixture.denied(), ["k2"]);
}
