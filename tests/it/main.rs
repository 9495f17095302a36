//! Behaviour across modules, over real sockets and real processes.

mod failover;
#[cfg(unix)]
mod kill;
mod renewal;
mod scripted;
