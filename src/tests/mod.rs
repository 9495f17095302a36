//! Test code that spans several modules. Not part of a normal build.

pub mod fuzzing;
#[cfg(test)]
mod users;
#[cfg(test)]
mod vectors;
