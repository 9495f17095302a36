//! What the task will do next, and what was asked of it.

use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::fetch::Validators;
use super::fetch_limit::Gate;

/// What the task will do next. Behind a mutex that is held for a few instructions at a time.
pub(super) struct Plan {
    pub(super) due: Instant,
    /// Scheduled fetches that failed in a row.
    pub(super) failures: u32,
    pub(super) gate: Gate,
    pub(super) demand: Demand,
    /// What the set that is held called itself, and the lifetime that came with it.
    pub(super) validators: Validators,
    pub(super) lifetime: Option<Duration>,
    pub(super) rng: fastrand::Rng,
    pub(super) task: Option<AbortHandle>,
}

/// What was asked of the task and has not begun yet.
#[derive(Debug, Default)]
pub(super) struct Demand {
    pub(super) unknown_key: bool,
    pub(super) suspicion: bool,
    pub(super) refresh: bool,
}
