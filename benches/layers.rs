//! What the layers cost a request, beside a service that does nothing: `cargo bench`.
//!
//! Read the differences to `bare`, from one run. `signature_alone` is what a new token cannot be cheaper than.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::pin::pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use divan::Bencher;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderValue, Request, Response};
use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use serde_json::{Value, json};
use tower::{Layer, Service};
use tower_m2m::{AddServiceTokenLayer, EmbeddedCore, FixedJwks, RequireServiceTokenLayer, ServiceToken, Verifier};

fn main() {
    divan::main();
}

#[derive(Clone)]
struct Bare;

impl Service<Request<()>> for Bare {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        black_box(request);
        ready(Ok(Response::new(())))
    }
}

/// Tokens of an embedded core, and whatever else is sent.
struct Fixture {
    jwks: String,
    service: String,
    user: String,
}

static RS256: LazyLock<Fixture> = LazyLock::new(|| {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let core = EmbeddedCore::builder().build().await.expect("a core");
        let mint = async |payload: Value| {
            use tower::ServiceExt;
            let body = json!({"payload": payload, "validity": 3600, "algorithm": "RS256", "jwksDomain": "https://api.example.com"});
            let request = Request::post("/recipe/jwt").body(axum::body::Body::from(body.to_string())).expect("a request");
            let answer = core.router().oneshot(request).await.expect("an answer");
            let answer = axum::body::to_bytes(answer.into_body(), 1 << 16).await.expect("a body");
            let answer: Value = serde_json::from_slice(&answer).expect("JSON");
            answer["jwt"].as_str().expect("a token").to_owned()
        };
        let service = mint(json!({"source": "microservice", "service": "orders", "aud": "billing"})).await;
        let user = mint(json!({"sub": "user-1"})).await;
        Fixture { jwks: core.jwks().await, service, user }
    })
});

/// Distinct callers, by Ed25519 so that there may be many.
static CALLERS: LazyLock<(String, Vec<HeaderValue>)> = LazyLock::new(|| {
    let key = Ed25519KeyPair::generate().expect("a key");
    let x = URL_SAFE_NO_PAD.encode(key.public_key().as_ref());
    let jwks = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": x}]}).to_string();
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","kid":"k","typ":"JWT"}"#);
    let sign = |number: usize| {
        let claims = json!({"exp": 4_953_600_000_u64, "source": "microservice", "service": format!("caller-{number}")});
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()).as_ref());
        bearer(&format!("{signed}.{signature}"))
    };
    (jwks, (0..10_000).map(sign).collect())
});

fn bearer(token: &str) -> HeaderValue {
    HeaderValue::try_from(format!("Bearer {token}")).expect("a header")
}

fn request(credential: Option<HeaderValue>) -> Request<()> {
    let mut request = Request::new(());
    request.headers_mut().insert(HOST, HeaderValue::from_static("billing.internal"));
    if let Some(credential) = credential {
        request.headers_mut().insert(AUTHORIZATION, credential);
    }
    request
}

fn verifier(jwks: &str) -> Verifier {
    Verifier::new(FixedJwks::from_json(jwks).expect("a key set"))
}

fn call(service: &mut impl Service<Request<()>, Error = Infallible>, request: Request<()>) {
    let answered = pin!(service.call(request)).poll(&mut Context::from_waker(Waker::noop()));
    assert!(answered.is_ready());
}

fn bench(bencher: Bencher, verifier: Verifier, credential: Option<&HeaderValue>) {
    let mut service = RequireServiceTokenLayer::new(verifier).layer(Bare);
    for _ in 0..100 {
        call(&mut service, request(credential.cloned()));
    }
    bencher.with_inputs(|| request(credential.cloned())).bench_local_values(|request| call(&mut service, request));
}

#[divan::bench]
fn bare(bencher: Bencher) {
    let credential = bearer(&RS256.service);
    bencher.with_inputs(|| request(Some(credential.clone()))).bench_local_values(|request| call(&mut Bare, request));
}

#[divan::bench]
fn token_seen_before(bencher: Bencher) {
    bench(bencher, verifier(&RS256.jwks), Some(&bearer(&RS256.service)));
}

#[divan::bench(threads = [1, 2])]
fn token_seen_before_by_threads(bencher: Bencher) {
    let layer = RequireServiceTokenLayer::new(verifier(&RS256.jwks));
    let credential = bearer(&RS256.service);
    bencher
        .with_inputs(|| {
            (layer.layer(Bare), request(Some(HeaderValue::from_bytes(credential.as_bytes()).expect("it was one"))))
        })
        .bench_values(|(mut service, request)| {
            call(&mut service, request);
            service
        });
}

#[divan::bench(args = [1, 100, 10_000])]
fn distinct_callers(bencher: Bencher, callers: usize) {
    let (jwks, credentials) = &*CALLERS;
    let mut service = RequireServiceTokenLayer::new(verifier(jwks).cache_capacity(20_000)).layer(Bare);
    for _ in 0..20 {
        for credential in &credentials[..callers] {
            call(&mut service, request(Some(credential.clone())));
        }
    }
    let mut turn = 0;
    bencher
        .with_inputs(|| {
            turn = (turn + 1) % callers;
            request(Some(credentials[turn].clone()))
        })
        .bench_local_values(|request| call(&mut service, request));
}

#[divan::bench]
fn new_token_rs256(bencher: Bencher) {
    bench(bencher, verifier(&RS256.jwks).cache_capacity(0), Some(&bearer(&RS256.service)));
}

#[divan::bench]
fn new_token_eddsa(bencher: Bencher) {
    let (jwks, credentials) = &*CALLERS;
    bench(bencher, verifier(jwks).cache_capacity(0), Some(&credentials[0]));
}

#[divan::bench]
fn signature_alone_rs256(bencher: Bencher) {
    let jwks: Value = serde_json::from_str(&RS256.jwks).expect("JSON");
    let (signed, signature) = RS256.service.rsplit_once('.').expect("a token");
    let header = URL_SAFE_NO_PAD.decode(signed.split('.').next().expect("a header")).expect("base64url");
    let header: Value = serde_json::from_slice(&header).expect("JSON");
    let keys = jwks["keys"].as_array().expect("keys");
    let jwk = keys.iter().find(|jwk| jwk["kid"] == header["kid"]).expect("the key that signed");
    let part = |name: &str| jwk[name].as_str().expect("a number");
    let key = DecodingKey::from_rsa_components(part("n"), part("e")).expect("a key");
    let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
    bencher.bench_local(|| {
        let verifier = (DEFAULT_PROVIDER.verifier_factory)(&jsonwebtoken::Algorithm::RS256, &key).expect("a verifier");
        assert!(verifier.verify(black_box(signed.as_bytes()), black_box(&signature)).is_ok());
    });
}

#[divan::bench]
fn user_token(bencher: Bencher) {
    bench(bencher, verifier(&RS256.jwks), Some(&bearer(&RS256.user)));
}

#[divan::bench]
fn no_token(bencher: Bencher) {
    bench(bencher, verifier(&RS256.jwks), None);
}

#[divan::bench]
fn garbage(bencher: Bencher) {
    bench(bencher, verifier(&RS256.jwks), Some(&bearer("garbage")));
}

#[divan::bench]
fn client(bencher: Bencher) {
    let token = ServiceToken::from_jwt(&RS256.service).expect("a token");
    let mut service = AddServiceTokenLayer::new(token).layer(Bare);
    bencher.with_inputs(|| request(None)).bench_local_values(|request| call(&mut service, request));
}

#[divan::bench]
fn client_bare(bencher: Bencher) {
    bencher.with_inputs(|| request(None)).bench_local_values(|request| call(&mut Bare, request));
}
