//! Finds the members of a JSON object in one pass over its text, without building values.
//!
//! Headers, and the claims of tokens that name an unknown key, are scanned before any signature is
//! checked, so an attacker chooses the text. For any text a scan takes linear time and allocates
//! nothing; the bench `forged` compares the most expensive texts known.
//!
//! The result is exact for valid JSON. For other text it may be wrong, because nested values are
//! skipped by their brackets and not validated: it holds only once [`object`](super::object) or
//! [`is_valid`](super::is_valid) has accepted the same text.

/// Calls `visit` for each member of the JSON object `json`, in order. `None` if the text is not one
/// object, or if `visit` returns `None`.
pub(crate) fn members<'j>(
    json: &'j [u8],
    mut visit: impl FnMut(RawString<'j>, RawValue<'j>) -> Option<()>,
) -> Option<()> {
    let mut cursor = Cursor::new(json);
    cursor.list(b'{', b'}', |cursor| {
        let name = cursor.string()?;
        cursor.eat(b':')?;
        visit(name, cursor.value()?)
    })?;
    cursor.peek().is_none().then_some(())
}

/// Calls `visit` for the name of each member of the JSON text `json`, at any depth.
pub(super) fn member_names<'j>(json: &'j [u8], mut visit: impl FnMut(RawString<'j>)) {
    let mut cursor = Cursor::new(json);
    while let Some(quote) = cursor.rest.iter().position(|byte| *byte == b'"') {
        cursor.rest = &cursor.rest[quote..];
        let Some(string) = cursor.string() else { return };
        if cursor.peek() == Some(b':') {
            visit(string);
        }
    }
}

/// The text of one JSON value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawValue<'j> {
    text: &'j [u8],
    /// Whether the value is a string with escapes.
    has_escapes: bool,
}

impl<'j> RawValue<'j> {
    pub(crate) fn as_bytes(self) -> &'j [u8] {
        self.text
    }

    /// The string, if the value is one.
    pub(crate) fn as_string(self) -> Option<RawString<'j>> {
        let text = self.text.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        Some(RawString { text, has_escapes: self.has_escapes })
    }

    /// Calls `visit` for each element of the array. `None` if the value is not an array, or if
    /// `visit` returns `None`.
    pub(crate) fn elements(self, mut visit: impl FnMut(Self) -> Option<()>) -> Option<()> {
        Cursor::new(self.text).list(b'[', b']', |cursor| visit(cursor.value()?))
    }
}

/// The text between the quotes of a JSON string, still escaped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawString<'j> {
    text: &'j [u8],
    has_escapes: bool,
}

impl<'j> RawString<'j> {
    /// Whether the unescaped string equals `text` (RFC 8259 §8.3).
    pub(crate) fn is(self, text: &str) -> bool {
        if !self.has_escapes {
            return self.text == text.as_bytes();
        }
        let mut rest = text.as_bytes();
        let is_prefix = self.unescape_each(|bytes| {
            rest = rest.strip_prefix(bytes)?;
            Some(())
        });
        is_prefix.is_some() && rest.is_empty()
    }

    /// Whether the unescaped string starts with `prefix`. The text after it is not read.
    pub(super) fn starts_with(self, prefix: &str) -> bool {
        let mut rest = prefix.as_bytes();
        self.unescape_each(|bytes| {
            rest = rest.strip_prefix(&bytes[..bytes.len().min(rest.len())])?;
            (!rest.is_empty()).then_some(())
        });
        rest.is_empty()
    }

    /// The unescaped string, for comparisons with names of at most four bytes. A string with
    /// escapes is unescaped into `buffer` and cut to five bytes, so a longer string still differs
    /// from every such name.
    pub(crate) fn unescape_into<'b>(self, buffer: &'b mut [u8; 5]) -> &'b [u8]
    where
        'j: 'b,
    {
        if !self.has_escapes {
            return self.text;
        }
        let mut len = 0;
        let mut push = |byte| {
            *buffer.get_mut(len)? = byte;
            len += 1;
            Some(())
        };
        if self.unescape_each(|bytes| bytes.iter().copied().try_for_each(&mut push)).is_none() {
            // A malformed escape becomes 0, which no name contains. A full buffer stays as it is.
            push(0);
        }
        &buffer[..len]
    }

    /// The unescaped string. `None` if an escape is malformed or the text is not UTF-8.
    pub(crate) fn unescape(self) -> Option<String> {
        let mut unescaped = Vec::with_capacity(self.text.len());
        self.unescape_each(|bytes| {
            unescaped.extend_from_slice(bytes);
            Some(())
        })?;
        String::from_utf8(unescaped).ok()
    }

    /// Calls `visit` for each piece of the unescaped string: the text before an escape, the
    /// escape's character in UTF-8, the text after the last escape. `None` if `visit` returns
    /// `None`, or if an escape is malformed.
    #[inline(never)] // inlining slows comparisons without escapes (bench `forged`)
    fn unescape_each(self, mut visit: impl FnMut(&[u8]) -> Option<()>) -> Option<()> {
        let mut rest = self.text;
        while self.has_escapes
            && let Some(len) = rest.iter().position(|byte| *byte == b'\\')
        {
            visit(&rest[..len])?;
            let (char, after) = unescape(&rest[len + 1..])?;
            visit(char.encode_utf8(&mut [0; 4]).as_bytes())?;
            rest = after;
        }
        visit(rest)
    }
}

/// The character of an escape (RFC 8259 §7), and the text after the escape. `escape` starts after
/// the backslash.
fn unescape(escape: &[u8]) -> Option<(char, &[u8])> {
    let (kind, rest) = escape.split_first()?;
    let char = match kind {
        b'"' | b'\\' | b'/' => char::from(*kind),
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let (unit, rest) = hex(rest)?;
            if let Some(char) = char::from_u32(unit.into()) {
                return Some((char, rest));
            }
            let (low, rest) = hex(rest.strip_prefix(b"\\u")?)?;
            return Some((char::decode_utf16([unit, low]).next()?.ok()?, rest));
        }
        _ => return None,
    };
    Some((char, rest))
}

/// The value of four hexadecimal digits, and the text after them.
fn hex(text: &[u8]) -> Option<(u16, &[u8])> {
    let (digits, rest) = text.split_first_chunk::<4>()?;
    let append = |value: u32, digit: &u8| Some(value << 4 | char::from(*digit).to_digit(16)?);
    Some((digits.iter().try_fold(0, append)?.try_into().ok()?, rest))
}

/// A position in a JSON text.
pub(super) struct Cursor<'j> {
    /// The unread text.
    rest: &'j [u8],
}

impl<'j> Cursor<'j> {
    pub(super) fn new(json: &'j [u8]) -> Self {
        Self { rest: json }
    }

    /// Skips white space. Returns the next byte and leaves it unread.
    pub(super) fn peek(&mut self) -> Option<u8> {
        while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = self.rest {
            self.rest = rest;
        }
        self.rest.first().copied()
    }

    /// Reads `byte`, after any white space. `None` if another byte comes first.
    pub(super) fn eat(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.rest = &self.rest[1..])
    }

    /// Reads comma-separated items between `open` and `close`.
    pub(super) fn list(
        &mut self,
        open: u8,
        close: u8,
        mut item: impl FnMut(&mut Self) -> Option<()>,
    ) -> Option<()> {
        self.eat(open)?;
        if self.eat(close).is_some() {
            return Some(());
        }
        loop {
            item(self)?;
            if self.eat(b',').is_none() {
                return self.eat(close);
            }
        }
    }

    pub(super) fn string(&mut self) -> Option<RawString<'j>> {
        self.eat(b'"')?;
        let string = self.rest;
        let has_escapes = self.skip_string()?;
        Some(RawString { text: &string[..string.len() - self.rest.len() - 1], has_escapes })
    }

    /// Skips the rest of a string and its closing quote. Returns whether the string has escapes.
    fn skip_string(&mut self) -> Option<bool> {
        let (mut bytes, mut has_escapes) = (self.rest.iter(), false);
        loop {
            match bytes.next()? {
                b'"' => break,
                b'\\' => {
                    has_escapes = true;
                    bytes.next()?;
                }
                _ => {}
            }
        }
        self.rest = bytes.as_slice();
        Some(has_escapes)
    }

    pub(super) fn value(&mut self) -> Option<RawValue<'j>> {
        let first = self.peek()?;
        let value = self.rest;
        let mut has_escapes = false;
        match first {
            b'"' => {
                self.rest = &self.rest[1..];
                has_escapes = self.skip_string()?;
            }
            b'{' | b'[' => self.skip_nested()?,
            _ => self.skip_scalar()?,
        }
        Some(RawValue { text: &value[..value.len() - self.rest.len()], has_escapes })
    }

    /// Skips an object or array. Counts brackets instead of recursing, so nesting uses no stack.
    fn skip_nested(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            let (byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            // `| 0x20` maps `[` to `{` and `]` to `}`, and keeps `{`, `}` and `"`. No other byte of
            // valid JSON becomes one of these three.
            match byte | 0x20 {
                b'{' => depth += 1,
                b'}' => {
                    depth -= 1;
                    if depth == 0 {
                        return Some(());
                    }
                }
                b'"' => drop(self.skip_string()?),
                _ => {}
            }
        }
    }

    /// Skips a number, `true`, `false` or `null`.
    fn skip_scalar(&mut self) -> Option<()> {
        let is_end = |byte: &u8| *byte <= b' ' || matches!(byte, b',' | b']' | b'}');
        let len = self.rest.iter().position(is_end).unwrap_or(self.rest.len());
        self.rest = &self.rest[len..];
        (len > 0).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;
    use serde_json::{Map, Value};

    use super::*;

    /// The members of an object: the unescaped name and the raw value of each.
    fn scanned(json: &[u8]) -> Option<Vec<(String, String)>> {
        let mut found = Vec::new();
        members(json, |name, value| {
            found.push((name.unescape()?, String::from_utf8(value.as_bytes().to_vec()).ok()?));
            Some(())
        })?;
        Some(found)
    }

    type Pairs<'t> = &'t [(&'t str, &'t str)];

    #[test]
    fn members_are_found_in_order() {
        let owned = |pairs: Pairs<'_>| {
            pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
        };
        let cases: &[(&str, Option<Pairs<'_>>)] = &[
            (" { } ", Some(&[])),
            (r#"{"a":1}"#, Some(&[("a", "1")])),
            (r#"{ "a" : -1.5e3 , "b":"x" }"#, Some(&[("a", "-1.5e3"), ("b", "\"x\"")])),
            (
                r#"{"a":[{"b":"]}"},2],"c":null}"#,
                Some(&[("a", r#"[{"b":"]}"},2]"#), ("c", "null")]),
            ),
            (r#"{"a\"":"\\","b":{}}"#, Some(&[("a\"", r#""\\""#), ("b", "{}")])),
            (r#"{"a":1,"a":2}"#, Some(&[("a", "1"), ("a", "2")])),
            (r#"{"a":1,}"#, None),
            (r#"{"a":1}x"#, None),
            (r#"{"a":[1}"#, None),
            (r#"{"a":}"#, None),
            (r#"{a:1}"#, None),
            (r#"{"a":"\"}"#, None),
            ("[]", None),
            ("", None),
        ];
        for (json, expected) in cases {
            assert_eq!(scanned(json.as_bytes()), expected.map(owned), "{json}");
        }
    }

    #[test]
    fn strings_are_compared_after_unescaping() {
        let string = |text: &'static str| Cursor::new(text.as_bytes()).string().unwrap();
        let cases = [
            (r#""exp""#, "exp", true),
            (r#""\u0065xp""#, "exp", true),
            (r#""e\u0078\u0070""#, "exp", true),
            (r#""https:\/\/a""#, "https://a", true),
            (r#""\b\f\n\r\t\"\\\/""#, "\u{8}\u{c}\n\r\t\"\\/", true),
            (r#""\u00e9\ud83d\ude00""#, "é😀", true),
            (r#""é😀""#, "é😀", true),
            (r#""\u0065xpp""#, "exp", false),
            (r#""\u0045xp""#, "exp", false),
            (r#""\ud83d""#, "\u{fffd}", false),
            (r#""\ud83d\u0041""#, "A", false),
            (r#""\x""#, "x", false),
            (r#""""#, "", true),
        ];
        for (raw, text, expected) in cases {
            assert_eq!(string(raw).is(text), expected, "{raw} {text}");
            let is_name = string(raw).unescape_into(&mut [0; 5]) == text.as_bytes();
            assert!(is_name == expected || text.len() > 4, "{raw} {text}");
        }
        assert!(
            string(r#""\u0024serde""#).starts_with("$serde")
                && !string(r#""$serd""#).starts_with("$serde")
        );
    }

    #[test]
    fn nesting_uses_no_stack() {
        let deep =
            |closed: usize| format!(r#"{{"a":{}{}}}"#, "[".repeat(1_000_000), "]".repeat(closed));
        assert!(members(deep(1_000_000).as_bytes(), |_, _| Some(())).is_some());
        assert!(members(deep(0).as_bytes(), |_, _| Some(())).is_none());
    }

    /// Text with escapes, control characters and characters of each length in UTF-8.
    fn any_text(rng: &mut Rng) -> String {
        let chars = ['a', 'b', '"', '\\', '/', '\n', '\u{1}', '$', ' ', 'é', '€', '😀'];
        (0..rng.usize(..8))
            .map(|_| if rng.bool() { chars[rng.usize(..chars.len())] } else { rng.char(..) })
            .collect()
    }

    fn any_object(rng: &mut Rng, depth: u8) -> Map<String, Value> {
        (0..rng.usize(..6)).map(|_| (any_text(rng), any_json(rng, depth))).collect()
    }

    fn any_json(rng: &mut Rng, depth: u8) -> Value {
        match rng.u8(..if depth == 0 { 4 } else { 6 }) {
            0 => Value::Null,
            1 => rng.i64(..).into(),
            2 => f64::from_bits(rng.u64(..)).into(),
            3 => any_text(rng).into(),
            4 => (0..rng.usize(..4)).map(|_| any_json(rng, depth - 1)).collect(),
            _ => any_object(rng, depth - 1).into(),
        }
    }

    #[test]
    fn scan_of_a_valid_object_agrees_with_serde_json() {
        let mut rng = Rng::with_seed(14);
        for case in 0..500 {
            let object = Value::Object(any_object(&mut rng, 3));
            let text = if case % 2 == 0 { format!("{object}") } else { format!("{object:#}") };
            let mut left: Map<String, Value> = serde_json::from_str(&text).unwrap();
            let scan = members(text.as_bytes(), |name, value| {
                let name = name.unescape()?;
                let expected = left.remove(&name).unwrap();
                let parsed = serde_json::from_slice::<Value>(value.as_bytes()).unwrap();
                assert_eq!(parsed, expected, "{text}");
                if let (Some(raw), Some(string)) = (value.as_string(), expected.as_str()) {
                    assert!(raw.is(string) && raw.unescape().as_deref() == Some(string), "{text}");
                    let mut buffer = [0; 5];
                    let name = raw.unescape_into(&mut buffer);
                    let is_cut = string.len() > 4 && name.len() > 4;
                    let is_same = name == string.as_bytes() || is_cut || !string.is_ascii();
                    assert!(is_same, "{text}");
                }
                let mut elements = 0;
                let read = value.elements(|_| {
                    elements += 1;
                    Some(())
                });
                assert_eq!(read.is_some(), expected.is_array(), "{text}");
                assert_eq!(elements, expected.as_array().map_or(0, Vec::len), "{text}");
                Some(())
            });
            assert!(scan.is_some() && left.is_empty(), "{text}");
        }
    }

    #[test]
    fn scan_of_any_bytes_does_not_panic() {
        let mut rng = Rng::with_seed(14);
        for _ in 0..2000 {
            let bytes: Vec<u8> =
                (0..rng.usize(..40)).map(|_| b"{}[]\":,\\u0a \xff"[rng.usize(..13)]).collect();
            let _ = scanned(&bytes);
            member_names(&bytes, |name| {
                drop((name.unescape(), name.unescape_into(&mut [0; 5]).len(), name.is("abcd")));
            });
        }
    }
}
