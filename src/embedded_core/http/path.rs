//! Parses the path of a request: a base path, an app, a tenant and a route.
//!
//! axum's router is case-sensitive. Rewriting each URI for it would take as much code as matching
//! the path here.

use std::fmt;

use super::response::Refusal;
use crate::embedded_core::error::BuildError;

/// The path in front of every route, as lower-case segments. By default there is none.
#[derive(Clone, Default)]
pub(crate) struct BasePath(Vec<String>);

impl BasePath {
    pub(crate) fn new(text: &str) -> Result<Self, BuildError> {
        let usable =
            |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte);
        if !text.bytes().all(usable) {
            return Err(BuildError::UnusableBasePath { base_path: text.to_owned() });
        }
        Ok(Self(segments(&text.to_ascii_lowercase()).map(str::to_owned).collect()))
    }
}

impl fmt::Debug for BasePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"/{}\"", self.0.join("/"))
    }
}

/// The route, app and tenant in the path of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RequestPath {
    route: Route,
    /// The app in lower case. `None` for the public one.
    app: Option<String>,
    /// Whether the path names a tenant other than the public one.
    foreign_tenant: bool,
}

impl RequestPath {
    const UNKNOWN: Self = Self { route: Route::Unknown, app: None, foreign_tenant: false };

    /// Parses `path`, in any letter case. A path that is not below `base` is unknown.
    pub(super) fn parse(path: &str, base: &BasePath) -> Self {
        decode(path).and_then(|path| Self::find(&path, base)).unwrap_or(Self::UNKNOWN)
    }

    /// `None` if `path` is not below `base`.
    fn find(path: &str, base: &BasePath) -> Option<Self> {
        let mut below = segments(path);
        if !base.0.iter().all(|expected| below.next() == Some(expected)) {
            return None;
        }
        // The longest path has five segments: an app, a tenant and three of a route. With a sixth
        // the path is unknown.
        let segments: Vec<&str> = below.take(6).collect();
        let app = segments.first().and_then(|segment| app_name(segment));
        let segments = &segments[usize::from(app.is_some())..];
        let (route, foreign_tenant) = match (Route::of(segments), segments) {
            (Some(route), _) => (route, false),
            (None, ["public", rest @ ..]) => (Route::of(rest).unwrap_or(Route::Unknown), false),
            (None, [tenant]) => (Route::Unknown, is_tenant(tenant)),
            (None, [tenant, rest @ ..]) if is_tenant(tenant) => {
                Route::of(rest).map_or((Route::Unknown, false), |route| (route, true))
            }
            _ => (Route::Unknown, false),
        };
        // `/appid-/` names the public app too.
        let app = app.filter(|app| !matches!(*app, "" | "public")).map(str::to_owned);
        Some(Self { route, app, foreign_tenant })
    }

    pub(super) fn route(&self) -> Route {
        self.route
    }

    pub(super) fn has_foreign_tenant(&self) -> bool {
        self.foreign_tenant
    }

    /// Fails unless the app is the public one.
    pub(super) fn check_app(&self) -> Result<(), Refusal> {
        self.app.clone().map_or(Ok(()), |app| Err(Refusal::UnknownApp(app)))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Mint,
    WellKnownJwks,
    RecipeJwks,
    ApiVersion,
    Hello,
    Unknown,
}

impl Route {
    /// Whether the route requires the api key. The key set for verifiers and the health check are
    /// public.
    pub(super) fn needs_api_key(self) -> bool {
        matches!(self, Self::Mint | Self::RecipeJwks | Self::ApiVersion)
    }

    /// Whether the route refuses tenants other than the public one, from CDI 5.0 on.
    pub(super) fn needs_public_tenant(self) -> bool {
        matches!(self, Self::Mint | Self::RecipeJwks | Self::ApiVersion)
    }

    fn of(segments: &[&str]) -> Option<Self> {
        Some(match segments {
            [] => Self::Hello,
            ["recipe", "jwt"] => Self::Mint,
            ["recipe", "jwt", "jwks"] => Self::RecipeJwks,
            [".well-known", "jwks.json"] => Self::WellKnownJwks,
            ["apiversion"] => Self::ApiVersion,
            ["hello"] => Self::Hello,
            _ => return None,
        })
    }
}

/// The path in lower case and without percent-encoding. `None` if an escape is malformed or encodes
/// a slash, or if the result is not UTF-8.
fn decode(path: &str) -> Option<String> {
    let mut parts = path.split('%');
    let mut decoded = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let [high, low, rest @ ..] = part.as_bytes() else { return None };
        let digit = |byte: &u8| char::from(*byte).to_digit(16);
        let byte = u8::try_from(digit(high)? << 4 | digit(low)?).ok()?;
        if byte == b'/' {
            return None;
        }
        decoded.push(byte);
        decoded.extend_from_slice(rest);
    }
    decoded.make_ascii_lowercase();
    String::from_utf8(decoded).ok()
}

/// The segments of a path. A SuperTokens core ignores doubled and trailing slashes.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}

fn app_name(segment: &str) -> Option<&str> {
    segment.strip_prefix("appid-").filter(|name| is_name(name))
}

/// A SuperTokens core reserves four names, so `/recipe/hello` is unknown.
fn is_tenant(segment: &str) -> bool {
    is_name(segment) && !matches!(segment, "recipe" | "config" | "users" | "hello")
}

fn is_name(segment: &str) -> bool {
    segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(route: Route, app: Option<&str>, foreign_tenant: bool) -> RequestPath {
        RequestPath { route, app: app.map(str::to_owned), foreign_tenant }
    }

    #[test]
    fn path_is_parsed_into_route_app_and_tenant() {
        let cases = [
            ("/", path(Route::Hello, None, false)),
            ("//", path(Route::Hello, None, false)),
            ("/hello", path(Route::Hello, None, false)),
            ("/HELLO/", path(Route::Hello, None, false)),
            ("/recipe/jwt", path(Route::Mint, None, false)),
            ("//Recipe/JWT/", path(Route::Mint, None, false)),
            ("/recipe/jwt/jwks", path(Route::RecipeJwks, None, false)),
            ("/.well-known/jwks.json", path(Route::WellKnownJwks, None, false)),
            ("/apiversion", path(Route::ApiVersion, None, false)),
            ("/public/recipe/jwt", path(Route::Mint, None, false)),
            ("/PUBLIC/recipe/jwt", path(Route::Mint, None, false)),
            ("/t1/recipe/jwt", path(Route::Mint, None, true)),
            ("/appid-public/recipe/jwt", path(Route::Mint, None, false)),
            ("/APPID-A1/recipe/jwt", path(Route::Mint, Some("a1"), false)),
            ("/appid-a1/t1/recipe/jwt/jwks", path(Route::RecipeJwks, Some("a1"), true)),
            ("/appid-a1/public/recipe/jwt", path(Route::Mint, Some("a1"), false)),
            ("/appid-/recipe/jwt", path(Route::Mint, None, false)),
            ("/apiversion/recipe/jwt", path(Route::Mint, None, true)),
            ("/-/recipe/jwt", path(Route::Mint, None, true)),
            ("/t%31/recipe/jwt", path(Route::Mint, None, true)),
            ("/%61ppid-%41/%48ello", path(Route::Hello, Some("a"), false)),
            ("/public", path(Route::Hello, None, false)),
            ("/appid-public", path(Route::Hello, None, false)),
            ("/appid-/public/", path(Route::Hello, None, false)),
            ("/appid-a1", path(Route::Hello, Some("a1"), false)),
            ("/appid-a1/public", path(Route::Hello, Some("a1"), false)),
            ("/t1", path(Route::Unknown, None, true)),
            ("/appid-a1/t1", path(Route::Unknown, Some("a1"), true)),
            ("/appid-a1/nope/x", path(Route::Unknown, Some("a1"), false)),
            ("/appid-a1/t1/hello/x", path(Route::Unknown, Some("a1"), false)),
            ("/appid-public/nope/x", RequestPath::UNKNOWN),
            ("/hello/recipe/jwt", RequestPath::UNKNOWN),
            ("/config/recipe/jwt", RequestPath::UNKNOWN),
            ("/users/recipe/jwt", RequestPath::UNKNOWN),
            ("/recipe/recipe/jwt", RequestPath::UNKNOWN),
            ("/users", RequestPath::UNKNOWN),
            ("/recipe%2fjwt", RequestPath::UNKNOWN),
            ("/recipe/jwt%", RequestPath::UNKNOWN),
            ("/recipe/jwt%+4", RequestPath::UNKNOWN),
            ("/recipe/jw%zz", RequestPath::UNKNOWN),
            ("/%ff/recipe/jwt", RequestPath::UNKNOWN),
            ("/appid-<x>/recipe/jwt", RequestPath::UNKNOWN),
            ("/t_1/recipe/jwt", RequestPath::UNKNOWN),
            ("/t1/t2/recipe/jwt", RequestPath::UNKNOWN),
            ("/recipe/hello", RequestPath::UNKNOWN),
            ("/recipe", RequestPath::UNKNOWN),
            ("/recipe/jwt/jwks/x", RequestPath::UNKNOWN),
            ("/recipejwt", path(Route::Unknown, None, true)),
            ("/é/recipe/jwt", RequestPath::UNKNOWN),
            ("*", RequestPath::UNKNOWN),
        ];
        for (path, expected) in cases {
            assert_eq!(RequestPath::parse(path, &BasePath::default()), expected, "{path}");
        }
    }

    #[test]
    fn routes_exist_only_under_the_base_path() {
        for base in ["/Auth/core", "auth/core/", "/auth//core"] {
            let base = BasePath::new(base).unwrap();
            assert_eq!(RequestPath::parse("/auth/CORE/recipe/jwt", &base).route, Route::Mint);
            assert_eq!(
                RequestPath::parse("/auth/core/t1/recipe/jwt", &base),
                path(Route::Mint, None, true)
            );
            assert_eq!(RequestPath::parse("/auth/core", &base).route, Route::Hello);
            assert_eq!(RequestPath::parse("/auth", &base).route, Route::Unknown);
            assert_eq!(RequestPath::parse("/recipe/jwt", &base).route, Route::Unknown);
            assert_eq!(RequestPath::parse("/t1/auth/core/recipe/jwt", &base).route, Route::Unknown);
        }
        assert_eq!(
            RequestPath::parse("/recipe/jwt", &BasePath::new("/").unwrap()).route,
            Route::Mint
        );
    }

    #[test]
    fn base_path_that_needs_escaping_is_refused() {
        for text in ["/a b", "/a?b", "/a#b", "/a%20b", "/ä", "/\n"] {
            assert_eq!(
                BasePath::new(text).err(),
                Some(BuildError::UnusableBasePath { base_path: text.to_owned() })
            );
        }
    }
}
