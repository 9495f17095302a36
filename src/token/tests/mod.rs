#[cfg(feature = "reqwest")]
mod expiry;
#[cfg(feature = "reqwest")]
mod refusal;
#[cfg(feature = "reqwest")]
mod renewal;
#[cfg(feature = "reqwest")]
mod runtimes;
mod service_token;
