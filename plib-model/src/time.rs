//! Expiry times and the clock, in whole Unix seconds.

/// Longest relative expiry time, in seconds: 30 days, as memcached's.
pub const RELATIVE_MAX: i64 = 60 * 60 * 24 * 30;

/// When something happened: not before `earliest`, not after `latest`.
///
/// A test cannot stop the clock of the implementation; it reads its own before and after.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// The clock before the operation.
    pub earliest: u32,
    /// The clock after the operation.
    pub latest: u32,
}

impl Window {
    /// A clock that stands at `second`.
    pub fn at(second: u32) -> Window {
        Window { earliest: second, latest: second }
    }
}

/// When an item expires.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Expiry {
    /// Not at all; shown as 0.
    Never,
    /// At one second between the two, both included.
    Between(u32, u32),
}

impl Expiry {
    /// Memcached's rule: 0 is never, negative is already over, up to 30 days is relative to now, and
    /// anything larger is a date. A date past 32 bits is the last one that can be told.
    pub fn from_exptime(exptime: i64, now: Window) -> Expiry {
        match exptime {
            0 => Expiry::Never,
            i64::MIN..=-1 => Expiry::Between(1, now.earliest),
            1..=RELATIVE_MAX => {
                let delta = exptime as u32;
                Expiry::Between(now.earliest + delta, now.latest + delta)
            }
            _ => {
                let date = u32::try_from(exptime).unwrap_or(u32::MAX);
                Expiry::Between(date, date)
            }
        }
    }

    /// Whether the item is certainly gone: an item lives only while its expiry is in the future.
    pub fn is_over(self, now: Window) -> bool {
        matches!(self, Expiry::Between(_, latest) if latest <= now.earliest)
    }

    /// Whether the item may be gone or not, as far as the clock was measured.
    pub fn is_unclear(self, now: Window) -> bool {
        matches!(self, Expiry::Between(earliest, _) if earliest <= now.latest) && !self.is_over(now)
    }

    /// Whether an implementation that shows `seen` agrees.
    pub fn allows(self, seen: u32) -> bool {
        match self {
            Expiry::Never => seen == 0,
            Expiry::Between(earliest, latest) => (earliest..=latest).contains(&seen),
        }
    }

    /// What a front that chooses shows.
    pub fn shown(self) -> u32 {
        match self {
            Expiry::Never => 0,
            Expiry::Between(_, latest) => latest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thirty_day_rule() {
        let now = Window::at(1_700_000_000);
        assert_eq!(Expiry::from_exptime(0, now), Expiry::Never);
        assert_eq!(Expiry::from_exptime(1, now), Expiry::Between(1_700_000_001, 1_700_000_001));
        assert!(Expiry::from_exptime(-1, now).is_over(now));
        assert!(Expiry::from_exptime(i64::MIN, now).is_over(now));
        assert!(!Expiry::from_exptime(RELATIVE_MAX, now).is_over(now), "30 days are relative");
        assert!(Expiry::from_exptime(RELATIVE_MAX + 1, now).is_over(now), "more is a date, of 1970");
        assert_eq!(Expiry::from_exptime(i64::MAX, now), Expiry::Between(u32::MAX, u32::MAX));
    }

    #[test]
    fn an_item_is_over_at_its_second() {
        let expiry = Expiry::Between(100, 101);
        assert!(!expiry.is_over(Window::at(99)) && !expiry.is_unclear(Window::at(99)));
        assert!(!expiry.is_over(Window::at(100)) && expiry.is_unclear(Window::at(100)));
        assert!(expiry.is_over(Window::at(101)) && !expiry.is_unclear(Window::at(101)));
    }
}
