//! Challenges of the scheme `Bearer` (RFC 9110 §11.6.1, RFC 6750 §3).

/// A longer value of `WWW-Authenticate` is cut to this, in bytes.
const MAX_LEN: usize = 8 * 1024;

/// The parameters of a Bearer challenge, unescaped.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct BearerChallenge {
    pub(super) error: Option<String>,
    pub(super) description: Option<String>,
}

/// The Bearer challenges in a value of `WWW-Authenticate`, which may list challenges of several
/// schemes. Skips what is malformed. Takes linear time, because no byte is read more than a few
/// times.
pub(super) fn bearer_challenges(value: &[u8]) -> Vec<BearerChallenge> {
    let mut rest = Scanner(&value[..value.len().min(MAX_LEN)]);
    let mut challenges = Vec::new();
    let mut is_bearer = false;
    loop {
        rest.take_while(|byte| matches!(byte, b' ' | b'\t' | b','));
        if rest.0.is_empty() {
            return challenges;
        }
        let name = rest.take_while(is_tchar);
        if name.is_empty() {
            // Not a name. A quoted string is skipped as a whole: it may hold anything.
            match rest.0 {
                [b'"', ..] => drop(rest.quoted_string()),
                [_, after @ ..] => rest.0 = after,
                [] => return challenges,
            }
        } else if let Some(value) = rest.parameter_value() {
            if is_bearer && let Some(challenge) = challenges.last_mut() {
                challenge.set(name, value);
            }
        } else {
            is_bearer = name.eq_ignore_ascii_case(b"bearer");
            if is_bearer {
                challenges.push(BearerChallenge::default());
            }
            rest.skip_token68();
        }
    }
}

impl BearerChallenge {
    /// Keeps the first of two parameters with the same name.
    fn set(&mut self, name: &[u8], value: String) {
        if name.eq_ignore_ascii_case(b"error") {
            self.error.get_or_insert(value);
        } else if name.eq_ignore_ascii_case(b"error_description") {
            self.description.get_or_insert(value);
        }
    }
}

/// The rest of a header value.
struct Scanner<'v>(&'v [u8]);

impl<'v> Scanner<'v> {
    fn take_while(&mut self, is_taken: impl Fn(&u8) -> bool) -> &'v [u8] {
        let len = self.0.iter().take_while(|byte| is_taken(byte)).count();
        let (taken, rest) = self.0.split_at(len);
        self.0 = rest;
        taken
    }

    /// Returns how many it skipped.
    fn skip_spaces(&mut self) -> usize {
        self.take_while(|byte| matches!(byte, b' ' | b'\t')).len()
    }

    /// `BWS "=" BWS ( token / quoted-string )`, if that follows. Takes an unquoted value up to the
    /// next space or comma, because some servers leave the quotes out.
    fn parameter_value(&mut self) -> Option<String> {
        let mut rest = Scanner(self.0);
        rest.skip_spaces();
        rest.0 = rest.0.strip_prefix(b"=")?;
        rest.skip_spaces();
        let value = match rest.0.first() {
            Some(b'"') => rest.quoted_string(),
            _ => Some(rest.take_while(|byte| !matches!(byte, b' ' | b'\t' | b',' | b'"')).to_vec()),
        };
        self.0 = rest.0;
        Some(String::from_utf8_lossy(&value?).into_owned())
    }

    /// A quoted string without its quotes and backslashes. `None` if it does not end; it then takes
    /// all that is left.
    fn quoted_string(&mut self) -> Option<Vec<u8>> {
        let mut value = Vec::new();
        let mut bytes = std::mem::take(&mut self.0).strip_prefix(b"\"")?.iter();
        loop {
            match bytes.next()? {
                b'"' => break,
                b'\\' => value.push(*bytes.next()?),
                byte => value.push(*byte),
            }
        }
        self.0 = bytes.as_slice();
        Some(value)
    }

    /// Skips `1*SP token68`, which a challenge has instead of parameters.
    fn skip_token68(&mut self) {
        let mut rest = Scanner(self.0);
        if rest.skip_spaces() == 0 {
            return;
        }
        let token68 = rest.take_while(|byte| is_tchar(byte) || *byte == b'/');
        rest.take_while(|byte| *byte == b'=');
        rest.skip_spaces();
        if !token68.is_empty() && matches!(rest.0.first(), None | Some(b',')) {
            self.0 = rest.0;
        }
    }
}

/// `tchar` of RFC 9110 §5.6.2.
fn is_tchar(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_legal_spelling_of_a_challenge_is_read() {
        let error = Some("invalid_token");
        // (value of the header, `error`, `error_description`)
        let cases = [
            (
                r#"Bearer realm="m2m", error="invalid_token", error_description="x""#,
                error,
                Some("x"),
            ),
            (r#"Bearer error="invalid_token""#, error, None),
            ("Bearer error=invalid_token", error, None),
            (r#"Bearer Error="invalid_token", ERROR_DESCRIPTION="x""#, error, Some("x")),
            ("bearer\terror = \"invalid_token\" , error_description\t=\t\"x\"", error, Some("x")),
            (r#"BEARER  error="invalid_token""#, error, None),
            (r#"Bearer ,,error="invalid_token",,"#, error, None),
            (r#"Bearer realm="m2m" error="invalid_token""#, error, None),
            (r#"Bearer error="invalid\_\token""#, error, None),
            (
                r#"Bearer error_description="a \"b\\c\", d", error="invalid_token""#,
                error,
                Some(r#"a "b\c", d"#),
            ),
            (r#"Bearer realm="Basic, error=x", error="invalid_token""#, error, None),
            (r#"Basic realm="x", Bearer error="invalid_token""#, error, None),
            (r#"Bearer error="invalid_token", Basic realm="x", error="y""#, error, None),
            (r#"Negotiate, Bearer error="invalid_token""#, error, None),
            (r#"Negotiate YIIJ/w+x==, Bearer error="invalid_token""#, error, None),
            (r#"Negotiate YIIJ, Bearer error="invalid_token""#, error, None),
            ("Bearer resource=https://a/b, error=invalid_token", error, None),
            ("Bearer", None, None),
            (r#"Bearer realm="error=invalid_token""#, None, None),
            (
                r#"Bearer error_description="error=\"invalid_token\"""#,
                None,
                Some(r#"error="invalid_token""#),
            ),
            (r#"Bearer error="INVALID_TOKEN""#, Some("INVALID_TOKEN"), None),
            (r#"Bearer error="invalid_token"#, None, None),
            (r#"Bearer error="invalid_token\"#, None, None),
            (r#"Bearer error="a", error="invalid_token""#, Some("a"), None),
            (r#"Bearer realm="x", DPoP error="invalid_token""#, None, None),
        ];
        for (value, error, description) in cases {
            let expected = BearerChallenge {
                error: error.map(str::to_owned),
                description: description.map(str::to_owned),
            };
            assert_eq!(bearer_challenges(value.as_bytes()), [expected], "{value}");
        }
    }

    #[test]
    fn other_values_hold_no_bearer_challenge() {
        let long = format!("Basic realm=\"{}\", Bearer", "x".repeat(MAX_LEN));
        let cases = [
            "",
            ",",
            "\"",
            "=",
            "Basic realm=\"Bearer error=invalid_token\"",
            "Basic Bearer",
            "error=\"invalid_token\"",
            "BearerX error=\"invalid_token\"",
            "\"Bearer error=invalid_token\"",
            "\u{e9}\u{0}",
            "\"\\\"\\\", Bearer",
            "Basic realm=\"x, Bearer",
            &long,
        ];
        for value in cases {
            assert_eq!(bearer_challenges(value.as_bytes()), [], "{value}");
        }
    }

    #[test]
    fn any_value_is_read_without_a_panic() {
        let parts = ["Bearer", "error", "=", "\"", "\\", ",", " ", "\t", "/", "x", "\u{e9}"];
        let mut rng = fastrand::Rng::with_seed(14);
        for _ in 0..20_000 {
            let value: String = (0..rng.usize(..16)).filter_map(|_| rng.choice(parts)).collect();
            let count = value.matches("Bearer").count();
            assert!(bearer_challenges(value.as_bytes()).len() <= count, "{value}");
        }
    }
}
