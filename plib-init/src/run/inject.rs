//! What is put into the new program: its protection key, the heaps behind it, the vault, the trusted image, and the pages by which the
//! library finds them. Everything is mapped by the program's own system calls, of which the tracer makes each.
//!
//! ```text
//! not dumpable -> key -> heaps -> vault -> image -> launch pages -> sealed
//! ```

use super::error::RunError;
use super::heap_file::HeapFile;
use super::remote::{Call, Remote};
use plib::ProtectionKeys;
use plib::launch::{self, Heap, Mapped, Part, Protection, VAULT_SIZE};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const fn call(number: libc::c_long, name: &'static str) -> Call {
    Call { number, name }
}

const PRCTL: Call = call(libc::SYS_prctl, "prctl(PR_SET_DUMPABLE)");
const PKEY_ALLOC: Call = call(libc::SYS_pkey_alloc, "pkey_alloc");
const PKEY_MPROTECT: Call = call(libc::SYS_pkey_mprotect, "pkey_mprotect");
const OPEN: Call = call(libc::SYS_open, "open(heap)");
const CLOSE: Call = call(libc::SYS_close, "close(heap)");
const RESERVE: Call = call(libc::SYS_mmap, "mmap(reserve)");
const MAP_HEAP: Call = call(libc::SYS_mmap, "mmap(heap)");
const MAP_IMAGE: Call = call(libc::SYS_mmap, "mmap(image)");
const MAP_PAGES: Call = call(libc::SYS_mmap, "mmap(launch pages)");
const MUNMAP: Call = call(libc::SYS_munmap, "munmap(rest of a reservation)");
const MPROTECT: Call = call(libc::SYS_mprotect, "mprotect(guard page)");
const MPROTECT_STACKS: Call = call(libc::SYS_mprotect, "mprotect(stacks)");
const WIPEONFORK: Call = call(libc::SYS_madvise, "madvise(MADV_WIPEONFORK)");
const DONTDUMP: Call = call(libc::SYS_madvise, "madvise(MADV_DONTDUMP)");
/// Linux 6.10; number of asm-generic/unistd.h.
const MSEAL: Call = call(462, "mseal");

/// No access and no write.
const CLOSED: u64 = 3;
const NONE: u64 = libc::PROT_NONE as u64;
const READ: u64 = libc::PROT_READ as u64;
const READ_WRITE: u64 = READ | libc::PROT_WRITE as u64;
const PRIVATE: u64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE) as u64;
const FIXED: u64 = libc::MAP_FIXED as u64;
const FIXED_NOREPLACE: u64 = libc::MAP_FIXED_NOREPLACE as u64;
const NO_FILE: u64 = u64::MAX;
const PAGE: u64 = 4096;

/// The kernel's part in it: keys, and nobody who forbids to trace.
pub fn check_machine() -> Result<(), RunError> {
    match ProtectionKeys::detect() {
        ProtectionKeys::On(_) => {}
        ProtectionKeys::Off => {
            let fix = "remove `nopku` from the kernel's command line and restart";
            return Err(RunError::refused("this kernel", "has the processor's protection keys (PKU) off", fix));
        }
        ProtectionKeys::Absent => {
            let fix =
                "use another machine (Intel since Skylake-SP, AMD since Zen 3; a virtual machine must pass them on)";
            return Err(RunError::refused("this processor", "has no protection keys (PKU)", fix));
        }
    }
    if yama_forbids() {
        let fix = "`plib run` works on the new program by ptrace: boot with kernel.yama.ptrace_scope at 2 or less";
        return Err(RunError::refused("kernel.yama.ptrace_scope", "is 3, by which nobody may trace", fix));
    }
    Ok(())
}

/// Whether the Yama security module lets nobody trace, not even root.
pub fn yama_forbids() -> bool {
    std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").is_ok_and(|scope| scope.trim() == "3")
}

/// The heaps to be put into a program.
#[derive(Debug)]
pub struct Injection {
    heaps: Vec<Heap>,
}

impl Injection {
    /// Of these files, which must be whole heaps with their lock files.
    pub fn new(files: &[HeapFile]) -> Result<Self, RunError> {
        if files.len() > launch::HEAPS_MAX {
            let why = format!("are {} heaps, and one program can have {}", files.len(), launch::HEAPS_MAX);
            return Err(RunError::refused("--heap", why, "give fewer"));
        }
        let describe = |file: &HeapFile| {
            let heap = Heap::describe(&file.file, &file.path)?;
            file.check_locks(&heap.lock_path())?;
            Ok(heap)
        };
        Ok(Self { heaps: files.iter().map(describe).collect::<Result<_, RunError>>()? })
    }

    /// Puts them into the program.
    pub fn inject(&self, remote: &mut Remote) -> Result<(), RunError> {
        // First: from here on only root gets at it, whatever capabilities it has.
        remote.call(PRCTL, [libc::PR_SET_DUMPABLE as u64, 0, 0, 0, 0, 0])?;
        let key = remote.call(PKEY_ALLOC, [0, CLOSED, 0, 0, 0, 0]).map_err(no_key)?;
        let mut work = Work { remote, key, sealable: Vec::new() };
        let heaps: Vec<Mapped> = self.heaps.iter().map(|heap| work.map_heap(heap)).collect::<Result<_, _>>()?;
        let vault = work.make_vault()?;
        let image = work.map_image(vault, &heaps)?;
        let sealed = work.can_seal()?;
        work.put_pages(&launch::pages(key as u8, vault, image, sealed, &heaps))?;
        if sealed { work.seal() } else { Ok(()) }
    }
}

fn no_image() -> RunError {
    RunError::Remote { call: "the trusted image", source: io::ErrorKind::InvalidData.into() }
}

fn no_key(e: RunError) -> RunError {
    match e {
        RunError::Remote { source, .. } if source.raw_os_error() == Some(libc::ENOSYS) => RunError::refused(
            "this kernel",
            "knows no protection keys",
            "use Linux 4.9 or newer, with a policy that lets pkey_alloc through",
        ),
        e => e,
    }
}

/// The work under way.
struct Work<'r> {
    remote: &'r mut Remote,
    key: u64,
    /// What shall stay as it is mapped: start and length.
    sealable: Vec<(u64, u64)>,
}

impl Work<'_> {
    /// Maps a heap behind the key.
    fn map_heap<'h>(&mut self, heap: &'h Heap) -> Result<Mapped<'h>, RunError> {
        let file = self.open(heap)?;
        let (len, alignment) = (heap.mapped_len() as u64, heap.alignment() as u64);
        let reserved = self.reserve(len + alignment)?;
        let base = reserved.next_multiple_of(alignment);
        // Inaccessible until it has its key.
        self.remote.call(MAP_HEAP, [base, len, NONE, libc::MAP_SHARED as u64 | FIXED, file, 0])?;
        self.unmap(reserved, base - reserved)?;
        self.unmap(base + len, reserved + alignment - base)?;
        self.remote.call(PKEY_MPROTECT, [base, len, READ_WRITE, self.key, 0, 0])?;
        self.remote.call(DONTDUMP, [base, len, libc::MADV_DONTDUMP as u64, 0, 0, 0])?;
        self.remote.call(CLOSE, [file, 0, 0, 0, 0, 0])?;
        self.sealable.push((base, len));
        Ok(Mapped { heap, base: base as usize })
    }

    /// Opens the heap in the program: the file that was checked, or none.
    fn open(&mut self, heap: &Heap) -> Result<u64, RunError> {
        let path = self.remote.scratch(&[heap.path().as_os_str().as_bytes(), b"\0"].concat())?;
        let flags = libc::O_RDWR | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
        let file = self.remote.call(OPEN, [path, flags as u64, 0, 0, 0, 0])?;
        let opened = PathBuf::from(format!("/proc/{}/fd/{file}", self.remote.pid()));
        let stat = |source| RunError::File { path: opened.clone(), call: "stat", source };
        let found = std::fs::metadata(&opened).map_err(stat)?;
        if (found.dev(), found.ino()) != (heap.device(), heap.inode()) {
            return Err(exchanged(heap.path()));
        }
        Ok(file)
    }

    fn reserve(&mut self, len: u64) -> Result<u64, RunError> {
        self.remote.call(RESERVE, [0, len, NONE, PRIVATE, NO_FILE, 0])
    }

    fn unmap(&mut self, start: u64, len: u64) -> Result<(), RunError> {
        if len == 0 { Ok(()) } else { self.remote.call(MUNMAP, [start, len, 0, 0, 0, 0]).map(drop) }
    }

    /// The library's memory behind the key (but for the stacks, under some kernels): empty in children, and in no core dump.
    fn make_vault(&mut self) -> Result<u64, RunError> {
        let len = VAULT_SIZE as u64;
        let vault = self.reserve(len)?;
        self.remote.call(WIPEONFORK, [vault, len, libc::MADV_WIPEONFORK as u64, 0, 0, 0])?;
        self.remote.call(DONTDUMP, [vault, len, libc::MADV_DONTDUMP as u64, 0, 0, 0])?;
        let region = launch::region() as u64;
        self.remote.call(PKEY_MPROTECT, [vault, region, READ_WRITE, self.key, 0, 0])?;
        if region < len {
            self.remote.call(MPROTECT_STACKS, [vault + region, len - region, READ_WRITE, 0, 0, 0])?;
        }
        for below in launch::guard_pages() {
            self.remote.call(MPROTECT, [vault + below as u64, PAGE, NONE, 0, 0, 0])?;
        }
        self.sealable.push((vault, len));
        Ok(vault)
    }

    /// The image, part by part. The program never may write what is written here: the tracer does.
    fn map_image(&mut self, vault: u64, heaps: &[Mapped]) -> Result<u64, RunError> {
        let len = launch::IMAGE_LEN as u64;
        let base = self.reserve(len)?;
        let vdso = self.vdso()?;
        let bytes = launch::image_at(base as usize, self.key as u8, vault as usize, vdso, heaps);
        for Part { offset, len, protection } in launch::image_parts() {
            let at = base + *offset as u64;
            let protection = match protection {
                Protection::Read => READ,
                Protection::ReadWrite => READ_WRITE,
                Protection::ReadExecute => READ | libc::PROT_EXEC as u64,
            };
            self.remote.call(MAP_IMAGE, [at, *len as u64, protection, PRIVATE | FIXED, NO_FILE, 0])?;
            let bytes = bytes.get(*offset..*offset + *len).ok_or_else(no_image)?;
            self.remote.write(at, bytes)?;
        }
        self.sealable.push((base, len));
        Ok(base)
    }

    /// Where the program's vDSO is; 0 if it has none.
    fn vdso(&self) -> Result<usize, RunError> {
        let path = PathBuf::from(format!("/proc/{}/auxv", self.remote.pid()));
        let bytes = std::fs::read(&path).map_err(|source| RunError::File { path, call: "read", source })?;
        let (entries, _) = bytes.as_chunks::<16>();
        let entry = entries.iter().map(|entry| u128::from_le_bytes(*entry));
        let found = entry.map(|e| (e as u64, (e >> 64) as usize)).find(|(kind, _)| *kind == libc::AT_SYSINFO_EHDR);
        Ok(found.map_or(0, |(_, address)| address))
    }

    /// The pages by which the library finds all that, at an address that it knows.
    fn put_pages(&mut self, bytes: &[u8]) -> Result<(), RunError> {
        let (at, len) = (launch::PLACE as u64, bytes.len() as u64);
        let found = self.remote.call(MAP_PAGES, [at, len, READ, PRIVATE | FIXED_NOREPLACE, NO_FILE, 0])?;
        if found != at {
            // A kernel before 4.17, which takes the address for a wish.
            let source = io::Error::from_raw_os_error(libc::EEXIST);
            return Err(RunError::Remote { call: MAP_PAGES.name, source });
        }
        self.remote.write(at, bytes)?;
        self.sealable.push((at, len));
        Ok(())
    }

    /// Whether the kernel can seal mappings: sealing none succeeds where it can.
    fn can_seal(&mut self) -> Result<bool, RunError> {
        match self.remote.call(MSEAL, [0; 6]) {
            Ok(_) => Ok(true),
            Err(RunError::Remote { source, .. }) if source.raw_os_error() == Some(libc::ENOSYS) => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn seal(&mut self) -> Result<(), RunError> {
        for (start, len) in std::mem::take(&mut self.sealable) {
            self.remote.call(MSEAL, [start, len, 0, 0, 0, 0])?;
        }
        Ok(())
    }
}

fn exchanged(path: &Path) -> RunError {
    let why = "was exchanged for another file while the program was started";
    RunError::refused(path.display().to_string(), why, "start it again")
}
