//! Properties of every token: changing a byte of a valid token invalidates it, and each token that
//! the verifier accepts is one that jsonwebtoken accepts.

use std::cell::Cell;
use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{DecodingKey, Validation};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Map, Value, json};
use tokio::runtime::{Builder, Runtime};
use tower_m2m::testing::TestAuthority;
use tower_m2m::{LocalJwks, RejectionReason, Verifier};

use crate::pem::public_key;

/// The key with the kid `ed`. Like the other one it signs in microseconds.
static ED25519: LazyLock<TestAuthority> = LazyLock::new(|| {
    let authority = TestAuthority::offline();
    authority.rotate_to("ed");
    authority
});

/// The key with the kid `ec`.
static P256: LazyLock<EcdsaKeyPair> =
    LazyLock::new(|| EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap());

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signer {
    Ed25519,
    P256,
}

impl Signer {
    fn sign(self, header: &str, claims: &str) -> String {
        match self {
            Self::Ed25519 => ED25519.sign_parts(header, claims),
            Self::P256 => {
                let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part));
                let input = format!("{header}.{claims}");
                let signature = P256.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
                format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
            }
        }
    }

    fn decoding_key(self) -> DecodingKey {
        match self {
            Self::Ed25519 => DecodingKey::from_ed_der(&public_key(&ED25519)),
            Self::P256 => DecodingKey::from_ec_der(P256.public_key().as_ref()),
        }
    }

    fn algorithm(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::Ed25519 => jsonwebtoken::Algorithm::EdDSA,
            Self::P256 => jsonwebtoken::Algorithm::ES256,
        }
    }
}

fn verifier() -> Verifier {
    let point = P256.public_key().as_ref();
    let [x, y] = [&point[1..33], &point[33..]].map(|coordinate| URL_SAFE_NO_PAD.encode(coordinate));
    let p256 = json!({"kty": "EC", "crv": "P-256", "kid": "ec", "x": x, "y": y});
    let set = format!(r#"{{"keys":[{},{p256}]}}"#, ED25519.jwk());
    Verifier::new(LocalJwks::from_json(set).unwrap())
}

/// Not a single poll: the signature check may be queued while other tests check signatures.
fn outcome(verifier: &Verifier, token: &str) -> Result<(), RejectionReason> {
    static RUNTIME: LazyLock<Runtime> =
        LazyLock::new(|| Builder::new_current_thread().enable_time().build().unwrap());
    RUNTIME.block_on(verifier.verify(token)).map(drop).map_err(|rejection| rejection.reason())
}

/// Valid tokens of both keys, with three lengths of header and claims, so that the last base64url
/// character has no, two and four unused bits.
fn good_tokens() -> Vec<String> {
    let tokens = [(Signer::Ed25519, "EdDSA", "ed"), (Signer::P256, "ES256", "ec")]
        .into_iter()
        .flat_map(|(signer, alg, kid)| {
            (0..3).map(move |padding| {
                let padding = "x".repeat(padding);
                let header = format!(r#"{{"alg":"{alg}","kid":"{kid}","x":"{padding}"}}"#);
                signer.sign(
                    &header,
                    &format!(r#"{{"exp":4953600000,"source":"microservice","x":"{padding}"}}"#),
                )
            })
        });
    let tokens: Vec<String> = tokens.collect();
    let verifier = verifier();
    for token in &tokens {
        assert_eq!(outcome(&verifier, token), Ok(()));
    }
    tokens
}

#[test]
fn token_with_one_changed_byte_is_rejected() {
    let (verifier, tokens) = (verifier(), good_tokens());
    let edits = (0..tokens.len(), any::<prop::sample::Index>(), 0..=127_u8, 0..3);
    let mut runner =
        TestRunner::new(Config { cases: 3000, failure_persistence: None, ..Config::default() });
    let result = runner.run(&edits, |(token, at, byte, edit)| {
        let good = tokens[token].as_bytes();
        let mut changed = good.to_vec();
        let at = at.index(good.len());
        match edit {
            0 => changed[at] = byte,
            1 => changed.insert(at, byte),
            _ => drop(changed.remove(at)),
        }
        prop_assume!(changed != good);
        let changed = String::from_utf8(changed).unwrap();
        prop_assert!(outcome(&verifier, &changed).is_err(), "{changed:?} is accepted");
        Ok(())
    });
    result.unwrap();
}

#[test]
fn last_character_of_each_part_has_one_encoding() {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let verifier = verifier();
    let mut not_canonical = 0;
    for token in good_tokens() {
        let ends = token.match_indices('.').map(|(at, _)| at).chain([token.len()]);
        for end in ends {
            for other in ALPHABET.chars().filter(|other| !token[..end].ends_with(*other)) {
                let mut changed = token.clone();
                changed.replace_range(end - 1..end, other.encode_utf8(&mut [0; 4]));
                let refused = outcome(&verifier, &changed).unwrap_err();
                not_canonical += usize::from(refused == RejectionReason::NotBase64Url);
            }
        }
    }
    // The last character of a 64-byte signature has four unused bits. That of a header or of claims
    // has no, two or four, depending on the length.
    assert!(not_canonical > 6 * 45, "only {not_canonical} changes set unused bits");
}

#[test]
fn second_form_of_an_ecdsa_signature_is_accepted() {
    // n of P-256: FIPS 186-5, SP 800-186 §3.2.1.3.
    const ORDER: [u8; 32] = *b"\xff\xff\xff\xff\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\
        \xbc\xe6\xfa\xad\xa7\x17\x9e\x84\xf3\xb9\xca\xc2\xfc\x63\x25\x51";
    let token = Signer::P256
        .sign(r#"{"alg":"ES256","kid":"ec"}"#, r#"{"exp":4953600000,"source":"microservice"}"#);
    let (input, signature) = token.rsplit_once('.').unwrap();
    let mut signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let mut borrow = 0;
    for (s, n) in signature[32..].iter_mut().zip(ORDER).rev() {
        let difference = i16::from(n) - i16::from(*s) - borrow;
        borrow = i16::from(difference < 0);
        *s = difference.rem_euclid(256) as u8;
    }
    let second = format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature));
    assert_ne!(second, token);
    assert_eq!(outcome(&verifier(), &second), Ok(()));
}

/// A JSON value of any shape.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// The value of a member: mostly one of `usual`, where `None` leaves the member out.
fn usually(usual: Vec<Option<Value>>) -> impl Strategy<Value = Option<Value>> {
    prop_oneof![12 => prop::sample::select(usual), 1 => any_json().prop_map(Some)]
}

fn some(values: impl IntoIterator<Item = Value>) -> Vec<Option<Value>> {
    values.into_iter().map(Some).collect()
}

/// The members in this order as JSON text, which can contain a member twice.
fn object(members: impl IntoIterator<Item = (String, Option<Value>)>) -> String {
    let members =
        members.into_iter().filter_map(|(name, value)| Some(format!("{}:{}", json!(name), value?)));
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

fn headers() -> impl Strategy<Value = (Signer, String)> {
    let algorithms = prop_oneof![
        8 => Just((Signer::Ed25519, "EdDSA", "ed")),
        8 => Just((Signer::P256, "ES256", "ec")),
        1 => Just((Signer::Ed25519, "Ed25519", "ed")),
        1 => Just((Signer::P256, "EdDSA", "ec")),
        1 => Just((Signer::Ed25519, "none", "ed")),
    ];
    let others = (
        usually(vec![None, Some("JOSE".into()), Some("application/at+jwt".into())]),
        usually(vec![None, None, Some("json".into())]),
        prop::sample::select(vec![None, None, Some("https://example.com/keys".into())]),
        prop::collection::vec(("x-[a-z]{1,2}", any_json()), 0..3),
        prop_oneof![20 => Just(None), 1 => prop::sample::select(vec![Some("crit"), Some("b64"), Some("zip"), Some("enc")])],
        prop_oneof![10 => Just(true), 1 => Just(false)],
    );
    (algorithms, others).prop_map(
        |((signer, alg, kid), (typ, cty, jku, extra, refused, right_kid))| {
            let kid = if right_kid { kid.into() } else { Value::from("another") };
            let named = [
                ("alg", Some(alg.into())),
                ("kid", Some(kid)),
                ("typ", typ),
                ("cty", cty),
                ("jku", jku),
            ];
            let refused = refused.map(|name| (name, Some(json!([]))));
            let members =
                named.into_iter().chain(refused).map(|(name, value)| (name.to_owned(), value));
            (
                signer,
                object(members.chain(extra.into_iter().map(|(name, value)| (name, Some(value))))),
            )
        },
    )
}

fn claims() -> impl Strategy<Value = String> {
    // All dates are far from now, so that the results do not depend on the current time.
    let names = vec!["billing".into(), json!(["billing"]), json!(["orders", "billing"])];
    let members = (
        usually(some([
            json!(4_953_600_000_u64),
            json!(4_953_600_000.5),
            json!(9_007_199_254_740_991_u64),
        ])),
        usually(vec![
            None,
            None,
            Some(json!(1_500_000_000)),
            Some(json!(0.5)),
            Some(json!(4_953_600_000_u64)),
        ]),
        usually(vec![None, None, Some(json!(1_500_000_000)), Some(json!(1.6e9))]),
        usually(some(["https://api.example.com".into()])),
        usually(some(names)),
        usually(some(["orders".into()])),
        usually(some(["microservice".into()])),
        prop::collection::vec(("(x-[a-z]{1,2}|iss)", any_json()), 0..2),
    );
    members.prop_map(|(exp, nbf, iat, iss, aud, sub, source, extra)| {
        let named = [
            ("exp", exp),
            ("nbf", nbf),
            ("iat", iat),
            ("iss", iss),
            ("aud", aud),
            ("sub", sub),
            ("source", source),
        ];
        let named = named.into_iter().map(|(name, value)| (name.to_owned(), value));
        object(named.chain(extra.into_iter().map(|(name, value)| (name, Some(value)))))
    })
}

#[test]
fn accepted_tokens_are_accepted_by_jsonwebtoken() {
    let accepted = Cell::new(0);
    let cases = (headers(), claims(), any::<[bool; 3]>());
    let mut runner =
        TestRunner::new(Config { cases: 3000, failure_persistence: None, ..Config::default() });
    let result = runner.run(&cases, |((signer, header), claims, [issuer, audience, subject])| {
        let token = signer.sign(&header, &claims);
        let (mut verifier, mut validation) = (verifier(), Validation::new(signer.algorithm()));
        validation.leeway = 30;
        validation.validate_nbf = true;
        // Without a configured audience `aud` is not checked. RFC 7519 §4.1.3 would reject the
        // token, but tokens of SuperTokens may have an audience.
        validation.validate_aud = audience;
        let mut required = vec!["exp"];
        if issuer {
            verifier = verifier.issuer("https://api.example.com");
            validation.set_issuer(&["https://api.example.com"]);
            required.push("iss");
        }
        if audience {
            verifier = verifier.audience("billing");
            validation.set_audience(&["billing"]);
            required.push("aud");
        }
        if subject {
            verifier = verifier.subject("orders");
            validation.sub = Some("orders".to_owned());
            required.push("sub");
        }
        validation.set_required_spec_claims(&required);
        // jsonwebtoken does not know the name `Ed25519` (RFC 9864).
        let comparable = !header.contains(r#""alg":"Ed25519""#);
        if outcome(&verifier, &token).is_ok() && comparable {
            accepted.set(accepted.get() + 1);
            let decoded =
                jsonwebtoken::decode::<Value>(&token, &signer.decoding_key(), &validation);
            prop_assert!(decoded.is_ok(), "{header} {claims}: {decoded:?}");
        }
        Ok(())
    });
    result.unwrap();
    assert!(
        (300..2700).contains(&accepted.get()),
        "{} of 3000 tokens are accepted, too few or too many to compare",
        accepted.get()
    );
}
