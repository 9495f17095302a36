mod expiry;
mod refusal;
mod renewal;
mod runtimes;
mod service_token;
