//! The cache file of a token in virtual time: when it is read, written and removed.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::{TempDir, tempdir};
use tokio::time::Instant;

use super::logs::Logs;
use super::renewal::{Core, pass, reject, value};
use crate::error::Chain;
use crate::token::cache_file::CacheFile;
use crate::token::error::MintError;
use crate::token::mint::Mint;
use crate::token::schedule::RenewalPolicy;
use crate::token::service_token::ServiceToken;
use crate::token::start_up::StartUp;
use crate::token::token_value::TokenValue;
use crate::verify::Verifier;

const USED: &str = "mint failed, using the cached token";

/// A service with a cache file, which starts several times.
struct Service {
    core: Core,
    folder: TempDir,
    request: &'static str,
    verifier: Option<Verifier>,
}

impl Service {
    fn new(validity: u64) -> Self {
        let (core, folder) = (Core::new(validity), tempdir().unwrap());
        Self { core, folder, request: "request", verifier: None }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("token.json")
    }

    async fn start(&self) -> Result<ServiceToken, MintError> {
        self.start_with(RenewalPolicy::BeforeExpiry).await
    }

    async fn start_with(&self, policy: RenewalPolicy) -> Result<ServiceToken, MintError> {
        let start_up = StartUp {
            policy,
            timeout: Duration::from_secs(30),
            verifier: self.verifier.clone(),
            cache_file: Some(CacheFile::new(self.path(), self.request)),
            clock: self.core.clock().shared(),
        };
        start_up.mint(self.core.clone()).await
    }
}

#[tokio::test(start_paused = true)]
async fn service_starts_with_the_cached_token_after_5_s() {
    for policy in [RenewalPolicy::BeforeExpiry, RenewalPolicy::OnRejection] {
        let service = Service::new(3600);
        let first = service.start_with(policy).await.unwrap().header_value();
        service.core.set_down(true);
        let (logs, start) = (Logs::of_this_thread(), Instant::now());
        let token = service.start_with(policy).await.unwrap();
        assert_eq!((token.header_value(), logs.count(USED)), (first.clone(), 1), "{policy:?}");
        assert!((4..=5).contains(&start.elapsed().as_secs()), "{policy:?}: {:?}", start.elapsed());
        assert!(token.health().renewing && token.health().last_error.is_some(), "{policy:?}");

        // The mint goes on in the background.
        service.core.set_down(false);
        pass(31).await;
        assert_ne!(token.header_value(), first, "{policy:?}");
        assert_eq!(token.health().last_error, None, "{policy:?}");
        drop(token);
        service.core.set_down(true);
        let third = service.start_with(policy).await.unwrap().header_value();
        assert_ne!(third, first, "{policy:?}: the renewed token is in the file");
    }
}

#[tokio::test(start_paused = true)]
async fn minted_token_takes_precedence_over_the_file() {
    let service = Service::new(3600);
    let first = service.start().await.unwrap().header_value();
    assert_ne!(service.start().await.unwrap().header_value(), first);

    // Also one that answers while the start would wait for it.
    service.core.set_down(true);
    let recover = async {
        pass(2).await;
        service.core.set_down(false);
    };
    let (token, ()) = tokio::join!(service.start(), recover);
    assert_eq!(token.unwrap().health().last_error, None);

    service.core.refuse();
    let err = service.start().await.unwrap_err();
    assert!(matches!(err, MintError::Refused { status: 401, .. }), "{err:?}");
}

#[tokio::test(start_paused = true)]
async fn unusable_file_is_ignored_with_a_logged_reason() {
    let mut service = Service::new(3600);
    let path = service.path();
    let other_request = |service: &mut Service| service.request = "another request";
    let expire = |service: &mut Service| service.core.clock().advance(Duration::from_secs(3600));
    let damage = |service: &mut Service| fs::write(service.path(), "{\"token\":").unwrap();
    let empty = |service: &mut Service| fs::write(service.path(), "").unwrap();
    let no_token = |service: &mut Service| {
        let text = fs::read_to_string(service.path()).unwrap();
        let (start, _) = text.split_once("ey").unwrap();
        fs::write(service.path(), format!("{start}abc\"}}")).unwrap();
    };
    let refused = |service: &mut Service| {
        service.verifier = Some(service.core.verifier().audience("inventory"));
    };
    type Spoil = fn(&mut Service);
    let mut cases: Vec<(Spoil, &str)> = vec![
        (other_request, "it holds the token of another request"),
        (expire, "the token has expired"),
        (damage, "it is corrupt"),
        (empty, "it is corrupt"),
        (no_token, "not a JWT"),
        (refused, "the verifier rejects the minted token"),
    ];
    #[cfg(unix)]
    {
        use std::os::unix::fs::{PermissionsExt, symlink};
        cases.push((
            |service| {
                let mode = fs::Permissions::from_mode(0o660);
                fs::set_permissions(service.path(), mode).unwrap();
            },
            "fsGroupChangePolicy",
        ));
        cases.push((
            |service| {
                let target = service.folder.path().join("target");
                fs::rename(service.path(), &target).unwrap();
                symlink(target, service.path()).unwrap();
            },
            "it is a symbolic link",
        ));
    }
    for (spoil, reason) in cases {
        service.core.set_down(false);
        (service.request, service.verifier) = ("request", None);
        let _ = fs::remove_file(&path);
        drop(service.start().await.unwrap());
        service.core.set_down(true);
        spoil(&mut service);
        let (logs, start) = (Logs::of_this_thread(), Instant::now());
        let err = service.start().await.unwrap_err();
        assert!(matches!(err, MintError::Unreachable { .. }), "{reason}: {err:?}");
        assert!((29..=31).contains(&start.elapsed().as_secs()), "{reason}: {:?}", start.elapsed());
        assert_eq!(logs.count(USED), 0, "{reason}");
        assert!(logs.text().contains(reason), "{reason}: {}", logs.text());
        assert!(!logs.text().contains("eyJ"), "{reason}: {}", logs.text());

        // The next mint replaces it.
        service.core.set_down(false);
        (service.request, service.verifier) = ("request", None);
        drop(service.start().await.unwrap());
        service.core.set_down(true);
        assert!(service.start().await.is_ok(), "{reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn missing_file_is_not_logged() {
    let service = Service::new(3600);
    service.core.set_down(true);
    let logs = Logs::of_this_thread();
    let err = service.start().await.unwrap_err();
    assert!(!logs.text().contains("cache"), "{}", logs.text());
    let text = Chain(&err).to_string();
    assert_eq!(text, "the core at http://core cannot be reached: Connection refused");
}

#[tokio::test(start_paused = true)]
async fn rejected_token_is_removed_from_the_file() {
    let service = Service::new(3_153_600_000);
    let token = service.start_with(RenewalPolicy::OnRejection).await.unwrap();
    assert!(service.path().exists());
    service.core.set_down(true);
    reject(&token, value(&token).1);
    pass(1).await;
    assert!(!service.path().exists());

    // The next one is stored. Its rejection causes no mint, because it comes too soon.
    service.core.set_down(false);
    pass(30).await;
    reject(&token, value(&token).1);
    pass(1).await;
    assert!(service.path().exists());
    let second = value(&token).1;
    reject(&token, second);
    pass(1).await;
    assert_eq!((value(&token).1, service.path().exists()), (second, false));
}

#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn file_is_private_and_holds_no_request() {
    use std::os::unix::fs::PermissionsExt;

    let service = Service::new(3600);
    let token = service.start().await.unwrap();
    let mode = fs::metadata(service.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = fs::read_to_string(service.path()).unwrap();
    let jwt = token.header_value().to_str().unwrap().replace("Bearer ", "");
    assert!(text.contains(&jwt) && !text.contains("\"request\""), "{text}");
    assert_eq!(fs::read_dir(service.folder.path()).unwrap().count(), 1, "no temporary file");
}

#[tokio::test(start_paused = true)]
async fn failed_write_of_the_file_is_logged_as_a_warning() {
    let service = Service::new(3600);
    fs::create_dir(service.path()).unwrap();
    let logs = Logs::of_this_thread();
    assert!(service.start().await.is_ok());
    assert_eq!(logs.count("token cache file not written"), 1, "{}", logs.text());
}

/// A core that takes 2 s for each mint.
struct SlowCore(Core);

impl Mint for SlowCore {
    async fn mint(&self, deadline: Instant) -> Result<TokenValue, MintError> {
        pass(2).await;
        self.0.mint(deadline).await
    }

    fn timeout(&self) -> Duration {
        self.0.timeout()
    }
}

#[tokio::test(start_paused = true)]
async fn rejected_token_is_removed_if_the_new_one_is_not_stored() {
    let service = Service::new(3600);
    let first = service.start().await.unwrap().header_value();
    // The longest name of a file has 255 bytes, and that of the temporary file 17 more than this.
    let path = service.folder.path().join("x".repeat(245));
    fs::rename(service.path(), &path).unwrap();
    service.core.set_down(true);
    let start_up = StartUp {
        policy: RenewalPolicy::BeforeExpiry,
        timeout: Duration::from_secs(30),
        verifier: None,
        cache_file: Some(CacheFile::new(path.clone(), service.request)),
        clock: service.core.clock().shared(),
    };
    let token = start_up.mint(SlowCore(service.core.clone())).await.unwrap();
    assert_eq!(token.header_value(), first);
    service.core.set_down(false);
    let logs = Logs::of_this_thread();
    while !token.ensure_minting_within(Duration::ZERO) {
        pass(1).await;
    }
    reject(&token, value(&token).1);
    assert!(path.exists(), "the mint has begun before the rejection");
    pass(5).await;
    assert_ne!(token.header_value(), first);
    assert_eq!(logs.count("token cache file not written"), 1, "{}", logs.text());
    assert!(!path.exists());
}

#[tokio::test(start_paused = true)]
async fn failed_removal_is_warned_of_once_and_repeated() {
    let service = Service::new(3_153_600_000);
    fs::create_dir(service.path()).unwrap();
    let token = service.start_with(RenewalPolicy::OnRejection).await.unwrap();
    service.core.set_down(true);
    let logs = Logs::of_this_thread();
    for _ in 0..10 {
        reject(&token, value(&token).1);
        pass(1).await;
    }
    assert_eq!(logs.count("token cache file not removed"), 1, "{}", logs.text());
    fs::remove_dir(service.path()).unwrap();
    fs::write(service.path(), "").unwrap();
    pass(60).await;
    assert!(!service.path().exists());
}
