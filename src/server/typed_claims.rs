//! [`TypedClaims`]: the claims of a request as the user's own type.

use std::any::type_name;
use std::fmt;

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use http::request::Parts;
use serde::de::DeserializeOwned;

use super::extract::ServiceClaimsRejection;
use crate::verify::ServiceClaims;

/// Extracts the claims of a verified token, deserialized into `T`. Feature `axum`.
///
/// `T` names the claims that the handler needs. A request whose claims do not fit `T` is refused
/// with 403, so the handler checks nothing:
///
/// ```
/// use axum::{Router, routing::post};
/// use serde::Deserialize;
/// use tower_m2m::{TypedClaims, Verifier, VerifyServiceTokenLayer};
///
/// #[derive(Deserialize)]
/// struct Caller {
///     service: String,
///     #[serde(default)]
///     regions: Vec<String>,
/// }
///
/// async fn charge(TypedClaims(caller): TypedClaims<Caller>) -> String {
///     format!("charged for {} in {:?}", caller.service, caller.regions)
/// }
///
/// fn app(verifier: Verifier) -> Router {
///     Router::new()
///         .route("/charge", post(charge))
///         .route_layer(VerifyServiceTokenLayer::new(verifier))
/// }
/// # let _ = app;
/// ```
///
/// A claim of another JSON type does not fit: `"regions": "eu"` is refused above. Claims without a
/// field in `T` are ignored, unless `T` has `deny_unknown_fields`.
///
/// `Option<TypedClaims<T>>` is `None` for a request without claims, which an
/// [`optional`](crate::VerifyServiceTokenLayer::optional) layer admits. Claims that do not fit are
/// refused there too.
///
/// To check the value of a claim, use [`RequireClaimLayer`](crate::RequireClaimLayer) or
/// [`ServiceClaims::check`].
///
/// # Errors
///
/// A [`ServiceClaimsRejection`]; see its table. The name of `T` is
/// [logged](crate::server#log) at `debug`.
#[derive(Clone, Copy)]
#[allow(clippy::exhaustive_structs)] // handlers destructure it
pub struct TypedClaims<T>(
    /// The claims.
    pub T,
);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for TypedClaims<T> {
    type Rejection = ServiceClaimsRejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let claims =
            <ServiceClaims as FromRequestParts<S>>::from_request_parts(parts, state).await?;
        deserialize(&claims, parts)
    }
}

impl<S: Send + Sync, T: DeserializeOwned> OptionalFromRequestParts<S> for TypedClaims<T> {
    type Rejection = ServiceClaimsRejection;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &S,
    ) -> Result<Option<Self>, Self::Rejection> {
        let claims =
            <ServiceClaims as OptionalFromRequestParts<S>>::from_request_parts(parts, state)
                .await?;
        claims.map(|claims| deserialize(&claims, parts)).transpose()
    }
}

fn deserialize<T: DeserializeOwned>(
    claims: &ServiceClaims,
    parts: &Parts,
) -> Result<TypedClaims<T>, ServiceClaimsRejection> {
    claims.deserialize().map(TypedClaims).map_err(|_| {
        tracing::debug!(
            target: "tower_m2m::server",
            r#type = type_name::<T>(),
            "service token claims do not fit type"
        );
        ServiceClaimsRejection::claims_refused(parts)
    })
}

/// Prints the name of `T`, not the claims.
impl<T> fmt::Debug for TypedClaims<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypedClaims").field(&format_args!("{}", type_name::<T>())).finish()
    }
}

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests {
    use axum::Router;
    use axum::body::{Body, to_bytes};
    use axum::routing::get;
    use http::{HeaderValue, Request};
    use serde::Deserialize;
    use serde_json::{Value, json};
    use tower::ServiceExt;

    use super::*;
    use crate::rejection::{Rejection, RejectionReason as R};
    use crate::server::VerifyServiceTokenLayer;
    use crate::testing::{FakeCallerLayer, TestAuthority};

    #[derive(Deserialize)]
    struct Caller {
        service: String,
        #[serde(default)]
        regions: Vec<String>,
    }

    async fn required(TypedClaims(caller): TypedClaims<Caller>) -> String {
        format!("{} {:?}", caller.service, caller.regions)
    }

    async fn optional(caller: Option<TypedClaims<Caller>>) -> String {
        match caller {
            Some(TypedClaims(caller)) => caller.service,
            None => "anonymous".to_owned(),
        }
    }

    fn routes() -> Router {
        Router::new().route("/required", get(required)).route("/optional", get(optional))
    }

    /// Status, body and reason of the response.
    async fn send(
        app: Router,
        path: &str,
        credential: Option<HeaderValue>,
    ) -> (u16, String, Option<R>) {
        let mut request = Request::get(path).body(Body::empty()).unwrap();
        credential.map(|credential| request.headers_mut().insert("authorization", credential));
        let response = app.oneshot(request).await.unwrap();
        let reason = response.extensions().get().map(Rejection::reason);
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 1024).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap(), reason)
    }

    #[tokio::test]
    async fn claims_that_do_not_fit_are_refused() {
        let refused = || (403, String::new(), Some(R::ClaimRefused));
        let good = |body: &str| (200, body.to_owned(), None);
        let cases: [(Value, _, _); 8] = [
            (json!({"service": "orders"}), good("orders []"), good("orders")),
            (
                json!({"service": "orders", "regions": ["eu", "us"]}),
                good(r#"orders ["eu", "us"]"#),
                good("orders"),
            ),
            (json!({"service": ""}), good(" []"), good("")),
            (json!({}), refused(), refused()),
            (json!({"service": null}), refused(), refused()),
            (json!({"service": ["orders"]}), refused(), refused()),
            (json!({"Service": "orders"}), refused(), refused()),
            (json!({"service": "orders", "regions": "eu"}), refused(), refused()),
        ];
        for (claims, expected, expected_optional) in cases {
            let app = || routes().layer(FakeCallerLayer::new(claims.clone()));
            assert_eq!(send(app(), "/required", None).await, expected, "{claims}");
            assert_eq!(send(app(), "/optional", None).await, expected_optional, "{claims}");
        }
    }

    #[tokio::test]
    async fn extractors_behind_a_layer_refuse_as_it_does() {
        let authority = TestAuthority::offline();
        let layer = VerifyServiceTokenLayer::optional(authority.verifier());
        let app = routes().route_layer(layer);
        let token = || authority.token().claim("service", "orders");
        let anonymous = || (200, "anonymous".to_owned(), None);
        let refused = |status, reason| (status, String::new(), Some(reason));
        let cases = [
            ("/required", None, refused(401, R::MissingCredentials)),
            ("/optional", None, anonymous()),
            ("/required", Some(token().without_marker()), refused(403, R::NotMicroservice)),
            ("/optional", Some(token().without_marker()), anonymous()),
            ("/required", Some(token().expired()), refused(401, R::Expired)),
            ("/optional", Some(token().expired()), refused(401, R::Expired)),
            ("/required", Some(token()), (200, "orders []".to_owned(), None)),
            ("/optional", Some(token().claim("service", 7)), refused(403, R::ClaimRefused)),
        ];
        for (path, token, expected) in cases {
            let credential = token.map(|token| token.bearer());
            assert_eq!(send(app.clone(), path, credential).await, expected, "{path}");
        }
    }

    #[tokio::test]
    async fn refusal_of_claims_has_a_challenge() {
        let app = routes().layer(FakeCallerLayer::new(json!({})));
        let request = Request::get("/required").body(Body::empty()).unwrap();
        let response = app.oneshot(request).await.unwrap();
        let challenge = r#"Bearer realm="m2m", error="insufficient_scope", error_description=""#;
        let value = response.headers()["www-authenticate"].to_str().unwrap();
        assert!(value.starts_with(challenge), "{value}");
    }

    #[tokio::test]
    async fn missing_layer_is_status_500() {
        for path in ["/required", "/optional"] {
            assert_eq!(send(routes(), path, None).await, (500, String::new(), None), "{path}");
        }
    }

    #[test]
    fn claims_are_not_printed() {
        let printed = format!("{:?}", TypedClaims(vec!["orders-7f3a".to_owned()]));
        assert_eq!(printed, "TypedClaims(alloc::vec::Vec<alloc::string::String>)");
    }
}
