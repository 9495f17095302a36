//! The example `grpc`. `tests/example_tables.rs` checks that its table notices a call that differs.

use super::*;

#[test]
fn grpc_prints_a_row_for_each_call_and_succeeds() {
    let output = run("grpc", &[]);
    let printed = text(&output.stdout);
    let rows: Vec<_> = printed.lines().filter(|line| line.starts_with('✓')).collect();
    let expected = [
        ("Charge", "Ok", "orders: 500 cents"),
        ("ChargeInParts", "Ok", "orders: 250, 251 cents"),
        ("ChargeAll", "Ok", "orders: 600 cents"),
        ("ChargeEach", "Ok", "orders: 100, 200, 300 cents"),
        ("Charge, with an interceptor", "Ok", "orders: 500 cents"),
        ("Health/Check, no token", "Ok", "its service has no layer"),
        ("Charge, no token", "Unauthenticated", "no credential"),
        ("Charge, forged", "Unauthenticated", "the signature is not valid"),
        ("Charge, expired", "Unauthenticated", "the token has expired"),
        ("Charge, without marker", "PermissionDenied", "the marker of a service"),
        ("Charge, another audience", "Unauthenticated", "the token is for another audience"),
        ("ChargeInParts, no token", "Unauthenticated", "no credential"),
        ("ChargeEach, no token", "Unauthenticated", "no credential"),
        ("Refund", "PermissionDenied", "a required claim is missing"),
        ("Refund, by refunds", "Ok", "refunds: 500 cents"),
        ("Charge, M2 has no keys", "Unavailable", "the verification keys are not loaded yet"),
        ("ChargeEach, the token ends", "Unauthenticated", "orders: 100, 200 cents; then the token"),
        ("ChargeEach, with the next token", "Ok", "orders: 300 cents"),
    ];
    assert_eq!(rows.len(), expected.len(), "{printed}");
    for (call, code, message) in expected {
        let expected = format!("✓ {call:34}  {code:16}  {code:16}  {message}");
        assert!(rows.iter().any(|row| row.starts_with(&expected)), "{expected}\n{printed}");
    }
    let last = printed.lines().last().unwrap();
    assert!(last.starts_with(&format!("{0} of {0} calls as expected, in ", rows.len())), "{last}");
    assert!(!printed.contains("eyJ") && !printed.contains('\x1b'), "{printed}");
    assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]));
}

#[test]
fn rust_log_selects_what_grpc_logs() {
    for (filter, is_logged) in [("warn", true), ("tower_m2m::server=debug", true), ("off", false)] {
        let output = example("grpc").env("RUST_LOG", filter).output().unwrap();
        let log = text(&output.stderr);
        assert_eq!(log.contains("requests refused reason=BadSignature"), is_logged, "{log}");
        assert_eq!(log.contains(" DEBUG "), filter.ends_with("debug"), "{log}");
        assert!(!log.contains("eyJ"), "{log}");
        assert_eq!(output.status.code(), Some(0), "{log}");
    }
}
