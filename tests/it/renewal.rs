//! Renewal of tokens before they expire and after a called service rejects them, with the core on a
//! loopback socket.

use std::collections::HashSet;
use std::convert::Infallible;
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use http::{Request, Response, StatusCode};
use serde_json::json;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tower_m2m::testing::{RecordingServer, TestAuthority};
use tower_m2m::{AddServiceTokenLayer, ServiceToken, SuperTokensCore};

use crate::manual_clock::ManualClock;
use crate::scripted::{ScriptedCore, Step, good, status};
use crate::support::{ISSUER, Logs};

#[tokio::test(start_paused = true)]
async fn token_is_renewed_after_failed_renewals() {
    const HOUR: Duration = Duration::from_secs(3600);
    let (clock, logs) = (ManualClock::new(), Logs::of_this_thread());
    let expired = Step::Token(json!({ "source": "microservice", "exp": -2 }));
    let core =
        ScriptedCore::start([good(), status(500, "", "boom"), expired, good(), good()]).await;
    let request = SuperTokensCore::new(&core.url).unwrap().service_token(ISSUER).validity(HOUR);
    let token = request.mint().await.unwrap();
    assert!(token.health().renewing);
    let first = token.header_value();
    for event in ["service token renewal failed", "service token renewal failed again"] {
        assert_eq!(token.header_value(), first);
        clock.advance(HOUR).await;
        logs.wait_for(event).await;
    }
    clock.advance(HOUR).await;
    logs.wait_for("service token renewed").await;
    let second = token.header_value();
    assert_ne!(second, first);
    assert_eq!(core.count(), 4, "the expired token counted as a renewal");
    assert_eq!(token.health().last_error, None);
    clock.advance(HOUR).await;
    logs.wait_for_times("service token renewed", 2).await;
    assert_ne!(token.header_value(), second);
    // Each mint requests a new `jti`.
    let requests = core.requests();
    let ids = requests.iter().map(|request| request.split_once(r#""jti":""#).unwrap().1);
    let ids: HashSet<_> = ids.map(|rest| rest.split_once('"').unwrap().0).collect();
    assert_eq!(ids.len(), 5, "{ids:?}");
}

#[tokio::test(start_paused = true)]
async fn rejected_token_is_replaced_and_response_passes_through() {
    let (clock, logs) = (ManualClock::new(), Logs::of_this_thread());
    let core = ScriptedCore::start([good()]).await;
    let token =
        SuperTokensCore::new(&core.url).unwrap().service_token(ISSUER).mint().await.unwrap();
    let rejected = token.header_value();
    let m2 = service_fn(move |request: Request<()>| {
        let mut response = Response::new(());
        if request.headers()[AUTHORIZATION] == rejected {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
            let challenge = r#"Bearer realm="m2m", error="invalid_token""#;
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let mut m1 = ServiceBuilder::new().layer(AddServiceTokenLayer::new(token.clone())).service(m2);
    let mut call =
        async || m1.ready().await.unwrap().call(Request::new(())).await.unwrap().status();
    assert!(!token.health().renewing);
    assert_eq!(call().await, StatusCode::UNAUTHORIZED);
    // Mints are a second apart.
    clock.advance(Duration::from_secs(1)).await;
    logs.wait_for("service token renewed").await;
    assert_eq!(call().await, StatusCode::OK);
    assert_eq!(core.count(), 2);
}

#[tokio::test]
async fn rejection_names_origin_description_and_mints_nothing() {
    let core = ScriptedCore::start([good()]).await;
    let token =
        SuperTokensCore::new(&core.url).unwrap().service_token(ISSUER).mint().await.unwrap();
    let issuer = "the issuer is not accepted";
    let challenge = format!(r#"Bearer error = "invalid_token", error_description="{issuer}""#);
    let responses = [
        Response::builder().status(401).header(WWW_AUTHENTICATE, challenge),
        Response::builder().header("grpc-status", "16").header("grpc-message", issuer),
    ];
    for response in responses {
        let fixed = ServiceToken::from_jwt(
            token.header_value().to_str().unwrap().trim_start_matches("Bearer "),
        );
        let response = response.body(()).unwrap();
        for token in [token.clone(), fixed.unwrap()] {
            let logs = Logs::of_this_thread();
            let response = response.clone();
            let m2 = service_fn(move |_: Request<()>| {
                std::future::ready(Ok::<_, Infallible>(response.clone()))
            });
            let mut m1 =
                ServiceBuilder::new().layer(AddServiceTokenLayer::new(token.clone())).service(m2);
            for _ in 0..3 {
                let request = Request::get("https://billing.internal/charge").body(()).unwrap();
                m1.ready().await.unwrap().call(request).await.unwrap();
            }
            let rejection = token.health().last_rejection.expect("the rejection is in the health");
            assert_eq!(rejection.origin.as_deref(), Some("https://billing.internal"));
            assert_eq!(rejection.description.as_deref(), Some(issuer));
            let line = format!(
                r#"service token rejected origin="https://billing.internal" description="{issuer}""#
            );
            let (text, count) = (logs.text(), logs.text().matches(&line).count());
            assert_eq!(count, 3, "{text}");
        }
    }
    assert!(!token.health().renewing);
    assert_eq!(core.count(), 1);
}

#[tokio::test]
async fn rejection_of_a_reqwest_request_names_its_origin() {
    let (authority, m2) = (TestAuthority::start().await, RecordingServer::start().await);
    let token = authority.core().service_token(authority.issuer()).mint().await.unwrap();
    m2.reject_next("invalid_token");
    let mut m1 = ServiceBuilder::new()
        .layer(AddServiceTokenLayer::new(token.clone()))
        .service(reqwest::Client::new());
    let url = format!("{}/charge?x=1", m2.url()).parse().unwrap();
    let request = reqwest::Request::new(reqwest::Method::GET, url);
    let logs = Logs::of_this_thread();
    assert_eq!(m1.ready().await.unwrap().call(request).await.unwrap().status(), 401);
    let line = format!(r#"service token rejected, renewing it origin="{}""#, m2.url());
    assert!(logs.text().contains(&line), "{}", logs.text());
}

#[tokio::test]
async fn refused_request_without_the_token_causes_no_renewal() {
    let core = ScriptedCore::start([good()]).await;
    let token =
        SuperTokensCore::new(&core.url).unwrap().service_token(ISSUER).mint().await.unwrap();
    let m2 = service_fn(|_: Request<()>| {
        let challenge = r#"Bearer realm="m2m", error="invalid_token""#;
        let response = Response::builder()
            .status(StatusCode::UNAUTHORIZED)
            .header(WWW_AUTHENTICATE, challenge);
        std::future::ready(Ok::<_, Infallible>(response.body(()).unwrap()))
    });
    let layer =
        AddServiceTokenLayer::new(token.clone()).only_to(["https://billing.internal"]).unwrap();
    let elsewhere = Request::get("https://elsewhere.example/").body(()).unwrap();
    let m1 = ServiceBuilder::new().layer(layer.if_not_present()).service(m2);
    m1.clone().oneshot(elsewhere).await.unwrap();
    let other_credential = Request::get("https://billing.internal/")
        .header(AUTHORIZATION, "Bearer another")
        .body(())
        .unwrap();
    m1.oneshot(other_credential).await.unwrap();
    assert!(!token.health().renewing);
}
