//! Tokens of an OAuth2 server: the request, and the result of each response to it.

use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{Response, StatusCode};
use serde_json::{Value, json};
use tower_m2m::testing::{RecordingServer, TestAuthority, TokenBuilder};
use tower_m2m::{ClientCredentials, ClientCredentialsError, ConfigError, MintError, ServiceToken};

use crate::support::{DeadPort, Logs, TIMEOUT, UnusedListener, chain, now};

pub(crate) const ID: &str = "orders";
pub(crate) const SECRET: &str = "gX1fBat3bV-7f3a9d-0123456789";
pub(crate) const JSON: &[(&str, &str)] = &[("content-type", "application/json;charset=UTF-8")];
const HTML: &str = "<!DOCTYPE html><html><form>Sign in</form></html>";
const HOUR: Duration = Duration::from_secs(3600);

/// A token of an OAuth2 server, which has no marker.
pub(crate) fn token() -> TokenBuilder {
    TestAuthority::offline().token().without("source").claim("scope", "charge")
}

/// A response with this text or JSON.
pub(crate) fn response(
    status: u16,
    headers: &[(&str, &str)],
    body: impl Into<Value>,
) -> Response<String> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    let body = match body.into() {
        Value::String(text) => text,
        json => json.to_string(),
    };
    response.body(body).unwrap()
}

pub(crate) fn refusal(status: u16, error: &str, description: &str) -> Response<String> {
    response(status, JSON, json!({"error": error, "error_description": description}))
}

/// The members of a good response (RFC 6749 §5.1), for one hour.
fn members() -> Value {
    json!({"access_token": token().sign(), "token_type": "Bearer", "expires_in": 3600})
}

/// A good response, but with this member instead. `null` removes it.
fn with(member: &str, value: Value) -> Response<String> {
    let mut members = members();
    match value {
        Value::Null => drop(members.as_object_mut().unwrap().remove(member)),
        value => members[member] = value,
    }
    response(200, JSON, members)
}

pub(crate) fn good() -> Response<String> {
    response(200, JSON, members())
}

pub(crate) async fn server_with(
    responses: impl IntoIterator<Item = Response<String>>,
) -> RecordingServer {
    let server = RecordingServer::start().await;
    responses.into_iter().for_each(|response| server.answer_next_with(response));
    server
}

pub(crate) fn credentials(url: &str) -> ClientCredentials {
    // A request that is wrongly retried runs for an hour, so the timeout in `mint` fails the test.
    ClientCredentials::new(url, ID, SECRET).unwrap().start_up_timeout(HOUR)
}

pub(crate) async fn mint(credentials: ClientCredentials) -> Result<ServiceToken, MintError> {
    tokio::time::timeout(TIMEOUT, credentials.mint()).await.expect("retried")
}

/// The error of a server with this response, which must not be retried.
async fn error_of(case: &str, response: Response<String>) -> ClientCredentialsError {
    let server = server_with([response]).await;
    let error = mint(credentials(server.url())).await.expect_err(case);
    assert_eq!(server.requests().len(), 1, "{case}: retried");
    let MintError::ClientCredentials(error) = error else { panic!("{case}: {error:?}") };
    error
}

#[tokio::test]
async fn credentials_are_sent_as_in_rfc_6749() {
    let secret = "p%s/+ wörd:&=";
    let encoded = "p%25s%2F%2B+w%C3%B6rd%3A%26%3D";
    let basic = |text: &str| Some(format!("Basic {}", STANDARD.encode(text)));
    let grant = "grant_type=client_credentials";
    let cases = [
        // The example of §2.3.1.
        (
            ("s6BhdRkqt3", "gX1fBat3bV", false),
            Some("Basic czZCaGRSa3F0MzpnWDFmQmF0M2JW".to_owned()),
            grant.to_owned(),
        ),
        (("a:b c", secret, false), basic(&format!("a%3Ab+c:{encoded}")), grant.to_owned()),
        // White space around a value in the environment or in a file.
        ((" a\n", "\u{feff}b\r\n", false), basic("a:b"), grant.to_owned()),
        (
            ("a:b c", secret, true),
            None,
            format!("{grant}&client_id=a%3Ab+c&client_secret={encoded}"),
        ),
    ];
    for ((id, secret, in_body), authorization, body) in cases {
        let server = server_with([good()]).await;
        let credentials = ClientCredentials::new(server.url(), id, secret).unwrap();
        let credentials = if in_body { credentials.credentials_in_body() } else { credentials };
        mint(credentials).await.unwrap();
        let request = &server.requests()[0];
        assert_eq!(request.method(), "POST");
        let headers = request.headers();
        let sent = headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(sent, authorization, "{id}");
        assert_eq!(std::str::from_utf8(request.body()).unwrap(), body, "{id}");
        assert_eq!(headers["content-type"], "application/x-www-form-urlencoded");
        assert_eq!(headers["accept"], "application/json");
        assert_eq!(headers["accept-encoding"], "identity");
    }
}

#[tokio::test]
async fn scopes_audience_and_parameters_are_sent_in_order() {
    let server = server_with([good()]).await;
    let url = format!("{}/oauth/token?tenant=a%20b", server.url());
    let credentials = credentials(&url)
        .scope("charge")
        .audience("billing")
        .scope("refund")
        .parameter("resource", "https://a.example/")
        .parameter("resource", "https://b.example/?x=1&y");
    mint(credentials).await.unwrap();
    let request = &server.requests()[0];
    assert_eq!(request.uri(), "/oauth/token?tenant=a%20b");
    assert_eq!(
        std::str::from_utf8(request.body()).unwrap(),
        "grant_type=client_credentials&scope=charge+refund&audience=billing\
         &resource=https%3A%2F%2Fa.example%2F&resource=https%3A%2F%2Fb.example%2F%3Fx%3D1%26y"
    );
}

#[tokio::test]
async fn http_client_of_the_user_is_used() {
    let server = server_with([good()]).await;
    let client = reqwest::Client::builder().user_agent("orders/7");
    mint(credentials(server.url()).http_client(client)).await.unwrap();
    assert_eq!(server.requests()[0].headers()["user-agent"], "orders/7");

    let unusable = reqwest::Client::builder().user_agent("\n");
    let error = mint(credentials(server.url()).http_client(unusable)).await.unwrap_err();
    assert!(matches!(error, MintError::Config(ConfigError::HttpClient { .. })), "{error:?}");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn unusable_argument_is_an_error_before_a_request() {
    let unused = UnusedListener::new().await;
    let new = |id, secret| ClientCredentials::new(unused.url(), id, secret).unwrap();
    let cases = [
        (new("", SECRET), "the client id is empty"),
        (new(ID, " \n"), "the client secret is empty"),
        (
            new(ID, SECRET).parameter("grant_type", "password"),
            "parameter `grant_type` is reserved; it is always client_credentials",
        ),
        (
            new(ID, SECRET).parameter("client_secret", SECRET),
            "parameter `client_secret` is reserved; set the client secret instead",
        ),
        (
            new(ID, SECRET).parameter("scope", "a").parameter("client_id", "b"),
            "parameter `scope` is reserved; add a scope instead",
        ),
        (
            ClientCredentials::new("http://idp.example/token", ID, SECRET).unwrap(),
            "plain http to http://idp.example, beyond loopback; use https or allow plain http",
        ),
    ];
    for (credentials, expected) in cases {
        assert_eq!(mint(credentials).await.unwrap_err().to_string(), expected);
    }
    unused.assert_unused().await;
    for (url, expected) in [
        ("idp.example/token", ConfigError::Url { url: "idp.example/token".to_owned() }),
        ("https://u:p@idp.example", ConfigError::UrlCredentials),
    ] {
        assert_eq!(ClientCredentials::new(url, ID, SECRET).unwrap_err(), expected);
    }
}

#[tokio::test]
async fn refusal_text_explains_the_error_code() {
    let cases = [
        (
            refusal(401, "invalid_client", "Client authentication failed"),
            "401, invalid_client: wrong client id or secret, or the wrong way to send them: Client \
             authentication failed",
        ),
        (
            refusal(400, "invalid_scope", "no scope refund"),
            "400, invalid_scope: a scope is unknown, or this client may not request it: no scope \
             refund",
        ),
        (
            refusal(400, "unauthorized_client", ""),
            "400, unauthorized_client: this client may not use the client credentials grant",
        ),
        (
            refusal(400, "unsupported_grant_type", ""),
            "400, unsupported_grant_type: the server does not offer the client credentials grant",
        ),
        (
            refusal(400, "invalid_request", "no audience"),
            "400, invalid_request: a parameter is missing, unknown or repeated: no audience",
        ),
        (
            refusal(400, "invalid_grant", ""),
            "400, invalid_grant: the server does not accept the client credentials grant of this \
             client",
        ),
        (
            refusal(400, "invalid_target", ""),
            "400, invalid_target: the resource or audience is unknown, or not for this client",
        ),
        (refusal(403, "access_denied", "Not for\nyou"), "403, access_denied: Not for you"),
        (
            response(400, &[], r#"{"error":"invalid_scope"}"#),
            "400, invalid_scope: a scope is unknown, or this client may not request it",
        ),
        (
            response(404, JSON, r#"{"message":"no Route matched"}"#),
            r#"404: is the token URL right?: {"message":"no Route matched"}"#,
        ),
        (response(404, &[], ""), "404: is the token URL right?"),
        (response(403, &[], HTML), "403: an HTML page"),
        (response(403, &[], "denied by proxy"), "403: denied by proxy"),
        (response(400, &[], "x ".repeat(40_000)), "400: (more than 64 KiB)"),
    ];
    for (response, expected) in cases {
        let error = error_of(expected, response).await;
        let ClientCredentialsError::Refused { url, .. } = &error else { panic!("{error:?}") };
        let expected = format!("the token endpoint {url} refused with status {expected}");
        assert_eq!(error.to_string(), expected);
    }
}

#[tokio::test]
async fn response_without_a_bearer_token_is_an_error() {
    let padded = |len: usize| {
        let body = members().to_string();
        format!("{body}{}", " ".repeat(len - body.len()))
    };
    let cases = [
        ("HTML", response(200, &[("content-type", "text/html")], HTML), "an HTML page"),
        ("HTML as JSON", response(200, JSON, HTML), "an HTML page"),
        ("form", response(200, &[("content-type", "text/plain")], members()), "is not JSON"),
        ("empty", response(200, JSON, ""), "the body is empty"),
        ("no JSON", response(200, JSON, "token"), "the JSON is malformed"),
        ("an array", response(200, JSON, "[]"), "the JSON is malformed"),
        (
            "two tokens",
            response(200, JSON, members().to_string().replace('{', r#"{"access_token":"a","#)),
            "malformed",
        ),
        ("no token", with("access_token", Value::Null), "lacks `access_token`"),
        ("no type", with("token_type", Value::Null), "or `token_type`"),
        ("DPoP", with("token_type", json!("DPoP")), "the token type is not Bearer"),
        ("MAC", with("token_type", json!("mac")), "the token type is not Bearer"),
        ("token of a wrong type", with("access_token", json!([1])), "`access_token` has the wrong"),
        ("text", with("expires_in", json!("3600")), "`expires_in` has the wrong type"),
        ("negative", with("expires_in", json!(-1)), "`expires_in` has the wrong type"),
        ("201", response(201, JSON, members()), "unexpected status 201"),
        ("204", response(204, &[], ""), "unexpected status 204"),
        ("too large", response(200, JSON, padded(64 * 1024 + 1)), "larger than 64 KiB"),
    ];
    for (case, response, expected) in cases {
        let error = error_of(case, response).await;
        assert!(
            matches!(error, ClientCredentialsError::NotATokenEndpoint { .. }),
            "{case}: {error:?}"
        );
        assert!(error.to_string().contains(expected), "{case}: {error}");
    }
    let accepted = [
        response(200, JSON, padded(64 * 1024)),
        response(200, &[], members()),
        with("token_type", json!("bearer")),
        with("token_type", json!("BEARER")),
        with("scope", json!("charge refund")),
        with("scope", json!("")),
        with("refresh_token", json!("r")),
        with("x", json!({"y": [1, null]})),
    ];
    for response in accepted {
        let body = response.body().clone();
        let server = server_with([response]).await;
        assert!(mint(credentials(server.url())).await.is_ok(), "{}", &body[body.len() - 80..]);
    }
}

#[tokio::test]
async fn token_that_no_service_can_verify_is_an_error() {
    for opaque in ["ory_at_Yl2x.3b", "4f1c9a", "", "a.b.c.d.e"] {
        let error = error_of(opaque, with("access_token", json!(opaque))).await;
        assert!(matches!(error, ClientCredentialsError::OpaqueToken { .. }), "{error:?}");
        assert!(!error.to_string().contains("4f1c9a"), "{error}");
    }
    let cases = [
        ("expired", with("access_token", json!(token().expired().sign())), "has expired"),
        ("expires at once", with("expires_in", json!(0)), "`expires_in` is 0"),
        (
            "issued after it expires",
            with("access_token", json!(token().claim("iat", now() + 7200).sign())),
            "`exp` is not later than `iat`",
        ),
        ("no base64url", with("access_token", json!("a.b.c!")), "not a JWT"),
        (
            "exp as text",
            with("access_token", json!(token().raw("exp", r#""soon""#).sign())),
            "no valid expiration time",
        ),
    ];
    for (case, response, expected) in cases {
        let error = error_of(case, response).await;
        assert!(matches!(error, ClientCredentialsError::UnusableToken { .. }), "{case}: {error:?}");
        assert!(chain(&error).contains(expected), "{case}: {}", chain(&error));
    }
}

#[tokio::test]
async fn redirect_is_an_error_and_not_followed() {
    let elsewhere = UnusedListener::new().await;
    for status in [301, 302, 303, 307, 308] {
        let case = status.to_string();
        let headers = [("location", &*elsewhere.url())];
        let error = error_of(&case, response(status, &headers, HTML)).await;
        let expected = format!(": status {status} redirects, which is not followed");
        assert!(error.to_string().ends_with(&expected), "{error}");
    }
    elsewhere.assert_unused().await;
}

#[tokio::test]
async fn transient_response_is_retried() {
    let busy = refusal(400, "temporarily_unavailable", "");
    for status in [408, 425, 429, 500, 502, 503, 599] {
        let mut busy = busy.clone();
        *busy.status_mut() = StatusCode::from_u16(status).unwrap();
        let server = server_with([busy, good()]).await;
        assert!(mint(credentials(server.url())).await.is_ok(), "{status}");
        assert_eq!(server.requests().len(), 2, "{status}");
    }
}

#[tokio::test]
async fn retry_after_beyond_the_start_up_ends_the_mint() {
    let busy = response(429, &[("retry-after", "20")], "slow down");
    let server = server_with([busy, good()]).await;
    let credentials = credentials(server.url()).start_up_timeout(Duration::from_secs(10));
    let error = mint(credentials).await.unwrap_err();
    let MintError::ClientCredentials(ClientCredentialsError::Refused { retry_after, .. }) = error
    else {
        panic!("{error:?}")
    };
    assert_eq!(retry_after, Some(Duration::from_secs(20)));
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn unreachable_server_error_omits_the_query_of_the_url() {
    let dead = DeadPort::new();
    let url = format!("{}/token?key={SECRET}", dead.url());
    let error = mint(credentials(&url).start_up_timeout(Duration::ZERO)).await.unwrap_err();
    let text = chain(&error);
    let start = format!("the token endpoint {}/token cannot be reached: ", dead.url());
    assert!(text.starts_with(&start), "{text}");
    assert!(!format!("{text} {error:?}").contains(SECRET), "{text}");

    // The system accepts connections to the listener, and nothing responds.
    let silent = UnusedListener::new().await;
    let credentials = credentials(&silent.url()).start_up_timeout(Duration::ZERO);
    let error = mint(credentials.timeout(Duration::from_millis(50))).await.unwrap_err();
    assert!(chain(&error).ends_with("cannot be reached: no response in time"), "{error:?}");
}

#[tokio::test]
async fn expires_in_and_exp_end_at_the_earlier_one() {
    // (seconds until `exp`, `expires_in`, seconds until the token expires, whether it is logged)
    let cases = [
        (Some(3600), Some(3600), Some(3600), false),
        (Some(3600), Some(3570), Some(3570), false),
        (Some(3600), Some(3630), Some(3600), false),
        (Some(3600), Some(600), Some(600), true),
        (Some(3600), Some(86_400), Some(3600), true),
        (Some(3600), Some(u64::MAX), Some(3600), true),
        (Some(3600), None, Some(3600), false),
        (None, Some(600), Some(600), false),
        // Later than a `SystemTime` can be.
        (None, Some(u64::MAX), None, false),
        (None, None, None, false),
    ];
    for (exp, expires_in, expected, is_logged) in cases {
        let case = format!("exp {exp:?}, expires_in {expires_in:?}");
        let logs = Logs::of_this_thread();
        let earliest = now();
        let jwt = match exp {
            Some(exp) => token().validity(Duration::from_secs(exp)),
            None => token().without("exp"),
        };
        let mut members = json!({"access_token": jwt.sign(), "token_type": "Bearer"});
        if let Some(expires_in) = expires_in {
            members["expires_in"] = json!(expires_in);
        }
        let server = server_with([response(200, JSON, members)]).await;
        let token = mint(credentials(server.url())).await.unwrap();
        let expires_at = token.expires_at().map(|at| at.duration_since(UNIX_EPOCH).unwrap());
        let latest = now();
        match (expires_at, expected) {
            (Some(at), Some(expected)) => {
                let range = earliest + expected..=latest + expected;
                assert!(range.contains(&at.as_secs()), "{case}: {at:?} is not in {range:?}");
            }
            (at, expected) => assert_eq!(at.is_some(), expected.is_some(), "{case}"),
        }
        let text = logs.text();
        let count = text.matches("expires_in differs from the lifetime of the token").count();
        assert_eq!(count, usize::from(is_logged), "{case}");
        assert!(!is_logged || text.contains("lifetime_seconds=3"), "{case}: {text}");
    }
}
