//! Attaching a process to a heap: checked opening, mapping, and registering as a client whose death the others can see.
//!
//! ```text
//! open -> lock byte i of that open file description -> map -> MADV_DONTFORK -> close
//! ```
//! From then on the mapping alone keeps the lock, so it ends with this address space and with nothing else. A second
//! descriptor without locks stays open: to ask about others' locks, and to map the file again in a forked child.

use crate::error::Error;
use crate::mapping::{self, Keyed, Mapping};
use crate::protection::{Protection, Wanted};
use crate::{name, process};
use plib_core::domain::{Isolation, KeysOn, ProtectionKey};
use plib_core::gate::{self, Gated, Window};
use plib_core::layout::Geometry;
use plib_core::{Client, ClientParams, Fault, Heap, Status};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The kept descriptor goes to a number that programs seldom reach, so that code which closes or dup2()s low numbers
/// misses it.
const KEPT_FD_FROM: libc::c_int = 200;
const HEADER: usize = 4096;

/// What a process keeps of an open heap across fork.
#[derive(Debug)]
pub(crate) struct Record {
    path: PathBuf,
    device: u64,
    inode: u64,
    kept: RawFd,
    geometry: Geometry,
    /// Whether the heap is to be guarded.
    isolation: Wanted,
    /// Where this process has it mapped; in a child of fork, where its parent had. 0 for nowhere.
    mapped: AtomicUsize,
}

/// A process's attachment: its mapping and its place among the clients. It does not survive fork.
pub(crate) struct Attachment {
    pub way: Way,
    pub mapping: Mapping,
    /// Its client slot.
    pub slot: u32,
    pub geometry: Geometry,
}

/// How this process gets at the heap.
pub(crate) enum Way {
    /// By functions, on an open mapping.
    Direct(Client),
    /// Through the gate, with the heap behind a key of the process. Where that lets reads through, with a window to read by.
    Gated(Gated, &'static Protection, Option<Window>),
}

impl Record {
    /// Opens the file and checks that it is a heap, without mapping it.
    pub fn open(path: PathBuf, isolation: Wanted) -> Result<Self, Error> {
        let (file, metadata) = name::open_regular(&path, true)?;
        let geometry = probe(&file, &metadata, &path)?;
        let path = std::path::absolute(&path).unwrap_or(path);
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            kept: keep(file),
            geometry,
            isolation,
            path,
            mapped: AtomicUsize::new(0),
        })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The heap's map.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Notes where the heap is mapped.
    pub fn set_mapped(&self, base: usize) {
        self.mapped.store(base, Ordering::Relaxed);
    }

    /// Keeps everything else out of where a parent had the heap mapped: an operation of its, which a signal handler's child may
    /// return into, must find nothing there.
    pub fn fence(&self) {
        match self.mapped.swap(0, Ordering::Relaxed) {
            0 => {}
            base => mapping::fence(base, self.geometry.size as usize),
        }
    }

    /// Maps the heap and registers this process.
    pub fn attach(&self) -> Result<Attachment, Error> {
        #[cfg(feature = "mutants")]
        plant_from_environment();
        let io = |doing| move |e| Error::io(doing, &self.path, e);
        let file = self.reopen()?;
        let metadata = file.metadata().map_err(io("look at"))?;
        if !self.is_mine(&metadata) {
            return Err(Error::NoHeap(self.path.clone()));
        }
        // Checked again: a child may attach long after its parent did.
        let geometry = probe(&file, &metadata, &self.path)?;
        let protection = self.isolation.protection()?;
        let readable = protection.and_then(|protection| Readable::of(protection, &geometry, file.as_fd()));
        let keyed = match &readable {
            Some(readable) => Some(readable.keyed()),
            None => protection.map(|protection| Keyed { key: protection.key(), but: None }),
        };
        let mapping = Mapping::new(file.as_fd(), geometry.size as usize, keyed).map_err(io("map"))?;
        mapping.keep_from_children().map_err(io("keep from child processes the mapping of"))?;
        let boot_id = process::boot_id().map_err(io("read the boot id for"))?;
        process::register_barrier();
        let (way, slot) = match protection {
            None => {
                // SAFETY: the mapping covers the checked file, is 2 MiB-aligned, and outlives the client: both are in the
                // attachment, which gives the client up first.
                let heap = unsafe { Heap::attach(mapping.base(), mapping.len(), boot_id) };
                let client = self.register(heap.map_err(|f| Error::fault(&self.path, f))?, &file)?;
                let slot = client.slot();
                (Way::Direct(client), slot)
            }
            Some(protection) => {
                let (gated, slot) = self.register_gated(protection, &mapping, boot_id, &geometry, &file)?;
                // What is wrong with the heap, if that fails, is the gate's to say.
                let window = readable.and_then(|readable| readable.window(&mapping).ok());
                (Way::Gated(gated, protection, window), slot)
            }
        };
        Ok(Attachment { way, mapping, slot, geometry })
    }

    /// Takes the first client slot whose lock byte is free: unused slots first, then those of the dead.
    fn register(&self, heap: Heap, file: &File) -> Result<Client, Error> {
        let clients = heap.geometry().clients;
        let unused = (0..clients).filter(|slot| !heap.slot_in_use(*slot));
        let slots = unused.chain((0..clients).filter(|slot| heap.slot_in_use(*slot)));
        self.register_in(slots, clients, file, |slot| {
            let params = ClientParams {
                slot,
                pid: process::process_id(),
                start_time: process::start_time(),
                pid_namespace: process::pid_namespace(),
                lock_fd: self.kept,
                vdso: process::vdso(),
            };
            Client::register(heap, params).map_err(|status| Fault {
                status,
                field: "client slot",
                expected: 0,
                found: 0,
            })
        })
    }

    /// The same through the gate, which takes the mapping in use as well. (Which slots are unused cannot be seen from here.)
    fn register_gated(
        &self,
        protection: &Protection,
        mapping: &Mapping,
        boot_id: [u64; 2],
        geometry: &Geometry,
        file: &File,
    ) -> Result<(Gated, u32), Error> {
        let clients = geometry.clients;
        let mut place = 0;
        self.register_in(0..clients, clients, file, |slot| {
            let wanted = gate::Attach {
                base: mapping.base() as usize,
                len: mapping.len(),
                boot_id,
                start_time: process::start_time(),
                pid_namespace: process::pid_namespace(),
                pid: process::process_id(),
                slot,
                lock_fd: self.kept,
                pad: 0,
            };
            loop {
                let mut gated = protection.gated(place);
                match gated.attach(&wanted) {
                    Ok(()) => return Ok((gated, slot)),
                    Err(Fault { status: Status::Full, .. }) if place < gate::HEAPS as u32 => place += 1,
                    Err(fault) => return Err(fault),
                }
            }
        })
    }

    /// Locks the byte of one slot after the other until one can be had and `register` takes it.
    fn register_in<T>(
        &self,
        slots: impl Iterator<Item = u32>,
        clients: u32,
        file: &File,
        mut register: impl FnMut(u32) -> Result<T, Fault>,
    ) -> Result<T, Error> {
        for slot in slots {
            let lock = |kind| lock_byte(file, Heap::lock_offset(slot), kind);
            match lock(libc::F_WRLCK) {
                Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => continue,
                Err(e) => return Err(Error::io("lock a byte of", &self.path, e)),
                Ok(()) => {}
            }
            match register(slot) {
                Ok(client) => return Ok(client),
                // Somebody who holds no lock changed the slot meanwhile.
                Err(Fault { status: Status::Busy, .. }) => {
                    lock(libc::F_UNLCK).map_err(|e| Error::io("unlock a byte of", &self.path, e))?;
                }
                Err(Fault { status: Status::Full, expected, .. }) => {
                    let remedy = "close some";
                    return Err(Error::Full { what: "heaps can be open behind the key", limit: expected, remedy });
                }
                Err(fault) => return Err(Error::fault(&self.path, fault)),
            }
        }
        let remedy = "close some, or create the heap with more contexts";
        Err(Error::Full { what: "processes can have this heap open", limit: u64::from(clients), remedy })
    }

    /// A new open file description of the file: by the kept descriptor, or by the path where that is gone.
    fn reopen(&self) -> Result<File, Error> {
        let open = |path: &Path, flags| {
            File::options().read(true).write(true).custom_flags(flags | libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
        };
        if self.kept_is_mine()
            && let Ok(file) = open(Path::new(&format!("/proc/self/fd/{}", self.kept)), 0)
        {
            return Ok(file);
        }
        name::open_regular(&self.path, true).map(|(file, _)| file)
    }

    fn is_mine(&self, metadata: &Metadata) -> bool {
        (metadata.dev(), metadata.ino()) == (self.device, self.inode)
    }

    /// Whether the program has left the kept descriptor alone.
    fn kept_is_mine(&self) -> bool {
        // SAFETY: zeroes are a valid stat, and the kernel fills it in; a closed descriptor is an error.
        unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            libc::fstat(self.kept, &mut stat) == 0 && (stat.st_dev, stat.st_ino) == (self.device, self.inode)
        }
    }

    /// The file's owner, group and mode now; None if the program closed the kept descriptor.
    pub fn owner(&self) -> Option<(u32, u32, u32)> {
        // SAFETY: as in `kept_is_mine`.
        unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            let mine =
                libc::fstat(self.kept, &mut stat) == 0 && (stat.st_dev, stat.st_ino) == (self.device, self.inode);
            mine.then_some((stat.st_uid, stat.st_gid, stat.st_mode))
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.kept_is_mine() {
            // SAFETY: it is the descriptor that `open` made and that only this record owns.
            drop(unsafe { OwnedFd::from_raw_fd(self.kept) });
        }
    }
}

impl Attachment {
    /// Leaves the heap. Every context must have been released.
    pub fn detach(self) {
        match self.way {
            Way::Direct(client) => client.unregister(),
            Way::Gated(mut gated, ..) => {
                if gated.detach().is_err() {
                    // A call on another heap keeps its seat for long: this heap's mapping must stay with its client.
                    std::mem::forget(self.mapping);
                    return;
                }
            }
        }
        drop(self.mapping);
    }

    /// What keeps the program out of the heap between calls.
    pub fn isolation(&self) -> Isolation {
        match self.way {
            Way::Direct(_) => Isolation::None,
            Way::Gated(..) => Isolation::Guarded,
        }
    }

    /// Forgets what stands under the id of a thread that is new: see [`Client::disown_thread`].
    pub fn disown_thread(&self, tid: u32) {
        if let Way::Direct(client) = &self.way {
            client.disown_thread(tid);
        }
    }

    /// Whether `len` bytes at `start` are none of the library's.
    pub fn admits(&self, start: usize, len: usize) -> bool {
        match self.way {
            Way::Direct(_) => true,
            Way::Gated(_, protection, _) => protection.admits(start, len),
        }
    }
}

/// How a readable heap is mapped.
struct Readable {
    on: KeysOn,
    key: ProtectionKey,
    /// Offset and length of the hazards, which programs write.
    hazards: (usize, usize),
}

impl Readable {
    /// None if the heap is not, or cannot be here: no second key was free, or pages of 2 MiB cannot be protected in parts.
    fn of(protection: &Protection, geometry: &Geometry, file: BorrowedFd<'_>) -> Option<Self> {
        let (on, key) = protection.readable()?;
        let (at, len) = geometry.open_hazards().filter(|_| !mapping::is_huge(file))?;
        Some(Self { on, key, hazards: (at as usize, len as usize) })
    }

    fn keyed(&self) -> Keyed {
        Keyed { key: self.key, but: Some(self.hazards) }
    }

    /// To be called once this thread has been through the gate, which leaves it the right to read.
    fn window(&self, mapping: &Mapping) -> Result<Window, Fault> {
        // SAFETY: the mapping is of the checked file and outlives the window: both are in the attachment. The key is that of its
        // pages but for the hazards, which can be written.
        unsafe { Window::new(mapping.base(), mapping.len(), process::vdso(), Some((self.on, self.key))) }
    }
}

/// Plants the bug that PLIB_MUTANT names, so that child processes have it too.
#[cfg(feature = "mutants")]
fn plant_from_environment() {
    use plib_core::mutant::{Mutant, plant};
    let Ok(wanted) = std::env::var("PLIB_MUTANT") else { return };
    let known = Mutant::ALL.iter().find(|(name, _)| *name == wanted);
    let (_, mutant) = known.unwrap_or_else(|| panic!("PLIB_MUTANT={wanted}: no such mutant"));
    plant(*mutant);
}

/// Moves a descriptor out of the way of the program's own.
fn keep(file: File) -> RawFd {
    // SAFETY: takes a descriptor and numbers only.
    match process::checked(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, KEPT_FD_FROM) }) {
        Ok(high) => high,
        // The limit of open files is lower than that; any number works.
        Err(_) => file.into_raw_fd(),
    }
}

/// Reads and checks the header page. Nothing of the file is trusted, and nothing of it is mapped.
fn probe(file: &File, metadata: &Metadata, path: &Path) -> Result<Geometry, Error> {
    let mut page = [0; HEADER];
    match file.read_exact_at(&mut page, 0) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
            let what = format!("it has {} bytes, too few for a header", metadata.len());
            return Err(Error::NotAHeap { path: path.to_path_buf(), what });
        }
        Err(e) => return Err(Error::io("read", path, e)),
        Ok(()) => {}
    }
    Heap::probe(&page, metadata.len()).map_err(|fault| Error::fault(path, fault))
}

/// Locks or unlocks one byte for the file's open file description.
fn lock_byte(file: &File, offset: u64, kind: libc::c_int) -> io::Result<()> {
    let lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: offset as libc::off_t,
        l_len: 1,
        // Must be 0 for these locks.
        l_pid: 0,
    };
    // SAFETY: `lock` is a valid struct flock.
    process::checked(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) }).map(drop)
}
