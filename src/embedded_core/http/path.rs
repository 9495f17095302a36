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
        Self::find(&path.to_ascii_lowercase(), base).unwrap_or(Self::UNKNOWN)
    }

    fn find(path: &str, base: &BasePath) -> Option<Self> {
        let mut below = segments(path);
        if !base.0.iter().all(|expected| below.next() == Some(expected)) {
            return None;
        }
        // The longest path has five segments: an app, a tenant and three of a route. With a sixth
        // the path is unknown.
        let segments: Vec<&str> = below.take(6).collect();
        if segments.is_empty() {
            return Some(Self { route: Route::Hello, ..Self::UNKNOWN });
        }
        let app = app_name(segments[0]);
        let segments = &segments[usize::from(app.is_some())..];
        let (route, foreign_tenant) = match (Route::of(segments), segments) {
            (Some(route), _) => (route, false),
            (None, [tenant, rest @ ..]) if is_tenant(tenant) => {
                (Route::of(rest)?, *tenant != "public")
            }
            _ => return None,
        };
        let app = app.filter(|app| *app != "public").map(str::to_owned);
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

    fn of(segments: &[&str]) -> Option<Self> {
        Some(match segments {
            ["recipe", "jwt"] => Self::Mint,
            ["recipe", "jwt", "jwks"] => Self::RecipeJwks,
            [".well-known", "jwks.json"] => Self::WellKnownJwks,
            ["apiversion"] => Self::ApiVersion,
            ["hello"] => Self::Hello,
            _ => return None,
        })
    }
}

/// The segments of a path. A SuperTokens core ignores doubled and trailing slashes.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}

fn app_name(segment: &str) -> Option<&str> {
    segment.strip_prefix("appid-").filter(|name| is_name(name))
}

/// The first segment of a route is not a tenant, so `/recipe/hello` is unknown.
fn is_tenant(segment: &str) -> bool {
    is_name(segment) && !matches!(segment, "recipe" | "apiversion" | "hello")
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
            ("/appid-<x>/recipe/jwt", RequestPath::UNKNOWN),
            ("/t_1/recipe/jwt", RequestPath::UNKNOWN),
            ("/t1/t2/recipe/jwt", RequestPath::UNKNOWN),
            ("/recipe/hello", RequestPath::UNKNOWN),
            ("/recipe", RequestPath::UNKNOWN),
            ("/public", RequestPath::UNKNOWN),
            ("/appid-public", RequestPath::UNKNOWN),
            ("/recipe/jwt/jwks/x", RequestPath::UNKNOWN),
            ("/recipejwt", RequestPath::UNKNOWN),
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
