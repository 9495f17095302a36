//! [`AnyVerifier`]: which verifier decides about a token, and what it knows of the others.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use serde_json::json;

use super::super::any_verifier::AnyVerifier;
use super::super::claims::ServiceClaims;
use super::super::concurrency::SignatureLimit;
use super::super::verifier::{Authentication, Verifier};
use crate::error::ConfigError;
use crate::jose::Algorithm;
use crate::rejection::RejectionReason as R;
use crate::testing::{TestAuthority, TokenBuilder};

const A: &str = "https://a.test";
const B: &str = "https://b.test";
const C: &str = "https://c.test";

/// Authorities of the issuers A, B and C, whose only keys all have the kid `k`.
fn authorities() -> [TestAuthority; 3] {
    [A, B, C].map(|issuer| {
        let authority = TestAuthority::offline().with_issuer(issuer);
        use_kid(&authority, "k");
        authority
    })
}

/// Signs with a new key of this kid, and lists no other.
fn use_kid(authority: &TestAuthority, kid: &str) {
    authority.rotate_to(kid);
    authority.withdraw();
}

/// The verifiers of two authorities, in both orders.
fn both_orders(a: &TestAuthority, b: &TestAuthority) -> [AnyVerifier; 2] {
    [(a, b), (b, a)].map(|(first, second)| first.verifier().or(second.verifier()).unwrap())
}

/// The issuer of a token, or the reason of its rejection.
fn outcome(verifier: &AnyVerifier, token: &str) -> Result<String, R> {
    claims(verifier, token).map(|claims| claims.issuer().unwrap().to_owned())
}

fn claims(verifier: &AnyVerifier, token: &str) -> Result<ServiceClaims, R> {
    loop {
        match verifier.authenticate_token(token.as_bytes()) {
            Authentication::Done(outcome) => {
                return outcome.map_err(|rejection| rejection.reason());
            }
            // Another test of the process holds the permit to check a signature.
            Authentication::Pending(_) => std::thread::yield_now(),
        }
    }
}

/// A token of the first authority with the `iss` of the second.
fn crossed(signer: &TestAuthority, named: &TestAuthority) -> TokenBuilder {
    signer.token().claim("iss", named.issuer())
}

#[tokio::test]
async fn key_of_one_issuer_verifies_no_token_of_another() {
    let [a, b, _] = authorities();
    for verifier in both_orders(&a, &b) {
        let own = |issuer: &str| Ok(issuer.to_owned());
        let kids =
            [("k", "k", R::BadSignature, own(B)), ("ka", "kb", R::UnknownKey, Err(R::UnknownKey))];
        for (kid_of_a, kid_of_b, crossed_reason, with_other_kid) in kids {
            use_kid(&a, kid_of_a);
            use_kid(&b, kid_of_b);
            let cases = [
                ("of A", a.token(), own(A)),
                ("of B", b.token(), own(B)),
                ("of B, naming A", crossed(&b, &a), Err(crossed_reason)),
                ("of A, naming B", crossed(&a, &b), Err(crossed_reason)),
                ("of B, naming A and its kid", crossed(&b, &a).kid(kid_of_a), Err(R::BadSignature)),
                ("of B, naming the kid of A", b.token().kid(kid_of_a), with_other_kid),
            ];
            for (case, token, expected) in cases {
                let token = token.sign();
                // The second time the token may be cached.
                for _ in 0..2 {
                    assert_eq!(outcome(&verifier, &token), expected, "{case}, {kid_of_a}");
                }
            }
            // Without a kid the only key of a set is used.
            let members =
                |issuer| json!({"iss": issuer, "exp": 4_953_600_000_u64, "source": "microservice"});
            let without_kid = |signer: &TestAuthority, issuer| {
                signer.sign_parts(r#"{"alg":"EdDSA"}"#, &members(issuer).to_string())
            };
            assert_eq!(outcome(&verifier, &without_kid(&b, B)), own(B));
            assert_eq!(outcome(&verifier, &without_kid(&b, A)), Err(R::BadSignature));
            assert_eq!(outcome(&verifier, &without_kid(&a, B)), Err(R::BadSignature));
        }
    }
}

#[tokio::test]
async fn iss_must_be_one_string_that_a_verifier_accepts() {
    let [a, b, _] = authorities();
    let ok = Ok(A.to_owned());
    let cases = [
        (r#""iss":"https://a.test""#, ok.clone()),
        (r#""iss":"https:\/\/a.test""#, ok.clone()),
        (r#""iss":"\u0068ttps://a\u002etest""#, ok.clone()),
        (r#""\u0069s\u0073":"https://a.test""#, ok.clone()),
        (r#""x":{"iss":"https://b.test"},"iss":"https://a.test""#, ok.clone()),
        (r#""x":"\"iss\":\"https://b.test\"","iss":"https://a.test""#, ok.clone()),
        (r#""issx":"https://b.test","iss":"https://a.test","Iss":7"#, ok),
        (r#""x":1"#, Err(R::WrongIssuer)),
        (r#""x":{"iss":"https://a.test"}"#, Err(R::WrongIssuer)),
        (r#""Iss":"https://a.test""#, Err(R::WrongIssuer)),
        (r#""iss":null"#, Err(R::WrongIssuer)),
        (r#""iss":7"#, Err(R::WrongIssuer)),
        (r#""iss":true"#, Err(R::WrongIssuer)),
        (r#""iss":["https://a.test"]"#, Err(R::WrongIssuer)),
        (r#""iss":["https://a.test","https://b.test"]"#, Err(R::WrongIssuer)),
        (r#""iss":{"https://a.test":1}"#, Err(R::WrongIssuer)),
        (r#""iss":"""#, Err(R::WrongIssuer)),
        (r#""iss":"https://c.test""#, Err(R::WrongIssuer)),
        (r#""iss":"https://a.test/""#, Err(R::WrongIssuer)),
        (r#""iss":"https://a.tes""#, Err(R::WrongIssuer)),
        (r#""iss":"https://A.test""#, Err(R::WrongIssuer)),
        (r#""iss":" https://a.test""#, Err(R::WrongIssuer)),
        (r#""iss":"https://a.test\u0000""#, Err(R::WrongIssuer)),
        (r#""iss":"https://a.test,https://b.test""#, Err(R::WrongIssuer)),
        (r#""iss":"https://a.\xtest""#, Err(R::WrongIssuer)),
        (r#""iss":"https://a.test","iss":"https://a.test""#, Err(R::MalformedClaims)),
        (r#""iss":"https://a.test","iss":"https://b.test""#, Err(R::MalformedClaims)),
        (r#""iss":"https://b.test","iss":"https://a.test""#, Err(R::MalformedClaims)),
        (r#""iss":"https://a.test","\u0069ss":"https://b.test""#, Err(R::MalformedClaims)),
        (r#""iss":"https://a.test","x":1,"iss":null"#, Err(R::MalformedClaims)),
        (r#""iss":"https://a.test","x":1,"x":2"#, Err(R::MalformedClaims)),
        (r#""iss":"https://a.test"}, {"x":1"#, Err(R::MalformedClaims)),
    ];
    for verifier in both_orders(&a, &b) {
        for (members, expected) in &cases {
            let text = format!(r#"{{"exp":4953600000,"source":"microservice",{members}}}"#);
            let token = a.sign_claims(&text);
            let optional = verifier.clone().with_marker_first();
            for _ in 0..2 {
                assert_eq!(outcome(&verifier, &token), *expected, "{members}");
                assert_eq!(outcome(&optional, &token), *expected, "optional, {members}");
            }
        }
        for claims in ["[]", "7", "\"iss\"", "{", r#"["iss","https://a.test"]"#] {
            assert_eq!(outcome(&verifier, &a.sign_claims(claims)), Err(R::MalformedClaims));
        }
    }
}

#[tokio::test]
async fn malformed_token_gets_the_reason_of_a_single_verifier() {
    let [a, b, _] = authorities();
    let strict = |verifier: Verifier| verifier.algorithms([Algorithm::EdDSA]);
    let single = AnyVerifier::from(strict(a.verifier()));
    let several = strict(a.verifier()).or(strict(b.verifier())).unwrap();
    let good = a.token().sign();
    let claims = format!(r#"{{"iss":"{A}","exp":4953600000,"source":"microservice"}}"#);
    let header = |header: &str| a.sign_parts(header, &claims);
    let token = || a.token();
    let cases = [
        (String::new(), R::MalformedCredentials),
        ("a b".into(), R::MalformedCredentials),
        ("a".into(), R::NotThreeParts),
        ("a.b".into(), R::NotThreeParts),
        ("..".into(), R::NotThreeParts),
        (format!("{good}.x"), R::NotThreeParts),
        (".".repeat(8192), R::NotThreeParts),
        ("!".repeat(8193), R::TokenTooLong),
        (good.replacen('.', "=.", 1), R::MalformedCredentials),
        (format!("{good}+"), R::NotBase64Url),
        (a.sign_parts(r#"{"alg":"EdDSA","kid":"k"}"#, ""), R::NotThreeParts),
        (header("{}"), R::UnsupportedAlgorithm),
        (header(r#"{"alg":"none"}"#), R::UnsupportedAlgorithm),
        (header(r#"{"alg":"RS256"}"#), R::AlgorithmNotAllowed),
        (header(r#"{"alg":"EdDSA","crit":[]}"#), R::CriticalHeader),
        (header(r#"{"alg":"EdDSA","alg":"EdDSA"}"#), R::MalformedHeader),
        (header(r#"{"alg":"EdDSA","kid":""}"#), R::MalformedKid),
        (header(r#"{"alg":"EdDSA","typ":"dpop+jwt"}"#), R::UnsupportedTokenType),
        (token().raw("x", "[}").sign(), R::MalformedClaims),
        (token().raw("x", r#"1,"exp":1"#).sign(), R::MalformedClaims),
        // The signature is checked first.
        (token().raw("x", r#"1,"exp":1"#).forged().sign(), R::BadSignature),
        (token().without("exp").forged().sign(), R::BadSignature),
        (token().without("exp").sign(), R::MalformedExpiration),
        (token().expired().sign(), R::Expired),
        (token().unknown_key().sign(), R::UnknownKey),
        (token().expired().unknown_key().sign(), R::UnknownKey),
        (token().without_marker().sign(), R::NotMicroservice),
        (token().claim("cnf", json!({})).sign(), R::SenderConstrained),
    ];
    for (token, expected) in cases {
        assert_eq!(outcome(&single, &token), Err(expected), "single, {token}");
        assert_eq!(outcome(&several, &token), Err(expected), "several, {token}");
    }
}

#[tokio::test]
async fn token_may_be_as_long_as_the_verifier_of_its_issuer_allows() {
    let [a, b, _] = authorities();
    let padded = |authority: &TestAuthority| authority.token().claim("x", "x".repeat(300)).sign();
    let (of_a, of_b) = (padded(&a), padded(&b));
    assert_eq!(of_a.len(), of_b.len());
    let len = of_a.len();
    let any = |len_of_a: usize, len_of_b: usize| {
        a.verifier().max_token_len(len_of_a).or(b.verifier().max_token_len(len_of_b)).unwrap()
    };
    let (good_a, good_b) = (Ok(A.to_owned()), Ok(B.to_owned()));
    let too_long = || Err(R::TokenTooLong);
    let cases = [
        ((len, len), good_a.clone(), good_b.clone()),
        ((len - 1, len), too_long(), good_b),
        ((len, len - 1), good_a, too_long()),
        ((len - 1, len - 1), too_long(), too_long()),
    ];
    for (lens, for_a, for_b) in cases {
        let verifier = any(lens.0, lens.1);
        assert_eq!((outcome(&verifier, &of_a), outcome(&verifier, &of_b)), (for_a, for_b));
    }
    // Above the largest limit nothing is decoded: the text is no b64token.
    let verifier = any(16, 32);
    assert_eq!(outcome(&verifier, &"!".repeat(33)), Err(R::TokenTooLong));
    assert_eq!(outcome(&verifier, &"!".repeat(32)), Err(R::MalformedCredentials));
    assert_eq!(verifier.verify(&"!".repeat(33)).await.unwrap_err().reason(), R::TokenTooLong);
    assert_eq!(verifier.verify(&"!".repeat(32)).await.unwrap_err().reason(), R::NotThreeParts);
}

#[tokio::test]
async fn each_verifier_keeps_its_policy() {
    let [a, b, _] = authorities();
    let of_a = a.verifier().audience("billing").leeway(Duration::ZERO);
    let of_b = b.verifier().marker("kind", "job").require_claim("service", "invoices");
    let of_b = of_b.max_lifetime(Duration::from_secs(3600));
    let a_good = || a.token().audience("billing");
    let b_good =
        || b.token().without_marker().claims(json!({"kind": "job", "service": "invoices"}));
    let recent = Duration::from_secs(10);
    a.clock().advance(recent);
    b.clock().advance(recent);
    let cases = [
        ("A", a_good(), None),
        ("A without its audience", a.token(), Some(R::WrongAudience)),
        (
            "A with the marker of B",
            a_good().without_marker().claim("kind", "job"),
            Some(R::NotMicroservice),
        ),
        ("A of a long lifetime", a_good().validity(2 * Duration::from_secs(3600)), None),
        (
            "A, expired within the leeway of B",
            a_good().claim("iat", 1).validity(Duration::ZERO),
            Some(R::Expired),
        ),
        ("B", b_good(), None),
        ("B for an audience", b_good().audience("ledger"), None),
        (
            "B with the marker of A",
            b.token().claim("service", "invoices"),
            Some(R::NotMicroservice),
        ),
        ("B of another service", b_good().claim("service", "orders"), Some(R::ClaimRefused)),
        (
            "B of a long lifetime",
            b_good().validity(2 * Duration::from_secs(3600)),
            Some(R::LifetimeTooLong),
        ),
        ("B, expired within its leeway", b_good().validity(Duration::ZERO), None),
    ];
    for verifier in [of_a.clone().or(of_b.clone()).unwrap(), of_b.or(of_a).unwrap()] {
        for (case, token, expected) in &cases {
            let token = token.clone().sign();
            for _ in 0..2 {
                assert_eq!(outcome(&verifier, &token).err(), *expected, "{case}");
            }
        }
    }
}

#[tokio::test]
async fn token_is_cached_by_the_verifier_of_its_issuer_alone() {
    let all @ [a, b, c] = &authorities();
    let limit = Arc::new(SignatureLimit::new(1, 1));
    let limited =
        |authority: &TestAuthority| authority.verifier().with_signature_limit(Arc::clone(&limit));
    let verifier = limited(a).or(limited(b)).unwrap().or(limited(c)).unwrap();
    for (position, authority) in all.iter().enumerate() {
        let token = authority.token().sign();
        let own = || Ok(authority.issuer().to_owned());
        assert_eq!(outcome(&verifier, &token), own());
        let is_cached = |verifier: &Verifier| verifier.cached(token.as_bytes()).is_some();
        let cached = verifier.as_slice().iter().map(is_cached);
        assert!(cached.eq((0..3).map(|at| at == position)));
        // No signature can be checked now.
        let permit = limit.try_acquire().unwrap();
        assert_eq!(outcome(&verifier, &token), own());
        let by_verify = pin!(verifier.verify(&token)).poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(by_verify, Poll::Ready(Ok(_))));
        drop(permit);
        // A cached token is rejected once its key is gone.
        use_kid(authority, "other");
        assert_eq!(outcome(&verifier, &token), Err(R::UnknownKey));
    }
}

/// An optional layer with a single verifier admits, and caches, tokens of any `iss`.
#[tokio::test]
async fn cache_of_a_verifier_that_is_used_alone_is_not_shared() {
    let [a, b, _] = authorities();
    let alone = AnyVerifier::from(a.verifier());
    let other = AnyVerifier::from(b.verifier());
    let (first, second) = (alone.as_slice()[0].clone(), other.as_slice()[0].clone());
    let [alone, other] = [alone, other].map(AnyVerifier::with_marker_first);
    let session = |signer: &TestAuthority, iss: &str| {
        signer.token().without_marker().claim("iss", iss).sign()
    };
    let sessions = [session(&a, B), session(&a, C), session(&b, A), session(&b, C)];
    for (verifier, session) in [&alone, &alone, &other, &other].into_iter().zip(&sessions) {
        assert_eq!(outcome(verifier, session), Err(R::NotMicroservice));
    }
    let several = first.clone().or(second.clone()).unwrap().with_marker_first();
    let reversed = second.or(first).unwrap().with_marker_first();
    let expected = [R::BadSignature, R::WrongIssuer, R::BadSignature, R::WrongIssuer];
    for (session, expected) in sessions.iter().zip(expected) {
        assert_eq!(outcome(&several, session), Err(expected));
        assert_eq!(outcome(&reversed, session), Err(expected));
    }
}

#[tokio::test]
async fn optional_admits_only_users_of_an_accepted_issuer() {
    let [a, b, c] = authorities();
    let of_a = a.verifier().issuer("https://a.test/auth").audience("billing");
    let verifier = of_a.or(b.verifier()).unwrap().with_marker_first();
    let session = |authority: &TestAuthority| {
        authority.token().without_marker().subject("user-1").claim("cnf", json!({}))
    };
    let cases = [
        ("of A's API", session(&a).claim("iss", "https://a.test/auth"), R::NotMicroservice),
        ("of A", session(&a), R::NotMicroservice),
        ("of B", session(&b), R::NotMicroservice),
        ("of B's API", session(&b).claim("iss", "https://b.test/auth"), R::WrongIssuer),
        ("of B, naming A", session(&b).claim("iss", A), R::BadSignature),
        ("of another authority", session(&c), R::WrongIssuer),
        ("without iss", session(&a).without("iss"), R::WrongIssuer),
        ("expired", session(&a).expired(), R::Expired),
    ];
    for (case, token, expected) in cases {
        let token = token.sign();
        for _ in 0..2 {
            assert_eq!(outcome(&verifier, &token), Err(expected), "{case}");
        }
    }
    assert_eq!(outcome(&verifier, &a.token().audience("billing").sign()), Ok(A.to_owned()));
}

#[tokio::test]
async fn queued_token_is_checked_by_the_verifier_of_its_issuer() {
    let [a, b, _] = authorities();
    let limit = Arc::new(SignatureLimit::new(1, 1));
    let [of_a, of_b] =
        [&a, &b].map(|authority| authority.verifier().with_signature_limit(Arc::clone(&limit)));
    let verifier = of_a.or(of_b).unwrap();
    let permit = limit.try_acquire().unwrap();
    let queued =
        [a.token(), b.token(), crossed(&a, &b), crossed(&b, &a)].map(|token| {
            match verifier.authenticate_token(token.sign().as_bytes()) {
                Authentication::Pending(pending) => pending,
                Authentication::Done(_) => panic!("the token does not wait"),
            }
        });
    drop(permit);
    let bad = || Err(R::BadSignature);
    let expected = [Ok(A.to_owned()), Ok(B.to_owned()), bad(), bad()];
    for (queued, expected) in queued.into_iter().zip(expected) {
        let outcome = queued.await.map(|claims| claims.issuer().unwrap().to_owned());
        assert_eq!(outcome.map_err(|rejection| rejection.reason()), expected);
    }
}

#[test]
fn each_verifier_needs_an_issuer_of_its_own() {
    let verifier = |issuers: &[&str]| {
        let keys = TestAuthority::offline().local_jwks();
        issuers.iter().fold(Verifier::new(keys), |verifier, issuer| verifier.issuer(*issuer))
    };
    let missing = || Some(ConfigError::MissingIssuer);
    let duplicate = |issuer: &str| Some(ConfigError::DuplicateIssuer { issuer: issuer.to_owned() });
    let cases: [(&[&str], &[&str], _); 12] = [
        (&["a"], &["b"], None),
        (&["a", "b"], &["c", "d"], None),
        (&["a", ""], &["b", ""], None),
        (&["a"], &["A"], None),
        (&["a"], &["a/"], None),
        (&[], &["b"], missing()),
        (&["a"], &[], missing()),
        (&[], &[], missing()),
        (&[""], &["b"], missing()),
        (&["a"], &["", ""], missing()),
        (&["a"], &["a"], duplicate("a")),
        (&["a", "b"], &["c", "b"], duplicate("b")),
    ];
    for (first, second, expected) in cases {
        assert_eq!(verifier(first).or(verifier(second)).err(), expected, "{first:?} {second:?}");
        let third = AnyVerifier::from(verifier(first)).or(verifier(second));
        let third = third.and_then(|any| any.or(verifier(&["e"])));
        assert_eq!(third.err(), expected, "{first:?} {second:?}, then a third");
    }
    let two = verifier(&["a"]).or(verifier(&["b"])).unwrap();
    let third = |issuers| two.clone().or(verifier(issuers)).err();
    assert_eq!(third(&["c"]), None);
    assert_eq!(third(&["c", "a"]), duplicate("a"));
    assert_eq!(third(&["b"]), duplicate("b"));
    assert_eq!(third(&[]), missing());
    let texts = [
        (ConfigError::MissingIssuer, "each of several verifiers needs an issuer"),
        (
            ConfigError::DuplicateIssuer { issuer: "https://a".into() },
            r#"two of several verifiers accept the issuer "https://a""#,
        ),
    ];
    for (err, text) in texts {
        assert_eq!(err.to_string(), text);
    }
}

#[tokio::test]
async fn debug_shows_each_policy_and_no_token() {
    let [a, b, _] = authorities();
    let verifier = a.verifier().audience("billing").or(b.verifier().marker("kind", "job")).unwrap();
    let token = a.token().audience("billing").claim("service", "orders-7f3a").sign();
    assert!(claims(&verifier, &token).is_ok());
    let text = format!("{verifier:?}");
    for part in [A, B, r#"audiences: ["billing"]"#, r#"marker: kind: "job""#] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!text.contains("7f3a") && !text.contains(token.rsplit('.').next().unwrap()), "{text}");
}
