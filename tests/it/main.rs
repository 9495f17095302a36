//! Behaviour across modules, over real sockets and real processes.

#[cfg(unix)]
mod kill;
