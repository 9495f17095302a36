//! What may be named where, and how long a file may be.

/// The constructor of `ServiceClaims`, which has no other.
const CLAIMS_CONSTRUCTOR: &str = "ServiceClaims::verified";

pub(super) struct Rule {
    pub(super) name: &'static str,
    /// Why the rule exists.
    pub(super) reason: &'static str,
    pub(super) check: Check,
}

pub(super) enum Check {
    /// The files in `places` name none of `names`.
    Names {
        /// Files, or folders with `/` at the end; empty: all.
        places: &'static [&'static str],
        /// As [`is_named`](super::check::is_named) reads them.
        names: &'static [&'static str],
        reading: Reading,
        exceptions: &'static [Exception],
    },
    /// `lib.rs` has the attribute.
    CrateAttribute(&'static str),
    /// `Cargo.toml` has the lint of clippy at `warn`, and no file turns it off.
    Lint { name: &'static str, group: &'static str },
    /// Lines without comments, docs and tests.
    LinesOfCode { most: usize },
    /// All lines, those of files of tests too.
    Lines { most: usize },
}

/// Whether comparing with a name or matching against it counts as naming it.
#[derive(PartialEq)]
pub(super) enum Reading {
    Counts,
    IsFree,
}

pub(super) struct Exception {
    /// A file, or a folder with `/` at the end.
    pub(super) place: &'static str,
    /// The names that the place may hold.
    pub(super) names: &'static [&'static str],
    pub(super) reason: &'static str,
}

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "verify and jwks know no HTTP request and no framework",
        reason: "a token is judged alike for a queue consumer and for a web server",
        check: Check::Names {
            places: &["verify/", "jwks/"],
            names: &["http::Request", "http::request", "::tower*", "::axum*"],
            reading: Reading::Counts,
            exceptions: &[],
        },
    },
    Rule {
        name: "verify and jwks name no status",
        reason: "why a token is refused is theirs to say, how HTTP says it is the server's",
        check: Check::Names {
            places: &["verify/", "jwks/"],
            names: &["http::StatusCode"],
            reading: Reading::Counts,
            exceptions: &[Exception {
                place: "jwks/remote/fetch.rs",
                // A constant outside comparisons and patterns is a status picked, which the rule
                // below finds.
                names: &["http::StatusCode!", "StatusCode::OK", "StatusCode::NOT_MODIFIED"],
                reason: "reads the status of the endpoint's answer",
            }],
        },
    },
    Rule {
        name: "jose, bearer and verify use neither a client nor a framework",
        reason: "tokens and keys as data, without I/O",
        check: Check::Names {
            places: &["jose/", "bearer.rs", "verify/"],
            names: &["http::StatusCode", "::reqwest", "::axum*", "::tower*"],
            reading: Reading::Counts,
            exceptions: &[],
        },
    },
    Rule {
        name: "client names neither server nor what verifies",
        reason: "M1 needs nothing of M2",
        check: Check::Names {
            places: &["client/"],
            names: &["crate::server", "crate::verify", "crate::jwks"],
            reading: Reading::Counts,
            exceptions: &[],
        },
    },
    Rule {
        name: "server names neither client nor what mints",
        reason: "M2 needs nothing of M1",
        check: Check::Names {
            places: &["server/"],
            names: &["crate::client", "crate::token"],
            reading: Reading::Counts,
            exceptions: &[],
        },
    },
    Rule {
        name: "nothing names tonic",
        reason: "gRPC is spoken in headers alone, so that no version of tonic is bound",
        check: Check::Names {
            places: &[],
            names: &["::tonic*"],
            reading: Reading::Counts,
            exceptions: &[],
        },
    },
    Rule {
        name: "only jwks/remote/ and token/ do network I/O",
        reason: "what fetches is bounded and observed in two places",
        check: Check::Names {
            places: &[],
            // A channel's `send` has an argument.
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
            reading: Reading::Counts,
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
                    reason: "builds the clients of both",
                },
                Exception {
                    place: "embedded_core/",
                    names: &["tokio::net"],
                    reason: "is a server, which connects to nothing",
                },
            ],
        },
    },
    Rule {
        name: "only verify constructs ServiceClaims",
        reason: "who holds claims holds verified ones",
        check: Check::Names {
            places: &[],
            names: &[CLAIMS_CONSTRUCTOR],
            reading: Reading::Counts,
            exceptions: &[Exception {
                place: "verify/",
                names: &[CLAIMS_CONSTRUCTOR],
                reason: "has verified them",
            }],
        },
    },
    Rule {
        name: "only server/response.rs picks a status",
        reason: "one table decides status, challenge and gRPC code",
        check: Check::Names {
            places: &[],
            names: &["StatusCode::*", ".status(number)", ".status_mut()"],
            reading: Reading::IsFree,
            exceptions: &[
                Exception {
                    place: "server/response.rs",
                    names: &["StatusCode::*", ".status_mut()"],
                    reason: "the table",
                },
                Exception {
                    place: "embedded_core/http/response.rs",
                    names: &["StatusCode::*"],
                    reason: "answers as the SuperTokens core does",
                },
            ],
        },
    },
    Rule {
        name: "no unsafe code",
        reason: "`forbid` cannot be lifted further down",
        check: Check::CrateAttribute("#![forbid(unsafe_code)]"),
    },
    Rule {
        name: "no lock is held across .await",
        reason: "the thread that would release it may be the one that waits",
        check: Check::Lint { name: "await_holding_lock", group: "suspicious" },
    },
    Rule {
        name: "300 lines of code to a file",
        reason: "a file is read in one sitting",
        check: Check::LinesOfCode { most: 300 },
    },
    Rule {
        name: "450 lines to a file with its tests",
        reason: "longer tests have a file of their own",
        check: Check::Lines { most: 450 },
    },
];
