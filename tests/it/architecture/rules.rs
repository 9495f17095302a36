//! The rules: which files may mention which items, and how long a file may be.

/// The only constructor of `ServiceClaims`.
const CLAIMS_CONSTRUCTOR: &str = "ServiceClaims::verified";

/// The constructor of claims that no token has, for handler tests.
const FAKE_CLAIMS: &str = "ServiceClaims::fake";

pub(super) struct Rule {
    pub(super) name: &'static str,
    /// The rationale, shown with each violation.
    pub(super) reason: &'static str,
    pub(super) check: Check,
}

pub(super) enum Check {
    /// The files in `places` mention none of `names`.
    Names {
        /// Files, and folders with a trailing `/`. Empty means all files.
        places: &'static [&'static str],
        /// Patterns of [`matches_pattern`](super::check::matches_pattern).
        names: &'static [&'static str],
        comparisons: Comparisons,
        exceptions: &'static [Exception],
    },
    /// `lib.rs` has the attribute.
    CrateAttribute(&'static str),
    /// `Cargo.toml` sets this clippy lint to `warn`, and no file disables it.
    Lint { name: &'static str, group: &'static str },
    /// No file has more than `most` lines, not counting comments, docs and tests.
    LinesOfCode { most: usize },
    /// No file has more than `most` lines, including comments, docs and tests.
    Lines { most: usize },
}

/// Whether a name may appear in `==`, `!=` and patterns.
#[derive(PartialEq)]
pub(super) enum Comparisons {
    Forbidden,
    Allowed,
}

pub(super) struct Exception {
    /// A file, or a folder with a trailing `/`.
    pub(super) place: &'static str,
    /// The names that this place may mention.
    pub(super) names: &'static [&'static str],
    pub(super) reason: &'static str,
}

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "verify and jwks name neither HTTP requests nor a framework",
        reason: "users without HTTP, such as queue consumers, verify tokens too",
        check: Check::Names {
            places: &["verify/", "jwks/"],
            names: &["http::Request", "http::request", "::tower*", "::axum*"],
            comparisons: Comparisons::Forbidden,
            exceptions: &[],
        },
    },
    Rule {
        name: "verify and jwks name no status",
        reason: "they give the reason of a rejection, and the server maps it to a status",
        check: Check::Names {
            places: &["verify/", "jwks/"],
            names: &["http::StatusCode"],
            comparisons: Comparisons::Forbidden,
            exceptions: &[Exception {
                place: "jwks/remote/http_get.rs",
                // Only for comparisons: the rule "only server/response.rs picks a status" rejects
                // every other use.
                names: &[
                    "http::StatusCode!",
                    "StatusCode::OK",
                    "StatusCode::NOT_MODIFIED",
                    "StatusCode::UNAUTHORIZED",
                ],
                reason: "reads the status of the endpoint's response",
            }],
        },
    },
    Rule {
        name: "jose, bearer and verify use neither a client nor a framework",
        reason: "they read tokens and keys without network I/O",
        check: Check::Names {
            places: &["jose/", "bearer.rs", "verify/"],
            names: &["http::StatusCode", "::reqwest", "::axum*", "::tower*"],
            comparisons: Comparisons::Forbidden,
            exceptions: &[],
        },
    },
    Rule {
        name: "client names none of server, verify and jwks",
        reason: "M1 verifies no tokens",
        check: Check::Names {
            places: &["client/"],
            names: &["crate::server", "crate::verify", "crate::jwks"],
            comparisons: Comparisons::Forbidden,
            exceptions: &[],
        },
    },
    Rule {
        name: "server names neither client nor token",
        reason: "M2 mints no tokens",
        check: Check::Names {
            places: &["server/"],
            names: &["crate::client", "crate::token"],
            comparisons: Comparisons::Forbidden,
            exceptions: &[],
        },
    },
    Rule {
        name: "nothing names tonic",
        reason: "the crate sends a gRPC status as a header, to work with every version of tonic",
        check: Check::Names {
            places: &[],
            names: &["::tonic*"],
            comparisons: Comparisons::Forbidden,
            exceptions: &[],
        },
    },
    Rule {
        name: "only jwks/remote/ and token/ do network I/O",
        reason: "both limit and log their network I/O",
        check: Check::Names {
            places: &[],
            // `.send()` is reqwest's: a channel's `send` has an argument.
            names: &[
                ".send()",
                ".execute(_)",
                "reqwest::Client",
                "reqwest::get",
                "reqwest::blocking",
                "tokio::net",
                "std::net::TcpStream",
                "std::net::TcpListener",
                "std::net::UdpSocket",
            ],
            comparisons: Comparisons::Forbidden,
            exceptions: &[
                Exception {
                    place: "jwks/remote/",
                    names: &["reqwest::Client", ".send()"],
                    reason: "fetches key sets",
                },
                Exception {
                    place: "token/",
                    names: &["reqwest::Client", ".send()"],
                    reason: "mints tokens",
                },
                Exception {
                    place: "http_client.rs",
                    names: &["reqwest::Client"],
                    reason: "builds the clients of jwks/remote/ and token/",
                },
                Exception {
                    place: "embedded_core/",
                    names: &["tokio::net"],
                    reason: "listens, but connects to nothing",
                },
                Exception {
                    place: "testing/",
                    names: &["tokio::net"],
                    reason: "listens on loopback, but connects to nothing",
                },
            ],
        },
    },
    Rule {
        name: "only verify constructs ServiceClaims",
        reason: "every ServiceClaims value is verified",
        check: Check::Names {
            places: &[],
            names: &[CLAIMS_CONSTRUCTOR, FAKE_CLAIMS],
            comparisons: Comparisons::Forbidden,
            exceptions: &[
                Exception {
                    place: "verify/",
                    names: &[CLAIMS_CONSTRUCTOR],
                    reason: "verifies the token first",
                },
                Exception {
                    place: "testing/",
                    names: &[FAKE_CLAIMS],
                    reason: "handler tests have no token",
                },
            ],
        },
    },
    Rule {
        name: "nothing names testing",
        reason: "no production path changes with the feature",
        check: Check::Names {
            places: &[],
            names: &["crate::testing"],
            comparisons: Comparisons::Forbidden,
            exceptions: &[Exception {
                place: "testing/",
                names: &["crate::testing"],
                reason: "is that module",
            }],
        },
    },
    Rule {
        name: "only testing inserts an outcome that no verifier has decided",
        reason: "claims in a request's extensions are verified",
        check: Check::Names {
            places: &[],
            names: &["server::insert_fake_outcome", "outcome::insert_fake_outcome"],
            comparisons: Comparisons::Forbidden,
            exceptions: &[
                Exception {
                    place: "testing/",
                    names: &["outcome::insert_fake_outcome"],
                    reason: "handler tests have no verifier",
                },
                Exception {
                    place: "server/mod.rs",
                    names: &["outcome::insert_fake_outcome"],
                    reason: "re-exports it for testing/",
                },
            ],
        },
    },
    Rule {
        name: "only server/response.rs picks a status",
        reason: "one table decides status, challenge and gRPC code",
        check: Check::Names {
            places: &[],
            names: &["StatusCode::*", ".status(number)", ".status_mut()"],
            comparisons: Comparisons::Allowed,
            exceptions: &[
                Exception {
                    place: "server/response.rs",
                    names: &["StatusCode::*", ".status_mut()"],
                    reason: "is the table of statuses",
                },
                Exception {
                    place: "embedded_core/http/response.rs",
                    names: &["StatusCode::*"],
                    reason: "sends the statuses of the SuperTokens core",
                },
                Exception {
                    place: "token/local_issuer/routes.rs",
                    names: &["StatusCode::*"],
                    reason: "answers 304 to a cache that has the key set",
                },
                Exception {
                    place: "testing/",
                    names: &["StatusCode::*", ".status_mut()"],
                    reason: "sends the statuses that a test asks for",
                },
            ],
        },
    },
    Rule {
        name: "no unsafe code",
        reason: "a module cannot override `forbid`, but can override `deny`",
        check: Check::CrateAttribute("#![forbid(unsafe_code)]"),
    },
    Rule {
        name: "no lock is held across .await",
        reason: "a task that waits for the lock may block the thread that would release it",
        check: Check::Lint { name: "await_holding_lock", group: "suspicious" },
    },
    Rule {
        name: "at most 300 lines of code in a file",
        reason: "a file is read in one sitting",
        check: Check::LinesOfCode { most: 300 },
    },
    Rule {
        name: "at most 450 lines in a file with its tests",
        reason: "longer tests move to a file of their own",
        check: Check::Lines { most: 450 },
    },
];
