use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::super::error::TokenError;
use super::super::service_token::ServiceToken;
use crate::testing::TestAuthority;

#[test]
fn only_an_unexpired_jwt_is_accepted() {
    let authority = TestAuthority::offline();
    let jwt = |claims| authority.sign_parts(r#"{"alg":"RS256"}"#, claims);
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
    let authority = TestAuthority::offline();
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
        let outcome = ServiceToken::from_jwt(authority.sign_parts(header, r#"{"exp":4953600000}"#));
        let shown = &header[..header.len().min(60)];
        assert_eq!(outcome.is_ok(), accepted, "{shown}: {outcome:?}");
    }
    let header = r#"{"alg":"HS256"}"#;
    let signed = |payload: &str| authority.sign_parts(header, payload);
    let any = signed("{}");
    let (encoded_header, _) = any.split_once('.').unwrap();
    let large = signed(&format!(r#"{{"x":"{}"}}"#, "x".repeat(64 * 1024)));
    // Unsigned, encrypted, badly encoded, without claims, or too long.
    for text in ["e30.", "e30.c2ln.c2ln.c2ln", "e30=.c2ln", "e30.c2k=", ".c2ln"]
        .map(|rest| format!("{encoded_header}.{rest}"))
        .into_iter()
        .chain([signed("[]"), signed("text"), signed(r#"{"exp":1,"exp":2}"#), large])
    {
        let outcome = ServiceToken::from_jwt(&text);
        let shown = &text[..text.len().min(60)];
        assert!(matches!(outcome, Err(TokenError::Malformed { .. })), "{shown}: {outcome:?}");
    }
}

#[test]
fn token_is_sensitive_and_never_appears_in_debug() {
    let authority = TestAuthority::offline();
    let text = authority.token().sign();
    let (_, signature) = text.rsplit_once('.').unwrap();
    let token = ServiceToken::from_jwt(&text).unwrap();
    let mut headers = HeaderMap::new();
    token.apply(&mut headers);
    assert_eq!(headers[AUTHORIZATION], format!("Bearer {text}"));
    for printed in
        [format!("{token:?}"), format!("{headers:?}"), format!("{:?}", token.header_value())]
    {
        assert!(!printed.contains(signature), "{printed}");
    }
    let expired = authority.token().expired().sign();
    let (_, signature) = expired.rsplit_once('.').unwrap();
    let err = ServiceToken::from_jwt(&expired).unwrap_err();
    assert!(!format!("{err} {err:?}").contains(signature));
}
