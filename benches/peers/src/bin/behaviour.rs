//! Prints what each contestant answers to defective requests, and when keys change:
//!
//! ```text
//! cargo run --manifest-path benches/peers/Cargo.toml --bin behaviour
//! ```
//!
//! The contestants are those of the measurements, with the same settings. The program calls them
//! in this process, and jwt-authorizer also on tonic 0.12, for which it has a feature. The
//! authority is a server on loopback. The run takes over a minute, because some contestants fetch
//! keys at most once a minute.
//!
//! - `aud`, `crit`, `sub`, `source`: signed tokens, each with one defect. RFC 7515 §4.1.11 requires
//!   that a token with an unknown critical extension is rejected. A duplicate claim has another
//!   value the first time.
//! - unknown `kid`s: signed by a key that is not listed, sent one after the other.
//! - new key: the first token of a key that the authority has just listed.
//! - outage: the authority stops after the first fetch. The unknown key is the new one.

use peers::authority::Result;
use peers::behaviour;
use peers::contestants::Provider;

fn main() -> Result<()> {
    Provider::AwsLc.install();
    print!("{}", behaviour::run()?);
    Ok(())
}
