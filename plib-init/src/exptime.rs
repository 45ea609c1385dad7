//! Expiry times as the command line takes them.

use crate::{span, when};

/// memcached's rule: a larger number of seconds is a moment since 1970, not a span.
const RELATIVE_MAX: i64 = 30 * 24 * 3600;

/// Reads an expiry: memcached's number, `never`, or a span with a unit (`90s`, `10m`, `2h`, `45d`, `2w`).
pub(crate) fn parse(text: &str) -> Result<i64, String> {
    if text == "never" {
        return Ok(0);
    }
    if let Ok(number) = text.parse::<i64>() {
        return Ok(number);
    }
    let bad = || {
        "an expiry is seconds (0 never, negative already expired, above 2592000 a Unix time), `never`, or a span as 90s, 10m, 2h, 45d".to_owned()
    };
    let ms = span::milliseconds(text).filter(|ms| ms % 1000 == 0).ok_or_else(bad)?;
    let seconds = i64::try_from(ms / 1000).map_err(|_| bad())?;
    Ok(from_span(seconds, when::now()))
}

/// A span as memcached's number; one that is too long to be relative becomes a moment.
fn from_span(span: i64, now: u64) -> i64 {
    match span {
        // "0 s" means now, and memcached's 0 means never.
        0 => -1,
        1..=RELATIVE_MAX => span,
        _ => span.saturating_add_unsigned(now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_memcacheds() {
        assert_eq!(parse("0"), Ok(0));
        assert_eq!(parse("-1"), Ok(-1));
        assert_eq!(parse("2592001"), Ok(2_592_001));
        assert_eq!(parse("never"), Ok(0));
    }

    #[test]
    fn spans_longer_than_thirty_days_become_moments() {
        assert_eq!(parse("10m"), Ok(600));
        assert_eq!(parse("30d"), Ok(RELATIVE_MAX));
        assert_eq!(from_span(31 * 86400, 1000), 31 * 86400 + 1000);
        assert_eq!(parse("0s"), Ok(-1));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for bad in ["", "m", "1y", "1.5h", "-3d", "ten", "9223372036854775808", "5é"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
