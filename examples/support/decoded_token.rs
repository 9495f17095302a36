//! The unverified content of a token, as text for a terminal.
//!
//! Text from the token is escaped, so that it cannot send control sequences to the terminal.

use std::fmt::{self, Display, Formatter};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// The unverified content of a token.
pub(crate) struct DecodedToken {
    header: Option<Value>,
    claims: Option<Value>,
}

impl DecodedToken {
    pub(crate) fn decode(token: &str) -> Self {
        let mut parts = token.split('.');
        let mut part = || serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts.next()?).ok()?).ok();
        Self { header: part(), claims: part() }
    }

    pub(crate) fn header(&self, name: &str) -> String {
        self.header.as_ref().and_then(|header| header.get(name)).map_or("(none)".to_owned(), shown)
    }

    pub(crate) fn claim(&self, name: &str) -> String {
        self.claim_at(&[name.to_owned()])
    }

    /// The claim at a path of nested claims.
    pub(crate) fn claim_at(&self, path: &[String]) -> String {
        let claims = self.claims.as_ref();
        let claim = path.iter().fold(claims, |claim, name| claim.and_then(|claim| claim.get(name)));
        claim.map_or("(none)".to_owned(), shown)
    }
}

impl Display for DecodedToken {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (name, part) in [("header", &self.header), ("claims", &self.claims)] {
            writeln!(f, "{name}")?;
            let Some(Value::Object(members)) = part else {
                writeln!(f, "  (not a JSON object in base64url)")?;
                continue;
            };
            for (member, value) in members {
                writeln!(f, "  {}: {}{}", escaped(member), shown(value), date(member, value))?;
            }
        }
        Ok(())
    }
}

/// Escapes the text to visible ASCII and cuts it to 200 characters.
fn escaped(text: &str) -> String {
    text.chars().flat_map(char::escape_default).take(200).collect()
}

/// Formats a value of the token on one line.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("\"{}\"", escaped(text)),
        other => escaped(&other.to_string()),
    }
}

/// Formats the time from now to a date claim, for example ` (in 5 min)`. Empty for other claims.
fn date(claim: &str, value: &Value) -> String {
    match value.as_f64() {
        Some(seconds) if matches!(claim, "exp" | "nbf" | "iat") => {
            format!(" ({})", time_from_now(seconds))
        }
        _ => String::new(),
    }
}

/// Formats a Unix time relative to now, for example `in 60 min` or `3 d ago`.
pub(crate) fn time_from_now(seconds: f64) -> String {
    let away = seconds - now() as f64;
    let (number, unit) = match away.abs() {
        seconds if seconds < 120.0 => (seconds, "s"),
        seconds if seconds < 7200.0 => (seconds / 60.0, "min"),
        seconds if seconds < 172_800.0 => (seconds / 3600.0, "h"),
        seconds => (seconds / 86_400.0, "d"),
    };
    if away < 0.0 { format!("{number:.0} {unit} ago") } else { format!("in {number:.0} {unit}") }
}

fn now() -> u64 {
    #[allow(clippy::disallowed_methods)] // the crate's clock is private
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
