//! The dates in claims (RFC 7519 §2).

use super::json::RawValue;

/// From 2^53 on, not every integer is exact in every JSON parser (RFC 7493 §2.2).
const LIMIT: u64 = 1 << 53;

/// A NumericDate (RFC 7519 §2): seconds since the Unix epoch, possibly with a fraction. A check
/// uses the stricter of the two whole seconds, for instance `floor` for `exp` and `ceil` for `nbf`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NumericDate {
    pub(crate) floor: u64,
    pub(crate) ceil: u64,
}

impl NumericDate {
    /// Reads a JSON number from 0 up to, and not including, 2^53. `None` for anything else.
    ///
    /// The number is not parsed as an `f64`, which would round a fraction of many nines up to the
    /// next second.
    pub(crate) fn read(value: RawValue<'_>) -> Option<Self> {
        let text = std::str::from_utf8(value.as_bytes()).ok()?;
        let (text, is_negative) = text.strip_prefix('-').map_or((text, false), |text| (text, true));
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
        // `fold` has no early exit, so it vectorizes: a token can hold thousands of digits.
        let is_number = |digits: &str| {
            !digits.is_empty()
                && digits.bytes().fold(true, |all, digit| all & digit.is_ascii_digit())
        };
        if !is_number(whole) || !is_number(fraction) {
            return None;
        }

        // The exponent moves the decimal point; the digits before it are the whole seconds.
        let whole_digits = i64::try_from(whole.len()).ok()?.saturating_add(exponent);
        let mut digits = whole.bytes().chain(fraction.bytes());
        let mut floor = 0;
        for _ in 0..whole_digits {
            match digits.next() {
                Some(digit) => floor = append(floor, digit)?,
                None if floor == 0 => break,
                None => floor = append(floor, b'0')?,
            }
        }
        let date = Self { floor, ceil: floor + u64::from(digits.any(|digit| digit != b'0')) };
        (!is_negative || date.ceil == 0).then_some(date)
    }
}

/// Appends a decimal digit. `None` if the number reaches the limit.
fn append(number: u64, digit: u8) -> Option<u64> {
    Some(number * 10 + u64::from(digit - b'0')).filter(|number| *number < LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<(u64, u64)> {
        let json = format!(r#"{{"exp":{text}}}"#);
        let mut date = None;
        super::super::json::members(json.as_bytes(), |_, value| {
            date = NumericDate::read(value);
            Some(())
        });
        date.map(|date| (date.floor, date.ceil))
    }

    #[test]
    fn dates_are_read_digit_by_digit() {
        let nines = format!("1800000000.{}", "9".repeat(400));
        let cases = [
            ("0", Some((0, 0))),
            ("-0", Some((0, 0))),
            ("-0.0", Some((0, 0))),
            ("1800000000", Some((1_800_000_000, 1_800_000_000))),
            ("1800000000.0", Some((1_800_000_000, 1_800_000_000))),
            ("1800000000.5", Some((1_800_000_000, 1_800_000_001))),
            (&nines, Some((1_800_000_000, 1_800_000_001))),
            ("1.8e9", Some((1_800_000_000, 1_800_000_000))),
            ("1.8E+9", Some((1_800_000_000, 1_800_000_000))),
            ("18000000005e-1", Some((1_800_000_000, 1_800_000_001))),
            ("18000000000e-1", Some((1_800_000_000, 1_800_000_000))),
            ("1e-9", Some((0, 1))),
            ("0e99999", Some((0, 0))),
            ("0.000e9223372036854775807", Some((0, 0))),
            ("9007199254740991", Some(((1 << 53) - 1, (1 << 53) - 1))),
            ("9007199254740992", None),
            ("18446744073709551615", None),
            ("99999999999999999999999999", None),
            ("1e16", None),
            ("1e308", None),
            ("1e99999999999999999999", None),
            ("-1", None),
            ("-0.1", None),
            ("\"1\"", None),
            ("null", None),
            ("true", None),
            ("[1]", None),
            ("{}", None),
            ("1.", None),
            ("+1", None),
            ("1e", None),
        ];
        for (text, expected) in cases {
            assert_eq!(read(text), expected, "{}", &text[..text.len().min(40)]);
        }
    }

    #[test]
    fn floor_and_ceil_of_a_date_are_exact() {
        let mut rng = fastrand::Rng::with_seed(14);
        for _ in 0..2000 {
            // Of any length: most numbers below 2^52 are longer than a date.
            let whole = rng.u64(..1 << 52) >> rng.u32(..52);
            let (thousandths, exponent) = (rng.u64(..1000), rng.i32(-3..4));
            let text = format!("{whole}.{thousandths:03}e{exponent}");
            let exact = u128::from(whole) * 1000 + u128::from(thousandths);
            let (scaled, unit) = match exponent {
                0.. => (exact * 10_u128.pow(exponent.unsigned_abs()), 1000),
                _ => (exact, 1000 * 10_u128.pow(exponent.unsigned_abs())),
            };
            let expected = (scaled / unit, scaled.div_ceil(unit));
            let expected = (expected.0 < u128::from(LIMIT)).then_some(expected);
            let date = read(&text).map(|(floor, ceil)| (floor.into(), ceil.into()));
            assert_eq!(date, expected, "{text}");
        }
    }
}
