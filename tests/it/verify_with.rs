//! The errors of `verify_with` for a minted token that the verifier rejects, and the retries.

use std::time::Duration;

use serde_json::{Value, json};
use tower_m2m::testing::TestAuthority;
use tower_m2m::{Algorithm, MintError, RemoteJwks, ServiceToken, SuperTokensCore, Verifier};

use crate::manual_clock::ManualClock;
use crate::scripted::{API_KEY, ScriptedCore, Step, mint_in_steps, status, token_response};
use crate::support::{DeadPort, ISSUER, Logs, TIMEOUT, chain};

const HTML_PAGE: &str = "<!doctype html><html><body><h1>Not Found</h1></body></html>";

/// A core that mints one token with these claims.
async fn core_minting(authority: &TestAuthority, claims: Value) -> ScriptedCore {
    let token = authority.token().claim("iss", ISSUER).claims(claims);
    ScriptedCore::start([token_response(&token.sign())]).await
}

async fn mint(core: &ScriptedCore, verifier: &Verifier) -> Result<ServiceToken, MintError> {
    let core = SuperTokensCore::new(&core.url).unwrap().api_key(API_KEY);
    let request = core.start_up_timeout(TIMEOUT).service_token(ISSUER).verify_with(verifier);
    tokio::time::timeout(2 * TIMEOUT, request.mint()).await.expect("the mint hangs")
}

fn verifier_at(url: &str) -> Verifier {
    Verifier::new(RemoteJwks::new(format!("{url}/jwks.json?key=secret#part")).unwrap())
}

#[tokio::test]
async fn wrong_jwks_url_fails_at_once_with_url_and_cause() {
    let authority = TestAuthority::offline();
    let cases = [
        (status(404, "", "Not found"), "the response has status 404"),
        (status(404, "", ""), "the response has status 404"),
        (status(403, "", HTML_PAGE), "the response has status 403 and is an HTML page"),
        (status(302, "location: /elsewhere\r\n", ""), "the response has status 302"),
        (status(200, "", HTML_PAGE), "the response cannot be used: not a JWK Set; "),
    ];
    for (step, cause) in cases {
        let logs = Logs::of_this_thread();
        let core = core_minting(&authority, json!({})).await;
        let jwks = ScriptedCore::start([step]).await;
        let err = mint(&core, &verifier_at(&jwks.url)).await.unwrap_err();
        assert!(matches!(err, MintError::KeysUnavailable { .. }), "{err:?}");
        let url = format!("{}/jwks.json", jwks.url);
        let expected =
            format!("the keys that verify the minted token are unavailable at {url}: {cause}");
        assert!(chain(&err).starts_with(&expected), "{}", chain(&err));
        assert!(!chain(&err).contains("secret"), "{}", chain(&err));
        assert!(!logs.text().contains("retrying"), "{}", logs.text());
    }
}

#[tokio::test]
async fn mint_waits_for_an_endpoint_that_recovers() {
    let authority = TestAuthority::offline();
    let cases = [
        ("404 and is an HTML page", status(404, "", HTML_PAGE)),
        ("503", status(503, "", "")),
        ("no usable key", status(200, "", r#"{"keys":[]}"#)),
    ];
    for (cause, step) in cases {
        let logs = Logs::of_this_thread();
        let core = core_minting(&authority, json!({})).await;
        let jwks = ScriptedCore::start([step, status(200, "", &authority.jwks())]).await;
        let minted = mint(&core, &verifier_at(&jwks.url)).await;
        assert!(minted.is_ok(), "{cause}: {minted:?}");
        let text = logs.text();
        let line = text.lines().find(|line| line.contains("keys unavailable, retrying"));
        let line = line.unwrap_or_else(|| panic!("{cause}: {text}"));
        assert!(line.contains(&format!("{}/jwks.json: ", jwks.url)), "{line}");
        assert!(line.contains(cause) && !line.contains("secret"), "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn unavailable_keys_are_reported_over_earlier_retries() {
    let (clock, authority) = (ManualClock::new(), TestAuthority::offline());
    let token = token_response(&authority.token().claim("iss", ISSUER).sign());
    let core = ScriptedCore::start([status(500, "", "no database"), token]).await;
    let jwks = ScriptedCore::start([Step::Silence]).await;
    let verifier = Verifier::new(RemoteJwks::new(format!("{}/jwks.json", jwks.url)).unwrap());
    let request = SuperTokensCore::new(&core.url).unwrap().service_token(ISSUER);
    // The wait for the keys continues after the start-up timeout.
    let pass_start_up_timeout = async {
        jwks.received(1).await;
        clock.advance(Duration::from_secs(30)).await;
    };
    let minting = mint_in_steps(request.verify_with(&verifier), &clock, Duration::from_millis(100));
    let err = tokio::join!(minting, pass_start_up_timeout).0.unwrap_err();
    assert!(matches!(err, MintError::KeysUnavailable { .. }), "{}", chain(&err));
}

#[tokio::test]
async fn misconfiguration_names_expected_and_received_value() {
    let authority = TestAuthority::offline();
    authority.rotate_to("k");
    let policy = |change: fn(Verifier) -> Verifier| change(Verifier::new(authority.local_jwks()));
    let dead_port = DeadPort::new();
    let dead = dead_port.url();
    let other = TestAuthority::offline();
    other.rotate_to("k");
    let jwks = RemoteJwks::builder(format!("{dead}/jwks.json?key=secret")).seed(other.jwks());
    let seeded = Verifier::new(jwks.build().unwrap());
    let cases = [
        (
            policy(|verifier| verifier.audience("billing").audience("ledger")),
            json!({"aud": "inventory"}),
            "(aud: expected billing, ledger, received inventory)",
        ),
        (
            policy(|verifier| verifier.audience("billing")),
            json!({"aud": ["a", "b"]}),
            "(aud: expected billing, received a, b)",
        ),
        (
            policy(|verifier| verifier.audience("billing")),
            json!({}),
            "(aud: expected billing, received none)",
        ),
        (policy(|verifier| verifier), json!({"aud": 7}), "(aud: received 7)"),
        (
            policy(|verifier| verifier.issuer("https://a")),
            json!({}),
            "(iss: expected https://a, received https://api.example.com)",
        ),
        (
            policy(|verifier| verifier.subject("orders")),
            json!({"sub": "o\u{202e}"}),
            r"(sub: expected orders, received o\u{202e})",
        ),
        (
            policy(|verifier| verifier.marker("role", "service")),
            json!({"role": "user"}),
            "(role: expected \"service\", received user)",
        ),
        (
            policy(|verifier| verifier.marker("level", 3)),
            json!({"level": "3"}),
            "(level: expected 3, received 3)",
        ),
        (
            policy(|verifier| verifier.max_lifetime(Duration::from_secs(60))),
            json!({"iat": 0}),
            "(exp - iat: expected at most 60 s, received ",
        ),
        (
            policy(|verifier| verifier.max_lifetime(Duration::from_secs(60))),
            json!({"iat": "x"}),
            "(iat: received x)",
        ),
        (
            policy(|verifier| verifier.algorithms([Algorithm::RS256, Algorithm::ES256])),
            json!({}),
            "(alg: expected RS256, ES256, received EdDSA)",
        ),
        (
            policy(|verifier| verifier.max_token_len(8)),
            json!({}),
            "(expected at most 8 bytes, received ",
        ),
        (
            Verifier::new(TestAuthority::offline().local_jwks()),
            json!({}),
            "(kid: expected a key of the local key set, received k)",
        ),
        (seeded, json!({}), &format!("(kid: expected a key of {dead}/jwks.json, received k)")),
    ];
    for (verifier, claims, expected) in cases {
        let core = core_minting(&authority, claims).await;
        let err = mint(&core, &verifier).await.unwrap_err();
        assert!(matches!(err, MintError::Misconfigured { .. }), "{expected}: {}", chain(&err));
        assert!(err.to_string().contains(expected), "{err} {expected}");
        assert!(!err.to_string().contains("secret"), "{err}");
    }
}

#[tokio::test]
async fn api_key_in_a_claim_of_the_token_is_withheld() {
    let authority = TestAuthority::offline();
    let verifier = Verifier::new(authority.local_jwks()).audience("billing");
    // The error shows 64 characters.
    let cut = format!("{}{API_KEY}", "x".repeat(58));
    for claims in [
        json!({"aud": API_KEY}),
        json!({"aud": cut}),
        json!({"iss": format!("https://a/{API_KEY}")}),
    ] {
        let core = core_minting(&authority, claims).await;
        let err = mint(&core, &verifier).await.unwrap_err();
        assert!(err.to_string().contains("received (text withheld"), "{err}");
        assert!(!format!("{err:?}").contains(&API_KEY[..6]), "{err:?}");
    }
}
