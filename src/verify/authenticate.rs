//! [`Verifier::authenticate`] and [`AnyVerifier::authenticate`]: verify the credential of a request
//! of any framework.

use http::header::AUTHORIZATION;

use super::any_verifier::AnyVerifier;
use super::claims::ServiceClaims;
use super::verifier::{Authentication, Verifier};
use crate::bearer;
use crate::rejection::{Rejection, RejectionReason};

impl Verifier {
    /// Verifies the credential of a request of any framework. `values` are **all** values of its
    /// `Authorization` header, since a request with two credentials is rejected: `get_all(..)` of a
    /// header map, not `get(..)`.
    ///
    /// Runs all of the [checks](crate::server#order-of-checks) of a
    /// [`VerifyServiceTokenLayer`](crate::VerifyServiceTokenLayer), and waits like
    /// [`verify`](Self::verify). Unlike the layer it logs nothing. The page [other
    /// frameworks](crate::other_frameworks) turns its rejection into a response of actix-web.
    ///
    /// ```
    /// use http::HeaderMap;
    /// use http::header::AUTHORIZATION;
    /// use tower_m2m::{RejectionReason, RemoteJwks, Verifier};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let jwks = RemoteJwks::new("https://api.example.com/auth/jwt/jwks.json")?;
    /// let verifier = Verifier::new(jwks).audience("billing");
    ///
    /// let mut headers = HeaderMap::new();
    /// headers.append(AUTHORIZATION, "Basic dTpw".parse()?);
    /// headers.append(AUTHORIZATION, "Bearer a.b.c".parse()?);
    /// let rejection = verifier.authenticate(headers.get_all(AUTHORIZATION)).await.unwrap_err();
    /// assert_eq!(rejection.reason(), RejectionReason::MultipleCredentials);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`verify`](Self::verify), and a [`Rejection`] of a request without exactly one
    /// well-formed `Bearer` credential.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, as [`verify`](Self::verify) is.
    pub async fn authenticate(
        &self,
        values: impl IntoIterator<Item: AsRef<[u8]>>,
    ) -> Result<ServiceClaims, Rejection> {
        begin(values, |token| self.authenticate_token(token))?.outcome().await
    }
}

impl AnyVerifier {
    /// Verifies the credential of a request of any framework, as [`Verifier::authenticate`] does.
    ///
    /// # Errors
    ///
    /// As [`Verifier::authenticate`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, as [`Verifier::verify`] is.
    pub async fn authenticate(
        &self,
        values: impl IntoIterator<Item: AsRef<[u8]>>,
    ) -> Result<ServiceClaims, Rejection> {
        begin(values, |token| self.authenticate_token(token))?.outcome().await
    }
}

/// Authenticates the token in the only credential. Not async, so that the use of the values ends
/// before the callers wait: their futures are `Send` if `values` is, even if its iterator and its
/// items are not.
fn begin(
    values: impl IntoIterator<Item: AsRef<[u8]>>,
    authenticate_token: impl FnOnce(&[u8]) -> Authentication,
) -> Result<Authentication, RejectionReason> {
    let credential = bearer::credential(values)?;
    Ok(authenticate_token(bearer::token(credential.as_ref(), &AUTHORIZATION)?))
}
