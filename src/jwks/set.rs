//! A JWK Set (RFC 7517 §5), read entry by entry so that one odd entry costs itself alone.

use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::key::Key;
use crate::algorithm::Algorithm;
use crate::json;

/// The usable keys of one JWK Set.
#[derive(Debug, Default)]
pub(crate) struct KeySet {
    keys: Vec<Arc<Key>>,
}

/// Why a document is no key set to work with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetError {
    /// Not one JSON object with one array `keys`.
    NotAKeySet,
    /// More entries than allowed.
    TooManyKeys,
    /// No entry can be used.
    NoUsableKey,
}

impl KeySet {
    /// Reads a JWK Set of at most `max_keys` entries. A key that `previous` holds too is shared with it, so that whoever
    /// holds on to that key sees its deadline move.
    pub(crate) fn from_json(json: &[u8], max_keys: usize, previous: &Self) -> Result<Self, SetError> {
        let Entries(entries) = serde_json::from_slice(json).map_err(|_| SetError::NotAKeySet)?;
        if entries.len() > max_keys {
            return Err(SetError::TooManyKeys);
        }
        let mut keys: Vec<Arc<Key>> = Vec::with_capacity(entries.len());
        for entry in entries {
            let jwk = json::object(entry.get().as_bytes()).map_or(Value::Null, Value::Object);
            match Key::from_jwk(&jwk) {
                Ok(key) if keys.iter().any(|other| other.is_same(&key)) => {}
                Ok(key) => keys.push(Arc::new(key)),
                Err(reason) => tracing::warn!(kid = ?jwk.get("kid"), reason, "a key of the key set is skipped"),
            }
        }
        let clashing: Vec<bool> = keys.iter().map(|key| keys.iter().any(|other| key.clashes_with(other))).collect();
        let mut clashes = clashing.into_iter();
        keys.retain(|key| {
            let clashes = clashes.next().unwrap_or_default();
            if clashes {
                tracing::warn!(kid = ?key.id(), "different keys of the key set share this id; none is used");
            }
            !clashes
        });
        if keys.is_empty() {
            return Err(SetError::NoUsableKey);
        }
        for key in &mut keys {
            if let Some(known) = previous.keys.iter().find(|known| known.is_same(key)) {
                *key = Arc::clone(known);
            }
        }
        Ok(Self { keys })
    }

    /// The key of this id that fits `algorithm`. Without an id: the key that fits, if it is the only one. One that is
    /// listed twice, with an `alg` and without, is one.
    pub(crate) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&Arc<Key>> {
        let mut fitting = self.keys.iter().filter(|key| key.fits(algorithm) && (id.is_none() || key.id() == id));
        let found = fitting.next()?;
        fitting.all(|other| other.is_listed_again(found)).then_some(found)
    }

    pub(crate) fn keys(&self) -> &[Arc<Key>] {
        &self.keys
    }

    pub(crate) fn contains(&self, key: &Arc<Key>) -> bool {
        self.keys.iter().any(|own| Arc::ptr_eq(own, key))
    }
}

impl From<Vec<Key>> for KeySet {
    fn from(keys: Vec<Key>) -> Self {
        Self { keys: keys.into_iter().map(Arc::new).collect() }
    }
}

/// The raw entries of `keys`. Deliberately not a derived struct: that would also read `[[…]]`.
struct Entries(Vec<Box<RawValue>>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with the array `keys`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        let mut entries = None;
        while let Some(name) = map.next_key::<String>()? {
            if name != "keys" {
                map.next_value::<IgnoredAny>()?;
            } else if entries.replace(map.next_value()?).is_some() {
                return Err(A::Error::duplicate_field("keys"));
            }
        }
        entries.map(Entries).ok_or_else(|| A::Error::missing_field("keys"))
    }
}
