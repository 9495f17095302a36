//! The fields that the verify layer records in the span of the service.

use http::{Request, Response};
use tower::{Layer, ServiceExt, service_fn};
use tower_m2m::testing::TestAuthority;
use tower_m2m::{RequireClaimLayer, VerifyServiceTokenLayer};
use tracing::field::Empty;
use tracing::{Instrument, Span, info_span};

use crate::support::Logs;

type MakeSpan = fn() -> Span;

/// The fields of the span after a request with this token.
async fn fields(layer: &VerifyServiceTokenLayer, token: Option<&str>, span: MakeSpan) -> String {
    let logs = Logs::of_this_thread();
    let span = span();
    let inner = service_fn(|_: Request<()>| async { Ok::<_, std::io::Error>(Response::new(())) });
    let service = layer.layer(RequireClaimLayer::new("service", ["orders", "a\nb"]).layer(inner));
    let mut request = Request::get("/charge");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    service.oneshot(request.body(()).unwrap()).instrument(span.clone()).await.unwrap();
    span.in_scope(|| tracing::info!("end of the request"));
    let text = logs.text();
    let line = text.lines().find(|line| line.ends_with("end of the request")).expect(&text);
    let start = line.split_once("request{").map_or("", |(_, fields)| fields);
    start.split_once("}:").map_or("", |(fields, _)| fields).to_owned()
}

fn declaring_all() -> Span {
    info_span!(
        "request",
        auth.outcome = Empty,
        auth.reason = Empty,
        auth.enforced = Empty,
        m2m.caller = Empty
    )
}

fn declaring_one() -> Span {
    info_span!("request", auth.reason = Empty, path = "/charge")
}

#[tokio::test]
async fn outcome_is_recorded_in_fields_that_the_span_declares() {
    let authority = TestAuthority::offline();
    let named = |service: &str| authority.token().claim("service", service).sign();
    let (orders, lines, web) = (named("orders"), named("a\nb"), named("web"));
    let expired = authority.token().expired().sign();
    let enforcing = VerifyServiceTokenLayer::new(authority.verifier());
    let observing = enforcing.clone().observe();
    let optional = VerifyServiceTokenLayer::optional(authority.verifier());
    let admitted = r#"auth.outcome="admitted" auth.enforced=true m2m.caller="#;
    let refused = r#"auth.outcome="refused" auth.enforced="#;
    let rows: [(_, _, _, MakeSpan, String); 7] = [
        ("good", &enforcing, Some(&*orders), declaring_all, format!("{admitted}\"orders\"")),
        ("escaped", &enforcing, Some(&lines), declaring_all, format!("{admitted}\"a\\\\nb\"")),
        (
            "claim",
            &enforcing,
            Some(&web),
            declaring_all,
            format!("{admitted}\"web\" {refused}true auth.reason=ClaimRefused"),
        ),
        (
            "expired",
            &enforcing,
            Some(&expired),
            declaring_all,
            format!("{refused}true auth.reason=Expired"),
        ),
        (
            // A token may have to wait for its signature check, and is then not recorded.
            "observed",
            &observing,
            None,
            declaring_all,
            format!("{refused}false auth.reason=MissingCredentials"),
        ),
        (
            "anonymous",
            &optional,
            None,
            declaring_all,
            format!(
                "auth.outcome=\"anonymous\" auth.enforced=true auth.reason=MissingCredentials \
                 {refused}true auth.reason=MissingCredentials"
            ),
        ),
        (
            "one field",
            &enforcing,
            None,
            declaring_one,
            "path=\"/charge\" auth.reason=MissingCredentials".to_owned(),
        ),
    ];
    for (name, layer, token, span, expected) in rows {
        assert_eq!(fields(layer, token, span).await, expected, "{name}");
    }
}
