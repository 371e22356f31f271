//! Dates in fields, in the three forms of RFC 9110 section 5.6.7, as seconds since 1970. Letters may be in any case;
//! everything else is exact, for a date that is only nearly one makes a response stale.

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const LONG_DAYS: [&str; 7] = [
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
];
const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];

/// Reads a date. `now`: for the century of years with two digits.
pub fn parse(text: &[u8], now: i64) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?.to_ascii_lowercase();
    imf_fixdate(&text)
        .or_else(|| rfc850(&text, now))
        .or_else(|| asctime(&text))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn imf_fixdate(text: &str) -> Option<i64> {
    let rest = DAYS.iter().find_map(|day| text.strip_prefix(day))?.strip_prefix(", ")?;
    let date = rest.strip_suffix(" gmt")?;
    let [day, month, year, time] = parts(date, ' ')?;
    seconds(number(year, 4)?, month_of(month)?, number(day, 2)?, time)
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`
fn rfc850(text: &str, now: i64) -> Option<i64> {
    let rest = LONG_DAYS.iter().find_map(|day| text.strip_prefix(day))?;
    let (date, time) = rest.strip_prefix(", ")?.strip_suffix(" gmt")?.split_once(' ')?;
    let [day, month, year] = parts(date, '-')?;
    let (day, month, short) = (number(day, 2)?, month_of(month)?, number(year, 2)?);
    // More than 50 years ahead is the past (RFC 9110 section 5.6.7).
    let this_year = civil_year(now);
    let mut year = this_year - this_year % 100 + short;
    if year > this_year + 50 {
        year -= 100;
    }
    seconds(year, month, day, time)
}

/// `Sun Nov  6 08:49:37 1994`
fn asctime(text: &str) -> Option<i64> {
    let rest = DAYS.iter().find_map(|day| text.strip_prefix(day))?.strip_prefix(' ')?;
    let month = month_of(rest.get(..3)?)?;
    let day = rest.get(3..6)?.strip_prefix(' ')?;
    let day = match day.strip_prefix(' ') {
        Some(digit) => number(digit, 1)?,
        None => number(day, 2)?,
    };
    let [time, year] = parts(rest.get(6..)?.strip_prefix(' ')?, ' ')?;
    seconds(number(year, 4)?, month, day, time)
}

fn parts<const N: usize>(text: &str, separator: char) -> Option<[&str; N]> {
    let mut parts = text.split(separator);
    let mut found = [""; N];
    for slot in &mut found {
        *slot = parts.next()?;
    }
    parts.next().is_none().then_some(found)
}

fn number(text: &str, digits: usize) -> Option<i64> {
    let valid = text.len() == digits && text.bytes().all(|b| b.is_ascii_digit());
    valid.then(|| text.parse().ok()).flatten()
}

fn month_of(text: &str) -> Option<i64> {
    let index = MONTHS.iter().position(|month| *month == text)?;
    Some(index as i64 + 1)
}

fn seconds(year: i64, month: i64, day: i64, time: &str) -> Option<i64> {
    let [hour, minute, second] = parts(time, ':')?;
    let (hour, minute, second) = (number(hour, 2)?, number(minute, 2)?, number(second, 2)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    // A leap second is the second after it.
    let valid = (1..=last).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    valid.then(|| days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Days from 1970-01-01 (Hinnant, "chrono-compatible low-level date algorithms").
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn civil_year(now: i64) -> i64 {
    let z = now.div_euclid(86_400) + 719_468;
    let (era, of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    // From March on; January and February belong to the next year.
    year + era * 400 + i64::from(of_year >= 306)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_790_000_000;

    fn read(text: &str) -> Option<i64> {
        parse(text.as_bytes(), NOW)
    }

    #[test]
    fn all_three_forms_in_any_case() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "sun, 06 NOV 1994 08:49:37 gmt",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(read(text), Some(784_111_777), "{text}");
        }
        assert_eq!(read("Tue, 19 Jan 2038 03:14:07 GMT"), Some(i64::from(i32::MAX)));
        assert_eq!(read("Thu, 29 Feb 2024 23:59:60 GMT"), Some(1_709_251_200));
        // 2076 is 50 years ahead, 2077 would be 51.
        assert!(read("Sunday, 06-Nov-76 08:49:37 GMT").unwrap() > NOW);
        assert!(read("Sunday, 06-Nov-77 08:49:37 GMT").unwrap() < NOW);
    }

    #[test]
    fn what_is_only_nearly_a_date_is_none() {
        for text in [
            "",
            "0",
            "-1",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 AEST",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun 06 Nov 1994 08:49:37 GMT",
            "Sun, 06  Nov 1994 08:49:37 GMT",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08.49.37 GMT",
            "Sun, 06 Nov 1994 8:49:37 GMT",
            "Sun, 31 Nov 1994 08:49:37 GMT",
            "Sun, 29 Feb 2023 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT GMT",
            "Son, 06 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn reads_what_others_write(secs in 0i64..253_402_300_799) {
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(secs as u64);
            prop_assert_eq!(read(&httpdate::fmt_http_date(time)), Some(secs));
            let year = time::OffsetDateTime::from(time).year();
            prop_assert_eq!(civil_year(secs), i64::from(year));
        }

        #[test]
        fn nothing_makes_it_panic(text in prop::collection::vec(any::<u8>(), 0..40), now in any::<i64>()) {
            let _ = parse(&text, now.clamp(-1 << 40, 1 << 40));
        }
    }
}
