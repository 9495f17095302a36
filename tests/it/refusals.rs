//! What M2 logs about the requests that it refuses.

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::Request;
use http::header::HeaderName;
use serde_json::json;
use tower::{Layer, ServiceExt};
use tower_m2m::testing::{FakeCallerLayer, TestAuthority};
use tower_m2m::{
    Algorithm, Expected, ServiceClaims, TypedClaims, Verifier, VerifyServiceTokenLayer,
};

use crate::support::{Inner, Logs, bearer, request};

async fn send(layer: &VerifyServiceTokenLayer, requests: impl IntoIterator<Item = Request<()>>) {
    for request in requests {
        layer.layer(Inner::default()).oneshot(request).await.unwrap();
    }
}

/// The lines of one level, from the message on.
fn lines(logs: &Logs, level: &str) -> Vec<String> {
    let text = logs.text();
    let lines = text.lines().filter_map(|line| line.split_once(level));
    lines
        .filter_map(|(_, line)| line.split_once(" tower_m2m::server: "))
        .map(|(_, line)| line.to_owned())
        .collect()
}

#[tokio::test]
async fn summary_names_reason_and_expected_value() {
    let authority = TestAuthority::offline();
    let with = |change: fn(Verifier) -> Verifier| change(Verifier::new(authority.local_jwks()));
    let two = |verifier: Verifier| verifier.issuer("https://a").issuer("https://b");
    let token = |claims| bearer(&authority.token().without("iss").claims(claims).sign());
    let seconds = std::time::Duration::from_secs;
    let cases = [
        (
            with(two),
            token(json!({"iss": "https://c"})),
            r#"reason=WrongIssuer count=1 enforced=true expected="https://a, https://b" unverified="https://c""#,
        ),
        (
            with(two),
            token(json!({})),
            r#"reason=WrongIssuer count=1 enforced=true expected="https://a, https://b""#,
        ),
        (
            with(|verifier| verifier),
            token(json!({"iss": 7})),
            r#"reason=WrongIssuer count=1 enforced=true unverified="7""#,
        ),
        (
            with(|verifier| verifier.audience("billing")),
            token(json!({"aud": ["ledger", "orders"]})),
            r#"reason=WrongAudience count=1 enforced=true expected="billing" unverified="ledger, orders""#,
        ),
        (
            with(|verifier| verifier.subject("orders")),
            token(json!({"sub": "secret-subject"})),
            r#"reason=WrongSubject count=1 enforced=true expected="orders""#,
        ),
        (
            with(|verifier| verifier.algorithms([Algorithm::RS256, Algorithm::ES256])),
            token(json!({})),
            r#"reason=AlgorithmNotAllowed count=1 enforced=true expected="RS256, ES256""#,
        ),
        (
            Verifier::new(authority.local_jwks()).max_lifetime(seconds(60)),
            token(json!({})),
            r#"reason=LifetimeTooLong count=1 enforced=true expected="at most 60 s""#,
        ),
        (
            with(|verifier| verifier.max_token_len(8)),
            token(json!({})),
            r#"reason=TokenTooLong count=1 enforced=true expected="at most 8 bytes""#,
        ),
        (
            with(|verifier| verifier.marker("kind", 7)),
            token(json!({})),
            r#"reason=NotMicroservice count=1 enforced=true expected="kind: 7""#,
        ),
        (
            with(|verifier| verifier),
            bearer(&authority.token().unknown_key().sign()),
            "reason=UnknownKey count=1 enforced=true",
        ),
        (
            with(|verifier| verifier),
            request::<&str>(&[]),
            "reason=MissingCredentials count=1 enforced=true",
        ),
    ];
    for (verifier, request, fields) in cases {
        let logs = Logs::of_this_thread();
        send(&VerifyServiceTokenLayer::new(verifier), [request]).await;
        assert_eq!(lines(&logs, "WARN"), [format!("requests refused {fields}")]);
        let details = format!("request refused {}", fields.replace("count=1 ", ""));
        assert_eq!(lines(&logs, "DEBUG"), [details]);
        assert!(!logs.text().contains("secret-subject"));
    }
}

#[tokio::test]
async fn missing_credential_is_logged_with_its_header() {
    let authority = TestAuthority::offline();
    let layer = VerifyServiceTokenLayer::new(authority.verifier());
    for (header, expected) in [("authorization", ""), ("x-service", r#" expected="x-service""#)] {
        let logs = Logs::of_this_thread();
        let layer = layer.clone().header(HeaderName::from_static(header)).unwrap();
        let layer = layer.realm("billing").observe();
        for _ in 0..2 {
            send(&layer, [request::<&str>(&[])]).await;
        }
        let line = format!("request refused reason=MissingCredentials enforced=false{expected}");
        assert_eq!(lines(&logs, "DEBUG"), [&*line, &*line]);
    }
}

#[tokio::test]
async fn layers_of_one_verifier_share_the_summary() {
    let authority = TestAuthority::offline();
    let verifier = authority.verifier();
    let logs = Logs::of_this_thread();
    for _ in 0..3 {
        let layer = VerifyServiceTokenLayer::optional(verifier.clone());
        send(&layer, [bearer("garbage")]).await;
    }
    send(&VerifyServiceTokenLayer::new(verifier.audience("billing")), [bearer("garbage")]).await;
    assert_eq!(lines(&logs, "WARN").len(), 2, "another policy has a summary of its own");
}

#[tokio::test]
async fn admitted_request_is_not_logged() {
    let authority = TestAuthority::offline();
    let layer = VerifyServiceTokenLayer::optional(authority.verifier());
    let logs = Logs::of_this_thread();
    let tokens = [authority.token(), authority.token().without_marker()];
    let with_token = tokens.map(|token| bearer(&token.sign()));
    send(&layer, with_token.into_iter().chain([request::<&str>(&[])])).await;
    assert_eq!(logs.text(), "");
}

#[tokio::test]
async fn seen_value_is_escaped_and_cut_to_64_characters() {
    let authority = TestAuthority::offline();
    let cases = [
        (json!("x".repeat(65)), "x".repeat(64)),
        (json!("a\nWARN forged: é\u{202e}"), r"a\nWARN forged: \u{e9}\u{202e}".to_owned()),
        (json!("\u{1b}[31m\""), r#"\u{1b}[31m\""#.to_owned()),
        (json!({"a": ["b"]}), r#"{\"a\":[\"b\"]}"#.to_owned()),
        (json!(["a", 7]), r#"[\"a\",7]"#.to_owned()),
    ];
    for (aud, seen) in cases {
        let layer = VerifyServiceTokenLayer::new(authority.verifier().audience("billing"));
        let logs = Logs::of_this_thread();
        send(&layer, [bearer(&authority.token().claim("aud", aud).sign())]).await;
        // The subscriber escapes a second time.
        let expected = format!("unverified={seen:?}");
        let summaries = lines(&logs, "WARN");
        assert!(
            summaries.len() == 1 && summaries[0].ends_with(&expected),
            "{summaries:?} {expected}"
        );
    }
}

#[tokio::test]
async fn seen_value_is_read_from_the_configured_header() {
    let authority = TestAuthority::offline();
    let name = HeaderName::from_static("x-service");
    let layer = VerifyServiceTokenLayer::new(authority.verifier()).header(name).unwrap();
    let logs = Logs::of_this_thread();
    let token = authority.token().claim("iss", "b").sign();
    let request = Request::get("/").header("x-service", format!("Bearer {token}"));
    send(&layer, [request.body(()).unwrap()]).await;
    let values = format!(r#"expected="{}" unverified="b""#, authority.issuer());
    assert!(logs.text().contains(&values), "{}", logs.text());
    assert!(!logs.text().contains(&token));
}

#[tokio::test]
async fn extractor_logs_its_refusals() {
    let authority = TestAuthority::offline();
    let layer = VerifyServiceTokenLayer::optional(authority.verifier());
    let app = Router::new().route("/whoami", get(|_: ServiceClaims| async {})).route_layer(layer);
    let logs = Logs::of_this_thread();
    for _ in 0..3 {
        let request = bearer(&authority.token().without_marker().sign()).map(|()| Body::empty());
        assert_eq!(app.clone().oneshot(request).await.unwrap().status(), 403);
    }
    let fields =
        r#"reason=NotMicroservice count=1 enforced=true expected="source: \"microservice\"""#;
    assert_eq!(lines(&logs, "WARN"), [format!("requests refused {fields}")]);
    assert_eq!(lines(&logs, "DEBUG").len(), 3);
}

#[tokio::test]
async fn claims_of_another_type_are_logged_without_values() {
    let layer = FakeCallerLayer::new(json!({"service": "orders-7f3a"}));
    let app = Router::new().route("/", get(|_: TypedClaims<u64>| async {})).layer(layer);
    let logs = Logs::of_this_thread();
    assert_eq!(app.oneshot(Request::new(Body::empty())).await.unwrap().status(), 403);
    let events = [
        "service token claims do not fit type type=\"u64\"",
        "request refused reason=ClaimRefused enforced=true",
    ];
    assert_eq!(lines(&logs, "DEBUG"), events);
    assert!(!logs.text().contains("7f3a"), "{}", logs.text());
}

#[tokio::test]
async fn rules_are_logged_once_for_each_policy() {
    let authority = TestAuthority::offline();
    let verifier = authority.verifier().require_claim("orders", "service");
    let logs = Logs::of_this_thread();
    let layer = VerifyServiceTokenLayer::new(verifier.clone());
    drop((layer.clone().realm("billing"), VerifyServiceTokenLayer::optional(verifier.clone())));
    let rules = [
        r#"service token claim required path=source expected="microservice""#,
        // Swapped arguments show here.
        r#"service token claim required path=orders expected="service""#,
    ];
    assert_eq!(lines(&logs, "INFO"), rules);
    assert!(lines(&logs, "ERROR").is_empty());

    let logs = Logs::of_this_thread();
    drop(VerifyServiceTokenLayer::new(verifier.require_claim(["a", ""], 7)));
    let third = r#"service token claim required path=["a",""] expected=7"#;
    assert_eq!(lines(&logs, "INFO"), [rules[0], rules[1], third]);
}

#[tokio::test]
async fn flawed_rule_is_logged_as_an_error() {
    let none: [&str; 0] = [];
    let rule = "claim rule matches no token";
    let setting = "verifier setting matches no token";
    let base = TestAuthority::offline().verifier();
    let cases = [
        (
            base.clone().require_claim("service", none),
            format!(r#"{rule} path=service expected=[] flaw="the list is empty""#),
        ),
        (
            base.clone().require_claim("sub", Expected::prefix("a")),
            format!(
                r#"{rule} path=sub expected={{"prefix":"a"}} flaw="the prefix ends in a letter or digit""#
            ),
        ),
        (
            base.clone().marker("", 1),
            format!(r#"{rule} path= expected=1 flaw="the path is empty or has an empty name""#),
        ),
        (base.clone().audience(""), format!(r#"{setting} flaw="an accepted audience is empty""#)),
        (base.clone().issuer(""), format!(r#"{setting} flaw="an accepted issuer is empty""#)),
        (base.clone().subject(""), format!(r#"{setting} flaw="the accepted subject is empty""#)),
        (base.algorithms([]), format!(r#"{setting} flaw="the list of algorithms is empty""#)),
    ];
    for (verifier, error) in cases {
        let logs = Logs::of_this_thread();
        drop(VerifyServiceTokenLayer::new(verifier));
        assert_eq!(lines(&logs, "ERROR"), [error]);
    }
}
