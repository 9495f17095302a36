//! Usage, exit codes and closed pipes.

use super::*;

const NAMES: [&str; 8] = ["chain", "core", "demo", "grpc", "inspect", "m1", "m2", "mint"];

#[test]
fn help_of_each_example_prints_the_usage_on_stdout() {
    for name in NAMES {
        for flag in ["--help", "-h"] {
            let output = run(name, &[flag]);
            let usage = text(&output.stdout);
            assert!(usage.starts_with(&format!("usage: {name}")), "{name} {flag}: {usage}");
            assert!(usage.contains("RUST_LOG"), "{name}: {usage}");
            assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]), "{name}");
        }
    }
}

#[test]
fn help_of_m2_names_its_routes() {
    let usage = text(&run("m2", &["--help"]).stdout);
    for route in ["/whoami", "/health", "/livez", "/readyz", "/metrics"] {
        assert!(usage.contains(route), "{route}: {usage}");
    }
}

#[test]
fn usage_error_prints_the_usage_and_then_the_error() {
    let rows: &[(&str, &[&str], &str)] = &[
        ("chain", &["--nonsense"], "chain: invalid option '--nonsense'"),
        ("demo", &["--nonsense"], "demo: invalid option '--nonsense'"),
        ("demo", &["s3cr3t"], "demo: unexpected argument"),
        ("grpc", &["--nonsense"], "grpc: invalid option '--nonsense'"),
        ("grpc", &["s3cr3t"], "grpc: unexpected argument"),
        ("m2", &["--allow-plain-http=secret"], "m2: --allow-plain-http takes no value"),
        (
            "core",
            &["--listen", "nonsense"],
            "core: --listen \"nonsense\" is not a host name or IP address and a port",
        ),
        (
            "core",
            &["--listen", "localhost:99999"],
            "core: --listen \"localhost:99999\" is not a host name or IP address and a port",
        ),
        (
            "core",
            &["--rotate-every", "soon"],
            "core: --rotate-every \"soon\" is not a number of seconds",
        ),
        ("core", &["--listen", "0.0.0.0:0"], "core: --listen 0.0.0.0:0 is beyond loopback"),
        ("core", &["--api-key"], "core: missing argument for option '--api-key'"),
        ("m1", &["--nonsense"], "m1: invalid option '--nonsense'"),
        ("m1", &["--m2", "http://localhost"], "m1: --core, --token-url or --token-file is missing"),
        ("m1", &["--core", "ftp://x", "--m2", "http://localhost"], "m1: "),
        (
            "m1",
            &["--core", "http://localhost", "--m2", "nonsense"],
            "m1: --m2 \"nonsense\" is not a URL",
        ),
        (
            "m1",
            &["--core", "http://localhost", "--m2", "ftp://x"],
            "m1: --m2 \"ftp://x\" is not an http or https URL",
        ),
        (
            "m1",
            &["--core", "http://localhost", "--m2", "http://192.0.2.1"],
            "m1: --m2 http://192.0.2.1/ is plain http beyond loopback",
        ),
        (
            "m1",
            &["--core", "http://localhost", "--m2", "https://u:s3cr3t@a.example"],
            "m1: --m2 must not hold a user or password",
        ),
        ("m1", &["--core", "http://localhost", "--m2", "u:s3cr3t@a"], "m1: --m2 \"(hidden)\""),
        ("m1", &["--core", "http://192.0.2.1", "--m2", "http://localhost"], "m1: "),
        (
            "m1",
            &["--core", "http://localhost", "--token-url", "http://localhost"],
            "m1: --core and --token-url exclude each other",
        ),
        (
            "m1",
            &["--core", "http://localhost", "--client-secret", "s3cr3t"],
            "m1: --client-secret needs --token-url",
        ),
        (
            "m1",
            &["--token-url", "http://localhost", "--api-key", "s3cr3t"],
            "m1: --api-key needs --core",
        ),
        (
            "m1",
            &["--token-url", "http://localhost", "--token-file", "token"],
            "m1: --token-url and --token-file exclude each other",
        ),
        ("m1", &["--token-file", "token", "--api-key", "s3cr3t"], "m1: --api-key needs --core"),
        ("m1", &["--token-file", "token", "--scope", "a"], "m1: --scope needs --token-url"),
        (
            "m1",
            &["--token-file", "token", "--audience", "a"],
            "m1: --audience needs --core or --token-url",
        ),
        ("m1", &["--token-file", "token"], "m1: --m2 is missing"),
        ("m1", &["--token-url", "http://localhost"], "m1: --client-id is missing"),
        ("m1", &["--token-url", "http://localhost", "--client-id", "a"], "m1: --m2 is missing"),
        (
            "m1",
            &["--token-url", "http://localhost", "--client-id", "a", "--m2", "http://localhost"],
            "m1: --client-secret is missing",
        ),
        ("m2", &["--nonsense"], "m2: invalid option '--nonsense'"),
        ("m2", &["--jwks", "http://localhost"], "m2: --listen is missing"),
        ("m2", &["--listen", "127.0.0.1:0"], "m2: give one of --jwks, --discover and --jwks-file"),
        (
            "m2",
            &["--listen", "127.0.0.1:0", "--jwks", "http://localhost", "--jwks-file", "jwks.json"],
            "m2: give one of --jwks, --discover and --jwks-file",
        ),
        (
            "m2",
            &["--listen", "127.0.0.1:0", "--jwks-file", "jwks.json", "--jwks-token-file", "token"],
            "m2: --jwks-token-file needs --jwks or --discover",
        ),
        ("m2", &["--listen", "127.0.0.1:0", "--discover", "http://192.0.2.1"], "m2: "),
        ("m2", &["--listen", "127.0.0.1:0", "--jwks", "nonsense"], "m2: "),
        ("m2", &["--listen", "127.0.0.1:0", "--jwks", "http://192.0.2.1"], "m2: "),
        (
            "m2",
            &["--listen", "1.2.3.4", "--jwks", "http://localhost"],
            "m2: --listen \"1.2.3.4\" is not a host name or IP address and a port",
        ),
        ("m2", &["--marker", "secret"], "m2: --marker is not CLAIM=VALUE"),
        ("m2", &["--marker", "[secret=x"], "m2: the claim of --marker is not valid: "),
        ("m2", &["--marker", "x={secret"], "m2: the value of --marker is not valid: "),
        ("inspect", &["--nonsense"], "inspect: invalid option '--nonsense'"),
        ("inspect", &["--marker", "secret"], "inspect: --marker is not CLAIM=VALUE"),
        ("inspect", &["--jwks", "http://localhost"], "inspect: TOKEN is missing"),
        (
            "inspect",
            &["--jwks", "http://localhost", "s3cr3t", "s3cr3t"],
            "inspect: more than one token",
        ),
        ("inspect", &["--jwks", "nonsense", "s3cr3t"], "inspect: "),
    ];
    for (name, flags, expected) in rows {
        let output = run(name, flags);
        let error = text(&output.stderr);
        assert!(error.starts_with(&format!("usage: {name}")), "{name} {flags:?}: {error}");
        assert!(error.lines().last().unwrap().starts_with(expected), "{name} {flags:?}: {error}");
        assert!(!error.contains("s3cr3t"), "{name} {flags:?}: {error}");
        assert_eq!((output.status.code(), &*output.stdout), (Some(2), &b""[..]), "{flags:?}");
    }
}

#[cfg(unix)]
#[test]
fn invalid_utf8_is_a_usage_error_without_its_value() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let value = OsStr::from_bytes(b"s3cr3t\xff");
    for (name, flag, variable) in [
        ("core", Some("--api-key"), None),
        ("m1", Some("--api-key"), None),
        ("inspect", None, None),
        ("core", None, Some("SUPERTOKENS_API_KEYS")),
        ("m1", None, Some("SUPERTOKENS_API_KEY")),
    ] {
        let mut command = example(name);
        match variable {
            Some(variable) => command.env(variable, value).args([
                "--core",
                "http://localhost",
                "--m2",
                "http://localhost",
            ]),
            None => command.args(flag).arg(value),
        };
        let output = command.output().unwrap();
        let error = text(&output.stderr);
        assert!(error.trim_end().ends_with("is not valid UTF-8"), "{name} {flag:?}: {error}");
        assert!(!error.contains("s3cr3t"), "{name} {flag:?}: {error}");
        assert_eq!(output.status.code(), Some(2), "{name} {flag:?}");
    }
}

#[tokio::test]
async fn closed_pipe_ends_each_example_without_a_message() {
    let authority = TestAuthority::start().await;
    let jwks = authority.jwks_url();
    let url = authority.core_url();
    let listen = ["--listen", "127.0.0.1:0"];
    let rows: [(&str, &[&str]); 13] = [
        ("core", &["--help"]),
        ("demo", &["--help"]),
        ("grpc", &["--help"]),
        ("inspect", &["--help"]),
        ("m1", &["--help"]),
        ("m2", &["--help"]),
        ("core", &listen),
        ("chain", &[]),
        ("demo", &[]),
        ("grpc", &[]),
        ("inspect", &["--jwks", &jwks, "token"]),
        ("m1", &["--core", &url, "--m2", &jwks]),
        ("m2", &[listen[0], listen[1], "--jwks", &jwks]),
    ];
    for (name, flags) in rows {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = example(name);
        command.args(flags).stdout(writer).env("RUST_LOG", "off");
        let output = run_on_a_thread(command).await;
        assert_eq!(
            (output.status.code(), &*text(&output.stderr)),
            (Some(141), ""),
            "{name} {flags:?}"
        );
    }
}
