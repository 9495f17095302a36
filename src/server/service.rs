//! The service: judges the request and calls the inner service, or answers itself.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Request, Response, Version};
use tower_service::Service;

use super::future::{Parked, ResponseFuture};
use super::layer::{Answers, Mode, Shared};
use crate::bearer;
use crate::rejection::{Rejection, RejectionKind};
use crate::verify::{Attempt, Refusal, ServiceClaims, Verdict};

/// The service that [`VerifyServiceTokenLayer`](crate::VerifyServiceTokenLayer) makes.
#[derive(Clone)]
pub struct VerifyServiceToken<S> {
    inner: S,
    gate: Gate,
}

impl<S> VerifyServiceToken<S> {
    pub(super) fn new(inner: S, shared: Arc<Shared>) -> Self {
        Self { inner, gate: Gate(shared) }
    }

    /// Puts a service that is not ready in the place of the readied one, which is not called: a
    /// permit that it holds is for others.
    fn give_back(&mut self)
    where
        S: Clone,
    {
        self.inner = self.inner.clone();
    }
}

impl<S, B, ResBody> Service<Request<B>> for VerifyServiceToken<S>
where
    S: Service<Request<B>, Response = Response<ResBody>> + Clone,
    ResBody: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, B>;

    /// Only forwards: waiting for keys here would let one stalled authority stall every route.
    /// `ResponseFuture` assumes this; change both together.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let attempt = self.gate.attempt(&request);
        self.gate.hide_credential(request.headers_mut());
        match attempt {
            Judged::Decided(decided) => match self.gate.admit(&mut request, decided) {
                Ok(()) => ResponseFuture::calling(self.inner.call(request)),
                Err(response) => {
                    self.give_back();
                    ResponseFuture::rejected(response)
                }
            },
            Judged::Waiting(verdict) => {
                // It must not hold a permit while it waits: a fresh service is readied afterwards.
                self.give_back();
                let parked =
                    Parked { request, unready: self.inner.clone(), gate: self.gate.clone() };
                ResponseFuture::verifying(verdict, Box::new(parked))
            }
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for VerifyServiceToken<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyServiceToken").field("inner", &self.inner).finish_non_exhaustive()
    }
}

type Decided = Result<ServiceClaims, Rejection>;

/// A verdict that is waited for: boxed, since it is the rare slow path.
pub(super) type Pending = Pin<Box<dyn Future<Output = Decided> + Send>>;

enum Judged {
    Decided(Decided),
    Waiting(Pending),
}

/// What stands between a request and the inner service.
#[derive(Clone)]
pub(super) struct Gate(Arc<Shared>);

impl Gate {
    fn attempt<B>(&self, request: &Request<B>) -> Judged {
        let Shared { verifier, header, .. } = &*self.0;
        let credential = match bearer::credential(request.headers(), header) {
            Ok(credential) => credential,
            Err(reason) => return Judged::Decided(Err(reason.into())),
        };
        // What was verified before is well-formed: its bytes need no second look.
        if let Some(decided) = verifier.cached(credential) {
            return Judged::Decided(decided);
        }
        let token = match bearer::b64token(credential, verifier.longest_token()) {
            Ok(token) => token,
            Err(reason) => return Judged::Decided(Err(reason.into())),
        };
        match verifier.attempt(token) {
            Attempt::Decided(decided) => Judged::Decided(decided),
            Attempt::Waiting(wait) => {
                Judged::Waiting(Box::pin(verifier.clone().resume(token.to_owned(), wait)))
            }
        }
    }

    fn hide_credential(&self, headers: &mut HeaderMap) {
        // The first one is all: a request with several is not passed on.
        if let Some(credential) = headers.get_mut(&self.0.header) {
            credential.set_sensitive(true);
        }
    }

    /// Puts the verdict into the request, or makes the answer that refuses it.
    pub(super) fn admit<B, ResBody: Default>(
        &self,
        request: &mut Request<B>,
        decided: Decided,
    ) -> Result<(), Response<ResBody>> {
        let verdict = match decided {
            Ok(claims) => Verdict::Caller(claims),
            Err(rejection) if self.passes_without_claims(rejection) => {
                Verdict::Nobody(Arc::new(Refusal { rejection, realm: self.0.realm.clone() }))
            }
            Err(rejection) => {
                // At debug: their volume is the sender's to choose.
                tracing::debug!(reason = ?rejection.reason(), "request refused");
                return Err(match self.0.answers {
                    Answers::Grpc if is_grpc(request) => rejection.into_grpc_response(),
                    Answers::Grpc | Answers::Http => rejection.into_response(&self.0.realm),
                });
            }
        };
        request.extensions_mut().insert(verdict);
        Ok(())
    }

    fn passes_without_claims(&self, rejection: Rejection) -> bool {
        self.0.mode == Mode::Optional
            && matches!(
                rejection.kind(),
                RejectionKind::MissingToken | RejectionKind::NotMicroservice
            )
    }
}

/// Whether the request is a gRPC call: a `POST` over HTTP/2 with media type `application/grpc`,
/// alone or with `+` and a message format.
///
/// gRPC-Web is not gRPC. Neither is `application/grpc` on HTTP/1.1, where status 200 would hide the
/// refusal from proxies and logs: gRPC needs HTTP/2, and a gRPC-Web translator in front maps the
/// HTTP answer.
fn is_grpc<B>(request: &Request<B>) -> bool {
    let content_type =
        request.headers().get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let media_type =
        content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii_end();
    let (base, rest) = media_type.split_at_checked(GRPC.len()).unwrap_or_default();
    request.version() == Version::HTTP_2
        && request.method() == Method::POST
        && base.eq_ignore_ascii_case(GRPC)
        && matches!(rest.first(), None | Some(b'+'))
}

const GRPC: &[u8] = b"application/grpc";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_told_by_version_method_and_media_type() {
        let cases = [
            (Version::HTTP_2, "POST", "application/grpc", true),
            (Version::HTTP_2, "POST", "Application/gRPC", true),
            (Version::HTTP_2, "POST", "application/grpc+proto", true),
            (Version::HTTP_2, "POST", "application/grpc; charset=utf-8", true),
            (Version::HTTP_2, "POST", "application/grpc \t;charset=utf-8", true),
            (Version::HTTP_2, "POST", "application/grpc+proto ;x=y", true),
            (Version::HTTP_2, "GET", "application/grpc", false),
            (Version::HTTP_2, "POST", "application/grpc-web", false),
            (Version::HTTP_2, "POST", "application/grpc-web+proto", false),
            (Version::HTTP_2, "POST", "application/grpcx", false),
            (Version::HTTP_2, "POST", "application/grpc x", false),
            (Version::HTTP_2, "POST", "application/grpc, text/html", false),
            (Version::HTTP_2, "POST", "application/grp", false),
            (Version::HTTP_2, "POST", "application/json", false),
            (Version::HTTP_2, "POST", "", false),
            (Version::HTTP_09, "POST", "application/grpc", false),
            (Version::HTTP_10, "POST", "application/grpc", false),
            (Version::HTTP_11, "POST", "application/grpc", false),
            (Version::HTTP_11, "POST", "application/grpc+proto", false),
            (Version::HTTP_3, "POST", "application/grpc", false),
        ];
        for (version, method, content_type, expected) in cases {
            let request = Request::builder()
                .version(version)
                .method(method)
                .header(CONTENT_TYPE, content_type);
            assert_eq!(
                is_grpc(&request.body(()).unwrap()),
                expected,
                "{version:?} {method} {content_type}"
            );
        }
        assert!(!is_grpc(
            &Request::builder().version(Version::HTTP_2).method("POST").body(()).unwrap()
        ));
    }
}
