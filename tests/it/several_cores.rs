//! Two cores with different dynamic keys behind one URL.

use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;
use tower_m2m::{EmbeddedCore, RemoteJwks, SuperTokensCore, Verifier};

use crate::support::{ISSUER, Logs, decode, encode, serve};

/// A token that the core signs with its dynamic key.
async fn dynamic_token(core: &EmbeddedCore) -> String {
    let url = format!("http://{}", serve(core.router()).await);
    let request = SuperTokensCore::new(url).unwrap().service_token(ISSUER);
    let value = request.dynamic_key().mint().await.unwrap().header_value();
    value.to_str().unwrap().trim_start_matches("Bearer ").to_owned()
}

/// A balancer that sends each request to a random core.
async fn balance_requests(cores: [EmbeddedCore; 2]) -> String {
    let forward = move |request: Request| {
        let core = fastrand::choice(&cores).unwrap().router();
        async move { core.oneshot(request).await }
    };
    format!("http://{}", serve(Router::new().fallback(forward)).await)
}

/// A balancer that sends each connection, with all its requests, to the other core than the last.
async fn balance_connections(cores: [EmbeddedCore; 2]) -> String {
    let mut addresses = Vec::new();
    for core in &cores {
        addresses.push(serve(core.router()).await);
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for address in addresses.iter().cycle() {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut core = TcpStream::connect(address).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut client, &mut core).await });
        }
    });
    url
}

#[tokio::test]
async fn tokens_of_both_cores_are_accepted_once_both_were_seen() {
    let build = || EmbeddedCore::builder().build();
    let (first, second) = tokio::try_join!(build(), build()).unwrap();
    let tokens = [dynamic_token(&first).await, dynamic_token(&second).await];
    assert_ne!(decode(&tokens[0], 0)["kid"], decode(&tokens[1], 0)["kid"]);
    let cores = [first, second];
    let urls = [balance_requests(cores.clone()).await, balance_connections(cores).await];
    let logs = Logs::of_this_thread();
    for (url, balancer) in urls.into_iter().zip(["by request", "by connection"]) {
        let jwks = RemoteJwks::builder(format!("{url}/.well-known/jwks.json"))
            .cooldown(Duration::from_nanos(1))
            .build()
            .unwrap();
        let verifier = Verifier::new(jwks);
        for token in &tokens {
            let mut attempts = 0;
            while let Err(rejection) = verifier.verify(token).await {
                attempts += 1;
                assert!(attempts < 100, "{balancer}: {rejection:?}");
            }
        }
        for number in 0..30 {
            // A made-up kid causes a fetch, which either core answers.
            let header = json!({"alg": "RS256", "kid": format!("made-up-{number}")});
            let made_up = encode(header.to_string());
            let made_up = format!("{made_up}{}", &tokens[0][tokens[0].find('.').unwrap()..]);
            verifier.verify(&made_up).await.unwrap_err();
            for token in &tokens {
                let rejected = verifier.verify(token).await.err();
                assert_eq!(rejected, None, "{balancer}: after {number} fetches");
            }
        }
    }
    let logs = logs.text();
    let warnings = logs.matches("key set responses list different keys").count();
    assert_eq!(warnings, 2, "not one for each URL: {logs}");
}
