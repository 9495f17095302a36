//! Minting over real sockets against the embedded core, and against cores that cannot be reached.

use std::collections::HashSet;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};
use tower_m2m::testing::TestAuthority;
use tower_m2m::{ConfigError, EmbeddedCore, MintError, SuperTokensCore};

use crate::manual_clock::ManualClock;
use crate::scripted::{ScriptedCore, good, mint_in_steps};
use crate::support::{DeadPort, ISSUER, Logs, UnusedListener, chain, decode, serve};

const API_KEY: &str = "key-7f3a-0123456789abcdef";
const CENTURY: u64 = 3_153_600_000;

fn core_at(url: &str) -> SuperTokensCore {
    SuperTokensCore::new(url).unwrap()
}

#[tokio::test]
async fn router_warns_once_about_a_core_without_api_key() {
    let logs = Logs::of_this_thread();
    let warnings = || logs.text().matches("any caller can mint").count();
    for (core, expected) in [
        (EmbeddedCore::builder().build().await.unwrap(), 1),
        (EmbeddedCore::builder().build().await.unwrap(), 2),
        (EmbeddedCore::builder().api_key(API_KEY).build().await.unwrap(), 2),
    ] {
        for _ in 0..2 {
            let _router = core.router();
            let _router = core.clone().router();
        }
        assert_eq!(warnings(), expected, "{core:?}");
    }
}

#[tokio::test]
async fn minted_token_has_the_requested_claims() {
    let authority = TestAuthority::start().await;
    let before = authority.clock().now();
    let token = authority
        .core()
        .service_token(authority.issuer())
        .service("orders")
        .claim("limits", json!({"per_day": 3}))
        .audience("billing")
        .subject("m1")
        .mint()
        .await
        .unwrap();

    let value = token.header_value();
    let jwt = value.to_str().unwrap().strip_prefix("Bearer ").unwrap();
    assert!(value.is_sensitive());
    let (header, claims) = (decode(jwt, 0), decode(jwt, 1));
    assert_eq!(header["alg"], "RS256");
    assert!(
        header["kid"].as_str().unwrap().starts_with("s-"),
        "not signed with the static key: {header}"
    );
    let expected = [
        ("iss", json!(authority.issuer())),
        ("aud", json!("billing")),
        ("sub", json!("m1")),
        ("source", json!("microservice")),
        ("service", json!("orders")),
        ("limits", json!({"per_day": 3})),
    ];
    for (name, value) in expected {
        assert_eq!(claims[name], value, "{name}");
    }
    assert!(claims["jti"].is_string());
    assert_eq!(claims.as_object().unwrap().len(), 9, "unexpected number of claims: {claims}");
    let (iat, exp) = (claims["iat"].as_u64().unwrap(), claims["exp"].as_u64().unwrap());
    assert_eq!(exp - iat, CENTURY);
    let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
    assert!(before < at(iat + 1) && at(iat) <= authority.clock().now());
    assert_eq!(token.expires_at(), Some(at(exp)));

    let caller = authority.verifier().audience("billing").verify(jwt).await.unwrap();
    assert_eq!(caller.subject(), Some("m1"));
}

#[tokio::test]
async fn clones_of_a_request_are_minted_apart() {
    let authority = TestAuthority::start().await;
    let request = authority.core().service_token(authority.issuer()).service("orders");
    let (billing, both, none) = tokio::try_join!(
        request.clone().audience("billing").mint(),
        request.clone().audience("billing").audience("inventory").mint(),
        request.mint(),
    )
    .unwrap();
    let claims = [billing, both, none].map(|token| {
        decode(token.header_value().to_str().unwrap().strip_prefix("Bearer ").unwrap(), 1)
    });
    let audiences = [json!("billing"), json!(["billing", "inventory"]), json!(null)];
    for (claims, audience) in claims.iter().zip(audiences) {
        assert_eq!(claims["aud"], audience, "{claims}");
        assert_eq!(claims["service"], "orders");
    }
    let ids = claims.iter().map(|claims| claims["jti"].as_str().unwrap());
    assert_eq!(ids.collect::<HashSet<_>>().len(), 3);
}

#[tokio::test]
async fn audience_adds_to_the_claim_that_is_set() {
    let scripted = ScriptedCore::start([good()]).await;
    let cases: [(Value, &[&str], Value); 4] = [
        (json!("a"), &[], json!("a")),
        (json!("a"), &["b"], json!(["a", "b"])),
        (json!(["a", "b"]), &["c"], json!(["a", "b", "c"])),
        (json!([]), &["a", "b"], json!(["a", "b"])),
    ];
    for (claim, audiences, expected) in cases {
        let request = core_at(&scripted.url).service_token(ISSUER).claim("aud", claim);
        let request =
            audiences.iter().fold(request, |request, audience| request.audience(*audience));
        request.mint().await.unwrap();
        let sent = scripted.requests().pop().unwrap();
        let body: Value = serde_json::from_str(sent.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!(body["payload"]["aud"], expected);
    }
}

#[tokio::test]
async fn missing_or_wrong_api_key_fails_without_a_retry() {
    let core = EmbeddedCore::builder().api_key(API_KEY).build().await.unwrap();
    let url = format!("http://{}", serve(core.router()).await);
    assert!(core_at(&url).api_key(API_KEY).service_token(ISSUER).mint().await.is_ok());
    for (core, message) in [
        (core_at(&url), "Invalid API key (no api key was sent)"),
        (core_at(&url).api_key("wrong-7f3a"), "Invalid API key"),
    ] {
        // A mint that is retried runs for up to an hour, so the timeout below fails the test.
        let core = core.start_up_timeout(Duration::from_secs(3600));
        let minting = core.service_token(ISSUER).mint();
        let error =
            tokio::time::timeout(crate::support::TIMEOUT, minting).await.unwrap().unwrap_err();
        let expected = MintError::Refused {
            core: url.clone(),
            status: 401,
            message: Some(message.into()),
            retry_after: None,
        };
        assert_eq!(error, expected);
        assert!(!format!("{error} {error:?}").contains("7f3a"));
    }
}

#[tokio::test]
async fn mint_keeps_the_base_path_of_the_core() {
    let core = EmbeddedCore::builder().base_path("/auth").build().await.unwrap();
    let url = format!("http://{}", serve(core.router()).await);
    for base in ["/auth", "/auth/"] {
        assert!(
            core_at(&format!("{url}{base}")).service_token(ISSUER).mint().await.is_ok(),
            "{base}"
        );
    }
    let error = core_at(&url).service_token(ISSUER).mint().await.unwrap_err();
    assert!(matches!(error, MintError::Refused { status: 404, .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn unreachable_core_is_named_in_a_one_line_error() {
    let (clock, port) = (ManualClock::new(), DeadPort::new());
    for timeout in [0, 30].map(Duration::from_secs) {
        let core = core_at(&port.url()).api_key(API_KEY).start_up_timeout(timeout);
        let minting = mint_in_steps(core.service_token(ISSUER), &clock, Duration::from_secs(5));
        let error = minting.await.unwrap_err();
        assert!(
            matches!(&error, MintError::Unreachable { core, .. } if *core == port.url()),
            "{error:?}"
        );
        let text = chain(&error);
        assert!(!text.contains('\n') && !text.contains(API_KEY), "{text}");
        assert!(
            text.starts_with(&format!("the core at {} cannot be reached: ", port.url())),
            "{text}"
        );
        // The chain of errors also holds the cause.
        assert!(text.contains("refused"), "{text}");
    }
}

#[tokio::test]
async fn mint_waits_for_a_core_that_starts_late() {
    let logs = Logs::of_this_thread();
    let port = DeadPort::new();
    let minting = core_at(&port.url()).api_key(API_KEY).service_token(ISSUER).mint();
    let core = EmbeddedCore::builder().build().await.unwrap();
    let serving = async {
        logs.wait_for("mint failed, retrying").await;
        core.serve(port.listen(), std::future::pending()).await
    };
    tokio::select! {
        minted = minting => assert!(minted.is_ok(), "{minted:?}"),
        served = serving => panic!("{served:?}"),
    }
    assert!(!logs.text().contains(API_KEY));
}

#[tokio::test]
async fn mint_asks_the_next_host_if_one_is_dead() {
    let authority = TestAuthority::start().await;
    let (port, url) = (DeadPort::new(), authority.core_url());
    for hosts in [
        format!("{};{url}", port.url()),
        format!(" {} ; {url} ;", port.url()),
        format!("{url};{}", port.url()),
    ] {
        // The start-up timeout allows no retry, so the first attempt must skip the dead host.
        let core = core_at(&hosts).start_up_timeout(Duration::ZERO);
        assert!(core.service_token(ISSUER).mint().await.is_ok(), "{hosts}");
    }
    let other = DeadPort::new();
    let core = core_at(&format!("{};{}", port.url(), other.url())).start_up_timeout(Duration::ZERO);
    assert!(matches!(core.service_token(ISSUER).mint().await, Err(MintError::Unreachable { .. })));
}

#[tokio::test]
async fn invalid_claim_or_api_key_fails_before_any_request() {
    let unused = UnusedListener::new().await;
    let request = || core_at(&unused.url()).service_token(ISSUER).claim("limits", 1);
    for name in ["iat", "exp", "nbf", "iss", "jti", "source"] {
        let request = request().claim(name, 1).claim("x", 2);
        let expected = MintError::ReservedClaim { claim: name.into() };
        assert_eq!(request.mint().await.unwrap_err(), expected, "{name}");
    }
    let twice = |name: &str| MintError::DuplicateClaim { claim: name.to_owned() };
    let cases = [
        (request().claim("limits", 2), twice("limits")),
        (request().claim("limits", 1), twice("limits")),
        (request().service("orders").service("orders"), twice("service")),
        (request().claim("service", "a").service("b"), twice("service")),
        (request().service("a").claim("service", "b"), twice("service")),
        (request().subject("a").subject("b"), twice("sub")),
        (request().audience("a").claim("aud", "b"), twice("aud")),
        (request().claim("a b", 1).claim("a b", 2).service(""), twice("a b")),
        (request().service(""), MintError::EmptyClaim { claim: "service" }),
        (request().service(" \n").service("orders"), MintError::EmptyClaim { claim: "service" }),
        (request().clone().service("").clone(), MintError::EmptyClaim { claim: "service" }),
    ];
    for (request, expected) in cases {
        assert_eq!(request.mint().await.unwrap_err(), expected);
    }
    assert_eq!(twice("a\nb").to_string(), r#"claim "a\nb" is set twice"#);
    let unwritable = std::collections::HashMap::from([((1, 2), 3)]);
    let error = core_at(&unused.url())
        .service_token(ISSUER)
        .claim("x", unwritable)
        .mint()
        .await
        .unwrap_err();
    assert!(matches!(&error, MintError::UnwritableClaim { claim } if claim == "x"), "{error:?}");
    let error = core_at(&unused.url())
        .api_key("line\nbreak")
        .service_token(ISSUER)
        .mint()
        .await
        .unwrap_err();
    assert_eq!(error, MintError::ApiKey);
    unused.assert_unused().await;
}

#[tokio::test]
async fn plain_http_beyond_loopback_is_refused() {
    let unused = UnusedListener::new().await;
    for host in ["http://core.example.com:3567", "http://10.0.0.1", "http://0.0.0.0:1"] {
        // A list with one such host is refused as a whole.
        for hosts in [host.to_owned(), format!("{};{host}", unused.url())] {
            let error =
                core_at(&hosts).api_key(API_KEY).service_token(ISSUER).mint().await.unwrap_err();
            assert!(
                matches!(&error, MintError::Config(ConfigError::PlainHttp { origin }) if host.starts_with(origin))
            );
        }
    }
    unused.assert_unused().await;
}

#[tokio::test]
async fn longest_start_up_timeout_does_not_overflow() {
    let authority = TestAuthority::start().await;
    let core = authority.core().start_up_timeout(Duration::MAX);
    assert!(core.service_token(ISSUER).mint().await.is_ok());
}
