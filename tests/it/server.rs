//! The server layer in process: readiness, errors, the status table, gRPC and the optional layer.

use std::fmt::Debug;
use std::future::poll_fn;
use std::task::Poll;

use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName};
use http::{HeaderValue, Method, Request, Response, Version};
use tower::limit::ConcurrencyLimit;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_m2m::testing::{TestAuthority, TokenBuilder};
use tower_m2m::{
    Rejection, RejectionKind, RejectionReason as R, RemoteJwks, Verifier, VerifyServiceTokenLayer,
};
use tower_test::mock;

use crate::support::{DeadPort, Inner, ResponseSummary, UnusedListener, bearer, header, request};

const NO_ERROR: &str = r#"Bearer realm="m2m""#;
const INVALID_REQUEST: &str = r#"Bearer realm="m2m", error="invalid_request""#;

fn layer(authority: &TestAuthority) -> VerifyServiceTokenLayer {
    VerifyServiceTokenLayer::new(authority.verifier())
}

/// A verifier whose JWKS endpoint refuses connections.
fn without_keys() -> (DeadPort, Verifier) {
    let port = DeadPort::new();
    let verifier = Verifier::new(RemoteJwks::new(port.url()).unwrap());
    (port, verifier)
}

#[tokio::test]
async fn readied_service_is_called() {
    let authority = TestAuthority::offline();
    // `ConcurrencyLimit::call` panics unless this clone was polled ready.
    let mut service = layer(&authority).layer(ConcurrencyLimit::new(Inner::default(), 1));
    for _ in 0..3 {
        let request = bearer(&authority.token().claim("service", "orders").sign());
        let response = service.ready().await.unwrap().call(request).await.unwrap();
        assert_eq!(response.into_body(), "orders");
    }
    // A refused request releases its permit, so another clone becomes ready.
    for _ in 0..3 {
        assert_eq!(service.ready().await.unwrap().call(bearer("x")).await.unwrap().status(), 401);
        let mut other = service.clone();
        let ready =
            poll_fn(|cx| Poll::Ready(Service::<Request<()>>::poll_ready(&mut other, cx))).await;
        assert!(matches!(ready, Poll::Ready(Ok(()))));
    }
}

#[tokio::test]
async fn poll_ready_forwards_back_pressure_and_errors() {
    let layer = layer(&TestAuthority::offline());
    let (mut service, mut handle) = mock::spawn_layer::<Request<()>, Response<()>, _>(layer);
    handle.allow(0);
    assert!(service.poll_ready().is_pending());
    assert!(service.poll_ready().is_pending());
    handle.allow(1);
    assert!(service.is_woken());
    assert!(matches!(service.poll_ready(), Poll::Ready(Ok(()))));

    let (mut service, mut handle) = mock::spawn_layer::<Request<()>, Response<()>, _>(
        VerifyServiceTokenLayer::new(TestAuthority::offline().verifier()),
    );
    handle.send_error("broken");
    match service.poll_ready() {
        Poll::Ready(Err(error)) => assert_eq!(error.to_string(), "broken"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn poll_ready_without_keys_is_ready_and_fetches_nothing() {
    let endpoint = UnusedListener::new().await;
    let jwks = RemoteJwks::new(endpoint.url()).unwrap();
    let layer = VerifyServiceTokenLayer::new(Verifier::new(jwks.clone()));
    let mut service = layer.layer(Inner::default());
    let first =
        poll_fn(|cx| Poll::Ready(Service::<Request<()>>::poll_ready(&mut service, cx))).await;
    assert!(matches!(first, Poll::Ready(Ok(()))));
    tokio::task::yield_now().await;
    endpoint.assert_unused().await;
    drop(jwks);
}

#[tokio::test]
async fn inner_responses_and_errors_pass_through() {
    #[derive(Clone, Debug, PartialEq)]
    struct Broken(u8);

    let authority = TestAuthority::offline();
    let failing = service_fn(|_: Request<()>| async { Err::<Response<()>, _>(Broken(7)) });
    let result = layer(&authority).layer(failing).oneshot(bearer(&authority.token().sign())).await;
    assert_eq!(result.unwrap_err(), Broken(7));

    let odd = service_fn(|request: Request<()>| async move {
        assert_eq!(request.uri(), "/whoami");
        let response = Response::builder().status(418).header("x-odd", "1").extension(Broken(8));
        Ok::<_, Broken>(response.body("teapot").unwrap())
    });
    let response =
        layer(&authority).layer(odd).oneshot(bearer(&authority.token().sign())).await.unwrap();
    assert_eq!((response.status().as_u16(), *response.body()), (418, "teapot"));
    assert_eq!(header(response.headers(), "x-odd").as_deref(), Some("1"));
    assert_eq!(response.extensions().get(), Some(&Broken(8)));
    assert_eq!(ResponseSummary::of(&response).reason, None);
}

#[test]
fn layer_service_and_future_are_debug_and_send() {
    fn check<T: Clone + Debug + Send + Sync + 'static>(value: T) -> T {
        value
    }
    fn send<F: Future + Send + Debug>(_: F) {}

    let layer = check(layer(&TestAuthority::offline()));
    let mut service = check(layer.layer(Inner::default()));
    assert!(format!("{service:?}").contains("Inner"), "`Debug` omits the inner service");
    send(service.call(request::<&str>(&[])));
}

/// Each refusal: its name, the credentials, and the expected status, challenge and reason.
pub(crate) fn refusals(
    authority: &TestAuthority,
) -> Vec<(&'static str, Vec<String>, u16, String, R)> {
    let bearer = |token: String| vec![format!("Bearer {token}")];
    let invalid = |error: &str, description: &str| {
        format!(r#"Bearer realm="m2m", error="{error}", error_description="{description}""#)
    };
    let token = |description: &str| invalid("invalid_token", description);
    vec![
        ("no credentials", vec![], 401, NO_ERROR.into(), R::MissingCredentials),
        ("another scheme", vec!["Basic dTpw".into()], 401, NO_ERROR.into(), R::UnsupportedScheme),
        (
            "two credentials",
            vec!["Bearer a".into(), "Bearer a".into()],
            400,
            INVALID_REQUEST.into(),
            R::MultipleCredentials,
        ),
        (
            "not b64token",
            bearer("a b".into()),
            400,
            INVALID_REQUEST.into(),
            R::MalformedCredentials,
        ),
        ("no token", vec!["Bearer".into()], 400, INVALID_REQUEST.into(), R::MalformedCredentials),
        (
            "too long",
            bearer("a".repeat(8193)),
            401,
            token("the token is too long"),
            R::TokenTooLong,
        ),
        (
            "garbage",
            bearer("garbage".into()),
            401,
            token("the token is not a compact JWS"),
            R::NotThreeParts,
        ),
        (
            "expired",
            bearer(authority.token().expired().sign()),
            401,
            token("the token has expired"),
            R::Expired,
        ),
        (
            "forged",
            bearer(authority.token().forged().sign()),
            401,
            token("the signature is not valid"),
            R::BadSignature,
        ),
        (
            "unknown key",
            bearer(authority.token().unknown_key().sign()),
            401,
            token("the signing key is not known"),
            R::UnknownKey,
        ),
        (
            "an end user's token",
            bearer(authority.token().without_marker().sign()),
            403,
            invalid("insufficient_scope", "the marker of a service is missing or not accepted"),
            R::NotMicroservice,
        ),
    ]
}

#[tokio::test]
async fn refusal_has_its_status_and_skips_the_inner_service() {
    let authority = TestAuthority::offline();
    let inner = Inner::default();
    let service = layer(&authority).layer(inner.clone());
    for (case, credentials, status, challenge, reason) in refusals(&authority) {
        let response = service.clone().oneshot(request(&credentials)).await.unwrap();
        let expected = ResponseSummary {
            status,
            challenge: Some(challenge),
            retry_after: None,
            reason: Some(reason),
        };
        assert_eq!(ResponseSummary::of(&response), expected, "{case}");
        assert_eq!(
            response.extensions().get::<Rejection>().unwrap().kind(),
            reason.kind(),
            "{case}"
        );
        assert!(response.body().is_empty(), "{case}");
    }
    // A token that waits for a fetch, which does not find its key.
    let remote = TestAuthority::start().await;
    let waiting = layer(&remote).layer(inner.clone());
    let unknown = bearer(&authority.token().kid("unknown").sign());
    assert_eq!(waiting.oneshot(unknown).await.unwrap().status(), 401);
    assert_eq!(inner.calls(), 0);
    assert_eq!(service.oneshot(bearer(&authority.token().sign())).await.unwrap().status(), 200);
    assert_eq!(inner.calls(), 1);
}

#[tokio::test]
async fn missing_keys_refuse_requests_with_503() {
    let (_port, verifier) = without_keys();
    let inner = Inner::default();
    for layer in [
        VerifyServiceTokenLayer::new(verifier.clone()),
        VerifyServiceTokenLayer::optional(verifier),
    ] {
        let request = bearer(&TestAuthority::offline().token().sign());
        let response = layer.layer(inner.clone()).oneshot(request).await.unwrap();
        let expected = ResponseSummary {
            status: 503,
            challenge: None,
            retry_after: Some("1".into()),
            reason: Some(R::KeysNotLoaded),
        };
        assert_eq!(ResponseSummary::of(&response), expected);
        assert!(response.body().is_empty());
    }
    assert_eq!(inner.calls(), 0);
}

#[tokio::test]
async fn refused_grpc_call_gets_a_grpc_status() {
    let authority = TestAuthority::offline();
    let (_port, verifier) = without_keys();
    let inner = Inner::default();
    let call = |version: Version, method: Method, media_type: &str, credentials: &[String]| {
        let mut call = request(credentials);
        *call.version_mut() = version;
        *call.method_mut() = method;
        call.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_str(media_type).unwrap());
        call
    };
    let grpc = |media_type: &str, credentials: &[String]| {
        call(Version::HTTP_2, Method::POST, media_type, credentials)
    };
    let mut cases: Vec<_> = refusals(&authority)
        .into_iter()
        .map(|(case, credentials, _, _, reason)| {
            let code = if reason.kind() == RejectionKind::NotMicroservice { "7" } else { "16" };
            (case, layer(&authority), credentials, code, reason)
        })
        .collect();
    let valid = vec![format!("Bearer {}", authority.token().sign())];
    cases.push(("no keys", VerifyServiceTokenLayer::new(verifier), valid, "14", R::KeysNotLoaded));

    for (case, layer, credentials, code, reason) in cases {
        for media_type in ["application/grpc", "application/grpc+proto"] {
            let response =
                layer.layer(inner.clone()).oneshot(grpc(media_type, &credentials)).await.unwrap();
            let expected = ResponseSummary {
                status: 200,
                challenge: None,
                retry_after: None,
                reason: Some(reason),
            };
            assert_eq!(ResponseSummary::of(&response), expected, "{case}");
            let headers = response.headers();
            assert_eq!(header(headers, "grpc-status").as_deref(), Some(code), "{case}");
            assert_eq!(
                header(headers, "grpc-message").as_deref(),
                Some(reason.description()),
                "{case}"
            );
            assert_eq!(
                header(headers, "content-type").as_deref(),
                Some("application/grpc"),
                "{case}"
            );
            assert!(response.body().is_empty(), "{case}");
        }
    }
    // Requests that are not gRPC over HTTP/2 get HTTP responses, and so does every request to a
    // layer with `http_answers`.
    let default = layer(&authority);
    let http = layer(&authority).http_answers();
    let optional = VerifyServiceTokenLayer::optional(authority.verifier()).http_answers();
    let expired = vec![format!("Bearer {}", authority.token().expired().sign())];
    let cases = [
        ("GET", &default, call(Version::HTTP_2, Method::GET, "application/grpc", &expired)),
        ("gRPC-Web", &default, grpc("application/grpc-web", &expired)),
        ("gRPC-Web with a format", &default, grpc("application/grpc-web+proto", &expired)),
        ("another media type", &default, grpc("application/grpcfoo", &expired)),
        ("HTTP/1.0", &default, call(Version::HTTP_10, Method::POST, "application/grpc", &expired)),
        ("HTTP/1.1", &default, call(Version::HTTP_11, Method::POST, "application/grpc", &expired)),
        (
            "HTTP/1.1 with a format",
            &default,
            call(Version::HTTP_11, Method::POST, "application/grpc+proto", &expired),
        ),
        ("HTTP/3", &default, call(Version::HTTP_3, Method::POST, "application/grpc", &expired)),
        ("HTTP responses", &http, grpc("application/grpc", &expired)),
        ("HTTP responses with a format", &http, grpc("application/grpc+proto", &expired)),
        ("HTTP responses of an optional layer", &optional, grpc("application/grpc", &expired)),
    ];
    for (case, layer, call) in cases {
        let response = layer.layer(inner.clone()).oneshot(call).await.unwrap();
        assert_eq!(response.status(), 401, "{case}");
        assert!(response.headers().contains_key("www-authenticate"), "{case}");
        assert_eq!(header(response.headers(), "grpc-status"), None, "{case}");
    }
    assert_eq!(inner.calls(), 0);
}

#[tokio::test]
async fn credential_is_sensitive_behind_the_layer() {
    let authority = TestAuthority::offline();
    let custom = HeaderName::from_static("x-service");
    let good = format!("Bearer {}", authority.token().sign());
    let cases = [
        (layer(&authority), AUTHORIZATION, vec![good.as_str()]),
        (layer(&authority).header(custom.clone()).unwrap(), custom, vec![&good]),
        (
            VerifyServiceTokenLayer::optional(authority.verifier()),
            AUTHORIZATION,
            vec!["Basic dTpw"],
        ),
        (layer(&authority).observe(), AUTHORIZATION, vec!["Basic dTpw", &good, &good]),
    ];
    for (layer, name, credentials) in cases {
        let seen = name.clone();
        let inner = service_fn(move |request: Request<()>| {
            let values = request.headers().get_all(&seen).iter();
            let count = values.filter(|value| value.is_sensitive()).count();
            async move { Ok::<_, std::convert::Infallible>(Response::new(count)) }
        });
        let request = credentials
            .iter()
            .fold(Request::get("/"), |request, credential| request.header(&name, *credential));
        let response = layer.layer(inner).oneshot(request.body(()).unwrap()).await.unwrap();
        assert_eq!(response.into_body(), credentials.len(), "{name}");
    }
}

#[tokio::test]
async fn credential_is_read_from_the_configured_header() {
    let authority = TestAuthority::offline();
    let name = HeaderName::from_static("x-service");
    let service = layer(&authority).header(name.clone()).unwrap().layer(Inner::default());
    let good = format!("Bearer {}", authority.token().sign());
    let user = format!("Bearer {}", authority.token().without_marker().sign());
    // (`Authorization`, `x-service`, status)
    let cases = [
        (None, Some(&good), 200),
        (Some(&user), Some(&good), 200),
        (Some(&good), None, 401),
        (Some(&good), Some(&user), 403),
    ];
    for (authorization, other, status) in cases {
        let mut request = Request::get("/");
        for (name, value) in [(&AUTHORIZATION, authorization), (&name, other)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        let response = service.clone().oneshot(request.body(()).unwrap()).await.unwrap();
        assert_eq!(response.status().as_u16(), status);
    }
}

#[tokio::test]
async fn token_without_scheme_is_read_from_another_header() {
    let authority = TestAuthority::offline();
    let name = HeaderName::from_static("x-goog-iap-jwt-assertion");
    let good = authority.token().sign();
    let list = format!("{good}, {good}");
    let basic = "Basic dTpw".to_owned();
    // (status in another header, status in `Authorization`)
    let cases = [
        (&good, 200, 401),
        (&format!("Bearer {good}"), 200, 200),
        (&authority.token().without_marker().sign(), 403, 401),
        (&authority.token().forged().sign(), 401, 401),
        (&list, 400, 401),
        (&list.replace(' ', ""), 400, 401),
        (&format!("{good}, Bearer {good}"), 400, 400),
        (&format!("\"{good}\""), 400, 401),
        (&basic, 401, 401),
        (&"garbage".to_owned(), 401, 401),
    ];
    for (case, (value, other, authorization)) in cases.into_iter().enumerate() {
        for (name, status) in [(&name, other), (&AUTHORIZATION, authorization)] {
            let service = layer(&authority).header(name.clone()).unwrap().layer(Inner::default());
            let request = Request::get("/").header(name, value).body(()).unwrap();
            let response = service.oneshot(request).await.unwrap();
            assert_eq!(response.status().as_u16(), status, "{name}, case {case}");
        }
    }
}

#[tokio::test]
async fn realm_is_in_the_challenge_and_escaped() {
    let authority = TestAuthority::offline();
    for (realm, challenge) in
        [("billing", r#"Bearer realm="billing""#), ("a\"b\r\nx: y", r#"Bearer realm="a\"b??x: y""#)]
    {
        let service = layer(&authority).realm(realm).layer(Inner::default());
        let response = service.oneshot(request::<&str>(&[])).await.unwrap();
        assert_eq!(ResponseSummary::of(&response).challenge.as_deref(), Some(challenge));
    }
}

#[tokio::test]
async fn optional_layer_admits_non_services_without_claims() {
    let authority = TestAuthority::offline();
    let service = VerifyServiceTokenLayer::optional(authority.verifier()).layer(Inner::default());
    let bearer = |token: TokenBuilder| vec![format!("Bearer {}", token.sign())];
    let token = || authority.token().claim("service", "orders");
    let user = || authority.token().without_marker();
    let cases = [
        ("a service token", bearer(token()), 200, "orders"),
        ("no credentials", vec![], 200, "anonymous"),
        ("another scheme", vec!["Basic dTpw".to_owned()], 200, "anonymous"),
        ("an end user's token", bearer(user()), 200, "anonymous"),
        ("expired", bearer(token().expired()), 401, ""),
        ("forged", bearer(token().forged()), 401, ""),
        ("a forged end user's token", bearer(user().forged()), 401, ""),
        ("garbage", vec!["Bearer garbage".to_owned()], 401, ""),
        ("unknown key", bearer(user().unknown_key()), 401, ""),
        ("malformed", vec!["Bearer a b".to_owned()], 400, ""),
        (
            "two credentials",
            vec![format!("Bearer {}", token().sign()), "Basic dTpw".to_owned()],
            400,
            "",
        ),
    ];
    for (case, credentials, status, body) in cases {
        let response = service.clone().oneshot(request(&credentials)).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), response.body().as_str()),
            (status, body),
            "{case}"
        );
    }
}
