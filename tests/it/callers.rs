//! `RequireClaimLayer`: which callers reach a route, and how others are refused.

use std::fmt::Debug;
use std::future::poll_fn;
use std::task::Poll;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::routing::{get, post};
use http::header::{AUTHORIZATION, HeaderName};
use http::{Request, Response};
use serde_json::{Value, json};
use tower::limit::ConcurrencyLimit;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_m2m::testing::{FakeCallerLayer, TestAuthority, TokenBuilder};
use tower_m2m::{
    Expected, Rejection, RejectionReason as R, RequireClaimLayer, VerifyServiceTokenLayer,
};
use tower_test::mock;

use crate::records::{Record, record};
use crate::support::{Inner, Logs, ResponseSummary, as_grpc, bearer, header, request};

const CLAIM_REFUSED: &str = r#"error="insufficient_scope", error_description="a required claim is missing or not accepted""#;

fn only_orders() -> RequireClaimLayer {
    RequireClaimLayer::new("service", "orders")
}

/// A request with the token of this service.
fn by(authority: &TestAuthority, service: &str) -> Request<()> {
    bearer(&authority.token().claim("service", service).sign())
}

#[tokio::test]
async fn each_route_has_its_own_callers() {
    let authority = TestAuthority::offline();
    let rates = post(|| async {}).layer(RequireClaimLayer::new("scope", Expected::scope("rates")));
    let admin = Router::new()
        .route("/rates", rates)
        .route("/users", get(|| async {}))
        .route_layer(RequireClaimLayer::new("service", "console"));
    let app = Router::new()
        .route(
            "/charge",
            post(|| async {}).layer(RequireClaimLayer::new("service", ["orders", "refunds"])),
        )
        .route("/balance", get(|| async {}))
        .route(
            "/shop",
            get(|| async {}).layer(RequireClaimLayer::new(["kubernetes.io", "namespace"], "shop")),
        )
        .nest("/admin", admin)
        .route_layer(VerifyServiceTokenLayer::new(authority.verifier()))
        .route("/health", get(|| async {}));
    let orders = json!({"service": "orders"});
    let refunds = json!({"service": "refunds", "kubernetes.io": {"namespace": "shop"}});
    let console = json!({"service": "console", "scope": "users"});
    let root = json!({"service": "console", "scope": "users rates"});
    let rated = json!({"service": "orders", "scope": "rates"});
    let list = json!({"service": ["orders"], "kubernetes.io": "shop"});
    let callers = [orders, refunds, console, root, rated, list, json!({})];
    // (method, path, the status for each caller)
    let cases = [
        ("POST", "/charge", [200, 200, 403, 403, 200, 403, 403]),
        ("GET", "/balance", [200; 7]),
        ("GET", "/shop", [403, 200, 403, 403, 403, 403, 403]),
        ("GET", "/admin/users", [403, 403, 200, 200, 403, 403, 403]),
        // Both layers apply.
        ("POST", "/admin/rates", [403, 403, 403, 200, 403, 403, 403]),
        // Added after the layer.
        ("GET", "/health", [200; 7]),
    ];
    let tokens = callers.map(|claims: Value| {
        let token = authority.token().claims(claims.clone());
        (claims, token.bearer())
    });
    // The second round has cached tokens.
    for _ in 0..2 {
        for (method, path, statuses) in cases {
            let request = || Request::builder().method(method).uri(path);
            let send = async |request: http::request::Builder| {
                let request = request.body(Body::empty()).unwrap();
                app.clone().oneshot(request).await.unwrap().status().as_u16()
            };
            for ((claims, token), status) in tokens.iter().zip(statuses) {
                let seen = send(request().header(AUTHORIZATION, token)).await;
                assert_eq!(seen, status, "{path} {claims}");
            }
            let anonymous = if path == "/health" { 200 } else { 401 };
            assert_eq!(send(request()).await, anonymous, "{path}");
        }
    }
}

#[tokio::test]
async fn refusal_is_that_of_the_layer_in_front() {
    let authority = TestAuthority::offline();
    let billing = VerifyServiceTokenLayer::new(authority.verifier()).realm("billing");
    let refused = || by(&authority, "mail");
    let challenge = format!(r#"Bearer realm="billing", {CLAIM_REFUSED}"#);
    let cases = [
        ("HTTP", billing.clone(), refused(), (403, Some(challenge.clone()), None)),
        ("gRPC", billing.clone(), as_grpc(refused()), (200, None, Some("7"))),
        (
            "gRPC with HTTP responses",
            billing.http_answers(),
            as_grpc(refused()),
            (403, Some(challenge), None),
        ),
        (
            "the default realm",
            VerifyServiceTokenLayer::optional(authority.verifier()),
            refused(),
            (403, Some(format!(r#"Bearer realm="m2m", {CLAIM_REFUSED}"#)), None),
        ),
    ];
    for (case, layer, request, (status, challenge, grpc_status)) in cases {
        let inner = Inner::default();
        let service = layer.layer(only_orders().layer(inner.clone()));
        let response = service.oneshot(request).await.unwrap();
        let expected =
            ResponseSummary { status, challenge, retry_after: None, reason: Some(R::ClaimRefused) };
        assert_eq!(ResponseSummary::of(&response), expected, "{case}");
        let seen = header(response.headers(), "grpc-status");
        assert_eq!(seen.as_deref(), grpc_status, "{case}");
        assert_eq!(response.extensions().get(), Some(&Rejection::from(R::ClaimRefused)), "{case}");
        assert_eq!((response.body().as_str(), inner.calls()), ("", 0), "{case}");
    }
}

#[tokio::test]
async fn refusal_is_logged_and_counted_once() {
    let authority = TestAuthority::offline();
    let verifier = authority.verifier().require_claim("sub", "m1");
    let token = || authority.token().subject("m1");
    let service = VerifyServiceTokenLayer::new(verifier)
        .layer(RequireClaimLayer::new("service", ["orders", "refunds"]).layer(Inner::default()));
    let http = bearer(&token().claim("service", "mail").sign());
    let (_, seen) = record(async |_| {
        for request in [http.clone(), as_grpc(http.clone()), bearer(&token().sign())] {
            service.clone().oneshot(request).await.unwrap();
        }
    })
    .await;
    // Not the rules of the verifier.
    let fields =
        r#"reason=ClaimRefused enforced=true expected="service: [\"orders\",\"refunds\"]""#;
    let expected = Record {
        refusals: vec![fields.to_owned(); 3],
        counts: [
            ("outcome=admitted reason=none protocol=grpc enforced=true", 1),
            ("outcome=admitted reason=none protocol=http enforced=true", 2),
            ("outcome=refused reason=claim_refused protocol=grpc enforced=true", 1),
            ("outcome=refused reason=claim_refused protocol=http enforced=true", 2),
        ]
        .map(|(labels, count)| (labels.to_owned(), count))
        .into(),
    };
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn request_without_claims_gets_the_recorded_reason() {
    let authority = TestAuthority::offline();
    let layer = VerifyServiceTokenLayer::optional(authority.verifier()).realm("billing");
    let service = layer.layer(only_orders().layer(Inner::default()));
    let no_error = || Some(r#"Bearer realm="billing""#.to_owned());
    let no_marker = r#"Bearer realm="billing", error="insufficient_scope", error_description="the marker of a service is missing or not accepted""#;
    let user = || bearer(&authority.token().without_marker().claim("service", "orders").sign());
    let cases = [
        (request::<&str>(&[]), 401, no_error(), R::MissingCredentials),
        (request(&["Basic dTpw"]), 401, no_error(), R::UnsupportedScheme),
        (user(), 403, Some(no_marker.to_owned()), R::NotMicroservice),
    ];
    for (request, status, challenge, reason) in cases {
        let (response, seen) =
            record(async |_| service.clone().oneshot(request).await.unwrap()).await;
        let expected =
            ResponseSummary { status, challenge, retry_after: None, reason: Some(reason) };
        assert_eq!(ResponseSummary::of(&response), expected);
        assert_eq!(seen.refusals.len(), 1, "{seen:?}");
        assert!(seen.refusals[0].starts_with(&format!("reason={reason:?} ")), "{seen:?}");
        let outcomes: Vec<_> = seen.counts.iter().map(|(labels, n)| (&labels[..15], *n)).collect();
        assert_eq!(outcomes, [("outcome=anonymo", 1), ("outcome=refused", 1)]);
    }
    let response = service.clone().oneshot(as_grpc(user())).await.unwrap();
    assert_eq!(header(response.headers(), "grpc-status").as_deref(), Some("7"));
    assert_eq!(service.oneshot(by(&authority, "orders")).await.unwrap().body(), "orders");
}

#[tokio::test]
async fn missing_layer_is_status_500_and_an_error() {
    let inner = Inner::default();
    let service = only_orders().layer(inner.clone());
    let logs = Logs::of_this_thread();
    let requests = [
        request::<&str>(&[]),
        by(&TestAuthority::offline(), "orders"),
        as_grpc(request::<&str>(&[])),
    ];
    for request in requests {
        let response = service.clone().oneshot(request).await.unwrap();
        let expected =
            ResponseSummary { status: 500, challenge: None, retry_after: None, reason: None };
        assert_eq!(ResponseSummary::of(&response), expected);
        assert_eq!(header(response.headers(), "grpc-status"), None);
    }
    assert_eq!(inner.calls(), 0);
    let text = logs.text();
    assert_eq!(text.matches("ERROR").count(), 3, "{text}");
    assert_eq!(
        text.matches("RequireClaimLayer without VerifyServiceTokenLayer around it").count(),
        3
    );

    // A layer inside it comes too late.
    let authority = TestAuthority::offline();
    let too_late = only_orders()
        .layer(VerifyServiceTokenLayer::new(authority.verifier()).layer(inner.clone()));
    assert_eq!(too_late.oneshot(by(&authority, "orders")).await.unwrap().status(), 500);
    assert_eq!(inner.calls(), 0);
}

#[tokio::test]
async fn innermost_of_nested_layers_decides() {
    let (outer, inner) = (TestAuthority::offline(), TestAuthority::offline());
    let name = HeaderName::from_static("x-outer");
    let service = ServiceBuilder::new()
        .layer(
            VerifyServiceTokenLayer::new(outer.verifier())
                .header(name.clone())
                .unwrap()
                .realm("outer"),
        )
        .layer(RequireClaimLayer::new("service", "gateway"))
        .layer(VerifyServiceTokenLayer::optional(inner.verifier()).realm("inner"))
        .layer(only_orders())
        .service(Inner::default());
    let token = |authority: &TestAuthority, service| authority.token().claim("service", service);
    let orders = || Some(token(&inner, "orders"));
    // (outer token, inner token, status, realm)
    let cases: [(TokenBuilder, Option<TokenBuilder>, u16, &str); 5] = [
        (token(&outer, "gateway"), orders(), 200, ""),
        (token(&outer, "orders"), orders(), 403, "outer"),
        (token(&outer, "gateway"), Some(token(&inner, "gateway")), 403, "inner"),
        (token(&outer, "gateway"), None, 401, "inner"),
        (token(&outer, "gateway").expired(), orders(), 401, "outer"),
    ];
    for (case, (outer, inner, status, realm)) in cases.into_iter().enumerate() {
        let mut request = inner.map_or_else(|| request::<&str>(&[]), |token| bearer(&token.sign()));
        request.headers_mut().insert(&name, outer.bearer());
        let response = service.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), status, "case {case}");
        let challenge = ResponseSummary::of(&response).challenge.unwrap_or_default();
        assert_eq!(challenge.split('"').nth(1).unwrap_or_default(), realm, "case {case}");
    }
}

#[tokio::test]
async fn claims_of_several_callers_are_judged_apart() {
    let authority = TestAuthority::offline();
    let layer = VerifyServiceTokenLayer::new(authority.verifier());
    let rules = ["orders", "refunds", "mail"].map(|service| {
        (service, layer.layer(RequireClaimLayer::new("service", service).layer(Inner::default())))
    });
    let callers = ["orders", "refunds", "mail"].map(|caller| (caller, by(&authority, caller)));
    // Each caller meets each rule after each other caller and rule, with cached tokens.
    for _ in 0..3 {
        for (required, service) in &rules {
            for (caller, request) in &callers {
                for _ in 0..2 {
                    let response = service.clone().oneshot(request.clone()).await.unwrap();
                    let expected = if caller == required { 200 } else { 403 };
                    assert_eq!(response.status(), expected, "{caller} at {required}");
                }
            }
        }
    }
}

#[tokio::test]
async fn rule_is_logged_once_and_a_flawed_one_refuses_all() {
    let authority = TestAuthority::offline();
    let verify = VerifyServiceTokenLayer::new(authority.verifier());
    let info = "service token claim required";
    let error = "claim rule matches no token";
    // (layer, fields of the rule, its flaw)
    let cases: [(fn() -> RequireClaimLayer, _, _); 5] = [
        (only_orders, r#"path=service expected="orders""#, None),
        // Swapped arguments show here.
        (|| RequireClaimLayer::new("orders", "service"), r#"path=orders expected="service""#, None),
        (
            || RequireClaimLayer::new("service", [""; 0]),
            "path=service expected=[]",
            Some("the list is empty"),
        ),
        (
            || RequireClaimLayer::new("", "orders"),
            r#"path= expected="orders""#,
            Some("the path is empty or has an empty name"),
        ),
        (
            || RequireClaimLayer::new("service", Expected::prefix("")),
            r#"path=service expected={"prefix":""}"#,
            Some("the prefix is empty"),
        ),
    ];
    for (layer, fields, flaw) in cases {
        let logs = Logs::of_this_thread();
        let layer = layer();
        let services = [(); 2].map(|()| verify.layer(layer.clone().layer(Inner::default())));
        let text = logs.text();
        let lines: Vec<_> =
            text.lines().filter_map(|line| line.split_once("tower_m2m::server: ")).collect();
        let expected: Vec<_> = [Some(format!("{info} {fields}"))]
            .into_iter()
            .chain([flaw.map(|flaw| format!("{error} {fields} flaw={flaw:?}"))])
            .flatten()
            .collect();
        assert_eq!(lines.iter().map(|(_, line)| *line).collect::<Vec<_>>(), expected);
        if flaw.is_some() {
            let [service, _] = services;
            let response = service.oneshot(by(&authority, "orders")).await.unwrap();
            assert_eq!(response.status(), 403, "{fields}");
        }
    }
}

#[tokio::test]
async fn fake_caller_meets_a_rule_or_not() {
    let routes = Router::new().route("/", get(|| async { "in" })).layer(only_orders());
    let cases = [
        (FakeCallerLayer::new(json!({"service": "orders"})), 200, "in"),
        (FakeCallerLayer::new(json!({"service": "mail"})), 403, ""),
        (FakeCallerLayer::anonymous(), 401, ""),
    ];
    for (layer, status, body) in cases {
        let app = routes.clone().layer(layer);
        let response = app.oneshot(Request::new(Body::empty())).await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(to_bytes(response.into_body(), 64).await.unwrap(), body);
    }
}

#[tokio::test]
async fn readied_service_is_called_or_released() {
    let fake = |service| FakeCallerLayer::new(json!({"service": service}));
    // `ConcurrencyLimit::call` panics unless this clone was polled ready.
    let limited = ConcurrencyLimit::new(Inner::default(), 1);
    let mut admitted = fake("orders").layer(only_orders().layer(limited.clone()));
    let mut refused = fake("mail").layer(only_orders().layer(limited));
    for _ in 0..3 {
        let response = admitted.ready().await.unwrap().call(Request::new(())).await.unwrap();
        assert_eq!(response.body(), "orders");
        let response = refused.ready().await.unwrap().call(Request::new(())).await.unwrap();
        assert_eq!(response.status(), 403);
        // The refused request has released its permit.
        let ready =
            poll_fn(|cx| Poll::Ready(Service::<Request<()>>::poll_ready(&mut admitted, cx))).await;
        assert!(matches!(ready, Poll::Ready(Ok(()))));
    }
}

#[tokio::test]
async fn poll_ready_only_forwards() {
    let (mut service, mut handle) =
        mock::spawn_layer::<Request<()>, Response<()>, _>(only_orders());
    handle.allow(0);
    assert!(service.poll_ready().is_pending());
    handle.allow(1);
    assert!(service.is_woken());
    assert!(matches!(service.poll_ready(), Poll::Ready(Ok(()))));
    let (mut service, mut handle) =
        mock::spawn_layer::<Request<()>, Response<()>, _>(only_orders());
    handle.send_error("broken");
    match service.poll_ready() {
        Poll::Ready(Err(error)) => assert_eq!(error.to_string(), "broken"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn inner_responses_and_errors_pass_through() {
    let fake = FakeCallerLayer::new(json!({"service": "orders"}));
    let failing = service_fn(|_: Request<()>| async { Err::<Response<()>, _>("broken") });
    let service = fake.layer(only_orders().layer(failing));
    assert_eq!(service.oneshot(Request::new(())).await.unwrap_err(), "broken");
    let odd = service_fn(|request: Request<()>| async move {
        assert_eq!(request.uri(), "/odd");
        Ok::<_, &str>(Response::builder().status(418).body("teapot").unwrap())
    });
    let request = Request::get("/odd").body(()).unwrap();
    let response = fake.layer(only_orders().layer(odd)).oneshot(request).await.unwrap();
    assert_eq!((response.status().as_u16(), *response.body()), (418, "teapot"));
}

#[test]
fn layer_service_and_future_are_debug_and_send() {
    fn check<T: Clone + Debug + Send + Sync + 'static>(value: T) -> T {
        value
    }
    fn send<F: Future + Send + Debug>(_: F) {}

    let layer = check(only_orders());
    let mut service = check(layer.layer(Inner::default()));
    assert!(format!("{service:?} {layer:?}").contains(r#"service: "orders""#));
    send(service.call(request::<&str>(&[])));
}
