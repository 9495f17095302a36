//! M1 calls M2 with tonic, through both layers, over HTTP/2 on loopback.
//!
//! ```text
//! cargo run --example grpc
//! ```
//!
//! Prints a table of calls: the expected gRPC code, the code that M1 saw, and the message, or the
//! receipts and the caller that M2 saw. The exit code is 1 if a code or a message is not the expected
//! one.

use std::process::ExitCode;
use std::time::Duration;

use billing_service::pb::billing_client::BillingClient;
use billing_service::pb::billing_server::BillingServer;
use billing_service::pb::refunds_client::RefundsClient;
use billing_service::pb::refunds_server::RefundsServer;
use billing_service::pb::{Amount, Receipt};
use billing_service::{BillingService, RefundsService};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::LayerExt;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::server::health_reporter;
use tower::Layer;
use tower_m2m::testing::{TestAuthority, renewed};
use tower_m2m::{
    AddServiceToken, AddServiceTokenLayer, RequireClaimLayer, ServiceToken, Verifier,
    VerifyServiceTokenLayer,
};

use support::Stop;
use table::{Seen, Table, run_program};

#[path = "../../support/mod.rs"]
mod support;
#[path = "../../support/table.rs"]
mod table;

const USAGE: &str = "\
usage: grpc

Runs an authority, M2 with the services `Billing`, `Refunds` and `grpc.health`, and M1, over HTTP/2 on loopback, for
about 1 s. Prints what M1 sees of unary and streaming calls: with good and bad tokens, without keys, and with a token
that ends during a call.

  --help      print this help

environment:
  NO_COLOR    if set, no colours on a terminal
  RUST_LOG    what to log on stderr, for example debug or warn,tower_m2m=debug (nothing)";

const MINUTE: Duration = Duration::from_secs(60);

/// gRPC codes, as tonic spells them.
const OK: &str = "Ok";
const UNAUTHENTICATED: &str = "Unauthenticated";
const PERMISSION_DENIED: &str = "PermissionDenied";
const UNAVAILABLE: &str = "Unavailable";

#[tokio::main]
async fn main() -> ExitCode {
    run_program("grpc", USAGE, "calls", run_cases).await
}

async fn run_cases(table: &mut Table) -> Result<(), Stop> {
    table.wait("starting an authority, M2 and M1")?;
    let authority = TestAuthority::start().await;
    let m2 = serve(authority.verifier().audience("billing")).await?;

    // M1, the calling service. The layer of the channel serves all its clients.
    let request = authority.core().service_token(authority.issuer());
    let request = request.audience("billing").validity(60 * MINUTE);
    let token = request.clone().service("orders").mint().await?;
    let orders = AddServiceTokenLayer::new(token.clone()).layer(m2.clone());
    let refunds = request.service("refunds").mint().await?;
    let refunds = AddServiceTokenLayer::new(refunds).layer(m2.clone());

    table.widen(34, 16);
    table.head("call", "message, or the receipts and the caller that M2 saw")?;
    let mut client = BillingClient::new(orders.clone());
    let charged = seen(client.charge(Amount { cents: 500 }).await);
    table.row("Charge", OK, "orders: 500 cents", &charged)?;
    let charged = read(client.charge_in_parts(Amount { cents: 501 }).await).await;
    table.row("ChargeInParts", OK, "orders: 250, 251 cents", &charged)?;
    let charged = seen(client.charge_all(amounts([100, 200, 300])).await);
    table.row("ChargeAll", OK, "orders: 600 cents", &charged)?;
    let charged = read(client.charge_each(amounts([100, 200, 300])).await).await;
    table.row("ChargeEach", OK, "orders: 100, 200, 300 cents", &charged)?;

    let intercepted = charge_by_interceptor(m2.clone(), token.clone()).await;
    table.row("Charge, with an interceptor", OK, "orders: 500 cents", &intercepted)?;
    table.row(
        "Health/Check, no token",
        OK,
        "its service has no layer",
        &check(m2.clone()).await,
    )?;

    // A client without the layer, which sends arbitrary tokens.
    let mut without_layer = BillingClient::new(m2.clone());
    let good = || authority.token().claim("service", "orders").audience("billing");
    for (case, token, code, message) in [
        ("no token", None, UNAUTHENTICATED, "no credential"),
        ("forged", Some(good().forged()), UNAUTHENTICATED, "the signature is not valid"),
        ("expired", Some(good().expired()), UNAUTHENTICATED, "the token has expired"),
        (
            "without marker",
            Some(good().without_marker()),
            PERMISSION_DENIED,
            "the marker of a service is missing or not accepted",
        ),
        (
            "another audience",
            Some(good().wrong_audience()),
            UNAUTHENTICATED,
            "the token is for another audience",
        ),
    ] {
        let mut request = Request::new(Amount { cents: 500 });
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", token.bearer().to_str()?.parse()?);
        }
        let charged = seen(without_layer.charge(request).await);
        table.row(&format!("Charge, {case}"), code, message, &charged)?;
    }
    let refused = read(without_layer.charge_in_parts(Amount { cents: 500 }).await).await;
    table.row("ChargeInParts, no token", UNAUTHENTICATED, "no credential", &refused)?;
    let refused = read(without_layer.charge_each(amounts([100, 200])).await).await;
    table.row("ChargeEach, no token", UNAUTHENTICATED, "no credential", &refused)?;

    let refund = seen(RefundsClient::new(orders).refund(Amount { cents: 500 }).await);
    table.row(
        "Refund",
        PERMISSION_DENIED,
        "a required claim is missing or not accepted",
        &refund,
    )?;
    let refund = seen(RefundsClient::new(refunds).refund(Amount { cents: 500 }).await);
    table.row("Refund, by refunds", OK, "refunds: 500 cents", &refund)?;

    // Another M2, which starts while the key set cannot be fetched.
    authority.answer_with(503);
    let started = serve(authority.verifier().audience("billing")).await?;
    let mut without_keys =
        BillingClient::new(AddServiceTokenLayer::new(token.clone()).layer(started));
    let charged = seen(without_keys.charge(Amount { cents: 500 }).await);
    let message = "the verification keys are not loaded yet";
    table.row("Charge, M2 has no keys", UNAVAILABLE, message, &charged)?;
    authority.answer_with_keys();

    let ended = charge_until_token_ends(&authority, &token, &mut client).await?;
    let message = "orders: 100, 200 cents; then the token has expired";
    table.row("ChargeEach, the token ends", UNAUTHENTICATED, message, &ended)?;
    let charged = read(client.charge_each(amounts([300])).await).await;
    table.row("ChargeEach, with the next token", OK, "orders: 300 cents", &charged)
}

/// Starts M2. Each service has its own layers, so that `grpc.health` is public.
async fn serve(verifier: Verifier) -> Result<Channel, Stop> {
    let verify = VerifyServiceTokenLayer::new(verifier);
    let only_refunds = RequireClaimLayer::new("service", "refunds");
    let refunds = only_refunds.named_layer(RefundsServer::new(RefundsService));
    let (reporter, health) = health_reporter();
    reporter.set_serving::<BillingServer<BillingService>>().await;
    let server = Server::builder()
        .add_service(verify.named_layer(BillingServer::new(BillingService)))
        .add_service(verify.named_layer(refunds))
        .add_service(health);

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    Ok(Channel::from_shared(url)?.connect().await?)
}

/// For a client that takes an interceptor but no layer.
async fn charge_by_interceptor(m2: Channel, token: ServiceToken) -> Seen {
    let mut client = BillingClient::with_interceptor(m2, move |mut request: Request<()>| {
        token.apply(request.metadata_mut().as_mut());
        Ok(request)
    });
    seen(client.charge(Amount { cents: 500 }).await)
}

async fn check(m2: Channel) -> Seen {
    let service = "billing.Billing".to_owned();
    match HealthClient::new(m2).check(HealthCheckRequest { service }).await {
        Ok(response) => {
            let status = response.into_inner().status().as_str_name();
            ok((status != "SERVING").then(|| status.to_owned()))
        }
        Err(status) => refused(&status, ""),
    }
}

/// Sends amounts in one call while the clock of the authority passes the end of the call's token.
async fn charge_until_token_ends(
    authority: &TestAuthority,
    token: &ServiceToken,
    client: &mut BillingClient<AddServiceToken<Channel>>,
) -> Result<Seen, Stop> {
    let sent = token.header_value();
    let (amounts, stream) = mpsc::channel(1);
    let mut receipts = client.charge_each(ReceiverStream::new(stream)).await?.into_inner();
    let mut received = Vec::new();
    for cents in [100, 200] {
        amounts.send(Amount { cents }).await?;
        received.extend(receipts.message().await?);
    }
    // M1 renews its token 15 min before it ends. The call goes on with the old one.
    authority.clock().advance(50 * MINUTE);
    renewed(token, &sent).await;
    // Passes `exp` of the old token, plus the leeway of M2.
    authority.clock().advance(10 * MINUTE + Duration::from_secs(30));
    let before = format!("{}; then ", shown(&received));
    Ok(match receipts.message().await {
        Ok(receipt) => ok(receipt.map(|receipt| shown(&[receipt]))),
        Err(status) => refused(&status, &before),
    })
}

fn amounts<const N: usize>(cents: [u64; N]) -> impl tonic::IntoStreamingRequest<Message = Amount> {
    tokio_stream::iter(cents.map(|cents| Amount { cents }))
}

fn seen(result: Result<Response<Receipt>, Status>) -> Seen {
    match result {
        Ok(response) => ok(Some(shown(&[response.into_inner()]))),
        Err(status) => refused(&status, ""),
    }
}

/// Reads the receipts of a call to their end.
async fn read(result: Result<Response<Streaming<Receipt>>, Status>) -> Seen {
    let mut stream = match result {
        Ok(response) => response.into_inner(),
        Err(status) => return refused(&status, ""),
    };
    let mut received = Vec::new();
    loop {
        match stream.message().await {
            Ok(Some(receipt)) => received.push(receipt),
            Ok(None) => return ok(Some(shown(&received))),
            Err(status) => return refused(&status, &format!("{}; then ", shown(&received))),
        }
    }
}

fn shown(receipts: &[Receipt]) -> String {
    let cents: Vec<_> = receipts.iter().map(|receipt| receipt.cents.to_string()).collect();
    let caller = receipts.last().map_or("no receipt", |receipt| &receipt.caller);
    format!("{caller}: {} cents", cents.join(", "))
}

fn ok(description: Option<String>) -> Seen {
    Seen { status: OK.to_owned(), description }
}

/// `before` is what was received before the status.
fn refused(status: &Status, before: &str) -> Seen {
    let description = Some(format!("{before}{}", status.message()));
    Seen { status: format!("{:?}", status.code()), description }
}
