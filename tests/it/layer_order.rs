//! Which order of layers prints tokens. `tests/axum` has the other claims of the docs' page
//! `layer_order`.

use std::fmt::Debug;
use std::io;

use http::header::{AUTHORIZATION, HeaderName};
use http::{Request, Response};
use http_body_util::BodyExt;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tower_http::sensitive_headers::SetSensitiveRequestHeadersLayer;
use tower_http::trace::{DefaultMakeSpan, TraceLayer};
use tower_m2m::VerifyServiceTokenLayer;
use tower_m2m::testing::TestAuthority;

use crate::support::Logs;

/// Whether the logs of a request with the token in this header contain the token.
async fn is_printed<S, B>(service: S, name: &HeaderName, token: &str) -> bool
where
    S: Service<Request<String>, Response = Response<B>>,
    S::Error: Debug,
{
    let logs = Logs::of_this_thread();
    let request = Request::get("/").header(name, format!("Bearer {token}"));
    let response = service.oneshot(request.body(String::new()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(logs.text().contains(name.as_str()), "the headers are not traced: {}", logs.text());
    logs.text().contains(token)
}

#[tokio::test]
async fn outer_trace_layer_prints_only_unmarked_tokens() {
    let authority = TestAuthority::offline();
    let token = authority.token().sign();
    let inner =
        service_fn(|_: Request<String>| async { Ok::<_, io::Error>(Response::new(String::new())) });
    let spans = DefaultMakeSpan::new().include_headers(true);
    let trace = TraceLayer::new_for_http().make_span_with(spans);
    for name in [AUTHORIZATION, HeaderName::from_static("x-service")] {
        let verify =
            VerifyServiceTokenLayer::new(authority.verifier()).header(name.clone()).unwrap();
        let outside = ServiceBuilder::new().layer(trace.clone()).layer(verify.clone());
        assert!(is_printed(outside.service(inner), &name, &token).await);
        let marked = ServiceBuilder::new()
            .layer(SetSensitiveRequestHeadersLayer::new([name.clone()]))
            .layer(trace.clone())
            .layer(verify.clone());
        assert!(!is_printed(marked.service(inner), &name, &token).await);
        let inside = ServiceBuilder::new()
            .layer(verify)
            .map_response(|response: Response<_>| response.map(BodyExt::boxed))
            .layer(trace.clone());
        assert!(!is_printed(inside.service(inner), &name, &token).await);
    }
}
