//! Sizes as people write them: `512k`, `1g`, `1.5GiB`; units are powers of 1024.

const UNITS: [(&str, u32); 5] = [("", 0), ("K", 10), ("M", 20), ("G", 30), ("T", 40)];

/// Reads a size in bytes. For clap: the error is the text that follows "invalid value".
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    let shift = parse_unit(unit.trim())?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if number.is_empty() || whole.is_empty() || fraction.contains('.') {
        return Err("a size is a number with k, m, g or t, as 512m or 1.5g (powers of 1024)".into());
    }
    let too_large = || format!("a size is at most {} (2^64 - 1 bytes)", format(u64::MAX));
    let whole: u64 = whole.parse().map_err(|_| too_large())?;
    let whole = whole.checked_mul(1 << shift).ok_or_else(too_large)?;
    whole.checked_add(parse_fraction(fraction, shift)?).ok_or_else(too_large)
}

/// `parse` for the sizes that are held in 32 bits.
pub(crate) fn parse_u32(text: &str) -> Result<u32, String> {
    let size = parse(text)?;
    u32::try_from(size).map_err(|_| format!("{} is more than {}", format(size), format(u64::from(u32::MAX))))
}

fn parse_unit(unit: &str) -> Result<u32, String> {
    let upper = unit.to_ascii_uppercase();
    let letter = upper.strip_suffix("IB").or_else(|| upper.strip_suffix('B')).unwrap_or(&upper);
    let known = UNITS.iter().find(|(name, _)| *name == letter && !(letter.is_empty() && upper == "IB"));
    known.map(|(_, shift)| *shift).ok_or_else(|| format!("unknown unit '{unit}'; use k, m, g or t (powers of 1024)"))
}

/// The bytes of the digits after the point, rounded down.
fn parse_fraction(digits: &str, shift: u32) -> Result<u64, String> {
    if digits.is_empty() {
        return Ok(0);
    }
    if shift == 0 {
        return Err("a number of bytes has no fraction".into());
    }
    if digits.len() > 9 {
        return Err("at most 9 digits may follow the point".into());
    }
    let numerator: u128 = digits.parse().map_err(|_| format!("'{digits}' is not a fraction"))?;
    Ok(((numerator << shift) / 10_u128.pow(digits.len() as u32)) as u64)
}

/// Shows a size with at most three digits: `1 GiB`, `1.25 GiB`, `812 B`.
pub(crate) fn format(bytes: u64) -> String {
    let unit = UNITS.iter().rev().find(|(_, shift)| bytes >= 1 << shift).unwrap_or(&UNITS[0]);
    if unit.1 == 0 {
        return format!("{bytes} B");
    }
    let value = bytes as f64 / (1_u64 << unit.1) as f64;
    let decimals = if value >= 100.0 { 0 } else { 2 };
    let mut number = format!("{value:.decimals$}");
    if number.contains('.') {
        number.truncate(number.trim_end_matches('0').trim_end_matches('.').len());
    }
    format!("{number} {}iB", unit.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_with_every_unit() {
        assert_eq!(parse("0"), Ok(0));
        assert_eq!(parse("8388608"), Ok(8 << 20));
        assert_eq!(parse("512k"), Ok(512 << 10));
        assert_eq!(parse("512 KiB"), Ok(512 << 10));
        assert_eq!(parse("64mb"), Ok(64 << 20));
        assert_eq!(parse("1G"), Ok(1 << 30));
        assert_eq!(parse("1.5g"), Ok(3 << 29));
        assert_eq!(parse("2t"), Ok(2 << 40));
        assert_eq!(parse("12b"), Ok(12));
        assert_eq!(parse("18446744073709551615"), Ok(u64::MAX));
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for bad in [
            "",
            "g",
            "1x",
            "1gg",
            "-1",
            "1.5",
            "1..5g",
            ".5g",
            "1ib",
            "0x10",
            "1e3",
            "18446744073709551616",
            "16777216t",
        ] {
            assert!(parse(bad).is_err(), "{bad} was taken as {:?}", parse(bad));
        }
        assert!(parse("1x").is_err_and(|e| e.contains("'x'")));
        assert!(parse_u32("4g").is_err_and(|e| e.contains("4 GiB")));
    }

    #[test]
    fn sizes_are_shown_short() {
        assert_eq!(format(812), "812 B");
        assert_eq!(format(1 << 30), "1 GiB");
        assert_eq!(format(5 << 28), "1.25 GiB");
        assert_eq!(format((1 << 20) - 1), "1024 KiB");
        assert_eq!(format(64 << 10), "64 KiB");
        assert_eq!(format(u64::MAX), "16777216 TiB");
    }
}
