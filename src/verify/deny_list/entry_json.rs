//! The serde form of a [`DenyEntry`].

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::entry::DenyEntry;
use crate::verify::claim_rule::ClaimRule;

/// The members of an entry. A member that is `null` is an error, not a missing one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Members {
    #[serde(default)]
    claim: Claims,
    #[serde(default, deserialize_with = "present")]
    issued_before: Option<u64>,
    #[serde(default, deserialize_with = "present")]
    key: Option<String>,
}

fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// The rules in `claim`: one object, or an array of objects.
#[derive(Default)]
struct Claims(Vec<ClaimRule>);

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ClaimsVisitor)
    }
}

/// Not an untagged enum: its errors do not say what is wrong.
struct ClaimsVisitor;

impl<'de> Visitor<'de> for ClaimsVisitor {
    type Value = Claims;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array of objects")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Claims, A::Error> {
        Ok(Claims(vec![ClaimRule::deserialize(MapAccessDeserializer::new(map))?]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Claims, A::Error> {
        let rules = Vec::<FromObject<_>>::deserialize(SeqAccessDeserializer::new(seq))?;
        if rules.is_empty() {
            return Err(A::Error::custom("the array `claim` is empty"));
        }
        Ok(Claims(rules.into_iter().map(|rule| rule.0).collect()))
    }
}

/// A value that is read from an object alone. A derived `Deserialize` also reads an array of the
/// members' values.
struct FromObject<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for FromObject<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = FromObject<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<FromObject<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(FromObject)
    }
}

impl<'de> Deserialize<'de> for DenyEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Members { claim, issued_before, key } = FromObject::deserialize(deserializer)?.0;
        let entry = Self { claims: claim.0, issued_before, keys: key.into_iter().collect() };
        if entry.claims.is_empty() && entry.issued_before.is_none() && entry.keys.is_empty() {
            return Err(D::Error::custom("none of the members claim, issued_before and key"));
        }
        Ok(entry)
    }
}

/// An entry with two keys, which is flawed, has no JSON form: it is written with an array of kids,
/// which is an error when read.
impl Serialize for DenyEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match &*self.claims {
            [] => {}
            [rule] => map.serialize_entry("claim", rule)?,
            rules => map.serialize_entry("claim", rules)?,
        }
        if let Some(time) = self.issued_before {
            map.serialize_entry("issued_before", &time)?;
        }
        match &*self.keys {
            [] => {}
            [kid] => map.serialize_entry("key", kid)?,
            kids => map.serialize_entry("key", kids)?,
        }
        map.end()
    }
}
