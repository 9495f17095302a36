//! Three services in a row: `shop` (M1) calls `orders` (M2), which calls `billing` (M3). `orders`
//! is both a called and a calling service. The user's own token travels beside the service tokens,
//! in the header `x-user-token`.
//!
//! ```text
//! cargo run --example chain
//! ```
//!
//! Prints what happened at each hop: the expected status, the status that the called service
//! answered, and whom it saw or why it refused. The exit code is 1 if a hop is not the expected
//! one.

use std::process::ExitCode;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri};
use http_body_util::Empty;
use serde_json::{Value, json};
use tower::{Layer, ServiceExt};
use tower_m2m::testing::bearer;
use tower_m2m::{
    AddServiceToken, AddServiceTokenLayer, EmbeddedCore, Rejection, RemoteJwks, RequireClaimLayer,
    ServiceClaims, SuperTokensCore, Verifier, VerifyServiceTokenLayer,
};

use authority::Authority;
use compact_jws::with_signature_of;
use hops::{Hop, Hops, SeenCaller};
use loopback::{HttpClient, client, serve};
use support::Stop;
use table::{Table, run_program};

#[path = "support/authority.rs"]
#[allow(dead_code)] // the demo also stops the authority and waits for its keys
mod authority;
#[path = "support/compact_jws.rs"]
mod compact_jws;
#[path = "support/hops.rs"]
mod hops;
#[path = "support/loopback.rs"]
mod loopback;
mod support;
#[path = "support/table.rs"]
mod table;

const USAGE: &str = "\
usage: chain

Runs an embedded core and the services `shop`, `orders` and `billing` over loopback HTTP: `shop` calls `orders`, which
calls `billing`. Each calling service has a token for the next one, and the user's own token travels in the header
`x-user-token`. Prints what each called service saw.

  --help      print this help

environment:
  NO_COLOR    if set, no colours on a terminal
  RUST_LOG    what to log on stderr, for example debug or warn,tower_m2m=debug (nothing)";

const USER_TOKEN: HeaderName = HeaderName::from_static("x-user-token");

#[tokio::main]
async fn main() -> ExitCode {
    run_program("chain", USAGE, "hops", run_cases).await
}

async fn run_cases(table: &mut Table) -> Result<(), Stop> {
    let mut authority = Authority::start(EmbeddedCore::builder().build().await?).await?;
    let issuer = authority.url.clone();
    let jwks = RemoteJwks::new(format!("{issuer}/.well-known/jwks.json"))?;
    // One authority signs the tokens of services and of users. Their issuers and claims differ.
    let users_issuer = format!("{issuer}/auth");
    let users = Verifier::new(jwks.clone()).issuer(&users_issuer).marker("tId", ["public"]);
    let admit = |audience| {
        let verifier = Verifier::new(jwks.clone()).issuer(&issuer).audience(audience);
        VerifyServiceTokenLayer::new(verifier)
    };
    // Each calling service has a token for the next service alone.
    let token = SuperTokensCore::new(&issuer)?.service_token(&issuer);
    let (token_of_shop, token_of_orders) = tokio::try_join!(
        token.clone().service("shop").audience("orders").mint(),
        token.service("orders").audience("billing").mint(),
    )?;

    let hops = Hops::default();
    let only_refunds = RequireClaimLayer::new("service", "refunds");
    let billing = Router::new()
        .route("/charge", get(charge))
        .route("/refund", get(charge).layer(only_refunds))
        .route_layer(admit("billing"))
        .with_state(users.clone());
    let billing = serve(hops.record("billing", billing)).await?;

    let to_billing = AddServiceTokenLayer::new(token_of_orders).only_to([&billing])?;
    let state = Orders { users, billing: billing.clone(), client: to_billing.layer(client()) };
    let orders = Router::new()
        .route("/charge", get(call_billing))
        .route("/refund", get(call_billing))
        .route_layer(admit("orders"))
        .with_state(state);
    let orders = serve(hops.record("orders", orders)).await?;

    // `shop` has no routes: the cases below are its calls.
    let shop = AddServiceTokenLayer::new(token_of_shop).only_to([&orders, &billing])?;
    let shop = shop.layer(client());
    let session = |user: &str| {
        json!({
            "iss": users_issuer, "sub": user, "tId": "public", "rsub": user,
            "sessionHandle": "7d3c2a52-0c8e-4a35-9d0f-4b5a1f0a9f5e",
            "refreshTokenHash1": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        })
    };
    let user_1 = authority.mint(session("user-1"), true).await?;
    let user_2 = authority.mint(session("user-2"), true).await?;
    let mut ended = session("user-1");
    ended["exp"] = json!(1_700_000_000);
    let mut oauth2 = session("user-1");
    oauth2["stt"] = json!(1);
    let oauth2 = bearer(authority.mint(oauth2, true).await?);
    let expired = bearer(authority.mint(ended, true).await?);
    let forged = bearer(with_signature_of(&user_1, &user_2)?);
    let user = bearer(user_1);

    let at_orders = |status, saw: &str| Hop::new("orders", status, saw);
    let at_billing = |status, saw: &str| Hop::new("billing", status, saw);
    let by_shop = "caller shop, user user-1";
    table
        .wait("shop calls orders, and orders calls billing; the user's token is in x-user-token")?;
    table.head("hop", "what the called service saw")?;

    shop.clone().oneshot(request_to(&orders, "/charge", Some(&user))?).await?;
    let expected = [at_orders(200, by_shop), at_billing(200, "caller orders, user user-1")];
    hops.print(table, "shop → orders → billing, for user-1", &expected)?;

    for (case, user, why) in [
        ("without a user", None, "no credential"),
        ("with an expired user token", Some(&expired), "the token has expired"),
        ("with a forged user token", Some(&forged), "the signature is not valid"),
        ("with an OAuth2 access token", Some(&oauth2), "not a session"),
    ] {
        shop.clone().oneshot(request_to(&orders, "/charge", user)?).await?;
        let expected = [at_orders(403, &format!("caller shop, no user: {why}"))];
        hops.print(table, &format!("the same call {case}"), &expected)?;
    }

    shop.clone().oneshot(request_to(&orders, "/refund", Some(&user))?).await?;
    let why = "a required claim is missing or not accepted";
    let expected = [at_orders(502, by_shop), at_billing(403, why)];
    hops.print(table, "a route of billing that orders may not call", &expected)?;

    shop.oneshot(request_to(&billing, "/charge", Some(&user))?).await?;
    let expected = [at_billing(401, "the token is for another audience")];
    hops.print(table, "shop → billing, past orders", &expected)?;

    let mut request = request_to(&orders, "/charge", Some(&user))?;
    request.headers_mut().insert(AUTHORIZATION, user);
    client().request(request).await?;
    let expected = [at_orders(401, "the issuer is not accepted")];
    hops.print(table, "user-1 → orders, without a service", &expected)
}

/// What `orders` needs as a called and as a calling service.
#[derive(Clone)]
struct Orders {
    users: Verifier,
    /// The URL of `billing`.
    billing: String,
    client: AddServiceToken<HttpClient>,
}

/// The handler of `orders`: calls the same route of `billing`, in the name of the user.
async fn call_billing(
    State(orders): State<Orders>,
    caller: ServiceClaims,
    route: Uri,
    headers: HeaderMap,
) -> Response {
    let (status, seen) = identify(&orders.users, &caller, &headers).await;
    if status != StatusCode::OK {
        return (status, Extension(seen)).into_response();
    }
    // `Authorization` is not passed on: the layer of the client sets the token of `orders`.
    let response = match request_to(&orders.billing, route.path(), headers.get(USER_TOKEN)) {
        Ok(request) => orders.client.oneshot(request).await.ok(),
        Err(_) => None,
    };
    // The status of a refusal is not passed on either: it concerns the token of `orders`, not that
    // of its caller.
    let is_success = response.is_some_and(|response| response.status().is_success());
    let status = if is_success { StatusCode::OK } else { StatusCode::BAD_GATEWAY };
    (status, Extension(seen)).into_response()
}

/// The handler of `billing`.
async fn charge(users: State<Verifier>, caller: ServiceClaims, headers: HeaderMap) -> Response {
    let (status, seen) = identify(&users, &caller, &headers).await;
    (status, Extension(seen)).into_response()
}

/// Verifies the user's token. The status is 403 if that fails, not 401, which the calling service
/// would take for a rejection of its service token; or 503 if `users` has no keys.
async fn identify(
    users: &Verifier,
    caller: &ServiceClaims,
    headers: &HeaderMap,
) -> (StatusCode, SeenCaller) {
    let (status, user) = match users.authenticate(headers.get_all(USER_TOKEN)).await {
        Ok(claims) => match session_user(&claims) {
            Some(user) => (StatusCode::OK, format!("user {user}")),
            None => (StatusCode::FORBIDDEN, "no user: not a session".to_owned()),
        },
        Err(rejection) => (refusal(&rejection), format!("no user: {rejection}")),
    };
    (status, SeenCaller::new(caller.service(), &user))
}

/// The user of a session token of SuperTokens. Its OAuth2 access tokens have the same issuer and
/// tenant, but `stt`, and no `refreshTokenHash1`.
fn session_user(claims: &ServiceClaims) -> Option<&str> {
    let has = |name| claims.get(name).is_some_and(Value::is_string);
    let is_session =
        has("sessionHandle") && has("refreshTokenHash1") && claims.get("stt").is_none();
    claims.subject().filter(|user| is_session && !user.is_empty())
}

fn refusal(rejection: &Rejection) -> StatusCode {
    match rejection.status() {
        StatusCode::UNAUTHORIZED => StatusCode::FORBIDDEN,
        status => status,
    }
}

/// A request with the credential of a user.
fn request_to(
    service: &str,
    route: &str,
    user: Option<&HeaderValue>,
) -> Result<Request<Empty<Bytes>>, http::Error> {
    let mut request = Request::get(format!("{service}{route}")).body(Empty::new())?;
    if let Some(user) = user {
        let mut user = user.clone();
        user.set_sensitive(true); // a received value is not
        request.headers_mut().insert(USER_TOKEN, user);
    }
    Ok(request)
}
