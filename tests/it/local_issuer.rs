//! [`LocalIssuer`] over sockets: its JWKS, each algorithm, and rotations under load.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http::{HeaderMap, Method, StatusCode};
use reqwest::Request;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tower::{Layer, ServiceExt};
use tower_m2m::testing::TestAuthority;
use tower_m2m::{
    AddServiceTokenLayer, Algorithm, LocalIssuer, RemoteJwks, ServiceClaims, SigningKey, Verifier,
    VerifyServiceTokenLayer,
};

use crate::support::{decode, reqwest_client, serve};

const ISSUER: &str = "https://orders.internal";
const JWKS: &str = "/.well-known/jwks.json";

fn key(algorithm: Algorithm) -> SigningKey {
    SigningKey::generate(algorithm).unwrap()
}

/// Serves M2, which answers the name of the caller. Returns its URL.
async fn start_m2(verifier: Verifier) -> String {
    let whoami = get(|caller: ServiceClaims| async move { caller.service().unwrap().to_owned() });
    let app = Router::new().route("/whoami", whoami);
    format!("http://{}/whoami", serve(app.layer(VerifyServiceTokenLayer::new(verifier))).await)
}

#[tokio::test]
async fn token_of_each_algorithm_is_verified_by_m2() {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};

    let rsa = key(RS256);
    for algorithm in [RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA] {
        let key = match rsa.clone().for_algorithm(algorithm) {
            Ok(key) => key,
            Err(_) => key(algorithm),
        };
        let issuer = LocalIssuer::new(ISSUER, [key]).unwrap();
        let jwks = format!("http://{}{JWKS}", serve(issuer.jwks_router()).await);
        let jwks = RemoteJwks::new(jwks).unwrap();
        let verifier = Verifier::new(jwks).issuer(ISSUER).algorithms([algorithm]);
        let m2 = start_m2(verifier.audience("billing")).await;
        let request = issuer.service_token().service("orders").audience("billing");
        let layer = AddServiceTokenLayer::new(request.mint().await.unwrap());
        let request = Request::new(Method::GET, m2.parse().unwrap());
        let response = layer.layer(reqwest_client()).oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{algorithm}");
        assert_eq!(response.text().await.unwrap(), "orders", "{algorithm}");
    }
}

#[tokio::test]
async fn jwks_has_an_etag_and_a_lifetime() {
    let issuer = LocalIssuer::new(ISSUER, [key(Algorithm::ES256)]).unwrap();
    let url = format!("http://{}{JWKS}", serve(issuer.jwks_router()).await);
    let get = async |tag: Option<&str>| {
        let request = reqwest_client().get(&url);
        let request = tag.into_iter().fold(request, |it, tag| it.header("if-none-match", tag));
        request.send().await.unwrap()
    };
    let response = get(None).await;
    let headers = response.headers().clone();
    assert_eq!(response.status(), 200);
    assert_eq!(headers["content-type"], "application/jwk-set+json");
    assert_eq!(headers["cache-control"], "public, max-age=60, must-revalidate");
    let etag = headers["etag"].to_str().unwrap().to_owned();
    assert_eq!(response.text().await.unwrap(), issuer.jwks());

    let weak = format!("W/{etag}");
    let list = format!("\"other\", {etag}");
    // (`If-None-Match`, whether it lists the tag)
    for (tag, expected) in
        [(&*etag, 304), (&weak, 304), (&list, 304), ("*", 304), ("\"other\"", 200), ("", 200)]
    {
        let response = get(Some(tag)).await;
        assert_eq!(response.status(), expected, "{tag}");
        assert_eq!(response.headers()["etag"], etag.as_str(), "{tag}");
        let has_body = !response.bytes().await.unwrap().is_empty();
        assert_eq!(has_body, expected == 200, "{tag}");
    }
    assert_eq!(reqwest_client().head(&url).send().await.unwrap().status(), 200);
    assert_eq!(reqwest_client().post(&url).send().await.unwrap().status(), 405);

    issuer.rotate_to([key(Algorithm::ES256)]).unwrap();
    assert_eq!(get(Some(&etag)).await.status(), 200, "the set has changed");
}

/// The headers of refused requests.
type Refused = Arc<Mutex<Vec<HeaderMap>>>;

/// Requests of several callers while the keys rotate three times. Time passes on the clock of the
/// test; requests go over sockets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_rotations_under_load_refuse_no_request() {
    const CALLERS: usize = 4;

    let clock = TestAuthority::offline().clock().clone();
    let first = key(Algorithm::ES256);
    let first_kid = first.kid().to_owned();
    let issuer = clock.local_issuer(ISSUER, [first]).unwrap();
    let jwks = format!("http://{}{JWKS}", serve(issuer.jwks_router()).await);
    let jwks = clock.jwks_builder(jwks).build().unwrap();
    let verifier = clock.verifier(jwks).issuer(ISSUER).audience("billing");
    let m2 = start_m2(verifier).await;
    let request = issuer.service_token().service("orders").audience("billing");
    let token = request.validity(Duration::from_secs(300)).mint().await.unwrap();

    let admitted: Arc<[AtomicUsize; CALLERS]> = Arc::default();
    let (is_over, refused) = (Arc::new(AtomicBool::new(false)), Refused::default());
    let progress = Arc::new(Notify::new());
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let mut m1 = AddServiceTokenLayer::new(token.clone()).layer(reqwest_client());
            let (m2, admitted, is_over) = (m2.clone(), Arc::clone(&admitted), Arc::clone(&is_over));
            let (refused, progress) = (Arc::clone(&refused), Arc::clone(&progress));
            tokio::spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    let request = Request::new(Method::GET, m2.parse().unwrap());
                    let response = m1.ready().await.unwrap().oneshot(request).await.unwrap();
                    if response.status() == StatusCode::OK {
                        admitted[caller].fetch_add(1, Ordering::Relaxed);
                    } else {
                        // The reason is in the challenge.
                        refused.lock().unwrap().push(response.headers().clone());
                    }
                    progress.notify_one();
                }
            })
        })
        .collect();

    // Waits until each caller has sent requests, so that none is on its way while much time passes.
    let requests = async |count: usize| {
        for caller in admitted.iter() {
            let goal = caller.load(Ordering::Relaxed) + count;
            while caller.load(Ordering::Relaxed) < goal {
                assert!(refused.lock().unwrap().is_empty(), "{refused:?}");
                assert!(!callers.iter().any(JoinHandle::is_finished), "a caller ended");
                progress.notified().await;
            }
        }
    };
    let mut kids = vec![first_kid];
    for _ in 0..3 {
        requests(20).await;
        let next = key(Algorithm::ES256);
        kids.push(next.kid().to_owned());
        issuer.rotate_to([next]).unwrap();
        // 6 min: each token is renewed with the new key, and the old key is no longer listed.
        for _ in 0..60 {
            clock.advance(Duration::from_secs(6));
            requests(2).await;
        }
        let jwt = token.header_value().to_str().unwrap().replace("Bearer ", "");
        assert_eq!(decode(&jwt, 0)["kid"], *kids.last().unwrap(), "renewed");
        for _ in 0..10 {
            clock.advance(Duration::from_secs(60));
            requests(2).await;
        }
        let listed: Value = serde_json::from_str(&issuer.jwks()).unwrap();
        assert_eq!(listed["keys"].as_array().unwrap().len(), 1, "{listed}");
    }
    is_over.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    assert!(refused.lock().unwrap().is_empty(), "{refused:?}");
    let admitted: usize = admitted.iter().map(|caller| caller.load(Ordering::Relaxed)).sum();
    eprintln!("{admitted} requests over 3 rotations, 0 refused");
}
