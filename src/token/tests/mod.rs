#[cfg(feature = "reqwest")]
mod refusal;
#[cfg(feature = "reqwest")]
mod renewal;
mod service_token;
