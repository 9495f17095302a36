//! Uses each part of the crate that records a metric, as M1 and M2 do.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{Request, Response, Version};
use tokio::runtime::Builder;
use tower::{Layer, ServiceExt, service_fn};

use super::recorder::Seen;
use crate::testing::{TestAuthority, renewed};
use crate::verify::SignatureLimit;
use crate::{
    AddServiceTokenLayer, DenyEntry, DenyList, RequireClaimLayer, ServiceToken,
    VerifyServiceTokenLayer,
};

/// Records into `seen`. One thread, so that background tasks use the same recorder.
pub(super) fn drive(seen: &Seen) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    metrics::with_local_recorder(seen, || {
        runtime.block_on(async {
            let authority = TestAuthority::start().await;
            requests(&authority).await;
            fetches(&authority).await;
            queue().await;
            deny_list().await;
            mints(&authority).await;
        });
    });
}

/// Requests with each outcome, over both protocols, to enforcing and observing layers.
async fn requests(authority: &TestAuthority) {
    let layer = VerifyServiceTokenLayer::new(authority.verifier());
    let good = authority.token().sign();
    let tokens =
        [&*good, &good, &authority.token().expired().sign(), &authority.token().forged().sign()];
    for token in tokens {
        send(&layer, Some(token), false).await;
        send(&layer.clone().observe(), Some(token), true).await;
    }
    send(&layer, None, true).await;
    let optional = VerifyServiceTokenLayer::optional(authority.verifier());
    send(&optional, None, false).await;
    send(&optional, Some(&authority.token().without_marker().sign()), false).await;
}

async fn send(layer: &VerifyServiceTokenLayer, token: Option<&str>, is_grpc: bool) {
    let mut request = Request::post("/charge");
    if is_grpc {
        request = request.version(Version::HTTP_2).header(CONTENT_TYPE, "application/grpc");
    }
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    let inner = service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(())) });
    let service = layer.layer(RequireClaimLayer::new("iss", "https://authority.test").layer(inner));
    service.oneshot(request.body(()).unwrap()).await.unwrap();
}

/// Fetches that succeed and fail, that requests wait for, and that the limit prevents.
async fn fetches(authority: &TestAuthority) {
    let jwks = authority.jwks_builder().cooldown(Duration::from_secs(10)).build().unwrap();
    let verifier = authority.verifier_with(jwks.clone());
    jwks.ready().await.unwrap();
    // The limit allows two fetches.
    for number in 0..3 {
        let token = authority.token().kid(format!("unknown-{number}")).sign();
        verifier.verify(&token).await.unwrap_err();
    }
    authority.rotate();
    jwks.refresh().await.unwrap();
    authority.withdraw();
    jwks.refresh().await.unwrap();
    authority.answer_with(500);
    jwks.refresh().await.unwrap_err();
    authority.answer_with_text("{}");
    jwks.refresh().await.unwrap_err();
    authority.answer_with_keys();
}

/// More tokens than the queue for signature checks has room for.
async fn queue() {
    let authority = TestAuthority::offline();
    let limit = Arc::new(SignatureLimit::new(1, 1));
    let verifier = authority.verifier().with_signature_limit(Arc::clone(&limit));
    let permit = limit.try_acquire().unwrap();
    let token = authority.token().sign();
    let mut waiting: Vec<_> = (0..1026).map(|_| Box::pin(verifier.verify(&token))).collect();
    let mut cx = Context::from_waker(Waker::noop());
    let rejected = waiting.iter_mut().filter_map(|verify| {
        matches!(verify.as_mut().poll(&mut cx), Poll::Ready(Err(_))).then_some(())
    });
    assert!(rejected.count() > 0);
    drop((waiting, permit));
}

async fn deny_list() {
    let authority = TestAuthority::offline();
    let list = DenyList::new();
    list.replace([DenyEntry::claim("jti", "leaked"), DenyEntry::claim("service", "orders")]);
    let verifier = authority.verifier().deny_list(list.clone());
    for (claim, value) in [("jti", "leaked"), ("service", "orders")] {
        verifier.verify(&authority.token().claim(claim, value).sign()).await.unwrap_err();
    }
    // Updates the age.
    assert!(list.health().age.is_some_and(|age| !age.is_zero()));
}

/// Mints that succeed and fail, a renewal after a rejection, and tokens for targets and others.
async fn mints(authority: &TestAuthority) {
    let token = authority
        .core()
        .service_token(authority.issuer())
        .audience("billing")
        .validity(Duration::from_secs(3600))
        .mint()
        .await
        .unwrap();
    let billing = "https://billing.internal";
    let only_billing = AddServiceTokenLayer::new(token.clone()).only_to([billing]).unwrap();
    let sent = token.header_value();
    for layer in [only_billing, AddServiceTokenLayer::new(token.clone())] {
        let rejecting = service_fn(|_: Request<()>| async {
            let response = Response::builder().status(401);
            let challenge = r#"Bearer error="invalid_token""#;
            Ok::<_, Infallible>(response.header(WWW_AUTHENTICATE, challenge).body(()).unwrap())
        });
        let request = Request::get(format!("{billing}/charge")).body(()).unwrap();
        layer.layer(rejecting).oneshot(request).await.unwrap();
    }
    let renewed_value = renewed(&token, &sent).await;
    authority.clock().advance(Duration::from_secs(50 * 60));
    renewed(&token, &renewed_value).await;

    let missing = authority.core_at(format!("{}/missing", authority.core_url()));
    let request = missing.start_up_timeout(Duration::ZERO).service_token(authority.issuer());
    request.mint().await.unwrap_err();
    ServiceToken::from_jwt(authority.token().audience("inventory").sign()).unwrap();
}
