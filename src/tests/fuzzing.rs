//! The functions of the fuzz targets. Each parses bytes that an attacker can send, and asserts
//! properties that hold for all bytes. Compiled for `cfg(fuzzing)` and for the test that replays
//! the corpora.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use serde_json::Value;

use crate::bearer;
use crate::jose::json;
use crate::jose::{Algorithm, Jws};
use crate::jwks::{KeySource, LocalJwks, Lookup};
use crate::rejection::RejectionReason;
use crate::verify::{Authentication, Policy, Verifier};

const MAX_LEN: usize = 8192;

/// The time of the claims checks, in Unix seconds: January 2027.
const NOW: u64 = 1_800_000_000;

/// Parses each line as one `Authorization` value.
pub fn authorization(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let Ok(value) = HeaderValue::from_bytes(line) else { return };
        headers.append(AUTHORIZATION, value);
    }
    let Ok(token) = read(&headers) else { return };
    assert_eq!(headers.len(), 1, "several credentials are accepted");
    assert!((1..=MAX_LEN).contains(&token.len()) && token.is_ascii());
    let (scheme, rest) = bytes.split_at(b"Bearer".len());
    assert!(scheme.eq_ignore_ascii_case(b"Bearer"));
    assert!(
        rest.starts_with(b" ") && rest.trim_ascii_start() == token.as_bytes(),
        "a part of the value is ignored"
    );
    let written = HeaderMap::from_iter([(
        AUTHORIZATION,
        bearer::write(token).unwrap_or_else(|_| unreachable!()),
    )]);
    assert_eq!(read(&written), Ok(token));
}

fn read(headers: &HeaderMap) -> Result<&str, RejectionReason> {
    let credential = bearer::credential(headers.get_all(AUTHORIZATION))?;
    bearer::b64token(bearer::token(credential.as_bytes(), &AUTHORIZATION)?, MAX_LEN)
}

/// Parses a token.
pub fn compact_jws(bytes: &[u8]) {
    let Ok(token) = std::str::from_utf8(bytes) else { return };
    let Ok(jws) = Jws::parse(token, MAX_LEN) else { return };
    assert!(token.len() <= MAX_LEN);
    assert_canonical(token);
    assert!(jws.kid().is_none_or(|kid| (1..=256).contains(&kid.len())));
    assert_eq!(
        token.strip_prefix(jws.signing_input()).and_then(|rest| rest.strip_prefix('.')),
        token.split('.').nth(2)
    );
    if let Ok(claims) = jws.claims() {
        // serde_json agrees, because the object has no duplicate members.
        assert_eq!(
            serde_json::from_slice::<Value>(jws.payload()).ok(),
            Some(Value::Object(claims))
        );
    }
}

/// Parses a token's header.
pub fn header(bytes: &[u8]) {
    let token = format!("{}.e30.c2ln", URL_SAFE_NO_PAD.encode(bytes));
    let Ok(jws) = Jws::parse(&token, MAX_LEN) else { return };
    assert!(bytes.len() <= 2048);
    if jws.claims().is_err() {
        return;
    }
    let Ok(Value::Object(header)) = serde_json::from_slice(bytes) else {
        panic!("serde_json does not read the header as an object")
    };
    for refused in ["crit", "b64", "enc", "zip"] {
        assert!(!header.contains_key(refused), "a header with {refused} is accepted");
    }
    if let Some(typ) = header.get("typ") {
        let typ = typ.as_str().unwrap_or_default().to_ascii_lowercase();
        let bare = typ.strip_prefix("application/").unwrap_or(&typ);
        assert!(["jwt", "at+jwt", "jose"].contains(&bare), "typ {bare} is accepted");
    }
    let name = header["alg"].as_str().unwrap_or_default();
    assert_eq!(Algorithm::from_name(name), Some(jws.algorithm()));
    assert!(!name.starts_with("HS") && !name.eq_ignore_ascii_case("none"));
    assert_eq!(header.get("kid").map(Value::as_str), jws.kid().map(Some));
}

/// Checks a token's claims under the default policy and under a strict one.
pub fn claims(bytes: &[u8]) {
    let Some(claims) = json::object(bytes) else { return };
    assert_eq!(
        serde_json::from_slice::<Value>(bytes).ok().as_ref(),
        Some(&Value::Object(claims.clone()))
    );
    let lenient = Policy::default();
    let mut strict = Policy::default();
    strict.add_issuer("https://api.example.com".to_owned());
    strict.add_audience("billing".to_owned());
    strict.require_subject("orders".to_owned());
    strict.limit_lifetime(std::time::Duration::from_secs(3600));
    let check = |policy: &Policy| {
        let checked = policy.check_claims(bytes, NOW)?;
        checked.requirements.map(|()| checked.validity)
    };
    let (by_strict, by_lenient) = (check(&strict), check(&lenient));
    let is_scanned = by_lenient != Err(RejectionReason::MalformedClaims);
    assert!(is_scanned, "the scan rejects claims that the full parser accepts");
    if let Ok(validity) = by_lenient {
        assert!(!claims.contains_key("cnf"), "a sender-constrained token is accepted");
        let expires_at = validity.expires_at();
        assert!(validity.contains(NOW) && !validity.contains(expires_at + 30));
        assert!(expires_at + 30 > NOW && expires_at < 1 << 53);
        assert!(
            claims["exp"].as_f64().is_some_and(|exp| exp >= expires_at as f64),
            "exp is rounded up"
        );
        for earlier in ["nbf", "iat"].iter().filter_map(|name| claims.get(*name)) {
            assert!(earlier.as_f64().is_some_and(|date| (0.0..=(NOW + 30) as f64).contains(&date)));
        }
    }
    if by_strict.is_ok() {
        assert_eq!(by_strict, by_lenient, "the strict and the default policy disagree");
        assert_eq!(
            (&claims["iss"], &claims["sub"]),
            (&"https://api.example.com".into(), &"orders".into())
        );
        assert!(
            claims["aud"] == "billing"
                || claims["aud"].as_array().is_some_and(|aud| aud.contains(&"billing".into()))
        );
    }
    let marked = lenient.has_marker(&claims);
    assert_eq!(marked, claims.get("source").and_then(Value::as_str) == Some("microservice"));
}

/// Parses a key set and looks up its keys.
pub fn jwks(bytes: &[u8]) {
    let Ok(keys) = LocalJwks::from_json(bytes) else { return };
    // serde_json may reject a number in a skipped entry.
    let Ok(document) = serde_json::from_slice::<Value>(bytes) else { return };
    let entries = document["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
    assert!(!entries.is_empty(), "a set without entries is accepted");
    let source = KeySource::from(keys);
    let kids = entries.iter().map(|entry| entry["kid"].as_str());
    let mut found = 0;
    for kid in kids.chain([None]) {
        for algorithm in Algorithm::all() {
            let Lookup::Found(key) = source.look_up(kid, algorithm, NOW) else { continue };
            found += 1;
            assert!(key.fits(algorithm) && key.is_usable(NOW));
            assert!(kid.is_none() || key.kid() == kid);
            assert!(
                !key.verify(algorithm, b"header.claims", &vec![1; 64]),
                "a made-up signature is valid"
            );
            assert!(
                !key.verify(algorithm, b"header.claims", &Vec::new()),
                "an empty signature is valid"
            );
        }
    }
    // A key without a `kid` is found only if no other key fits, so in a set of several keys
    // possibly none is found.
    assert!(found > 0 || entries.len() > 1, "the only key is not found");
}

/// Verifies a token: the first line is the key set, the rest is the token.
pub fn jwks_and_token(bytes: &[u8]) {
    let Some(at) = bytes.iter().position(|byte| *byte == b'\n') else { return };
    let (Ok(keys), Ok(token)) =
        (LocalJwks::from_json(&bytes[..at]), std::str::from_utf8(&bytes[at + 1..]))
    else {
        return;
    };
    let verifier = Verifier::new(keys);
    let authenticate = |token: &str| verifier.authenticate_token(token.as_bytes());
    let Authentication::Done(Ok(claims)) = authenticate(token) else { return };
    assert_canonical(token);
    assert_eq!(claims.get("source").and_then(Value::as_str), Some("microservice"));
    assert!(claims.get("exp").is_some_and(Value::is_number));
    // A change of the claims or of the signature makes the token invalid.
    for part in [1, 2] {
        let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
        let swapped = if parts[part].starts_with('A') { "B" } else { "A" };
        parts[part].replace_range(..1, swapped);
        let changed = parts.join(".");
        assert!(
            matches!(authenticate(&changed), Authentication::Done(Err(_))),
            "a changed token is accepted"
        );
        assert!(verifier.cached(changed.as_bytes()).is_none(), "a changed token is cached");
    }
    assert!(
        verifier.cached(bytes[at + 1..].as_ref()).is_some_and(|outcome| outcome.is_ok()),
        "an accepted token is not cached"
    );
}

/// Parses each line as one `Cache-Control` value, but the last one as `Age`.
#[cfg(feature = "reqwest")]
pub fn cache_control(bytes: &[u8]) {
    use crate::jwks::{clamp, freshness};
    use std::time::Duration;

    let values: Option<Vec<HeaderValue>> =
        bytes.split(|byte| *byte == b'\n').map(|line| HeaderValue::from_bytes(line).ok()).collect();
    let Some((age, values)) = values.as_ref().and_then(|values| values.split_last()) else {
        return;
    };
    let fresh = freshness(values, Some(age));
    assert!(fresh <= freshness(values, None), "Age extends the freshness lifetime");
    // RFC 9110 §5.3: several values mean the same as one, joined by commas.
    let joined = HeaderValue::from_bytes(
        &values.iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b", "[..]),
    );
    if let Ok(joined) = joined {
        assert_eq!(freshness([&joined], Some(age)), fresh);
    }
    for max_age in
        [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(3600), Duration::MAX]
    {
        let lifetime = clamp(fresh, Duration::from_secs(30), max_age);
        assert!((Duration::from_secs(30).min(max_age)..=max_age).contains(&lifetime));
    }
}

/// Asserts that a token is three parts of canonical base64url (RFC 7515 §2, RFC 4648 §5).
fn assert_canonical(token: &str) {
    let parts: Vec<&str> = token.split('.').collect();
    assert_eq!(parts.len(), 3);
    for part in parts {
        let decoded = URL_SAFE_NO_PAD.decode(part).unwrap_or_default();
        assert_eq!(URL_SAFE_NO_PAD.encode(decoded), part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    type Target = (&'static str, fn(&[u8]));

    const TARGETS: &[Target] = &[
        ("authorization", authorization),
        ("compact_jws", compact_jws),
        ("header", header),
        ("claims", claims),
        ("jwks", jwks),
        ("jwks_and_token", jwks_and_token),
        #[cfg(feature = "reqwest")]
        ("cache_control", cache_control),
    ];

    #[test]
    fn corpora_pass_their_targets() {
        let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        if !corpora.is_dir() {
            eprintln!(
                "no corpora in {} (the published package omits them), test skipped",
                corpora.display()
            );
            return;
        }
        for (name, target) in TARGETS {
            let files: Vec<_> = fs::read_dir(corpora.join(name))
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .collect();
            assert!(files.len() >= 4, "{name} has {} files", files.len());
            for file in files {
                target(&fs::read(file).unwrap());
            }
        }
    }
}
