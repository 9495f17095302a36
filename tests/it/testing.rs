//! The parts of feature `testing`.

use std::task::Poll;
use std::time::{Duration, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::routing::get;
use http::{Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_m2m::testing::{
    FakeCallerLayer, RecordingServer, TestAuthority, TokenBuilder, bearer, renewed,
};
use tower_m2m::{
    AddServiceTokenLayer, RejectionReason as Reason, ServiceClaims, Verifier,
    VerifyServiceTokenLayer,
};

use crate::support::{TIMEOUT, decode};

const HOUR: Duration = Duration::from_secs(3600);

async fn reason(verifier: &Verifier, token: impl AsRef<str>) -> Option<Reason> {
    verifier.verify(token.as_ref()).await.err().map(|rejection| rejection.reason())
}

/// A change to a good token.
type Defect = fn(TokenBuilder) -> TokenBuilder;

#[tokio::test]
async fn each_defect_is_refused_for_the_reason_it_names() {
    let cases: [(&str, Defect, Option<Reason>); 23] = [
        ("good", |token| token, None),
        ("other claims", |token| token.claim("service", "orders").subject("m1"), None),
        ("two audiences", |token| token.audience("inventory"), None),
        ("a minute", |token| token.validity(Duration::from_secs(60)), None),
        ("expired", TokenBuilder::expired, Some(Reason::Expired)),
        ("not yet valid", TokenBuilder::not_yet_valid, Some(Reason::NotYetValid)),
        ("wrong audience", TokenBuilder::wrong_audience, Some(Reason::WrongAudience)),
        (
            "two audiences, wrong audience",
            |token| token.audience("inventory").wrong_audience(),
            Some(Reason::WrongAudience),
        ),
        ("without marker", TokenBuilder::without_marker, Some(Reason::NotMicroservice)),
        ("unknown key", TokenBuilder::unknown_key, Some(Reason::UnknownKey)),
        ("forged", TokenBuilder::forged, Some(Reason::BadSignature)),
        ("alg none", TokenBuilder::alg_none, Some(Reason::UnsupportedAlgorithm)),
        ("kid", |token| token.kid("another"), Some(Reason::UnknownKey)),
        ("without exp", |token| token.without("exp"), Some(Reason::MalformedExpiration)),
        ("without iss", |token| token.without("iss"), Some(Reason::WrongIssuer)),
        ("without aud", |token| token.without("aud"), Some(Reason::WrongAudience)),
        ("without jti", |token| token.without("jti"), None),
        ("other issuer", |token| token.claim("iss", "https://x"), Some(Reason::WrongIssuer)),
        ("raw exp", |token| token.raw("exp", r#""soon""#), Some(Reason::MalformedExpiration)),
        ("raw text", |token| token.raw("x", "{"), Some(Reason::MalformedClaims)),
        ("raw cnf", |token| token.raw("cnf", "{}"), Some(Reason::SenderConstrained)),
        (
            "header typ",
            |token| token.header("typ", r#""dpop+jwt""#),
            Some(Reason::UnsupportedTokenType),
        ),
        ("header crit", |token| token.header("crit", r#"["x"]"#), Some(Reason::CriticalHeader)),
    ];
    for authority in [TestAuthority::offline(), TestAuthority::start().await] {
        let verifier = authority.verifier().audience("billing");
        for (name, defect, expected) in &cases {
            let token = defect(authority.token().audience("billing"));
            assert_eq!(reason(&verifier, token.sign()).await, *expected, "{name}: {authority:?}");
        }
        // A listed kid of another key, which needs a second one.
        let first = authority.kid();
        authority.rotate();
        let token = authority.token().audience("billing").kid(first);
        assert_eq!(reason(&verifier, token.sign()).await, Some(Reason::BadSignature));
        let another = TestAuthority::offline().token().audience("billing").sign();
        assert_eq!(reason(&verifier, another).await, Some(Reason::UnknownKey));
    }
}

#[tokio::test]
async fn token_has_the_documented_claims() {
    let authority = TestAuthority::offline();
    let now = authority.clock().now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let token = authority.token().audience("a").audience("b").claims(json!({"limits": {"day": 3}}));
    let jwt = token.sign();
    let (header, claims) = (decode(&jwt, 0), decode(&jwt, 1));
    assert_eq!(header, json!({"typ": "JWT", "alg": "EdDSA", "kid": authority.kid()}));
    assert_eq!(
        (&claims["source"], &claims["iss"]),
        (&json!("microservice"), &json!(authority.issuer()))
    );
    assert_eq!((&claims["aud"], &claims["limits"]["day"]), (&json!(["a", "b"]), &json!(3)));
    let issued_at = claims["iat"].as_u64().unwrap();
    assert!((now..=now + 20).contains(&issued_at), "{claims}");
    assert_eq!(claims["exp"], issued_at + 3600);
    assert_ne!(claims["jti"], decode(&authority.token().sign(), 1)["jti"]);
}

#[tokio::test]
async fn any_text_can_be_signed() {
    let authority = TestAuthority::offline();
    authority.rotate_to("k");
    authority.withdraw();
    assert_eq!(authority.jwks(), format!(r#"{{"keys":[{}]}}"#, authority.jwk()));
    let verifier = authority.verifier();
    let claims = r#"{"exp":4953600000,"iss":"https://authority.test","source":"microservice"}"#;
    let good = authority.sign_parts(r#"{"alg":"EdDSA","kid":"k"}"#, claims);
    assert_eq!(reason(&verifier, &good).await, None);
    let same_claims = authority.sign_claims(claims);
    assert_eq!(reason(&verifier, &same_claims).await, None);
    assert_eq!(same_claims.split('.').nth(1), good.split('.').nth(1));
    let (input, _) = good.rsplit_once('.').unwrap();
    assert_eq!(authority.sign_input(input), good);
    let padded = authority.sign_input(format!("{input}$"));
    assert_eq!(reason(&verifier, &padded).await, Some(Reason::NotBase64Url));
}

#[tokio::test]
async fn removed_key_of_a_local_set_ends_at_once() {
    let authority = TestAuthority::offline();
    let verifier = authority.verifier();
    let old = authority.token().sign();
    assert_eq!(reason(&verifier, &old).await, None);
    authority.rotate();
    let new = authority.token().sign();
    assert_eq!((reason(&verifier, &old).await, reason(&verifier, &new).await), (None, None));
    authority.withdraw();
    // It is cached, and its signature is good.
    assert_eq!(reason(&verifier, &old).await, Some(Reason::UnknownKey));
    assert_eq!(reason(&verifier, &new).await, None);
    // The kid of the current key is used again, then that of an earlier one.
    let kid = authority.kid();
    let mut replaced = new;
    for _ in 0..2 {
        authority.rotate_to(&kid);
        assert_eq!(reason(&verifier, &replaced).await, Some(Reason::BadSignature));
        replaced = authority.token().sign();
        assert_eq!(reason(&verifier, &replaced).await, None);
        authority.rotate();
    }
}

#[tokio::test]
async fn removed_key_of_the_endpoint_ends_as_the_clock_moves() {
    let authority = TestAuthority::start().await;
    let jwks = authority.remote_jwks();
    let verifier = authority.verifier_with(jwks.clone());
    let token = || authority.token().validity(48 * HOUR);
    let old = token().sign();
    assert_eq!((reason(&verifier, &old).await, authority.fetches()), (None, 1));
    for fetches in 2..6 {
        authority.rotate();
        assert_eq!(reason(&verifier, token().sign()).await, None);
        assert_eq!(authority.fetches(), fetches);
    }
    authority.withdraw();
    assert_eq!(reason(&verifier, &old).await, None, "still within the lifetime");
    authority.clock().advance(25 * HOUR);
    assert_eq!(reason(&verifier, &old).await, Some(Reason::UnknownKey));
    assert_eq!(reason(&verifier, token().sign()).await, None);

    let old = token().sign();
    authority.rotate();
    authority.withdraw();
    jwks.refresh().await.unwrap();
    assert_eq!(reason(&verifier, &old).await, Some(Reason::UnknownKey));
}

#[tokio::test]
async fn endpoint_fails_hangs_and_recovers() {
    let authority = TestAuthority::start().await;
    let verifier = authority.verifier();
    let token = authority.token().sign();
    authority.answer_with(503);
    assert_eq!(reason(&verifier, &token).await, Some(Reason::KeysNotLoaded));
    authority.answer_with_keys();
    assert_eq!(reason(&verifier, &token).await, None);
    let unlisted = TestAuthority::offline();
    authority.answer_with_text(unlisted.jwks());
    let verifier = authority.verifier();
    assert_eq!(reason(&verifier, &token).await, Some(Reason::UnknownKey));
    let fetches = authority.fetches();

    authority.hang();
    let verifier = authority.verifier();
    let waiting = tokio::spawn({
        let token = token.clone();
        async move { reason(&verifier, token).await }
    });
    authority.wait_for_fetches(fetches + 1).await;
    assert!(!waiting.is_finished());
    authority.answer_with_keys();
    assert_eq!(waiting.await.unwrap(), None);

    authority.hang();
    let verifier = authority.verifier();
    let waiting = tokio::spawn(async move { reason(&verifier, token).await });
    authority.wait_for_fetches(fetches + 2).await;
    let mut aborted = std::pin::pin!(authority.aborted());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(aborted.as_mut().poll(&mut context).is_pending(), "an answered fetch counts");
    // The last handle of the key set: its fetch ends.
    waiting.abort();
    aborted.await;
}

#[tokio::test]
async fn minted_token_renews_as_the_clock_moves() {
    let authority = TestAuthority::start().await;
    let request = authority.core().service_token(authority.issuer()).audience("billing");
    let token = request.validity(HOUR).mint().await.unwrap();
    let verifier = authority.verifier().audience("billing");
    let mut sent = token.header_value();
    let jwt = |value: &http::HeaderValue| value.to_str().unwrap()["Bearer ".len()..].to_owned();
    for _ in 0..3 {
        authority.clock().advance(50 * HOUR / 60);
        let value = renewed(&token, &sent).await;
        assert_eq!(reason(&verifier, jwt(&value)).await, None);
        authority.clock().advance(11 * HOUR / 60);
        assert_eq!(reason(&verifier, jwt(&sent)).await, Some(Reason::Expired));
        sent = value;
    }
}

#[tokio::test]
async fn core_mints_what_the_payload_says() {
    let authority = TestAuthority::start().await;
    let verifier = authority.verifier();
    let service =
        authority.mint_payload(json!({"source": "microservice", "service": "orders"})).await;
    let claims = verifier.verify(&service).await.unwrap();
    assert_eq!(claims.get("service"), Some(&json!("orders")));
    let session = authority.mint_payload(json!({"sub": "user-1"})).await;
    assert_eq!(reason(&verifier, session).await, Some(Reason::NotMicroservice));

    let dynamic = authority.core().service_token(authority.issuer()).dynamic_key();
    dynamic.verify_with(&verifier).mint().await.unwrap();
    let local = authority.verifier_with(authority.local_jwks());
    assert_eq!(reason(&local, service).await, None);
}

#[tokio::test]
async fn authorities_of_a_process_share_the_rsa_key() {
    let kids = async || {
        let jwks: Value = serde_json::from_str(&TestAuthority::start().await.jwks()).unwrap();
        let kid =
            |jwk: &Value| (jwk["kty"] == "RSA").then(|| jwk["kid"].as_str().unwrap().to_owned());
        jwks["keys"].as_array().unwrap().iter().filter_map(kid).collect::<Vec<_>>()
    };
    let (first, second) = (kids().await, kids().await);
    assert_eq!(first.len(), 2);
    assert_eq!(first, second);
}

#[tokio::test]
async fn server_stops_with_the_last_clone() {
    let authority = TestAuthority::start().await;
    let url = authority.core_url();
    let (verifier, token) = (authority.verifier(), authority.token().sign());
    authority.hang();
    let waiting = tokio::spawn(async move { reason(&verifier, token).await });
    authority.wait_for_fetches(1).await;
    drop(authority.clone());
    let address = url.trim_start_matches("http://").to_owned();
    assert!(TcpStream::connect(&address).await.is_ok());
    drop(authority);
    assert_eq!(waiting.await.unwrap(), Some(Reason::KeysNotLoaded), "the fetch still hangs");
    let stopped = async {
        while TcpStream::connect(&address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TIMEOUT, stopped).await.expect("the server still listens");
}

#[tokio::test]
async fn offline_authority_needs_no_runtime() {
    let checked = std::thread::spawn(|| {
        let authority = TestAuthority::offline();
        let (verifier, token) = (authority.verifier(), authority.token().sign());
        let mut verified = std::pin::pin!(verifier.verify(&token));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        // The signature waits for a permit while other tests hold it.
        loop {
            if let std::task::Poll::Ready(verified) = verified.as_mut().poll(&mut context) {
                return verified.is_ok();
            }
            std::thread::yield_now();
        }
    });
    assert!(checked.join().unwrap());
}

/// Status and body of `GET /` behind a layer.
async fn respond<L>(layer: L) -> (StatusCode, String)
where
    L: Layer<axum::routing::Route> + Clone + Send + Sync + 'static,
    L::Service: Service<axum::extract::Request, Error = std::convert::Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    <L::Service as Service<axum::extract::Request>>::Response: axum::response::IntoResponse,
    <L::Service as Service<axum::extract::Request>>::Future: Send,
{
    let required = async |caller: ServiceClaims| format!("{:?}", caller.get("service"));
    let app = Router::new().route("/", get(required)).layer(layer);
    let response = app.oneshot(Request::get("/").body(Body::empty()).unwrap()).await.unwrap();
    let status = response.status();
    let body = to_bytes(response.into_body(), 1024).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn fake_caller_has_the_claims_it_was_given() {
    let fake = FakeCallerLayer::new(json!({"service": "orders"}));
    let (status, body) = respond(fake.clone()).await;
    assert_eq!((status.as_u16(), &*body), (200, r#"Some(String("orders"))"#));
    assert_eq!(respond(FakeCallerLayer::anonymous()).await.0, 401);

    let claims = service_fn(async |request: Request<()>| {
        Ok::<_, ()>(ServiceClaims::from_extensions(request.extensions()).cloned())
    });
    let of = async |layer: FakeCallerLayer| layer.layer(claims).oneshot(Request::new(())).await;
    let claims = of(fake).await.unwrap().unwrap();
    assert_eq!(claims.get("source"), Some(&json!("microservice")));
    assert!(claims.expires_at() > UNIX_EPOCH);
    let own = of(FakeCallerLayer::new(json!({"exp": 7, "source": "x"}))).await.unwrap().unwrap();
    assert_eq!(own.expires_at(), UNIX_EPOCH + Duration::from_secs(7));
    assert_eq!(own.get("source"), Some(&json!("x")));
    assert!(of(FakeCallerLayer::anonymous()).await.unwrap().is_none());
}

#[tokio::test]
async fn fake_caller_forwards_readiness_and_errors() {
    fn assert_send_sync<T: Clone + std::fmt::Debug + Send + Sync>(value: T) -> T {
        value
    }
    let layer = assert_send_sync(FakeCallerLayer::new(json!({})));
    let (mut service, mut handle) =
        tower_test::mock::spawn_layer::<Request<()>, Response<()>, _>(layer);
    handle.allow(0);
    assert!(service.poll_ready().is_pending(), "back-pressure is lost");
    handle.allow(1);
    assert!(matches!(service.poll_ready(), Poll::Ready(Ok(()))));
    let called = tokio::spawn(service.call(Request::new(())));
    let (request, respond) = handle.next_request().await.unwrap();
    assert!(ServiceClaims::from_extensions(request.extensions()).is_some());
    respond.send_error("broken");
    assert_eq!(called.await.unwrap().unwrap_err().to_string(), "broken");
}

/// What the fake replaces: a real layer behind it decides by itself.
#[tokio::test]
async fn fake_caller_passes_no_real_layer() {
    let real = VerifyServiceTokenLayer::new(TestAuthority::offline().verifier());
    let both = ServiceBuilder::new().layer(FakeCallerLayer::new(json!({}))).layer(real);
    assert_eq!(respond(both).await.0, 401);
}

#[tokio::test]
async fn recorded_requests_and_scripted_responses_match() {
    let (authority, m2) = (TestAuthority::start().await, RecordingServer::start().await);
    let token = authority.core().service_token(authority.issuer()).mint().await.unwrap();
    authority.clock().advance(Duration::from_secs(1)); // the minimum time between two mints
    let layer = AddServiceTokenLayer::new(token.clone()).only_to([m2.url()]).unwrap();
    let mut m1 = ServiceBuilder::new().layer(layer).service(reqwest::Client::new());
    let mut call = async |path: &str| {
        let url = format!("{}{path}", m2.url()).parse().unwrap();
        let request = reqwest::Request::new(reqwest::Method::POST, url);
        m1.ready().await.unwrap().call(request).await.unwrap()
    };
    m2.answer_next(503);
    m2.reject_next_grpc();
    assert_eq!(call("/first").await.status(), 503);
    let rejected = token.header_value();
    let response = call("/second?x=1").await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["grpc-status"]),
        (200, &"16".parse().unwrap())
    );
    renewed(&token, &rejected).await;
    assert_eq!(call("/third").await.status(), 200);
    m2.reject_next("invalid_token");
    let response = call("/fourth").await;
    assert_eq!(response.status(), 401);
    assert_eq!(
        response.headers()["www-authenticate"],
        r#"Bearer realm="m2m", error="invalid_token""#
    );

    let requests = m2.requests();
    let paths: Vec<_> =
        requests.iter().map(|request| (request.method().as_str(), request.path())).collect();
    assert_eq!(paths, ["/first", "/second", "/third", "/fourth"].map(|path| ("POST", path)));
    let sent: Vec<_> = requests.iter().map(|request| bearer(request.token().unwrap())).collect();
    assert_eq!(sent[..2], [rejected.clone(), rejected]);
    assert_eq!(sent[2..], [token.header_value(), token.header_value()]);
}

#[tokio::test]
async fn neither_tokens_nor_keys_appear_in_debug() {
    let (authority, m2) = (TestAuthority::start().await, RecordingServer::start().await);
    let token = authority.token().claim("service", "orders-7f3a");
    let jwt = token.clone().sign();
    reqwest::Client::new().get(m2.url()).bearer_auth(&jwt).send().await.unwrap();
    let jwk: Value = serde_json::from_str(&authority.jwk()).unwrap();
    let texts = [
        format!("{authority:?}"),
        format!("{token:?}"),
        format!("{m2:?}"),
        format!("{:?}", m2.requests()),
        format!("{:?}", authority.clock()),
        format!("{:?}", token.bearer()),
        format!("{:?}", FakeCallerLayer::new(json!({"service": "orders-7f3a"}))),
    ];
    for text in texts {
        for secret in ["7f3a", jwk["x"].as_str().unwrap(), jwt.rsplit('.').next().unwrap()] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}
