//! The example `chain`. `tests/example_tables.rs` checks that its table notices a hop that differs.

use super::*;

#[test]
fn chain_prints_a_row_for_each_hop_and_succeeds() {
    let output = run("chain", &[]);
    let printed = text(&output.stdout);
    let mut rows = printed.lines().filter(|line| line.starts_with('✓'));
    let by_shop = "caller shop, user user-1";
    for (service, status, seen) in [
        ("orders", 200, by_shop),
        ("billing", 200, "caller orders, user user-1"),
        ("orders", 403, "caller shop, no user: no credential"),
        ("orders", 403, "caller shop, no user: the token has expired"),
        ("orders", 403, "caller shop, no user: the signature is not valid"),
        ("orders", 403, "caller shop, no user: not a session"),
        ("orders", 502, by_shop),
        ("billing", 403, "a required claim is missing or not accepted"),
        ("billing", 401, "the token is for another audience"),
        ("orders", 401, "the issuer is not accepted"),
    ] {
        let case = format!("at {service}");
        let expected = format!("✓ {case:26}  {status:<8}  {status:<8}  {seen}");
        assert_eq!(rows.next(), Some(&*expected), "{printed}");
    }
    let last = printed.lines().last().unwrap();
    assert!(
        rows.next().is_none() && last.starts_with("10 of 10 hops as expected, in "),
        "{printed}"
    );
    assert!(!printed.contains("eyJ") && !printed.contains('\x1b'), "{printed}");
    assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]));
}
