//! Many concurrent requests.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower_m2m::{RejectionKind, RemoteJwks, Verifier};

use super::authority::Authority;
use super::scripted::{Script, Server};

/// Tokens with distinct unknown kids.
fn unknown_kid_tokens(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|n| {
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

#[tokio::test]
async fn thousand_requests_on_a_cold_cache_share_one_fetch() {
    let authority = Authority::new("k");
    let server = Server::start(Script::ok(authority.jwks()));
    let verifier = Verifier::new(RemoteJwks::new(server.url()).unwrap());
    let outcomes = outcomes(&verifier, (0..1000).map(|_| authority.token())).await;
    assert_eq!(outcomes, BTreeMap::from([("Ok(())".to_owned(), 1000)]));
    assert_eq!(server.seen().connections, 1);
}

#[tokio::test]
async fn ten_thousand_unknown_kids_cause_two_fetches() {
    let [unknown, unavailable] =
        [RejectionKind::InvalidToken, RejectionKind::KeysUnavailable].map(refused_with);
    // Up to 1024 tokens wait for the fetch. They are invalid (401) if it succeeds, and get 503 if
    // it fails. The tokens that find the queue full get 503.
    let cases = [
        ("up", None, vec![&unknown, &unavailable]),
        ("down", Some(Script::response(500, &[], "")), vec![&unavailable]),
        ("hanging", Some(Script::Stall(Vec::new())), vec![&unavailable]),
    ];
    for (endpoint, script, refusals) in cases {
        let authority = Authority::new("k");
        let server = Server::start(Script::ok(authority.jwks()));
        // Ten thousand verifications take a while; a fetch that gets a response must not time out
        // meanwhile.
        let timeout = Duration::from_millis(if endpoint == "hanging" { 400 } else { 5000 });
        let jwks = RemoteJwks::builder(server.url()).timeout(timeout).build().unwrap();
        jwks.ready().await.unwrap();
        let warm = server.seen().connections;
        if let Some(script) = script {
            server.play(script);
        }
        let (verifier, start) = (Verifier::new(jwks), Instant::now());
        let (refused, ()) = tokio::join!(outcomes(&verifier, unknown_kid_tokens(10_000)), async {
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
        // Unknown keys cause at most two fetches in any 10 s.
        let cooldowns = usize::try_from(start.elapsed().as_secs()).unwrap() / 10 + 1;
        let fetches = server.seen().connections - warm;
        assert!(
            (1..=2 * cooldowns).contains(&fetches),
            "{endpoint}: {fetches} fetches in {:?}",
            start.elapsed()
        );
    }
}
