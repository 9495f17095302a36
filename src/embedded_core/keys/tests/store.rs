use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::embedded_core::error::BuildError;
use crate::embedded_core::keys::folder::Storage;
use crate::embedded_core::keys::minter::{KeyKind, Minter, MinterError, UnsignedToken};
use crate::embedded_core::keys::rotation::Rotation;
use crate::embedded_core::keys::signing_keys::SigningKeys;
use crate::embedded_core::keys::store::{CurrentKeys, KeyStore, NEW_KEY_TIMEOUT};
use crate::jose::json::OrderedObject;

const HOUR: Duration = Duration::from_secs(3600);
const WEEK: Duration = Duration::from_secs(168 * 3600);
const START: u64 = 1_700_000_000;

async fn store() -> Arc<KeyStore> {
    let clock = Clock::driven(START);
    open(None, Rotation::new(WEEK, HOUR).unwrap(), clock).await.unwrap()
}

async fn open(
    path: Option<PathBuf>,
    rotation: Rotation,
    clock: Clock,
) -> Result<Arc<KeyStore>, BuildError> {
    KeyStore::open(path, rotation, clock).await.map(Arc::new)
}

impl KeyStore {
    /// Waits until a due key is made or its generation fails, then returns the current keys.
    async fn settled(self: &Arc<Self>) -> CurrentKeys {
        self.current();
        let mut making = self.making();
        making.changed().await.expect_err("nothing is sent on the channel");
        self.current()
    }

    fn is_making(&self) -> bool {
        self.making().has_changed().is_ok()
    }
}

fn kids(current: &CurrentKeys) -> Vec<String> {
    let keys: Value = serde_json::from_str(&current.to_json()).unwrap();
    let kids = keys.as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned());
    kids.filter(|kid| kid.starts_with("d-")).collect()
}

async fn dynamic_kids(store: &Arc<KeyStore>) -> Vec<String> {
    kids(&store.settled().await)
}

async fn signer(store: &Arc<KeyStore>) -> String {
    store.settled().await.dynamic_or_newest_key().kid().to_owned()
}

#[tokio::test(start_paused = true)]
async fn key_is_listed_before_it_signs_and_until_tokens_expire() {
    let store = store().await;
    let first = format!("d-{}", START * 1000);
    let second = format!("d-{}", (START + WEEK.as_secs() - 60) * 1000);
    assert_eq!(dynamic_kids(&store).await, [&*first]);
    assert_eq!(signer(&store).await, first);

    tokio::time::advance(WEEK - Duration::from_secs(61)).await;
    assert_eq!(dynamic_kids(&store).await, [&*first]);
    assert_eq!(store.settled().await.max_age(), 1);

    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(dynamic_kids(&store).await, [&*second, &*first]);
    assert_eq!(store.settled().await.max_age(), 604_740);
    assert_eq!(signer(&store).await, first);

    tokio::time::advance(Duration::from_secs(59)).await;
    assert_eq!(signer(&store).await, first);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(signer(&store).await, second);

    tokio::time::advance(2 * HOUR - Duration::from_secs(1)).await;
    assert_eq!(dynamic_kids(&store).await, [&*second, &*first]);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(dynamic_kids(&store).await, [&*second]);
}

#[tokio::test(start_paused = true)]
async fn concurrent_requests_for_a_due_key_make_one_key() {
    let store = store().await;
    tokio::time::advance(WEEK).await;
    let making = |store: &Arc<KeyStore>| {
        store.current();
        store.making()
    };
    let first = making(&store);
    assert!(first.has_changed().is_ok(), "a key is due");
    assert!((0..50).all(|_| making(&store).same_channel(&first)));
    assert_eq!(dynamic_kids(&store).await.len(), 2);
    assert!(!store.is_making());
}

#[tokio::test(start_paused = true)]
async fn key_set_does_not_wait_for_the_next_key() {
    let store = store().await;
    let before = dynamic_kids(&store).await;
    tokio::time::advance(WEEK).await;
    let meanwhile = store.current();
    assert_eq!((kids(&meanwhile), meanwhile.max_age()), (before, 1));
    let mut making = store.making();
    making.changed().await.expect_err("nothing is sent on the channel");
    assert_eq!(kids(&store.current()).len(), 2);
    assert!(!store.is_making());
}

#[tokio::test(start_paused = true)]
async fn static_key_never_rotates() {
    let store = store().await;
    let first = store.settled().await.static_key().kid().to_owned();
    tokio::time::advance(100 * WEEK).await;
    assert_eq!(store.settled().await.static_key().kid(), first);
    assert_eq!(
        dynamic_kids(&store).await.len(),
        1,
        "after a long time without requests only the new dynamic key is listed"
    );
}

#[tokio::test(start_paused = true)]
async fn restart_keeps_every_key_and_lets_the_older_one_sign() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::driven(START);
    let rotation = Rotation::new(WEEK, HOUR).unwrap();
    let open = || self::open(Some(folder.path().join("data")), rotation, clock.clone());
    let first_kid = format!("d-{}", START * 1000);

    let store = open().await.unwrap();
    let static_kid = store.settled().await.static_key().kid().to_owned();
    tokio::time::advance(WEEK - Duration::from_secs(60)).await;
    let listed = dynamic_kids(&store).await;
    assert_eq!(listed.len(), 2);
    drop(store);

    // Down for five minutes: the newest key is old enough to sign, but no verifier may have seen
    // it.
    tokio::time::advance(Duration::from_secs(300)).await;
    let store = open().await.unwrap();
    assert_eq!(dynamic_kids(&store).await, listed);
    assert_eq!(store.settled().await.static_key().kid(), static_kid);
    assert_eq!(signer(&store).await, first_kid);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(signer(&store).await, listed[0]);
}

#[tokio::test(start_paused = true)]
async fn key_that_cannot_be_stored_is_retried_and_not_listed() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::driven(START);
    let store = open(Some(folder.path().join("data")), Rotation::new(WEEK, HOUR).unwrap(), clock)
        .await
        .unwrap();
    let before = fs::read(folder.path().join("data/keys.json")).unwrap();
    // A folder with the name of the temporary file makes each store fail. A read-only data folder
    // would not stop root.
    fs::create_dir(folder.path().join("data/keys.json.new")).unwrap();
    tokio::time::advance(WEEK).await;
    assert_eq!(dynamic_kids(&store).await.len(), 1);
    store.current();
    assert!(!store.is_making(), "no second attempt at once");
    assert_eq!(fs::read(folder.path().join("data/keys.json")).unwrap(), before);

    // The newest key signs, so it is listed however old it is.
    tokio::time::advance(10 * HOUR).await;
    assert_eq!(dynamic_kids(&store).await, [signer(&store).await]);

    fs::remove_dir(folder.path().join("data/keys.json.new")).unwrap();
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(dynamic_kids(&store).await.len(), 2, "the old key signed ten seconds ago");
    tokio::time::advance(2 * HOUR).await;
    assert_eq!(dynamic_kids(&store).await.len(), 1, "the old key is no longer listed");
    assert_ne!(fs::read(folder.path().join("data/keys.json")).unwrap(), before);
}

const TEN_YEARS: i64 = 10 * 365 * 24 * 3600;

#[tokio::test(start_paused = true)]
async fn clock_far_ahead_for_one_request_loses_no_key() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, rotation) = (Clock::driven(START), Rotation::new(WEEK, HOUR).unwrap());
    let store = open(Some(folder.path().join("data")), rotation, clock.clone()).await.unwrap();
    tokio::time::advance(WEEK).await;
    let before = dynamic_kids(&store).await;
    assert_eq!(before.len(), 2);
    let signed_before = signer(&store).await;

    tokio::time::advance(Duration::from_secs(60)).await;
    clock.shift(TEN_YEARS);
    let ahead = dynamic_kids(&store).await;
    clock.shift(-TEN_YEARS);
    assert_eq!(ahead[1..], before);
    assert_eq!(dynamic_kids(&store).await, ahead);
    assert!(before.contains(&signed_before));

    // A key with a correct creation time is made once the key created in the future may sign.
    tokio::time::advance(Duration::from_secs(60)).await;
    let back = dynamic_kids(&store).await;
    assert_eq!(back[0], format!("d-{}", (START + WEEK.as_secs() + 120) * 1000));
    assert_eq!(back[1..], ahead);

    // Rotation continues at its interval, and the other keys leave the key set.
    tokio::time::advance(WEEK - Duration::from_secs(61)).await;
    assert_eq!(dynamic_kids(&store).await[0], back[0]);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(
        dynamic_kids(&store).await[0],
        format!("d-{}", (START + 2 * WEEK.as_secs() + 60) * 1000)
    );
    tokio::time::advance(2 * HOUR - Duration::from_secs(1)).await;
    let listed = dynamic_kids(&store).await;
    assert_eq!(listed[1..], [&*back[0], &*ahead[0]]);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(dynamic_kids(&store).await, listed[..2]);
}

#[tokio::test(start_paused = true)]
async fn start_with_clock_far_ahead_loses_no_key() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, rotation) = (Clock::driven(START), Rotation::new(WEEK, HOUR).unwrap());
    let open = || self::open(Some(folder.path().join("data")), rotation, clock.clone());
    let [first, future, sane] =
        [0, TEN_YEARS as u64, 600].map(|seconds| format!("d-{}", (START + seconds) * 1000));
    drop(open().await.unwrap());

    clock.shift(TEN_YEARS);
    let store = open().await.unwrap();
    assert_eq!(dynamic_kids(&store).await, [&*future, &*first]);
    drop(store);
    // A second start reads what the first one stored.
    let store = open().await.unwrap();
    assert_eq!(dynamic_kids(&store).await, [&*future, &*first]);
    drop(store);

    clock.shift(-TEN_YEARS);
    tokio::time::advance(Duration::from_secs(600)).await;
    let store = open().await.unwrap();
    assert_eq!(kids(&store.current()), [&*future, &*first]);
    assert_eq!(dynamic_kids(&store).await, [&*sane, &*future, &*first]);
    assert_eq!(signer(&store).await, first);
    drop(store);
    // The file keeps the order in which keys were made, which is not that of their names.
    let store = open().await.unwrap();
    assert_eq!(dynamic_kids(&store).await, [&*sane, &*future, &*first]);
}

/// The clock is ahead for a moment in a running process, and once more at the start of the next
/// one.
#[tokio::test(start_paused = true)]
async fn key_that_just_signed_survives_clock_ahead_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, rotation) = (Clock::driven(START), Rotation::new(WEEK, HOUR).unwrap());
    let open = || self::open(Some(folder.path().join("data")), rotation, clock.clone());
    let store = open().await.unwrap();
    tokio::time::advance(10 * HOUR).await;
    let signed = signer(&store).await;
    for shift in [TEN_YEARS, -TEN_YEARS] {
        clock.shift(shift);
        dynamic_kids(&store).await;
    }
    tokio::time::advance(Duration::from_secs(59)).await;
    assert_eq!(signer(&store).await, signed);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(dynamic_kids(&store).await.len(), 3);
    drop(store);

    clock.shift(TEN_YEARS);
    let store = open().await.unwrap();
    assert_eq!(dynamic_kids(&store).await.len(), 4);
    drop(store);
    clock.shift(-TEN_YEARS);
    let store = open().await.unwrap();
    assert!(dynamic_kids(&store).await.contains(&signed));
}

#[tokio::test(start_paused = true)]
async fn overdue_key_that_signed_stays_listed_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, rotation) = (Clock::driven(START), Rotation::new(WEEK, HOUR).unwrap());
    let open = || self::open(Some(folder.path().join("data")), rotation, clock.clone());
    let store = open().await.unwrap();
    fs::create_dir(folder.path().join("data/keys.json.new")).unwrap();
    tokio::time::advance(2 * WEEK).await;
    let signed = signer(&store).await;
    assert_eq!(dynamic_kids(&store).await, [&*signed]);
    drop(store);
    fs::remove_dir(folder.path().join("data/keys.json.new")).unwrap();
    // The first start makes the successor, the second one loads it.
    for _ in 0..2 {
        let listed = dynamic_kids(&open().await.unwrap()).await;
        assert_eq!((listed.len(), &listed[1]), (2, &signed));
        tokio::time::advance(Duration::from_secs(5)).await;
    }
}

/// Storage whose next `store` blocks until its result is sent. The time limit only ends a hang.
#[derive(Debug)]
struct SlowDisk(Mutex<mpsc::Receiver<io::Result<()>>>);

impl Storage for SlowDisk {
    fn store(&self, _: &SigningKeys) -> io::Result<()> {
        self.0.lock().unwrap().recv_timeout(Duration::from_secs(120)).map_err(io::Error::other)?
    }
}

/// A store whose disk blocks while it stores the next key, a minter, and a sender that unblocks it.
fn slow_store() -> (Arc<KeyStore>, Arc<Minter>, mpsc::Sender<io::Result<()>>) {
    let (release, slow) = mpsc::channel();
    let clock = Clock::driven(START);
    let keys = SigningKeys::generate(|| clock.unix_now_millis()).unwrap();
    let storage = Some(Box::new(SlowDisk(slow.into())) as Box<dyn Storage>);
    let rotation = Rotation::new(WEEK, HOUR).unwrap();
    let store = Arc::new(KeyStore::new(keys, storage, rotation, clock.clone()));
    let minter = Arc::new(Minter::new(store.clone(), clock));
    (store, minter, release)
}

/// Mints with this kind of key and returns the `kid` of the token.
async fn mint(minter: &Minter, key: KeyKind) -> Result<String, MinterError> {
    let token = UnsignedToken::new("i".to_owned(), OrderedObject::default(), 60, key);
    let jwt = minter.mint(token, minter.admit()?).await?;
    let header = URL_SAFE_NO_PAD.decode(jwt.split('.').next().unwrap()).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    Ok(header["kid"].as_str().unwrap().to_owned())
}

#[tokio::test(start_paused = true)]
async fn slow_disk_delays_only_dynamic_mints_and_at_most_5_s() {
    let (store, minter, release) = slow_store();
    let old = signer(&store).await;
    let static_kid = store.current().static_key().kid().to_owned();

    // A new key is due, and the old one may still sign. Time is paused while the disk is busy.
    tokio::time::advance(WEEK).await;
    assert_eq!(mint(&minter, KeyKind::Dynamic).await.as_ref(), Ok(&old));
    assert!(store.is_making());

    // The old key is too old.
    tokio::time::advance(2 * WEEK).await;
    let start = Instant::now();
    let dynamic_mint = || {
        let minter = minter.clone();
        tokio::spawn(async move { mint(&minter, KeyKind::Dynamic).await })
    };
    let waiting = dynamic_mint();
    tokio::task::yield_now().await;
    let current = store.current();
    assert_eq!((kids(&current), current.max_age()), (vec![old.clone()], 1));
    assert_eq!(mint(&minter, KeyKind::Static).await, Ok(static_kid));
    tokio::time::advance(NEW_KEY_TIMEOUT - Duration::from_millis(1)).await;
    assert!(!waiting.is_finished());
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(waiting.await.unwrap().as_ref(), Ok(&old));
    assert_eq!(start.elapsed(), NEW_KEY_TIMEOUT);
    assert!(store.is_making());

    let waiting = dynamic_mint();
    tokio::task::yield_now().await;
    release.send(Ok(())).unwrap();
    let new = waiting.await.unwrap().unwrap();
    assert_ne!(new, old);
    assert_eq!(dynamic_kids(&store).await, [new, old], "the old key has just signed");
}

#[tokio::test(start_paused = true)]
async fn waiting_dynamic_mints_do_not_block_static_mints() {
    let (_store, minter, _release) = slow_store();
    tokio::time::advance(2 * WEEK).await;
    let mut mints = JoinSet::new();
    for _ in 0..300 {
        let minter = minter.clone();
        mints.spawn(async move { mint(&minter, KeyKind::Dynamic).await });
    }
    for _ in 0..44 {
        assert_eq!(mints.join_next().await.unwrap().unwrap(), Err(MinterError::Busy));
    }
    assert!(mint(&minter, KeyKind::Static).await.is_ok());
    assert!(mints.try_join_next().is_none());
}

/// Records for each event whether the store's lock was free.
struct LockProbe(Arc<KeyStore>, Arc<Mutex<Vec<bool>>>);

impl tracing::Subscriber for LockProbe {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        self.1.lock().unwrap().push(self.0.is_unlocked());
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn events_are_logged_without_the_lock() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (store, _, release) = runtime.block_on(async { slow_store() });
    let free = Arc::<Mutex<Vec<bool>>>::default();
    // With a single subscriber in the process, tracing checks only for the first thread that logs
    // an event whether it has a subscriber, and caches the result. A second subscriber prevents
    // that.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    tracing::subscriber::with_default(LockProbe(store.clone(), free.clone()), || {
        for result in [Ok(()), Err(io::ErrorKind::StorageFull.into())] {
            release.send(result).unwrap();
            store.add_key();
        }
    });
    assert_eq!(*free.lock().unwrap(), [true, true]);
}
