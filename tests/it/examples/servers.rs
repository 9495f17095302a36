//! What the examples answer and log.

use std::time::Duration;

use tempfile::tempdir;
use tokio::task::spawn_blocking;

use super::*;

#[tokio::test]
async fn m2_whose_stderr_is_closed_keeps_answering() {
    let authority = TestAuthority::start().await;
    let jwks = authority.jwks_url();
    let mut m2 = m2(&jwks, &[]);
    drop(m2.log.take());
    for _ in 0..3 {
        // The first refusal is logged.
        assert_eq!(m2.status("/whoami").await, 401);
    }
}

#[tokio::test]
async fn m2_is_ready_while_it_has_usable_keys() {
    let authority = TestAuthority::start().await;
    authority.hang();
    let m2 = m2(&authority.jwks_url(), &[]);
    authority.wait_for_fetches(1).await;
    let public = ["/health", "/livez", "/metrics"].map(|path| (path, 200));
    for (path, status) in public.into_iter().chain([("/readyz", 503), ("/whoami", 401)]) {
        assert_eq!(m2.status(path).await, status, "{path} without keys");
    }
    authority.answer_with_keys();
    // Waits for the fetch, as each request with an unknown key does.
    let request = reqwest::Client::new().get(format!("{}/whoami", m2.url));
    let response = request.bearer_auth(authority.token().sign()).send().await.unwrap();
    assert_eq!(response.status(), 200);
    for (path, status) in public.into_iter().chain([("/readyz", 200), ("/whoami", 401)]) {
        assert_eq!(m2.status(path).await, status, "{path} with keys");
    }
}

#[tokio::test]
async fn m1_and_m2_agree_on_an_audience() {
    let authority = TestAuthority::start().await;
    let url = authority.core_url();
    let m2 = m2(&authority.jwks_url(), &["--issuer", &url, "--audience", "billing"]);
    let wrong = "401\nwww-authenticate: Bearer realm=\"m2m\", error=\"invalid_token\", \
                 error_description=\"the token is for another audience\"\n\n";
    for (audience, expected, code) in
        [(Some("billing"), "200\n{", 0), (Some("inventory"), wrong, 1), (None, wrong, 1)]
    {
        let mut m1 = example("m1");
        m1.args(["--core", &url, "--m2", &m2.url]);
        if let Some(audience) = audience {
            m1.args(["--audience", audience]);
        }
        let output = run_on_a_thread(m1).await;
        let printed = text(&output.stdout);
        assert!(printed.starts_with(expected), "{audience:?}: {printed}");
        assert_eq!(output.status.code(), Some(code), "{audience:?}");
    }
}

#[tokio::test]
async fn m1_and_m2_read_token_and_keys_from_files() {
    let authority = TestAuthority::offline();
    let folder = tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (token, jwks) = (path("token"), path("jwks.json"));
    fs::write(&jwks, authority.jwks()).unwrap();
    let mut m2 = example("m2");
    m2.args(["--listen", "127.0.0.1:0", "--jwks-file", &jwks, "--audience", "billing"]);
    let m2 = Server::start(m2);
    assert_eq!(m2.status("/readyz").await, 200);
    for (audience, first, code) in [("billing", "200", 0), ("inventory", "401", 1)] {
        fs::write(&token, authority.token().audience(audience).sign()).unwrap();
        let output = run("m1", &["--token-file", &token, "--m2", &m2.url]);
        assert_eq!(text(&output.stdout).lines().next(), Some(first));
        assert_eq!(output.status.code(), Some(code), "{audience}");
    }
    let output = run("m2", &["--listen", "127.0.0.1:0", "--jwks-file", &path("missing")]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
}

#[tokio::test]
async fn m2_discovers_its_keys_and_sends_a_token_for_them() {
    let authority = TestAuthority::offline();
    let endpoint = RecordingServer::start().await;
    let folder = tempdir().unwrap();
    let file = folder.path().join("token");
    let sent = authority.token().sign();
    fs::write(&file, &sent).unwrap();
    let metadata = json!({
        "issuer": endpoint.url(),
        "jwks_uri": format!("{}/keys", endpoint.url()),
    });
    let keys: serde_json::Value = serde_json::from_str(&authority.jwks()).unwrap();
    endpoint.answer_next_with(response(200, JSON, metadata));
    endpoint.answer_next_with(response(200, JSON, keys));
    let mut m2 = example("m2");
    m2.args(["--listen", "127.0.0.1:0", "--discover", endpoint.url(), "--jwks-token-file"]);
    m2.arg(&file);
    let m2 = Server::start(m2);
    // Waits for the fetch.
    let request = reqwest::Client::new().get(format!("{}/whoami", m2.url));
    let answer = request.bearer_auth(authority.token().sign()).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let requests = endpoint.requests();
    let seen: Vec<_> = requests.iter().map(|seen| (seen.path(), seen.token())).collect();
    let well_known = "/.well-known/openid-configuration";
    assert_eq!(seen, [(well_known, Some(&*sent)), ("/keys", Some(&*sent))]);
}

#[tokio::test]
async fn m1_reads_its_api_key_from_the_environment() {
    let core = EmbeddedCore::builder().api_key(API_KEY).build().await.unwrap();
    let url = format!("http://{}", serve(core.router()).await);
    let m2 = m2(&format!("{url}/.well-known/jwks.json"), &[]);
    for (variable, flag, code) in [
        (None, None, 1),
        (Some(""), None, 1),
        (Some("another-key-0123456789"), None, 1),
        (Some(API_KEY), None, 0),
        (Some("another-key-0123456789"), Some(API_KEY), 0),
    ] {
        let mut m1 = example("m1");
        m1.args(["--core", &url, "--m2", &m2.url]);
        m1.args(flag.iter().flat_map(|key| ["--api-key", key]));
        m1.envs(variable.map(|key| ("SUPERTOKENS_API_KEY", key)));
        let output = run_on_a_thread(m1).await;
        assert_eq!(output.status.code(), Some(code), "{variable:?} {flag:?}");
        assert!(!text(&output.stderr).contains("0123456789"), "{variable:?} {flag:?}");
    }
}

#[tokio::test]
async fn m1_gets_its_token_from_an_oauth2_server() {
    let (authority, server) = (TestAuthority::start().await, RecordingServer::start().await);
    let m2 = m2(&authority.jwks_url(), &[]);
    let jwt = authority.token().sign();
    let good = json!({"access_token": jwt, "token_type": "Bearer", "expires_in": 3600});
    let bad = json!({"error": "invalid_client"});
    let flags = ["--client-id", "orders", "--scope", "charge", "--scope", "refund"];
    let flags = flags.iter().chain(&["--audience", "billing", "--resource", "urn:billing"]);
    let sent = "grant_type=client_credentials&scope=charge+refund";
    let credentials = "client_id=orders&client_secret=b-0123456789";
    let more = "audience=billing&resource=urn%3Abilling";
    for (response, secret, in_body, body, code) in [
        (response(200, JSON, good.clone()), None, None, format!("{sent}&{more}"), 0),
        (
            response(200, JSON, good.clone()),
            Some("b-0123456789"),
            Some("--credentials-in-body"),
            format!("{sent}&{credentials}&{more}"),
            0,
        ),
        (response(401, JSON, bad), None, None, format!("{sent}&{more}"), 1),
    ] {
        server.answer_next_with(response);
        let mut m1 = example("m1");
        m1.args(["--token-url", server.url(), "--m2", &m2.url]).args(flags.clone());
        m1.args(secret.iter().flat_map(|secret| ["--client-secret", secret])).args(in_body);
        m1.env("OAUTH2_CLIENT_SECRET", "a-0123456789");
        let output = run_on_a_thread(m1).await;
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{body}: {error}");
        assert_eq!(error.contains("401, invalid_client: wrong client"), code == 1, "{error}");
        assert!(!error.contains("0123456789"), "{error}");
        let request = server.requests().pop().unwrap();
        assert_eq!(std::str::from_utf8(request.body()).unwrap(), body);
        assert_eq!(request.headers().contains_key("authorization"), secret.is_none());
    }
}

#[tokio::test]
async fn rust_log_selects_what_m2_logs() {
    let authority = TestAuthority::start().await;
    authority.answer_with(500);
    let jwks = authority.jwks_url();
    for (filter, is_logged, is_debug) in [
        (None, true, false),
        (Some(""), true, false),
        (Some("tower_m2m=loud"), true, false),
        (Some("off"), false, false),
        (Some("tower_m2m=error"), false, false),
        (Some("warn,tower_m2m=debug"), true, true),
    ] {
        let mut command = example("m2");
        command.args(["--listen", "127.0.0.1:0", "--jwks", &jwks]);
        command.envs(filter.map(|filter| ("RUST_LOG", filter)));
        let before = authority.fetches();
        let mut m2 = Server::start(command);
        authority.wait_for_fetches(before + 2).await;
        // Refused, which is logged at debug.
        assert_eq!(m2.status("/whoami").await, 401);
        m2.signal(Signal::TERM);
        let (_, log) = m2.ended().await;
        assert_eq!(log.contains(" WARN "), is_logged, "{filter:?}: {log}");
        assert_eq!(log.contains(" DEBUG "), is_debug, "{filter:?}: {log}");
        assert_eq!(
            log.contains("ignoring RUST_LOG"),
            filter == Some("tower_m2m=loud"),
            "{filter:?}: {log}"
        );
        assert!(!log.contains('\x1b'), "{filter:?}: {log}");
    }
}

#[tokio::test]
async fn server_on_localhost_stops_at_a_signal() {
    let authority = TestAuthority::start().await;
    let jwks = authority.jwks_url();
    for (name, signal) in
        [("core", Signal::TERM), ("core", Signal::INT), ("m2", Signal::TERM), ("m2", Signal::INT)]
    {
        let mut command = example(name);
        command.args(["--listen", "localhost:0"]);
        if name == "m2" {
            command.args(["--jwks", &jwks]);
        }
        let mut server = Server::start(command);
        assert_eq!(server.status("/hello").await, if name == "m2" { 404 } else { 200 });
        server.signal(signal);
        assert_eq!(server.ended().await.0, Some(0), "{name} {signal:?}");
    }
}

#[tokio::test]
async fn m2_stops_although_a_request_is_incomplete() {
    let authority = TestAuthority::start().await;
    let jwks = authority.jwks_url();
    let mut m2 = m2(&jwks, &[]);
    let mut slow = TcpStream::connect(m2.url.strip_prefix("http://").unwrap()).unwrap();
    slow.write_all(b"GET /health HTTP/1.1\r\n").unwrap();
    // Accepted after the slow connection.
    assert_eq!(m2.status("/health").await, 200);
    m2.signal(Signal::TERM);
    assert_eq!(m2.ended().await.0, Some(0));
}

#[tokio::test]
async fn m2_closes_a_connection_without_whole_headers() {
    let authority = TestAuthority::start().await;
    let m2 = m2(&authority.jwks_url(), &[]);
    let mut slow = TcpStream::connect(m2.url.strip_prefix("http://").unwrap()).unwrap();
    slow.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    slow.write_all(b"GET /health HTTP/1.1\r\n").unwrap();
    let closed = spawn_blocking(move || slow.read_to_end(&mut Vec::new()).unwrap());
    assert_eq!(closed.await.unwrap(), 0, "a response");
}

#[tokio::test]
async fn inspect_reads_the_token_from_a_file_or_stdin() {
    let authority = TestAuthority::start().await;
    let (jwks, token) = (authority.jwks_url(), authority.token().sign());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token.txt");
    let at_path = format!("@{}", path.display());
    for content in [token.clone(), format!("Bearer {token}\r\n")] {
        fs::write(&path, &content).unwrap();
        for argument in [&*at_path, "-", &token] {
            let mut inspect = example("inspect");
            inspect.args(["--jwks", &jwks, argument]).stdin(fs::File::open(&path).unwrap());
            let output = run_on_a_thread(inspect).await;
            let printed = text(&output.stdout);
            assert!(printed.contains("\nM2 accepts the token; it expires in "), "{printed}");
            assert!(!printed.contains(&token), "{printed}");
            assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]));
        }
    }
    let missing = run("inspect", &["--jwks", &DeadPort::new().url(), "@/nonexistent"]);
    let error = text(&missing.stderr);
    assert!(error.starts_with("inspect: cannot read /nonexistent: "), "{error}");
    assert_eq!(missing.status.code(), Some(1));
}

#[tokio::test]
async fn marker_flag_replaces_the_marker() {
    let authority = TestAuthority::start().await;
    let jwks = authority.jwks_url();
    let payment =
        json!({"client_id": "orders", "scope": "charge refund", "realm": {"kind": "m2m"}});
    let user = json!({"client_id": "web", "scope": "profile", "realm": {"kind": "user"}});
    let default = json!({"source": "microservice"});
    for (marker, shown) in [
        ("client_id=orders", "client_id is \"orders\""),
        (r#"client_id=["orders","refunds"]"#, r#"client_id is ["orders","refunds"]"#),
        (r#"scope={"scope":"charge"}"#, r#"scope is {"scope":"charge"}"#),
        (r#"["realm","kind"]=m2m"#, r#"["realm","kind"] is "m2m""#),
    ] {
        let m2 = m2(&jwks, &["--marker", marker]);
        for (claims, status) in [(&payment, 200), (&user, 403), (&default, 403)] {
            let token = authority.token().without_marker().claims(claims.clone()).sign();
            let request = reqwest::Client::new().get(format!("{}/whoami", m2.url));
            let response = request.bearer_auth(&token).send().await.unwrap();
            assert_eq!(response.status(), status, "{marker}: {claims}");

            let mut inspect = example("inspect");
            inspect.args(["--jwks", &jwks, "--marker", marker, &token]);
            let output = run_on_a_thread(inspect).await;
            let check = if status == 200 { "✓" } else { "✗" };
            let (printed, check) = (text(&output.stdout), format!("{check} marker: {shown}\n"));
            assert!(printed.contains(&check), "{marker}: {printed}");
            assert_eq!(output.status.success(), status == 200, "{marker}: {claims}");
        }
    }
}
