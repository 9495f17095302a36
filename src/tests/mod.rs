//! Test-only code of the whole crate: nothing here is part of a normal build.

pub mod fuzzing;
#[cfg(test)]
mod vectors;
