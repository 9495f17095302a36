//! The claims that a policy checks, case by case.

use std::fmt::Display;
use std::time::Duration;

use super::super::policy::Policy;
use super::super::validity::Validity;
use crate::jose::json;
use crate::rejection::RejectionReason;
use RejectionReason as R;

const NOW: u64 = 1_800_000_000;

fn has_marker(policy: &Policy, text: &str) -> bool {
    policy.has_marker(&json::object(text.as_bytes()).unwrap())
}

fn validity(policy: &Policy, text: &str, now: u64) -> Result<Validity, R> {
    let checked = policy.check_claims(text.replace("NOW", &NOW.to_string()).as_bytes(), now)?;
    checked.requirements.map(|()| checked.validity)
}

fn outcome(policy: &Policy, text: &str) -> Option<R> {
    validity(policy, text, NOW).err()
}

fn with_exp(exp: impl Display) -> Option<R> {
    outcome(&Policy::default(), &format!(r#"{{"exp":{exp}}}"#))
}

#[test]
fn exp_is_required_and_must_be_a_number() {
    for exp in [
        "null",
        "\"1900000000\"",
        "true",
        "[1900000000]",
        "{}",
        "-1",
        "-0.5",
        "1e308",
        "18446744073709551616",
    ] {
        assert_eq!(with_exp(exp), Some(R::MalformedExpiration), "{exp}");
    }
    for exp in ["18446744073709551615", "9007199254740992", "9007199254740992.0"] {
        assert_eq!(with_exp(exp), Some(R::MalformedExpiration), "{exp}");
    }
    assert_eq!(outcome(&Policy::default(), "{}"), Some(R::MalformedExpiration));
    for exp in ["9007199254740991", "1800000001", "1800000000.5", "1.9e9", "4953600000"] {
        assert_eq!(with_exp(exp), None, "{exp}");
    }
    assert_eq!(with_exp("0"), Some(R::Expired));
    assert_eq!(with_exp("-0.0"), Some(R::Expired));
}

#[test]
fn token_expires_when_exp_plus_leeway_is_reached() {
    assert_eq!(with_exp(NOW - 29), None);
    assert_eq!(with_exp(NOW - 30), Some(R::Expired));
    // A fraction is rounded down, however close it is to the next second.
    for nines in [1, 20, 400] {
        assert_eq!(with_exp(format!("{}.{}", NOW - 30, "9".repeat(nines))), Some(R::Expired));
    }
    let mut strict = Policy::default();
    strict.allow_leeway(Duration::ZERO);
    assert_eq!(outcome(&strict, r#"{"exp":NOW}"#), Some(R::Expired));
    let shortened = validity(&strict, r#"{"exp":1800000001.7}"#, NOW).unwrap();
    assert_eq!(shortened.expires_at(), NOW + 1);
    assert_eq!([0, NOW, NOW + 1].map(|now| shortened.contains(now)), [true, true, false]);
}

#[test]
fn leeway_is_cut_to_five_minutes() {
    let mut policy = Policy::default();
    policy.allow_leeway(Duration::MAX);
    assert_eq!(outcome(&policy, &format!(r#"{{"exp":{}}}"#, NOW - 299)), None);
    assert_eq!(outcome(&policy, &format!(r#"{{"exp":{}}}"#, NOW - 300)), Some(R::Expired));
}

#[test]
fn nbf_and_iat_must_be_numbers_in_the_past() {
    for (name, malformed, ahead) in [
        ("nbf", R::MalformedNotBefore, R::NotYetValid),
        ("iat", R::MalformedIssuedAt, R::IssuedInFuture),
    ] {
        let cases = [
            ("1800000030", None),
            ("1800000031", Some(ahead)),
            ("1800000030.1", Some(ahead)),
            ("0", None),
            ("\"1800000000\"", Some(malformed)),
            ("null", Some(malformed)),
            ("true", Some(malformed)),
            ("-1", Some(malformed)),
            ("1e300", Some(malformed)),
        ];
        for (value, expected) in cases {
            let text = format!(r#"{{"exp":4953600000,"{name}":{value}}}"#);
            assert_eq!(outcome(&Policy::default(), &text), expected, "{text}");
        }
    }
}

#[test]
fn validity_lasts_from_nbf_until_exp_with_leeway() {
    let text = r#"{"iat":1799999990,"nbf":1800000010.5,"exp":1800000100.5}"#;
    let whole = validity(&Policy::default(), text, NOW).unwrap();
    let seconds = [NOW - 20, NOW - 19, NOW + 129, NOW + 130];
    assert_eq!(seconds.map(|now| whole.contains(now)), [false, true, true, false]);
    for now in [NOW - 20, NOW - 19, NOW + 129, NOW + 130] {
        assert_eq!(validity(&Policy::default(), text, now).is_ok(), whole.contains(now), "{now}");
    }
}

#[test]
fn configured_lifetime_is_enforced() {
    let mut policy = Policy::default();
    policy.limit_lifetime(Duration::from_secs(3600));
    assert_eq!(outcome(&policy, r#"{"iat":NOW,"exp":1800003600}"#), None);
    assert_eq!(outcome(&policy, r#"{"iat":NOW,"exp":1800003601}"#), Some(R::LifetimeTooLong));
    assert_eq!(outcome(&policy, r#"{"exp":1800003600}"#), Some(R::MalformedIssuedAt));
}

#[test]
fn configured_claim_that_is_missing_different_or_of_another_type_is_rejected() {
    let mut policy = Policy::default();
    policy.add_issuer("https://a".into());
    policy.add_audience("billing".into());
    policy.add_audience("ledger".into());
    policy.require_subject("orders".into());
    let cases = [
        (r#""iss":"https://a","aud":"billing","sub":"orders""#, None),
        (r#""iss":"https:\/\/a","aud":["x","ledger"],"sub":"\u006frders""#, None),
        (r#""aud":"billing","sub":"orders""#, Some(R::WrongIssuer)),
        (r#""iss":["https://a"],"aud":"billing","sub":"orders""#, Some(R::WrongIssuer)),
        (r#""iss":"https://a/auth","aud":"billing","sub":"orders""#, Some(R::WrongIssuer)),
        (r#""iss":"https://a","sub":"orders""#, Some(R::WrongAudience)),
        (r#""iss":"https://a","aud":[],"sub":"orders""#, Some(R::WrongAudience)),
        (r#""iss":"https://a","aud":["billing",7],"sub":"orders""#, Some(R::WrongAudience)),
        (r#""iss":"https://a","aud":{"billing":1},"sub":"orders""#, Some(R::WrongAudience)),
        (r#""iss":"https://a","aud":"Billing","sub":"orders""#, Some(R::WrongAudience)),
        (r#""iss":"https://a","aud":"billing""#, Some(R::WrongSubject)),
        (r#""iss":"https://a","aud":"billing","sub":7"#, Some(R::WrongSubject)),
    ];
    for (names, expected) in cases {
        assert_eq!(
            outcome(&policy, &format!(r#"{{"exp":4953600000,{names}}}"#)),
            expected,
            "{names}"
        );
    }
    // SuperTokens tokens may carry an audience that the policy does not configure.
    assert_eq!(
        outcome(&Policy::default(), r#"{"exp":4953600000,"aud":"anyone","iss":"i","sub":"s"}"#),
        None
    );
}

#[test]
fn any_cnf_claim_is_rejected() {
    let cases = [
        (
            r#""cnf":{"jkt":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}"#,
            Some(R::SenderConstrained),
        ),
        (
            r#""cnf":{"x5t#S256":"bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"}"#,
            Some(R::SenderConstrained),
        ),
        (r#""c\u006ef":{"jwk":{}}"#, Some(R::SenderConstrained)),
        (r#""cnf":{}"#, Some(R::SenderConstrained)),
        (r#""cnf":null"#, Some(R::SenderConstrained)),
        (r#""cnf":7"#, Some(R::SenderConstrained)),
        (r#""cnf":{},"cnf":{}"#, Some(R::MalformedClaims)),
        (r#""cnf":{},"iss":7"#, Some(R::WrongIssuer)),
        (r#""Cnf":{},"cnf2":{},"x":{"cnf":{}}"#, None),
    ];
    for (text, expected) in cases {
        let text = format!(r#"{{"exp":4953600000,{text}}}"#);
        assert_eq!(outcome(&Policy::default(), &text), expected, "{text}");
    }
}

#[test]
fn unconfigured_claim_of_the_wrong_type_is_rejected() {
    let cases = [
        (r#""iss":7"#, Some(R::WrongIssuer)),
        (r#""iss":null"#, Some(R::WrongIssuer)),
        (r#""iss":["https://a"]"#, Some(R::WrongIssuer)),
        (r#""aud":7"#, Some(R::WrongAudience)),
        (r#""aud":{"a":"b"}"#, Some(R::WrongAudience)),
        (r#""aud":["a",7]"#, Some(R::WrongAudience)),
        (r#""aud":[]"#, None),
        (r#""aud":["a","b"]"#, None),
        (r#""sub":7"#, Some(R::WrongSubject)),
        (r#""sub":"orders""#, None),
    ];
    for (text, expected) in cases {
        assert_eq!(
            outcome(&Policy::default(), &format!(r#"{{"exp":4953600000,{text}}}"#)),
            expected,
            "{text}"
        );
    }
}

#[test]
fn marker_is_an_exact_string() {
    let policy = Policy::default();
    assert!(has_marker(&policy, r#"{"source":"microservice"}"#));
    assert!(has_marker(&policy, r#"{"s\u006furce":"micro\u0073ervice"}"#));
    for text in [
        r#"{}"#,
        r#"{"source":null}"#,
        r#"{"source":1}"#,
        r#"{"source":true}"#,
        r#"{"source":["microservice"]}"#,
        r#"{"source":{"microservice":1}}"#,
        r#"{"source":"Microservice"}"#,
        r#"{"source":"microservice "}"#,
        r#"{"source":"microservice\u0000"}"#,
        r#"{"source":"micr\u043eservice"}"#,
        r#"{"Source":"microservice"}"#,
    ] {
        assert!(!has_marker(&policy, text), "{text}");
    }
}

#[test]
fn requirements_of_services_are_checked_after_the_dates() {
    let mut policy = Policy::default();
    policy.limit_lifetime(Duration::from_secs(60));
    policy.add_issuer("https://a".into());
    let check = |text: &str| {
        let checked = policy.check_claims(text.as_bytes(), NOW)?;
        Ok::<_, R>(checked.requirements)
    };
    let cases = [
        (r#"{"exp":1800000060,"iat":1800000000,"iss":"https://a"}"#, Ok(Ok(()))),
        (r#"{"exp":1800000060,"iat":1800000000,"iss":"https://b"}"#, Ok(Err(R::WrongIssuer))),
        (r#"{"exp":1800000061,"iat":1800000000}"#, Ok(Err(R::LifetimeTooLong))),
        (r#"{"exp":1800000060}"#, Ok(Err(R::MalformedIssuedAt))),
        (r#"{"exp":1800000060,"iat":"x"}"#, Err(R::MalformedIssuedAt)),
        (r#"{"exp":1700000000,"iss":"https://b"}"#, Err(R::Expired)),
    ];
    for (text, expected) in cases {
        assert_eq!(check(text), expected, "{text}");
    }
}
