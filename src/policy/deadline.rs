//! How much time a client gives its request: in `grpc-timeout`, or in a field of the operator's choice. What is left of it
//! is passed on.

use std::time::Duration;

use crate::base::units::parse_duration;

/// Longer is no limit: nobody waits for a year.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// `grpc-timeout`: up to eight digits and a unit (gRPC over HTTP/2, "Requests"). `None`: it is none.
pub fn grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.len() > 8 {
        return None;
    }
    let number = number(digits)?;
    let timeout = match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    };
    Some(timeout.min(LONGEST))
}

/// What is left, as `grpc-timeout` says it: in the finest unit whose number has eight digits at most.
pub fn to_grpc_timeout(left: Duration) -> String {
    const MOST: u128 = 99_999_999;
    match left {
        _ if left.as_nanos() <= MOST => format!("{}n", left.as_nanos()),
        _ if left.as_micros() <= MOST => format!("{}u", left.as_micros()),
        _ if left.as_millis() <= MOST => format!("{}m", left.as_millis()),
        _ => format!("{}S", u128::from(left.as_secs()).min(MOST)),
    }
}

/// Another field: a number of milliseconds, or a duration such as `1s`, `250ms`. `None`: it is none.
pub fn timeout(value: &[u8]) -> Option<Duration> {
    let timeout = match number(value) {
        Some(millis) => Duration::from_millis(millis),
        None => parse_duration(std::str::from_utf8(value).ok()?).ok()?,
    };
    Some(timeout.min(LONGEST))
}

/// What is left, in the form that `before` had.
pub fn to_timeout(left: Duration, before: &[u8]) -> String {
    match number(before) {
        Some(_) => left.as_millis().to_string(),
        None => format!("{}ms", left.as_millis()),
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 15 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn grpc_timeouts_have_up_to_eight_digits_and_a_unit() {
        let read = |text: &str| grpc_timeout(text.as_bytes());
        assert_eq!(read("1H"), Some(Duration::from_secs(3600)));
        assert_eq!(read("2M"), Some(Duration::from_secs(120)));
        assert_eq!(read("3S"), Some(Duration::from_secs(3)));
        assert_eq!(read("100m"), Some(Duration::from_millis(100)));
        assert_eq!(read("0n"), Some(Duration::ZERO));
        assert_eq!(read("99999999u"), Some(Duration::from_micros(99_999_999)));
        assert_eq!(read("99999999H"), Some(LONGEST));
        for text in ["", "S", "1", "1s", "123456789n", "-1S", "+1S", "1.5S", " 1S", "1 S"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn other_fields_say_milliseconds_or_with_a_unit() {
        let read = |text: &str| timeout(text.as_bytes());
        assert_eq!(read("1500"), Some(Duration::from_millis(1500)));
        assert_eq!(read("2s"), Some(Duration::from_secs(2)));
        assert_eq!(read("0"), Some(Duration::ZERO));
        assert_eq!(read("999999999999999"), Some(LONGEST));
        for text in ["", "soon", "-5", "1.5", "99999999999999999999", "5 parsecs"] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(timeout(b"\xff1"), None);
        let left = Duration::from_micros(1_234_567);
        assert_eq!(
            (to_timeout(left, b"9000"), to_timeout(left, b"9s")),
            ("1234".into(), "1234ms".into())
        );
    }

    proptest! {
        /// What is passed on is never more than what is left, and hardly less.
        #[test]
        fn what_is_left_is_told_truly(nanos in 0u64..31_536_000_000_000_000) {
            let left = Duration::from_nanos(nanos);
            let told = grpc_timeout(to_grpc_timeout(left).as_bytes()).unwrap();
            prop_assert!(told <= left);
            let lost = (left - told).as_secs_f64() / left.as_secs_f64().max(1e-9);
            prop_assert!(lost < 1e-4, "{left:?} told as {told:?}");
            let told = timeout(to_timeout(left, b"1s").as_bytes()).unwrap();
            prop_assert!(told <= left && left - told < Duration::from_millis(1));
        }

        #[test]
        fn never_panics(value in prop::collection::vec(any::<u8>(), 0..24)) {
            let _ = (grpc_timeout(&value), timeout(&value));
        }
    }
}
