//! Says what M2 would make of a token, check by check, and what to change where one fails.
//!
//! The token's text is escaped before it is printed: a terminal obeys more than it shows.
#![allow(clippy::print_stdout)] // it is a program

use std::io::Read;
use std::process::ExitCode;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use tower_m2m::{RejectionReason as Reason, RemoteJwks, ServiceClaims, Verifier};

use support::chain;

mod support;

const USAGE: &str =
    "usage: inspect --jwks URL [--issuer ISS] [--audience AUD] [--allow-plain-http] TOKEN

  --jwks URL           the key set that M2 verifies with
  --issuer ISS         the issuer that M2 wants
  --audience AUD       the audience that M2 wants
  --allow-plain-http   allow an http URL beyond loopback
  TOKEN                the token, with Bearer in front or without; - reads it from standard input";

#[derive(Default)]
struct Flags {
    jwks: String,
    issuer: Option<String>,
    audience: Option<String>,
    allow_plain_http: bool,
    token: String,
}

fn flags() -> Result<Option<Flags>, lexopt::Error> {
    use lexopt::prelude::*;
    let mut flags = Flags::default();
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("jwks") => flags.jwks = parser.value()?.string()?,
            Long("issuer") => flags.issuer = Some(parser.value()?.string()?),
            Long("audience") => flags.audience = Some(parser.value()?.string()?),
            Long("allow-plain-http") => flags.allow_plain_http = true,
            Short('h') | Long("help") => return Ok(None),
            Value(token) if flags.token.is_empty() => flags.token = token.string()?,
            // Deliberately not `unexpected`, which would print a second token.
            Value(_) => return Err("more than one token".into()),
            _ => return Err(arg.unexpected()),
        }
    }
    for (name, value) in [("--jwks", &flags.jwks), ("TOKEN", &flags.token)] {
        if value.is_empty() {
            return Err(format!("{name} is missing").into());
        }
    }
    Ok(Some(flags))
}

#[tokio::main]
async fn main() -> ExitCode {
    let flags = match flags() {
        Ok(Some(flags)) => flags,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("inspect: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(flags).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("inspect: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run(flags: Flags) -> Result<bool, Box<dyn std::error::Error>> {
    let mut text = flags.token;
    if text == "-" {
        text.clear();
        std::io::stdin().take(1 << 20).read_to_string(&mut text)?;
    }
    let text = text.trim();
    let token = text.strip_prefix("Bearer ").unwrap_or(text).trim();

    let mut jwks = RemoteJwks::builder(&flags.jwks);
    if flags.allow_plain_http {
        jwks = jwks.allow_plain_http();
    }
    let jwks = jwks.build()?;
    // Without keys the checks that need none are worth seeing all the same; their outcome says why.
    let fetched = jwks.refresh().await;
    let mut verifier = Verifier::new(jwks.clone());
    if let Some(issuer) = &flags.issuer {
        verifier = verifier.issuer(issuer);
    }
    if let Some(audience) = &flags.audience {
        verifier = verifier.audience(audience);
    }

    let seen = Seen::decode(token);
    seen.print();
    let outcome = verifier.verify(token).await;
    let failed = outcome.as_ref().err().map(|rejection| rejection.reason());
    print_checks(failed);
    match (outcome, failed) {
        (Ok(caller), _) => {
            println!("\nM2 admits it{}.", until(&caller));
            Ok(true)
        }
        (_, Some(reason)) => {
            println!("\nM2 refuses it: {reason:?}, {}.", reason.description());
            println!("{}", advice(reason, &seen, &jwks, fetched.err().as_ref()));
            Ok(false)
        }
        (Err(_), None) => unreachable!("a rejection has a reason"),
    }
}

/// What a token says of itself, none of it proved.
struct Seen {
    header: Option<Value>,
    claims: Option<Value>,
}

impl Seen {
    fn decode(token: &str) -> Self {
        let mut parts = token.split('.');
        let mut part = || serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts.next()?).ok()?).ok();
        Self { header: part(), claims: part() }
    }

    fn print(&self) {
        for (name, part) in [("header", &self.header), ("claims", &self.claims)] {
            match part {
                Some(Value::Object(members)) => {
                    println!("{name}");
                    for (member, value) in members {
                        println!("  {}: {}{}", escaped(member), shown(value), date(member, value));
                    }
                }
                _ => println!("{name}\n  (not a JSON object in base64url)"),
            }
        }
        println!();
    }

    fn header(&self, name: &str) -> String {
        self.header.as_ref().and_then(|header| header.get(name)).map_or("(none)".to_owned(), shown)
    }

    fn claim(&self, name: &str) -> String {
        self.claims.as_ref().and_then(|claims| claims.get(name)).map_or("(none)".to_owned(), shown)
    }
}

/// Visible ASCII, whatever the token holds, and not more than a line of it.
fn escaped(text: &str) -> String {
    text.chars().flat_map(char::escape_default).take(200).collect()
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("\"{}\"", escaped(text)),
        other => escaped(&other.to_string()),
    }
}

/// How far away a date is, for the claims that are dates.
fn date(claim: &str, value: &Value) -> String {
    let (true, Some(seconds)) = (matches!(claim, "exp" | "nbf" | "iat"), value.as_f64()) else {
        return String::new();
    };
    let away = seconds - now() as f64;
    let (number, unit) = match away.abs() {
        seconds if seconds < 120.0 => (seconds, "s"),
        seconds if seconds < 7200.0 => (seconds / 60.0, "min"),
        seconds if seconds < 172_800.0 => (seconds / 3600.0, "h"),
        seconds => (seconds / 86_400.0, "d"),
    };
    if away < 0.0 {
        format!(" ({number:.0} {unit} ago)")
    } else {
        format!(" (in {number:.0} {unit})")
    }
}

fn now() -> u64 {
    #[allow(clippy::disallowed_methods)] // a program that shows dates to its user
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn until(caller: &ServiceClaims) -> String {
    let exp = caller.get("exp").map(|exp| date("exp", exp)).unwrap_or_default();
    format!("; it expires{exp}")
}

/// The checks in their order, each with the reasons for which it refuses.
const CHECKS: [(&str, &[Reason]); 9] = [
    ("length: at most 8 KiB", &[Reason::TokenTooLong]),
    ("form: three parts of canonical base64url", &[Reason::NotThreeParts, Reason::NotBase64Url]),
    (
        "header: one JSON object, no extension, encryption, nesting or foreign type",
        &[
            Reason::MalformedHeader,
            Reason::CriticalHeader,
            Reason::EncryptedToken,
            Reason::NestedToken,
            Reason::UnsupportedTokenType,
            Reason::MalformedKeyId,
        ],
    ),
    (
        "algorithm: asymmetric and allowed",
        &[Reason::UnsupportedAlgorithm, Reason::AlgorithmNotAllowed],
    ),
    (
        "dates: exp ahead, nbf and iat not, claims one JSON object",
        &[
            Reason::MalformedClaims,
            Reason::MalformedExpiration,
            Reason::Expired,
            Reason::MalformedNotBefore,
            Reason::NotYetValid,
            Reason::MalformedIssuedAt,
            Reason::IssuedInFuture,
            Reason::LifetimeTooLong,
        ],
    ),
    (
        "names: issuer, audience, subject",
        &[Reason::WrongIssuer, Reason::WrongAudience, Reason::WrongSubject],
    ),
    (
        "key: known by kid and algorithm",
        &[
            Reason::UnknownKey,
            Reason::KeysNotLoaded,
            Reason::KeysStale,
            Reason::FetchFailed,
            Reason::TooManyWaiting,
        ],
    ),
    ("signature: the key's over this token", &[Reason::BadSignature]),
    ("marker: source is exactly \"microservice\"", &[Reason::NotMicroservice]),
];

fn print_checks(failed: Option<Reason>) {
    let failed_at =
        failed.and_then(|reason| CHECKS.iter().position(|(_, reasons)| reasons.contains(&reason)));
    for (position, (check, _)) in CHECKS.iter().enumerate() {
        let mark = match failed_at {
            Some(failed_at) if position == failed_at => "✗",
            Some(failed_at) if position > failed_at => " ",
            _ => "✓",
        };
        println!("{mark} {check}");
    }
}

/// What to change, for whoever runs M1 or M2.
fn advice(
    reason: Reason,
    seen: &Seen,
    jwks: &RemoteJwks,
    fetch: Option<&tower_m2m::FetchError>,
) -> String {
    let kids = || {
        let keys = jwks
            .to_json()
            .and_then(|json| serde_json::from_str::<Value>(&json).ok())
            .unwrap_or_default();
        let kids: Vec<_> =
            keys["keys"].as_array().into_iter().flatten().map(|key| shown(&key["kid"])).collect();
        kids.join(", ")
    };
    match reason {
        Reason::TokenTooLong => "Put less into the token, or raise M2's max_token_len.".to_owned(),
        Reason::NotThreeParts | Reason::NotBase64Url => {
            "This is no JWT, or not all of one: copy it whole, without quotes and line breaks.".to_owned()
        }
        Reason::MalformedHeader | Reason::MalformedClaims => {
            "The JSON in it is broken, or names a member twice: ask whoever minted it.".to_owned()
        }
        Reason::UnsupportedAlgorithm | Reason::AlgorithmNotAllowed => {
            format!(
                "Its alg is {}: have M1's authority sign with an asymmetric one that M2 allows.",
                seen.header("alg")
            )
        }
        Reason::CriticalHeader | Reason::EncryptedToken | Reason::NestedToken => {
            "It needs something that M2 does not do: mint a plain signed JWT.".to_owned()
        }
        Reason::UnsupportedTokenType => format!("Its typ is {}: M2 takes JWT and at+jwt.", seen.header("typ")),
        Reason::MalformedKeyId => "Its kid is no string of 1 to 256 bytes: ask whoever minted it.".to_owned(),
        Reason::MalformedExpiration => {
            "It never expires, or says so in a way that is no number: mint one that does.".to_owned()
        }
        Reason::Expired => "Mint a new one; or, if it is new, set the clocks: M2 allows 30 s.".to_owned(),
        Reason::MalformedNotBefore | Reason::MalformedIssuedAt => {
            "A date in it is no number: ask whoever minted it.".to_owned()
        }
        Reason::NotYetValid | Reason::IssuedInFuture => {
            "It is from the future: set the clock of this machine or of the one that minted it; M2 allows 30 s."
                .to_owned()
        }
        Reason::LifetimeTooLong => "Mint it with a shorter validity, or raise M2's max_lifetime.".to_owned(),
        Reason::WrongIssuer => format!(
            "Its iss is {}: give M2 that issuer, or M1 the JWKS domain that M2 wants. A token of a user's session has the \
             base path behind it.",
            seen.claim("iss")
        ),
        Reason::WrongAudience => {
            format!("Its aud is {}: mint it with .audience(..) for this M2.", seen.claim("aud"))
        }
        Reason::WrongSubject => format!("Its sub is {}.", seen.claim("sub")),
        Reason::UnknownKey => format!(
            "Its kid is {}, the key set has {}: M1 mints at another core than M2 asks for keys, or the core lost its keys.",
            seen.header("kid"),
            kids()
        ),
        Reason::BadSignature => {
            "It was changed on the way, or another key stands under this kid now: mint a new one.".to_owned()
        }
        Reason::NotMicroservice => format!(
            "Its source is {}: an end user's token, or one that was not minted with \"source\": \"microservice\".",
            seen.claim("source")
        ),
        _ => match fetch {
            Some(error) => format!(
                "The key set cannot be fetched: {}. Check the URL and which server answers there.",
                chain(error)
            ),
            None => "The key set cannot be fetched. Check the URL and which server answers there."
                .to_owned(),
        },
    }
}
