//! This process's protection key, and the vault behind it: made when the first heap is opened that is to be guarded, and
//! kept until the process ends. A forked child inherits both; its vault is emptied by the kernel.

use crate::error::{Error, isolation_name};
use crate::image::Image;
use crate::launch::{self, Launch};
use crate::{probe, process, signals};
use plib_core::domain::Protection::ReadWrite;
use plib_core::domain::{Access, Isolation, KeysOn, Pkru, ProtectionKey, ProtectionKeys};
use plib_core::gate::{Gated, Launched, SEATS, STACKS, STRIDE, Settings, VAULT_SIZE};
use plib_core::sys::Errno;
use std::ffi::OsString;
use std::io;
use std::ptr::null_mut;
use std::sync::OnceLock;

/// A page of the processor.
const PAGE: usize = 4096;

/// What guards this process's heaps.
#[derive(Debug)]
pub(crate) struct Protection {
    key: ProtectionKey,
    /// That of readable heaps, which programs may read at all times; None if there was no second one.
    readable: Option<ProtectionKey>,
    vault: usize,
    /// Bytes of the vault that carry the key.
    region: usize,
    image: Image,
}

/// Why there is none.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Missing {
    /// The processor has no protection keys.
    Processor,
    /// It has, but the kernel has not switched them on.
    Kernel,
    /// The kernel refused a key: the error number.
    Key(i32),
    /// It refused the memory behind it.
    Vault(i32),
    /// It refused the image of the code that may open it.
    Image(i32),
}

/// What a program wants of a heap's protection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    least: Isolation,
    /// Whether it gets more where more can be had.
    more: bool,
}

impl Wanted {
    /// What the program, with the least that it accepts and the most that it has use for, and PLIB_ISOLATION want together. An error if
    /// it cannot be had.
    pub fn new(by_program: Isolation, most: Isolation) -> Result<Self, Error> {
        let by_environment = match wanted_by_environment() {
            None => None,
            Some(text) => match text.to_str() {
                Some("") => None,
                Some("none") => Some(Isolation::None),
                Some("guarded") => Some(Isolation::Guarded),
                Some("sealed") => Some(Isolation::Sealed),
                _ => return Err(Error::Invalid("PLIB_ISOLATION must be none, guarded or sealed")),
            },
        };
        let least = by_program.max(by_environment.unwrap_or(Isolation::None));
        // Who runs a program can have it without: PLIB_ISOLATION=none.
        let wanted = Self { least, more: by_environment.is_none() && most > Isolation::None };
        // Only asked of the processor: what fork must not come into is made under the lock of who attaches.
        match (wanted.least, detect()) {
            (Isolation::None, _) | (Isolation::Guarded, Ok(_)) => Ok(wanted),
            (Isolation::Guarded, Err(missing)) => Err(wanted.unavailable(missing.reason())),
            (Isolation::Sealed, _) => Err(wanted.unavailable("this release gives 'none' and 'guarded'")),
        }
    }

    fn unavailable(self, why: &'static str) -> Error {
        Error::Isolation { wanted: isolation_name(self.least), why }
    }

    /// Whether less would do.
    pub fn is_wish(self) -> bool {
        self.least == Isolation::None
    }

    /// What it leads to in this process; None for no protection. To be called under the opening lock.
    pub fn protection(self) -> Result<Option<&'static Protection>, Error> {
        match (self.least, self.more) {
            (Isolation::None, false) => Ok(None),
            (Isolation::None, true) if is_made() => Ok(get().ok()),
            // Not at any price: what is not asked for must not end the process. Nor is it tried where it cannot be had.
            (Isolation::None, true) => Ok((detect().is_ok() && probe::survives()).then(get).and_then(Result::ok)),
            _ => get().map(Some).map_err(|missing| self.unavailable(missing.reason())),
        }
    }
}

impl Missing {
    fn reason(self) -> &'static str {
        match self {
            Self::Processor => "this processor has no protection keys (PKU)",
            Self::Kernel => "the kernel has not switched the processor's protection keys on (boot without `nopku`)",
            Self::Key(libc::ENOSPC) => "all protection keys of this process are in use",
            Self::Key(_) => "the kernel refuses protection keys (a policy on system calls?)",
            Self::Vault(libc::ENOSYS | libc::EPERM) => {
                "the kernel refuses to give pages a protection key (a policy on system calls?)"
            }
            Self::Vault(_) => "there is no memory for what lies behind the key",
            Self::Image(libc::EMFILE | libc::ENFILE) => {
                "there is no descriptor left for the image of the code that may open the key"
            }
            Self::Image(libc::EFBIG) => {
                "the limit of file sizes (ulimit -f) leaves no room for the image of the code that may open the key"
            }
            Self::Image(libc::ENOMEM | libc::ENOSPC) => {
                "there is no memory for the image of the code that may open the key"
            }
            Self::Image(_) => {
                "the kernel refuses to map the image of the code that may open the key (a security policy?)"
            }
        }
    }
}

static PROTECTION: OnceLock<Protection> = OnceLock::new();

/// This process's protection, made at the first call that finds all that it needs. Under the opening lock, so one at a time.
fn get() -> Result<&'static Protection, Missing> {
    match PROTECTION.get() {
        Some(protection) => Ok(protection),
        None => {
            let protection = Protection::new()?;
            Ok(PROTECTION.get_or_init(|| protection))
        }
    }
}

fn is_made() -> bool {
    PROTECTION.get().is_some()
}

/// PLIB_ISOLATION, if this is no program that runs with more rights than who started it.
fn wanted_by_environment() -> Option<OsString> {
    // SAFETY: takes a number and cannot fail.
    let has_more_rights = unsafe { libc::getauxval(libc::AT_SECURE) } != 0;
    if has_more_rights { None } else { std::env::var_os("PLIB_ISOLATION") }
}

/// What guards the heaps that a launcher mapped into this process; None if there was none. To be called under the opening lock.
pub(crate) fn launched() -> Option<&'static Protection> {
    static LAUNCHED: OnceLock<Option<Protection>> = OnceLock::new();
    LAUNCHED.get_or_init(|| launch::here().map(Protection::of_launcher)).as_ref()
}

/// Whether there are protection keys, as far as processor and kernel go.
fn detect() -> Result<KeysOn, Missing> {
    match ProtectionKeys::detect() {
        ProtectionKeys::On(proof) => Ok(proof),
        ProtectionKeys::Off => Err(Missing::Kernel),
        ProtectionKeys::Absent => Err(Missing::Processor),
    }
}

impl Protection {
    fn of_launcher(launch: &Launch) -> Self {
        let &Launch { key, vault, region, image, .. } = launch;
        signals::begin(image);
        Self { key, readable: None, vault, region, image }
    }

    fn new() -> Result<Self, Missing> {
        let on = detect()?;
        // Its image takes signals first: that is what its constants say.
        launched();
        // Closed for this thread. For the others it never was open, unless somebody had it before us and gave it back open.
        let key = ProtectionKey::allocate(on, Access::Closed).map_err(|Errno(number)| Missing::Key(number))?;
        let refused = |of: fn(i32) -> Missing| move |e: io::Error| of(e.raw_os_error().unwrap_or(0));
        let region = if signals::allow_keyed_stacks() { VAULT_SIZE } else { STACKS };
        // Taken now in any case: what the gate opens and closes is settled once.
        let readable = ProtectionKey::allocate(on, Access::ReadOnly).ok();
        let closed = Pkru(0).with(key, Access::Closed);
        let (mask, closed) = match readable {
            Some(second) => (Pkru::mask(key) | Pkru::mask(second), closed.with(second, Access::ReadOnly).0),
            None => (Pkru::mask(key), closed.0),
        };
        let made = make_vault(key, region).map_err(refused(Missing::Vault)).and_then(|vault| {
            let settings = |image| Settings {
                mask,
                closed,
                vault,
                region,
                vdso: process::vdso(),
                stub: signals::stub_with(image),
                launched: Launched::NONE,
            };
            let image = Image::map(settings).map_err(refused(Missing::Image)).inspect_err(|_| {
                // SAFETY: the vault, which nobody else knows of.
                unsafe { libc::munmap(vault as *mut _, VAULT_SIZE) };
            })?;
            Ok(Self { key, readable, vault, region, image })
        });
        match made {
            Ok(protection) => {
                signals::begin(protection.image);
                Ok(protection)
            }
            Err(missing) => {
                for key in readable.into_iter().chain([key]) {
                    // SAFETY: nothing carries it any more.
                    let _ = unsafe { key.free() };
                }
                Err(missing)
            }
        }
    }

    /// The key.
    pub fn key(&self) -> ProtectionKey {
        self.key
    }

    /// The key of readable heaps, if there is one.
    pub fn readable(&self) -> Option<(KeysOn, ProtectionKey)> {
        Some((detect().ok()?, self.readable?))
    }

    /// The gate to a heap in place `index` of the vault.
    pub fn gated(&self, index: u32) -> Gated {
        // SAFETY: the image is mapped, its constants are set, and the processor has keys; all for good.
        unsafe { Gated::new(self.image.entry(), index) }
    }

    /// Whether `len` bytes at `start` are outside of what carries the key of the vault.
    pub fn admits(&self, start: usize, len: usize) -> bool {
        start.checked_add(len).is_some_and(|end| end <= self.vault || start >= self.vault + self.region)
    }
}

/// Puts a fresh mapping behind the key, readable and writable for who has it open.
///
/// # Safety
/// As for [`ProtectionKey::guard`].
pub(crate) unsafe fn guard(key: ProtectionKey, base: *mut u8, len: usize) -> io::Result<()> {
    // SAFETY: passed on.
    unsafe { key.guard(base, len, ReadWrite) }.map_err(|Errno(number)| io::Error::from_raw_os_error(number))
}

/// A fresh vault: empty in children, and in no core dump. Its stacks carry the key (are in `region`) if no
/// signal handler may come to run on them.
fn make_vault(key: ProtectionKey, region: usize) -> io::Result<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a fresh mapping; it is advised about and given its key before anybody knows of it. The pages below the stacks
    // are inside of it.
    unsafe {
        let base = libc::mmap(null_mut(), VAULT_SIZE, libc::PROT_NONE, flags, -1, 0);
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let made = process::checked(libc::madvise(base, VAULT_SIZE, libc::MADV_WIPEONFORK))
            .and_then(|_| process::checked(libc::madvise(base, VAULT_SIZE, libc::MADV_DONTDUMP)))
            .and_then(|_| guard(key, base.cast(), region))
            .and_then(|()| {
                let (rest, open) = (base.cast::<u8>().add(region), libc::PROT_READ | libc::PROT_WRITE);
                let len = VAULT_SIZE - region;
                if len == 0 { Ok(()) } else { process::checked(libc::mprotect(rest.cast(), len, open)).map(drop) }
            })
            .and_then(|()| {
                (0..SEATS).try_for_each(|seat| {
                    let below = base.cast::<u8>().add(STACKS + seat * STRIDE);
                    process::checked(libc::mprotect(below.cast(), PAGE, libc::PROT_NONE)).map(drop)
                })
            });
        if let Err(e) = made {
            libc::munmap(base, VAULT_SIZE);
            return Err(e);
        }
        Ok(base as usize)
    }
}
