//! The target of the events about requests. They belong to the server, which documents them.

pub(super) const LOG_TARGET: &str = "tower_m2m::server";
