//! What a refused request does to the token, in virtual time.

use std::time::Duration;

use super::renewal::{Core, HOUR, pass, reject, value};
use crate::rejection::RejectionReason;
use crate::token::refusal::Refusal;
use crate::token::schedule::RenewalPolicy;
use crate::token::service_token::ServiceToken;
use crate::token::token_health::TokenRejection;

const CENTURY: u64 = 3_153_600_000;
const BILLING: &str = "https://billing.internal";

fn refuse(token: &ServiceToken, description: &str) {
    let refusal = Refusal::InvalidToken { description: Some(description.to_owned()) };
    token.refused(value(token).1, &refusal, Some(BILLING.to_owned()), None);
}

#[tokio::test(start_paused = true)]
async fn clock_skew_costs_no_more_than_the_skew() {
    // A called service whose clock is behind, with the default leeway of 30 s.
    // (seconds behind, refusals at one request a second)
    for (behind, expected) in [(60, 30), (300, 270)] {
        let core = Core::new(CENTURY);
        let token = core.token(RenewalPolicy::OnRejection);
        let mut refusals = 0;
        for second in 0..1000 {
            // The newest token was issued when the last mint was made.
            let issued_at = core.last_attempt().map_or(0, |at| at.as_secs());
            if issued_at + behind > second + 30 {
                refusals += 1;
                refuse(&token, RejectionReason::IssuedInFuture.description());
            }
            pass(1).await;
        }
        assert_eq!(refusals, expected, "{behind} s behind");
        assert_eq!(core.count(), 1, "{behind} s behind");
    }
}

#[tokio::test(start_paused = true)]
async fn rejection_that_a_new_token_mends_mints_once() {
    let cases = [
        (RejectionReason::WrongIssuer, 1),
        (RejectionReason::WrongAudience, 1),
        (RejectionReason::WrongSubject, 1),
        (RejectionReason::NotYetValid, 1),
        (RejectionReason::IssuedInFuture, 1),
        (RejectionReason::UnknownKey, 2),
        (RejectionReason::BadSignature, 2),
        (RejectionReason::Expired, 2),
        (RejectionReason::TokenRevoked, 2),
    ];
    for (reason, mints) in cases {
        let core = Core::new(CENTURY);
        let token = core.token(RenewalPolicy::OnRejection);
        let first = token.header_value();
        refuse(&token, reason.description());
        pass(2).await;
        assert_eq!(core.count(), mints, "{reason:?}");
        assert_eq!(token.header_value() != first, mints == 2, "{reason:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn bare_401_to_an_expired_token_mints() {
    let core = Core::new(3600);
    let token = core.token(RenewalPolicy::OnRejection);
    let bare = || token.refused(value(&token).1, &Refusal::Unexplained, None, None);
    pass(60).await;
    bare();
    pass(60).await;
    assert_eq!((core.count(), token.health().last_rejection), (1, None), "the token is valid");
    // The machine was suspended: the monotonic clock stood still.
    core.clock().advance(HOUR);
    bare();
    pass(1).await;
    assert_eq!(core.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn reported_rejection_mints_unless_the_value_is_old() {
    let core = Core::new(CENTURY);
    let token = core.token(RenewalPolicy::OnRejection);
    let first = token.header_value();
    token.report_rejected(&"Bearer another".parse().unwrap());
    pass(2).await;
    assert_eq!(core.count(), 1, "another value");
    token.report_rejected(&first);
    pass(1).await;
    assert_eq!(core.count(), 2);
    pass(60).await;
    token.report_rejected(&first);
    pass(1).await;
    assert_eq!((core.count(), token.health().last_rejection), (2, None), "an old value");
    for _ in 0..29 {
        token.report_rejected(&token.header_value());
        pass(1).await;
    }
    assert_eq!(core.count(), 3, "one mint in 30 s");
}

#[tokio::test(start_paused = true)]
async fn health_holds_the_last_rejection_of_the_token_in_use() {
    let core = Core::new(CENTURY);
    let token = core.token(RenewalPolicy::OnRejection);
    let start = core.clock().now();
    assert_eq!(token.health().last_rejection, None);
    let withheld = "(text withheld: it may hold a secret or a token)";
    let value_text = token.header_value().to_str().unwrap().to_owned();
    let long = "the issuer is not accepted ".repeat(20);
    let cases = [
        ("the issuer is not accepted", "the issuer is not accepted"),
        ("the issuer\r\n\u{1b}[31m is not accepted", "the issuer \\u{1b}[31m is not accepted"),
        (&long, &long[..200]),
        (&value_text, withheld),
        ("the issuer of eyJhbGciOiJSUzI1NiJ9 is not accepted", withheld),
    ];
    for (seconds, (text, shown)) in (1..).zip(cases) {
        pass(1).await;
        refuse(&token, &format!("audience: {text}"));
        let shown = match shown == withheld {
            true => withheld.to_owned(),
            false => format!("audience: {shown}").chars().take(200).collect(),
        };
        let expected = TokenRejection {
            at: start + Duration::from_secs(seconds),
            origin: Some(BILLING.to_owned()),
            description: Some(shown),
        };
        assert_eq!(token.health().last_rejection, Some(expected), "{text}");
    }
    reject(&token, value(&token).1);
    pass(1).await;
    assert_eq!(core.count(), 2);
    assert_eq!(token.health().last_rejection, None, "the new token was not rejected");
}
