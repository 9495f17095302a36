//! `RequestToken`: a request without the layer's token, or with another one.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Bytes;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use reqwest_middleware::ClientBuilder;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_m2m::testing::{RecordingServer, TestAuthority};
use tower_m2m::{AddServiceTokenLayer, RequestToken, RetryOnceLayer, ServiceToken};

use crate::manual_clock::ManualClock;
use crate::received::received;
use crate::support::{Logs, reqwest_client};

const SERVICE: HeaderName = HeaderName::from_static("x-service");
const BILLING: &str = "https://billing.internal/charge";
const ELSEWHERE: &str = "https://elsewhere.example/";
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Makes the request's extension. The argument is a token other than the layer's.
type Choose = fn(&ServiceToken) -> Option<RequestToken>;

const ABSENT: Choose = |_| None;
const NONE: Choose = |_| Some(RequestToken::none());
const OTHER: Choose = |other| Some(RequestToken::of(other.clone()));

fn token() -> ServiceToken {
    ServiceToken::from_jwt(TestAuthority::offline().token().sign()).unwrap()
}

/// Two tokens of a core, valid for an hour, each renewed on its own.
async fn minted(authority: &TestAuthority) -> [ServiceToken; 2] {
    let request = authority.core().service_token(authority.issuer()).validity(HOUR);
    [request.clone().mint().await.unwrap(), request.mint().await.unwrap()]
}

fn with_extension<B>(mut request: Request<B>, extension: Option<RequestToken>) -> Request<B> {
    if let Some(extension) = extension {
        request.extensions_mut().insert(extension);
    }
    request
}

fn get(uri: &str, extension: Option<RequestToken>) -> Request<()> {
    with_extension(Request::get(uri).body(()).unwrap(), extension)
}

/// Responds with the headers of the request, and whether it has the extension.
async fn echo(request: Request<()>) -> Result<Response<(HeaderMap, bool)>, Infallible> {
    let has_extension = request.extensions().get::<RequestToken>().is_some();
    Ok(Response::new((request.headers().clone(), has_extension)))
}

/// Sends a request with hyper-util's client, inside `RetryOnce`. Returns the status.
async fn send_by_hyper(
    layer: AddServiceTokenLayer,
    m2: &RecordingServer,
    extension: Option<RequestToken>,
) -> u16 {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let client = RetryOnceLayer::new().layer(layer.layer(client));
    let request = Request::post(m2.url()).body(Full::default()).unwrap();
    client.oneshot(with_extension(request, extension)).await.unwrap().status().as_u16()
}

/// Sends a request with reqwest-middleware. Returns the status.
async fn send_by_middleware(
    layer: AddServiceTokenLayer,
    m2: &RecordingServer,
    extension: Option<RequestToken>,
) -> u16 {
    let client = ClientBuilder::new(reqwest_client()).with(layer).build();
    let mut request = client.post(m2.url());
    if let Some(extension) = extension {
        request = request.with_extension(extension);
    }
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn extension_selects_the_token_within_the_options() {
    let [own, second, other] = [token(), token(), token()];
    let present = HeaderValue::from_static("Basic cHJlc2VudA==");
    let values = [
        ("-", None),
        ("own", Some(own.header_value())),
        ("second", Some(second.header_value())),
        ("other", Some(other.header_value())),
        ("present", Some(present.clone())),
    ];
    let plain = AddServiceTokenLayer::new(own.clone());
    let keeping = plain.clone().if_not_present();
    let only_to = plain.clone().only_to([BILLING.trim_end_matches("/charge")]).unwrap();
    let header = plain.clone().header(SERVICE).unwrap();
    let by_origin = AddServiceTokenLayer::by_origin([
        ("https://billing.internal", own),
        ("https://inventory.internal", second),
    ]);
    let by_origin = by_origin.unwrap();
    let restricted = by_origin.clone().only_to(["https://billing.internal"]).unwrap();
    let inventory = "https://INVENTORY.internal:443/items";
    let evil = "https://billing.internal@evil.example/";
    // (layer, URI, whether `Authorization` is present,
    //  `Authorization` sent without the extension, with `none`, and with `of(other)`)
    let cases = [
        ("new", &plain, BILLING, false, ["own", "-", "other"]),
        ("new", &plain, BILLING, true, ["own", "present", "other"]),
        ("new", &plain, "/package.Service/Call", false, ["own", "-", "other"]),
        ("if_not_present", &keeping, BILLING, false, ["own", "-", "other"]),
        ("if_not_present", &keeping, BILLING, true, ["present", "present", "present"]),
        ("only_to", &only_to, BILLING, false, ["own", "-", "other"]),
        ("only_to", &only_to, BILLING, true, ["own", "present", "other"]),
        ("only_to", &only_to, ELSEWHERE, false, ["-", "-", "-"]),
        ("only_to", &only_to, ELSEWHERE, true, ["present", "present", "present"]),
        ("only_to", &only_to, evil, false, ["-", "-", "-"]),
        ("only_to", &only_to, "http://billing.internal/", false, ["-", "-", "-"]),
        ("only_to", &only_to, "/package.Service/Call", false, ["-", "-", "-"]),
        ("by_origin", &by_origin, BILLING, false, ["own", "-", "other"]),
        ("by_origin", &by_origin, inventory, false, ["second", "-", "other"]),
        ("by_origin", &by_origin, ELSEWHERE, false, ["-", "-", "-"]),
        ("by_origin, only_to", &restricted, BILLING, false, ["own", "-", "other"]),
        ("by_origin, only_to", &restricted, inventory, false, ["-", "-", "-"]),
    ];
    for (what, layer, uri, is_present, expected) in cases {
        for (choose, expected) in [ABSENT, NONE, OTHER].into_iter().zip(expected) {
            let mut request = get(uri, choose(&other));
            if is_present {
                request.headers_mut().insert(AUTHORIZATION, present.clone());
            }
            let response = layer.layer(service_fn(echo)).oneshot(request).await.unwrap();
            let sent = response.into_body().0.remove(AUTHORIZATION);
            let expected = values.iter().find(|(name, _)| *name == expected).unwrap();
            assert_eq!(sent, expected.1, "{what} to {uri}, {expected:?} expected");
            assert!(!sent.is_some_and(|sent| sent != present && !sent.is_sensitive()), "{what}");
        }
    }
    // In the header of the layer, beside a user's token.
    for (choose, expected) in [(ABSENT, "own"), (NONE, "-"), (OTHER, "other")] {
        let mut request = get(BILLING, choose(&other));
        request.headers_mut().insert(AUTHORIZATION, present.clone());
        let response = header.layer(service_fn(echo)).oneshot(request).await.unwrap();
        let mut sent = response.into_body().0;
        let expected = values.iter().find(|(name, _)| *name == expected).unwrap();
        assert_eq!(sent.remove(SERVICE), expected.1);
        assert_eq!(sent.remove(AUTHORIZATION), Some(present.clone()));
    }
}

#[tokio::test]
async fn every_layer_of_a_stack_obeys_the_extension() {
    let [outer, inner, other] = [token(), token(), token()];
    let value = |token: &ServiceToken| Some(token.header_value());
    let authorization = AddServiceTokenLayer::new(outer.clone());
    let service = AddServiceTokenLayer::new(inner.clone()).header(SERVICE).unwrap();
    let elsewhere = service.clone().only_to([ELSEWHERE]).unwrap();
    let same_header = AddServiceTokenLayer::new(inner.clone());
    // (the inner layer, the extension, `Authorization` sent, `x-service` sent)
    let cases = [
        (&service, ABSENT, value(&outer), value(&inner)),
        (&service, NONE, None, None),
        (&service, OTHER, value(&other), value(&other)),
        (&elsewhere, ABSENT, value(&outer), None),
        (&elsewhere, OTHER, value(&other), None),
        (&same_header, ABSENT, value(&inner), None),
        (&same_header, NONE, None, None),
        (&same_header, OTHER, value(&other), None),
    ];
    for (index, (inner, choose, expected, in_service)) in cases.into_iter().enumerate() {
        let client =
            ServiceBuilder::new().layer(authorization.clone()).layer(inner).service_fn(echo);
        let extension = choose(&other);
        let is_present = extension.is_some();
        let (mut sent, has_extension) =
            client.oneshot(get(BILLING, extension)).await.unwrap().into_body();
        assert_eq!(sent.remove(AUTHORIZATION), expected, "case {index}");
        assert_eq!(sent.remove(SERVICE), in_service, "case {index}");
        assert_eq!(has_extension, is_present, "case {index}: the extension stays in the request");
    }
}

#[tokio::test]
async fn opted_out_request_without_authority_logs_nothing() {
    let layer = AddServiceTokenLayer::new(token()).only_to(["https://billing.internal"]).unwrap();
    let other = token();
    // (the extension, the warnings of a request without authority)
    for (choose, warnings) in [(NONE, 0), (OTHER, 1)] {
        let logs = Logs::of_this_thread();
        let request = get("/package.Service/Call", choose(&other));
        layer.layer(service_fn(echo)).oneshot(request).await.unwrap();
        let warning = "request without authority, service token not added";
        assert_eq!(logs.text().matches(warning).count(), warnings);
    }
}

#[tokio::test(start_paused = true)]
async fn rejected_request_is_repeated_with_its_own_token() {
    let _clock = ManualClock::new();
    // (the extension, the index of the token that is rejected)
    let cases = [("absent", ABSENT, Some(0)), ("none", NONE, None), ("other", OTHER, Some(1))];
    for (what, choose, rejected) in cases {
        let (authority, m2) = (TestAuthority::start().await, RecordingServer::start().await);
        let tokens = minted(&authority).await;
        let before = tokens.each_ref().map(ServiceToken::header_value);
        authority.clock().advance(SECOND); // mints are a second apart
        m2.reject_next("invalid_token");
        let layer = AddServiceTokenLayer::new(tokens[0].clone()).only_to([m2.url()]).unwrap();
        let status = send_by_hyper(layer, &m2, choose(&tokens[1])).await;
        let after = tokens.each_ref().map(ServiceToken::header_value);
        let expected = match rejected {
            Some(index) => (200, vec![Some(before[index].clone()), Some(after[index].clone())]),
            None => (401, vec![None]),
        };
        assert_eq!((status, received(&m2)), expected, "{what}");
        for index in 0..2 {
            let is_rejected = rejected == Some(index);
            assert_eq!(before[index] != after[index], is_rejected, "{what}: token {index}");
            assert_eq!(tokens[index].health().last_rejection, None, "{what}: token {index}");
        }
    }
}

#[tokio::test]
async fn middleware_reports_to_the_token_of_the_request() {
    let description = "the audience is wrong";
    let cases = [("absent", ABSENT, Some(0)), ("none", NONE, None), ("other", OTHER, Some(1))];
    for (what, choose, rejected) in cases {
        let m2 = RecordingServer::start().await;
        let tokens = [token(), token()];
        let challenge =
            format!(r#"Bearer error="invalid_token", error_description="{description}""#);
        let response = Response::builder().status(401).header("www-authenticate", challenge);
        m2.answer_next_with(response.body(String::new()).unwrap());
        let layer = AddServiceTokenLayer::new(tokens[0].clone()).only_to([m2.url()]).unwrap();
        assert_eq!(send_by_middleware(layer, &m2, choose(&tokens[1])).await, 401, "{what}");
        let value = rejected.map(|index: usize| tokens[index].header_value());
        assert_eq!(received(&m2), [value], "{what}");
        for (index, token) in tokens.iter().enumerate() {
            let rejection = token.health().last_rejection;
            let origin = rejection.and_then(|rejection| rejection.origin);
            let expected = (rejected == Some(index)).then(|| m2.url().to_owned());
            assert_eq!(origin, expected, "{what}: token {index}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn expired_token_of_a_request_waits_for_its_successor() {
    let _clock = ManualClock::new();
    for by_hyper in [true, false] {
        let (authority, m2) = (TestAuthority::start().await, RecordingServer::start().await);
        let [expired, _] = minted(&authority).await;
        let before = expired.header_value();
        authority.clock().advance(2 * HOUR);
        let layer = AddServiceTokenLayer::new(token());
        let extension = Some(RequestToken::of(expired.clone()));
        let status = match by_hyper {
            true => send_by_hyper(layer, &m2, extension).await,
            false => send_by_middleware(layer, &m2, extension).await,
        };
        assert_eq!(status, 200);
        assert_ne!(expired.header_value(), before);
        assert_eq!(received(&m2), [Some(expired.header_value())], "by hyper: {by_hyper}");
    }
}

#[tokio::test]
async fn redirect_above_the_layer_loses_the_extension() {
    let m2 = RecordingServer::start().await;
    let own = token();
    let layer = AddServiceTokenLayer::new(own.clone());
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let redirects = FollowRedirectLayer::new();
    let above = redirects.clone().layer(layer.layer(client.clone()));
    let below = layer.layer(redirects.layer(client));
    let redirect = || {
        let response = Response::builder().status(307).header("location", "/next");
        m2.answer_next_with(response.body(String::new()).unwrap());
        let request = Request::get(m2.url()).body(Full::default()).unwrap();
        with_extension(request, Some(RequestToken::none()))
    };
    assert_eq!(above.oneshot(redirect()).await.unwrap().status(), 200);
    assert_eq!(below.oneshot(redirect()).await.unwrap().status(), 200);
    assert_eq!(received(&m2), [None, Some(own.header_value()), None, None]);
}
