//! Which answers a mint waits out, on which hosts it goes on, and what it reports in the end.

use std::time::{Duration, UNIX_EPOCH};

use tokio::time::Instant;
use tower_m2m::testing::TestAuthority;
use tower_m2m::{MintError, RejectionReason, ServiceToken, SuperTokensCore};

use crate::manual_clock::ManualClock;
use crate::scripted::{ScriptedCore, Step, good, mint_in_steps, signed_by, status, token_response};
use crate::support::{DeadPort, ISSUER, TIMEOUT, chain};

/// The defaults of `start_up_timeout` and of the longest delay between two attempts.
const START_UP_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_DELAY: Duration = Duration::from_secs(5);

const HOUR: Duration = Duration::from_secs(3600);

/// The page with which Tomcat answers every path until the core's routes are there.
const TOMCAT_PAGE: &str = "<!doctype html><html lang=\"en\"><head><title>HTTP Status 404 – Not Found</title>\
    <style type=\"text/css\">body {font-family:Tahoma,Arial,sans-serif;} h1, h2, h3, b {color:white;background-color:#525D76;}\
    </style></head><body><h1>HTTP Status 404 – Not Found</h1></body></html>";

const HTML_PAGE: &str = "an HTML page; is the base path right?";

/// The answers of a core that will recover.
fn transient_answers() -> Vec<(&'static str, Step)> {
    vec![
        ("404 with an HTML page", status(404, "", TOMCAT_PAGE)),
        ("408", status(408, "", "")),
        ("425", status(425, "", "too early")),
        ("429", status(429, "", "slow down")),
        ("500", status(500, "", "no connection to the database")),
        ("502", status(502, "", "<html>\r\n<head><title>502 Bad Gateway</title></head></html>")),
        ("503", status(503, "", "")),
        ("599", status(599, "", "")),
    ]
}

async fn mint(uri: &str, start_up_timeout: Duration) -> Result<ServiceToken, MintError> {
    let core = SuperTokensCore::new(uri).unwrap().start_up_timeout(start_up_timeout);
    tokio::time::timeout(TIMEOUT, core.service_token(ISSUER).mint()).await.expect("the mint hangs")
}

#[tokio::test]
async fn transient_answer_is_retried() {
    let mut failed = Vec::new();
    for (case, step) in transient_answers() {
        let starting = ScriptedCore::start([step, good()]).await;
        let minted = mint(&starting.url, START_UP_TIMEOUT).await;
        if minted.is_err() || starting.count() != 2 {
            failed.push(format!("{case}: {minted:?}"));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[tokio::test]
async fn transient_answer_goes_on_to_the_next_host() {
    let mut failed = Vec::new();
    let healthy = ScriptedCore::start([good()]).await;
    for (case, step) in transient_answers() {
        let starting = ScriptedCore::start([step]).await;
        let dead = DeadPort::new();
        for uri in [
            format!("{};{}", starting.url, healthy.url),
            format!("{};{};{}", starting.url, dead.url(), healthy.url),
            format!("{};{};{}", dead.url(), starting.url, healthy.url),
        ] {
            // One attempt: the next host is asked in the same one.
            if let Err(err) = mint(&uri, Duration::ZERO).await {
                failed.push(format!("{case}: {err}"));
            }
        }
        assert_eq!(starting.count(), 3, "{case}");
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[tokio::test]
async fn answer_is_reported_over_a_dead_host() {
    let failing = ScriptedCore::start([status(500, "", "no connection to the database")]).await;
    let dead = DeadPort::new();
    for uri in
        [format!("{};{}", failing.url, dead.url()), format!("{};{}", dead.url(), failing.url)]
    {
        let err = mint(&uri, Duration::ZERO).await.unwrap_err();
        assert!(err.to_string().ends_with("500: no connection to the database"), "{err}");
    }
}

#[tokio::test]
async fn html_page_is_named_instead_of_quoted() {
    let cases = [
        (404, TOMCAT_PAGE, true),
        (400, "\u{feff}\r\n <!DOCTYPE HTML PUBLIC \"-//W3C//DTD HTML 4.01//EN\"><body>", true),
        (502, "<html>\r\n<head><title>502 Bad Gateway</title></head>", true),
        (403, "<!-- generated --><HTML lang=en><style>body{margin:0}</style>", true),
        (200, "<html>It works!</html>", true),
        (400, "<none> is no tenant", false),
        (400, "Not found: <html>", false),
    ];
    for (code, body, is_page) in cases {
        let server = ScriptedCore::start([status(code, "", body)]).await;
        let err = mint(&server.url, Duration::ZERO).await.unwrap_err().to_string();
        assert_eq!(err.ends_with(&format!(": {HTML_PAGE}")), is_page, "{body}: {err}");
        assert!(!is_page || !err.contains('<'), "{body}: {err}");
    }
}

#[tokio::test(start_paused = true)]
async fn cut_off_attempt_does_not_hide_the_reason() {
    let clock = ManualClock::new();
    let failing =
        ScriptedCore::start([status(500, "", "no connection to the database"), Step::Silence])
            .await;
    let core = SuperTokensCore::new(&failing.url).unwrap().start_up_timeout(START_UP_TIMEOUT);
    let silent = async {
        failing.received(2).await;
        clock.advance(START_UP_TIMEOUT).await;
    };
    let minting = mint_in_steps(core.service_token(ISSUER), &clock, Duration::from_secs(1));
    let err = tokio::join!(minting, silent).0.unwrap_err();
    assert_eq!(failing.count(), 2);
    assert!(chain(&err).ends_with("500: no connection to the database"), "{}", chain(&err));
}

#[tokio::test]
async fn static_key_in_place_of_a_dynamic_one_is_an_error() {
    let cases = [
        ("d-1732600000000", true),
        ("s-0c1c0d3a-4d3f-4f0c-9a53-3c27d1a6a9f1", false),
        ("0c1c0d3a-4d3f-4f0c-9a53-3c27d1a6a9f1", false),
    ];
    for (kid, is_accepted) in cases {
        let scripted = ScriptedCore::start([signed_by(kid)]).await;
        let core = SuperTokensCore::new(&scripted.url).unwrap();
        let minted = core.service_token(ISSUER).dynamic_key().mint().await;
        assert_eq!(minted.is_ok(), is_accepted, "{kid}: {minted:?}");
        assert_eq!(scripted.count(), 1, "{kid}: retried");
        if let Err(err) = minted {
            let text = err.to_string();
            assert!(text.contains("static key") && text.contains("2.21"), "{text}");
        }
        core.service_token(ISSUER).mint().await.expect("a static key was requested");
    }
    let authority = TestAuthority::start().await;
    let old = authority.core().cdi_version("2.20");
    old.service_token(ISSUER).dynamic_key().mint().await.expect_err("the key is static");
}

/// A mint of a token that is valid `ahead` seconds from now, by its `claim`, and the time it takes.
async fn mint_early(claim: &str, ahead: u64) -> (Result<ServiceToken, MintError>, Duration) {
    let (clock, authority) = (ManualClock::new(), TestAuthority::offline());
    let now = authority.clock().now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let token = authority.token().validity(2 * HOUR).claim(claim, now + ahead);
    let core = ScriptedCore::start([token_response(&token.sign())]).await;
    let request = authority.core_at(&core.url).service_token(authority.issuer());
    let request = request.verify_with(&authority.verifier().leeway(Duration::ZERO));
    let start = Instant::now();
    let minted = mint_in_steps(request, &clock, MAX_DELAY).await;
    assert_eq!(core.count(), 1, "{claim}: a new token would be no older");
    (minted, start.elapsed())
}

#[tokio::test(start_paused = true)]
async fn verify_with_waits_until_the_token_is_valid() {
    for claim in ["iat", "nbf"] {
        let (minted, elapsed) = mint_early(claim, 20).await;
        assert!(minted.is_ok(), "{claim}: {minted:?}");
        assert!((20..=25).contains(&elapsed.as_secs()), "{claim}: {elapsed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn token_that_is_not_valid_in_time_fails_the_mint() {
    for claim in ["iat", "nbf"] {
        let (minted, elapsed) = mint_early(claim, 3600).await;
        let MintError::Misconfigured { source, .. } = minted.unwrap_err() else {
            panic!("{claim}: not refused by the verifier")
        };
        let is_early = matches!(
            source.reason(),
            RejectionReason::IssuedInFuture | RejectionReason::NotYetValid
        );
        assert!(is_early, "{claim}: {source}");
        let least = START_UP_TIMEOUT - MAX_DELAY;
        assert!((least..=START_UP_TIMEOUT).contains(&elapsed), "{elapsed:?}");
    }
}
