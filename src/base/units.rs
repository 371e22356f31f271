//! Durations (`"250ms"`, `"1h30m"`) and byte sizes (`"64KiB"`) as written in the configuration.

use std::time::Duration;

/// Largest unit first, as they must stand in a duration; in nanoseconds.
const DURATION_UNITS: [(&str, u64); 6] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
];

/// In bytes.
const SIZE_UNITS: [(&str, u64); 8] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

/// Reads a duration: one or more `number unit` pairs without spaces, units `d`, `h`, `m`, `s`, `ms`, `us`, the larger
/// before the smaller, each at most once. At most 2^64 - 1 nanoseconds (584 years).
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if text.is_empty() {
        return Err("an empty string is not a duration".into());
    }
    let too_long = || format!("`{text}` is too long for a duration");
    let mut nanos = 0u64;
    let mut allowed = DURATION_UNITS.as_slice();
    let mut rest = text;
    while !rest.is_empty() {
        let (digits, after) = split_number(rest);
        if digits.is_empty() {
            return Err(not_a_number(text, "duration", rest));
        }
        let unit = after
            .split(|c: char| !c.is_alphabetic() && c != 'µ')
            .next()
            .unwrap_or("");
        rest = after.strip_prefix(unit).unwrap_or("");
        if unit.is_empty() {
            return Err(match after {
                "" => format!("`{text}` has no unit: write `{text}s` or `{text}ms`"),
                _ => not_a_number(text, "duration", after),
            });
        }
        let Some(at) = allowed.iter().position(|(name, _)| *name == unit) else {
            return Err(match DURATION_UNITS.iter().any(|(name, _)| *name == unit) {
                true => format!("`{text}`: larger units stand before smaller ones, each at most once"),
                false => format!("`{text}`: there is no unit `{unit}`, only `d`, `h`, `m`, `s`, `ms` and `us`"),
            });
        };
        // `at` is a position in `allowed`, so neither index below can fail.
        let number: u64 = digits.parse().map_err(|_| too_long())?;
        let part = number.checked_mul(allowed[at].1).ok_or_else(too_long)?;
        nanos = nanos.checked_add(part).ok_or_else(too_long)?;
        allowed = &allowed[at + 1..];
    }
    Ok(Duration::from_nanos(nanos))
}

/// Reads a size in bytes: a whole number and `B`, `KiB`, `MiB`, `GiB`, `TiB` (or `KB`, `MB`, `GB`: powers of 1000),
/// without a space. At most 2^64 - 1 bytes.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, unit) = split_number(text);
    if digits.is_empty() {
        return Err(match text {
            "" => "an empty string is not a size".into(),
            _ => not_a_number(text, "size", text),
        });
    }
    if unit.is_empty() {
        return Err(format!("`{text}` has no unit: write `{text}B` or `{text}KiB`"));
    }
    let Some((_, bytes)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(match unit.chars().all(char::is_alphabetic) {
            true => format!(
                "`{text}`: there is no unit `{unit}`, only `B`, `KiB`, `MiB`, `GiB`, `TiB`, and `KB`, `MB`, `GB` for powers of 1000"
            ),
            false => not_a_number(text, "size", unit),
        });
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(*bytes))
        .ok_or_else(|| format!("`{text}` is too large for a size"))
}

fn split_number(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

/// `rest` starts with something that is neither digit nor unit.
fn not_a_number(text: &str, what: &str, rest: &str) -> String {
    match rest.chars().next() {
        Some(c) if c.is_whitespace() => format!("`{text}` is not a {what}: no spaces stand in one"),
        Some('.' | ',') => format!("`{text}` is not a {what}: only whole numbers, use a smaller unit"),
        Some('-' | '+') => format!("`{text}` is not a {what}: no sign stands in one"),
        _ => format!("`{text}` is not a {what}: a number stands before each unit"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_durations() {
        for (text, nanos) in [
            ("250ms", 250_000_000),
            ("5s", 5_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1d2h3m4s5ms6us", 93_784_005_006_000),
            ("0s", 0),
            ("90m", 5_400_000_000_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn reads_sizes() {
        for (text, bytes) in [
            ("0B", 0),
            ("64KiB", 65_536),
            ("256MiB", 268_435_456),
            ("1GB", 1_000_000_000),
            ("2TiB", 2 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest_with_a_reason() {
        for (text, part) in [
            ("", "empty"),
            ("5", "no unit: write `5s`"),
            ("5 s", "no spaces"),
            ("1.5s", "whole numbers"),
            ("-1s", "no sign"),
            ("s", "a number stands before"),
            ("5sec", "no unit `sec`"),
            ("5S", "no unit `S`"),
            ("5µs", "no unit `µs`"),
            ("30m1h", "larger units"),
            ("1s1s", "larger units"),
            ("1h30", "no unit"),
            ("99999999999999999999s", "too long"),
            ("300000d", "too long"),
            ("213503d213503h9999999999m", "too long"),
        ] {
            let error = parse_duration(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        for (text, part) in [
            ("", "empty"),
            ("64", "no unit: write `64B`"),
            ("64 KiB", "no spaces"),
            ("64kib", "no unit `kib`"),
            ("1.5GiB", "whole numbers"),
            ("-1B", "no sign"),
            ("KiB", "a number stands before"),
            ("16777216TiB", "too large"),
            ("99999999999999999999B", "too large"),
        ] {
            let error = parse_size(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,24}") {
            let _ = parse_duration(&text);
            let _ = parse_size(&text);
        }

        #[test]
        fn looks_like_one_and_never_panics(text in "([0-9]{0,22}(us|ms|s|m|h|d|B|KiB|GB| |\\.|µ)?){0,4}") {
            let _ = parse_duration(&text);
            let _ = parse_size(&text);
        }

        #[test]
        fn a_duration_is_the_sum_of_its_parts(d in 0u64..200_000, h in 0u64..1000, ms in 0u64..1_000_000) {
            let sum = Duration::from_secs(d * 86_400 + h * 3_600) + Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&format!("{d}d{h}h{ms}ms")), Ok(sum));
        }

        #[test]
        fn a_size_is_its_number_times_its_unit(n in any::<u64>(), unit in 0usize..SIZE_UNITS.len()) {
            let (name, bytes) = SIZE_UNITS[unit];
            prop_assert_eq!(parse_size(&format!("{n}{name}")).ok(), n.checked_mul(bytes));
        }
    }
}
