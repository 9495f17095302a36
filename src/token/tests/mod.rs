#[cfg(feature = "reqwest")]
mod refusal;
#[cfg(feature = "reqwest")]
mod renewal;
