//! Which headers and encodings of a token the layer accepts. The signatures are valid unless the
//! case is about the signature.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA512,
};
use serde_json::json;
use tower_m2m::testing::TestAuthority;
use tower_m2m::{
    Algorithm, KeySetError, LocalJwks, RejectionReason as R, Verifier, VerifyServiceTokenLayer,
};

use crate::observe::send_to_both;
use crate::pem::{public_der, public_key};
use crate::support::{ResponseSummary, UnusedListener, bearer, decode, encode, now};

/// Sends a token through an enforcing and an observing layer. Returns the caller's name or the
/// reason of the rejection, and asserts the response's status.
pub(crate) async fn verify(verifier: &Verifier, token: &str) -> Result<String, R> {
    let layer = VerifyServiceTokenLayer::new(verifier.clone());
    let response = send_to_both(&layer, || bearer(token)).await;
    let ResponseSummary { status, reason, .. } = ResponseSummary::of(&response);
    let Some(reason) = reason else {
        assert_eq!(status, 200);
        return Ok(response.into_body());
    };
    let expected = match reason {
        R::NotMicroservice => 403,
        R::MalformedCredentials | R::MultipleCredentials => 400,
        R::KeysNotLoaded | R::FetchFailed | R::KeysStale | R::TooManyWaiting => 503,
        _ => 401,
    };
    assert_eq!(status, expected, "{reason:?}");
    Err(reason)
}

fn good_claims() -> String {
    format!(r#"{{"exp":{},"source":"microservice","service":"orders"}}"#, now() + 3600)
}

#[tokio::test]
async fn malformed_or_unsupported_header_is_refused() {
    let authority = TestAuthority::offline();
    authority.rotate_to("k");
    authority.withdraw();
    let with = |members: &str| format!(r#"{{"alg":"EdDSA","kid":"k"{members}}}"#);
    let deep = |depth: usize| with(&format!(r#","x":{}{}"#, "[".repeat(depth), "]".repeat(depth)));
    let padded =
        |len: usize| with(&format!(r#","x":"{}""#, "x".repeat(len - with(r#","x":"""#).len())));
    let kid = |kid: &str| format!(r#"{{"alg":"EdDSA","kid":{kid}}}"#);
    let cases = [
        (with(""), None),
        (with(r#","typ":"JWT""#), None),
        (with(r#","typ":"jwt""#), None),
        (with(r#","typ":"at+jwt""#), None),
        (with(r#","typ":"application/at+JWT""#), None),
        (with(r#","typ":"JOSE""#), None),
        (with(r#","typ":"jose""#), None),
        (with(r#","typ":"dpop+jwt""#), Some(R::UnsupportedTokenType)),
        (with(r#","typ":"secevent+jwt""#), Some(R::UnsupportedTokenType)),
        (with(r#","typ":"JOSE+JSON""#), Some(R::UnsupportedTokenType)),
        (with(r#","typ":"id_token+jwt""#), Some(R::UnsupportedTokenType)),
        (with(r#","typ":["JWT"]"#), Some(R::UnsupportedTokenType)),
        (with(r#","cty":"JWT""#), Some(R::NestedToken)),
        (with(r#","cty":"application/jwt""#), Some(R::NestedToken)),
        (with(r#","cty":"json""#), None),
        (with(r#","enc":"A256GCM""#), Some(R::EncryptedToken)),
        (with(r#","zip":"DEF""#), Some(R::EncryptedToken)),
        (with(r#","crit":["exp"],"exp":1"#), Some(R::CriticalHeader)),
        (with(r#","crit":["b64"],"b64":false"#), Some(R::CriticalHeader)),
        (with(r#","crit":[]"#), Some(R::CriticalHeader)),
        (with(r#","crit":null"#), Some(R::CriticalHeader)),
        (with(r#","b64":true"#), Some(R::CriticalHeader)),
        (with(r#","b64":null"#), Some(R::CriticalHeader)),
        (with(r#","alg":"EdDSA""#), Some(R::MalformedHeader)),
        (with(r#","\u0061lg":"none""#), Some(R::MalformedHeader)),
        (with(r#","\u006bid":"k""#), Some(R::MalformedHeader)),
        (with(r#","x":1,"x":1"#), Some(R::MalformedHeader)),
        (with(r#","x":{"y":1,"y":1}"#), Some(R::MalformedHeader)),
        (with(r#","x":NaN"#), Some(R::MalformedHeader)),
        (with(r#","x":1e999"#), Some(R::MalformedHeader)),
        (with(r#","x":"\ud800""#), Some(R::MalformedHeader)),
        (with(r#","$serde_json::private::RawValue":"1""#), Some(R::MalformedHeader)),
        (with(r#","x":[{"$serde_json::private::RawValue":"[[[]]]"}]"#), Some(R::MalformedHeader)),
        (kid(r#"{"$serde_json::private::RawValue":"\"k\""}"#), Some(R::MalformedKid)),
        (with("") + " ", None),
        (with("") + "{}", Some(R::MalformedHeader)),
        (with("") + "\0", Some(R::MalformedHeader)),
        ("\u{feff}".to_owned() + &with(""), Some(R::MalformedHeader)),
        (format!("[{}]", with("")), Some(R::MalformedHeader)),
        ("null".into(), Some(R::MalformedHeader)),
        (deep(31), None),
        (deep(32), Some(R::MalformedHeader)),
        (padded(2048), None),
        (padded(2049), Some(R::MalformedHeader)),
        (r#"{"alg":"Ed25519","kid":"k"}"#.into(), None),
        (r#"{"alg":"EdDSA"}"#.into(), None), // a single key needs no `kid`
        (r#"{"kid":"k"}"#.into(), Some(R::UnsupportedAlgorithm)),
        (r#"{"alg":null,"kid":"k"}"#.into(), Some(R::UnsupportedAlgorithm)),
        (r#"{"alg":["EdDSA"],"kid":"k"}"#.into(), Some(R::UnsupportedAlgorithm)),
        (r#"{"alg":"eddsa","kid":"k"}"#.into(), Some(R::UnsupportedAlgorithm)),
        (r#"{"alg":"RS256","kid":"k"}"#.into(), Some(R::UnknownKey)),
        (r#"{"alg":"ES256","kid":"k"}"#.into(), Some(R::UnknownKey)),
        (kid(r#""K""#), Some(R::UnknownKey)),
        (kid(r#""k ""#), Some(R::UnknownKey)),
        (kid(r#""k\u0000""#), Some(R::UnknownKey)),
        (kid(r#""../../../../etc/passwd""#), Some(R::UnknownKey)),
        (kid(r#""k' OR '1'='1""#), Some(R::UnknownKey)),
        (kid(r#""\u006b""#), None),
        (kid(&format!(r#""{}""#, "k".repeat(256))), Some(R::UnknownKey)),
        (kid(&format!(r#""{}""#, "k".repeat(257))), Some(R::MalformedKid)),
        (kid(r#""""#), Some(R::MalformedKid)),
        (kid("7"), Some(R::MalformedKid)),
        (kid("null"), Some(R::MalformedKid)),
        (kid(r#"["k"]"#), Some(R::MalformedKid)),
    ];
    let verifier = Verifier::new(authority.local_jwks());
    for (header, reason) in cases {
        let expected = reason.map_or(Ok("orders".to_owned()), Err);
        assert_eq!(
            verify(&verifier, &authority.sign_parts(&header, &good_claims())).await,
            expected,
            "{header}"
        );
    }
    let broken = authority.sign_input(format!(
        "{}.{}",
        encode(b"{\"alg\":\"EdDSA\",\"x\":\"\xff\"}"),
        encode(good_claims())
    ));
    assert_eq!(verify(&verifier, &broken).await, Err(R::MalformedHeader));
    let megabyte = kid(&format!(r#""{}""#, "k".repeat(1 << 20)));
    assert_eq!(
        verify(&verifier, &authority.sign_parts(&megabyte, &good_claims())).await,
        Err(R::TokenTooLong)
    );
}

#[tokio::test]
async fn alg_none_and_hmac_with_the_public_key_are_refused() {
    let authority = TestAuthority::offline();
    authority.rotate_to("k");
    authority.withdraw();
    let verifier = Verifier::new(authority.local_jwks());
    for alg in ["none", "None", "nOnE", "NONE", ""] {
        let unsigned = format!(
            "{}.{}.",
            encode(format!(r#"{{"alg":"{alg}","kid":"k"}}"#)),
            encode(good_claims())
        );
        assert_eq!(verify(&verifier, &unsigned).await, Err(R::NotThreeParts), "{alg}");
        assert_eq!(
            verify(&verifier, &format!("{unsigned}AA")).await,
            Err(R::UnsupportedAlgorithm),
            "{alg}"
        );
        assert_eq!(
            verify(&verifier, &unsigned[..unsigned.len() - 1]).await,
            Err(R::NotThreeParts),
            "{alg}"
        );
    }
    let (raw, der, jwk) = (public_key(&authority), public_der(&authority), authority.jwk());
    for (alg, method) in
        [("HS256", hmac::HMAC_SHA256), ("HS384", hmac::HMAC_SHA384), ("HS512", hmac::HMAC_SHA512)]
    {
        for secret in [&*raw, &der, jwk.as_bytes(), b""] {
            let input = format!(
                "{}.{}",
                encode(format!(r#"{{"alg":"{alg}","kid":"k"}}"#)),
                encode(good_claims())
            );
            let tag = hmac::sign(&hmac::Key::new(method, secret), input.as_bytes());
            let token = format!("{input}.{}", encode(tag));
            assert_eq!(verify(&verifier, &token).await, Err(R::UnsupportedAlgorithm), "{alg}");
        }
    }
}

#[tokio::test]
async fn algorithm_is_bound_to_the_key() {
    let key = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).unwrap();
    let jwk = |alg: &str| {
        let part = |bytes: &[u8]| encode(bytes);
        let (n, e) = (key.public_key().modulus(), key.public_key().exponent());
        let (n, e) =
            (part(n.big_endian_without_leading_zero()), part(e.big_endian_without_leading_zero()));
        LocalJwks::from_json(format!(
            r#"{{"keys":[{{"kty":"RSA","kid":"r","n":"{n}","e":"{e}"{alg}}}]}}"#
        ))
        .unwrap()
    };
    let token = |alg: &str, pss: bool| {
        let input = format!(
            "{}.{}",
            encode(format!(r#"{{"alg":"{alg}","kid":"r"}}"#)),
            encode(good_claims())
        );
        let mut signature = vec![0; key.public_modulus_len()];
        let encoding = if pss {
            &RSA_PSS_SHA512 as &dyn aws_lc_rs::signature::RsaEncoding
        } else {
            &RSA_PKCS1_SHA256
        };
        key.sign(encoding, &SystemRandom::new(), input.as_bytes(), &mut signature).unwrap();
        format!("{input}.{}", encode(signature))
    };
    let bound = Verifier::new(jwk(r#","alg":"RS256""#));
    let free = Verifier::new(jwk(""));
    let narrow = free.clone().algorithms([Algorithm::RS256]);
    let cases = [
        (&bound, token("RS256", false), Ok(())),
        (&bound, token("PS512", true), Err(R::UnknownKey)),
        (&bound, token("RS256", true), Err(R::BadSignature)),
        (&free, token("PS512", true), Ok(())),
        (&free, token("PS512", false), Err(R::BadSignature)),
        (&free, token("EdDSA", true), Err(R::UnknownKey)),
        (&narrow, token("RS256", false), Ok(())),
        (&narrow, token("PS512", true), Err(R::AlgorithmNotAllowed)),
    ];
    for (index, (verifier, token, expected)) in cases.into_iter().enumerate() {
        assert_eq!(verify(verifier, &token).await.map(drop), expected, "case {index}");
    }
}

#[tokio::test]
async fn token_of_a_spiffe_bundle_is_admitted() {
    let authority = TestAuthority::offline();
    authority.rotate_to("k");
    authority.withdraw();
    let bundle = |of_use: &str| authority.jwks().replace(r#""sig""#, &format!(r#""{of_use}""#));
    let svid = authority.sign_parts(r#"{"alg":"EdDSA","kid":"k","typ":"JOSE"}"#, &good_claims());
    let keys = LocalJwks::from_json(bundle("jwt-svid")).unwrap();
    assert_eq!(verify(&Verifier::new(keys), &svid).await, Ok("orders".to_owned()));
    assert_eq!(LocalJwks::from_json(bundle("x509-svid")).unwrap_err(), KeySetError::NoUsableKey);
}

#[tokio::test]
async fn token_of_the_embedded_core_is_admitted() {
    let authority = TestAuthority::start().await;
    let verifier = authority.verifier();
    let token =
        authority.mint_payload(json!({"source": "microservice", "service": "billing"})).await;
    assert_eq!(verify(&verifier, &token).await, Ok("billing".to_owned()));
    let session = authority.mint_payload(json!({"sub": "u"})).await;
    assert_eq!(verify(&verifier, &session).await, Err(R::NotMicroservice));
    assert_eq!(decode(&token, 0)["alg"], "RS256");
}

#[tokio::test]
async fn non_canonical_encoding_is_refused() {
    let authority = TestAuthority::offline();
    authority.rotate_to("k");
    authority.withdraw();
    let verifier = Verifier::new(authority.local_jwks());
    // In each part the last base64url character has unused bits.
    let header = encode(r#"{"alg":"EdDSA","kid":"k" }"#);
    let payload =
        encode(format!(r#"{{"exp":{},"source":"microservice","service":"orders"}}"#, now() + 3600));
    let good = authority.sign_input(format!("{header}.{payload}"));
    let signature = good.rsplit('.').next().unwrap();
    assert_eq!(verify(&verifier, &good).await, Ok("orders".to_owned()));

    /// Another encoding of the same bytes: the last character's unused bits are not zero.
    fn with_trailing_bits(part: &str) -> Option<String> {
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let last = ALPHABET.iter().position(|byte| *byte == *part.as_bytes().last().unwrap())?;
        let spare =
            if part.len().is_multiple_of(4) { return None } else { ALPHABET[last | 1] as char };
        Some(format!("{}{spare}", &part[..part.len() - 1]))
    }
    let loose = |part: &str| with_trailing_bits(part).expect("the last character has unused bits");
    let cases = [
        (authority.sign_input(format!("{}.{payload}", loose(&header))), R::NotBase64Url),
        (authority.sign_input(format!("{header}.{}", loose(&payload))), R::NotBase64Url),
        (format!("{header}.{payload}.{}", loose(signature)), R::NotBase64Url),
        (authority.sign_input(format!("{header}.{payload}=")), R::MalformedCredentials),
        (format!("{good}=="), R::NotBase64Url),
        (good.replace('.', "+."), R::NotBase64Url),
        (
            authority.sign_input(format!("{header}.{}/{}", &payload[..4], &payload[5..])),
            R::NotBase64Url,
        ),
        (format!("{good}\u{20}"), R::MalformedCredentials),
        (format!("{header}.{payload}"), R::NotThreeParts),
        (format!("{good}."), R::NotThreeParts),
        (format!(".{good}"), R::NotThreeParts),
        (format!("{good}.{signature}"), R::NotThreeParts),
        (format!("{good}.{signature}.{signature}"), R::NotThreeParts),
        (format!("{header}..{signature}"), R::NotThreeParts),
        (format!(".{payload}.{signature}"), R::NotThreeParts),
        (format!("{header}.{payload}."), R::NotThreeParts),
        (".".repeat(8192), R::NotThreeParts),
        (".".repeat(1_000_000), R::TokenTooLong),
        (authority.sign_claims(format!("{}{}", good_claims(), " ".repeat(6100))), R::TokenTooLong),
    ];
    for (index, (token, reason)) in cases.into_iter().enumerate() {
        assert_eq!(verify(&verifier, &token).await, Err(reason), "case {index}: {:.120}", token);
    }
    let short = Verifier::new(authority.local_jwks()).max_token_len(good.len());
    assert_eq!(verify(&short, &good).await, Ok("orders".to_owned()));
    assert_eq!(verify(&short.max_token_len(good.len() - 1), &good).await, Err(R::TokenTooLong));
}

#[tokio::test]
async fn token_with_one_changed_character_is_refused() {
    let authority = TestAuthority::offline();
    let (verifier, good) = (authority.verifier(), authority.token().sign());
    for at in 0..good.len() {
        let other = if good.as_bytes()[at] == b'A' { "B" } else { "A" };
        let changed = format!("{}{other}{}", &good[..at], &good[at + 1..]);
        assert!(verify(&verifier, &changed).await.is_err(), "changed at {at}");
    }
    // Some of these differ from the last character only in the bits that base64url does not use.
    let (start, last) = good.split_at(good.len() - 1);
    for other in ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['-', '_']) {
        let is_good = verify(&verifier, &format!("{start}{other}")).await.is_ok();
        assert_eq!(is_good, last == other.to_string(), "{last} changed to {other}");
    }
}

#[tokio::test]
async fn ecdsa_r_and_s_out_of_range_are_refused() {
    /// The order of P-256 (SEC 2 §2.4.2).
    const N: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let order: Vec<u8> =
        (0..32).map(|at| u8::from_str_radix(&N[2 * at..2 * at + 2], 16).unwrap()).collect();

    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let point = pair.public_key().as_ref();
    let (x, y) = (encode(&point[1..33]), encode(&point[33..]));
    let jwk = format!(r#"{{"keys":[{{"kty":"EC","crv":"P-256","kid":"e","x":"{x}","y":"{y}"}}]}}"#);
    let verifier = Verifier::new(LocalJwks::from_json(jwk).unwrap());

    let input = format!("{}.{}", encode(r#"{"alg":"ES256","kid":"e"}"#), encode(good_claims()));
    let signature = pair.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
    let (r, s) = signature.as_ref().split_at(32);
    let mut borrow = 0;
    // n − s, which verifies too: ECDSA signatures are malleable.
    let mut other: Vec<u8> = (0..32)
        .rev()
        .map(|at| {
            let digit = i16::from(order[at]) - i16::from(s[at]) - borrow;
            borrow = i16::from(digit < 0);
            digit.rem_euclid(256) as u8
        })
        .collect();
    other.reverse();
    let zero = [0; 32];
    let cases: [(&[u8], &[u8], bool); 7] = [
        (r, s, true),
        (r, &other, true),
        (&zero, s, false),
        (r, &zero, false),
        (&zero, &zero, false),
        (&order, s, false),
        (r, &order, false),
    ];
    for (index, (r, s, accepted)) in cases.into_iter().enumerate() {
        let token = format!("{input}.{}", encode([r, s].concat()));
        let expected = if accepted { Ok("orders".to_owned()) } else { Err(R::BadSignature) };
        assert_eq!(verify(&verifier, &token).await, expected, "case {index}");
    }
    // A truncated signature.
    let token = format!("{input}.{}", encode(&signature.as_ref()[..63]));
    assert_eq!(verify(&verifier, &token).await, Err(R::BadSignature));
}

#[tokio::test]
async fn key_in_the_token_header_is_never_used() {
    let (authority, attacker) = (TestAuthority::start().await, TestAuthority::offline());
    for keys in [&authority, &attacker] {
        keys.rotate_to("k");
    }
    let unused = UnusedListener::new().await;
    let verifiers = [Verifier::new(authority.local_jwks()), Verifier::new(authority.remote_jwks())];
    let url = unused.url();
    let certificate = encode(public_key(&attacker));
    let cases = [
        format!(r#""jku":"{url}/jwks.json""#),
        format!(r#""x5u":"{url}/chain.pem""#),
        format!(r#""jwk":{}"#, attacker.jwk()),
        format!(r#""x5c":["{certificate}"]"#),
        format!(r#""jku":"{url}","x5u":"{url}","jwk":{},"x5c":["{certificate}"]"#, attacker.jwk()),
    ];
    for members in cases {
        for verifier in &verifiers {
            let known = format!(r#"{{"alg":"EdDSA","kid":"k",{members}}}"#);
            let result = verify(verifier, &attacker.sign_parts(&known, &good_claims())).await;
            assert_eq!(result, Err(R::BadSignature), "{members}");
            let unknown = format!(r#"{{"alg":"EdDSA","kid":"{url}",{members}}}"#);
            let result = verify(verifier, &attacker.sign_parts(&unknown, &good_claims())).await;
            assert_eq!(result, Err(R::UnknownKey), "{members}");
            // A valid token with these members is still admitted.
            assert!(
                verify(verifier, &authority.sign_parts(&known, &good_claims())).await.is_ok(),
                "{members}"
            );
        }
    }
    unused.assert_unused().await;
}
