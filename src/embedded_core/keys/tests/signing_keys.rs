use std::ops::Range;
use std::sync::LazyLock;
use std::time::Duration;

use uuid::Uuid;

use crate::embedded_core::keys::dynamic_key::{DynamicKey, Moment};
use crate::embedded_core::keys::rotation::{MAX_DYNAMIC_KEYS, Rotation};
use crate::embedded_core::keys::signing_keys::SigningKeys;
use crate::jose::{Algorithm, SigningKey};

/// One key that all tests share, because generating is slow. They distinguish keys by creation time
/// or by `kid`.
fn key() -> SigningKey {
    static KEY: LazyLock<SigningKey> =
        LazyLock::new(|| SigningKey::generate(Algorithm::RS256).unwrap());
    KEY.with_kid("s-1".to_owned())
}

const HOUR: u64 = 3_600_000;
const WEEK: u64 = 168 * HOUR;
const TEN_YEARS: u64 = 520 * WEEK;
const BORN: u64 = 1_700_000_000_000;

fn default_rotation() -> Rotation {
    Rotation::new(Duration::from_millis(WEEK), Duration::from_millis(HOUR)).unwrap()
}

fn dynamic(created_millis: u64) -> DynamicKey {
    DynamicKey::new(key(), created_millis)
}

/// A set whose first dynamic key was made by this process at [`BORN`].
fn set() -> SigningKeys {
    SigningKeys::from_stored(key(), vec![dynamic(BORN)]).unwrap()
}

/// The moment at which the dynamic key of [`set`] has this age by both clocks.
fn at(age: u64) -> Moment {
    Moment::new(BORN + age, age)
}

fn created(set: &SigningKeys) -> Vec<u64> {
    set.dynamic().iter().map(DynamicKey::created_millis).collect()
}

fn listed(set: &SigningKeys, now: Moment) -> Vec<u64> {
    set.listed(now, default_rotation()).map(DynamicKey::created_millis).collect()
}

/// A set of keys with these creation times, newest first, as a process loads it at this wall time.
fn loaded(created: &[u64], wall: u64) -> SigningKeys {
    let dynamic = created.iter().map(|created| dynamic(*created)).collect();
    let set = SigningKeys::from_stored(key(), dynamic).unwrap();
    set.loaded_at(Moment::new(wall, 0), default_rotation())
}

#[test]
fn max_age_ends_when_the_next_key_is_due() {
    let cases = [
        (0, 604_740, false),
        (82_500, 604_657, false),
        (WEEK - 62_000, 2, false),
        (WEEK - 60_001, 1, false),
        (WEEK - 60_000, 1, true),
        (WEEK, 1, true),
        (u64::MAX - BORN, 1, true),
    ];
    let (set, rotation) = (set(), default_rotation());
    for (age, max_age, due) in cases {
        assert_eq!(set.max_age(at(age), rotation), max_age, "at age {age}");
        assert_eq!(set.is_due(at(age), rotation), due, "at age {age}");
    }
}

#[test]
fn new_key_is_due_by_either_clock() {
    // Wall and monotonic time since the newest key was made by this process, and the seconds until
    // it is due.
    let made = [
        (0, WEEK - 60_000, 1, true),
        (WEEK - 60_000, 60_000, 1, true),
        (TEN_YEARS, 60_000, 1, true),
        (TEN_YEARS, 59_999, 1, false),
        (TEN_YEARS, 0, 60, false),
        (HOUR, 2 * HOUR, 604_740 - 7_200, false),
        (2 * HOUR, HOUR, 604_740 - 7_200, false),
    ];
    let rotation = default_rotation();
    for (wall, elapsed, max_age, due) in made {
        let now = Moment::new(BORN + wall, elapsed);
        assert_eq!(
            (set().max_age(now, rotation), set().is_due(now, rotation)),
            (max_age, due),
            "{wall} {elapsed}"
        );
    }
    // A creation time ahead of the wall clock: due at once, unless this process made the key less
    // than a minute ago.
    let behind = |elapsed| Moment::new(BORN - 1, elapsed);
    assert_eq!(set().max_age(behind(0), rotation), 60);
    assert!(!set().is_due(behind(59_999), rotation));
    assert!(set().is_due(behind(60_000), rotation));
    assert!(loaded(&[BORN], BORN - 1).is_due(behind(0), rotation));
    assert!(!loaded(&[BORN], BORN).is_due(Moment::new(BORN, 0), rotation));
}

#[test]
fn new_key_is_not_due_while_the_set_is_full() {
    let newest_first: Vec<_> = (0..MAX_DYNAMIC_KEYS as u64).map(|at| BORN - at).collect();
    let now = Moment::new(BORN + TEN_YEARS, HOUR);
    let (full, rotation) = (loaded(&newest_first, BORN), default_rotation());
    assert!(!full.is_due(now, rotation));
    assert!(loaded(&newest_first[1..], BORN).is_due(now, rotation));
    // The old keys have left the key set.
    let later = Moment::new(now.wall(), WEEK + 2 * HOUR);
    assert!(full.is_due(later, rotation));
    assert_eq!(full.with(dynamic(BORN + 1), now, rotation).dynamic().len(), MAX_DYNAMIC_KEYS);
}

#[test]
fn newest_key_signs_once_listed_for_a_minute() {
    let rotation = default_rotation();
    // The second key's age at creation, a later moment, and the key that signs then.
    let cases = [
        (WEEK - 60_000, WEEK - 60_000, "old"),
        (WEEK - 60_000, WEEK - 1, "old"),
        (WEEK - 60_000, WEEK, "new"),
        (WEEK + HOUR - 30_000, WEEK + HOUR - 1, "old"),
        (WEEK + HOUR - 30_000, WEEK + HOUR, "new"),
        (WEEK + 5 * HOUR, WEEK + 5 * HOUR, "new"),
    ];
    let (old, new) = (set(), key().with_kid("s-2".to_owned()));
    for (made, now, expected) in cases {
        let both = old.with(DynamicKey::new(new.clone(), BORN + made), at(made), rotation);
        let signer = both.signer(at(now), rotation).unwrap();
        let expected = if expected == "new" { &new } else { old.newest().key() };
        assert_eq!(signer.kid(), expected.kid(), "made at {made}, signing at {now}");
    }
}

#[test]
fn old_key_without_successor_signs_one_validity_longer() {
    let (set, rotation) = (set(), default_rotation());
    assert!(set.signer(at(WEEK + HOUR - 1), rotation).is_some());
    assert!(set.signer(at(WEEK + HOUR), rotation).is_none());
}

#[test]
fn overdue_signer_stays_listed_for_two_validities() {
    let (set, rotation) = (set(), default_rotation());
    let made = 2 * WEEK;
    // The old key signs while the set with its successor is stored.
    let both = set.with(dynamic(BORN + made), at(made), rotation);
    assert_eq!(listed(&both, at(made)), [BORN + made]);
    set.overdue_signer(at(made + HOUR), rotation);
    assert_eq!(listed(&both, at(made + 3 * HOUR - 1)), [BORN + made, BORN]);
    assert_eq!(listed(&both, at(made + 3 * HOUR)), [BORN + made]);
    assert_eq!(created(&both.with(dynamic(0), at(made + 3 * HOUR), rotation)), [0, BORN + made]);
}

#[test]
fn old_key_stays_listed_for_interval_and_two_validities() {
    let rotation = default_rotation();
    let both = set().with(dynamic(BORN + WEEK), at(WEEK), rotation);
    assert_eq!(listed(&both, at(WEEK + 2 * HOUR - 1)), [BORN + WEEK, BORN]);
    assert_eq!(listed(&both, at(WEEK + 2 * HOUR)), [BORN + WEEK]);
    let json: serde_json::Value = serde_json::from_str(&both.to_json(at(WEEK), rotation)).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 3, "two dynamic keys and the static one");
}

#[test]
fn key_that_is_no_longer_listed_leaves_the_set() {
    let rotation = default_rotation();
    let both = set().with(dynamic(BORN + WEEK), at(WEEK), rotation);
    for (now, kept) in [(WEEK + 2 * HOUR - 1, 3), (WEEK + 2 * HOUR, 2)] {
        assert_eq!(both.with(dynamic(BORN + now), at(now), rotation).dynamic().len(), kept);
    }
}

#[test]
fn jump_of_the_wall_clock_removes_no_key() {
    let both = set().with(dynamic(BORN + WEEK), at(WEEK), default_rotation());
    for wall in [0, BORN - TEN_YEARS, BORN + TEN_YEARS, u64::MAX] {
        let now = |elapsed| Moment::new(wall, elapsed);
        assert_eq!(listed(&both, now(WEEK + 2 * HOUR - 1)), [BORN + WEEK, BORN], "{wall}");
        assert_eq!(listed(&both, now(WEEK + 2 * HOUR)), [BORN + WEEK], "{wall}");
    }
}

#[test]
fn loaded_keys_get_the_age_that_their_order_allows() {
    const AHEAD: u64 = BORN + TEN_YEARS;
    // Creation times, newest first; the wall time; the ages.
    let cases: [(&[u64], u64, &[u64]); 8] = [
        (&[BORN], BORN + 5, &[5]),
        (&[BORN + 3, BORN], BORN + 5, &[2, 5]),
        // Created by a clock far ahead, no successor yet.
        (&[AHEAD, BORN], BORN + 5, &[0, 5]),
        // Created by a clock far ahead, with a successor: at least as old as that.
        (&[BORN + 3, AHEAD, BORN], BORN + 5, &[2, 2, 5]),
        (&[AHEAD + 1, BORN + 3, AHEAD, BORN], BORN + 5, &[0, 2, 2, 5]),
        // Created by a clock far behind: at most as old as its predecessor.
        (&[7, BORN], BORN + 5, &[5, 5]),
        (&[BORN + 3, 7, BORN], BORN + 5, &[2, 5, 5]),
        (&[BORN + 3, BORN], 0, &[0, 0]),
    ];
    for (created, wall, ages) in cases {
        let now = Moment::new(wall, 0);
        let set = loaded(created, wall);
        assert_eq!(
            set.dynamic().iter().map(|key| key.age(now)).collect::<Vec<_>>(),
            ages,
            "{created:?}"
        );
        let later = Moment::new(wall + 100, 100);
        let older: Vec<_> = ages.iter().map(|age| age + 100).collect();
        assert_eq!(
            set.dynamic().iter().map(|key| key.age(later)).collect::<Vec<_>>(),
            older,
            "{created:?}"
        );
    }
}

#[test]
fn keys_loaded_with_clock_far_ahead_are_listed_once_it_is_set_back() {
    let rotation = default_rotation();
    let ahead = |elapsed| Moment::new(BORN + TEN_YEARS + elapsed, elapsed);
    let set = loaded(&[BORN, BORN - WEEK], BORN + TEN_YEARS);
    assert!(set.is_due(ahead(0), rotation));
    let set = set.with(dynamic(BORN + TEN_YEARS), ahead(0), rotation);
    let all = [BORN + TEN_YEARS, BORN, BORN - WEEK];
    // The newest of the loaded keys may have signed just before.
    assert_eq!(listed(&set, ahead(2 * HOUR - 1)), all[..2]);
    assert_eq!(listed(&set, ahead(2 * HOUR)), all[..1]);
    // The clock is set back a minute after the newest key was made.
    let sane = |elapsed| Moment::new(BORN + elapsed, elapsed);
    assert_eq!(listed(&set, sane(60_000)), all);
    assert_eq!(listed(&set, sane(2 * HOUR)), all[..2]);
    assert!(set.is_due(sane(60_000), rotation), "the newest key's creation time is ahead");
    let set = set.with(dynamic(BORN + 60_000), sane(60_000), rotation);
    assert_eq!(created(&set), [BORN + 60_000, BORN + TEN_YEARS, BORN, BORN - WEEK]);
    assert_eq!(set.signer(sane(HOUR), rotation).map(SigningKey::kid), Some("s-1"));
    // By the clock that was set back, `BORN` and the key made at loading both had age 0 then.
    assert_eq!(listed(&set, sane(WEEK + 2 * HOUR - 1)), [BORN + 60_000, BORN + TEN_YEARS, BORN]);
    assert_eq!(listed(&set, sane(WEEK + 2 * HOUR)), [BORN + 60_000]);
}

#[test]
fn loaded_keys_that_all_seem_old_are_kept_for_the_listing_time() {
    let rotation = default_rotation();
    let made =
        |set: &SigningKeys, now: Moment| created(&set.with(dynamic(now.wall()), now, rotation));
    let doubtful = loaded(&[BORN, BORN - WEEK], BORN + TEN_YEARS);
    let now = |elapsed| Moment::new(BORN + TEN_YEARS + elapsed, elapsed);
    assert_eq!(made(&doubtful, now(WEEK + 2 * HOUR - 1)).len(), 3);
    // The newest key stays until its successor is stored, whatever its age.
    assert_eq!(made(&doubtful, now(WEEK + 2 * HOUR)).len(), 2);
    // If the newest key is young, the clock is right, and so are the ages of the others.
    let wall = BORN + 2 * HOUR + 60_000;
    assert_eq!(made(&loaded(&[BORN, BORN - WEEK], wall), Moment::new(wall, 0)), [wall, BORN]);
}

#[test]
fn keys_of_one_set_have_distinct_names() {
    let set = loaded(&[BORN + 2, BORN, BORN + 1], BORN);
    let cases = [
        (BORN + 5, BORN + 5),
        (BORN, BORN + 3),
        (BORN + 1, BORN + 3),
        (BORN + 2, BORN + 3),
        (3, 3),
    ];
    for (wall, created) in cases {
        assert_eq!(set.next_creation(Moment::new(wall, 0)), created);
    }
    let kept = |created: &[u64]| {
        let dynamic = created.iter().map(|created| dynamic(*created)).collect();
        SigningKeys::from_stored(key(), dynamic).is_some()
    };
    assert!(kept(&[BORN, BORN + 2, BORN + 1]));
    assert!(!kept(&[BORN, BORN + 2, BORN]));
    assert!(!kept(&[]));
}

#[test]
fn next_key_is_due_after_half_of_a_short_interval() {
    let rotation = Rotation::new(Duration::from_secs(10), Duration::from_secs(10)).unwrap();
    assert_eq!(set().max_age(at(0), rotation), 5);
    assert!(set().is_due(at(5_000), rotation));
}

#[test]
fn key_that_signed_before_a_doubtful_start_is_kept() {
    let rotation = default_rotation();
    // Names, newest first; how far ahead the wall clock is at the start; how long the next key
    // takes to be due.
    let cases: [(&str, &[u64], u64, u64); 4] = [
        ("a week ahead", &[BORN, BORN - WEEK + 60_000], WEEK, 0),
        ("due after a second", &[BORN, BORN - WEEK + 60_000], WEEK - 61_000, 1_000),
        (
            "due in two validities",
            &[BORN, BORN - WEEK + 60_000],
            WEEK - 60_000 - 2 * HOUR,
            2 * HOUR,
        ),
        ("names out of order", &[BORN, BORN + TEN_YEARS - HOUR, BORN - HOUR], TEN_YEARS, 0),
    ];
    for (name, created, ahead, elapsed) in cases {
        let set = loaded(created, BORN + ahead);
        let now = Moment::new(BORN + ahead + elapsed, elapsed);
        assert!(set.is_due(now, rotation), "{name}");
        let set = set.with(dynamic(now.wall()), now, rotation);
        assert_eq!(set.dynamic().len(), 1 + created.len(), "{name}");
        let back = Moment::new(BORN + elapsed + 1, elapsed + 1);
        assert!(listed(&set, back).contains(created.last().unwrap()), "{name}");
    }
}

#[test]
fn key_that_signs_while_the_clock_is_set_back_stays_listed() {
    let rotation = default_rotation();
    let created = [BORN + WEEK - 1, BORN];
    let set = loaded(&created, BORN + WEEK + 30 * HOUR);
    let now = |wall, elapsed| Moment::new(BORN + wall, elapsed);
    assert_eq!(listed(&set, now(WEEK + 30 * HOUR, 0)), created[..1]);
    // Verifiers may not have the newest key yet, so the older key signs once its age allows it.
    assert!(set.signer(now(WEEK - 10 * HOUR, 5), rotation).is_some());
    for (elapsed, expected) in
        [(5, &created[..]), (2 * HOUR + 4, &created), (2 * HOUR + 5, &created[..1])]
    {
        assert_eq!(listed(&set, now(WEEK + 30 * HOUR + elapsed, elapsed)), expected, "{elapsed}");
    }
}

#[test]
fn loaded_key_is_listed_for_as_long_as_it_may_have_signed() {
    // Names, newest first; the wall time at the start; how long this process lists the last key
    // once it has a successor.
    let cases: [(&str, &[u64], u64, u64); 5] = [
        ("newest, long overdue", &[BORN - TEN_YEARS], BORN, 2 * HOUR),
        ("newest, young", &[BORN], BORN, WEEK + 2 * HOUR),
        ("successor just made, and late", &[BORN, BORN - 2 * WEEK], BORN, 2 * HOUR + 60_000),
        ("successor has signed for an hour", &[BORN, BORN - 2 * WEEK], BORN + HOUR + 60_000, HOUR),
        ("successor made in time", &[BORN, BORN - WEEK + 60_000], BORN, 2 * HOUR + 60_000),
    ];
    for (name, created, wall, until) in cases {
        let set = loaded(created, wall);
        let set = set.with(dynamic(wall + 1), Moment::new(wall, 0), default_rotation());
        let is_listed = |elapsed| {
            listed(&set, Moment::new(wall + elapsed, elapsed)).contains(created.last().unwrap())
        };
        assert!(is_listed(until - 1), "{name}");
        assert!(!is_listed(until), "{name}");
    }
}

#[test]
fn clock_far_ahead_once_does_not_stop_rotation() {
    const STEP: u64 = HOUR / 6;
    const DAY: u64 = 24 * HOUR;
    let rotation = default_rotation();
    let each_day: Vec<_> = (1..8 * 7).map(|day| day * DAY).collect();
    // When and how far the clock is ahead, and when the process restarts.
    let cases: [(&str, Range<u64>, u64, &[u64]); 8] = [
        ("for one request", DAY..DAY + STEP, TEN_YEARS, &[]),
        ("by less than an interval", DAY..2 * DAY, WEEK - HOUR, &[]),
        ("for two intervals", DAY..DAY + 2 * WEEK, TEN_YEARS, &[]),
        ("at a start", DAY..2 * DAY, TEN_YEARS, &[DAY]),
        ("until a start", DAY..2 * DAY, TEN_YEARS, &[2 * DAY]),
        ("from a start to the next", DAY..2 * DAY, TEN_YEARS, &[DAY, 2 * DAY]),
        ("by two intervals, daily starts", DAY..2 * DAY, 2 * WEEK, &each_day),
        ("by ten years, daily starts", DAY..2 * DAY, TEN_YEARS, &each_day),
    ];
    for (name, ahead, by, restarts) in cases {
        let (mut set, mut start, mut made) = (set(), 0, 0);
        for time in (0..8 * WEEK).step_by(STEP as usize) {
            let wall = BORN + time + if ahead.contains(&time) { by } else { 0 };
            if restarts.contains(&time) {
                (set, start) = (loaded(&created(&set), wall), time);
            }
            let now = Moment::new(wall, time - start);
            if set.is_due(now, rotation) {
                set = set.with(dynamic(set.next_creation(now)), now, rotation);
                made = time;
            }
            assert!(time - made < WEEK, "{name}: no new key for a week, {time} ms after the start");
        }
    }
}

#[test]
fn clock_at_1970_at_each_start_does_not_end_rotation() {
    let rotation = default_rotation();
    let mut names = vec![BORN];
    for day in 1..=80 {
        let boot = day * 1_000;
        let set = loaded(&names, boot);
        let newest = |set: &SigningKeys, now| {
            set.is_due(now, rotation).then(|| set.with(dynamic(now.wall()), now, rotation))
        };
        let set = newest(&set, Moment::new(boot, 0)).unwrap_or(set);
        // The clock is set after 20 s. The machine runs for a day.
        let moments = (1..144).map(|step| step * 600_000);
        let set = moments.fold(set, |set, elapsed| {
            let now = Moment::new(BORN + day * 24 * HOUR + elapsed, elapsed);
            set.signer(now, rotation).unwrap();
            newest(&set, now).unwrap_or(set)
        });
        names = created(&set);
        assert!(names[0] + WEEK > BORN + day * 24 * HOUR, "day {day}, {} keys", names.len());
    }
    assert_eq!(names.len(), MAX_DYNAMIC_KEYS);
}

#[test]
fn full_set_drops_no_key_whose_tokens_may_be_valid() {
    let newest_first: Vec<_> = (0..MAX_DYNAMIC_KEYS as u64).map(|at| BORN - at).collect();
    let (full, rotation) = (loaded(&newest_first, BORN), default_rotation());
    // An earlier process may have signed with the oldest key until its successor, 97 ms old, was
    // listed for a minute.
    let spent = 2 * HOUR + 60_000 - 97;
    let now = |elapsed| Moment::new(BORN + TEN_YEARS, elapsed);
    assert!(!full.is_due(now(spent - 1), rotation));
    assert!(full.is_due(now(spent), rotation));
    let next = full.with(dynamic(BORN + TEN_YEARS), now(spent), rotation);
    assert_eq!(created(&next)[1..], newest_first[..MAX_DYNAMIC_KEYS - 1]);
    full.dynamic().last().unwrap().extend_listing(now(spent), rotation);
    assert!(!full.is_due(now(spent + 2 * HOUR - 1), rotation));
    assert!(full.is_due(now(spent + 2 * HOUR), rotation));
}

#[test]
fn static_kid_is_a_random_uuid() {
    let keys = SigningKeys::generate(|| BORN).unwrap();
    let uuid = Uuid::parse_str(keys.static_key().kid().strip_prefix("s-").unwrap()).unwrap();
    assert_eq!(uuid.get_version_num(), 4);
    assert_eq!(keys.newest().key().kid(), format!("d-{BORN}"));
}
