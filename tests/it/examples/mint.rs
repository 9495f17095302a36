//! The example `mint`: the file that it keeps, and its exit codes.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::tempdir;
use tower_m2m::testing::TestAuthority;
use tower_m2m::{LocalJwks, ServiceToken, TokenFile, Verifier};

use super::{run, run_on_a_thread, text};
use crate::support::example;

/// A throw-away P-256 key, made for this test with `openssl genpkey`.
const KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgxU8b8/TT++nzTNup
VoTjGMDf3yc4LozPyR9+XhAwyUWhRANCAASi0PlmSAaw2IgpZHSD0LC6MdyEvlv9
sy28ne6O7SZVqjpD0IecteW/SYWQG4lVOcIq5Jm27tYsJLws3sCKzVpM
-----END PRIVATE KEY-----
";

fn write_key(folder: &Path) -> String {
    let path = folder.join("key.pem");
    fs::write(&path, KEY).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn token_of_a_key_is_verified_by_the_written_keys() {
    let folder = tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (key, out, jwks) = (write_key(folder.path()), path("token"), path("jwks.json"));
    let issuer = "https://orders.internal";
    let flags = ["--key", &key, "--issuer", issuer, "--service", "orders", "--audience", "billing"];
    let files = ["--out", &out, "--jwks-out", &jwks, "--mode", "640", "--once"];
    let output = run("mint", &[&flags[..], &files].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), format!("wrote a token to {out}\n"));
    let mode = |path: &str| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&out), mode(&jwks)), (0o640, 0o644));

    let verifier = Verifier::new(LocalJwks::watch_file(&jwks).unwrap()).issuer(issuer);
    let jwt = fs::read_to_string(&out).unwrap();
    let claims = verifier.audience("billing").verify(&jwt).await.unwrap();
    assert_eq!(claims.service(), Some("orders"));
    assert!(fs::read_dir(folder.path()).unwrap().count() == 3, "no temporary file is left");
}

#[test]
fn failed_mint_prints_the_reason_and_changes_no_file() {
    let folder = tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (key, out, damaged) = (write_key(folder.path()), path("token"), path("damaged.pem"));
    fs::write(&out, "old").unwrap();
    fs::write(&damaged, KEY.replace("MIGH", "MIGG")).unwrap();
    let missing = path("missing.pem");
    let nowhere = path("nowhere/token");
    // (flags, exit code, the last line of stderr)
    let cases: [(&[&str], i32, &str); 7] = [
        (&["--key", &missing, "--issuer", "i", "--out", &out], 1, "No such file"),
        (&["--key", &damaged, "--issuer", "i", "--out", &out], 1, "damaged"),
        (&["--key", &key, "--issuer", "i", "--algorithm", "RS256", "--out", &out], 1, "RS256"),
        (&["--key", &key, "--issuer", "i", "--out", &nowhere], 1, "cannot write"),
        (&["--key", &key, "--out", &out], 2, "--issuer is missing"),
        (&["--key", &key, "--out", &out, "--mode", "666"], 2, "--mode lets all users write"),
        (&["--key", &key, "--core", "http://localhost:1", "--out", &out], 2, "either --core or"),
    ];
    for (flags, code, expected) in cases {
        let output = run("mint", flags);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{flags:?}: {stderr}");
        assert!(stderr.lines().last().unwrap().contains(expected), "{flags:?}: {stderr}");
        assert_eq!(fs::read_to_string(&out).unwrap(), "old", "{flags:?}");
    }
}

#[tokio::test]
async fn core_that_refuses_fails_the_start() {
    let authority = TestAuthority::start().await;
    let mut command = example("mint");
    let elsewhere = format!("{}/no-such-tenant", authority.core_url());
    command.args(["--core", &elsewhere, "--out", "unused", "--once"]);
    let output = run_on_a_thread(command).await;
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("refused with status 403"), "{}", text(&output.stderr));
}

/// A running `mint`, killed on drop.
struct Sidecar(Child);

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn sidecar_renews_the_token_until_it_is_stopped() {
    let (authority, folder) = (TestAuthority::start().await, tempdir().unwrap());
    let out = folder.path().join("token");
    let mut command: Command = example("mint");
    command.args(["--core", &authority.core_url(), "--jwks-domain", authority.issuer()]);
    // Renewed after about a second.
    command.args(["--validity", "2", "--out"]).arg(&out).stdout(Stdio::piped());
    let mut sidecar = Sidecar(command.stderr(Stdio::null()).spawn().unwrap());
    let stdout = BufReader::new(sidecar.0.stdout.take().unwrap());
    let mut lines = stdout.lines();
    let read = move || {
        let line = lines.next().unwrap().unwrap();
        (line, lines)
    };
    let (_, mut lines) = tokio::task::spawn_blocking(read).await.unwrap();
    let file = TokenFile::new(&out).interval(Duration::from_secs(10));
    let token = ServiceToken::from_source(file).await.unwrap();
    let first = token.header_value();
    let jwt = first.to_str().unwrap().replace("Bearer ", "");
    assert!(authority.verifier().verify(&jwt).await.is_ok());

    let read = move || lines.next().unwrap().unwrap();
    let line = tokio::task::spawn_blocking(read).await.unwrap();
    assert!(line.starts_with("wrote a token to "), "{line}");
    assert_ne!(fs::read_to_string(&out).unwrap(), jwt);

    kill_process(Pid::from_child(&sidecar.0), Signal::TERM).unwrap();
    let ended = tokio::task::spawn_blocking(move || sidecar.0.wait().unwrap()).await.unwrap();
    assert_eq!(ended.code(), Some(0));
}
