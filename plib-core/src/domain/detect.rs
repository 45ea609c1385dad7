//! Whether protection keys can be used here: asked of CPUID and never tried.
//!
//! Where they are off `rdpkru` and `wrpkru` raise SIGILL, and `pkey_alloc` answers EINVAL as it does to a mistake of the caller's.

use core::arch::x86_64::{__cpuid, __cpuid_count};

/// The leaf of CPUID with the bits below (Intel SDM vol. 2A, CPUID; AMD's are the same).
const LEAF: u32 = 7;

/// In ECX: the processor has protection keys for user pages.
const PKU: u32 = 1 << 3;

/// In ECX: the kernel has switched them on (CR4.PKE).
const OSPKE: u32 = 1 << 4;

/// What processor and kernel offer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProtectionKeys {
    /// The processor has none.
    Absent,
    /// The processor has them; the kernel has not switched them on.
    Off,
    /// They are on.
    On(KeysOn),
}

/// The proof that protection keys are on: whoever has one may execute their instructions. Only detection makes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeysOn(());

impl ProtectionKeys {
    /// Asks the processor.
    pub fn detect() -> Self {
        if __cpuid(0).eax < LEAF { Self::Absent } else { Self::from_ecx(__cpuid_count(LEAF, 0).ecx) }
    }

    /// The proof, if they are on.
    pub const fn on(self) -> Option<KeysOn> {
        match self {
            Self::On(proof) => Some(proof),
            Self::Absent | Self::Off => None,
        }
    }

    const fn from_ecx(ecx: u32) -> Self {
        match (ecx & PKU != 0, ecx & OSPKE != 0) {
            (true, true) => Self::On(KeysOn(())),
            (true, false) => Self::Off,
            (false, _) => Self::Absent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_cases_are_told_apart() {
        assert_eq!(ProtectionKeys::from_ecx(0), ProtectionKeys::Absent);
        assert_eq!(ProtectionKeys::from_ecx(!(PKU | OSPKE)), ProtectionKeys::Absent);
        assert_eq!(ProtectionKeys::from_ecx(PKU), ProtectionKeys::Off);
        assert_eq!(ProtectionKeys::from_ecx(PKU | OSPKE), ProtectionKeys::On(KeysOn(())));
        // The kernel cannot switch on what the processor does not have: whoever says so is not believed.
        assert_eq!(ProtectionKeys::from_ecx(OSPKE), ProtectionKeys::Absent);
        assert!(ProtectionKeys::Off.on().is_none() && ProtectionKeys::from_ecx(u32::MAX).on().is_some());
    }
}
