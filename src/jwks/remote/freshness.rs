//! The freshness lifetime of a response, and the delays before the next fetch. Pure functions.

use std::ops::RangeInclusive;
use std::time::{Duration, UNIX_EPOCH};

use http::header::{AGE, CACHE_CONTROL, DATE, EXPIRES};
use http::{HeaderMap, HeaderValue};

/// The freshness lifetime of a response without `max-age` and `Expires`.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(600);
const FIRST_BACK_OFF: Duration = Duration::from_secs(1);
const MAX_BACK_OFF: Duration = Duration::from_secs(60);
const MIN_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The freshness lifetime of a response with these headers: that of `Cache-Control`, or else
/// `Expires` minus `Date` minus `Age` (RFC 9111 §4.2.1). `now`, in Unix seconds, replaces a missing
/// or malformed `Date`.
///
/// It is zero if `Expires` is malformed (RFC 9111 §5.3: the response has expired).
pub(super) fn lifetime(headers: &HeaderMap, now: u64) -> Option<Duration> {
    let age = headers.get(AGE);
    freshness(headers.get_all(CACHE_CONTROL), age).or_else(|| {
        let expires = date(headers.get(EXPIRES)?).unwrap_or_default();
        let date = headers.get(DATE).and_then(date).unwrap_or(Duration::from_secs(now));
        let age = age.map_or(Duration::ZERO, |age| seconds(age.as_bytes()));
        Some(expires.saturating_sub(date).saturating_sub(age))
    })
}

/// Parses an HTTP date (RFC 9110 §5.6.7) as the time since the Unix epoch.
fn date(value: &HeaderValue) -> Option<Duration> {
    httpdate::parse_http_date(value.to_str().ok()?).ok()?.duration_since(UNIX_EPOCH).ok()
}

/// The freshness lifetime of a response: `Cache-Control: max-age` minus `Age` (RFC 9111 §4.2).
/// `None` without a `max-age`.
///
/// It is zero if `max-age` is malformed (RFC 9111 §4.2.1: such a response counts as stale), or with
/// `no-store` or `no-cache`. A malformed `Age` counts as zero.
pub(crate) fn freshness<'h>(
    cache_control: impl IntoIterator<Item = &'h HeaderValue>,
    age: Option<&HeaderValue>,
) -> Option<Duration> {
    let mut max_age = None;
    for value in cache_control {
        for directive in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            let (name, argument) = match directive.iter().position(|byte| *byte == b'=') {
                Some(at) => (&directive[..at], &directive[at + 1..]),
                None => (directive, &b""[..]),
            };
            if name.eq_ignore_ascii_case(b"no-store") || name.eq_ignore_ascii_case(b"no-cache") {
                return Some(Duration::ZERO);
            }
            if name.eq_ignore_ascii_case(b"max-age") {
                // Of several the first counts, as RFC 9111 §4.2.1 allows.
                max_age = max_age.or(Some(seconds(argument)));
            }
        }
    }
    Some(max_age?.saturating_sub(age.map_or(Duration::ZERO, |age| seconds(age.as_bytes()))))
}

/// Clamps a lifetime to `min_age` … `max_age`; `max_age` takes precedence. 10 min if the response
/// has no `max-age` and no `Expires`.
pub(crate) fn clamp(lifetime: Option<Duration>, min_age: Duration, max_age: Duration) -> Duration {
    lifetime.unwrap_or(DEFAULT_LIFETIME).max(min_age).min(max_age)
}

/// The time from the start of a fetch to the start of the next: 80 % of the lifetime, ±10 % so that
/// many instances do not fetch at the same moment.
///
/// It is at most the lifetime minus `timeout`, so that the next fetch ends while the set is fresh,
/// or at most half the lifetime if that is longer.
pub(super) fn refresh_after(
    lifetime: Duration,
    timeout: Duration,
    rng: &mut fastrand::Rng,
) -> Duration {
    let latest = lifetime.saturating_sub(timeout).max(lifetime / 2);
    lifetime.mul_f64(0.8 * draw(rng, 0.9..=1.1)).min(latest)
}

/// The minimum time from the start of a fetch to the start of the next one that looks for an
/// unlisted key: a 60th of the lifetime, and at least 1 s.
pub(super) fn look_interval(lifetime: Duration) -> Duration {
    (lifetime / 60).max(MIN_LOOK_INTERVAL)
}

/// The delay after this many consecutive failures: a random 50 % to 100 % of a back-off that
/// doubles from 1 s to 60 s.
pub(super) fn back_off(failures: u32, rng: &mut fastrand::Rng) -> Duration {
    let doubled = FIRST_BACK_OFF.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(MAX_BACK_OFF).mul_f64(draw(rng, 0.5..=1.0))
}

fn draw(rng: &mut fastrand::Rng, range: RangeInclusive<f64>) -> f64 {
    range.start() + rng.f64() * (range.end() - range.start())
}

/// Parses delta-seconds (RFC 9111 §1.2.2), quoted or not. Saturates; malformed text is zero.
fn seconds(text: &[u8]) -> Duration {
    let text = text.trim_ascii();
    let digits = text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(text);
    if !digits.iter().all(u8::is_ascii_digit) {
        return Duration::ZERO;
    }
    let add = |sum: u64, digit: &u8| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    Duration::from_secs(digits.iter().fold(0, add))
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn read(cache_control: &[&str], age: Option<&str>) -> Option<u64> {
        let values: Vec<_> =
            cache_control.iter().map(|value| HeaderValue::from_str(value).unwrap()).collect();
        let age = age.map(|age| HeaderValue::from_str(age).unwrap());
        freshness(&values, age.as_ref()).map(|lifetime| lifetime.as_secs())
    }

    #[test]
    fn freshness_is_max_age_minus_age() {
        let cases: &[(&[&str], Option<&str>, Option<u64>)] = &[
            (&[], None, None),
            (&["public"], Some("5"), None),
            (&["max-age=600"], None, Some(600)),
            (&["max-age=600, must-revalidate"], Some("100"), Some(500)),
            (&["public", "MAX-AGE=\"600\""], None, Some(600)),
            (&["max-age=60"], Some("100"), Some(0)),
            (&["max-age=60"], Some("garbage"), Some(60)),
            (&["max-age=0"], None, Some(0)),
            (&["max-age=-1"], None, Some(0)),
            (&["max-age=ten"], None, Some(0)),
            (&["max-age"], None, Some(0)),
            (&["max-age=1.5"], None, Some(0)),
            (&["max-age=99999999999999999999999"], None, Some(u64::MAX)),
            (&["no-store, max-age=600"], None, Some(0)),
            (&["max-age=600, no-cache"], None, Some(0)),
            (&["s-maxage=600"], None, None),
            (&["max-age=10, max-age=20"], None, Some(10)),
        ];
        for (cache_control, age, expected) in cases {
            assert_eq!(read(cache_control, *age), *expected, "{cache_control:?} {age:?}");
        }
    }

    #[test]
    fn expires_counts_without_max_age() {
        const DATE: (&str, &str) = ("date", "Sun, 06 Nov 1994 08:00:00 GMT");
        const EXPIRES: (&str, &str) = ("expires", "Sun, 06 Nov 1994 08:20:00 GMT");
        // 08:10:00 on that day.
        let now = 784_109_400;
        type Lines = [(&'static str, &'static str)];
        let cases: [(&Lines, Option<u64>); 11] = [
            (&[], None),
            (&[DATE], None),
            (&[DATE, EXPIRES], Some(1200)),
            (&[DATE, EXPIRES, ("age", "100")], Some(1100)),
            (&[DATE, EXPIRES, ("age", "9999")], Some(0)),
            (&[EXPIRES], Some(600)),
            (&[EXPIRES, ("date", "garbage")], Some(600)),
            (&[DATE, ("expires", "0")], Some(0)),
            (&[DATE, ("expires", "Sun, 06 Nov 1994 07:00:00 GMT")], Some(0)),
            (&[DATE, EXPIRES, ("cache-control", "max-age=60")], Some(60)),
            (&[DATE, EXPIRES, ("cache-control", "no-cache")], Some(0)),
        ];
        for (lines, expected) in cases {
            let pairs = lines.iter().map(|(name, value)| {
                (HeaderName::from_static(name), HeaderValue::from_static(value))
            });
            let found = lifetime(&pairs.collect(), now).map(|lifetime| lifetime.as_secs());
            assert_eq!(found, expected, "{lines:?}");
        }
    }

    #[test]
    fn lifetimes_are_clamped() {
        // (lifetime, min_age, max_age, clamped)
        let cases = [
            (None, 30, 3600, 600),
            (Some(0), 30, 3600, 30),
            (Some(29), 30, 3600, 30),
            (Some(31), 30, 3600, 31),
            (Some(u64::MAX), 30, 3600, 3600),
            (None, 900, 3600, 900),
            (Some(0), 0, 3600, 0),
            (Some(3600), 30, 1, 1),
            (None, 30, 1, 1),
        ];
        for (lifetime, min_age, max_age, expected) in cases {
            let [min_age, max_age] = [min_age, max_age].map(Duration::from_secs);
            let clamped = clamp(lifetime.map(Duration::from_secs), min_age, max_age);
            assert_eq!(clamped.as_secs(), expected, "{lifetime:?} {min_age:?} {max_age:?}");
        }
    }

    #[test]
    fn delays_stay_in_their_ranges() {
        for seed in 0..1000 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let timeout = Duration::from_secs(5);
            for (lifetime, least, most) in [(100, 72.0, 88.0), (30, 21.6, 25.0), (8, 4.0, 4.0)] {
                let after =
                    refresh_after(Duration::from_secs(lifetime), timeout, &mut rng).as_secs_f64();
                assert!((least..=most).contains(&after), "{after}");
            }
            for (failures, doubled) in [(1, 1.0), (2, 2.0), (6, 32.0), (7, 60.0), (u32::MAX, 60.0)]
            {
                let delay = back_off(failures, &mut rng).as_secs_f64();
                assert!((doubled / 2.0..=doubled).contains(&delay), "{failures}: {delay}");
            }
        }
    }
}
