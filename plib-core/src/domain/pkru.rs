//! PKRU, the register of each thread that says what its protection keys let it do (Intel SDM vol. 3A, 4.6.2).
//!
//! ```text
//!  31   30    29   28           3   2    1   0
//! +----+----+----+----+ .. +----+----+----+----+     AD: no access
//! |WD15|AD15|WD14|AD14|    |WD1 |AD1 |WD0 |AD0 |     WD: no write
//! +----+----+----+----+ .. +----+----+----+----+
//! ```
//!
//! It is only read and computed here. Writing it opens a heap, so that instruction is in the gate alone.

use core::arch::asm;

use super::{KeysOn, ProtectionKey};

const AD: u32 = 1;
const WD: u32 = 1 << 1;

/// What a thread may do with pages of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Read and write, as far as the pages themselves allow.
    Open,
    /// Read only.
    ReadOnly,
    /// Neither. Instructions are still fetched: keys say nothing of that.
    Closed,
}

impl Access {
    /// The two bits of one key, which are also `pkey_alloc`'s rights.
    pub(super) const fn bits(self) -> u32 {
        match self {
            Self::Open => 0,
            Self::ReadOnly => WD,
            Self::Closed => AD | WD,
        }
    }

    const fn from_bits(bits: u32) -> Self {
        match (bits & AD != 0, bits & WD != 0) {
            (true, _) => Self::Closed,
            (false, true) => Self::ReadOnly,
            (false, false) => Self::Open,
        }
    }
}

/// A value of PKRU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pkru(pub u32);

impl Pkru {
    /// This thread's.
    #[inline]
    pub fn read(_on: KeysOn) -> Self {
        let value;
        // SAFETY: keys are on, so the instruction exists; it wants ecx to be 0 and writes eax and edx. Not `nomem`: what is read or
        // written around it may depend on the value.
        unsafe { asm!("rdpkru", in("ecx") 0, out("eax") value, out("edx") _, options(nostack, preserves_flags)) };
        Self(value)
    }

    /// What it lets the thread do with pages of `key`.
    #[inline]
    pub const fn access(self, key: ProtectionKey) -> Access {
        Access::from_bits(self.0 >> key.shift())
    }

    /// The bits of `key`.
    pub const fn mask(key: ProtectionKey) -> u32 {
        (AD | WD) << key.shift()
    }

    /// The same, but for `key`. The bits of all others stay as they are.
    #[inline]
    pub const fn with(self, key: ProtectionKey, access: Access) -> Self {
        Self(self.0 & !((AD | WD) << key.shift()) | access.bits() << key.shift())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_two_bits_of_its_own() {
        let mut seen = 0;
        for key in (1..=15).filter_map(ProtectionKey::new) {
            let bits = Pkru(0).with(key, Access::Closed).0;
            assert_eq!((bits.count_ones(), bits & seen), (2, 0), "{key:?}");
            seen |= bits;
        }
        // What is left is key 0's, that of all ordinary pages.
        assert_eq!(seen, !0b11);
    }

    #[test]
    fn what_was_put_in_comes_out_and_other_bits_stay() {
        let key = ProtectionKey::new(5).unwrap();
        for rest in [0, 0x5555_5554, u32::MAX] {
            for access in [Access::Open, Access::ReadOnly, Access::Closed] {
                let value = Pkru(rest).with(key, access);
                assert_eq!(value.access(key), access);
                assert_eq!((value.0 ^ rest) & !(0b11 << 10), 0);
            }
        }
        assert_eq!(Pkru(0b01 << 10).access(key), Access::Closed);
    }
}
