//! Minting against a scripted server: the request, and the result of each response to it.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Response;
use serde_json::json;
use tower_m2m::testing::{RecordingServer, TestAuthority, TokenBuilder};
use tower_m2m::{MintError, ServiceToken, SuperTokensCore};

use crate::manual_clock::ManualClock;
use crate::scripted::{ScriptedCore, Step, mint_in_steps};
use crate::support::{DeadPort, ISSUER, Logs, TIMEOUT, UnusedListener, chain, now, without_jti};

const API_KEY: &str = "key-7f3a-0123456789abcdef";
const JSON: &[(&str, &str)] = &[("content-type", "application/json;charset=utf-8")];

/// A core that sends these responses.
async fn core_with(responses: impl IntoIterator<Item = Response<String>>) -> RecordingServer {
    let core = RecordingServer::start().await;
    responses.into_iter().for_each(|response| core.answer_next_with(response));
    core
}

fn response(status: u16, headers: &[(&str, &str)], body: impl Into<String>) -> Response<String> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body.into()).unwrap()
}

fn ok(jwt: &str) -> Response<String> {
    response(200, JSON, json!({"status": "OK", "jwt": jwt}).to_string())
}

/// A token as a core mints it for [`mint`].
fn token() -> TokenBuilder {
    TestAuthority::offline().token().claim("iss", ISSUER)
}

async fn mint(url: &str) -> Result<ServiceToken, MintError> {
    // A mint that is wrongly retried runs for up to an hour, so the timeout below fails the test.
    let core = SuperTokensCore::new(url)
        .unwrap()
        .api_key(API_KEY)
        .start_up_timeout(Duration::from_secs(3600));
    tokio::time::timeout(TIMEOUT, core.service_token(ISSUER).claim("service", "orders").mint())
        .await
        .unwrap()
}

#[tokio::test]
async fn request_to_the_core_matches_the_official_sdks() {
    let core = core_with([ok(&token().sign())]).await;
    mint(&format!("{}/base", core.url())).await.unwrap();
    let request = &core.requests()[0];
    assert_eq!(request.path(), "/base/recipe/jwt");
    let headers = request.headers();
    assert_eq!(headers["api-key"], API_KEY);
    assert_eq!(headers["rid"], "jwt");
    assert_eq!(headers["content-type"], "application/json; charset=utf-8");
    assert_eq!(headers["accept-encoding"], "identity");
    let user_agent = headers["user-agent"].to_str().unwrap();
    let version = user_agent.strip_prefix("tower-m2m/").unwrap();
    assert!(include_str!("../../Cargo.toml").contains(&format!("\nversion = \"{version}\"\n")));
    let body: serde_json::Value = serde_json::from_slice(request.body()).unwrap();
    let expected = json!({"payload": {"source": "microservice", "service": "orders"}, "validity": 3_153_600_000_u64,
        "useStaticSigningKey": true, "algorithm": "RS256", "jwksDomain": ISSUER});
    assert_eq!(without_jti(body), expected);
}

#[tokio::test]
async fn response_without_a_token_fails_as_not_a_core() {
    let good = json!({"status": "OK", "jwt": token().sign()}).to_string();
    let padded = |len: usize| format!("{good}{}", " ".repeat(len - good.len()));
    let cases = [
        (
            "HTML",
            response(200, &[("content-type", "text/html")], "<html>Sign in</html>"),
            "an HTML page; is the base path right?",
        ),
        (
            "a token as text",
            response(200, &[("content-type", "text/plain")], &good),
            "the content type is not JSON",
        ),
        ("no content type", response(200, &[], &good), "the content type is not JSON"),
        ("not JSON", response(200, JSON, "Hello"), "malformed"),
        ("truncated JSON", response(200, JSON, &good[..good.len() - 5]), "malformed"),
        (
            "duplicate member",
            response(200, JSON, good.replace('{', "{\"jwt\":\"x\",")),
            "malformed",
        ),
        ("an array", response(200, JSON, format!("[{good}]")), "malformed"),
        ("no token", response(200, JSON, r#"{"status":"OK"}"#), "no token"),
        ("null", response(200, JSON, r#"{"status":"OK","jwt":null}"#), "no token"),
        ("another status", response(200, JSON, good.replace("OK", "NO")), "no token"),
        ("no RS256", response(200, JSON, r#"{"status":"UNSUPPORTED_ALGORITHM_ERROR"}"#), "RS256"),
        ("too large", response(200, JSON, padded(64 * 1024 + 1)), "64 KiB"),
        ("201", response(201, JSON, &good), "status 201"),
        ("204", response(204, &[], ""), "status 204"),
    ];
    for (case, response, expected) in cases {
        let core = core_with([response]).await;
        let error = mint(core.url()).await.unwrap_err();
        assert!(
            matches!(&error, MintError::NotACore { core: name, .. } if name == core.url()),
            "{case}: {error:?}"
        );
        assert!(error.to_string().contains(expected), "{case}: {error}");
        assert_eq!(core.requests().len(), 1, "{case}: retried");
    }
    let largest = core_with([response(200, JSON, padded(64 * 1024))]).await;
    assert!(mint(largest.url()).await.is_ok());
}

#[tokio::test]
async fn token_that_m2_would_reject_fails_without_a_retry() {
    let exp = now() + 3600;
    let cases = [
        ("expired", token().expired().sign(), "expired"),
        (
            "issued when it expires",
            token().claim("iat", exp).claim("exp", exp).sign(),
            "(exp: expected later than iat, received ",
        ),
        (
            "issued after it expires",
            token().claim("iat", exp + 1).claim("exp", exp).sign(),
            "(exp: expected later than iat, received ",
        ),
        ("no marker", token().without_marker().sign(), "microservice"),
        ("another marker", token().claim("source", "user").sign(), "microservice"),
        (
            "a marker of another type",
            token().claim("source", json!(["microservice"])).sign(),
            "microservice",
        ),
        (
            "another issuer",
            token().claim("iss", "https://evil").sign(),
            "(iss: expected https://api.example.com, received https://evil)",
        ),
        ("no issuer", token().without("iss").sign(), "received none)"),
        ("not a JWT", "eyJ.x".to_owned(), "not a compact JWS"),
        ("a line break", format!("{}\n", token().sign()), "base64url"),
        ("claims that are not an object", TestAuthority::offline().sign_claims("[]"), "malformed"),
        ("empty", String::new(), "not a compact JWS"),
    ];
    for (case, jwt, expected) in cases {
        let core = core_with([ok(&jwt)]).await;
        let error = mint(core.url()).await.unwrap_err();
        assert!(
            matches!(
                &error,
                MintError::UnusableToken { core: name, .. } | MintError::WrongClaims { core: name, .. }
                    if name == core.url()
            ),
            "{case}: {error:?}"
        );
        assert!(chain(&error).contains(expected), "{case}: {error:?}");
        assert_eq!(core.requests().len(), 1, "{case}: retried");
    }
}

#[tokio::test]
async fn error_names_the_host_that_responded() {
    let dead = DeadPort::new();
    let core = core_with([ok(&token().expired().sign())]).await;
    let error = mint(&format!("{};{}", dead.url(), core.url())).await.unwrap_err();
    assert!(
        matches!(&error, MintError::UnusableToken { core: name, .. } if name == core.url()),
        "{error}"
    );
}

#[tokio::test]
async fn redirect_is_not_followed() {
    let elsewhere = UnusedListener::new().await;
    for status in [301, 302, 303, 307, 308] {
        let core = core_with([response(status, &[("location", &elsewhere.url())], "")]).await;
        let error = mint(core.url()).await.unwrap_err();
        assert!(
            matches!(&error, MintError::NotACore { reason, .. } if *reason == format!("unexpected status {status}"))
        );
        assert_eq!(core.requests().len(), 1);
    }
    elsewhere.assert_unused().await;
}

#[tokio::test]
async fn transient_status_is_retried() {
    let good = ok(&token().sign());
    for status in [429, 500, 502, 503] {
        let core = core_with([response(status, &[], "busy"), good.clone()]).await;
        assert!(mint(core.url()).await.is_ok(), "{status}");
        assert_eq!(core.requests().len(), 2, "{status}");
    }
    // A refusal is final: no other host is asked.
    let (core, other) = (core_with([response(401, &[], "no")]).await, UnusedListener::new().await);
    assert!(mint(&format!("{};{}", core.url(), other.url())).await.is_err());
    other.assert_unused().await;
}

#[tokio::test]
async fn permanent_status_fails_at_once_with_the_cores_text() {
    for status in [400, 401, 403, 404, 405, 413, 418] {
        let core = core_with([response(status, &[], "no\u{1b}[31m\nreally\n")]).await;
        let error = mint(core.url()).await.unwrap_err();
        let expected = MintError::Refused {
            core: core.url().to_owned(),
            status,
            message: Some("no\\u{1b}[31m really".to_owned()),
            retry_after: None,
        };
        assert_eq!(error, expected);
        assert!(!error.to_string().contains('\n'));
        assert_eq!(core.requests().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn retry_after_beyond_the_start_up_timeout_fails_at_once() {
    for seconds in ["7200", "18446744073709551615"] {
        let core = core_with([response(429, &[("retry-after", seconds)], "later")]).await;
        let client = SuperTokensCore::new(core.url()).unwrap();
        let error = client.service_token(ISSUER).mint().await.unwrap_err();
        assert!(matches!(error, MintError::Refused { status: 429, .. }), "{error}");
        assert_eq!(core.requests().len(), 1, "{seconds}");
    }
}

#[tokio::test(start_paused = true)]
async fn core_that_hangs_up_or_stays_silent_is_unreachable() {
    let clock = ManualClock::new();
    let core = ScriptedCore::start([Step::Text(String::new()), Step::Silence]).await;
    let patience = Duration::from_secs(30);
    let request = SuperTokensCore::new(&core.url).unwrap().start_up_timeout(patience);
    let silent = async {
        core.received(2).await;
        clock.advance(patience).await;
    };
    let minting = mint_in_steps(request.service_token(ISSUER), &clock, Duration::from_secs(1));
    let error = tokio::join!(minting, silent).0.unwrap_err();
    assert!(matches!(&error, MintError::Unreachable { core: name, .. } if *name == core.url));
    assert_eq!(core.count(), 2);
}

#[tokio::test]
async fn errors_and_logs_hold_no_api_key_and_no_token() {
    let logs = Logs::of_this_thread();
    let (expired, good) = (token().expired().sign(), token().sign());
    let echo = format!("wrong api key: {API_KEY}");
    let body = json!({"status": "OK", "jwt": &good}).to_string();
    let cases = [
        response(404, &[], &echo),
        response(401, &[], &echo),
        response(400, JSON, &body),
        response(403, &[], format!("bad token {good}.")),
        response(200, &[("content-type", "text/html")], format!("{echo} {body}")),
        response(200, JSON, format!("{body}{body}")),
        response(302, &[("location", &format!("http://a/?k={API_KEY}&t={good}"))], &body),
        ok(&expired),
        ok(&format!("{good}.{API_KEY}")),
    ];
    for (index, permanent) in cases.into_iter().enumerate() {
        // The first failure is logged and retried.
        let transient = response(503, &[], format!("{echo} {body}"));
        let core = core_with([transient, permanent]).await;
        let error = mint(core.url()).await.unwrap_err();
        for text in [chain(&error), format!("{error:?}"), format!("{error:#?}")] {
            assert_no_secrets(&text, &[&good, &expired], &format!("case {index}"));
        }
    }
    assert!(logs.text().contains("mint failed, retrying"));
    assert_no_secrets(&logs.text(), &[&good, &expired], "the log");
}

/// Encodes each character of the text with `encode`.
fn encode_chars(text: &str, encode: impl Fn(char) -> String) -> String {
    text.chars().map(encode).collect()
}

#[tokio::test]
async fn encoded_secrets_are_withheld() {
    let good = token().sign();
    let json = |text: &str| encode_chars(text, |c| format!("\\u{:04x}", u32::from(c)));
    let html = |text: &str| encode_chars(text, |c| format!("&#{};", u32::from(c)));
    let percent = |text: &str| encode_chars(text, |c| format!("%{:02X}", u32::from(c)));
    let some_json = |text: &str| {
        encode_chars(text, |c| {
            if "eZ".contains(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() }
        })
    };
    let basic = STANDARD.encode(format!("m1:{API_KEY}"));
    let (head, signature) = good.rsplit_once('.').unwrap();
    let cases = [
        ("api key in JSON", json(API_KEY)),
        ("api key partly in JSON", some_json(API_KEY)),
        ("api key in HTML", html(API_KEY)),
        (
            "api key in hexadecimal HTML",
            encode_chars(API_KEY, |c| format!("&#x{:x};", u32::from(c))),
        ),
        ("api key in a URL", percent(API_KEY)),
        ("api key with its dashes in a URL", API_KEY.replace('-', "%2D")),
        ("api key twice in a URL", percent(API_KEY).replace('%', "%25")),
        ("api key in a URL in HTML", percent(API_KEY).replace('%', "&#37;")),
        ("api key in Basic", basic.clone()),
        ("api key in Basic in JSON", some_json(&basic)),
        ("api key in capitals", API_KEY.to_ascii_uppercase()),
        ("api key in two lines", API_KEY.replacen("0123", "01\n23", 1)),
        ("beginning of the api key", API_KEY[..10].to_owned()),
        ("end of the api key", API_KEY[API_KEY.len() - 8..].to_owned()),
        ("token", good.clone()),
        ("token in JSON", json(&good)),
        ("token in HTML", html(&good)),
        ("token in a URL", percent(&good)),
        ("token in base64", STANDARD.encode(&good)),
        ("token in two lines", format!("{head}.\n{signature}")),
        ("token in two lines of JSON", format!("{head}.\\n{signature}")),
        (
            "token in short lines",
            encode_chars(&good, |c| if c == 'I' { "\nI".to_owned() } else { c.to_string() }),
        ),
        ("signature of a token", signature.to_owned()),
    ];
    let mut printed = Vec::new();
    for (case, secret) in cases {
        let core = core_with([response(403, &[], format!("refused: {secret}"))]).await;
        let error = mint(core.url()).await.unwrap_err();
        let MintError::Refused { status: 403, message: Some(message), .. } = &error else {
            panic!("{case}: {error:?}")
        };
        if message != "(text withheld: it may hold a secret or a token)" {
            printed.push((case, message.clone()));
        }
    }
    assert!(printed.is_empty(), "{printed:#?}");
}

fn assert_no_secrets(text: &str, tokens: &[&String], what: &str) {
    assert!(!text.contains(API_KEY), "{what}: {text}");
    for token in tokens {
        for part in token.split('.').skip(1) {
            // The beginning of a part counts as a leak, too.
            assert!(!text.contains(&part[..20]), "{what}: {text}");
        }
    }
}
