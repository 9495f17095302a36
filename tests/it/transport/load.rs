//! Many concurrent requests.

use std::collections::BTreeMap;

use tokio::task::JoinSet;
use tower_m2m::testing::TestAuthority;
use tower_m2m::{RejectionKind, RemoteJwks, Verifier};

use super::scripted::{FETCH_TIMEOUT, Script, Server};
use crate::manual_clock::ManualClock;

/// Verifies all tokens concurrently and counts the results.
async fn outcomes(
    verifier: &Verifier,
    tokens: impl IntoIterator<Item = String>,
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
    let authority = TestAuthority::offline();
    let server = Server::start(Script::ok(authority.jwks()));
    let verifier = Verifier::new(RemoteJwks::new(server.url()).unwrap());
    let outcomes = outcomes(&verifier, (0..1000).map(|_| authority.token().sign())).await;
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
    let signer = TestAuthority::offline();
    let unknown_kid = |number| signer.token().kid(format!("unknown-{number}")).sign();
    let tokens: Vec<_> = (0..10_000).map(unknown_kid).collect();
    let _clock = ManualClock::new();
    for (endpoint, script, refusals) in cases {
        let authority = TestAuthority::offline();
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
            for tokens in tokens.chunks(2500) {
                for (refusal, count) in outcomes(&verifier, tokens.to_vec()).await {
                    *refused.entry(refusal).or_default() += count;
                }
            }
            refused
        };
        let known = authority.token().sign();
        let (refused, ()) = tokio::join!(unknown, async {
            for _ in 0..100 {
                verifier.verify(&known).await.unwrap();
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
