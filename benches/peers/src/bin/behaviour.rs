//! Prints what each contestant answers to defective requests, and when keys change:
//!
//! ```text
//! cargo run --manifest-path benches/peers/Cargo.toml --bin behaviour
//! ```
//!
//! The contestants are those of the measurements, set up in the same way, and called in this
//! process; jwt-authorizer also on tonic 0.12, for which it has a feature. The authority is a
//! server on loopback. The run takes over a minute, because some contestants do not fetch keys
//! again within a minute after a fetch.
//!
//! - `aud`, `crit`, `sub`, `source`: signed tokens, each with one defect. RFC 7515 §4.1.11 requires
//!   that a token with an unknown critical extension is refused. A claim that is listed twice has
//!   another value the first time.
//! - unknown `kid`s: signed by a key that is not listed, sent one after the other.
//! - new key: the first token of a key that has just been listed.
//! - outage: the authority has stopped after the first fetch. The unknown key is the new one.

use peers::authority::Result;
use peers::behaviour;
use peers::contestants::Provider;

fn main() -> Result<()> {
    Provider::AwsLc.install();
    print!("{}", behaviour::run()?);
    Ok(())
}
