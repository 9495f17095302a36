//! `RequestToken` in the extensions of a tonic request.

use billing_service::pb::billing_client::BillingClient;
use tonic::Code;
use tonic::service::Routes;
use tower::Layer;
use tower_m2m::testing::TestAuthority;
use tower_m2m::{RequestToken, ServiceToken, VerifyServiceTokenLayer};

use crate::support::{amount, billing, connect, orders, serve_behind, token_layer};

#[tokio::test]
async fn extension_of_a_tonic_request_selects_its_token() {
    let authority = TestAuthority::offline();
    let layer = VerifyServiceTokenLayer::new(authority.verifier());
    let url = serve_behind(layer, Routes::new(billing())).await;
    let channel = token_layer(orders(&authority)).layer(connect(url));
    let refunds = authority.token().claim("service", "refunds").sign();
    let refunds = ServiceToken::from_jwt(refunds).unwrap();
    // (the extension, the caller that the server sees)
    let cases = [
        (None, Ok("orders")),
        (Some(RequestToken::none()), Err(Code::Unauthenticated)),
        (Some(RequestToken::of(refunds)), Ok("refunds")),
    ];
    for (extension, expected) in cases {
        let mut request = tonic::Request::new(amount(500));
        if let Some(extension) = extension {
            request.extensions_mut().insert(extension);
        }
        let outcome = BillingClient::new(channel.clone()).charge(request).await;
        let caller = outcome.map(|response| response.into_inner().caller);
        let caller = caller.as_deref().map_err(tonic::Status::code);
        assert_eq!(caller, expected);
    }
}
