//! `AddServiceTokenLayer` as a middleware of reqwest-middleware, over loopback sockets.

use std::time::{Duration, SystemTime};

use http::HeaderName;
use http::header::AUTHORIZATION;
use reqwest::Response;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Result};
use reqwest_retry::{
    RetryDecision, RetryPolicy, RetryTransientMiddleware, Retryable, RetryableStrategy,
};
use tower_m2m::testing::{RecordingServer, TestAuthority, renewed};
use tower_m2m::{AddServiceTokenLayer, RequestToken, ServiceToken, SuperTokensCore};

use crate::manual_clock::ManualClock;
use crate::middleware_fn::middleware;
use crate::received::received;
use crate::scripted::{ScriptedCore, Step, good};
use crate::support::{ISSUER, Logs, reqwest_client};

fn client() -> ClientBuilder {
    ClientBuilder::new(reqwest_client())
}

fn fixed() -> ServiceToken {
    ServiceToken::from_jwt(TestAuthority::offline().token().sign()).unwrap()
}

/// A token of a core with this script, one second after its mint: mints are a second apart.
async fn minted(script: impl Into<Vec<Step>>) -> (ScriptedCore, ServiceToken, ManualClock) {
    let clock = ManualClock::new();
    let core = ScriptedCore::start(script).await;
    let request = SuperTokensCore::new(&core.url).unwrap().service_token(ISSUER);
    let token = request.validity(Duration::from_secs(3600)).mint().await.unwrap();
    clock.advance(Duration::from_secs(1)).await;
    (core, token, clock)
}

async fn status(client: &ClientWithMiddleware, m2: &RecordingServer) -> u16 {
    client.get(m2.url()).send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn options_of_the_layer_decide_what_is_sent() {
    const OTHER: HeaderName = HeaderName::from_static("x-service-token");
    let (m2, token) = (RecordingServer::start().await, fixed());
    let value = token.header_value().to_str().unwrap().to_owned();
    let new = || AddServiceTokenLayer::new(token.clone());
    let by_origin = |url: &str| AddServiceTokenLayer::by_origin([(url, token.clone())]).unwrap();
    let elsewhere = "https://elsewhere.example";
    // (the options, what the request has, `Authorization` and the other header as received)
    let cases = [
        ("new", new(), None, Some(&*value), None),
        ("new", new(), Some("Basic b2xk"), Some(&*value), None),
        ("only_to", new().only_to([m2.url()]).unwrap(), None, Some(&*value), None),
        ("only_to", new().only_to([elsewhere]).unwrap(), None, None, None),
        ("by_origin", by_origin(m2.url()), None, Some(&*value), None),
        ("by_origin", by_origin(elsewhere), None, None, None),
        ("if_not_present", new().if_not_present(), None, Some(&*value), None),
        ("if_not_present", new().if_not_present(), Some("Basic b2xk"), Some("Basic b2xk"), None),
        ("header", new().header(OTHER).unwrap(), None, None, Some(&*value)),
    ];
    for (what, layer, present, authorization, other) in cases {
        let client = client().with(layer).build();
        let mut request = client.get(m2.url());
        if let Some(present) = present {
            request = request.header(AUTHORIZATION, present);
        }
        assert_eq!(request.send().await.unwrap().status(), 200, "{what}");
        let requests = m2.requests();
        let headers = requests.last().unwrap().headers();
        let get = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!((get(AUTHORIZATION), get(OTHER)), (authorization, other), "{what}");
    }
    assert_eq!(m2.requests().len(), 9);
}

#[tokio::test(start_paused = true)]
async fn rejected_token_is_replaced_and_its_origin_logged() {
    let (core, token, _clock) = minted([good()]).await;
    let (m2, logs) = (RecordingServer::start().await, Logs::of_this_thread());
    m2.reject_next("invalid_token");
    let sent = token.header_value();
    let client = client().with(AddServiceTokenLayer::new(token.clone())).build();
    assert_eq!(status(&client, &m2).await, 401);
    let line = format!(r#"service token rejected, renewing it origin="{}""#, m2.url());
    assert!(logs.text().contains(&line), "{}", logs.text());
    renewed(&token, &sent).await;
    assert_eq!(status(&client, &m2).await, 200);
    assert_eq!(core.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn request_waits_for_the_successor_of_an_expired_token() {
    const HOUR: Duration = Duration::from_secs(3600);
    let _clock = ManualClock::new();
    let (authority, m2) = (TestAuthority::start().await, RecordingServer::start().await);
    let request = authority.core().service_token(authority.issuer()).validity(HOUR);
    let token = request.mint().await.unwrap();
    let expired = token.header_value();
    authority.clock().advance(2 * HOUR);
    let client = client().with(AddServiceTokenLayer::new(token.clone())).build();
    assert_eq!(status(&client, &m2).await, 200);
    assert_ne!(token.header_value(), expired);
    assert_eq!(received(&m2), [Some(token.header_value())]);
}

/// Repeats at once what was answered with 401.
struct Retry401;

impl RetryPolicy for Retry401 {
    fn should_retry(&self, _start: SystemTime, past_retries: u32) -> RetryDecision {
        match past_retries {
            0 => RetryDecision::Retry { execute_after: SystemTime::UNIX_EPOCH },
            _ => RetryDecision::DoNotRetry,
        }
    }
}

impl RetryableStrategy for Retry401 {
    fn handle(&self, result: &Result<Response>) -> Option<Retryable> {
        let is_rejected = result.as_ref().is_ok_and(|response| response.status() == 401);
        is_rejected.then_some(Retryable::Transient)
    }
}

#[tokio::test(start_paused = true)]
async fn each_attempt_reads_the_token_anew() {
    let (_core, token, _clock) = minted([good()]).await;
    let m2 = RecordingServer::start().await;
    m2.reject_next("invalid_token");
    let (sent, renewing) = (token.header_value(), token.clone());
    // The next attempt starts once the token is renewed.
    let wait = middleware(move |request, extensions, next| {
        let (renewing, sent) = (renewing.clone(), sent.clone());
        Box::pin(async move {
            let response = next.run(request, extensions).await?;
            if response.status() == 401 {
                renewed(&renewing, &sent).await;
            }
            Ok(response)
        })
    });
    let client = client()
        .with(RetryTransientMiddleware::new_with_policy_and_strategy(Retry401, Retry401))
        .with(wait)
        .with(AddServiceTokenLayer::new(token))
        .build();
    assert_eq!(status(&client, &m2).await, 200);
    let requests = m2.requests();
    assert_eq!(requests.len(), 2);
    assert_ne!(requests[0].token(), requests[1].token());
}

#[tokio::test]
async fn each_attempt_keeps_the_token_of_its_request() {
    let other = fixed();
    let value = other.header_value();
    // (the extension, what both attempts carry)
    for (extension, expected) in
        [(RequestToken::none(), None), (RequestToken::of(other), Some(value))]
    {
        let m2 = RecordingServer::start().await;
        m2.reject_next("invalid_token");
        let client = client()
            .with(RetryTransientMiddleware::new_with_policy_and_strategy(Retry401, Retry401))
            .with(AddServiceTokenLayer::new(fixed()))
            .build();
        let request = client.get(m2.url()).with_extension(extension);
        assert_eq!(request.send().await.unwrap().status(), 200);
        assert_eq!(received(&m2), [expected.clone(), expected]);
    }
}
