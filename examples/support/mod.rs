//! Code that the examples share.

use std::error::Error;

/// Formats an error and its sources on one line.
pub(crate) fn chain(err: &dyn Error) -> String {
    let sources = std::iter::successors(err.source(), |err| (*err).source());
    sources.fold(err.to_string(), |text, source| format!("{text}: {source}"))
}
