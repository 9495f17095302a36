//! Finds the public key in an X.509 certificate (RFC 5280 §4.1). The certificate is not validated:
//! neither its dates, its issuer nor its extensions.

use super::der::{Der, INTEGER, SEQUENCE};

/// The tag of `version`, which a certificate of version 1 lacks.
const VERSION: u8 = 0xa0;

/// The SubjectPublicKeyInfo, a whole DER element. `None` if the bytes are not a DER-encoded
/// certificate.
pub(super) fn public_key(der: &[u8]) -> Option<&[u8]> {
    let certificate = Der(der).take(SEQUENCE)?.content;
    let mut fields = Der(Der(certificate).take(SEQUENCE)?.content);
    fields.take(VERSION);
    fields.take(INTEGER)?; // serialNumber
    fields.take(SEQUENCE)?; // signature
    fields.take(SEQUENCE)?; // issuer
    fields.take(SEQUENCE)?; // validity
    fields.take(SEQUENCE)?; // subject
    Some(fields.take(SEQUENCE)?.whole)
}
