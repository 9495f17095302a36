//! Tests of what depends on the environment, which belongs to the whole process: each runs again in
//! one of its own.

use std::env;
use std::ffi::OsStr;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// Set in the process that a test made for itself.
const IN_CHILD: &str = "TOWER_M2M_TEST_CHILD";

pub(crate) fn is_child() -> bool {
    env::var_os(IN_CHILD).is_some()
}

/// Runs the test of this name in a process with these variables, and with nothing else that could
/// name a proxy or a certificate.
pub(crate) async fn run<K: AsRef<OsStr>, V: AsRef<OsStr>>(
    test: &str,
    variables: impl IntoIterator<Item = (K, V)>,
) {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--test-threads=1"]).kill_on_drop(true);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    // Whoever sees this takes himself for a CGI script, and HTTP_PROXY for a header of the request.
    command.env_remove("REQUEST_METHOD").env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR");
    command.env(IN_CHILD, "1").envs(variables);
    let output = timeout(Duration::from_secs(60), command.output()).await.unwrap().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    // A name that is no test's runs none and succeeds.
    assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
}
