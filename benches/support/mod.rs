//! Code that the benches share: a no-op service, tokens, and requests with those tokens.
#![allow(dead_code)] // each bench uses a part of it

use std::convert::Infallible;
use std::future::ready;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::pin::pin;
use std::sync::LazyLock;
use std::task::{Context, Waker};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use axum::body::{Body, to_bytes};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderValue, Request, Response};
use serde_json::{Value, json};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_m2m::{
    EmbeddedCore, LocalJwks, ServiceToken, SuperTokensCore, Verifier, VerifyServiceTokenLayer,
};

/// A service that responds at once.
pub(crate) fn noop_service() -> impl ImmediateService + Clone + Send {
    service_fn(|request| {
        black_box(request);
        ready(Ok(Response::new(())))
    })
}

/// The key set of an embedded core, and tokens that it signed with RS256 and 2048 bits.
pub(crate) struct Core {
    pub(crate) jwks: String,
    /// The token of a microservice.
    pub(crate) minted: ServiceToken,
    /// The JWT of `minted`.
    pub(crate) service: String,
    /// Tokens of end users.
    pub(crate) users: Vec<String>,
}

const USERS: usize = 1000;

pub(crate) static RS256: LazyLock<Core> = LazyLock::new(|| {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let core = EmbeddedCore::builder().build().await.expect("a core");
        let listener =
            tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let serving = core.clone();
        tokio::spawn(async move { serving.serve(listener, std::future::pending()).await });
        let token =
            SuperTokensCore::new(url).expect("a URL").service_token("https://api.example.com");
        let minted =
            token.claim("service", "orders").audience("billing").mint().await.expect("a token");
        let value = minted.header_value();
        let service = value.to_str().expect("a header").trim_start_matches("Bearer ").to_owned();
        let mut users = Vec::new();
        for number in 0..USERS {
            users.push(mint(&core, json!({"sub": format!("user-{number}")})).await);
        }
        Core { jwks: core.jwks().await, minted, service, users }
    })
});

async fn mint(core: &EmbeddedCore, payload: Value) -> String {
    let body = json!({"payload": payload, "validity": 3600, "algorithm": "RS256", "jwksDomain": "https://api.example.com"});
    let request =
        Request::post("/recipe/jwt").body(Body::from(body.to_string())).expect("a request");
    let response = core.router().oneshot(request).await.expect("a response");
    let body = to_bytes(response.into_body(), 1 << 16).await.expect("a body");
    let response: Value = serde_json::from_slice(&body).expect("JSON");
    response["jwt"].as_str().expect("a token").to_owned()
}

/// A key set, and the credentials of 10 000 callers. Their tokens are signed with Ed25519, because
/// RSA would be slow for that number.
pub(crate) static CALLERS: LazyLock<(String, Vec<HeaderValue>)> = LazyLock::new(|| {
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

pub(crate) fn bearer(token: &str) -> HeaderValue {
    HeaderValue::try_from(format!("Bearer {token}")).expect("a header")
}

pub(crate) fn request(credential: Option<HeaderValue>) -> Request<()> {
    let mut request = Request::new(());
    request.headers_mut().insert(HOST, HeaderValue::from_static("billing.internal"));
    if let Some(credential) = credential {
        request.headers_mut().insert(AUTHORIZATION, credential);
    }
    request
}

/// Copies a credential into new memory, as a server reads each request into new memory.
pub(crate) fn copy_of(credential: &HeaderValue) -> HeaderValue {
    HeaderValue::from_bytes(credential.as_bytes()).expect("a header")
}

pub(crate) fn verifier(jwks: &str) -> Verifier {
    Verifier::new(LocalJwks::from_json(jwks).expect("a key set"))
}

pub(crate) fn verifying_service(verifier: Verifier) -> impl ImmediateService + Send {
    VerifyServiceTokenLayer::new(verifier).layer(noop_service())
}

pub(crate) trait ImmediateService:
    Service<Request<()>, Response = Response<()>, Error = Infallible>
{
}

impl<S: Service<Request<()>, Response = Response<()>, Error = Infallible>> ImmediateService for S {}

/// Calls a service that responds at once.
pub(crate) fn call(service: &mut impl ImmediateService, request: Request<()>) {
    let response = pin!(service.call(request)).poll(&mut Context::from_waker(Waker::noop()));
    assert!(response.is_ready());
}
