//! [`MintError`]: its texts, and which errors are transient.

use crate::error::SourceError;
use crate::jwks::FetchError;
use crate::jwks::KeySetError;
use crate::rejection::RejectionReason;
use crate::token::error::{HTML_PAGE, MintError};

#[test]
fn error_is_transient_if_a_retry_may_succeed() {
    let refused = |status, message: &str| MintError::Refused {
        core: "http://core".to_owned(),
        status,
        message: Some(message.to_owned()),
        retry_after: None,
    };
    let misconfigured = |reason: RejectionReason| MintError::Misconfigured {
        claim: None,
        expected: None,
        received: None,
        source: reason.into(),
    };
    let keys = |source| MintError::KeysUnavailable { url: None, source };
    let fetch = |error: FetchError| keys(SourceError::new(error));
    let fetched = |status, is_html| fetch(FetchError::Status { status, is_html });
    let cases = [
        (refused(404, HTML_PAGE), true),
        (refused(404, "Not found"), false),
        (refused(400, HTML_PAGE), false),
        (refused(401, "Invalid API key"), false),
        (refused(408, ""), true),
        (refused(425, ""), true),
        (refused(429, ""), true),
        (refused(499, ""), false),
        (refused(500, ""), true),
        (refused(599, ""), true),
        (refused(600, ""), false),
        (misconfigured(RejectionReason::IssuedInFuture), true),
        (misconfigured(RejectionReason::NotYetValid), true),
        (misconfigured(RejectionReason::Expired), false),
        (misconfigured(RejectionReason::WrongAudience), false),
        (keys(SourceError::new("no fetch has ended")), true),
        (fetch(FetchError::Timeout), true),
        (fetch(FetchError::Connection { source: SourceError::new("refused") }), true),
        (fetched(404, true), true),
        (fetched(404, false), false),
        (fetched(401, false), false),
        (fetched(302, true), false),
        (fetched(429, false), true),
        (fetched(503, true), true),
        (fetch(FetchError::TooLarge { limit: 1 }), false),
        (fetch(FetchError::KeySet { source: KeySetError::NotAKeySet }), false),
        (fetch(FetchError::KeySet { source: KeySetError::NoUsableKey }), true),
        (MintError::StaticKey { core: "http://core".to_owned() }, false),
    ];
    for (error, expected) in cases {
        assert_eq!(error.is_transient(), expected, "{error:?}");
    }
}

#[test]
fn reserved_claim_names_what_to_use_instead() {
    let cases = [
        ("exp", Some("claim `exp` is reserved; set the validity instead")),
        ("iss", Some("claim `iss` is reserved; set the issuer or the JWKS domain instead")),
        ("iat", Some("claim `iat` is reserved; leave it out, each mint sets it")),
        ("jti", Some("claim `jti` is reserved; leave it out, every token gets a random one")),
        ("aud", None),
        ("service", None),
    ];
    for (claim, expected) in cases {
        let text = MintError::reserved(claim).map(|err| err.to_string());
        assert_eq!(text.as_deref(), expected, "{claim}");
    }
}
