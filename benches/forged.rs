//! Time to reject a token with a forged signature, by the shape of its header and claims:
//! `cargo bench --bench forged`.
//!
//! Every token except `small` has the maximum length of 8 KiB and names a known RS256 key, so the
//! server parses it, checks its signature and rejects it. `plain` has one long string, so its time
//! is that of decoding and hashing 8 KiB. The other shapes are the most expensive ones known for
//! the parser; each should take at most 1.2 × the time of `plain`. For the shapes with an
//! unknown `kid` the server checks the claims but no signature. `forged_at_two_issuers` has the
//! verifiers of two issuers, which read the `iss` before the signature check: each shape should
//! take at most 1.5 × the time of `plain` there.

mod support;

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use divan::Bencher;
use http::HeaderValue;
use serde_json::Value;
use tower_m2m::AnyVerifier;
use tower_m2m::testing::bearer;

use support::{RS256, call, request, verifier, verifying_service};

fn main() {
    divan::main();
}

const ISSUER: &str = "https://api.example.com";

/// The longest token that a verifier reads by default.
const TOKEN_LEN: usize = 8192;
/// The longest header, decoded.
const HEADER_LEN: usize = 2048;

const SHAPES: &[&str] = &[
    "small",
    "plain",
    "arrays nested 30 deep",
    "deeply nested arrays",
    "deeply nested objects",
    "empty arrays",
    "random arrays",
    "short members",
    "escaped names",
    "short strings",
    "escaped strings",
    "audiences",
    "escaped audiences",
    "escaped issuer",
    "exp with many digits",
    "header of nested arrays",
    "header of short members",
    "header of escaped names",
    "header with an escaped kid",
    "unknown kid, plain",
    "unknown kid, random arrays",
    "unknown kid, random audiences",
];

/// Tokens per shape. With a single token the processor would learn to predict its branches.
const TOKENS_PER_SHAPE: usize = 64;

static TOKENS: LazyLock<Vec<Vec<HeaderValue>>> = LazyLock::new(|| {
    let tokens = |shape: &&str| (0..TOKENS_PER_SHAPE).map(|_| bearer(token(shape))).collect();
    SHAPES.iter().map(tokens).collect()
});

#[divan::bench(args = SHAPES)]
fn forged(bencher: Bencher, shape: &str) {
    bench(bencher, shape, verifier(&RS256.jwks).issuer(ISSUER).audience("billing"));
}

#[divan::bench(args = SHAPES)]
fn forged_at_two_issuers(bencher: Bencher, shape: &str) {
    let [other, named] =
        ["https://api.example.net", ISSUER].map(|issuer| verifier(&RS256.jwks).issuer(issuer));
    bench(bencher, shape, other.or(named.audience("billing")).expect("two issuers"));
}

fn bench(bencher: Bencher, shape: &str, verifier: impl Into<AnyVerifier>) {
    let position = SHAPES.iter().position(|other| *other == shape).expect("a shape");
    let mut service = verifying_service(verifier);
    let mut tokens = TOKENS[position].iter().cycle();
    bencher.bench_local(|| call(&mut service, request(tokens.next().cloned())));
}

/// A token of this shape with an invalid signature of 256 bytes.
fn token(shape: &str) -> String {
    let kid = if shape.starts_with("unknown kid") { "unknown".to_owned() } else { kid() };
    let plain_header = format!(r#"{{"alg":"RS256","kid":"{kid}"}}"#);
    let in_header = |fill: &dyn Fn(usize) -> String| {
        let frame = format!(r#"{{"alg":"RS256","kid":"{kid}",}}"#).len();
        format!(r#"{{"alg":"RS256","kid":"{kid}",{}}}"#, fill(HEADER_LEN - frame))
    };
    let common = format!(r#""exp":4953600000,"iss":"{ISSUER}","aud":"billing""#);
    let repeated = |item: &str| {
        let item = item.to_owned();
        move |len: usize| item.repeat(len / item.len()).trim_end_matches(',').to_owned()
    };
    let nested = |open: &str, close: &str, len: usize| {
        let depth = len / (open.len() + close.len());
        format!("{}1{}", open.repeat(depth), close.repeat(depth))
    };
    let header = match shape {
        "header of nested arrays" => {
            in_header(&|len| format!(r#""x":{}"#, nested("[", "]", len - 5)))
        }
        "header of short members" => in_header(&repeated(r#""a":1,"#)),
        "header of escaped names" => in_header(&repeated(r#""\u0061b":1,"#)),
        "header with an escaped kid" => {
            let kid: String = kid.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
            format!(r#"{{"alg":"RS256","kid":"{kid}"}}"#)
        }
        _ => plain_header,
    };
    let signature = URL_SAFE_NO_PAD.encode([1; 256]);
    // The space left for the claims, in bytes before encoding.
    let room = (TOKEN_LEN - signature.len() - 2 - header.len().div_ceil(3) * 4) / 4 * 3;
    let fill = room - common.len() - r#"{,"x":[]}"#.len();
    let claims = match shape {
        "small" => format!(r#"{{{common},"source":"microservice","service":"orders"}}"#),
        "arrays nested 30 deep" => {
            format!(
                r#"{{{common},"x":[{}]}}"#,
                repeated(&format!("{}{},", "[".repeat(30), "]".repeat(30)))(fill)
            )
        }
        "deeply nested arrays" => format!(r#"{{{common},"x":{}}}"#, nested("[", "]", fill)),
        "deeply nested objects" => {
            format!(r#"{{{common},"x":{}}}"#, nested(r#"{"":"#, "}", fill))
        }
        "empty arrays" => format!(r#"{{{common},"x":[{}]}}"#, repeated("[],")(fill)),
        "short members" => format!(r#"{{{common},{}}}"#, repeated(r#""a":1,"#)(fill)),
        "escaped names" => format!(r#"{{{common},{}}}"#, repeated(r#""\u0061b":1,"#)(fill)),
        "short strings" => format!(r#"{{{common},"x":[{}]}}"#, repeated(r#""","#)(fill)),
        "escaped strings" => format!(r#"{{{common},"x":[{}]}}"#, repeated(r#""\"","#)(fill)),
        "audiences" => aud(&repeated(r#""b","#)(fill)),
        "escaped audiences" => aud(&repeated(r#""\u0062illin","#)(fill)),
        "escaped issuer" => {
            let issuer: String = ISSUER.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
            format!(
                r#"{{"exp":4953600000,"aud":"billing","iss":"{issuer}","x":"{}"}}"#,
                "x".repeat(fill - issuer.len())
            )
        }
        "random arrays" | "unknown kid, random arrays" => {
            format!(
                r#"{{{common},"x":[{}1]}}"#,
                mixed(&["[],", "{},", "1,", r#""","#, "[1],", r#""{","#, "12 ,"], fill)
            )
        }
        "unknown kid, random audiences" => aud(mixed(
            &[r#""","#, r#""bi","#, r#""b\u0069lling!","#, r#""billing!","#, r#""billin\n","#],
            fill,
        )
        .trim_end_matches(',')),
        "exp with many digits" => {
            format!(r#"{{"iss":"{ISSUER}","aud":"billing","exp":4953600000.{}}}"#, "9".repeat(fill))
        }
        _ => format!(r#"{{{common},"x":"{}"}}"#, "x".repeat(fill)),
    };
    let token =
        [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".") + "." + &signature;
    let is_full = (TOKEN_LEN - 64..=TOKEN_LEN).contains(&token.len());
    assert!(is_full || shape == "small", "{shape}: {} bytes", token.len());
    token
}

/// Random items, in total slightly shorter than `len`.
fn mixed(items: &[&str], len: usize) -> String {
    let mut text = String::new();
    while text.len() + 16 < len {
        text.push_str(items[fastrand::usize(..items.len())]);
    }
    text
}

fn aud(others: &str) -> String {
    format!(r#"{{"exp":4953600000,"iss":"{ISSUER}","aud":[{others},"billing"]}}"#)
}

fn kid() -> String {
    let header = RS256.service.split('.').next().expect("a header");
    let header: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).expect("base64")).expect("JSON");
    header["kid"].as_str().expect("a kid").to_owned()
}
