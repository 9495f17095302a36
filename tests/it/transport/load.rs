//! Many concurrent requests.

use std::collections::BTreeMap;
use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::task::JoinSet;
use tower_m2m::{RejectionKind, RemoteJwks, Verifier};

use super::authority::Authority;
use super::scripted::{FETCH_TIMEOUT, Script, Server};
use crate::manual_clock::ManualClock;

/// Tokens with distinct unknown kids.
fn unknown_kid_tokens(numbers: Range<usize>) -> impl Iterator<Item = String> {
    numbers.map(|n| {
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"EdDSA","kid":"unknown-{n}"}}"#));
        let claims = URL_SAFE_NO_PAD.encode(r#"{"exp":4102444800,"source":"microservice"}"#);
        format!("{header}.{claims}.c2ln")
    })
}

/// Verifies all tokens concurrently and counts the results.
async fn outcomes(
    verifier: &Verifier,
    tokens: impl Iterator<Item = String>,
) -> BTreeMap<String, usize> {
    let mut tasks = JoinSet::new();
    for token in tokens {
        let verifier = verifier.clone();
        tasks.spawn(async move {
            verifier.verify(&token).await.map(drop).map_err(|rejection| rejection.kind())
        });
    }
    let mut counts = BTreeMap::new();
    while let Some(outcome) = tasks.join_next().await {
        *counts.entry(format!("{:?}", outcome.unwrap())).or_default() += 1;
    }
    counts
}

fn refused_with(kind: RejectionKind) -> String {
    format!("{:?}", Err::<(), _>(kind))
}

#[tokio::test(start_paused = true)]
async fn thousand_requests_on_a_cold_cache_share_one_fetch() {
    let _clock = ManualClock::new();
    let authority = Authority::new("k");
    let server = Server::start(Script::ok(authority.jwks()));
    let verifier = Verifier::new(RemoteJwks::new(server.url()).unwrap());
    let outcomes = outcomes(&verifier, (0..1000).map(|_| authority.token())).await;
    assert_eq!(outcomes, BTreeMap::from([("Ok(())".to_owned(), 1000)]));
    assert_eq!(server.seen().connections, 1);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_unknown_kids_cause_two_fetches() {
    let [unknown, unavailable] =
        [RejectionKind::InvalidToken, RejectionKind::KeysUnavailable].map(refused_with);
    // Up to 1024 tokens wait for the fetch. They are invalid (401) if it succeeds, and get 503 if
    // it fails. The tokens that find the queue full get 503.
    let cases = [
        ("up", None, vec![&unknown, &unavailable]),
        ("down", Some(Script::response(500, &[], "")), vec![&unavailable]),
        ("hanging", Some(Script::Hang(Vec::new())), vec![&unavailable]),
    ];
    let _clock = ManualClock::new();
    for (endpoint, script, refusals) in cases {
        let authority = Authority::new("k");
        let server = Server::start(Script::ok(authority.jwks()));
        let jwks = RemoteJwks::builder(server.url()).timeout(FETCH_TIMEOUT).build().unwrap();
        jwks.ready().await.unwrap();
        let warm = server.seen().connections;
        if let Some(script) = script {
            server.play(script);
        }
        let verifier = Verifier::new(jwks);
        let unknown = async {
            let mut refused = BTreeMap::new();
            // In turns: the tokens of one turn share a fetch.
            for first in (0..10_000).step_by(2500) {
                let tokens = unknown_kid_tokens(first..first + 2500);
                for (refusal, count) in outcomes(&verifier, tokens).await {
                    *refused.entry(refusal).or_default() += count;
                }
            }
            refused
        };
        let (refused, ()) = tokio::join!(unknown, async {
            for _ in 0..100 {
                verifier.verify(&authority.token()).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        assert!(refused.contains_key(refusals[0]), "{endpoint}: {refused:?}");
        assert!(
            refused.keys().all(|refusal| refusals.contains(&refusal)),
            "{endpoint}: {refused:?}"
        );
        assert_eq!(refused.values().sum::<usize>(), 10_000, "{endpoint}");
        // The cooldown has not passed on the paused clock.
        let fetches = server.seen().connections - warm;
        assert!((1..=2).contains(&fetches), "{endpoint}: {fetches} fetches");
    }
}
