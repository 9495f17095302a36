//! The marker of service tokens, from the command line.

use std::fmt::{self, Display, Formatter};

use tower_m2m::{ClaimPath, Expected, Verifier};

/// The claim that only service tokens have, and the values that it may have.
pub(crate) struct Marker {
    /// The name of the claim, or one name for each level of nested claims.
    pub(crate) path: Vec<String>,
    expected: Expected,
}

impl Marker {
    /// Parses `CLAIM=VALUE`. A nested claim is a JSON array of names. A value that begins with `{`
    /// or `[` is JSON too, any other is a string. The error shows no value.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (path, value) = text.split_once('=').ok_or("--marker is not CLAIM=VALUE")?;
        let path = match path {
            path if path.starts_with('[') => serde_json::from_str(path)
                .map_err(|err| format!("the claim of --marker is not valid: {err}"))?,
            name => vec![name.to_owned()],
        };
        let expected = match value {
            value if value.starts_with(['{', '[']) => serde_json::from_str(value)
                .map_err(|err| format!("the value of --marker is not valid: {err}"))?,
            text => text.into(),
        };
        Ok(Self { path, expected })
    }

    pub(crate) fn require(&self, verifier: Verifier) -> Verifier {
        verifier.marker(self.path.clone(), self.expected.clone())
    }
}

/// The marker that a verifier requires by default.
impl Default for Marker {
    fn default() -> Self {
        Self { path: vec!["source".to_owned()], expected: "microservice".into() }
    }
}

impl Display for Marker {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}", ClaimPath::from(self.path.clone()), self.expected)
    }
}
