//! A JWK Set (RFC 7517 §5), read entry by entry so that one odd entry costs itself alone.

use std::sync::Arc;

use serde_json::Value;

use super::algorithm::Algorithm;
use super::json::{self, RawValue};
use super::jwk::Jwk;

/// The usable keys of one JWK Set.
#[derive(Debug, Default)]
pub(crate) struct JwkSet {
    keys: Vec<Arc<Jwk>>,
}

/// Why a document is no key set to work with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JwkSetError {
    /// Not one JSON object with one array `keys`.
    NotAKeySet,
    /// More entries than allowed.
    TooManyKeys,
    /// No entry can be used.
    NoUsableKey,
}

impl JwkSet {
    /// Reads a JWK Set of at most `max_keys` entries. A key that `previous` holds too is shared
    /// with it, so that each holder of that key sees its deadline move.
    pub(crate) fn from_json(
        json: &[u8],
        max_keys: usize,
        previous: &Self,
    ) -> Result<Self, JwkSetError> {
        let entries = entries(json).ok_or(JwkSetError::NotAKeySet)?;
        if entries.len() > max_keys {
            return Err(JwkSetError::TooManyKeys);
        }
        let mut keys: Vec<Arc<Jwk>> = Vec::with_capacity(entries.len());
        for entry in entries {
            let jwk = json::object(entry.as_bytes()).map_or(Value::Null, Value::Object);
            match Jwk::from_jwk(&jwk) {
                Ok(key) if keys.iter().any(|other| other.is_same(&key)) => {}
                Ok(key) => keys.push(Arc::new(key)),
                Err(reason) => {
                    tracing::warn!(kid = ?jwk.get("kid"), reason, "a key of the key set is skipped")
                }
            }
        }
        let clashes = |key: &Arc<Jwk>| keys.iter().any(|other| key.clashes_with(other));
        let (clashing, mut keys): (Vec<_>, Vec<_>) = keys.iter().cloned().partition(clashes);
        for key in clashing {
            let kid = key.kid();
            tracing::warn!(?kid, "different keys of the key set share this kid; none is used");
        }
        if keys.is_empty() {
            return Err(JwkSetError::NoUsableKey);
        }
        for key in &mut keys {
            if let Some(known) = previous.keys.iter().find(|known| known.is_same(key)) {
                *key = Arc::clone(known);
            }
        }
        Ok(Self { keys })
    }

    /// The key of this `kid` that fits `algorithm`. Without a `kid`: the key that fits, if it is
    /// the only one. A key that is listed twice, with its algorithm and without for instance, is
    /// one.
    pub(crate) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<&Arc<Jwk>> {
        let mut fitting = self
            .keys
            .iter()
            .filter(|key| key.fits(algorithm) && (kid.is_none() || key.kid() == kid));
        let found = fitting.next()?;
        fitting.all(|other| other.has_material_of(found)).then_some(found)
    }

    #[cfg(any(test, feature = "reqwest"))]
    pub(crate) fn keys(&self) -> &[Arc<Jwk>] {
        &self.keys
    }

    #[cfg(feature = "reqwest")]
    pub(crate) fn contains(&self, key: &Arc<Jwk>) -> bool {
        self.keys.iter().any(|own| Arc::ptr_eq(own, key))
    }
}

impl From<Vec<Jwk>> for JwkSet {
    fn from(keys: Vec<Jwk>) -> Self {
        Self { keys: keys.into_iter().map(Arc::new).collect() }
    }
}

/// The elements of the one member `keys`, as they are written: each is read alone.
fn entries(json: &[u8]) -> Option<Vec<RawValue<'_>>> {
    if !json::is_valid(json) {
        return None;
    }
    let mut keys = None;
    json::members(json, |name, value| match name.is("keys") {
        true => keys.replace(value).is_none().then_some(()),
        false => Some(()),
    })?;
    let mut entries = Vec::new();
    keys?.elements(|entry| {
        entries.push(entry);
        Some(())
    })?;
    Some(entries)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;

    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    const GOOD: &str = r#"{"kty":"OKP","crv":"Ed25519","kid":"good","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

    /// A new key.
    fn fresh(id: &str) -> String {
        let pair = Ed25519KeyPair::generate().unwrap();
        let x = URL_SAFE_NO_PAD.encode(pair.public_key());
        format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"{id}","x":"{x}"}}"#)
    }

    fn rsa() -> String {
        format!(
            r#"{{"kty":"RSA","kid":"r","n":"{}","e":"AQAB"}}"#,
            URL_SAFE_NO_PAD.encode([255; 256])
        )
    }

    fn read(json: impl AsRef<[u8]>) -> Result<JwkSet, JwkSetError> {
        JwkSet::from_json(json.as_ref(), 100, &JwkSet::default())
    }

    fn set(entries: &[&str]) -> Result<JwkSet, JwkSetError> {
        read(format!(r#"{{"keys":[{}]}}"#, entries.join(",")))
    }

    fn ids(set: &JwkSet) -> Vec<Option<&str>> {
        set.keys().iter().map(|key| key.kid()).collect()
    }

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Log {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    /// What is logged while `f` runs, a line for each event.
    fn logged(f: impl FnOnce()) -> Vec<String> {
        let log = Log::default();
        let subscriber =
            tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).finish();
        tracing::subscriber::with_default(subscriber, f);
        let bytes = log.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn what_is_no_jwk_set_is_refused() {
        let cases = [
            r#"{}"#,
            r#"[]"#,
            r#"[[]]"#,
            r#"[[GOOD]]"#,
            r#"[GOOD]"#,
            r#"GOOD"#,
            r#"{"keys":null}"#,
            r#"{"keys":{}}"#,
            r#"{"keys":GOOD}"#,
            r#"{"keys":"GOOD"}"#,
            r#"{"keys":7}"#,
            r#"{"Keys":[GOOD]}"#,
            r#"{"keys":[GOOD],"keys":[GOOD]}"#,
            r#"{"keys":[GOOD],"keys":[]}"#,
            r#"{"keys":[GOOD],"k\u0065ys":[GOOD]}"#,
            r#"{"keys":{"$serde_json::private::RawValue":"[GOOD]"}}"#,
            r#"{"$serde_json::private::RawValue":"{\"keys\":[]}"}"#,
            r#"{"keys":[GOOD]"#,
            r#"{"keys":[GOOD,]}"#,
            r#"{"keys":[GOOD}"#,
            r#"{"keys":[GOOD]} x"#,
            r#"{"keys":[GOOD]}{"keys":[GOOD]}"#,
            "\u{feff}{\"keys\":[GOOD]}",
            "<!doctype html><title>keys</title>",
            "null",
            "",
        ];
        for text in cases {
            assert_eq!(
                read(text.replace("GOOD", GOOD)).err(),
                Some(JwkSetError::NotAKeySet),
                "{text}"
            );
        }
        let not_utf8 = [br#"{"keys":[{"kid":""#.as_slice(), &[0xff], br#""}]}"#].concat();
        assert_eq!(read(not_utf8).err(), Some(JwkSetError::NotAKeySet));
    }

    #[test]
    fn a_set_without_a_usable_key_is_refused() {
        let (one, other) = (fresh("k"), fresh("k"));
        let cases: [&[&str]; 5] =
            [&[], &["null"], &["{}", "[]"], &[r#"{"kty":"oct","k":"AQAB"}"#], &[&one, &other]];
        for entries in cases {
            assert_eq!(set(entries).err(), Some(JwkSetError::NoUsableKey), "{entries:?}");
        }
    }

    #[test]
    fn a_set_of_more_than_max_keys_is_refused() {
        let json = format!(r#"{{"keys":[null,{GOOD},7]}}"#);
        for (max_keys, expected) in [(2, Some(JwkSetError::TooManyKeys)), (3, None)] {
            assert_eq!(
                JwkSet::from_json(json.as_bytes(), max_keys, &JwkSet::default()).err(),
                expected
            );
        }
    }

    #[test]
    fn one_bad_entry_costs_itself_alone() {
        let other = fresh("other");
        let bad = [
            "null",
            "true",
            "7",
            "1e999",
            r#""key""#,
            "[]",
            &format!("[{GOOD}]"),
            "{}",
            r#"{"kty":"AKP","alg":"ML-DSA-44","pub":"AQAB","kid":"pq"}"#,
            r#"{"kty":"oct","k":"AQAB","kid":"hmac"}"#,
            r#"{"kty":"RSA","n":"AQAB","e":"AQAB","kid":"short"}"#,
            r#"{"kty":"EC","crv":"P-256","x":"","y":"","kid":"empty"}"#,
            &other.replace(r#""other""#, "7"),
            &other.replace(r#""other""#, "null"),
            &other.replace(r#""other""#, r#""\ud800""#),
            &other.replace(r#""kid""#, r#""d":"AQAB","kid""#),
            &other.replace(r#""kid""#, r#""kid":"twice","kid""#),
            &other.replace(r#""kid""#, r#""kid":"twice","\u006bid""#),
            &other.replace(r#""kid""#, r#""x-count":1e999,"kid""#),
            &other.replace(r#""other""#, r#"{"$serde_json::private::RawValue":"\"other\""}"#),
            &format!(r#"{{"$serde_json::private::RawValue":{}}}"#, Value::from(other.as_str())),
            &other.replace(r#""kid""#, r#""x":[{"$serde_json::private::Number":"1"}],"kid""#),
            &other.replace(
                r#""kid""#,
                &format!(r#""deep":{}{},"kid""#, "[".repeat(40), "]".repeat(40)),
            ),
        ];
        for entry in bad {
            for entries in [[entry, GOOD], [GOOD, entry]] {
                let set = set(&entries).unwrap_or_else(|error| panic!("{entry}: {error:?}"));
                assert_eq!(ids(&set), [Some("good")], "{entry}");
            }
        }
        let entries: Vec<&str> = bad.into_iter().chain([GOOD]).collect();
        assert_eq!(ids(&set(&entries).unwrap()), [Some("good")]);
    }

    #[test]
    fn other_members_of_the_set_are_let_be() {
        let json = format!(r#" {{"a":[{{}}],"keys":[{GOOD}],"Keys":null,"keys ":1,"a":2}} "#);
        assert_eq!(ids(&read(json).unwrap()), [Some("good")]);
    }

    #[test]
    fn a_skipped_key_is_warned_of_without_its_material() {
        let secret = r#"{"kty":"oct","k":"c2VjcmV0","kid":"line\nbreak"}"#;
        let lines = logged(|| drop(set(&[secret, GOOD]).unwrap()));
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(
            lines[0].contains(" WARN ") && lines[0].contains("a private or symmetric key"),
            "{lines:?}"
        );
        assert!(!lines[0].contains("c2VjcmV0"), "{lines:?}");
    }

    #[test]
    fn two_different_keys_with_one_kid_are_both_left_out_and_warned_of() {
        let (one, other, third) = (fresh("k"), fresh("k"), fresh("k"));
        let lines =
            logged(|| assert_eq!(ids(&set(&[&one, GOOD, &other]).unwrap()), [Some("good")]));
        assert_eq!(lines.iter().filter(|line| line.contains(" WARN ")).count(), 2, "{lines:?}");
        assert_eq!(ids(&set(&[&one, &other, GOOD, &third]).unwrap()), [Some("good")]);
        // One of them twice does not make it the one that was meant.
        assert_eq!(ids(&set(&[&one, &one, &other, GOOD]).unwrap()), [Some("good")]);
    }

    #[test]
    fn identical_keys_with_one_kid_are_one() {
        let twice = set(&[GOOD, GOOD]).unwrap();
        assert_eq!(ids(&twice), [Some("good")]);
        assert!(twice.find(Some("good"), Algorithm::EdDSA).is_some());
        assert!(twice.find(None, Algorithm::EdDSA).is_some());
    }

    #[test]
    fn one_key_listed_with_alg_and_without_is_one() {
        let unbound = rsa();
        let bound = unbound.replace(r#""kid""#, r#""alg":"RS256","kid""#);
        for entries in [[&*unbound, &*bound], [&bound, &unbound]] {
            let set = set(&entries).unwrap();
            for (id, algorithm) in
                [(Some("r"), Algorithm::RS256), (None, Algorithm::RS256), (None, Algorithm::PS256)]
            {
                assert!(set.find(id, algorithm).is_some(), "{id:?} {algorithm}");
            }
        }
    }

    #[test]
    fn keys_are_found_by_kid_and_alg() {
        let set = set(&[GOOD, &fresh("other")]).unwrap();
        let found = |id, algorithm| set.find(id, algorithm).map(|key| key.kid());
        assert_eq!(found(Some("good"), Algorithm::EdDSA), Some(Some("good")));
        assert_eq!(found(Some("other"), Algorithm::EdDSA), Some(Some("other")));
        assert_eq!(found(Some("Good"), Algorithm::EdDSA), None);
        assert_eq!(found(Some("good"), Algorithm::RS256), None);
        // Two keys fit, and the token says of neither that it is the one.
        assert_eq!(found(None, Algorithm::EdDSA), None);
    }

    #[test]
    fn without_a_kid_the_only_key_that_fits_is_found() {
        let unnamed = GOOD.replace(r#""kid":"good","#, "");
        for key in [GOOD, &unnamed] {
            assert!(set(&[key, &rsa()]).unwrap().find(None, Algorithm::EdDSA).is_some(), "{key}");
        }
        // A token that names a key does not get one without a name.
        assert!(set(&[&unnamed]).unwrap().find(Some("good"), Algorithm::EdDSA).is_none());
    }

    #[test]
    fn a_key_that_stays_is_shared_with_the_previous_set() {
        let previous = set(&[GOOD, &fresh("gone")]).unwrap();
        let next = format!(r#"{{"keys":[{},{GOOD}]}}"#, fresh("new"));
        let next = JwkSet::from_json(next.as_bytes(), 100, &previous).unwrap();
        let shared: Vec<bool> = next.keys().iter().map(|key| previous.contains(key)).collect();
        assert_eq!(shared, [false, true]);
        // The same id on new material is another key.
        let reused = format!(r#"{{"keys":[{}]}}"#, fresh("good"));
        let reused = JwkSet::from_json(reused.as_bytes(), 100, &previous).unwrap();
        assert!(!previous.contains(&reused.keys()[0]));
    }
}
