//! [`DenyListHealth`]: the state of a deny list.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::error::DenyListError;

/// The state of a [`DenyList`](crate::DenyList), from [`health`](crate::DenyList::health).
///
/// For a health endpoint or a log. A readiness probe should not depend on it: a list that is out of
/// date stays in force.
///
/// ```
/// use tower_m2m::DenyListHealth;
///
/// fn describe(health: &DenyListHealth) -> String {
///     let age = health.age.unwrap_or_default().as_secs();
///     match &health.last_error {
///         Some(err) => format!("{} entries of {age} s ago: {err}", health.entries),
///         None => format!("{} entries", health.entries),
///     }
/// }
/// # let list = tower_m2m::DenyList::new();
/// # assert_eq!(describe(&list.health()), "0 entries");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DenyListHealth {
    /// The number of entries in force. [Flawed](crate::DenyEntry#flawed-entries) ones are not
    /// counted.
    pub entries: usize,
    /// When the entries were last replaced, or the file was last read without an error, whether it
    /// had changed or not. `None` before that.
    pub updated_at: Option<SystemTime>,
    /// The time since then.
    pub age: Option<Duration>,
    /// The watched file, if any.
    pub file: Option<PathBuf>,
    /// Why the last read of the file failed. `None` if it succeeded. The `source()` of some errors
    /// says more.
    pub last_error: Option<DenyListError>,
}
