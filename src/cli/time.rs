//! Points in time on the command line.

use toml::value::{Datetime, Offset};

/// Reads milliseconds since the Unix epoch, or a date and time such as `2026-11-20T08:30:00Z`
/// (RFC 3339; UTC if it names no zone, midnight if it names no time).
pub(super) fn parse_ms(text: &str) -> Result<i64, String> {
    const EXPECTED: &str = "expected milliseconds since 1970 or a time like 2026-11-20T08:30:00Z";
    if let Ok(ms) = text.parse() {
        return Ok(ms);
    }
    let parsed: Datetime = text.parse().map_err(|_| EXPECTED.to_owned())?;
    let date = parsed.date.ok_or_else(|| EXPECTED.to_owned())?;
    let days = days_since_epoch(date.year.into(), date.month.into(), date.day.into());
    let mut ms = days * 86_400_000;
    if let Some(time) = parsed.time {
        ms += i64::from(time.hour) * 3_600_000 + i64::from(time.minute) * 60_000;
        ms += i64::from(time.second.unwrap_or(0)) * 1_000;
        ms += i64::from(time.nanosecond.unwrap_or(0)) / 1_000_000;
    }
    if let Some(Offset::Custom { minutes }) = parsed.offset {
        ms -= i64::from(minutes) * 60_000;
    }
    Ok(ms)
}

/// Writes milliseconds since the Unix epoch as RFC 3339 does, in UTC.
pub(super) fn format_ms(ms: i64) -> String {
    let (days, rest) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    // At first as if there were no leap days.
    let mut year = 1970 + days.div_euclid(365);
    while days_since_epoch(year + 1, 1, 1) <= days {
        year += 1;
    }
    while days_since_epoch(year, 1, 1) > days {
        year -= 1;
    }
    let mut month = 12;
    while days_since_epoch(year, month, 1) > days {
        month -= 1;
    }
    let day = days - days_since_epoch(year, month, 1) + 1;
    let (hours, minutes) = (rest / 3_600_000, rest / 60_000 % 60);
    let (seconds, millis) = (rest / 1000 % 60, rest % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{millis:03}Z")
}

/// Days from 1970-01-01 to a day of the Gregorian calendar. Years are counted from March, so that
/// the leap day comes last and the months before it are regular.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    // 719 468 days lie between 0000-03-01 and 1970-01-01.
    365 * year + leap_days + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::{format_ms, parse_ms};

    #[test]
    fn times_are_written_as_they_are_read() {
        assert_eq!(format_ms(951_782_400_123), "2000-02-29T00:00:00.123Z");
        assert_eq!(format_ms(-1), "1969-12-31T23:59:59.999Z");
        for day in (-200_000_i64..200_000).step_by(17) {
            let ms = day * 86_400_000 + day.rem_euclid(86_399_999);
            assert_eq!(parse_ms(&format_ms(ms)), Ok(ms));
        }
    }

    #[test]
    fn times_are_read_in_all_their_forms() {
        for (text, expected) in [
            ("0", 0),
            ("1763634600000", 1_763_634_600_000),
            ("1970-01-01", 0),
            ("1969-12-31T23:59:59.5Z", -500),
            ("2000-02-29T00:00:00Z", 951_782_400_000),
            ("2000-03-01", 951_868_800_000),
            ("2025-11-20T10:30:00Z", 1_763_634_600_000),
            ("2025-11-20T10:30:00", 1_763_634_600_000),
            ("2025-11-20T12:30:00+02:00", 1_763_634_600_000),
            ("2025-11-20T10:30:00.123Z", 1_763_634_600_123),
        ] {
            assert_eq!(parse_ms(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "yesterday",
            "2025-13-01",
            "10:30:00",
            "2025-11-20T25:00:00Z",
        ] {
            assert!(parse_ms(text).is_err(), "{text}");
        }
    }
}
