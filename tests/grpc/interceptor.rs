//! A generated client that takes an interceptor, but no layer.

use std::time::Duration;

use billing_service::pb::billing_client::BillingClient;
use tonic::service::Routes;
use tonic::{Code, Request};
use tower_m2m::testing::{TestAuthority, renewed};
use tower_m2m::{DenyEntry, DenyList, VerifyServiceTokenLayer};

use crate::support::{amount, billing, connect, serve_behind};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn interceptor_applies_the_token_that_is_current() {
    let authority = TestAuthority::start().await;
    let verify = VerifyServiceTokenLayer::new(authority.verifier());
    let channel = connect(serve_behind(verify, Routes::new(billing())).await);
    let request = authority.core().service_token(authority.issuer()).service("orders");
    let token = request.validity(HOUR).mint().await.unwrap();
    let interceptor = {
        let token = token.clone();
        move |mut request: Request<()>| {
            token.apply(request.metadata_mut().as_mut());
            assert!(format!("{request:?}").contains("Sensitive"));
            Ok(request)
        }
    };
    let mut client = BillingClient::with_interceptor(channel, interceptor);

    // A token fixed at the start has expired by the third call.
    for _ in 0..3 {
        let receipt = client.charge(amount(500)).await.unwrap().into_inner();
        assert_eq!(receipt.caller, "orders");
        let sent = token.header_value();
        authority.clock().advance(HOUR * 5 / 6);
        renewed(&token, &sent).await;
    }
}

#[tokio::test]
async fn reported_rejection_renews_an_intercepted_token() {
    let authority = TestAuthority::start().await;
    let denied = DenyList::new();
    let verify = VerifyServiceTokenLayer::new(authority.verifier().deny_list(denied.clone()));
    let channel = connect(serve_behind(verify, Routes::new(billing())).await);
    let token = authority.core().service_token(authority.issuer()).mint().await.unwrap();
    let applied = token.clone();
    let mut client = BillingClient::with_interceptor(channel, move |mut request: Request<()>| {
        applied.apply(request.metadata_mut().as_mut());
        Ok(request)
    });

    authority.clock().advance(Duration::from_secs(2)); // mints are a second apart
    denied.replace([DenyEntry::issued_before(authority.clock().now() - Duration::from_secs(1))]);
    let sent = token.header_value();
    let status = client.charge(amount(500)).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "token revoked"));
    assert_eq!(token.header_value(), sent, "not reported yet");
    token.report_rejected(&sent);
    renewed(&token, &sent).await;
    assert!(client.charge(amount(500)).await.is_ok());
}
