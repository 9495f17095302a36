//! Excerpts of unverified claims for the log.

use crate::error::escape_and_cut;
use crate::jose::json::RawValue;

/// The value of a claim as printable ASCII, escaped and then cut to 64 characters: a string without
/// quotes, an array of strings as a list, any other value as JSON.
pub(super) fn excerpt(claim: RawValue<'_>) -> String {
    let text =
        strings(claim).unwrap_or_else(|| String::from_utf8_lossy(claim.as_bytes()).into_owned());
    escape_and_cut(&text)
}

fn strings(claim: RawValue<'_>) -> Option<String> {
    if let Some(string) = claim.as_string() {
        return string.unescape();
    }
    let mut strings = Vec::new();
    claim.elements(|element| {
        strings.push(element.as_string()?.unescape()?);
        Some(())
    })?;
    Some(strings.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jose::json;

    #[test]
    fn excerpt_is_ascii_escaped_and_at_most_64_characters() {
        let long = "x".repeat(65);
        let cases = [
            (r#""https:\/\/a""#, r"https://a"),
            (r#""""#, ""),
            (r#"["a","b"]"#, "a, b"),
            ("[]", ""),
            ("7", "7"),
            ("null", "null"),
            (r#"["a",7]"#, r#"[\"a\",7]"#),
            (r#"{"a":1}"#, r#"{\"a\":1}"#),
            (r#""a\nb\u0000\u202e\u00e9""#, r"a\nb\u{0}\u{202e}\u{e9}"),
            (r#""\u001b[31m\"'\\""#, r#"\u{1b}[31m\"\'\\"#),
            (r#""\x""#, r#"\"\\x\""#),
            (&format!("{long:?}"), &long[..64]),
        ];
        for (value, expected) in cases {
            let text = format!(r#"{{"aud":{value}}}"#);
            let mut seen = None;
            json::members(text.as_bytes(), |_, value| {
                seen = Some(excerpt(value));
                Some(())
            });
            assert_eq!(seen.as_deref(), Some(expected), "{value}");
        }
    }
}
