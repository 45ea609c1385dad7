//! Planted bugs, with which the harnesses show that they find bugs. Only in builds with the feature `mutants`; otherwise
//! every question for one is answered `false` at compile time and nothing of this is left.
//!
//! | mutant | the slip |
//! | --- | --- |
//! | `forget-new` | a claimed block is not named in the intent |
//! | `forget-old` | a replaced block is not named in the intent |
//! | `forget-superblock` | a superblock is taken from the pool without a word in the intent |
//! | `free-early` | the replaced item's block is freed before the new one's slot word is stored |
//! | `flags-late` | flags and expiry are written after the commit |
//! | `early-unlock` | the bucket is unlocked before the commit |
//! | `no-scrub` | who takes a lock over leaves the bucket as it is |
//! | `no-take-over` | nobody is ever found dead |
//! | `take-from-living` | everybody else is found dead |
//! | `clear-first` | recovery clears a field of the intent before it has done what the field is for |
//! | `recover-blindly` | recovery frees what an intent names without a look at the index |
//! | `split-scrubs-early` | a split empties the old bucket before it commits |
//! | `wait-forever` | who waits for a lock never gives up |
//! | `readers-lock` | a get takes the bucket's lock |
//! | `no-version` | a block keeps its version when it is claimed |
//! | `no-second-look` | a reader does not look at slot and meta word again |
//! | `immortal` | expiry is not looked at |
//! | `late-epoch` | a store asks for the flush epoch once more after it has judged the item that it replaces |
//! | `no-recheck` | append and incr do not look under the lock whether the item is still the one that they read |
//! | `reuse-cas` | a cas value is used before the range is advanced, and the range is not |
//! | `any-namespace` | a thread of another pid namespace is asked after by its number there |
//! | `blind-fingerprint` | what an owner does leaves no trace in its fingerprint |
//! | `holds-nothing` | who is inside an operation counts as holding something |

macro_rules! mutants {
    ($($name:ident => $text:literal,)*) => {
        /// One planted bug.
        #[allow(missing_docs, reason = "the module's table says what each is")]
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Mutant { None, $($name,)* }

        impl Mutant {
            /// All of them, by name.
            pub const ALL: &[(&str, Self)] = &[$(($text, Self::$name),)*];
        }
    };
}

mutants! {
    ForgetNew => "forget-new",
    ForgetOld => "forget-old",
    ForgetSuperblock => "forget-superblock",
    FreeEarly => "free-early",
    FlagsLate => "flags-late",
    EarlyUnlock => "early-unlock",
    NoScrub => "no-scrub",
    NoTakeOver => "no-take-over",
    TakeFromLiving => "take-from-living",
    ClearFirst => "clear-first",
    RecoverBlindly => "recover-blindly",
    SplitScrubsEarly => "split-scrubs-early",
    WaitForever => "wait-forever",
    ReadersLock => "readers-lock",
    NoVersion => "no-version",
    NoSecondLook => "no-second-look",
    Immortal => "immortal",
    LateEpoch => "late-epoch",
    NoRecheck => "no-recheck",
    ReuseCas => "reuse-cas",
    AnyNamespace => "any-namespace",
    BlindFingerprint => "blind-fingerprint",
    HoldsNothing => "holds-nothing",
}

/// Whether this build has bugs to plant.
pub const POSSIBLE: bool = cfg!(feature = "mutants");

#[cfg(feature = "mutants")]
mod planted {
    use super::Mutant;
    use core::sync::atomic::{AtomicU32, Ordering};

    static PLANTED: AtomicU32 = AtomicU32::new(0);

    /// Plants a bug in this process, in place of the one before.
    pub fn plant(mutant: Mutant) {
        PLANTED.store(mutant as u32, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn is(mutant: Mutant) -> bool {
        PLANTED.load(Ordering::Relaxed) == mutant as u32
    }

    /// Lets others run where a planted bug leaves a window of few instructions: such a bug shows in seconds, not in days.
    pub(crate) fn widen(mutant: Mutant) {
        if is(mutant) {
            crate::sys::yield_now();
        }
    }
}

#[cfg(feature = "mutants")]
pub use planted::plant;
#[cfg(feature = "mutants")]
pub(crate) use planted::{is, widen};

/// Whether this bug is planted.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub(crate) const fn is(_: Mutant) -> bool {
    false
}

/// Lets others run in the window that this bug leaves.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub(crate) const fn widen(_: Mutant) {}
