//! Streaming calls through both layers.

use std::time::Duration;

use billing_service::pb::Receipt;
use billing_service::pb::billing_client::BillingClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Code, Status, Streaming};
use tower::Layer;
use tower::util::option_layer;
use tower_m2m::VerifyServiceTokenLayer;
use tower_m2m::testing::TestAuthority;

use crate::support::{amount, billing, bounded, connect, orders, serve_behind, token_layer};

fn receipt(cents: u64) -> Receipt {
    Receipt { cents, caller: "orders".to_owned() }
}

async fn read(mut receipts: Streaming<Receipt>) -> Result<Vec<Receipt>, Status> {
    let mut read = Vec::new();
    while let Some(receipt) = bounded(receipts.message()).await? {
        read.push(receipt);
    }
    Ok(read)
}

#[tokio::test]
async fn streams_in_each_direction_pass_both_layers() {
    let authority = TestAuthority::offline();
    let verify = VerifyServiceTokenLayer::new(authority.verifier());
    let channel = connect(serve_behind(verify, Routes::new(billing())).await);
    let mut client = BillingClient::new(token_layer(orders(&authority)).layer(channel));
    let amounts = || tokio_stream::iter([100, 200, 300].map(amount));

    let response = bounded(client.charge_in_parts(amount(501))).await.unwrap();
    assert_eq!(read(response.into_inner()).await.unwrap(), [250, 251].map(receipt));
    let response = bounded(client.charge_all(amounts())).await.unwrap();
    assert_eq!(response.into_inner(), receipt(600));
    let response = bounded(client.charge_each(amounts())).await.unwrap();
    assert_eq!(read(response.into_inner()).await.unwrap(), [100, 200, 300].map(receipt));
}

#[tokio::test]
async fn refused_stream_has_its_status_before_any_message() {
    let authority = TestAuthority::start().await;
    let token = || orders(&authority);
    let (good, without_keys) = (authority.verifier(), authority.verifier());
    let no_credential = (Code::Unauthenticated, "no credential");
    for (case, token, verifier, (code, message)) in [
        ("no token", None, &good, no_credential),
        ("forged", Some(token().forged()), &good, (Code::Unauthenticated, "signature")),
        ("unmarked", Some(token().without_marker()), &good, (Code::PermissionDenied, "marker")),
        ("no keys", Some(token()), &without_keys, (Code::Unavailable, "keys")),
    ] {
        if case == "no keys" {
            authority.answer_with(503);
        }
        let verify = VerifyServiceTokenLayer::new(verifier.clone());
        let channel = connect(serve_behind(verify, Routes::new(billing())).await);
        let client_layer = option_layer(token.map(token_layer));
        let mut client = BillingClient::new(client_layer.layer(channel));
        // The request streams stay open: the status does not wait for their end.
        let open = tokio_stream::pending;
        for (kind, outcome) in [
            ("server", bounded(client.charge_in_parts(amount(1))).await.err()),
            ("client", bounded(client.charge_all(open())).await.err()),
            ("both", bounded(client.charge_each(open())).await.err()),
        ] {
            let status = outcome.unwrap_or_else(|| panic!("{case}, {kind}: not refused"));
            assert_eq!(status.code(), code, "{case}, {kind}");
            assert!(status.message().contains(message), "{case}, {kind}: {status}");
        }
    }
}

#[tokio::test]
async fn open_stream_ends_with_its_token() {
    let authority = TestAuthority::offline();
    let verify = VerifyServiceTokenLayer::new(authority.verifier());
    let channel = connect(serve_behind(verify, Routes::new(billing())).await);
    let token = orders(&authority).validity(Duration::from_secs(3600));
    let mut client = BillingClient::new(token_layer(token).layer(channel));

    let (amounts, stream) = mpsc::channel(1);
    let call = bounded(client.charge_each(ReceiverStream::new(stream))).await;
    let mut receipts = call.unwrap().into_inner();
    for (cents, advance) in [(100, 0), (200, 3600)] {
        authority.clock().advance(Duration::from_secs(advance));
        amounts.send(amount(cents)).await.unwrap();
        assert_eq!(bounded(receipts.message()).await.unwrap(), Some(receipt(cents)));
    }
    authority.clock().advance(Duration::from_secs(30)); // the verifier's leeway
    let status = bounded(receipts.message()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "the token has expired"));
}
