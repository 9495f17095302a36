//! Calls of M2 with tokens of an OAuth2 server, their renewal, and the start without the server.

use std::time::Duration;

use axum::http::HeaderMap;
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use http::header::AUTHORIZATION;
use reqwest::{Client, Method, Request};
use serde_json::json;
use tower::{ServiceBuilder, ServiceExt};
use tower_m2m::testing::TestAuthority;
use tower_m2m::{
    AddServiceTokenLayer, ClientCredentials, Expected, MintError, RejectionReason, ServiceClaims,
    VerifyServiceTokenLayer,
};

use crate::client_credentials::{
    ID, JSON, SECRET, credentials, good, mint, refusal, response, server_with, token,
};
use crate::manual_clock::ManualClock;
use crate::support::{Logs, chain, serve};

/// A server whose one client may request any scope, with tokens as in RFC 9068.
async fn start_server(authority: &TestAuthority) -> String {
    let authority = authority.clone();
    let issue = move |headers: HeaderMap, body: String| async move {
        let basic = STANDARD.encode(format!("{ID}:{SECRET}"));
        assert_eq!(headers[AUTHORIZATION], format!("Basic {basic}"));
        let scope = body.split('&').find_map(|pair| pair.strip_prefix("scope=")).unwrap();
        let scope = scope.replace('+', " ");
        let token = authority.token().without("source").claim("client_id", ID);
        let jwt = token.claim("scope", scope.as_str()).header("typ", r#""at+jwt""#).sign();
        Json(json!({
            "access_token": jwt, "token_type": "bearer", "expires_in": 3600, "scope": scope,
        }))
    };
    format!("http://{}/token", serve(Router::new().route("/token", post(issue))).await)
}

#[tokio::test]
async fn m2_admits_the_tokens_with_its_scope() {
    let authority = TestAuthority::start().await;
    let token_url = start_server(&authority).await;
    let verifier = authority
        .verifier()
        .marker("scope", Expected::scope("charge"))
        .require_claim("client_id", ID);
    let caller = |claims: ServiceClaims| async move {
        claims.get("scope").and_then(|scope| scope.as_str()).unwrap().to_owned()
    };
    let app = Router::new()
        .route("/charge", get(caller))
        .route_layer(VerifyServiceTokenLayer::new(verifier.clone()));
    let m2 = format!("http://{}/charge", serve(app).await);

    for (scopes, status, body) in [
        (&["charge", "refund"][..], StatusCode::OK, "charge refund"),
        (&["refund"], StatusCode::FORBIDDEN, ""),
    ] {
        let credentials = ClientCredentials::new(&token_url, ID, SECRET).unwrap();
        let credentials = scopes.iter().fold(credentials, |all, scope| all.scope(*scope));
        let token = mint(credentials.clone()).await.unwrap();
        let m1 = ServiceBuilder::new()
            .layer(AddServiceTokenLayer::new(token))
            .service(Client::builder().tls_certs_only([]).build().unwrap());
        let request = Request::new(Method::GET, m2.parse().unwrap());
        let response = m1.oneshot(request).await.unwrap();
        assert_eq!(response.status(), status, "{scopes:?}");
        if !body.is_empty() {
            assert_eq!(response.text().await.unwrap(), body);
        }
        // The start fails where the call would.
        match mint(credentials.verify_with(&verifier)).await {
            Ok(_) => assert_eq!(status, StatusCode::OK),
            Err(MintError::Misconfigured { source, .. }) => {
                assert_eq!(status, StatusCode::FORBIDDEN);
                assert_eq!(source.reason(), RejectionReason::NotMicroservice);
            }
            Err(err) => panic!("{err:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn token_is_renewed_before_an_earlier_expires_in() {
    let (clock, logs) = (ManualClock::new(), Logs::of_this_thread());
    let day = token().validity(Duration::from_secs(24 * 3600)).sign();
    let members = json!({"access_token": day, "token_type": "Bearer", "expires_in": 600});
    let server = server_with([
        response(200, JSON, members),
        refusal(401, "invalid_client", "the secret has changed"),
        good(),
    ])
    .await;
    let token = credentials(server.url()).mint().await.unwrap();
    let first = token.header_value();
    clock.advance(Duration::from_secs(600)).await;
    logs.wait_for("service token renewal failed").await;
    assert_eq!(token.header_value(), first);
    let error = token.health().last_error.unwrap().to_string();
    assert!(error.ends_with("the secret has changed"), "{error}");
    clock.advance(Duration::from_secs(600)).await;
    logs.wait_for("service token renewed").await;
    assert_ne!(token.header_value(), first);
    assert_eq!(token.health().last_error, None);
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn cached_token_is_used_while_the_server_is_down() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token.json");
    let down = || response(503, &[], "");
    let server = server_with([
        good(),
        down(),
        down(),
        refusal(401, "invalid_client", ""),
        down(),
        down(),
        down(),
    ])
    .await;
    let start = |credentials: ClientCredentials| {
        mint(credentials.cache_file(&path).start_up_timeout(Duration::ZERO))
    };
    let ours = || credentials(server.url()).scope("charge").audience("billing");
    let first = start(ours()).await.unwrap();
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(!written.contains(SECRET), "the file holds the client secret");

    let cached = start(ours()).await.unwrap();
    assert_eq!(cached.header_value(), first.header_value());
    let error = cached.health().last_error.unwrap().to_string();
    assert!(error.ends_with("refused with status 503"), "{error}");
    // A new secret, sent in another way, gets the same token.
    let rotated = ClientCredentials::new(server.url(), ID, "another").unwrap();
    let rotated = rotated.scope("charge").audience("billing").credentials_in_body();
    assert!(start(rotated).await.is_ok());

    let refused = start(ours()).await.unwrap_err().to_string();
    assert!(refused.contains("invalid_client"), "{refused}");
    for (case, other) in [
        ("scope", credentials(server.url()).scope("refund").audience("billing")),
        ("audience", credentials(server.url()).scope("charge").audience("inventory")),
        ("client", {
            let other = ClientCredentials::new(server.url(), "refunds", SECRET).unwrap();
            other.scope("charge").audience("billing")
        }),
    ] {
        let logs = Logs::of_this_thread();
        assert!(start(other).await.is_err(), "{case}");
        assert!(logs.text().contains("it holds the token of another request"), "{case}");
    }
}

#[tokio::test]
async fn neither_secret_nor_token_is_printed() {
    const WITHHELD: &str = "(text withheld: it may hold a secret or a token)";
    let logs = Logs::of_this_thread();
    let jwt = token().sign();
    let basic = STANDARD.encode(format!("{ID}:{SECRET}"));
    let mut printed = String::new();
    for in_body in [false, true] {
        let secrets = [SECRET, &SECRET[5..15], &basic, &jwt, &SECRET.replace('-', "%2D")];
        for secret in secrets {
            let responses = [
                ("description", refusal(401, "invalid_client", &format!("wrong secret {secret}"))),
                ("code", refusal(401, secret, "")),
                ("text", response(401, &[], secret)),
                ("JSON", response(500, JSON, json!({"authorization": secret}))),
            ];
            for (place, response) in responses {
                let server = server_with([response]).await;
                let credentials = credentials(server.url()).start_up_timeout(Duration::ZERO);
                let credentials =
                    if in_body { credentials.credentials_in_body() } else { credentials };
                printed += &format!("{credentials:?} ");
                let error = mint(credentials).await.unwrap_err();
                assert!(chain(&error).contains(WITHHELD), "{place} of {secret}: {error}");
                printed += &format!("{} {error:?}\n", chain(&error));
            }
        }
        let server = server_with([
            good(),
            response(200, JSON, json!({"access_token": &jwt, "token_type": &jwt})),
            response(200, JSON, json!({"access_token": [&jwt], "token_type": "Bearer"})),
            response(200, JSON, json!({"access_token": format!("{jwt}!"), "token_type": "Bearer"})),
        ])
        .await;
        let url = format!("{}/?key={SECRET}", server.url());
        let credentials = credentials(&url).parameter("assertion", SECRET);
        let credentials = if in_body { credentials.credentials_in_body() } else { credentials };
        for is_good in [true, false, false, false] {
            printed += &format!("{credentials:?} {credentials:#?} ");
            match mint(credentials.clone()).await {
                Ok(token) => printed += &format!("{token:?}"),
                Err(error) => {
                    assert!(!is_good, "{error:?}");
                    printed += &format!("{} {error:?}\n", chain(&error));
                }
            }
        }
    }
    printed += &logs.text();
    for secret in [SECRET, &SECRET[5..15], &basic, &jwt, jwt.split('.').nth(1).unwrap()] {
        assert!(!printed.contains(secret), "{secret} in {printed}");
    }
}

#[tokio::test]
async fn short_secret_is_withheld_in_basic_credentials() {
    // Their Base64 is shorter than 16 characters or has no digit. A space is sent as `+`.
    for (id, secret) in [("m1", "secret"), ("m1", "abcdefgh"), ("a", "Sehr Geheim")] {
        let basic = STANDARD.encode(format!("{id}:{}", secret.replace(' ', "+")));
        for response in [
            refusal(401, "invalid_client", &format!("bad header: Basic {basic}")),
            refusal(401, &basic, ""),
            response(401, &[], basic.clone()),
        ] {
            let server = server_with([response]).await;
            let error =
                mint(ClientCredentials::new(server.url(), id, secret).unwrap()).await.unwrap_err();
            let text = format!("{} {error:?}", chain(&error));
            assert!(!text.contains(basic.trim_end_matches('=')), "{text}");
            assert!(text.contains("withheld"), "{text}");
        }
    }
}
