//! Which claims the layer accepts in a token with a valid signature.

use std::time::Duration;

use serde_json::{Value, json};
use tower_m2m::testing::{TestAuthority, TokenBuilder};
use tower_m2m::{RejectionReason as R, Verifier};

use crate::support::{ISSUER, encode, now};
use crate::tokens::verify;

type Defect = fn(TokenBuilder) -> TokenBuilder;

/// Verifies one token for each case. Its claims are the marker, the service's name and the case's
/// members, in which `NOW±n` is replaced by that time.
async fn check(verifier: &Verifier, authority: &TestAuthority, cases: &[(&str, Option<R>)]) {
    let now = i64::try_from(now()).unwrap();
    for (members, reason) in cases {
        let mut members = (*members).to_owned();
        while let Some(at) = members.find("NOW") {
            let rest = &members[at + 3..];
            let end =
                rest.find(|c: char| !matches!(c, '+' | '-' | '0'..='9')).unwrap_or(rest.len());
            let offset: i64 = rest[..end].parse().unwrap_or(0);
            members = format!("{}{}{}", &members[..at], now + offset, &rest[end..]);
        }
        let token = authority
            .sign_claims(format!(r#"{{"source":"microservice","service":"orders"{members}}}"#));
        let expected = reason.map_or(Ok("orders".to_owned()), Err);
        assert_eq!(verify(verifier, &token).await, expected, "{members}");
    }
}

#[tokio::test]
async fn expired_or_malformed_exp_is_refused() {
    let malformed = Some(R::MalformedExpiration);
    let cases = [
        (r#","exp":NOW+3600"#, None),
        (r#","exp":NOW+3600.75"#, None),
        (r#","exp":4.9536e9"#, None),
        (r#","exp":9007199254740991"#, None),
        ("", malformed),
        (r#","exp":null"#, malformed),
        (r#","exp":"4953600000""#, malformed),
        (r#","exp":true"#, malformed),
        (r#","exp":[4953600000]"#, malformed),
        (r#","exp":{}"#, malformed),
        (r#","exp":-1"#, malformed),
        (r#","exp":1e308"#, malformed),
        (r#","exp":9007199254740992"#, malformed),
        (r#","exp":18446744073709551615"#, malformed),
        (r#","exp":18446744073709551616"#, malformed),
        (r#","Exp":NOW+3600"#, malformed),
        (r#","exp":1e999"#, malformed),
        (r#","x":1e999,"exp":NOW+3600"#, Some(R::MalformedClaims)),
        (r#","exp":0"#, Some(R::Expired)),
        (r#","exp":NOW-30"#, Some(R::Expired)),
        (r#","exp":NOW-30.9"#, Some(R::Expired)),
        (r#","exp":NOW-30.99999999999999999999999999"#, Some(R::Expired)),
        (r#","exp":NOW-3600"#, Some(R::Expired)),
        (r#","exp":NOW-10"#, None), // within the leeway
    ];
    let authority = TestAuthority::offline();
    check(&Verifier::new(authority.local_jwks()), &authority, &cases).await;

    let strict = Verifier::new(authority.local_jwks()).leeway(Duration::ZERO);
    check(
        &strict,
        &authority,
        &[(r#","exp":NOW"#, Some(R::Expired)), (r#","exp":NOW-1"#, Some(R::Expired))],
    )
    .await;
    // The leeway is at most five minutes.
    let lax = Verifier::new(authority.local_jwks()).leeway(Duration::MAX);
    check(
        &lax,
        &authority,
        &[(r#","exp":NOW-240"#, None), (r#","exp":NOW-300"#, Some(R::Expired))],
    )
    .await;
}

#[tokio::test]
async fn each_configured_issuer_is_accepted() {
    let authority = TestAuthority::offline();
    let verifier = Verifier::new(authority.local_jwks()).issuer("https://a").issuer("https://b");
    let cases = [
        (r#","exp":NOW+60,"iss":"https://a""#, None),
        (r#","exp":NOW+60,"iss":"https://b""#, None),
        (r#","exp":NOW+60,"iss":"https://c""#, Some(R::WrongIssuer)),
        (r#","exp":NOW+60,"iss":"""#, Some(R::WrongIssuer)),
        (r#","exp":NOW+60,"iss":["https://a"]"#, Some(R::WrongIssuer)),
        (r#","exp":NOW+60"#, Some(R::WrongIssuer)),
    ];
    check(&verifier, &authority, &cases).await;
}

#[tokio::test]
async fn future_or_malformed_nbf_and_iat_are_refused() {
    let cases = [
        (r#","exp":NOW+3600,"nbf":NOW,"iat":NOW"#, None),
        (r#","exp":NOW+3600,"nbf":NOW+20,"iat":NOW+20"#, None), // within the leeway
        (r#","exp":NOW+3600,"nbf":0,"iat":0.5"#, None),
        (r#","exp":NOW+3600,"nbf":NOW+600"#, Some(R::NotYetValid)),
        (r#","exp":NOW+3600,"iat":NOW+600"#, Some(R::IssuedInFuture)),
        (r#","exp":NOW+3600,"nbf":"NOW""#, Some(R::MalformedNotBefore)),
        (r#","exp":NOW+3600,"nbf":null"#, Some(R::MalformedNotBefore)),
        (r#","exp":NOW+3600,"nbf":-1"#, Some(R::MalformedNotBefore)),
        (r#","exp":NOW+3600,"nbf":1e308"#, Some(R::MalformedNotBefore)),
        (r#","exp":NOW+3600,"iat":"NOW""#, Some(R::MalformedIssuedAt)),
        (r#","exp":NOW+3600,"iat":null"#, Some(R::MalformedIssuedAt)),
        (r#","exp":NOW+3600,"iat":[]"#, Some(R::MalformedIssuedAt)),
    ];
    let authority = TestAuthority::offline();
    check(&Verifier::new(authority.local_jwks()), &authority, &cases).await;
}

#[tokio::test]
async fn token_over_max_lifetime_is_refused() {
    let authority = TestAuthority::offline();
    let bounded = Verifier::new(authority.local_jwks()).max_lifetime(Duration::from_secs(3600));
    let cases = [
        (r#","iat":NOW-10,"exp":NOW+3590"#, None),
        (r#","iat":NOW-10,"exp":NOW+3591"#, Some(R::LifetimeTooLong)),
        (r#","iat":NOW-10,"exp":9007199254740991"#, Some(R::LifetimeTooLong)),
        (r#","exp":NOW+60"#, Some(R::MalformedIssuedAt)),
    ];
    check(&bounded, &authority, &cases).await;
    let unbounded = Verifier::new(authority.local_jwks()).max_lifetime(Duration::MAX);
    check(&unbounded, &authority, &[(r#","iat":0,"exp":9007199254740991"#, None)]).await;
}

#[tokio::test]
async fn wrong_issuer_audience_or_subject_is_refused() {
    let authority = TestAuthority::offline();
    let verifier = Verifier::new(authority.local_jwks())
        .issuer(ISSUER)
        .audience("billing")
        .audience("ledger")
        .subject("orders");
    let good = r#","exp":NOW+60,"iss":"https://api.example.com","aud":"billing","sub":"orders""#;
    let with = |from: &str, to: &str| good.replace(from, to);
    let cases = [
        (good.to_owned(), None),
        (with(r#""billing""#, r#"["billing"]"#), None),
        (with(r#""billing""#, r#"["other","ledger"]"#), None),
        (with(r#""billing""#, r#""b\u0069lling""#), None),
        (with("https://api", "https:\\/\\/api"), None),
        (with(r#","iss":"https://api.example.com""#, ""), Some(R::WrongIssuer)),
        (
            with(r#""https://api.example.com""#, r#"["https://api.example.com"]"#),
            Some(R::WrongIssuer),
        ),
        (with(r#""https://api.example.com""#, "null"), Some(R::WrongIssuer)),
        (with("example.com", "example.com/"), Some(R::WrongIssuer)),
        (with("example.com", "example.com/auth"), Some(R::WrongIssuer)),
        (with("https://api", "https://API"), Some(R::WrongIssuer)),
        (with(r#","aud":"billing""#, ""), Some(R::WrongAudience)),
        (with(r#""billing""#, "7"), Some(R::WrongAudience)),
        (with(r#""billing""#, "[]"), Some(R::WrongAudience)),
        (with(r#""billing""#, r#"["billing",7]"#), Some(R::WrongAudience)),
        (with(r#""billing""#, r#"[["billing"]]"#), Some(R::WrongAudience)),
        (with(r#""billing""#, r#"{"billing":1}"#), Some(R::WrongAudience)),
        (with(r#""billing""#, r#""billing,ledger""#), Some(R::WrongAudience)),
        (with(r#","sub":"orders""#, ""), Some(R::WrongSubject)),
        (with(r#""orders""#, "[\"orders\"]"), Some(R::WrongSubject)),
        (with(r#""orders""#, "\"Orders\""), Some(R::WrongSubject)),
    ];
    let cases: Vec<_> = cases.iter().map(|(members, reason)| (members.as_str(), *reason)).collect();
    check(&verifier, &authority, &cases).await;
    // Without a configured value any string is accepted, and other types are refused.
    let unconfigured = [
        (r#","exp":NOW+60,"iss":"x","aud":["x","y"],"sub":"x""#, None),
        (r#","exp":NOW+60,"iss":7"#, Some(R::WrongIssuer)),
        (r#","exp":NOW+60,"aud":{"x":[]}"#, Some(R::WrongAudience)),
        (r#","exp":NOW+60,"sub":null"#, Some(R::WrongSubject)),
    ];
    check(&Verifier::new(authority.local_jwks()), &authority, &unconfigured).await;
}

#[tokio::test]
async fn registered_claim_that_is_null_is_refused() {
    // (claim, reason), whether the claim is configured or not. `null` is not an absent claim.
    let registered = [
        ("exp", R::MalformedExpiration),
        ("nbf", R::MalformedNotBefore),
        ("iat", R::MalformedIssuedAt),
        ("iss", R::WrongIssuer),
        ("aud", R::WrongAudience),
        ("sub", R::WrongSubject),
        ("cnf", R::SenderConstrained),
    ];
    let authority = TestAuthority::offline();
    let configured =
        Verifier::new(authority.local_jwks()).issuer(ISSUER).audience("billing").subject("orders");
    for (verifier, names) in [
        (Verifier::new(authority.local_jwks()), json!({})),
        (configured, json!({"iss": ISSUER, "aud": "billing", "sub": "orders"})),
    ] {
        let token = |claim: &str| {
            let mut claims = names.clone();
            claims["exp"] = (now() + 3600).into();
            claims["source"] = "microservice".into();
            claims["service"] = "orders".into();
            claims[claim] = Value::Null;
            authority.sign_claims(claims)
        };
        for (claim, reason) in registered {
            assert_eq!(verify(&verifier, &token(claim)).await, Err(reason), "{claim} {names}");
        }
        for claim in ["jti", "Cnf", "Sub", "roles"] {
            let admitted = Ok("orders".to_owned());
            assert_eq!(verify(&verifier, &token(claim)).await, admitted, "{claim} {names}");
        }
    }
}

#[tokio::test]
async fn sender_constrained_token_is_refused() {
    // RFC 9449 §6, RFC 8705 §3.1 and RFC 7800 §3.2: the claim binds the token to a key.
    let cases = [
        (r#","exp":NOW+60,"cnf":{"jkt":"0ZcOCORZNYy"}"#, Some(R::SenderConstrained)),
        (r#","exp":NOW+60,"cnf":{"x5t#S256":"bwcK0esc3ACC"}"#, Some(R::SenderConstrained)),
        (r#","exp":NOW+60,"cnf":{"jwk":{"kty":"EC"}}"#, Some(R::SenderConstrained)),
        (r#","exp":NOW+60,"c\u006ef":{}"#, Some(R::SenderConstrained)),
        (r#","exp":NOW-60,"cnf":{}"#, Some(R::Expired)),
        (r#","exp":NOW+60,"act":{"cnf":{}}"#, None),
    ];
    let authority = TestAuthority::offline();
    check(&Verifier::new(authority.local_jwks()), &authority, &cases).await;
}

#[tokio::test]
async fn only_before_a_fetch_for_a_key_the_claims_come_first() {
    let (known, unknown) = (TestAuthority::start().await, TestAuthority::offline());
    let jwks = known.jwks_builder().cooldown(Duration::from_secs(10)).build().unwrap();
    let verifier = known.verifier_with(jwks);
    assert!(verify(&verifier, &known.token().sign()).await.is_ok());
    let local = known.verifier_with(known.local_jwks());
    let defects: [(Defect, R); 4] = [
        (TokenBuilder::expired, R::Expired),
        (|token| token.claim("iat", now() + 600), R::IssuedInFuture),
        (|token| token.claim("iss", "https://other"), R::WrongIssuer),
        (|token| token.claim("cnf", json!({})), R::SenderConstrained),
    ];
    for (with_defect, reason) in defects {
        let token = with_defect(known.token());
        assert_eq!(verify(&verifier, &token.clone().sign()).await, Err(reason));
        // The sender of a forged token does not learn what is required.
        let forged = token.forged().sign();
        assert_eq!(verify(&verifier, &forged).await, Err(R::BadSignature), "{reason:?}");
        let of_unknown_key = with_defect(unknown.token());
        for token in [of_unknown_key.clone().sign(), of_unknown_key.forged().sign()] {
            assert_eq!(verify(&verifier, &token).await, Err(reason));
            assert_eq!(verify(&local, &token).await, Err(R::UnknownKey), "{reason:?}");
        }
    }
    assert_eq!(known.fetches(), 1);
    // Once a fetch has not listed the key, the header decides; once the fetch limit is exhausted,
    // it decides for each unknown key.
    for (kid, fetches) in [("a", 2), ("b", 3), ("c", 3)] {
        let token = unknown.token().kid(kid);
        for token in [token.clone(), token.expired()] {
            assert_eq!(verify(&verifier, &token.sign()).await, Err(R::UnknownKey));
            assert_eq!(known.fetches(), fetches);
        }
    }
}

#[tokio::test]
async fn malformed_claims_are_refused() {
    let authority = TestAuthority::offline();
    let verifier = Verifier::new(authority.local_jwks());
    let exp = format!(r#""exp":{}"#, now() + 60);
    let good = format!(r#"{{{exp},"source":"microservice"}}"#);
    let deep = |depth: usize| {
        format!(
            r#"{{{exp},"source":"microservice","x":{}{}}}"#,
            "[".repeat(depth),
            "]".repeat(depth)
        )
    };
    let cases = [
        (good.clone(), true),
        (format!(" {good}\n"), true),
        (deep(31), true),
        (deep(32), false),
        (format!("[{good}]"), false),
        (format!("{good}{good}"), false),
        (format!("{good} x"), false),
        (format!("\u{feff}{good}"), false),
        (good.replace("exp\"", "exp\":1,\"exp\""), false),
        (good.replace("exp\"", "\\u0065xp\":1,\"exp\""), false),
        (good.replace('}', ",\"source\":\"microservice\"}"), false),
        (good.replace('}', ",\"x\":{\"y\":1,\"y\":1}}"), false),
        (good.replace('}', ",\"x\":NaN}"), false),
        (good.replace('}', ",\"x\":\"\\ud800\"}"), false),
        ("null".into(), false),
        ("1".into(), false),
        ("\"x\"".into(), false),
    ];
    for (claims, accepted) in cases {
        let expected = if accepted { Ok("nameless".to_owned()) } else { Err(R::MalformedClaims) };
        assert_eq!(verify(&verifier, &authority.sign_claims(&claims)).await, expected, "{claims}");
    }
    // serde_json's `raw_value` is enabled in this build and would replace a `RawValue` object with
    // the JSON in its string.
    let magic = r#"{"$serde_json::private::RawValue":"\"microservice\""}"#;
    let deep = format!(
        r#"{{"$serde_json::private::RawValue":"{}1{}"}}"#,
        "[".repeat(2000),
        "]".repeat(2000)
    );
    for claims in [
        good.replace(r#""microservice""#, magic),
        good.replace('}', &format!(r#","x":{magic}}}"#)),
        good.replace('}', &format!(r#","x":[[{deep}]]}}"#)),
        good.replace('}', r#","x":{"$serde_json::private::Number":"1"}}"#),
        good.replace('{', r#"{"\u0024serde_json::private::RawValue":"{}","#),
    ] {
        assert_eq!(
            verify(&verifier, &authority.sign_claims(&claims)).await,
            Err(R::MalformedClaims),
            "{claims}"
        );
    }
    let broken = [good.trim_end_matches('}').as_bytes(), b",\"x\":\"\xff\"}"].concat();
    let token = authority.token().sign();
    let (header, _) = token.split_once('.').unwrap();
    let token = authority.sign_input(format!("{header}.{}", encode(broken)));
    assert_eq!(verify(&verifier, &token).await, Err(R::MalformedClaims), "not UTF-8");
}

#[tokio::test]
async fn token_without_the_exact_marker_is_refused() {
    let authority = TestAuthority::offline();
    let verifier = Verifier::new(authority.local_jwks());
    let exp = now() + 60;
    let cases = [
        (r#""source":"microservice""#, true),
        (r#""s\u006furce":"micro\u0073ervice""#, true),
        (r#""x":1"#, false),
        (r#""source":null"#, false),
        (r#""source":1"#, false),
        (r#""source":true"#, false),
        (r#""source":["microservice"]"#, false),
        (r#""source":{"microservice":true}"#, false),
        (r#""source":"Microservice""#, false),
        (r#""source":"microservice ""#, false),
        (r#""source":" microservice""#, false),
        (r#""source":"microservice\u0000""#, false),
        (r#""source":"micr\u043eservice""#, false),
        (r#""source":"""#, false),
        (r#""Source":"microservice""#, false),
        (r#""payload":{"source":"microservice"}"#, false),
    ];
    for (member, accepted) in cases {
        let token = authority.sign_claims(format!(r#"{{"exp":{exp},{member}}}"#));
        let expected = if accepted { Ok("nameless".to_owned()) } else { Err(R::NotMicroservice) };
        assert_eq!(verify(&verifier, &token).await, expected, "{member}");
    }
}

#[tokio::test]
async fn configured_marker_replaces_the_default() {
    let authority = TestAuthority::offline();
    let token = |name: &str, value: serde_json::Value| {
        authority.sign_claims(json!({"exp": now() + 60, name: value}))
    };
    let renamed = Verifier::new(authority.local_jwks()).marker("kind", "service");
    assert!(verify(&renamed, &token("kind", "service".into())).await.is_ok());
    assert_eq!(
        verify(&renamed, &token("source", "microservice".into())).await,
        Err(R::NotMicroservice)
    );
    let oauth = Verifier::new(authority.local_jwks()).marker("stt", 1);
    assert!(verify(&oauth, &token("stt", 1.into())).await.is_ok());
    for (name, value) in [
        ("stt", json!(0)),
        ("stt", json!("1")),
        ("stt", json!(true)),
        ("source", "microservice".into()),
    ] {
        assert_eq!(verify(&oauth, &token(name, value)).await, Err(R::NotMicroservice), "{name}");
    }
}

#[tokio::test]
async fn end_user_token_is_refused() {
    let authority = TestAuthority::offline();
    let exp = now() + 3600;
    let users = [
        (
            "a session token",
            json!({"iat": now(), "exp": exp, "sub": "4f2d", "tId": "public", "rsub": "4f2d", "sessionHandle": "9a1c",
                "refreshTokenHash1": "5e88", "parentRefreshTokenHash1": null, "antiCsrfToken": null,
                "iss": "https://api.example.com/auth"}),
        ),
        (
            "an OAuth2 access token",
            json!({"iat": now(), "exp": exp, "sub": "4f2d", "stt": 1, "client_id": "stcl_1", "scope": "offline_access",
                "aud": ["stcl_1"], "iss": "https://api.example.com/auth"}),
        ),
        (
            "an OpenID Connect ID token",
            json!({"iat": now(), "exp": exp, "sub": "4f2d", "stt": 2, "nonce": "n", "at_hash": "x", "aud": ["stcl_1"],
                "iss": "https://api.example.com/auth"}),
        ),
    ];
    let any_issuer = Verifier::new(authority.local_jwks());
    let users_issuer = Verifier::new(authority.local_jwks()).issuer("https://api.example.com/auth");
    let services_issuer = Verifier::new(authority.local_jwks()).issuer(ISSUER);
    for (case, claims) in users {
        let token = authority.sign_claims(&claims);
        for (verifier, reason) in [
            (&any_issuer, R::NotMicroservice),
            (&users_issuer, R::NotMicroservice),
            (&services_issuer, R::WrongIssuer),
        ] {
            assert_eq!(verify(verifier, &token).await, Err(reason), "{case}");
        }
    }
}

/// serde_json's `raw_value` is enabled in this build and would replace a `RawValue` object with the
/// JSON in its string, so the core would sign a marker that a filter in front of it does not see.
#[tokio::test]
async fn payload_with_a_serde_json_name_is_not_signed() {
    let authority = TestAuthority::start().await;
    let core = reqwest::Client::new().post(format!("{}/recipe/jwt", authority.core_url()));
    let deep = format!("{}1{}", "[".repeat(1000), "]".repeat(1000));
    let payloads = [
        r#"{"sub":"u","source":{"$serde_json::private::RawValue":"\"microservice\""}}"#.to_owned(),
        r#"{"$serde_json::private::RawValue":"{\"source\":\"microservice\"}"}"#.to_owned(),
        r#"{"sub":"u","x":[{"\u0024serde_json::private::RawValue":"1"}]}"#.to_owned(),
        format!(r#"{{"x":{{"$serde_json::private::RawValue":"{deep}"}}}}"#),
        r#"{"x":{"$serde_json::private::Number":"1"}}"#.to_owned(),
    ];
    for payload in payloads {
        let body = format!(
            r#"{{"payload":{payload},"validity":60,"algorithm":"RS256","jwksDomain":"x"}}"#
        );
        let response = core.try_clone().unwrap().body(body).send().await.unwrap();
        assert_eq!(response.status(), 400, "{payload}");
    }
}
