//! Long runs of M1, a request each second, in virtual time.

use std::env;
use std::time::Duration;

use http::StatusCode;
use tokio::time::{Instant, sleep, sleep_until};

use super::site::{Answer, M2, Site};
use crate::token::schedule::RenewalPolicy;

const SECOND: Duration = Duration::from_secs(1);
const MINUTES_5: Duration = Duration::from_secs(300);
const CENTURY: Duration = Duration::from_secs(3_153_600_000);
const DAY: u64 = 86_400;

/// The longest outage, in seconds: the window of a token of 5 minutes is 135 to 165 s.
const LONGEST_OUTAGE: u64 = 130;

/// A hanging authority is away until the attempt that it hangs has ended, after 10 s.
const ATTEMPT: u64 = 10;

/// Each second's answer of the authority, for `days` days. A fifth of them are failures.
fn answers(days: u64, rng: &mut fastrand::Rng) -> Vec<Answer> {
    let failures =
        [Answer::Down, Answer::Hanging, Answer::Expired, Answer::Garbage, Answer::Markerless];
    let mut answers = Vec::new();
    while answers.len() < (days * DAY) as usize {
        let up = if rng.u8(..4) == 0 { Answer::Slow } else { Answer::Up };
        answers.extend(vec![up; rng.usize(60..=500)]);
        let failure = rng.choice(failures).unwrap();
        let longest = match failure {
            Answer::Hanging => LONGEST_OUTAGE - ATTEMPT,
            _ => LONGEST_OUTAGE,
        };
        answers.extend(vec![failure; rng.usize(10..=longest as usize)]);
    }
    answers
}

#[tokio::test(start_paused = true)]
async fn ten_days_of_short_tokens_lose_no_request() {
    let seed = env::var("M2M_SOAK_SEED").map_or(fastrand::u64(..), |seed| seed.parse().unwrap());
    eprintln!("seed {seed}");
    // The renewal's own generators are forks of this thread's.
    fastrand::seed(seed);
    let answers = answers(10, &mut fastrand::Rng::with_seed(seed));
    let mut site = Site::new(MINUTES_5, RenewalPolicy::BeforeExpiry);
    let start = Instant::now();
    for (second, answer) in answers.iter().enumerate() {
        site.set_answer(*answer);
        sleep_until(start + Duration::from_secs(second as u64)).await;
        site.send().await;
    }
    let is_failure = |answer: &&Answer| !matches!(answer, Answer::Up | Answer::Slow);
    let share = answers.iter().filter(is_failure).count() as f64 / answers.len() as f64;
    let (counts, attempts, minted) = (site.counts(), site.attempts(), site.minted());
    eprintln!(
        "{} requests, {} lost, {} waited; {attempts} attempts, {minted} tokens, {:.1} % failures",
        counts.sent,
        counts.rejected,
        counts.waited,
        100.0 * share
    );
    assert_eq!((counts.expired, counts.rejected), (0, 0), "seed {seed}");
    assert!(counts.sent >= 10 * DAY, "seed {seed}");
    assert!((0.18..0.22).contains(&share), "seed {seed}: {share}");
    assert!(attempts > minted + 1000, "seed {seed}: the failures reach the renewal");
}

#[tokio::test(start_paused = true)]
async fn core_with_new_keys_heals_a_running_m1_within_31_s() {
    let mut slowest = Duration::ZERO;
    for (validity, policy) in
        [(CENTURY, RenewalPolicy::OnRejection), (MINUTES_5, RenewalPolicy::BeforeExpiry)]
    {
        // How long M1 has run, and how long the core is away while M2 has its new keys already.
        for (age, away) in [(0, 0), (1, 0), (100, 0), (1000, 0), (100, 1), (100, 20), (100, 45)] {
            let case = format!("{validity:?}, restarted after {age} s, away for {away} s");
            let mut site = Site::new(validity, policy);
            site.set_m2(M2::Verifies);
            for _ in 0..age {
                assert_eq!(site.send().await, StatusCode::OK, "{case}");
                sleep(SECOND).await;
            }
            site.set_answer(Answer::Down);
            site.replace_keys();
            for _ in 0..away {
                assert_eq!(site.send().await, StatusCode::UNAUTHORIZED, "{case}");
                sleep(SECOND).await;
            }
            site.set_answer(Answer::Up);
            let start = Instant::now();
            while site.send().await != StatusCode::OK {
                sleep(SECOND).await;
                assert!(start.elapsed() <= Duration::from_secs(31), "{case}");
            }
            slowest = slowest.max(start.elapsed());
        }
    }
    eprintln!("the slowest healed after {slowest:?}");
    assert!(slowest > SECOND, "{slowest:?}");
}

#[tokio::test(start_paused = true)]
async fn m2_that_rejects_for_an_hour_causes_at_most_10_mints() {
    for (validity, policy) in [
        (CENTURY, RenewalPolicy::OnRejection),
        (Duration::from_secs(DAY), RenewalPolicy::BeforeExpiry),
    ] {
        let mut site = Site::new(validity, policy);
        site.set_m2(M2::Rejects);
        for _ in 0..3600 {
            assert_eq!(site.send().await, StatusCode::UNAUTHORIZED);
            sleep(SECOND).await;
        }
        eprintln!("{validity:?}: {} mints in an hour", site.attempts());
        assert!((5..=10).contains(&site.attempts()), "{validity:?}: {}", site.attempts());
        site.set_m2(M2::Verifies);
        assert_eq!(site.send().await, StatusCode::OK, "{validity:?}");
    }
}
