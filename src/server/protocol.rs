//! The protocol in which a request is refused.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Version};

/// The media type of gRPC.
pub(super) const GRPC: &str = "application/grpc";

/// The protocols in which requests can be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocols {
    HttpAndGrpc,
    HttpOnly,
}

/// The protocol of the response to a refused request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http,
    Grpc,
}

impl Protocols {
    /// The protocol in which the request with this head is refused: gRPC if it is a gRPC call and
    /// these protocols allow it, otherwise HTTP.
    pub(super) fn of(self, version: Version, method: &Method, headers: &HeaderMap) -> Protocol {
        match self {
            Self::HttpAndGrpc if is_grpc(version, method, headers) => Protocol::Grpc,
            Self::HttpAndGrpc | Self::HttpOnly => Protocol::Http,
        }
    }
}

/// Whether the request is a gRPC call: a `POST` over HTTP/2 with media type `application/grpc` or
/// `application/grpc+…`.
///
/// gRPC-Web is not gRPC. Neither is `application/grpc` over HTTP/1.1, since gRPC needs HTTP/2: a
/// status of 200 would hide the refusal from proxies and logs. A gRPC-Web translator in front of
/// the layer maps the HTTP response to a gRPC status.
fn is_grpc(version: Version, method: &Method, headers: &HeaderMap) -> bool {
    if version != Version::HTTP_2 || method != Method::POST {
        return false;
    }
    let content_type = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let media_type =
        content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii_end();
    let (base, rest) = media_type.split_at_checked(GRPC.len()).unwrap_or_default();
    base.eq_ignore_ascii_case(GRPC.as_bytes()) && matches!(rest.first(), None | Some(b'+'))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn grpc_call_is_detected_by_version_method_and_media_type() {
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
            let request = request.body(()).unwrap();
            assert_eq!(
                is_grpc(request.version(), request.method(), request.headers()),
                expected,
                "{version:?} {method} {content_type}"
            );
        }
        assert!(!is_grpc(Version::HTTP_2, &Method::POST, &HeaderMap::new()));
    }
}
