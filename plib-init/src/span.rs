//! Spans of time as the command line takes and shows them.

use std::time::Duration;

const UNITS: [(&str, u64); 6] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("w", 604_800_000)];

/// The milliseconds of a whole number with a unit (`500ms`, `2s`, `5m`, `1h`, `45d`, `2w`).
pub(crate) fn milliseconds(text: &str) -> Option<u64> {
    UNITS.iter().find_map(|(unit, ms)| {
        let number = text.strip_suffix(unit)?;
        // No sign: that is a number's, and this one has a unit.
        number.bytes().all(|b| b.is_ascii_digit()).then(|| number.parse::<u64>().ok()?.checked_mul(*ms))?
    })
}

/// Reads a span that is longer than nothing.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    match milliseconds(text) {
        Some(0) => Err("a span of time must be longer than nothing".into()),
        Some(ms) => Ok(Duration::from_millis(ms)),
        None => Err("a span of time is a whole number with a unit: 500ms, 2s, 5m, 1h".into()),
    }
}

/// `850 ms`, `2.5 s`, `12 min`.
pub(crate) fn text(span: Duration) -> String {
    match span.as_secs() {
        0 => format!("{} ms", span.as_millis()),
        1..120 => format!("{:.1} s", span.as_secs_f64()),
        seconds => crate::when::span(seconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_shown() {
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(parse("5m"), Ok(Duration::from_secs(300)));
        for bad in
            ["", "2", "s", "0s", "-1s", "+1s", "1.5s", "2y", "ms", "99999999999999999999s", "18446744073709551615h"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let shown = [850, 2500, 119_900, 150_000].map(|ms| text(Duration::from_millis(ms)));
        assert_eq!(shown, ["850 ms", "2.5 s", "119.9 s", "2 min"]);
    }
}
