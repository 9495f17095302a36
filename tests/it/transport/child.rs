//! Runs a test again in a child process, because environment variables belong to the whole process.

use std::env;
use std::ffi::OsStr;

use tokio::process::Command;
use tokio::time::timeout;

use crate::support::TIMEOUT;

/// The variable that marks the child process.
const IN_CHILD: &str = "TOWER_M2M_TEST_CHILD";

pub(crate) fn is_child() -> bool {
    env::var_os(IN_CHILD).is_some()
}

/// Runs this test in a child process with these variables and without any other variable that names
/// a proxy or a certificate.
pub(crate) async fn run<K: AsRef<OsStr>, V: AsRef<OsStr>>(
    test: &str,
    variables: impl IntoIterator<Item = (K, V)>,
) {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--test-threads=1"]).kill_on_drop(true);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    // reqwest ignores `HTTP_PROXY` in a CGI process, which it detects by `REQUEST_METHOD`.
    command.env_remove("REQUEST_METHOD").env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR");
    command.env(IN_CHILD, "1").envs(variables);
    let output = timeout(TIMEOUT, command.output()).await.unwrap().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    // The process also succeeds if no test has this name.
    assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
}
