//! What to change, for each reason for which M2 rejects a token.

use serde_json::Value;
use tower_m2m::{FetchError, RejectionReason as Reason, RemoteJwks};

use crate::decoded_token::{DecodedToken, shown};
use crate::marker::Marker;
use crate::support::chain;

/// What to change in M1, in M2 or at the authority.
pub(crate) fn advice(
    reason: Reason,
    decoded: &DecodedToken,
    jwks: &RemoteJwks,
    fetch: Option<&FetchError>,
    marker: &Marker,
) -> String {
    let kids = || {
        let keys = jwks
            .to_json()
            .and_then(|json| serde_json::from_str::<Value>(&json).ok())
            .unwrap_or_default();
        let kids: Vec<_> =
            keys["keys"].as_array().into_iter().flatten().map(|key| shown(&key["kid"])).collect();
        kids.join(", ")
    };
    match reason {
        Reason::TokenTooLong => "Mint a token with fewer claims, or raise max_token_len in M2.".to_owned(),
        Reason::NotThreeParts | Reason::NotBase64Url => {
            "The text is not a complete JWT: copy all of it, without quotes and line breaks.".to_owned()
        }
        Reason::MalformedHeader | Reason::MalformedClaims => {
            "The token's JSON is malformed or has a duplicate member: correct the program that mints it.".to_owned()
        }
        Reason::UnsupportedAlgorithm | Reason::AlgorithmNotAllowed => {
            format!(
                "The token's alg is {}: configure the authority to sign with an asymmetric algorithm that M2 allows.",
                decoded.header("alg")
            )
        }
        Reason::CriticalHeader | Reason::EncryptedToken | Reason::NestedToken => {
            "The token uses a JOSE feature that M2 does not support: mint a plain signed JWT.".to_owned()
        }
        Reason::UnsupportedTokenType => format!(
            "The token's typ is {}: mint a token with typ JWT, at+jwt or JOSE, or without typ.",
            decoded.header("typ")
        ),
        Reason::MalformedKid => {
            "The token's kid is not a string of 1 to 256 bytes: correct the program that mints it.".to_owned()
        }
        Reason::MalformedExpiration => {
            "The token's exp is missing or not a number: mint a token with an expiration time.".to_owned()
        }
        Reason::Expired => {
            "Mint a new token. If it is new, synchronize the clocks: M2 allows a skew of 30 s.".to_owned()
        }
        Reason::MalformedNotBefore | Reason::MalformedIssuedAt => {
            "The token's nbf or iat is not a number: correct the program that mints it.".to_owned()
        }
        Reason::NotYetValid | Reason::IssuedInFuture => {
            "The token's nbf or iat is in the future: synchronize the clocks of this machine and the authority; M2 allows a \
             skew of 30 s."
                .to_owned()
        }
        Reason::LifetimeTooLong => "Mint a token with a shorter validity, or raise max_lifetime in M2.".to_owned(),
        Reason::WrongIssuer => format!(
            "The token's iss is {}: set that issuer in M2, or set the JWKS domain in M1 to the issuer that M2 requires. The iss \
             of a user's session token ends with the API's base path.",
            decoded.claim("iss")
        ),
        Reason::WrongAudience => {
            format!(
                "The token's aud is {}: in M1 call .audience(..) with the audience that M2 requires.",
                decoded.claim("aud")
            )
        }
        Reason::WrongSubject => {
            format!("The token's sub is {}: mint a token with the subject that M2 requires.", decoded.claim("sub"))
        }
        Reason::SenderConstrained => {
            "The token's cnf binds it to a key of its sender, which M2 cannot check: turn off DPoP or mutual-TLS \
             binding for this client at the authority."
                .to_owned()
        }
        Reason::UnknownKey => format!(
            "The token's kid is {}, the key set has {}: M1 and M2 use different cores, or the core lost its keys and M1 has to \
             mint a new token.",
            decoded.header("kid"),
            kids()
        ),
        Reason::BadSignature => {
            "The token was altered, or its kid now belongs to another key: mint a new token.".to_owned()
        }
        Reason::NotMicroservice => format!(
            "The token's {} is {}, but M2 requires that {marker}: call M2 with a service's token, not with an end user's.",
            marker.path.join("."),
            decoded.claim_at(&marker.path)
        ),
        _ => match fetch {
            Some(error) => format!(
                "The key set cannot be fetched: {}. Check the URL and the server that it names.",
                chain(error)
            ),
            None => "The key set cannot be fetched. Check the URL and the server that it names.".to_owned(),
        },
    }
}
