//! Renewal of tokens before they expire and after a called service rejects them, with the core on a
//! loopback socket.

use std::convert::Infallible;
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use http::{Request, Response, StatusCode};
use serde_json::json;
use tokio::time::{interval, timeout};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tower_m2m::{AddServiceTokenLayer, ServiceToken, SuperTokensCore};

use crate::scripted::{ISSUER, ScriptedCore, Step, good, status};

/// Waits until the token is renewed. Returns its new header value.
async fn renewed(token: &ServiceToken, old: &HeaderValue) -> HeaderValue {
    let changed = async {
        let mut ticks = interval(Duration::from_millis(5));
        loop {
            ticks.tick().await;
            let value = token.header_value();
            if value != *old {
                return value;
            }
        }
    };
    timeout(Duration::from_secs(20), changed).await.expect("the token was not renewed")
}

#[tokio::test]
async fn token_is_renewed_after_failed_renewals() {
    let short = || Step::Token(json!({ "source": "microservice", "exp": 2 }));
    let expired = Step::Token(json!({ "source": "microservice", "exp": -2 }));
    let core =
        ScriptedCore::start([short(), status(500, "", "boom"), expired, short(), good()]).await;
    let token = SuperTokensCore::new(&core.url)
        .unwrap()
        .service_token(ISSUER)
        .validity(Duration::from_secs(2));
    let token = token.mint().await.unwrap();
    assert!(token.health().renewing);
    let first = token.header_value();
    let second = renewed(&token, &first).await;
    assert!(core.count() >= 4, "the expired token counted as a renewal");
    assert_eq!(token.health().last_error, None);
    renewed(&token, &second).await;
}

#[tokio::test]
async fn rejected_token_is_replaced_and_response_passes_through() {
    let core = ScriptedCore::start([good()]).await;
    let token =
        SuperTokensCore::new(&core.url).unwrap().service_token(ISSUER).mint().await.unwrap();
    let old = token.header_value();
    let rejected = old.clone();
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
    renewed(&token, &old).await;
    assert_eq!(call().await, StatusCode::OK);
    assert_eq!(core.count(), 2);
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
