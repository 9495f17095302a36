use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::super::error::TokenError;
use super::super::service_token::ServiceToken;

fn jwt(claims: &str) -> String {
    format!(
        "{}.{}.c2VjcmV0",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256"}"#),
        URL_SAFE_NO_PAD.encode(claims)
    )
}

#[test]
fn only_an_unexpired_jwt_is_accepted() {
    let cases = [
        (jwt(r#"{"exp":4953600000}"#), true),
        (format!(" {}\n", jwt(r#"{"exp":4953600000}"#)), true),
        (jwt("{}"), true),
        (jwt(r#"{"exp":1}"#), false),
        (jwt(r#"{"exp":"soon"}"#), false),
        (jwt("[]"), false),
        ("not a token".to_owned(), false),
        (String::new(), false),
    ];
    for (text, accepted) in cases {
        assert_eq!(ServiceToken::from_jwt(&text).is_ok(), accepted, "{text}");
    }
}

#[test]
fn only_the_form_of_a_header_is_checked() {
    let text = |header: &str, rest: &str| format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header));
    let claims = format!("{}.c2ln", URL_SAFE_NO_PAD.encode(r#"{"exp":4953600000}"#));
    let long = format!(r#"{{"alg":"RS256","x5c":["{}"]}}"#, "A".repeat(6000));
    // (header, whether the token is accepted)
    let cases = [
        (r#"{"alg":"HS256","typ":"JWT"}"#, true),
        (r#"{"alg":"ES512"}"#, true),
        (r#"{"alg":"ES256K"}"#, true),
        (r#"{"alg":"ML-DSA-44"}"#, true),
        (r#"{"alg":"RS256","typ":"dpop+jwt"}"#, true),
        (r#"{"alg":"RS256","typ":"JOSE"}"#, true),
        (r#"{"alg":"RS256","typ":null}"#, true),
        (r#"{"alg":"RS256","kid":null}"#, true),
        (r#"{"alg":"RS256","kid":""}"#, true),
        (r#"{"alg":"RS256","crit":["exp"],"exp":1}"#, true),
        (r#"{"alg":"RS256","cty":"JWT"}"#, true),
        (&long, true),
        (r#"["alg"]"#, false),
        (r#"{"alg":"RS256"} x"#, false),
        (r#"{"alg":RS256}"#, false),
        ("", false),
    ];
    for (header, accepted) in cases {
        let outcome = ServiceToken::from_jwt(text(header, &claims));
        let shown = &header[..header.len().min(60)];
        assert_eq!(outcome.is_ok(), accepted, "{shown}: {outcome:?}");
    }
    let header = r#"{"alg":"HS256"}"#;
    let payload = |payload: &str| format!("{}.c2ln", URL_SAFE_NO_PAD.encode(payload));
    let large = payload(&format!(r#"{{"x":"{}"}}"#, "x".repeat(64 * 1024)));
    // Unsigned, encrypted, badly encoded, without claims, or too long.
    for rest in ["e30.", "e30.c2ln.c2ln.c2ln", "e30=.c2ln", "e30.c2k=", ".c2ln"]
        .map(str::to_owned)
        .into_iter()
        .chain([payload("[]"), payload("text"), payload(r#"{"exp":1,"exp":2}"#), large])
    {
        let outcome = ServiceToken::from_jwt(text(header, &rest));
        let shown = &rest[..rest.len().min(60)];
        assert!(matches!(outcome, Err(TokenError::Malformed { .. })), "{shown}: {outcome:?}");
    }
}

#[test]
fn token_is_sensitive_and_never_appears_in_debug() {
    let text = jwt(r#"{"exp":4953600000}"#);
    let token = ServiceToken::from_jwt(&text).unwrap();
    let mut headers = HeaderMap::new();
    token.apply(&mut headers);
    assert_eq!(headers[AUTHORIZATION], format!("Bearer {text}"));
    for printed in
        [format!("{token:?}"), format!("{headers:?}"), format!("{:?}", token.header_value())]
    {
        assert!(!printed.contains("c2VjcmV0"), "{printed}");
    }
    let err = ServiceToken::from_jwt(jwt(r#"{"exp":1}"#)).unwrap_err();
    assert!(!format!("{err} {err:?}").contains("c2VjcmV0"));
}
