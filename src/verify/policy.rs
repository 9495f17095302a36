//! What a verifier asks of the claims.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::jose::json::{self, RawString, RawValue};
use crate::jose::{Algorithm, NumericDate};
use crate::rejection::RejectionReason;

/// More leeway than this is cut to it: beyond a few minutes it is a longer lifetime under another
/// name.
const MAX_LEEWAY: Duration = Duration::from_secs(300);

#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) max_token_len: usize,
    pub(crate) max_lifetime: Option<Duration>,
    pub(crate) issuer: Option<String>,
    pub(crate) audience: Vec<String>,
    pub(crate) subject: Option<String>,
    /// The claim that a microservice's token holds, and its value.
    pub(crate) marker: (String, Value),
    leeway: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            algorithms: Algorithm::ALL.to_vec(),
            max_token_len: 8 * 1024,
            max_lifetime: None,
            issuer: None,
            audience: Vec::new(),
            subject: None,
            marker: ("source".to_owned(), Value::from("microservice")),
            leeway: 30,
        }
    }
}

impl Policy {
    pub(crate) fn set_leeway(&mut self, leeway: Duration) {
        self.leeway = leeway.min(MAX_LEEWAY).as_secs();
    }

    /// Checks the claims that need no key. Returns when they hold. `now` is in Unix seconds.
    pub(crate) fn check_claims(
        &self,
        claims: &NamedClaims<'_>,
        now: u64,
    ) -> Result<Validity, RejectionReason> {
        let validity = self.check_dates(claims, now)?;
        self.check_names(claims)?;
        Ok(validity)
    }

    /// The wall between services and everybody else whose tokens the same keys sign.
    pub(crate) fn check_marker(&self, claims: &Map<String, Value>) -> Result<(), RejectionReason> {
        let (name, value) = &self.marker;
        if claims.get(name) == Some(value) { Ok(()) } else { Err(RejectionReason::NotMicroservice) }
    }

    /// Whether a token with these dates is valid at `now`. RFC 7519 §4.1.4: not on or after `exp`.
    fn check_dates(&self, claims: &NamedClaims<'_>, now: u64) -> Result<Validity, RejectionReason> {
        let expires_at = claims
            .exp
            .and_then(NumericDate::read)
            .ok_or(RejectionReason::MalformedExpiration)?
            .floor;
        let mut validity =
            Validity { from: 0, until: expires_at.saturating_add(self.leeway), expires_at };
        if !validity.holds(now) {
            return Err(RejectionReason::Expired);
        }
        if let Some(not_before) = claims.nbf {
            let not_before =
                NumericDate::read(not_before).ok_or(RejectionReason::MalformedNotBefore)?.ceil;
            validity.from = not_before.saturating_sub(self.leeway);
            if !validity.holds(now) {
                return Err(RejectionReason::NotYetValid);
            }
        }
        let issued_at = match claims.iat {
            None => None,
            Some(issued_at) => {
                Some(NumericDate::read(issued_at).ok_or(RejectionReason::MalformedIssuedAt)?)
            }
        };
        if let Some(issued_at) = issued_at {
            validity.from = validity.from.max(issued_at.ceil.saturating_sub(self.leeway));
            if !validity.holds(now) {
                return Err(RejectionReason::IssuedInFuture);
            }
        }
        if let Some(max_lifetime) = self.max_lifetime {
            let issued_at = issued_at.ok_or(RejectionReason::MalformedIssuedAt)?;
            // An `iat` after `exp` has no lifetime to be too long.
            if expires_at.saturating_sub(issued_at.floor) > max_lifetime.as_secs() {
                return Err(RejectionReason::LifetimeTooLong);
            }
        }
        Ok(validity)
    }

    /// Once configured a name is mandatory. One that is present has its type (RFC 7519 §4.1),
    /// configured or not.
    fn check_names(&self, claims: &NamedClaims<'_>) -> Result<(), RejectionReason> {
        let is = |claim: Option<RawValue<'_>>, wanted: &Option<String>| match claim {
            None => wanted.is_none(),
            Some(name) => name
                .as_string()
                .is_some_and(|name| wanted.as_ref().is_none_or(|wanted| name.is(wanted))),
        };
        if !is(claims.iss, &self.issuer) {
            return Err(RejectionReason::WrongIssuer);
        }
        if !claims.aud.map_or(self.audience.is_empty(), |aud| self.is_audience(aud)) {
            return Err(RejectionReason::WrongAudience);
        }
        if !is(claims.sub, &self.subject) {
            return Err(RejectionReason::WrongSubject);
        }
        Ok(())
    }

    /// RFC 7519 §4.1.3: one string, or an array of strings of which one is enough.
    fn is_audience(&self, aud: RawValue<'_>) -> bool {
        let mut is_accepted = self.audience.is_empty();
        let mut judge = |name: RawString<'_>| {
            is_accepted = is_accepted || self.audience.iter().any(|audience| name.is(audience));
            Some(())
        };
        let are_strings = match aud.as_string() {
            Some(name) => judge(name),
            None => aud.elements(|element| judge(element.as_string()?)),
        };
        are_strings.is_some() && is_accepted
    }
}

/// The claims that a policy names (RFC 7519 §4.1), as they are written.
#[derive(Debug, Default)]
pub(crate) struct NamedClaims<'j> {
    exp: Option<RawValue<'j>>,
    nbf: Option<RawValue<'j>>,
    iat: Option<RawValue<'j>>,
    iss: Option<RawValue<'j>>,
    aud: Option<RawValue<'j>>,
    sub: Option<RawValue<'j>>,
}

impl<'j> NamedClaims<'j> {
    /// Scans a payload. The payload is JSON only once it was read in full; see [`json::members`].
    ///
    /// # Errors
    ///
    /// The payload is not one object, or one of these claims occurs twice.
    pub(crate) fn scan(payload: &'j [u8]) -> Result<Self, RejectionReason> {
        let mut claims = Self::default();
        json::members(payload, |name, value| {
            let claim = match name.unescape_into(&mut [0; 5]) {
                b"exp" => &mut claims.exp,
                b"nbf" => &mut claims.nbf,
                b"iat" => &mut claims.iat,
                b"iss" => &mut claims.iss,
                b"aud" => &mut claims.aud,
                b"sub" => &mut claims.sub,
                _ => return Some(()),
            };
            claim.replace(value).is_none().then_some(())
        })
        .ok_or(RejectionReason::MalformedClaims)?;
        Ok(claims)
    }
}

/// When a token's dates hold, leeway included. In Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    from: u64,
    /// The first second that is too late.
    until: u64,
    /// `exp` as the token says it.
    pub(crate) expires_at: u64,
}

impl Validity {
    #[cfg(test)]
    pub(crate) fn until(until: u64) -> Self {
        Self { from: 0, until, expires_at: until }
    }

    pub(crate) fn holds(&self, now: u64) -> bool {
        (self.from..self.until).contains(&now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RejectionReason as R;

    const NOW: u64 = 1_800_000_000;

    fn claims(text: &str) -> Map<String, Value> {
        crate::jose::json::object(text.replace("NOW", &NOW.to_string()).as_bytes()).unwrap()
    }

    fn validity(policy: &Policy, text: &str, now: u64) -> Result<Validity, R> {
        policy.check_claims(
            &NamedClaims::scan(text.replace("NOW", &NOW.to_string()).as_bytes())?,
            now,
        )
    }

    fn outcome(policy: &Policy, text: &str) -> Option<R> {
        validity(policy, text, NOW).err()
    }

    fn with_exp(exp: impl std::fmt::Display) -> Option<R> {
        outcome(&Policy::default(), &format!(r#"{{"exp":{exp}}}"#))
    }

    #[test]
    fn exp_is_required_and_a_number() {
        for exp in [
            "null",
            "\"1900000000\"",
            "true",
            "[1900000000]",
            "{}",
            "-1",
            "-0.5",
            "1e308",
            "18446744073709551616",
        ] {
            assert_eq!(with_exp(exp), Some(R::MalformedExpiration), "{exp}");
        }
        for exp in ["18446744073709551615", "9007199254740992", "9007199254740992.0"] {
            assert_eq!(with_exp(exp), Some(R::MalformedExpiration), "{exp}");
        }
        assert_eq!(outcome(&Policy::default(), "{}"), Some(R::MalformedExpiration));
        for exp in ["9007199254740991", "1800000001", "1800000000.5", "1.9e9", "4953600000"] {
            assert_eq!(with_exp(exp), None, "{exp}");
        }
        assert_eq!(with_exp("0"), Some(R::Expired));
        assert_eq!(with_exp("-0.0"), Some(R::Expired));
    }

    #[test]
    fn a_token_expires_on_the_second_after_the_leeway() {
        assert_eq!(with_exp(NOW - 29), None);
        assert_eq!(with_exp(NOW - 30), Some(R::Expired));
        // A fraction is never rounded up, however close to the next second it is.
        for nines in [1, 20, 400] {
            assert_eq!(with_exp(format!("{}.{}", NOW - 30, "9".repeat(nines))), Some(R::Expired));
        }
        let mut strict = Policy::default();
        strict.set_leeway(Duration::ZERO);
        assert_eq!(outcome(&strict, r#"{"exp":NOW}"#), Some(R::Expired));
        let shortened = validity(&strict, r#"{"exp":1800000001.7}"#, NOW).unwrap();
        assert_eq!(shortened, Validity { from: 0, until: NOW + 1, expires_at: NOW + 1 });
    }

    #[test]
    fn leeway_is_cut_to_five_minutes() {
        let mut policy = Policy::default();
        policy.set_leeway(Duration::MAX);
        assert_eq!(outcome(&policy, &format!(r#"{{"exp":{}}}"#, NOW - 299)), None);
        assert_eq!(outcome(&policy, &format!(r#"{{"exp":{}}}"#, NOW - 300)), Some(R::Expired));
    }

    #[test]
    fn nbf_and_iat_are_numbers_and_not_ahead() {
        for (name, malformed, ahead) in [
            ("nbf", R::MalformedNotBefore, R::NotYetValid),
            ("iat", R::MalformedIssuedAt, R::IssuedInFuture),
        ] {
            let cases = [
                ("1800000030", None),
                ("1800000031", Some(ahead)),
                ("1800000030.1", Some(ahead)),
                ("0", None),
                ("\"1800000000\"", Some(malformed)),
                ("null", Some(malformed)),
                ("true", Some(malformed)),
                ("-1", Some(malformed)),
                ("1e300", Some(malformed)),
            ];
            for (value, expected) in cases {
                let text = format!(r#"{{"exp":4953600000,"{name}":{value}}}"#);
                assert_eq!(outcome(&Policy::default(), &text), expected, "{text}");
            }
        }
    }

    #[test]
    fn validity_says_from_when_until_when() {
        let text = r#"{"iat":1799999990,"nbf":1800000010.5,"exp":1800000100.5}"#;
        let holding = validity(&Policy::default(), text, NOW).unwrap();
        let seconds = [NOW - 20, NOW - 19, NOW + 129, NOW + 130];
        assert_eq!(seconds.map(|now| holding.holds(now)), [false, true, true, false]);
        for now in [NOW - 20, NOW - 19, NOW + 129, NOW + 130] {
            assert_eq!(
                validity(&Policy::default(), text, now).is_ok(),
                holding.holds(now),
                "{now}"
            );
        }
    }

    #[test]
    fn lifetime_is_bounded_where_configured() {
        let policy = Policy { max_lifetime: Some(Duration::from_secs(3600)), ..Policy::default() };
        assert_eq!(outcome(&policy, r#"{"iat":NOW,"exp":1800003600}"#), None);
        assert_eq!(outcome(&policy, r#"{"iat":NOW,"exp":1800003601}"#), Some(R::LifetimeTooLong));
        assert_eq!(outcome(&policy, r#"{"exp":1800003600}"#), Some(R::MalformedIssuedAt));
    }

    #[test]
    fn configured_names_are_mandatory_and_typed() {
        let policy = Policy {
            issuer: Some("https://a".into()),
            audience: vec!["billing".into(), "ledger".into()],
            subject: Some("orders".into()),
            ..Policy::default()
        };
        let cases = [
            (r#""iss":"https://a","aud":"billing","sub":"orders""#, None),
            (r#""iss":"https:\/\/a","aud":["x","ledger"],"sub":"\u006frders""#, None),
            (r#""aud":"billing","sub":"orders""#, Some(R::WrongIssuer)),
            (r#""iss":["https://a"],"aud":"billing","sub":"orders""#, Some(R::WrongIssuer)),
            (r#""iss":"https://a/auth","aud":"billing","sub":"orders""#, Some(R::WrongIssuer)),
            (r#""iss":"https://a","sub":"orders""#, Some(R::WrongAudience)),
            (r#""iss":"https://a","aud":[],"sub":"orders""#, Some(R::WrongAudience)),
            (r#""iss":"https://a","aud":["billing",7],"sub":"orders""#, Some(R::WrongAudience)),
            (r#""iss":"https://a","aud":{"billing":1},"sub":"orders""#, Some(R::WrongAudience)),
            (r#""iss":"https://a","aud":"Billing","sub":"orders""#, Some(R::WrongAudience)),
            (r#""iss":"https://a","aud":"billing""#, Some(R::WrongSubject)),
            (r#""iss":"https://a","aud":"billing","sub":7"#, Some(R::WrongSubject)),
        ];
        for (names, expected) in cases {
            assert_eq!(
                outcome(&policy, &format!(r#"{{"exp":4953600000,{names}}}"#)),
                expected,
                "{names}"
            );
        }
        // SuperTokens tokens may carry an audience that nobody asked for.
        assert_eq!(
            outcome(&Policy::default(), r#"{"exp":4953600000,"aud":"anyone","iss":"i","sub":"s"}"#),
            None
        );
    }

    #[test]
    fn a_name_that_nobody_asked_for_is_of_its_type() {
        let cases = [
            (r#""iss":7"#, Some(R::WrongIssuer)),
            (r#""iss":null"#, Some(R::WrongIssuer)),
            (r#""iss":["https://a"]"#, Some(R::WrongIssuer)),
            (r#""aud":7"#, Some(R::WrongAudience)),
            (r#""aud":{"a":"b"}"#, Some(R::WrongAudience)),
            (r#""aud":["a",7]"#, Some(R::WrongAudience)),
            (r#""aud":[]"#, None),
            (r#""aud":["a","b"]"#, None),
            (r#""sub":7"#, Some(R::WrongSubject)),
            (r#""sub":"orders""#, None),
        ];
        for (text, expected) in cases {
            assert_eq!(
                outcome(&Policy::default(), &format!(r#"{{"exp":4953600000,{text}}}"#)),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn the_marker_is_one_exact_string() {
        let policy = Policy::default();
        assert_eq!(policy.check_marker(&claims(r#"{"source":"microservice"}"#)), Ok(()));
        assert_eq!(policy.check_marker(&claims(r#"{"s\u006furce":"micro\u0073ervice"}"#)), Ok(()));
        for text in [
            r#"{}"#,
            r#"{"source":null}"#,
            r#"{"source":1}"#,
            r#"{"source":true}"#,
            r#"{"source":["microservice"]}"#,
            r#"{"source":{"microservice":1}}"#,
            r#"{"source":"Microservice"}"#,
            r#"{"source":"microservice "}"#,
            r#"{"source":"microservice\u0000"}"#,
            r#"{"source":"micr\u043eservice"}"#,
            r#"{"Source":"microservice"}"#,
        ] {
            assert_eq!(policy.check_marker(&claims(text)), Err(R::NotMicroservice), "{text}");
        }
    }
}
