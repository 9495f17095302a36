//! Test code that spans several modules. Not part of a normal build.

pub mod fuzzing;
#[cfg(test)]
#[cfg(all(feature = "metrics", feature = "testing"))]
mod metrics;
#[cfg(test)]
mod users;
#[cfg(test)]
pub(crate) mod vectors;
