//! Detects requests that a web page of another site may have sent, cross-site or by DNS rebinding.
//!
//! A browser on this machine can reach a core on loopback. Its requests carry the page's origin in
//! `Origin`, and the page's host name in `Host` if that name resolves to a loopback address. Other
//! programs send in `Host` the address that they connect to, and no `Origin`.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName, Uri, header};

/// Whether `Host`, `Origin` and the URI's authority (HTTP/2, absolute form) are on loopback or
/// missing.
pub(super) fn is_local(uri: &Uri, headers: &HeaderMap) -> bool {
    uri.authority().is_none_or(|authority| is_loopback(authority.as_str()))
        && is_missing_or(headers, header::HOST, is_loopback)
        && is_missing_or(headers, header::ORIGIN, is_loopback_origin)
}

/// Whether the header is missing, or has exactly one value, which `is_good` accepts.
/// `HeaderMap::get` would ignore a second value.
fn is_missing_or(
    headers: &HeaderMap,
    name: HeaderName,
    is_good: impl FnOnce(&str) -> bool,
) -> bool {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => true,
        (Some(value), None) => value.to_str().is_ok_and(is_good),
        (Some(_), Some(_)) => false,
    }
}

/// An origin as browsers send it (RFC 6454 §7.1). `null` is not loopback: any page can send it from
/// a sandboxed frame.
fn is_loopback_origin(origin: &str) -> bool {
    origin.split_once("://").is_some_and(|(scheme, authority)| {
        (scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https"))
            && is_loopback(authority)
    })
}

/// `localhost` in any case, 127.0.0.0/8, `[::1]` or the IPv4-mapped form of a loopback address,
/// with any port or none.
///
/// `localhost.` and names below `localhost` are excluded, because resolvers differ on them, and
/// `0.0.0.0`, because browsers let pages of other sites connect to it.
fn is_loopback(authority: &str) -> bool {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    // `u16` alone would parse `+80`.
    let is_port =
        |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    if !port.is_none_or(is_port) {
        return false;
    }
    let address = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(host) => host.parse().map(IpAddr::V6),
        None => host.parse().map(IpAddr::V4),
    };
    host.eq_ignore_ascii_case("localhost")
        || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const AUTHORITIES: [(&str, bool); 38] = [
        ("localhost", true),
        ("LocalHost:3567", true),
        ("localhost:0", true),
        ("localhost:65535", true),
        ("127.0.0.1", true),
        ("127.0.0.1:3567", true),
        ("127.255.255.254:1", true),
        ("[::1]", true),
        ("[::1]:3567", true),
        ("[0:0:0:0:0:0:0:1]", true),
        ("[::ffff:127.0.0.1]:3567", true),
        ("", false),
        (":3567", false),
        ("evil.example", false),
        ("evil.example:3567", false),
        ("localhost.evil.example", false),
        ("evil.localhost", false),
        ("localhost.", false),
        ("localhost:", false),
        ("localhost:65536", false),
        ("localhost:+80", false),
        ("localhost:80:80", false),
        ("localhost:80]", false),
        ("evil.example@localhost", false),
        ("localhost@evil.example", false),
        ("localhost/", false),
        ("localhost, evil.example", false),
        ("127.0.0.1.evil.example", false),
        ("127.1", false),
        ("0x7f.0.0.1", false),
        ("128.0.0.1", false),
        ("0.0.0.0:3567", false),
        ("192.168.0.1", false),
        ("::1", false),
        ("[::1", false),
        ("[::]:3567", false),
        ("[::1%25lo]", false),
        ("[::ffff:192.168.0.1]", false),
    ];

    type Headers = [(HeaderName, &'static [u8])];

    fn header_map(headers: &[(HeaderName, &[u8])]) -> HeaderMap {
        headers
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_bytes(value).unwrap()))
            .collect()
    }

    #[test]
    fn host_origin_and_uri_follow_the_same_rule() {
        let path = Uri::from_static("/recipe/jwt");
        for (authority, local) in AUTHORITIES {
            let host = header_map(&[(header::HOST, authority.as_bytes())]);
            assert_eq!(is_local(&path, &host), local, "host: {authority}");
            for scheme in ["http", "https", "HTTP"] {
                let origin = format!("{scheme}://{authority}");
                let origin = header_map(&[
                    (header::HOST, b"127.0.0.1:3567"),
                    (header::ORIGIN, origin.as_bytes()),
                ]);
                assert_eq!(is_local(&path, &origin), local, "{origin:?}");
            }
            // The parser of URIs refuses some malformed authorities.
            if let Ok(uri) =
                Uri::builder().scheme("http").authority(authority).path_and_query("/").build()
            {
                assert_eq!(is_local(&uri, &HeaderMap::new()), local, "{uri}");
                assert_eq!(
                    is_local(&uri, &header_map(&[(header::HOST, b"localhost")])),
                    local,
                    "{uri}"
                );
            }
        }
    }

    #[test]
    fn repeated_or_malformed_host_or_origin_is_not_local() {
        use header::{HOST, ORIGIN};
        let cases: [(&Headers, bool); 12] = [
            (&[], true),
            (&[(header::AUTHORIZATION, b"null")], true),
            (&[(HOST, b"localhost"), (HOST, b"localhost")], false),
            (&[(HOST, b"localhost"), (HOST, b"evil.example")], false),
            (&[(ORIGIN, b"http://localhost"), (ORIGIN, b"http://localhost")], false),
            (&[(ORIGIN, b"http://localhost:5173")], true),
            (&[(HOST, b"evil.example"), (ORIGIN, b"http://localhost")], false),
            (&[(HOST, b"localhost"), (ORIGIN, b"null")], false),
            (&[(ORIGIN, b"http://localhost http://evil.example")], false),
            (&[(ORIGIN, b"localhost")], false),
            (&[(ORIGIN, b"chrome-extension://localhost")], false),
            (&[(HOST, b"localhost\xff")], false),
        ];
        for (headers, local) in cases {
            assert_eq!(
                is_local(&Uri::from_static("/"), &header_map(headers)),
                local,
                "{headers:?}"
            );
        }
    }
}
