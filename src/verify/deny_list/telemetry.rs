//! Log events and, with feature `metrics`, the counter and gauges of deny lists.
//! [`DenyList`](crate::DenyList) lists them.

use std::path::Path;
use std::time::Duration;

use super::entry::DenyEntry;
use super::error::DenyListError;
use crate::error::Chain;
use crate::file_watch::WarnedKinds;
#[cfg(feature = "metrics")]
use crate::metrics::{DENY_LIST_AGE_SECONDS, DENY_LIST_ENTRIES, DENY_LIST_HITS_TOTAL, label};
use crate::rejection::RejectionReason;

const LOG_TARGET: &str = "tower_m2m::deny_list";

/// Logs one error for `count` flawed entries, of which `first` is the first.
pub(super) fn flawed_entries(first: &DenyEntry, flaw: &'static str, count: usize) {
    tracing::error!(target: LOG_TARGET, entry = %first, flaw, count, "deny entry matches no token");
}

/// Logs a call of `replace`. `file` is the one that the list watches: its next read puts its entries
/// back.
pub(super) fn replaced(entries: usize, file: Option<&Path>) {
    match file {
        None => tracing::debug!(target: LOG_TARGET, entries, "deny list replaced"),
        Some(file) => {
            let file = file.display();
            tracing::error!(target: LOG_TARGET, %file, entries, "deny list with a file replaced");
        }
    }
}

/// Counts a token that was rejected because of a deny list. Ignores any other reason.
pub(crate) fn count_hit(reason: RejectionReason) {
    let reason = match reason {
        RejectionReason::TokenRevoked => "token_revoked",
        RejectionReason::CallerDenied => "caller_denied",
        _ => return,
    };
    #[cfg(feature = "metrics")]
    metrics::counter!(DENY_LIST_HITS_TOTAL, label::REASON => reason).increment(1);
    #[cfg(not(feature = "metrics"))]
    let _ = reason;
}

/// Updates the gauges of a list. `file` is `None` for a list that watches no file.
#[cfg_attr(not(feature = "metrics"), allow(unused_variables))]
pub(super) fn gauges(file: Option<&Path>, entries: usize, age: Duration) {
    #[cfg(feature = "metrics")]
    {
        let file = file.map(|path| path.display().to_string()).unwrap_or_default();
        metrics::gauge!(DENY_LIST_ENTRIES, label::FILE => file.clone()).set(entries as f64);
        metrics::gauge!(DENY_LIST_AGE_SECONDS, label::FILE => file).set(age.as_secs_f64());
    }
}

/// The log of one watched file.
#[derive(Default)]
pub(super) struct FileLog {
    warned: WarnedKinds,
}

impl FileLog {
    /// Reports that the file was read. `entries` is the number of entries in force.
    pub(super) fn succeeded(&self, file: &Path, entries: usize, has_changed: bool) {
        let file = file.display();
        if self.warned.recover() {
            tracing::info!(target: LOG_TARGET, %file, entries, "deny list file recovered");
        }
        if has_changed {
            tracing::info!(target: LOG_TARGET, %file, entries, "deny list file changed");
        }
    }

    /// Reports that the file could not be used, and that the entries of `age` stay in force. Each
    /// kind of error is logged at warn once, until a read succeeds.
    pub(super) fn failed(&self, file: &Path, err: &DenyListError, age: Duration) {
        let (file, error, age) = (file.display(), Chain(err), age.as_secs());
        if self.warned.is_new(err.kind()) {
            tracing::warn!(target: LOG_TARGET, %file, %error, age, "deny list file unusable");
        } else {
            tracing::debug!(target: LOG_TARGET, %file, %error, age, "deny list file still unusable");
        }
    }
}
