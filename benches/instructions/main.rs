//! Runs each hot path [`CALLS`] times, in a function of its own. `.ci/instructions` runs this under
//! valgrind, which counts the instructions of these functions.

use std::convert::Infallible;
use std::error::Error;
use std::future::ready;
use std::hint::black_box;
use std::pin::pin;
use std::sync::LazyLock;
use std::task::{Context, Waker};

use http::header::{AUTHORIZATION, HOST};
use http::{HeaderValue, Request, Response, Uri};
use tower::{Layer, Service, service_fn};
use tower_m2m::{
    AddServiceTokenLayer, Algorithm, LocalIssuer, LocalJwks, RequireClaimLayer, ServiceToken,
    SigningKey, Verifier, VerifyServiceTokenLayer,
};

const CALLS: usize = 1000;

static URL: LazyLock<Uri> = LazyLock::new(|| Uri::from_static("https://billing.internal/charge"));

const ISSUER: &str = "https://orders.internal";

/// A function for each path. Not inlined, so that the profile shows it by name.
macro_rules! paths {
    ($($name:ident)*) => {
        $(
            #[inline(never)]
            fn $name(service: &mut impl Immediate, request: impl Fn() -> Request<()>) {
                // The name keeps the linker from merging functions with the same code.
                black_box(stringify!($name));
                run(service, request);
            }
        )*
    };
}

paths! {
    bare bare_with_token fill_caches cached_token required_claim claim_refused no_token garbage unknown_kid
    client_fixed_token client_minted_token client_only_to
}

trait Immediate: Service<Request<()>, Response = Response<()>, Error = Infallible> {}

impl<S: Service<Request<()>, Response = Response<()>, Error = Infallible>> Immediate for S {}

#[inline(always)]
fn run(service: &mut impl Immediate, request: impl Fn() -> Request<()>) {
    for _ in 0..CALLS {
        let response = pin!(service.call(request())).poll(&mut Context::from_waker(Waker::noop()));
        assert!(black_box(response).is_ready());
    }
}

fn noop_service() -> impl Immediate + Clone {
    service_fn(|request| {
        black_box(request);
        ready(Ok(Response::new(())))
    })
}

fn request(credential: Option<&HeaderValue>) -> Request<()> {
    let mut request = Request::new(());
    *request.uri_mut() = URL.clone();
    request.headers_mut().insert(HOST, HeaderValue::from_static("billing.internal"));
    if let Some(credential) = credential {
        request.headers_mut().insert(AUTHORIZATION, credential.clone());
    }
    request
}

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let _context = runtime.enter();
    let key = || SigningKey::generate(Algorithm::EdDSA);
    let issuer = LocalIssuer::new(ISSUER, [key()?])?;
    let stranger = LocalIssuer::new(ISSUER, [key()?])?;
    let token = || issuer.service_token().service("orders").audience("billing");
    let credential = |jwt: String| HeaderValue::try_from(format!("Bearer {jwt}"));
    let good = credential(token().sign()?)?;
    let unknown = stranger.service_token().service("orders").audience("billing").sign()?;
    let unknown = credential(unknown)?;
    let garbage_credential = HeaderValue::from_static("Bearer garbage");

    let jwks = LocalJwks::from_json(issuer.jwks())?;
    let verifier = Verifier::new(jwks).issuer(ISSUER).audience("billing");
    let verify = VerifyServiceTokenLayer::new(verifier);
    let with_claim =
        |expected| verify.layer(RequireClaimLayer::new("service", expected).layer(noop_service()));

    bare(&mut noop_service(), || request(None));
    bare_with_token(&mut noop_service(), || request(Some(&good)));
    fill_caches(&mut verify.layer(noop_service()), || request(Some(&good)));
    cached_token(&mut verify.layer(noop_service()), || request(Some(&good)));
    required_claim(&mut with_claim("orders"), || request(Some(&good)));
    claim_refused(&mut with_claim("refunds"), || request(Some(&good)));
    no_token(&mut verify.layer(noop_service()), || request(None));
    garbage(&mut verify.layer(noop_service()), || request(Some(&garbage_credential)));
    unknown_kid(&mut verify.layer(noop_service()), || request(Some(&unknown)));

    let fixed = AddServiceTokenLayer::new(ServiceToken::from_jwt(token().sign()?)?);
    client_fixed_token(&mut fixed.layer(noop_service()), || request(None));
    let minted = AddServiceTokenLayer::new(runtime.block_on(token().mint())?);
    client_minted_token(&mut minted.layer(noop_service()), || request(None));
    let only_to = minted.only_to(["https://billing.internal"])?;
    client_only_to(&mut only_to.layer(noop_service()), || request(None));
    Ok(())
}
