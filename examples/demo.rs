//! An embedded core, M1 and two called services in one process, over real HTTP on loopback.
//!
//! ```text
//! cargo run --example demo
//! ```
//!
//! Prints a table of cases: the expected status, the status of the response, and the reason.
//! The exit code is 1 if a status or a reason is not the expected one.

use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::get;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{Request, Response};
use http_body_util::Empty;
use serde_json::json;
use tokio::time::sleep;
use tower::{ServiceBuilder, ServiceExt};
use tower_m2m::testing::TestAuthority;
use tower_m2m::{
    AddServiceTokenLayer, DenyEntry, DenyList, EmbeddedCore, RemoteJwks, RequireClaimLayer,
    ServiceClaims, SuperTokensCore, Verifier, VerifyServiceTokenLayer,
};

use authority::Authority;
use compact_jws::with_signature_of;
use loopback::{HttpClient, client, serve};
use support::Stop;
use table::{Seen, Table, run_program};

#[path = "support/authority.rs"]
mod authority;
#[path = "support/compact_jws.rs"]
mod compact_jws;
#[path = "support/loopback.rs"]
mod loopback;
mod support;
#[path = "support/table.rs"]
mod table;

const USAGE: &str = "\
usage: demo

Runs an embedded core, M1 and the services `billing` and `orders`, which M1 calls, over loopback HTTP for about 8 s.
Prints what they answer to good, bad and forged tokens, to callers that a route or a deny list refuses, to new and
removed keys, and during an outage of the core.

  --help      print this help

environment:
  NO_COLOR    if set, no colours on a terminal
  RUST_LOG    what to log on stderr, for example debug or warn,tower_m2m=debug (nothing)";

/// The rotation interval of dynamic keys: short, so that the demo sees rotations. The default is
/// 168 h.
const ROTATE_EVERY: Duration = Duration::from_secs(1);

/// A replaced key stays listed for twice this time. The default is 1 h.
const TOKEN_VALIDITY: Duration = Duration::from_secs(2);

/// The longest freshness lifetime: a removed key may still be accepted for this long. The default
/// is 1 h.
const MAX_AGE: Duration = Duration::from_secs(1);

/// The period in which unknown keys may cause at most two fetches. The default is 10 s.
const COOLDOWN: Duration = Duration::from_millis(500);

#[tokio::main]
async fn main() -> ExitCode {
    run_program("demo", USAGE, "cases", run_cases).await
}

async fn run_cases(table: &mut Table) -> Result<(), Stop> {
    // The authority.
    table.wait("starting an embedded core, which generates its RSA keys")?;
    let builder =
        EmbeddedCore::builder().rotate_every(ROTATE_EVERY).access_token_validity(TOKEN_VALIDITY);
    let core = builder.build().await?;
    let mut authority = Authority::start(core).await?;
    let issuer = authority.url.clone();

    // M2: two called services. Each admits only tokens for itself.
    let jwks = || RemoteJwks::builder(format!("{issuer}/.well-known/jwks.json")).cooldown(COOLDOWN);
    let denied = DenyList::new();
    let admit = |audience, jwks| {
        let verifier = Verifier::new(jwks).issuer(&issuer).audience(audience);
        VerifyServiceTokenLayer::new(verifier.deny_list(denied.clone()))
    };
    let charge = get(|caller: ServiceClaims| async move { format!("{:?}", caller.service()) });
    let only_refunds = RequireClaimLayer::new("service", ["refunds"]);
    let keys = jwks().build()?;
    let billing = Router::new()
        .route("/charge", charge.clone())
        .route("/refund", charge.clone().layer(only_refunds))
        .route_layer(admit("billing", keys.clone()))
        // With a short freshness lifetime, so that the demo sees the removal of a key.
        .route("/removal", charge.clone().layer(admit("billing", jwks().max_age(MAX_AGE).build()?)))
        .route("/health", get(|| async { "ok" })); // without the layer: public
    let orders = Router::new().route("/charge", charge.layer(admit("orders", keys)));
    let (billing, orders) = (M2::serve(billing).await?, M2::serve(orders).await?);

    // M1, the calling service: one token for each service that it calls, minted at start-up.
    let request = SuperTokensCore::new(&issuer)?.service_token(&issuer).service("shop");
    let (for_billing, for_orders) = tokio::try_join!(
        request.clone().audience("billing").mint(),
        request.audience("orders").mint(),
    )?;
    let good = for_billing.header_value().to_str()?.trim_start_matches("Bearer ").to_owned();
    let m1 = ServiceBuilder::new()
        .layer(AddServiceTokenLayer::by_origin([
            (&billing.url, for_billing),
            (&orders.url, for_orders),
        ])?)
        .service(client());
    let call_by_m1 = async |m2: &M2, path| -> Result<Seen, Stop> {
        Ok(seen(&m1.clone().oneshot(m2.request(path, None)?).await?))
    };

    let user = authority.mint(json!({"sub": "user-1", "aud": "billing"}), true).await?;
    let expired = json!({"source": "microservice", "aud": "billing", "exp": 1_700_000_000});
    let expired = authority.mint(expired, true).await?;
    let forged = with_signature_of(&good, &user)?;
    // Good tokens in all but the key: M2 does not know this authority.
    let stranger = TestAuthority::offline().token().claim("iss", &*issuer).audience("billing");
    let unsigned = stranger.clone().alg_none().sign();
    let unknown = stranger.sign();

    table.head("case", "reason")?;
    let at_billing = call_by_m1(&billing, "/charge").await?;
    table.row("good token", 200, "M1 minted it at start-up", &at_billing)?;
    let at_orders = call_by_m1(&orders, "/charge").await?;
    table.row("good token at orders", 200, "M1 has one for each service", &at_orders)?;
    let (health, nowhere) =
        (billing.get("/health", None).await?, billing.get("/nowhere", None).await?);
    table.row("public route, no token", 200, "the route has no layer", &health)?;
    table.row("unknown path, no token", 404, "no such route", &nowhere)?;
    for (case, token, status, reason) in [
        ("no token", None, 401, "no credential"),
        ("garbage", Some("garbage"), 401, "the token is not a compact JWS"),
        (
            "user token: no source",
            Some(&*user),
            403,
            "the marker of a service is missing or not accepted",
        ),
        ("expired", Some(&*expired), 401, "the token has expired"),
        ("forged signature", Some(&*forged), 401, "the signature is not valid"),
        ("alg none", Some(&*unsigned), 401, "the algorithm is not supported"),
        ("unknown key", Some(&*unknown), 401, "the signing key is not known"),
    ] {
        table.row(case, status, reason, &billing.charge(token).await?)?;
    }

    let replayed = orders.charge(Some(&good)).await?;
    table.row("billing's token at orders", 401, "the token is for another audience", &replayed)?;
    let refund = call_by_m1(&billing, "/refund").await?;
    let reason = "a required claim is missing or not accepted";
    table.row("route for other callers", 403, reason, &refund)?;
    denied.replace([DenyEntry::claim("service", "shop")]);
    let while_denied = call_by_m1(&billing, "/charge").await?;
    table.row("caller on the deny list", 403, "caller denied", &while_denied)?;
    denied.replace([]);
    let lifted = call_by_m1(&billing, "/charge").await?;
    table.row("no longer on the list", 200, "effective on the next request", &lifted)?;

    table.wait("waiting until the core signs with its next key: about 1 s")?;
    let microservice = || json!({"source": "microservice", "aud": "billing"});
    let rotated = authority.mint_with_a_new_key(microservice()).await?;
    for (case, path) in [("key rotated in", "/charge"), ("key rotated in, /removal", "/removal")] {
        table.row(case, 200, "M2 knows the new key", &billing.get(path, Some(&rotated)).await?)?;
    }
    // The core listed the next key in advance, so M2 already has it. M2 has not fetched the key
    // after that one.
    table.wait("waiting until the core signs with a key that M2 has not fetched: about 2 s")?;
    authority.mint_with_a_new_key(microservice()).await?;
    let newest = authority.mint_with_a_new_key(microservice()).await?;

    authority.stop().await?;
    let known = call_by_m1(&billing, "/charge").await?;
    let unknown = billing.charge(Some(&newest)).await?;
    table.row("core down, known key", 200, "the fetched keys stay usable", &known)?;
    table.row("core down, unknown key", 503, "M2 cannot fetch the key", &unknown)?;

    authority.restart().await?;
    sleep(COOLDOWN).await;
    let known = billing.charge(Some(&newest)).await?;
    table.row("core back, the same token", 200, "M2 has fetched the key", &known)?;

    table.wait("waiting until the core no longer lists the first of these keys: a few seconds")?;
    authority.wait_until_unlisted(&rotated).await?;
    table.wait("waiting until M2 has fetched the keys again: 1 s")?;
    sleep(MAX_AGE).await;
    let removed = billing.get("/removal", Some(&rotated)).await?;
    table.row("key removed, /removal", 401, "the signing key is not known", &removed)
}

/// A called service, and a client of it that sends arbitrary tokens, without the client layer.
struct M2 {
    url: String,
    client: HttpClient,
}

impl M2 {
    async fn serve(app: Router) -> Result<Self, Stop> {
        Ok(Self { url: serve(app).await?, client: client() })
    }

    async fn charge(&self, token: Option<&str>) -> Result<Seen, Stop> {
        self.get("/charge", token).await
    }

    async fn get(&self, path: &str, token: Option<&str>) -> Result<Seen, Stop> {
        Ok(seen(&self.client.request(self.request(path, token)?).await?))
    }

    fn request(&self, path: &str, token: Option<&str>) -> Result<Request<Empty<Bytes>>, Stop> {
        let mut request = Request::get(format!("{}{path}", self.url));
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        Ok(request.body(Empty::new())?)
    }
}

fn seen<B>(response: &Response<B>) -> Seen {
    let challenge = response.headers().get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
    let description = challenge.and_then(|text| {
        let (_, description) = text.split_once("error_description=\"")?;
        Some(description.split_once('"')?.0.to_owned())
    });
    Seen { status: response.status().as_str().to_owned(), description }
}
