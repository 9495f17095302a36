//! Deadlines of keys while the wall clock and the monotonic clock differ.

use std::time::Duration;

use tokio::time::sleep;

use super::endpoint::{Behaviour, Endpoint};
use super::guarantees::{OLD, has, request};
use super::lifecycle::remote;
use crate::jose::Algorithm;
use crate::jwks::lookup::Lookup;
use crate::jwks::remote::limits::Limits;
use crate::rejection::RejectionReason;

#[tokio::test(start_paused = true)]
async fn key_expires_by_the_clock_that_is_ahead() {
    const YEAR: i64 = 365 * 86_400;
    // (shift of the wall clock, hours after which the key is usable, and is not)
    for (shift, usable_after, expired_after) in
        [(0, 24, 25), (-3600, 24, 25), (-10 * YEAR, 24, 25), (7200, 22, 23)]
    {
        let endpoint = Endpoint::listing(&[OLD]);
        let (jwks, clock) = remote(&endpoint, Limits::default());
        jwks.ready().await.unwrap();
        endpoint.set(Behaviour::Refuses);
        clock.shift(shift);
        sleep(Duration::from_secs(usable_after * 3600)).await;
        assert!(has(&jwks, &clock, OLD), "{shift}");
        sleep(Duration::from_secs((expired_after - usable_after) * 3600)).await;
        assert!(!has(&jwks, &clock, OLD), "{shift}");
    }
}

#[tokio::test(start_paused = true)]
async fn key_is_usable_again_when_the_wall_clock_returns() {
    let endpoint = Endpoint::listing(&[OLD]);
    let (jwks, clock) = remote(&endpoint, Limits::default());
    jwks.ready().await.unwrap();
    let Lookup::Found(held) = jwks.look_up(Some("k0"), Algorithm::EdDSA, clock.unix_now()) else {
        panic!("a listed key is not found");
    };
    endpoint.set(Behaviour::Refuses);
    clock.shift(10 * 365 * 86_400);
    assert!(!held.is_usable(clock.unix_now()));
    let refused = request(&jwks, &clock, "k0").await.unwrap_err();
    assert_eq!(refused.reason(), RejectionReason::KeysStale);
    assert_eq!(jwks.health().usable_for, Duration::ZERO);
    clock.shift(-10 * 365 * 86_400);
    assert!(held.is_usable(clock.unix_now()) && has(&jwks, &clock, OLD));

    // While the clock is ahead, one fetch makes the key usable.
    clock.shift(10 * 365 * 86_400);
    endpoint.set(Behaviour::Responds);
    assert!(request(&jwks, &clock, "k0").await.is_ok());
}
