//! The renewal task when its runtime is shut down or not driven, and after a suspension.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;
use tokio::time::{Instant, advance, sleep};

use super::renewal::{Core, HOUR, Slow, pass, reject, value};
use crate::token::error::MintError;
use crate::token::mint::Mint;
use crate::token::schedule::RenewalPolicy;
use crate::token::token_value::TokenValue;

fn paused() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

#[test]
fn renewal_restarts_on_use_after_runtime_shutdown() {
    let first_runtime = paused();
    let (core, token) = first_runtime.block_on(async {
        let core = Core::new(3600);
        let token = core.token(RenewalPolicy::BeforeExpiry);
        tokio::task::yield_now().await;
        (core, token)
    });
    drop(first_runtime);
    assert!(!token.health().renewing);
    let first = token.header_value();
    paused().block_on(async {
        assert_eq!(token.header_value(), first);
        assert!(token.health().renewing);
        advance(Duration::from_secs(3600)).await;
        pass(3600).await;
        assert_ne!(token.header_value(), first);
    });
    assert!(core.count() > 1);
}

#[test]
fn restarted_renewal_keeps_the_interval_between_mints() {
    struct Hanging(Arc<Mutex<Vec<Instant>>>);

    impl Mint for Hanging {
        async fn mint(&self, _: Instant) -> Result<TokenValue, MintError> {
            self.0.lock().unwrap().push(Instant::now());
            std::future::pending().await
        }

        fn timeout(&self) -> Duration {
            Duration::from_secs(10)
        }
    }

    let attempts = Arc::<Mutex<Vec<_>>>::default();
    let minter = Hanging(Arc::clone(&attempts));
    let token = paused().block_on(async {
        let core = Core::new(1);
        core.token_from(RenewalPolicy::BeforeExpiry, minter)
    });
    // Each runtime's clock restarts, so the renewal is due on each of them.
    for _ in 0..10 {
        paused().block_on(async {
            let _ = token.header_value();
            sleep(Duration::from_millis(1500)).await;
        });
    }
    let attempts = attempts.lock().unwrap();
    let shortest = attempts.windows(2).map(|pair| pair[1] - pair[0]).min();
    assert!(
        !attempts.is_empty() && shortest.is_none_or(|gap| gap >= Duration::from_secs(1)),
        "{shortest:?}"
    );
}

/// Each runtime has a paused clock of its own, which advances while the runtime is driven.
#[test]
fn token_is_renewed_while_its_first_runtime_is_not_driven() {
    // The wall clock is right, or was set back.
    for shift in [0, -3600] {
        let (first, second) = (paused(), paused());
        let (core, token) = first.block_on(async {
            let core = Core::new(3600);
            let token = core.token(RenewalPolicy::BeforeExpiry);
            yield_now().await;
            (core, token)
        });
        let old = token.header_value();
        second.block_on(async {
            advance(Duration::from_secs(2800)).await;
            core.clock().shared().shift(shift);
            // A probe is a use.
            assert!(token.health().renewing, "the use moved the task");
            assert_eq!(core.count(), 1);
            pass(1).await;
            assert_ne!(token.header_value(), old);
        });
        first.block_on(async {
            // The old task ends when its runtime is driven again.
            yield_now().await;
            assert_eq!(first.metrics().num_alive_tasks(), 0);
        });
        assert_eq!(core.count(), 2);
    }
}

#[test]
fn rejected_token_is_replaced_after_an_interrupted_mint() {
    let (first, second) = (paused(), paused());
    let (core, token) = first.block_on(async {
        let core = Core::new(3_153_600_000);
        let minter = Slow { core: core.clone(), seconds: 8, retry_after: None };
        let token = core.token_from(RenewalPolicy::OnRejection, minter);
        pass(2).await;
        reject(&token, value(&token).1);
        pass(1).await;
        assert!(core.last_attempt().is_some(), "the mint has started");
        (core, token)
    });
    drop(first);
    second.block_on(async {
        // A use starts the task again.
        let _ = token.header_value();
        pass(20).await;
    });
    assert_eq!(core.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn suspended_machine_renews_at_the_first_use() {
    let core = Core::new(3600);
    let token = core.token(RenewalPolicy::BeforeExpiry);
    yield_now().await;
    let old = token.header_value();
    core.clock().advance(2 * HOUR);
    assert_eq!(token.header_value(), old);
    pass(1).await;
    assert_ne!(token.header_value(), old);
    assert_eq!(core.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn suspended_machine_renews_within_a_minute_without_a_use() {
    let core = Core::new(3600);
    let _token = core.token(RenewalPolicy::BeforeExpiry);
    yield_now().await;
    core.clock().advance(2 * HOUR);
    pass(61).await;
    assert_eq!(core.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn health_tells_when_the_last_mint_ended() {
    let core = Core::new(3600);
    let token = core.token(RenewalPolicy::BeforeExpiry);
    let start = core.clock().now();
    let at = |seconds| Some(start + Duration::from_secs(seconds));
    pass(1000).await;
    assert_eq!(token.health().last_mint, at(0));
    core.set_down(true);
    pass(2600).await;
    let attempted = core.last_attempt().unwrap().as_secs();
    assert_eq!(token.health().last_mint, at(attempted), "a failed one counts");
}
