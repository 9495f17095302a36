//! Shortens a server's text to one line without secrets, for an error or a log event.
//!
//! A server may echo the api key or a token in any encoding, so only plain words are printed: a
//! text with escapes of any format, a long run of letters and digits, or many short numbers is
//! withheld as a whole. A list of decoders would not be enough: a secret in an encoding that is
//! missing from the list, or in two nested encodings, would be printed. This protects against
//! echoes only: a malicious server can still print a secret in pieces.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::error::{MAX_TEXT, escape_and_cut, one_line};

/// Replaces a withheld text.
const WITHHELD: &str = "(text withheld: it may hold a secret or a token)";

/// Minimum length of a part of the api key that is withheld.
const MIN_KEY_PART: usize = 8;

/// Minimum length of a run that begins with `eyJ`, as tokens do, and is withheld.
const MIN_TOKEN: usize = 8;

/// A run of this many letters, digits and base64 characters may be part of a secret if it contains
/// a digit.
const MIN_RUN: usize = 16;

/// Plain words and numbers are shorter than this.
const MAX_WORD: usize = 40;

/// The parts of names such as `customer-portal-2` are shorter than this.
const MAX_PART: usize = 12;

/// A line with this many runs that have a digit and at most four characters is taken for a list of
/// bytes. An IP address with a port and an RFC 3339 date together have seven such runs.
const MIN_BYTES: usize = 12;

/// The text on one line, cut to [`MAX_TEXT`] characters before control characters are escaped, or
/// [`WITHHELD`].
pub(super) fn redact(text: &str, api_key: Option<&str>) -> String {
    let words: Vec<_> = text.split_whitespace().collect();
    // Twice the printed length is checked: if a secret is cut, its printed part may be too short to
    // be recognized.
    let line: String = words.join(" ").chars().take(2 * MAX_TEXT).collect();
    if !is_plain(&line) || api_key.is_some_and(|api_key| holds_key(&line, api_key)) {
        return WITHHELD.to_owned();
    }
    one_line(&line)
}

/// The beginning of a claim's value, or [`WITHHELD`] if it holds the api key or a part of it. Less
/// strict than [`redact`], because an issuer or audience may have a long run of letters and digits.
pub(super) fn redact_claim(value: &Value, api_key: Option<&str>) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    escape_and_cut(withhold_api_key(&text, api_key))
}

/// The text, or [`WITHHELD`] if it holds the api key or a part of it.
pub(super) fn withhold_api_key<'t>(text: &'t str, api_key: Option<&str>) -> &'t str {
    if api_key.is_some_and(|api_key| holds_key(text, api_key)) { WITHHELD } else { text }
}

/// A shown part of a token, or [`WITHHELD`] if the token holds the api key or a part of it. Not
/// only what is shown is checked: it may end within the key.
#[cfg_attr(not(feature = "reqwest"), allow(dead_code))] // only minted tokens are shown
pub(super) fn withhold_part_of<'t>(jwt: &str, shown: &'t str, api_key: Option<&str>) -> &'t str {
    let decode = |part| URL_SAFE_NO_PAD.decode(part).ok();
    let holds = |part: Vec<u8>| {
        api_key.is_some_and(|api_key| holds_key(&String::from_utf8_lossy(&part), api_key))
    };
    if jwt.split('.').take(2).filter_map(decode).any(holds) {
        return WITHHELD;
    }
    withhold_api_key(shown, api_key)
}

/// Whether no part of the line can be a token or an encoded secret.
fn is_plain(line: &str) -> bool {
    // The first characters of escapes in JSON, URLs and HTML. Text in UTF-16 contains NUL.
    if line.contains(['\\', '%', '&', '\0']) {
        return false;
    }
    let is_run_char =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '+' | '/' | '=');
    // `eyJ` is `{"` in base64url.
    let is_token =
        |(start, _)| line[start..].chars().take_while(|c| is_run_char(*c)).count() >= MIN_TOKEN;
    if line.match_indices("eyJ").any(is_token) {
        return false;
    }
    let runs = || line.split(|c| !is_run_char(c));
    let is_byte = |run: &&str| run.len() <= 4 && run.contains(|c: char| c.is_ascii_digit());
    runs().all(is_word) && runs().filter(is_byte).count() < MIN_BYTES
}

/// Whether a run of letters, digits and base64 characters is a word, a number, or a name that
/// consists of words and numbers.
fn is_word(run: &str) -> bool {
    let is_plain = |part: &str| {
        part.bytes().all(|byte| byte.is_ascii_digit())
            || !part.bytes().any(|byte| byte.is_ascii_digit())
    };
    let is_name = || run.split(['-', '_']).all(|part| part.len() < MAX_PART && is_plain(part));
    run.len() < MIN_RUN || run.len() < MAX_WORD && (is_plain(run) || is_name())
}

/// Whether the line holds the api key or a part of it. Compares only letters and digits and ignores
/// case, so that spaces and punctuation within the key do not hide it.
fn holds_key(line: &str, api_key: &str) -> bool {
    let key = alphanumerics(api_key);
    if key.len() < MIN_KEY_PART {
        return !api_key.is_empty() && line.contains(api_key);
    }
    alphanumerics(line)
        .windows(MIN_KEY_PART)
        .any(|part| key.windows(MIN_KEY_PART).any(|own| own == part))
}

fn alphanumerics(text: &str) -> Vec<u8> {
    text.bytes().filter(u8::is_ascii_alphanumeric).map(|byte| byte.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    use super::*;

    const KEY: &str = "Ab3=cd-E5fgh6Ijklm7n";
    const TOKEN: &str =
        "eyJhbGciOiJSUzI1NiJ9.eyJzb3VyY2UiOiJtaWNyb3NlcnZpY2UifQ.c2lnbmF0dXJlMTIzNA";

    /// Encodes each character of the text with `write`.
    fn each(text: &str, write: impl Fn(u32) -> String) -> String {
        text.chars().map(|c| write(u32::from(c))).collect()
    }

    #[test]
    fn plain_text_is_printed_on_one_short_line() {
        let cases = [
            ("Invalid API key\n", "Invalid API key"),
            ("  two\r\n lines \u{1b}[31m", "two lines \\u{1b}[31m"),
            ("cdi-version 99.9 not supported", "cdi-version 99.9 not supported"),
            ("Field name 'publicKeyJwk' is invalid", "Field name 'publicKeyJwk' is invalid"),
            ("not found: (, a1, public)", "not found: (, a1, public)"),
            (
                r#"{"message":"rate limited","code":429}"#,
                r#"{"message":"rate limited","code":429}"#,
            ),
            (
                "java.lang.IllegalArgumentException: at 2026-11-25T10:00:00Z",
                "java.lang.IllegalArgumentException: at 2026-11-25T10:00:00Z",
            ),
            ("FATAL: no connection to 10.0.0.1:5432", "FATAL: no connection to 10.0.0.1:5432"),
            (
                "not found: (, customer-portal-2, public)",
                "not found: (, customer-portal-2, public)",
            ),
            (
                "not valid for \"supertokens-core-2.internal\"",
                "not valid for \"supertokens-core-2.internal\"",
            ),
            (
                "For input string: \"9223372036854775808\"",
                "For input string: \"9223372036854775808\"",
            ),
            ("naïve — é", "naïve — é"),
            ("", ""),
            // Seven letters and digits of the key, one less than `MIN_KEY_PART`.
            ("Ab3=cd-E5", "Ab3=cd-E5"),
        ];
        for (text, expected) in cases {
            assert_eq!(redact(text, Some(KEY)), expected);
        }
        let long = "words ".repeat(1000);
        assert_eq!(redact(&long, None).len(), MAX_TEXT);
        // The key lies beyond the checked part, which is longer than the printed one.
        assert_eq!(redact(&format!("{long}{KEY}"), Some(KEY)).len(), MAX_TEXT);
    }

    #[test]
    fn api_key_is_withheld_in_every_encoding() {
        let percent = each(KEY, |c| format!("%{c:02x}"));
        let cases = [
            ("plain", KEY.to_owned()),
            ("in another case", KEY.to_ascii_lowercase()),
            ("its beginning", KEY[..10].to_owned()),
            ("its middle", KEY[4..14].to_owned()),
            ("its end", KEY[KEY.len() - 8..].to_owned()),
            ("in JSON", each(KEY, |c| format!("\\u{c:04X}"))),
            ("with one escape", KEY.replace('5', "\\u0035")),
            ("in HTML", each(KEY, |c| format!("&#{c};"))),
            ("in HTML with names", KEY.replace('=', "&equals;").replace('-', "&hyphen;")),
            ("in a URL", percent.clone()),
            ("in a URL twice", percent.replace('%', "%25")),
            ("in a URL in HTML", percent.replace('%', "&#x25;")),
            ("in hexadecimal", each(KEY, |c| format!("{c:02x}"))),
            ("in hexadecimal bytes", each(KEY, |c| format!("{c:02x}:"))),
            ("in a list of bytes", format!("{:?}", KEY.as_bytes())),
            ("in UTF-16", each(KEY, |c| format!("{}\0", char::from_u32(c).unwrap()))),
            ("in base64", STANDARD.encode(KEY)),
            ("in Basic", STANDARD.encode(format!("m1:{KEY}"))),
            ("in base64 of JSON", STANDARD.encode(KEY.replace('5', "\\u0035"))),
            ("in two lines", KEY.replace('5', "5\n")),
            ("with spaces", each(KEY, |c| format!("{} ", char::from_u32(c).unwrap()))),
            ("in a list", each(KEY, |c| format!("\"{}\",", char::from_u32(c).unwrap()))),
        ];
        for (case, text) in cases {
            for text in [text.clone(), format!("wrong api key: {text}.")] {
                assert_eq!(redact(&text, Some(KEY)), WITHHELD, "{case}: {text}");
            }
        }
        // Only 15 characters of the encoded key would be printed, too few to be recognized alone.
        let cut = format!("{}{}", "word ".repeat(37), STANDARD.encode(format!("m1:{KEY}")));
        assert_eq!(redact(&cut, Some(KEY)), WITHHELD);
        // A key shorter than `MIN_KEY_PART` is withheld only as a whole.
        assert_eq!(redact("a-b in a word", Some("a-b")), WITHHELD);
        assert_eq!(redact("a b", Some("a-b")), "a b");
        assert_eq!(redact("anything", Some("")), "anything");
    }

    #[test]
    fn token_is_withheld_in_every_encoding() {
        let (head, signature) = TOKEN.rsplit_once('.').unwrap();
        let cases = [
            ("plain", TOKEN.to_owned()),
            ("its beginning", TOKEN[..MIN_TOKEN].to_owned()),
            ("without its header", TOKEN.split_once('.').unwrap().1.to_owned()),
            ("its signature", signature.to_owned()),
            ("letters alone", "abcdEFGH".repeat(5)),
            ("in JSON", format!("{{\"jwt\":\"{TOKEN}\"}}!")),
            ("in escaped JSON", each(TOKEN, |c| format!("\\u{c:04x}"))),
            ("in HTML", each(TOKEN, |c| format!("&#{c};"))),
            ("in a URL", each(TOKEN, |c| format!("%{c:02X}"))),
            ("in base64", URL_SAFE_NO_PAD.encode(TOKEN)),
            ("in UTF-16", each(TOKEN, |c| format!("{}\0", char::from_u32(c).unwrap()))),
            ("in two lines", format!("{head}.\n{signature}")),
            ("in two lines of JSON", format!("{head}.\\r\\n{signature}")),
        ];
        for (case, text) in cases {
            for (text, api_key) in [(text.clone(), None), (format!("bad token {text}"), Some(KEY))]
            {
                assert_eq!(redact(&text, api_key), WITHHELD, "{case}: {text}");
            }
        }
    }
}
