//! Moments, shown in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// `2026-11-21 08:30:00 UTC`.
pub(crate) fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86400, seconds % 86400);
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", rest / 3600, rest / 60 % 60, rest % 60)
}

/// An item's expiry in words.
pub(crate) fn expiry(expiry: u32) -> String {
    let at = u64::from(expiry);
    match at.checked_sub(now()) {
        _ if expiry == 0 => "never".into(),
        Some(left) => format!("{} (in {})", utc(at), span(left)),
        None => format!("{} (past)", utc(at)),
    }
}

/// A span with its largest unit: `59 s`, `12 min`, `3 h`, `45 d`.
pub(crate) fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86400),
    }
}

/// Year, month and day of the proleptic Gregorian calendar for a number of days since 1970-01-01.
/// Years are counted from March, so that the leap day is the last day of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let from_0000_march = days + 719_468;
    let era = from_0000_march / 146_097;
    let day_of_era = from_0000_march % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_782_399), "2000-02-28 23:59:59 UTC");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(1_709_251_199), "2024-02-29 23:59:59 UTC");
        assert_eq!(utc(4_294_967_295), "2106-02-07 06:28:15 UTC");
    }

    #[test]
    fn expiry_in_words() {
        assert_eq!(expiry(0), "never");
        assert!(expiry(1).ends_with("(past)"));
        assert!(expiry(u32::MAX).contains("(in "));
    }
}
