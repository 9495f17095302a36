//! Verifies a token as M2 would, prints the outcome of each check, and says what to change if one
//! fails.
//!
//! Text from the token is escaped before it is printed, so that it cannot send control sequences to
//! the terminal.
#![allow(clippy::print_stdout)] // prints its result

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

  --jwks URL           the JWKS endpoint that M2 uses
  --issuer ISS         the issuer that M2 requires
  --audience AUD       the audience that M2 requires
  --allow-plain-http   allow an http URL beyond loopback
  TOKEN                the token, with or without Bearer in front; - reads it from standard input";

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
            // Not `arg.unexpected()`: its message would print the second token.
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
    // Not `?`: without keys, the checks that need none still run.
    let fetched = jwks.refresh().await;
    let mut verifier = Verifier::new(jwks.clone());
    if let Some(issuer) = &flags.issuer {
        verifier = verifier.issuer(issuer);
    }
    if let Some(audience) = &flags.audience {
        verifier = verifier.audience(audience);
    }

    let decoded = DecodedToken::decode(token);
    decoded.print();
    let outcome = verifier.verify(token).await;
    let failed = outcome.as_ref().err().map(|rejection| rejection.reason());
    print_checks(failed);
    match (outcome, failed) {
        (Ok(caller), _) => {
            println!("\nM2 accepts the token{}.", expiry(&caller));
            Ok(true)
        }
        (_, Some(reason)) => {
            println!("\nM2 rejects the token: {reason:?}, {}.", reason.description());
            println!("{}", advice(reason, &decoded, &jwks, fetched.err().as_ref()));
            Ok(false)
        }
        (Err(_), None) => unreachable!("a rejection has a reason"),
    }
}

/// The unverified content of a token.
struct DecodedToken {
    header: Option<Value>,
    claims: Option<Value>,
}

impl DecodedToken {
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

/// Escapes the text to visible ASCII and cuts it to 200 characters.
fn escaped(text: &str) -> String {
    text.chars().flat_map(char::escape_default).take(200).collect()
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("\"{}\"", escaped(text)),
        other => escaped(&other.to_string()),
    }
}

/// Formats the time from now to a date claim, for example ` (in 5 min)`. Empty for other claims.
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
    #[allow(clippy::disallowed_methods)] // the crate's clock is private
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn expiry(caller: &ServiceClaims) -> String {
    let exp = caller.get("exp").map(|exp| date("exp", exp)).unwrap_or_default();
    format!("; it expires{exp}")
}

/// The checks, each with the reasons for which it rejects a token. M2 uses this order if the key is
/// unknown. With a known key it checks the signature before the dates and `iss`, `aud` and `sub`.
const CHECKS: [(&str, &[Reason]); 9] = [
    ("length: at most 8 KiB", &[Reason::TokenTooLong]),
    ("form: three parts of canonical base64url", &[Reason::NotThreeParts, Reason::NotBase64Url]),
    (
        "header: one JSON object; no extension, encryption, nested token or other type",
        &[
            Reason::MalformedHeader,
            Reason::CriticalHeader,
            Reason::EncryptedToken,
            Reason::NestedToken,
            Reason::UnsupportedTokenType,
            Reason::MalformedKid,
        ],
    ),
    (
        "algorithm: asymmetric and allowed",
        &[Reason::UnsupportedAlgorithm, Reason::AlgorithmNotAllowed],
    ),
    (
        "dates: exp in the future, nbf and iat in the past; claims are one JSON object",
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
        "claims: iss, aud and sub as M2 requires, and no cnf",
        &[
            Reason::WrongIssuer,
            Reason::WrongAudience,
            Reason::WrongSubject,
            Reason::SenderConstrained,
        ],
    ),
    (
        "key: in the key set, for this kid and algorithm",
        &[
            Reason::UnknownKey,
            Reason::KeysNotLoaded,
            Reason::KeysStale,
            Reason::FetchFailed,
            Reason::TooManyWaiting,
        ],
    ),
    ("signature: valid for this token and key", &[Reason::BadSignature]),
    ("marker: source is exactly \"microservice\"", &[Reason::NotMicroservice]),
];

fn print_checks(failed: Option<Reason>) {
    let failed_at =
        failed.and_then(|reason| CHECKS.iter().position(|(_, reasons)| reasons.contains(&reason)));
    let is_skipped = |check: &str| {
        failed == Some(Reason::BadSignature)
            && (check.starts_with("dates") || check.starts_with("claims"))
    };
    for (position, (check, _)) in CHECKS.iter().enumerate() {
        let mark = match failed_at {
            Some(failed_at) if position == failed_at => "✗",
            Some(failed_at) if position > failed_at => " ",
            Some(_) if is_skipped(check) => " ",
            _ => "✓",
        };
        println!("{mark} {check}");
    }
}

/// What to change in M1, in M2 or at the authority.
fn advice(
    reason: Reason,
    decoded: &DecodedToken,
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
        Reason::TokenTooLong => "Mint a token with fewer claims, or raise max_token_len in M2.".to_owned(),
        Reason::NotThreeParts | Reason::NotBase64Url => {
            "The text is not a complete JWT: copy all of it, without quotes and line breaks.".to_owned()
        }
        Reason::MalformedHeader | Reason::MalformedClaims => {
            "The token's JSON is malformed or has a duplicate member: correct the program that mints it.".to_owned()
        }
        Reason::UnsupportedAlgorithm | Reason::AlgorithmNotAllowed => {
            format!(
                "The token's alg is {}: configure the authority to sign with an asymmetric algorithm that M2 allows.",
                decoded.header("alg")
            )
        }
        Reason::CriticalHeader | Reason::EncryptedToken | Reason::NestedToken => {
            "The token uses a JOSE feature that M2 does not support: mint a plain signed JWT.".to_owned()
        }
        Reason::UnsupportedTokenType => format!(
            "The token's typ is {}: mint a token with typ JWT, at+jwt or JOSE, or without typ.",
            decoded.header("typ")
        ),
        Reason::MalformedKid => {
            "The token's kid is not a string of 1 to 256 bytes: correct the program that mints it.".to_owned()
        }
        Reason::MalformedExpiration => {
            "The token's exp is missing or not a number: mint a token with an expiration time.".to_owned()
        }
        Reason::Expired => {
            "Mint a new token. If it is new, synchronize the clocks: M2 allows a skew of 30 s.".to_owned()
        }
        Reason::MalformedNotBefore | Reason::MalformedIssuedAt => {
            "The token's nbf or iat is not a number: correct the program that mints it.".to_owned()
        }
        Reason::NotYetValid | Reason::IssuedInFuture => {
            "The token's nbf or iat is in the future: synchronize the clocks of this machine and the authority; M2 allows a \
             skew of 30 s."
                .to_owned()
        }
        Reason::LifetimeTooLong => "Mint a token with a shorter validity, or raise max_lifetime in M2.".to_owned(),
        Reason::WrongIssuer => format!(
            "The token's iss is {}: set that issuer in M2, or set the JWKS domain in M1 to the issuer that M2 requires. The iss \
             of a user's session token ends with the API's base path.",
            decoded.claim("iss")
        ),
        Reason::WrongAudience => {
            format!(
                "The token's aud is {}: in M1 call .audience(..) with the audience that M2 requires.",
                decoded.claim("aud")
            )
        }
        Reason::WrongSubject => {
            format!("The token's sub is {}: mint a token with the subject that M2 requires.", decoded.claim("sub"))
        }
        Reason::SenderConstrained => {
            "The token's cnf binds it to a key of its sender, which M2 cannot check: turn off DPoP or mutual-TLS binding for \
             this client at the authority."
                .to_owned()
        }
        Reason::UnknownKey => format!(
            "The token's kid is {}, the key set has {}: M1 and M2 use different cores, or the core lost its keys and M1 has to \
             mint a new token.",
            decoded.header("kid"),
            kids()
        ),
        Reason::BadSignature => {
            "The token was altered, or its kid now belongs to another key: mint a new token.".to_owned()
        }
        Reason::NotMicroservice => format!(
            "The token's source is {}: call M2 with a token that is minted with \"source\": \"microservice\", not with an end \
             user's.",
            decoded.claim("source")
        ),
        _ => match fetch {
            Some(error) => format!(
                "The key set cannot be fetched: {}. Check the URL and the server that it names.",
                chain(error)
            ),
            None => "The key set cannot be fetched. Check the URL and the server that it names.".to_owned(),
        },
    }
}
