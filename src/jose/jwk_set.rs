//! A JWK Set (RFC 7517 §5), read entry by entry, so that a bad entry does not affect the others.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::algorithm::Algorithm;
use super::json::{self, RawValue};
use super::jwk::{self, Jwk};
use crate::config_text;

/// The usable keys of one JWK Set.
#[derive(Default)]
pub(crate) struct JwkSet {
    keys: Vec<Arc<Jwk>>,
    /// The kids of the skipped entries.
    skipped_kids: Vec<String>,
}

/// Why a document is not a usable JWK Set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JwkSetError {
    /// Not one JSON object with exactly one member `keys`, an array.
    NotAKeySet,
    /// More entries than allowed.
    TooManyKeys,
    /// No entry can be used.
    NoUsableKey,
}

impl JwkSet {
    /// Reads a JWK Set of at most `max_keys` entries, with or without a byte order mark (RFC 8259
    /// §8.1). A key that is also in `known` is taken from there, so that a new deadline reaches
    /// every holder of the key. `on_skip` is called with the kid, cut for a log, and the reason for
    /// each entry that cannot be used.
    pub(crate) fn from_json<'k>(
        json: &[u8],
        max_keys: usize,
        known: impl IntoIterator<Item = &'k Arc<Jwk>>,
        on_skip: impl Fn(Option<&str>, &'static str),
    ) -> Result<Self, JwkSetError> {
        let entries = entries(config_text::without_bom(json)).ok_or(JwkSetError::NotAKeySet)?;
        if entries.len() > max_keys {
            return Err(JwkSetError::TooManyKeys);
        }
        let mut keys: Vec<Arc<Jwk>> = Vec::with_capacity(entries.len());
        let mut skipped_kids = Vec::new();
        for entry in entries {
            let jwk = json::object(entry.as_bytes()).map_or(Value::Null, Value::Object);
            match Jwk::from_jwk(&jwk) {
                Ok(key) if keys.iter().any(|other| other.is_same(&key)) => {}
                Ok(key) => keys.push(Arc::new(key)),
                Err(reason) => {
                    let kid = jwk.get("kid").and_then(Value::as_str);
                    on_skip(kid.map(jwk::cut_for_log), reason);
                    skipped_kids.extend(kid.map(str::to_owned));
                }
            }
        }
        let clashes = |key: &Arc<Jwk>| keys.iter().any(|other| key.clashes_with(other));
        let (clashing, keys): (Vec<_>, Vec<_>) = keys.iter().cloned().partition(clashes);
        for key in clashing {
            on_skip(key.logged_kid(), "a different key has the same kid and alg");
            skipped_kids.extend(key.kid().map(str::to_owned));
        }
        if keys.is_empty() {
            return Err(JwkSetError::NoUsableKey);
        }
        let mut set = Self { keys, skipped_kids };
        set.reuse(known);
        Ok(set)
    }

    /// Takes the keys of this set that are also in `known` from there.
    pub(crate) fn reuse<'k>(&mut self, known: impl IntoIterator<Item = &'k Arc<Jwk>>) {
        for known in known {
            if let Some(key) = self.keys.iter_mut().find(|key| known.is_same(key)) {
                *key = Arc::clone(known);
            }
        }
    }

    /// Whether an entry, usable or skipped, has this `kid`.
    #[cfg_attr(not(feature = "reqwest"), allow(dead_code))] // a local key set never changes
    pub(crate) fn names(&self, kid: &str) -> bool {
        self.keys.iter().any(|key| key.kid() == Some(kid))
            || self.skipped_kids.iter().any(|skipped| skipped == kid)
    }

    /// The key with this `kid` that fits `algorithm`, or without a `kid` the only key that fits. A
    /// key that is listed twice, for instance with and without `alg`, counts as one.
    pub(crate) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<&Arc<Jwk>> {
        let mut fitting = self
            .keys
            .iter()
            .filter(|key| key.fits(algorithm) && (kid.is_none() || key.kid() == kid));
        let found = fitting.next()?;
        fitting.all(|other| other.has_same_material(found)).then_some(found)
    }

    /// Whether a key of the set is never [found](Self::find), because another one has the same
    /// `kid`, or none, and a common algorithm.
    pub(crate) fn has_ambiguous_key(&self) -> bool {
        Algorithm::all().any(|algorithm| {
            let mut fitting = self.keys.iter().filter(|key| key.fits(algorithm));
            fitting.any(|key| self.find(key.kid(), algorithm).is_none())
        })
    }

    pub(crate) fn keys(&self) -> &[Arc<Jwk>] {
        &self.keys
    }

    pub(crate) fn contains(&self, key: &Arc<Jwk>) -> bool {
        self.keys.iter().any(|own| Arc::ptr_eq(own, key))
    }
}

/// Prints the number of keys.
impl fmt::Debug for JwkSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwkSet").field("keys", &self.keys.len()).finish()
    }
}

impl From<Vec<Jwk>> for JwkSet {
    fn from(keys: Vec<Jwk>) -> Self {
        let keys = keys.into_iter().map(Arc::new).collect();
        Self { keys, skipped_kids: Vec::new() }
    }
}

/// The elements of the array `keys` as raw text. `None` if the text is not one JSON object with
/// exactly one member `keys`, an array.
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
#[cfg(feature = "testing")]
mod tests {
    use std::cell::RefCell;

    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;
    use crate::jose::SigningKey;

    const GOOD: &str = r#"{"kty":"OKP","crv":"Ed25519","kid":"good","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

    /// A new key.
    fn fresh(kid: &str) -> String {
        let key = SigningKey::generate(Algorithm::EdDSA).unwrap();
        key.with_kid(kid.to_owned()).public_jwk().to_owned()
    }

    fn rsa() -> String {
        format!(
            r#"{{"kty":"RSA","kid":"r","n":"{}","e":"AQAB"}}"#,
            URL_SAFE_NO_PAD.encode([255; 256])
        )
    }

    fn read(json: impl AsRef<[u8]>) -> Result<JwkSet, JwkSetError> {
        JwkSet::from_json(json.as_ref(), 100, [], |_, _| {})
    }

    fn set(entries: &[&str]) -> Result<JwkSet, JwkSetError> {
        read(format!(r#"{{"keys":[{}]}}"#, entries.join(",")))
    }

    fn kids(set: &JwkSet) -> Vec<Option<&str>> {
        set.keys().iter().map(|key| key.kid()).collect()
    }

    /// The kid and the reason of each skipped entry.
    fn skipped(entries: &[&str]) -> Vec<(Option<String>, &'static str)> {
        let skipped = RefCell::new(Vec::new());
        let json = format!(r#"{{"keys":[{}]}}"#, entries.join(","));
        let on_skip = |kid: Option<&str>, reason| {
            skipped.borrow_mut().push((kid.map(str::to_owned), reason));
        };
        _ = JwkSet::from_json(json.as_bytes(), 100, [], on_skip);
        skipped.into_inner()
    }

    #[test]
    fn document_that_is_no_jwk_set_is_an_error() {
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
            "\u{feff}\u{feff}{\"keys\":[GOOD]}",
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
    fn set_without_a_usable_key_is_an_error() {
        let (one, other) = (fresh("k"), fresh("k"));
        let cases: [&[&str]; 5] =
            [&[], &["null"], &["{}", "[]"], &[r#"{"kty":"oct","k":"AQAB"}"#], &[&one, &other]];
        for entries in cases {
            assert_eq!(set(entries).err(), Some(JwkSetError::NoUsableKey), "{entries:?}");
        }
    }

    #[test]
    fn set_of_more_than_max_keys_is_an_error() {
        let json = format!(r#"{{"keys":[null,{GOOD},7]}}"#);
        for (max_keys, expected) in [(2, Some(JwkSetError::TooManyKeys)), (3, None)] {
            assert_eq!(JwkSet::from_json(json.as_bytes(), max_keys, [], |_, _| {}).err(), expected);
        }
    }

    #[test]
    fn bad_entry_is_skipped_and_the_others_are_kept() {
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
            &other.replace(r#""other""#, r#""""#),
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
                let set = set(&entries).unwrap_or_else(|err| panic!("{entry}: {err:?}"));
                assert_eq!(kids(&set), [Some("good")], "{entry}");
            }
        }
        let entries: Vec<&str> = bad.into_iter().chain([GOOD]).collect();
        assert_eq!(kids(&set(&entries).unwrap()), [Some("good")]);
    }

    #[test]
    fn unknown_members_of_the_set_are_ignored() {
        let json = format!(r#" {{"a":[{{}}],"keys":[{GOOD}],"Keys":null,"keys ":1,"a":2}} "#);
        assert_eq!(kids(&read(json).unwrap()), [Some("good")]);
    }

    #[test]
    fn skipped_entries_are_reported_with_kid_and_reason() {
        let secret = r#"{"kty":"oct","k":"c2VjcmV0","kid":"secret"}"#;
        let unnamed = r#"{"kty":"AKP","pub":"AQAB"}"#;
        let (one, other) = (fresh("twice"), fresh("twice"));
        let twice = "a different key has the same kid and alg";
        let expected = [
            (Some("secret".to_owned()), "a private or symmetric key"),
            (None, "the key type is unknown"),
            (None, "not an object"),
            (Some("twice".to_owned()), twice),
            (Some("twice".to_owned()), twice),
        ];
        assert_eq!(skipped(&[secret, unnamed, "7", &one, GOOD, &other]), expected);
        assert_eq!(skipped(&[secret]), expected[..1], "in a set without a usable key");
    }

    #[test]
    fn reported_kids_are_cut_to_64_characters() {
        let long = "é".repeat(65);
        let malformed = fresh(&long).replace(r#""x":""#, r#""x":"+"#);
        let found = skipped(&[&malformed, &fresh(&long), &fresh(&long), GOOD]);
        let cut = "é".repeat(64);
        assert!(found.len() == 3 && found.iter().all(|(kid, _)| kid.as_deref() == Some(&cut)));
    }

    #[test]
    fn different_keys_with_one_kid_are_skipped() {
        let (one, other, third) = (fresh("k"), fresh("k"), fresh("k"));
        assert_eq!(kids(&set(&[&one, GOOD, &other]).unwrap()), [Some("good")]);
        assert_eq!(kids(&set(&[&one, &other, GOOD, &third]).unwrap()), [Some("good")]);
        // A duplicate of one of them does not resolve the clash.
        assert_eq!(kids(&set(&[&one, &one, &other, GOOD]).unwrap()), [Some("good")]);
    }

    #[test]
    fn identical_entries_are_one_key() {
        let twice = set(&[GOOD, GOOD]).unwrap();
        assert_eq!(kids(&twice), [Some("good")]);
        assert!(twice.find(Some("good"), Algorithm::EdDSA).is_some());
        assert!(twice.find(None, Algorithm::EdDSA).is_some());
    }

    #[test]
    fn key_listed_with_and_without_alg_is_one_key() {
        let unbound = rsa();
        let bound = unbound.replace(r#""kid""#, r#""alg":"RS256","kid""#);
        for entries in [[&*unbound, &*bound], [&bound, &unbound]] {
            let set = set(&entries).unwrap();
            for (kid, algorithm) in
                [(Some("r"), Algorithm::RS256), (None, Algorithm::RS256), (None, Algorithm::PS256)]
            {
                assert!(set.find(kid, algorithm).is_some(), "{kid:?} {algorithm}");
            }
        }
    }

    #[test]
    fn keys_are_found_by_kid_and_alg() {
        let set = set(&[GOOD, &fresh("other")]).unwrap();
        let found = |kid, algorithm| set.find(kid, algorithm).map(|key| key.kid());
        assert_eq!(found(Some("good"), Algorithm::EdDSA), Some(Some("good")));
        assert_eq!(found(Some("other"), Algorithm::EdDSA), Some(Some("other")));
        assert_eq!(found(Some("Good"), Algorithm::EdDSA), None);
        assert_eq!(found(Some("good"), Algorithm::RS256), None);
        // Without a `kid` two keys fit, so neither is found.
        assert_eq!(found(None, Algorithm::EdDSA), None);
    }

    #[test]
    fn only_fitting_key_is_found_without_a_kid() {
        let unnamed = GOOD.replace(r#""kid":"good","#, "");
        for key in [GOOD, &unnamed] {
            assert!(set(&[key, &rsa()]).unwrap().find(None, Algorithm::EdDSA).is_some(), "{key}");
        }
        // A token with a `kid` does not find a key without one.
        assert!(set(&[&unnamed]).unwrap().find(Some("good"), Algorithm::EdDSA).is_none());
    }

    #[test]
    fn kept_key_is_shared_with_the_previous_set() {
        let previous = set(&[GOOD, &fresh("gone")]).unwrap();
        let next = format!(r#"{{"keys":[{},{GOOD}]}}"#, fresh("new"));
        let next = JwkSet::from_json(next.as_bytes(), 100, previous.keys(), |_, _| {}).unwrap();
        let shared: Vec<bool> = next.keys().iter().map(|key| previous.contains(key)).collect();
        assert_eq!(shared, [false, true]);
        // The same `kid` with new material is another key.
        let reused = format!(r#"{{"keys":[{}]}}"#, fresh("good"));
        let reused = JwkSet::from_json(reused.as_bytes(), 100, previous.keys(), |_, _| {}).unwrap();
        assert!(!previous.contains(&reused.keys()[0]));
    }
}
