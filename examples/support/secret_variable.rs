//! Secrets in environment variables, which do not appear in the list of processes.

use std::env::{self, VarError};

/// The secret in an environment variable. `None` if it is not set, or empty.
pub(crate) fn secret_variable(name: &str) -> Result<Option<String>, lexopt::Error> {
    match env::var(name) {
        Ok(secret) => Ok(Some(secret).filter(|secret| !secret.trim().is_empty())),
        Err(VarError::NotPresent) => Ok(None),
        // Not the `VarError`: it would print the secret.
        Err(VarError::NotUnicode(_)) => Err(format!("{name} is not valid UTF-8").into()),
    }
}
