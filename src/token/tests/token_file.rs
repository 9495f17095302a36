//! [`TokenFile`] in virtual time: what the file may hold, and when it is read.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::HeaderValue;
use tempfile::{TempDir, tempdir};
use tokio::time::{Instant, sleep};

use super::logs::Logs;
use super::renewal::{HOUR, pass, reject, value};
use crate::error::Chain;
use crate::testing::TestAuthority;
use crate::token::error::MintError;
use crate::token::service_token::ServiceToken;
use crate::token::token_file::TokenFile;

struct Mount {
    authority: TestAuthority,
    folder: TempDir,
}

impl Mount {
    fn new() -> Self {
        Self { authority: TestAuthority::offline(), folder: tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A token that differs from all others, as a header value and as text.
    fn token(&self) -> (HeaderValue, String) {
        let jwt = self.authority.token().claim("jti", fastrand::u64(..)).validity(HOUR).sign();
        (HeaderValue::try_from(format!("Bearer {jwt}")).unwrap(), jwt)
    }

    /// Writes a new token into the file, and returns its header value.
    fn write_token(&self) -> HeaderValue {
        let (value, jwt) = self.token();
        fs::write(self.path("token"), jwt).unwrap();
        value
    }

    fn file(&self) -> TokenFile {
        TokenFile::new(self.path("token")).on_clock(self.authority.clock().shared())
    }

    async fn start(&self) -> Result<ServiceToken, MintError> {
        self.start_from(self.file()).await
    }

    async fn start_from(&self, file: TokenFile) -> Result<ServiceToken, MintError> {
        ServiceToken::from_source_at(file, self.authority.clock().shared()).await
    }
}

#[cfg(unix)]
fn make_writable_by_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o646)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn changed_file_is_in_use_after_the_interval() {
    for (interval, seconds) in [(None, 30), (Some(1), 10), (Some(20), 20), (Some(3600), 60)] {
        let mount = Mount::new();
        let first = mount.write_token();
        let file = interval.map(Duration::from_secs);
        let file = file.into_iter().fold(mount.file(), TokenFile::interval);
        let token = mount.start_from(file).await.unwrap();
        assert!(token.health().renewing, "{seconds}");
        for round in 0..3 {
            let before = token.header_value();
            if round == 0 {
                assert_eq!(before, first, "{seconds}");
            }
            let next = mount.write_token();
            pass(seconds - 1).await;
            assert_eq!(token.header_value(), before, "{seconds}, {round}: read early");
            pass(1).await;
            // Reading takes no virtual time, but a turn of the runtime.
            assert_eq!(token.replaced(&before).await, next, "{seconds}, {round}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn white_space_around_the_token_is_ignored() {
    let mount = Mount::new();
    let (expected, jwt) = mount.token();
    for text in ["{}", "{}\n", "{}\r\n", "\u{feff}{}\n\n", "  {}\t"] {
        fs::write(mount.path("token"), text.replace("{}", &jwt)).unwrap();
        let token = mount.start().await.unwrap();
        assert_eq!(token.header_value(), expected, "{text:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn unusable_file_keeps_the_token_and_warns_once() {
    let mount = Mount::new();
    let expired = mount.authority.token().expired().sign();
    let path = mount.path("token");
    // (what happens to the file, the reason in the log)
    type Spoil<'a> = (&'a str, Box<dyn Fn() + 'a>, &'a str);
    let write = |content: Vec<u8>| {
        let path = path.clone();
        Box::new(move || fs::write(&path, &content).unwrap())
    };
    let cases: [Spoil<'_>; 9] = [
        ("missing", Box::new(|| fs::remove_file(&path).unwrap()), "No such file"),
        ("empty", write(Vec::new()), "the text is empty"),
        ("line break", write(b"\n".to_vec()), "the text is empty"),
        ("HTML", write(b"<!doctype html><html>Log in</html>".to_vec()), "not a JWT"),
        ("expired", write(expired.into_bytes()), "the token has expired"),
        ("no UTF-8", write(vec![0xff; 9]), "not a JWT"),
        ("too large", write(vec![b'a'; 66 * 1024 + 1]), "it is larger than"),
        (
            "folder",
            Box::new(|| {
                fs::remove_file(&path).unwrap();
                fs::create_dir(&path).unwrap();
            }),
            "it is not a regular file",
        ),
        #[cfg(unix)]
        ("writable by all", Box::new(|| make_writable_by_all(&path)), "all users can write it"),
        #[cfg(not(unix))]
        ("missing", Box::new(|| fs::remove_file(&path).unwrap()), "No such file"),
    ];
    for (case, spoil, reason) in cases {
        let logs = Logs::of_this_thread();
        let first = mount.write_token();
        let token = mount.start().await.unwrap();
        spoil();
        pass(300).await;
        assert_eq!(token.header_value(), first, "{case}");
        let error = token.health().last_error.expect(case);
        let text = Chain(&error).to_string();
        assert!(text.contains("token\" cannot be used") && text.contains(reason), "{case}: {text}");
        assert_eq!(logs.count("service token renewal failed "), 1, "{case}: {}", logs.text());

        let _ = fs::remove_dir(&path);
        let _ = fs::remove_file(&path);
        let next = mount.write_token();
        assert_eq!(token.replaced(&first).await, next, "{case}");
        assert_eq!(token.health().last_error, None, "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn unusable_file_is_read_again_after_its_interval() {
    let mount = Mount::new();
    let first = mount.write_token();
    let file = mount.file().interval(Duration::from_secs(10));
    let token = mount.start_from(file).await.unwrap();
    fs::remove_file(mount.path("token")).unwrap();
    pass(65).await;
    assert!(token.health().last_error.is_some());
    let (next, start) = (mount.write_token(), Instant::now());
    assert_eq!(token.replaced(&first).await, next);
    assert!(start.elapsed() <= Duration::from_secs(10), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn file_that_is_being_written_is_read_again() {
    let mount = Mount::new();
    let first = mount.write_token();
    let token = mount.start().await.unwrap();
    for content in ["", "eyJ"] {
        let before = token.header_value();
        fs::write(mount.path("token"), content).unwrap();
        let logs = Logs::of_this_thread();
        reject(&token, value(&token).1);
        sleep(Duration::from_millis(50)).await;
        let next = mount.write_token();
        assert_eq!(token.replaced(&before).await, next, "{content:?}");
        assert_eq!(logs.count("service token renewal failed"), 0, "{content:?}: {}", logs.text());
        pass(60).await;
    }
    assert_ne!(token.header_value(), first);
}

#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn swapped_links_of_a_kubernetes_mount_are_followed() {
    use std::os::unix::fs::symlink;

    let mount = Mount::new();
    // As the kubelet does: a new folder, and a link that is renamed over the old one.
    let swap = |name: &str| {
        let (value, jwt) = mount.token();
        fs::create_dir(mount.path(name)).unwrap();
        fs::write(mount.path(name).join("token"), jwt).unwrap();
        symlink(name, mount.path("..data_tmp")).unwrap();
        fs::rename(mount.path("..data_tmp"), mount.path("..data")).unwrap();
        value
    };
    let first = swap("..2026_11_26_10_00_00.1");
    symlink("..data/token", mount.path("token")).unwrap();
    let token = mount.start().await.unwrap();
    assert_eq!(token.header_value(), first);
    let second = swap("..2026_11_26_10_48_00.2");
    fs::remove_dir_all(mount.path("..2026_11_26_10_00_00.1")).unwrap();
    assert_eq!(token.replaced(&first).await, second);
}

#[tokio::test(start_paused = true)]
async fn rejected_token_is_read_again_at_once() {
    let mount = Mount::new();
    let first = mount.write_token();
    let token = mount.start().await.unwrap();
    pass(2).await;
    let next = mount.write_token();
    let start = Instant::now();
    reject(&token, value(&token).1);
    assert_eq!(token.replaced(&first).await, next);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn unchanged_file_keeps_the_value_of_the_token() {
    let mount = Mount::new();
    mount.write_token();
    let token = mount.start().await.unwrap();
    let (before, last_mint) = (value(&token), token.health().last_mint);
    let logs = Logs::of_this_thread();
    pass(200).await;
    assert_eq!(value(&token), before);
    assert!(token.health().last_mint > last_mint, "the file was read");
    assert_eq!(logs.text(), "");
}

#[tokio::test(start_paused = true)]
async fn start_waits_for_a_missing_or_empty_file() {
    for content in [None, Some("")] {
        let mount = Mount::new();
        let path = mount.path("token");
        if let Some(content) = content {
            fs::write(&path, content).unwrap();
        }
        let write_later = async {
            pass(20).await;
            mount.write_token()
        };
        let (token, expected) = tokio::join!(mount.start(), write_later);
        assert_eq!(token.unwrap().header_value(), expected, "{content:?}");

        let _ = fs::remove_file(&path);
        let start = Instant::now();
        let err = mount.start().await.unwrap_err();
        let waited = start.elapsed().as_secs();
        assert!(matches!(err, MintError::File { .. }) && (29..=31).contains(&waited), "{waited}");
    }
}

#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn start_fails_at_once_if_the_file_breaks_a_rule() {
    let mount = Mount::new();
    mount.write_token();
    make_writable_by_all(&mount.path("token"));
    let start = Instant::now();
    let err = mount.start().await.unwrap_err();
    assert!(Chain(&err).to_string().ends_with("all users can write it; use chmod o-w"), "{err:?}");
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[test]
fn debug_prints_path_and_interval() {
    let file = TokenFile::new("/run/token");
    assert_eq!(format!("{file:?}"), r#"TokenFile { path: "/run/token", interval: 30s, .. }"#);
}
