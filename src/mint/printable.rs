//! Text from a server, made fit for an error or a log line: short, on one line, and without secrets.
//!
//! A server that echoes a request may encode it. The text is therefore decoded in every way that is likely, and withheld
//! as a whole if any of the results holds the api key or a token: cutting the secret out would have to find where it
//! begins and ends in the encoded text.

use std::collections::HashSet;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::outbound;

/// Printed in place of a text that is withheld.
const WITHHELD: &str = "(text withheld: it may hold the api key or a token)";

/// A part of the api key from this length on counts as the key.
const MIN_KEY_PART: usize = 8;

/// A token is at least this long from its `eyJ` on. Less than that is the beginning of a header, which is no secret.
const MIN_TOKEN: usize = 16;

/// A run of base64url this long, with digits and letters in both cases, may be a part of a token.
const MIN_TOKEN_PART: usize = 40;

/// The shortest base64 of [`MIN_KEY_PART`] bytes.
const MIN_BASE64: usize = 11;

/// A text that decodes to more texts than this is withheld. Ordinary ones decode to less than a third of it.
const MAX_DECODED: usize = 100;

/// What a server said, on one line of at most [`outbound::MAX_TEXT`] characters, or that it is withheld.
pub(super) fn printable(text: &str, api_key: Option<&str>) -> String {
    let line = outbound::one_line(text);
    let holds_secret = decodings(&line).is_none_or(|decoded| {
        decoded.iter().any(|text| holds_token(text)) || api_key.is_some_and(|api_key| holds_key(&decoded, api_key))
    });
    if holds_secret { WITHHELD.to_owned() } else { line }
}

/// Whether one of `texts` holds the api key or a part of it. Only letters and digits are compared, without their case, so
/// that line breaks, spaces and quotes in between hide nothing.
fn holds_key(texts: &[String], api_key: &str) -> bool {
    if letters(api_key).len() < MIN_KEY_PART {
        return !api_key.is_empty() && texts.iter().any(|text| text.contains(api_key));
    }
    // The key is decoded as well: it may hold what looks like an escape.
    let keys = decodings(api_key).unwrap_or_else(|| vec![api_key.to_owned()]);
    let keys: Vec<_> = keys.iter().map(|key| letters(key)).collect();
    let parts: HashSet<&[u8]> = keys.iter().flat_map(|key| key.windows(MIN_KEY_PART)).collect();
    texts.iter().any(|text| letters(text).windows(MIN_KEY_PART).any(|part| parts.contains(part)))
}

fn letters(text: &str) -> Vec<u8> {
    text.bytes().filter(u8::is_ascii_alphanumeric).map(|byte| byte.to_ascii_lowercase()).collect()
}

/// `eyJ` is how a JSON object that has members begins in base64url.
fn holds_token(text: &str) -> bool {
    let is_of_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let is_token = |(start, _)| {
        let rest: &str = &text[start..];
        rest.find(|c| !is_of_part(c) && c != '.').unwrap_or(rest.len()) >= MIN_TOKEN
    };
    let is_token_part = |run: &str| {
        let has = |class: fn(&u8) -> bool| run.bytes().any(|byte| class(&byte));
        run.len() >= MIN_TOKEN_PART
            && has(u8::is_ascii_digit)
            && has(u8::is_ascii_lowercase)
            && has(u8::is_ascii_uppercase)
    };
    text.match_indices("eyJ").any(is_token) || text.split(|c| !is_of_part(c)).any(is_token_part)
}

/// The text, and all that it decodes to. `None` if that is too much.
fn decodings(text: &str) -> Option<Vec<String>> {
    let mut texts = vec![text.to_owned()];
    let mut next = 0;
    while let Some(text) = texts.get(next) {
        let joined = text.split(['\r', '\n']).map(str::trim).collect();
        let decoded = [unescaped(text), joined].into_iter().chain((0..4).map(|skipped| from_base64(text, skipped)));
        for decoded in decoded.collect::<Vec<_>>() {
            if !decoded.is_empty() && !texts.contains(&decoded) {
                texts.push(decoded);
            }
        }
        next += 1;
        if texts.len() > MAX_DECODED {
            return None;
        }
    }
    Some(texts)
}

/// All base64 in the text, standard or for URLs, decoded from its `skipped`th character on: the text before it may look
/// like base64 too.
fn from_base64(text: &str, skipped: usize) -> String {
    let config = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let engine = GeneralPurpose::new(&STANDARD, config);
    let standard = text.replace('-', "+").replace('_', "/");
    let runs = standard.split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '+' | '/'));
    let decoded = runs.filter_map(|run| run.get(skipped..)).filter(|run| run.len() >= MIN_BASE64).filter_map(|run| {
        // One character alone holds no byte.
        let whole = if run.len() % 4 == 1 { run.len() - 1 } else { run.len() };
        engine.decode(&run[..whole]).ok()
    });
    String::from_utf8_lossy(&decoded.collect::<Vec<_>>().join(&b'\n')).into_owned()
}

/// The text with one layer of escapes decoded, of JSON and programming languages, of HTML and of URLs. What is not ASCII
/// becomes `?`: no secret is made of it.
fn unescaped(text: &str) -> String {
    let (mut plain, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, behind)) = rest.split_first() {
        let decoded = match first {
            b'\\' => backslash(behind),
            b'%' => percent(behind),
            b'&' => entity(behind),
            _ => None,
        };
        let (code, len) = decoded.unwrap_or((Some(u32::from(*first)), 0));
        plain.extend(code.map(|code| u8::try_from(code).unwrap_or(b'?')));
        rest = &behind[len..];
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// The character that an escape encodes, if it encodes one that matters, and the length of the escape in bytes.
type Escape = Option<(Option<u32>, usize)>;

/// `\u0041`, `\u{41}`, `\x41`, `\n`, `\/`.
fn backslash(text: &[u8]) -> Escape {
    match text {
        [b'u', b'{', digits @ ..] => {
            let len = digits.iter().position(|byte| *byte == b'}')?;
            Some((Some(number(&digits[..len], 16)?), len + 3))
        }
        [b'u', digits @ ..] => Some((Some(number(digits.get(..4)?, 16)?), 5)),
        [b'x', digits @ ..] => Some((Some(number(digits.get(..2)?, 16)?), 3)),
        [b'n' | b'r' | b't' | b'b' | b'f' | b'v' | b'0', ..] => Some((Some(u32::from(b'\n')), 1)),
        [other, ..] if other.is_ascii_punctuation() => Some((Some(u32::from(*other)), 1)),
        _ => None,
    }
}

/// `%41`, `%u0041`.
fn percent(text: &[u8]) -> Escape {
    match text {
        [b'u', digits @ ..] => Some((Some(number(digits.get(..4)?, 16)?), 5)),
        digits => Some((Some(number(digits.get(..2)?, 16)?), 2)),
    }
}

/// `&#65;`, `&#x41;`, `&amp;`, each but the last without its semicolon too.
fn entity(text: &[u8]) -> Escape {
    let ends_at = |class: fn(&u8) -> bool, from: usize| {
        let len = text[from..].iter().position(|byte| !class(byte)).unwrap_or(text.len() - from);
        (from + len, from + len + usize::from(text.get(from + len) == Some(&b';')))
    };
    match text {
        [b'#', b'x' | b'X', ..] => {
            let (end, len) = ends_at(u8::is_ascii_hexdigit, 2);
            Some((Some(number(&text[2..end], 16)?), len))
        }
        [b'#', ..] => {
            let (end, len) = ends_at(u8::is_ascii_digit, 1);
            Some((Some(number(&text[1..end], 10)?), len))
        }
        _ => {
            let (end, len) = ends_at(u8::is_ascii_alphanumeric, 0);
            // No letter and no digit has a name, so what is left out here is never missed.
            let named = match &text[..end] {
                b"amp" => Some(b'&'),
                b"num" => Some(b'#'),
                b"semi" => Some(b';'),
                b"percnt" => Some(b'%'),
                b"bsol" => Some(b'\\'),
                _ => None,
            };
            (end > 0 && len > end).then_some((named.map(u32::from), len))
        }
    }
}

fn number(digits: &[u8], radix: u32) -> Option<u32> {
    let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
    u32::from_str_radix(digits, radix).ok()
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

    use super::*;

    const KEY: &str = "Ab3=cd-E5fgh6Ijklm7n";
    const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzb3VyY2UiOiJtaWNyb3NlcnZpY2UifQ.c2lnbmF0dXJl";

    /// Each character of a text, in other words.
    fn each(text: &str, write: impl Fn(u32) -> String) -> String {
        text.chars().map(|c| write(u32::from(c))).collect()
    }

    #[test]
    fn text_without_secrets_is_one_short_line() {
        let cases = [
            ("Invalid API key\n", "Invalid API key"),
            ("  a\u{1b}[31m\nb ", "a\\u{1b}[31m\\nb"),
            ("cdi-version 99.9 not supported", "cdi-version 99.9 not supported"),
            (
                "Field name 'publicKeyJwk' is invalid in JSON input",
                "Field name 'publicKeyJwk' is invalid in JSON input",
            ),
            ("heyJude heyJ eyJ eyJhbGciOi", "heyJude heyJ eyJ eyJhbGciOi"),
            ("100% & more \\ <&> %zz &#; &#x; \\u12 \\", "100% & more \\ <&> %zz &#; &#x; \\u12 \\"),
            ("naïve — é", "naïve — é"),
            ("", ""),
            (
                "java.lang.IllegalArgumentException: org.postgresql.util.PSQLException: FATAL: too many connections",
                "java.lang.IllegalArgumentException: org.postgresql.util.PSQLException: FATAL: too many connections",
            ),
            (
                "request d0f1e2d3-0a1b-4c2d-8e3f-5a6b7c8d9e0f, 3f786850e387550fdab836ed7e6dc881de23001b",
                "request d0f1e2d3-0a1b-4c2d-8e3f-5a6b7c8d9e0f, 3f786850e387550fdab836ed7e6dc881de23001b",
            ),
            (
                "<!doctype html><html lang=\"en\"><head><title>HTTP Status 404 &#8211; Not Found</title>",
                "<!doctype html><html lang=\"en\"><head><title>HTTP Status 404 &#8211; Not Found</title>",
            ),
            // Seven letters and digits of the key.
            ("Ab3=cd-E5", "Ab3=cd-E5"),
        ];
        for (text, expected) in cases {
            assert_eq!(printable(text, Some(KEY)), expected);
            let decoded = decodings(text).map_or(usize::MAX, |decoded| decoded.len());
            assert!(decoded <= MAX_DECODED / 3, "{text}: {decoded}");
        }
        assert_eq!(printable(&"x".repeat(1000), None).len(), outbound::MAX_TEXT);
        // Not printed, so not looked at.
        assert_eq!(printable(&format!("{}{KEY}", "x".repeat(200)), Some(KEY)), "x".repeat(200));
    }

    #[test]
    fn api_key_is_withheld_in_every_encoding() {
        let percent = each(KEY, |c| format!("%{c:02x}"));
        let json = each(KEY, |c| format!("\\u{c:04X}"));
        let cases = [
            ("plain", KEY.to_owned()),
            ("in a word", format!("x{KEY}x")),
            ("in another case", KEY.to_ascii_lowercase()),
            ("its beginning", KEY[..10].to_owned()),
            ("its middle", KEY[4..14].to_owned()),
            ("its end", KEY[KEY.len() - 8..].to_owned()),
            ("in JSON", json.clone()),
            ("in JSON twice", json.replace('\\', "\\\\")),
            ("in Rust", each(KEY, |c| format!("\\u{{{c:x}}}"))),
            ("in hexadecimal escapes", each(KEY, |c| format!("\\x{c:02x}"))),
            ("with one escape", KEY.replace('5', "\\u0035")),
            ("with needless escapes", KEY.replace(['=', '-'], "\\/")),
            ("in HTML", each(KEY, |c| format!("&#{c};"))),
            ("in HTML without semicolons", each(KEY, |c| format!("&#{c} "))),
            ("in HTML with zeros", each(KEY, |c| format!("&#{c:07};"))),
            ("in hexadecimal HTML", each(KEY, |c| format!("&#x{c:X};"))),
            ("in HTML with names", KEY.replace('=', "&equals;").replace('-', "&hyphen;")),
            ("in a URL", percent.clone()),
            ("in a URL twice", percent.replace('%', "%25")),
            ("in a URL three times", percent.replace('%', "%2525")),
            ("in an old URL", each(KEY, |c| format!("%u{c:04x}"))),
            ("in a URL in HTML", percent.replace('%', "&#x25;")),
            ("in a URL in named HTML", percent.replace('%', "&percnt;")),
            ("in a URL in JSON", percent.replace('%', "\\u0025")),
            ("in HTML in a URL", each(KEY, |c| format!("%26%23{c}%3B"))),
            ("in HTML in HTML", each(KEY, |c| format!("&amp;#{c};"))),
            ("in JSON in a URL", json.replace('\\', "%5C")),
            ("in base64", STANDARD_NO_PAD.encode(KEY)),
            ("in base64 for URLs", URL_SAFE_NO_PAD.encode(format!("??>>{KEY}"))),
            ("in Basic", STANDARD_NO_PAD.encode(format!("m1:{KEY}"))),
            ("in base64 behind one letter", format!("x{}", STANDARD_NO_PAD.encode(KEY))),
            ("in base64 in front of two letters", format!("{}xx", STANDARD_NO_PAD.encode(KEY))),
            ("in base64 behind a path", format!("a/b/c{}", STANDARD_NO_PAD.encode(KEY))),
            ("in base64 twice", STANDARD_NO_PAD.encode(STANDARD_NO_PAD.encode(KEY))),
            ("in base64 of JSON", STANDARD_NO_PAD.encode(KEY.replace('5', "\\u0035"))),
            ("in two lines of base64", STANDARD_NO_PAD.encode(KEY).replacen("S", "S\r\n  ", 1)),
            ("in two lines", KEY.replace('5', "5\n")),
            ("with spaces", each(KEY, |c| format!("{} ", char::from_u32(c).unwrap()))),
            ("in a list", each(KEY, |c| format!("\"{}\",", char::from_u32(c).unwrap()))),
        ];
        for (case, text) in cases {
            for text in [text.clone(), format!("wrong api key: {text}.")] {
                assert_eq!(printable(&text, Some(KEY)), WITHHELD, "{case}: {text}");
            }
        }
    }

    #[test]
    fn api_key_that_looks_encoded_is_withheld() {
        let keys =
            ["%41%42%43%44%45%46%47%48", "\\u0041bcdefgh1234567", "&#65;bcdefgh&amp;1234567", "QWJjZGVmZ2hpamtsbW5v"];
        for key in keys {
            let encoded = [
                key.to_owned(),
                each(key, |c| format!("%{c:02x}")),
                each(key, |c| format!("&#{c};")),
                STANDARD_NO_PAD.encode(key),
                key.replace('%', "%25").replace('&', "&amp;").replace('\\', "\\\\"),
            ];
            for text in encoded {
                assert_eq!(printable(&text, Some(key)), WITHHELD, "{key}: {text}");
            }
        }
        // Decoded at once where the key holds an escape and where the text has one more.
        let mixed = "%41&#37;42%43&#37;44%45&#37;46%47&#37;48";
        assert_eq!(printable(mixed, Some("%41%42%43%44%45%46%47%48")), WITHHELD);
        let key = "ab?cd?ef?gh?ij?kl?";
        assert!(URL_SAFE_NO_PAD.encode(key).matches('_').count() > 5);
        assert_eq!(printable(&URL_SAFE_NO_PAD.encode(key), Some(key)), WITHHELD);
        // So short that only the whole key counts.
        assert_eq!(printable("a-b in a word", Some("a-b")), WITHHELD);
        assert_eq!(printable("%61-b", Some("a-b")), WITHHELD);
        assert_eq!(printable("a b", Some("a-b")), "a b");
        assert_eq!(printable("anything", Some("")), "anything");
    }

    #[test]
    fn token_is_withheld_in_every_encoding() {
        let (head, signature) = TOKEN.rsplit_once('.').unwrap();
        let long = "r50sVqAffy3dSeWurz1x4MjBiS1hRCDuowKZY-xMonZ0mNl93hpdVOfsRRksiUv5";
        let cases = [
            ("plain", TOKEN.to_owned()),
            ("its beginning", TOKEN[..MIN_TOKEN].to_owned()),
            ("without its header", TOKEN.split_once('.').unwrap().1.to_owned()),
            ("in JSON", format!("{{\"jwt\":\"{TOKEN}\"}}!")),
            ("in escaped JSON", each(TOKEN, |c| format!("\\u{c:04x}"))),
            ("behind an escape", format!("\\n{TOKEN}")),
            ("in HTML", each(TOKEN, |c| format!("&#{c};"))),
            ("with named dots", TOKEN.replace('.', "&period;")),
            ("in a URL", each(TOKEN, |c| format!("%{c:02X}"))),
            ("with one escape", TOKEN.replacen('J', "%4a", 1)),
            ("in base64", STANDARD_NO_PAD.encode(TOKEN)),
            ("in two lines", format!("{head}.\n{signature}")),
            ("in two lines of JSON", format!("{head}.\\r\\n{signature}")),
            ("in two lines that begin with spaces", format!("{head}\r\n    .{signature}")),
            (
                "in lines of four characters",
                TOKEN.as_bytes().chunks(4).map(|line| format!("{}\n", std::str::from_utf8(line).unwrap())).collect(),
            ),
            ("a long signature", long.to_owned()),
            ("a long signature in two lines", format!("{}\n{}", &long[..30], &long[30..])),
        ];
        for (case, text) in cases {
            for (text, api_key) in [(text.clone(), None), (format!("bad token {text}"), Some(KEY))] {
                assert_eq!(printable(&text, api_key), WITHHELD, "{case}: {text}");
            }
        }
    }

    #[test]
    fn text_with_too_many_layers_is_withheld() {
        assert_eq!(printable(&format!("%{}41", "25".repeat(90)), None), WITHHELD);
        for text in ["%".repeat(200), "\\".repeat(200), "&".repeat(200), "A".repeat(200), "\\u{".repeat(50)] {
            printable(&text, Some(KEY));
        }
    }
}
