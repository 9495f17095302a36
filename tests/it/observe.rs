//! Observing layers: they refuse nothing, and record exactly what enforcing ones refuse.

use http::{Request, Response};
use tower::{Layer, ServiceExt};
use tower_m2m::VerifyServiceTokenLayer;

use crate::records::record;
use crate::support::{Inner, ResponseSummary};

/// Sends a request through the layer, then through the same layer with `observe`. Returns the
/// response of the first.
///
/// Asserts that the first calls the inner service or refuses the request, that the second always
/// calls it, without claims if the first refuses, and that both record the same.
pub(crate) async fn send_to_both(
    layer: &VerifyServiceTokenLayer,
    request: impl Fn() -> Request<()>,
) -> Response<String> {
    let send = async |layer: VerifyServiceTokenLayer| {
        let inner = Inner::default();
        let (response, record) = record(async |counters| {
            let response = layer.layer(inner.clone()).oneshot(request()).await.unwrap();
            // An observing layer records a token that has to wait after the response.
            counters.wait_for(1).await;
            response
        })
        .await;
        (response, inner.calls(), record)
    };
    let (enforced, calls, expected) = send(layer.clone()).await;
    let reason = ResponseSummary::of(&enforced).reason;
    assert_eq!(calls, usize::from(reason.is_none()));
    match reason {
        None => assert!(expected.refusals.is_empty()),
        Some(reason) => {
            let [event] = &*expected.refusals else { panic!("{expected:?}") };
            assert!(event.starts_with(&format!("reason={reason:?} enforced=true")), "{event}");
        }
    }
    let (observed, calls, record) = send(layer.clone().observe()).await;
    assert_eq!((observed.status().as_u16(), calls), (200, 1), "{reason:?}");
    assert_eq!(ResponseSummary::of(&observed).reason, None);
    let caller = if reason.is_none() { enforced.body().as_str() } else { "anonymous" };
    assert_eq!(observed.body(), caller, "{reason:?}");
    assert_eq!(record, expected.observed());
    enforced
}
