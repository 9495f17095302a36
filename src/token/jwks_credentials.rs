//! [`RemoteJwksBuilder::bearer_token`]: a service token as the credentials of a fetch. Here,
//! because `jwks` does not know `token`.

use http::HeaderValue;

use super::service_token::ServiceToken;
use crate::jwks::{FetchCredentials, RemoteJwksBuilder};

impl FetchCredentials for ServiceToken {
    fn header_value(&self) -> HeaderValue {
        self.header_value()
    }

    fn report_rejected(&self, sent: &HeaderValue) {
        self.report_rejected(sent);
    }
}

impl RemoteJwksBuilder {
    /// Sends this token as `Authorization: Bearer` with each fetch, to the origin of the JWKS
    /// endpoint alone. For an endpoint that lists its keys only to known callers, as that of
    /// Kubernetes does. By default no token is sent.
    ///
    /// Each fetch sends the value that the token has when the fetch starts. It replaces an
    /// `Authorization` among the default headers of the
    /// [`http_client`](RemoteJwksBuilder::http_client). A fetch does not wait for a renewal.
    ///
    /// If the endpoint responds with 401, the fetch fails with
    /// [`FetchError::TokenRejected`](crate::FetchError::TokenRejected), and the token is [reported
    /// as rejected](ServiceToken::report_rejected), so that a minted one is replaced. A request to
    /// M2 fails only if no usable key is known, and then with 503: its caller is not at fault.
    ///
    /// The token is never sent over plain http beyond loopback, not even with
    /// [`allow_plain_http`](RemoteJwksBuilder::allow_plain_http): `build` then returns
    /// [`ConfigError::PlainHttpToken`](crate::ConfigError::PlainHttpToken).
    ///
    /// In a [Kubernetes cluster](crate::authorities::kubernetes), with the pod's default token and
    /// the CA of the API server:
    ///
    /// ```no_run
    /// use std::fs;
    ///
    /// use reqwest::{Certificate, Client};
    /// use tower_m2m::{RemoteJwks, ServiceToken, TokenFile};
    ///
    /// # async fn start() -> Result<(), Box<dyn std::error::Error>> {
    /// let mount = "/var/run/secrets/kubernetes.io/serviceaccount";
    /// let ca = Certificate::from_pem(&fs::read(format!("{mount}/ca.crt"))?)?;
    /// let token = ServiceToken::from_source(TokenFile::new(format!("{mount}/token"))).await?;
    /// let jwks = RemoteJwks::builder("https://kubernetes.default.svc/openid/v1/jwks")
    ///     .bearer_token(token)
    ///     .http_client(Client::builder().tls_certs_only([ca]))
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// A token from [`from_jwt`](ServiceToken::from_jwt) is never renewed. Once it has expired,
    /// fetches fail, and the last key set stays in use for
    /// [`stale_if_error`](RemoteJwksBuilder::stale_if_error).
    pub fn bearer_token(self, token: ServiceToken) -> Self {
        self.credentials(token)
    }
}
