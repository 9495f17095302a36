//! Verifies a token as M2 would, prints the outcome of each check, and says what to change if one
//! fails.
//!
//! ```text
//! cargo run --example inspect -- --jwks http://127.0.0.1:3567/.well-known/jwks.json @token.txt
//! ```
//!
//! The exit code is 0 if M2 accepts the token.

use std::fs::File;
use std::io::{self, Read};
use std::process::ExitCode;

use tower_m2m::{RejectionReason as Reason, RemoteJwks, ServiceClaims, Verifier};
use tracing_subscriber::filter::LevelFilter;

use advice::advice;
use decoded_token::{DecodedToken, time_from_now};
use marker::Marker;
use support::{Stop, chain, exit_code, log_to_stderr, print};

#[path = "support/advice.rs"]
mod advice;
#[path = "support/decoded_token.rs"]
mod decoded_token;
#[path = "support/marker.rs"]
mod marker;
mod support;

const USAGE: &str = "\
usage: inspect --jwks URL [--issuer ISS] [--audience AUD] [--marker CLAIM=VALUE] [--allow-plain-http] TOKEN

Makes the checks of M2 on a token, prints the outcome of each, and says what to change if one fails. Exits with 0 if M2
accepts the token, and with 1 if it does not. The issuer and the audience are checked only if they are given.

  --jwks URL           the JWKS endpoint that M2 uses
  --issuer ISS         the issuer that M2 requires
  --audience AUD       the audience that M2 requires
  --marker CLAIM=VALUE the marker that M2 requires, in the form of its flag (source=microservice)
  --allow-plain-http   allow an http URL beyond loopback
  TOKEN                the token, with or without Bearer in front; @FILE reads it from a file, - from standard input.
                       Unlike a token on the command line, these do not appear in the list of processes
  --help               print this help

environment:
  RUST_LOG             what to log on stderr, for example debug or warn,tower_m2m=debug (nothing)";

/// Maximum number of bytes that are read from a file or stdin. M2 accepts tokens of at most 8 KiB.
const MAX_TEXT: u64 = 1024 * 1024;

#[derive(Default)]
struct Flags {
    jwks: String,
    issuer: Option<String>,
    audience: Option<String>,
    marker: Marker,
    allow_plain_http: bool,
    token: String,
}

/// Parses the command line. `None` if it asks for help.
fn flags() -> Result<Option<Flags>, lexopt::Error> {
    use lexopt::prelude::*;
    let mut flags = Flags::default();
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("jwks") => flags.jwks = parser.value()?.string()?,
            Long("issuer") => flags.issuer = Some(parser.value()?.string()?),
            Long("audience") => flags.audience = Some(parser.value()?.string()?),
            Long("marker") => flags.marker = Marker::parse(&parser.value()?.string()?)?,
            Long("allow-plain-http") => flags.allow_plain_http = true,
            Short('h') | Long("help") => return Ok(None),
            Value(token) if flags.token.is_empty() => flags.token = token.string()?,
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
    log_to_stderr(LevelFilter::OFF);
    exit_code("inspect", USAGE, run().await)
}

async fn run() -> Result<ExitCode, Stop> {
    let Some(flags) = flags().map_err(Stop::command_line)? else {
        return print(USAGE).map(|()| ExitCode::SUCCESS);
    };
    let text = match flags.token.strip_prefix('@') {
        Some(path) => File::open(path)
            .and_then(read_text)
            .map_err(|err| Stop::Failed(format!("cannot read {path}: {err}")))?,
        None if flags.token == "-" => read_text(io::stdin())?,
        None => flags.token,
    };
    let text = text.trim();
    let token = text.strip_prefix("Bearer ").unwrap_or(text).trim();

    let mut jwks = RemoteJwks::builder(&flags.jwks);
    if flags.allow_plain_http {
        jwks = jwks.allow_plain_http();
    }
    let jwks = jwks.build().map_err(|err| Stop::Usage(chain(&err)))?;
    let mut verifier = flags.marker.require(Verifier::new(jwks.clone()));
    if let Some(issuer) = &flags.issuer {
        verifier = verifier.issuer(issuer);
    }
    if let Some(audience) = &flags.audience {
        verifier = verifier.audience(audience);
    }

    let decoded = DecodedToken::decode(token);
    print(&decoded)?;
    // Not `?`: without keys, the checks that need none still run.
    let fetched = jwks.refresh().await;
    match verifier.verify(token).await {
        Ok(caller) => {
            print(checks(None, &flags.marker))?;
            print(format_args!("M2 accepts the token{}.", expiry(&caller)))?;
            if flags.issuer.is_none() || flags.audience.is_none() {
                print(
                    "Without --issuer or --audience, iss or aud was not compared with what M2 requires.",
                )?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(rejection) => {
            let reason = rejection.reason();
            print(checks(Some(reason), &flags.marker))?;
            print(format_args!("M2 rejects the token: {reason:?}, {}.", reason.description()))?;
            print(advice(reason, &decoded, &jwks, fetched.err().as_ref(), &flags.marker))?;
            Ok(ExitCode::FAILURE)
        }
    }
}

fn read_text(source: impl Read) -> io::Result<String> {
    let mut text = String::new();
    source.take(MAX_TEXT).read_to_string(&mut text)?;
    Ok(text)
}

fn expiry(caller: &ServiceClaims) -> String {
    let exp = caller.get("exp").and_then(|exp| exp.as_f64()).map(time_from_now);
    format!("; it expires {}", exp.unwrap_or_default())
}

/// The beginning of the check that ends with the marker.
const MARKER: &str = "marker: ";

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
    (MARKER, &[Reason::NotMicroservice]),
];

/// One line for each check, with a mark if it was reached.
fn checks(failed: Option<Reason>, marker: &Marker) -> String {
    let failed_at =
        failed.and_then(|reason| CHECKS.iter().position(|(_, reasons)| reasons.contains(&reason)));
    let is_skipped = |check: &str| {
        failed == Some(Reason::BadSignature)
            && (check.starts_with("dates") || check.starts_with("claims"))
    };
    let lines = CHECKS.iter().enumerate().map(|(position, (check, _))| {
        let mark = match failed_at {
            Some(failed_at) if position == failed_at => "✗",
            Some(failed_at) if position > failed_at => " ",
            Some(_) if is_skipped(check) => " ",
            _ => "✓",
        };
        match *check {
            MARKER => format!("{mark} {MARKER}{marker}\n"),
            check => format!("{mark} {check}\n"),
        }
    });
    lines.collect()
}
