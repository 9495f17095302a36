//! The path of a request: a route, and the app and tenant in front of it.

use super::cdi_version::CdiVersion;
use super::refusal::Refusal;
use crate::embedded_core::error::BuildError;

const APP: &str = "appid-";
const PUBLIC: &str = "public";
const ROUTES: [(&[&str], Route); 5] = [
    (&["recipe", "jwt"], Route::Mint),
    (&["recipe", "jwt", "jwks"], Route::RecipeJwks),
    (&[".well-known", "jwks.json"], Route::WellKnownJwks),
    (&["apiversion"], Route::ApiVersion),
    (&["hello"], Route::Hello),
];
/// An app, a tenant and the three segments of the longest route.
const DEEPEST: usize = 5;

/// The path under which every route lives; empty by default.
#[derive(Clone, Debug, Default)]
pub(crate) struct BasePath {
    segments: Vec<String>,
}

impl BasePath {
    pub(crate) fn new(text: &str) -> Result<Self, BuildError> {
        let usable =
            |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte);
        if !text.bytes().all(usable) {
            return Err(BuildError::UnusableBasePath { base_path: text.to_owned() });
        }
        Ok(Self { segments: segments(text).map(str::to_owned).collect() })
    }
}

/// The route, app and tenant that a request names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RequestPath {
    route: Route,
    /// The app, in lower case, unless it is the public one.
    app: Option<String>,
    /// Whether a tenant other than the public one is named.
    foreign_tenant: bool,
}

impl RequestPath {
    const UNKNOWN: Self = Self { route: Route::Unknown, app: None, foreign_tenant: false };

    /// What `path` names below `base`.
    pub(super) fn parse(path: &str, base: &BasePath) -> Self {
        Self::find(path, base).unwrap_or(Self::UNKNOWN)
    }

    fn find(path: &str, base: &BasePath) -> Option<Self> {
        let mut rest = segments(path);
        for expected in &base.segments {
            rest.next().filter(|segment| segment.eq_ignore_ascii_case(expected))?;
        }
        // One more than the deepest route has, so that a path of a million slashes is not kept.
        let segments: Vec<&str> = rest.take(DEEPEST + 1).collect();
        let Some((first, rest)) = segments.split_first() else {
            return Some(Self { route: Route::Hello, ..Self::UNKNOWN });
        };
        let (app, segments) = match app_name(first) {
            Some(app) => (Some(app.to_ascii_lowercase()), rest),
            None => (None, &segments[..]),
        };
        let app = app.filter(|app| app != PUBLIC);
        if let Some(route) = Route::of(segments) {
            return Some(Self { route, app, foreign_tenant: false });
        }
        let (tenant, rest) = segments.split_first().filter(|(tenant, _)| is_tenant(tenant))?;
        let foreign_tenant = !tenant.eq_ignore_ascii_case(PUBLIC);
        Some(Self { route: Route::of(rest)?, app, foreign_tenant })
    }

    pub(super) fn route(&self) -> Route {
        self.route
    }

    /// Before tenants existed, a path with a tenant in it named nothing.
    pub(super) fn check_version(&self, version: CdiVersion) -> Result<(), Refusal> {
        if self.foreign_tenant && version < CdiVersion::TENANTS {
            return Err(Refusal::NotFound);
        }
        Ok(())
    }

    /// Only the public tenant may call what belongs to the app as a whole.
    pub(super) fn check_tenant(&self, version: CdiVersion) -> Result<(), Refusal> {
        if self.foreign_tenant && version >= CdiVersion::PUBLIC_TENANT_ONLY {
            return Err(Refusal::NotPublicTenant);
        }
        Ok(())
    }

    /// The public app is the only one.
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
    /// Key sets are public, and health checks carry no secrets; everything else asks for the api
    /// key.
    pub(super) fn needs_api_key(self) -> bool {
        match self {
            Self::Mint | Self::RecipeJwks | Self::ApiVersion => true,
            Self::WellKnownJwks | Self::Hello | Self::Unknown => false,
        }
    }

    fn of(segments: &[&str]) -> Option<Self> {
        let is = |path: &[&str]| {
            path.len() == segments.len()
                && path.iter().zip(segments).all(|(a, b)| a.eq_ignore_ascii_case(b))
        };
        ROUTES.iter().find(|(path, _)| is(path)).map(|(_, route)| *route)
    }
}

/// A core ignores doubled and trailing slashes.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}

fn app_name(segment: &str) -> Option<&str> {
    let (prefix, name) = segment.split_at_checked(APP.len())?;
    (prefix.eq_ignore_ascii_case(APP) && name.bytes().all(is_name_byte)).then_some(name)
}

/// The first segments of the routes name no tenants: `/recipe/hello` names nothing.
fn is_tenant(segment: &str) -> bool {
    segment.bytes().all(is_name_byte)
        && !ROUTES.iter().any(|(path, _)| path[0].eq_ignore_ascii_case(segment))
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(route: Route, app: Option<&str>, foreign_tenant: bool) -> RequestPath {
        RequestPath { route, app: app.map(str::to_owned), foreign_tenant }
    }

    #[test]
    fn paths_name_a_route_an_app_and_a_tenant() {
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
    fn routes_live_under_the_base_path_alone() {
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
    fn base_path_that_no_url_can_hold_is_refused() {
        for text in ["/a b", "/a?b", "/a#b", "/a%20b", "/ä", "/\n"] {
            assert_eq!(
                BasePath::new(text).err(),
                Some(BuildError::UnusableBasePath { base_path: text.to_owned() })
            );
        }
    }
}
