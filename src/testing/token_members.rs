//! The members of a token's header or claims, as JSON texts.

use std::fmt;

use serde_json::Value;

/// A JSON object in which each value is any text, so that a test can write what no serializer would.
#[derive(Clone, Default)]
pub(super) struct TokenMembers(Vec<(String, String)>);

impl TokenMembers {
    /// Sets a member, in the place of the one with this name.
    pub(super) fn set(&mut self, name: &str, json: impl fmt::Display) {
        let json = json.to_string();
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, value)) => *value = json,
            None => self.0.push((name.to_owned(), json)),
        }
    }

    /// Adds a member, unless there is one with this name.
    pub(super) fn set_default(&mut self, name: &str, json: impl fmt::Display) {
        if self.0.iter().all(|(known, _)| known != name) {
            self.set(name, json);
        }
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.0.retain(|(known, _)| known != name);
    }

    pub(super) fn to_json(&self) -> String {
        let members = self.0.iter().map(|(name, json)| format!("{}:{json}", Value::from(&**name)));
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    }
}

/// Prints the names.
impl fmt::Debug for TokenMembers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}
