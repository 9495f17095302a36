#[cfg(feature = "reqwest")]
mod renewal;
