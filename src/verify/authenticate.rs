//! [`Verifier::authenticate`] and [`AnyVerifier::authenticate`]: verify the credential of a request
//! of any framework.

use http::header::AUTHORIZATION;

use super::any_verifier::AnyVerifier;
use super::claims::ServiceClaims;
use super::verifier::Verifier;
use crate::bearer;
use crate::rejection::Rejection;

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
    /// As [`verify`](Self::verify), and a [`Rejection`] of a request without exactly one well-formed
    /// `Bearer` credential.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, as [`verify`](Self::verify) is.
    pub async fn authenticate(
        &self,
        values: impl IntoIterator<Item: AsRef<[u8]>>,
    ) -> Result<ServiceClaims, Rejection> {
        // The block ends the use of the values before the await: the future is `Send` if `values`
        // is, even if its iterator and its items are not.
        let authentication = {
            let credential = bearer::credential(values)?;
            self.authenticate_token(bearer::token(credential.as_ref(), &AUTHORIZATION)?)
        };
        authentication.outcome().await
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
        let authentication = {
            let credential = bearer::credential(values)?;
            self.authenticate_token(bearer::token(credential.as_ref(), &AUTHORIZATION)?)
        };
        authentication.outcome().await
    }
}
