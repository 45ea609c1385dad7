//! Attaching a process to a heap: checked opening, mapping, and registering as a client whose death the others can see.
//!
//! The sign of life is a lock (see [`crate::liveness`]): on the heap file, or on the lock file beside it. Descriptors without
//! locks stay open: to ask about others' locks, and to open the files again in a forked child.

use crate::error::Error;
use crate::kept::KeptFile;
use crate::launch;
use crate::liveness::Liveness;
use crate::mapping::{self, Keyed, Mapping};
use crate::protection::{Protection, Wanted};
use crate::{lock_file, name, process, protection, room};
use plib_core::domain::{Isolation, KeysOn, ProtectionKey};
use plib_core::gate::{self, Gated, Window};
use plib_core::layout::Geometry;
use plib_core::{Client, ClientParams, Fault, Heap, Status};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const HEADER: usize = 4096;
/// A heap and its lock file do not fit while somebody makes or removes them. So it is looked more than once, for this many
/// milliseconds.
const LOOKS: u32 = 100;

/// What a process keeps of an open heap across fork.
#[derive(Debug)]
pub(crate) struct Record {
    source: Source,
    /// The file beside it that has the lock bytes; None if the heap file has.
    lock: Option<KeptFile>,
    geometry: Geometry,
    /// Whether the heap is to be guarded.
    isolation: Wanted,
    /// Where this process has it mapped; in a child of fork, where its parent had. 0 for nowhere.
    mapped: AtomicUsize,
}

/// Where the mapping comes from.
#[derive(Debug)]
enum Source {
    /// The heap file, which this process can open.
    File(KeptFile),
    /// A launcher, which mapped it before the program began: the heap, and where it is.
    Launcher(&'static launch::Heap, usize),
}

/// A process's attachment: its mapping and its place among the clients. It does not survive fork.
pub(crate) struct Attachment {
    pub way: Way,
    pub mapping: Mapping,
    liveness: Liveness,
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

/// Of what a process can have only so many.
const BEHIND_KEY: &str = "heaps can be open behind the key";

impl Record {
    /// Opens the file, and its lock file, and checks that they are a heap's, without mapping anything.
    pub fn open(path: &Path, isolation: Wanted) -> Result<Self, Error> {
        if let Some((heap, base)) = launch::here().and_then(|launch| launch.find(path)) {
            return Self::of_launcher(heap, base, isolation);
        }
        for _ in 0..LOOKS {
            match Self::look(path, isolation) {
                Err(Error::LockFile { .. }) => process::pause(Duration::from_millis(1)),
                other => return other,
            }
        }
        Self::look(path, isolation)
    }

    /// Of a heap that a launcher mapped: its lock file is all that needs to be opened.
    fn of_launcher(heap: &'static launch::Heap, base: usize, isolation: Wanted) -> Result<Self, Error> {
        const ROOT: u32 = 0;
        let geometry = *heap.geometry();
        let lock = lock_file::open(heap.path(), ROOT, geometry.lock_id)?;
        let source = Source::Launcher(heap, base);
        Ok(Self { source, lock: Some(lock), geometry, isolation, mapped: AtomicUsize::new(0) })
    }

    fn look(path: &Path, isolation: Wanted) -> Result<Self, Error> {
        let (file, metadata) = name::open_regular(path, true).map_err(|e| is_for_launcher(e, path))?;
        let geometry = probe(&file, &metadata, path)?;
        let heap = KeptFile::new(path, true, file, &metadata);
        let is_beside = geometry.lock_id != [0; 2];
        let lock = is_beside.then(|| lock_file::open(heap.path(), metadata.uid(), geometry.lock_id)).transpose()?;
        Ok(Self { source: Source::File(heap), lock, geometry, isolation, mapped: AtomicUsize::new(0) })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        match &self.source {
            Source::File(file) => file.path(),
            Source::Launcher(heap, _) => heap.path(),
        }
    }

    /// The path of the lock file, if there is one.
    pub fn lock_file(&self) -> Option<PathBuf> {
        self.lock.as_ref().map(|lock| lock.path().to_path_buf())
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
        match (self.mapped.swap(0, Ordering::Relaxed), &self.source) {
            // A launcher's stays mapped in children, whose gates know of no operation of their parents'.
            (0, _) | (_, Source::Launcher(..)) => {}
            (base, Source::File(_)) => mapping::fence(base, self.geometry.size as usize),
        }
    }

    /// Maps the heap and registers this process.
    pub fn attach(&self) -> Result<Attachment, Error> {
        #[cfg(feature = "mutants")]
        plant_from_environment();
        if let Source::Launcher(..) = self.source {
            return self.attach_with(protection::launched());
        }
        match self.attach_with(self.isolation.protection()?) {
            Err(Error::Full { what: BEHIND_KEY, .. }) if self.isolation.is_wish() => self.attach_with(None),
            other => other,
        }
    }

    fn attach_with(&self, protection: Option<&'static Protection>) -> Result<Attachment, Error> {
        let path = self.path();
        let io = |doing| move |e| Error::io(doing, path, e);
        let (mapping, readable) = self.map(protection)?;
        let liveness = self.begin_to_live()?;
        let boot_id = process::boot_id().map_err(io("read the boot id for"))?;
        process::register_barrier();
        let (way, slot) = match protection {
            None => {
                // SAFETY: the mapping covers the checked file, is 2 MiB-aligned, and outlives the client: both are in the
                // attachment, which gives the client up first.
                let heap = unsafe { Heap::attach(mapping.base(), mapping.len(), boot_id) };
                let client = register(heap.map_err(|f| Error::fault(path, f))?, &liveness, path)?;
                let slot = client.slot();
                (Way::Direct(client), slot)
            }
            Some(protection) => {
                let clients = self.geometry.clients;
                let (gated, slot) = register_gated(protection, &mapping, boot_id, clients, &liveness, path)?;
                // What is wrong with the heap, if that fails, is the gate's to say.
                let window = readable.and_then(|readable| readable.window(&mapping).ok());
                (Way::Gated(gated, protection, window), slot)
            }
        };
        Ok(Attachment { way, mapping, liveness, slot, geometry: self.geometry })
    }

    /// The mapping of the heap, and whether programs may read it. (A launched program has no key by which it may.)
    fn map(&self, protection: Option<&Protection>) -> Result<(Mapping, Option<Readable>), Error> {
        match &self.source {
            Source::File(file) => self.map_file(file, protection),
            Source::Launcher(_, base) => Ok((Mapping::of_launcher(*base, self.geometry.size as usize), None)),
        }
    }

    /// A fresh mapping of the heap, which children of fork do not get.
    fn map_file(&self, heap: &KeptFile, protection: Option<&Protection>) -> Result<(Mapping, Option<Readable>), Error> {
        let io = |doing| move |e| Error::io(doing, self.path(), e);
        let (file, metadata) = heap.reopen()?;
        // Checked again: a child may attach long after its parent did.
        let geometry = probe(&file, &metadata, self.path())?;
        if geometry != self.geometry {
            return Err(Error::NoHeap(self.path().to_path_buf()));
        }
        let readable = protection.and_then(|protection| Readable::of(protection, &geometry, file.as_fd()));
        let keyed = match &readable {
            Some(readable) => Some(readable.keyed()),
            None => protection.map(|protection| Keyed { key: protection.key(), but: None }),
        };
        let mapping = Mapping::new(file.as_fd(), geometry.size as usize, keyed).map_err(io("map"))?;
        mapping.keep_from_children().map_err(io("keep from child processes the mapping of"))?;
        Ok((mapping, readable))
    }

    /// Locks a byte, from here to the end of this address space.
    fn begin_to_live(&self) -> Result<Liveness, Error> {
        let locks = match (&self.lock, &self.source) {
            (Some(locks), _) | (None, Source::File(locks)) => locks,
            (None, Source::Launcher(heap, _)) => return Err(Error::NoHeap(heap.path().to_path_buf())),
        };
        let (file, _) = locks.reopen().map_err(|e| match e {
            // The lock file went, and so did the heap.
            Error::NoHeap(_) => Error::NoHeap(self.path().to_path_buf()),
            e => e,
        })?;
        Liveness::begin(locks, file).map_err(|e| Error::io("lock a byte of", locks.path(), e))
    }

    /// The file's owner, group and mode now; None if the program closed the kept descriptor.
    pub fn owner(&self) -> Option<(u32, u32, u32)> {
        match &self.source {
            Source::File(file) => file.status().map(|stat| (stat.st_uid, stat.st_gid, stat.st_mode)),
            Source::Launcher(heap, _) => heap.status().map(|there| (there.uid(), there.gid(), there.mode())),
        }
    }
}

/// Says what helps where permission is missing for a heap that is root's alone.
fn is_for_launcher(e: Error, path: &Path) -> Error {
    const OTHERS: u32 = 0o077;
    const ROOTS: &str = "by its mode the heap is root's alone, for programs that are started with it: `plib run --heap NAME -- PROGRAM` \
                         (a program that such a program executes has it no longer)";
    const OTHER: &str = "by its mode the heap is root's alone; this program was started with it, but by the `plib run` of another build \
                         than its library: install both from one";
    let is_roots_alone = |there: Metadata| there.uid() == 0 && there.mode() & OTHERS == 0;
    match e {
        Error::Permission { doing, path: heap, .. } if std::fs::symlink_metadata(path).is_ok_and(is_roots_alone) => {
            Error::Permission { doing, path: heap, remedy: if launch::is_of_another_build() { OTHER } else { ROOTS } }
        }
        e => e,
    }
}

/// Takes the first client slot that can be had: unused ones first, then those of the dead. Needs the mapped heap and a lock
/// byte, and no permission for the heap's file.
fn register(heap: Heap, liveness: &Liveness, path: &Path) -> Result<Client, Error> {
    let clients = heap.geometry().clients;
    let unused = (0..clients).filter(|slot| !heap.slot_in_use(*slot));
    register_in(unused.chain(0..clients), clients, path, |slot| {
        let params = ClientParams {
            slot,
            lock_byte: liveness.lock_byte,
            pid: process::process_id(),
            start_time: process::start_time(),
            pid_namespace: process::pid_namespace(),
            lock_fd: liveness.lock_fd,
            vdso: process::vdso(),
        };
        let refused = |status| Fault { status, field: "client slot", expected: 0, found: 0 };
        Client::register(heap, params).map_err(refused)
    })
}

/// The same through the gate, which takes the mapping in use as well. (Which slots are unused cannot be seen from here.)
fn register_gated(
    protection: &Protection,
    mapping: &Mapping,
    boot_id: [u64; 2],
    clients: u32,
    liveness: &Liveness,
    path: &Path,
) -> Result<(Gated, u32), Error> {
    let mut place = 0;
    register_in(0..clients, clients, path, |slot| {
        let wanted = gate::Attach {
            base: mapping.base() as usize,
            len: mapping.len(),
            boot_id,
            start_time: process::start_time(),
            pid_namespace: process::pid_namespace(),
            lock_byte: liveness.lock_byte,
            pid: process::process_id(),
            slot,
            lock_fd: liveness.lock_fd,
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

/// Tries one slot after the other until `register` gets it.
fn register_in<T>(
    slots: impl Iterator<Item = u32>,
    clients: u32,
    path: &Path,
    mut register: impl FnMut(u32) -> Result<T, Fault>,
) -> Result<T, Error> {
    for slot in slots {
        match register(slot) {
            Ok(client) => return Ok(client),
            // A living client's.
            Err(Fault { status: Status::Busy, .. }) => {}
            Err(Fault { status: Status::Full, expected, .. }) => {
                let remedy = "close some";
                return Err(Error::Full { what: BEHIND_KEY, limit: expected, remedy });
            }
            Err(fault) => return Err(Error::fault(path, fault)),
        }
    }
    let remedy = "close some, or create the heap with more contexts";
    Err(Error::Full { what: "processes can have this heap open", limit: u64::from(clients), remedy })
}

impl Attachment {
    /// Leaves the heap. Every context must have been released.
    pub fn detach(self) {
        match self.way {
            Way::Direct(client) => client.unregister(),
            Way::Gated(mut gated, ..) => {
                if gated.detach().is_err() {
                    // A call on another heap keeps its seat for long: this heap's mapping and lock stay with its client.
                    std::mem::forget((self.mapping, self.liveness));
                }
            }
        }
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
        let (at, len) = geometry.open_hazards().filter(|_| matches!(room::huge_page(file), Ok(None)))?;
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

/// Reads and checks the header page. Nothing of the file is trusted, and nothing of it is mapped.
pub(crate) fn probe(file: &File, metadata: &Metadata, path: &Path) -> Result<Geometry, Error> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cache, CreateOptions};
    use plib_core::user::{In, Out};
    use plib_core::{ContextId, Mode};
    use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
    use std::os::unix::fs::PermissionsExt;

    /// A user who may not open the heap.
    const NOBODY: u32 = 65534;
    const KEY: &[u8] = b"key";

    /// Forks; the child ends well only if `act` does.
    fn fork(act: impl FnOnce()) -> libc::pid_t {
        // SAFETY: the child uses what is made to be used in one, and ends without running anything of the parent's.
        unsafe {
            match libc::fork() {
                0 => {
                    libc::alarm(60);
                    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
                    libc::_exit(i32::from(outcome.is_err()))
                }
                pid => {
                    assert!(pid > 0);
                    pid
                }
            }
        }
    }

    /// The status that it ends with, after SIGKILL if it is to be killed.
    fn end(pid: libc::pid_t, kill: bool) -> i32 {
        let mut status = 0;
        // SAFETY: a child of ours that nobody has waited for.
        unsafe {
            assert!(!kill || libc::kill(pid, libc::SIGKILL) == 0);
            assert_eq!(libc::waitpid(pid, &mut status, 0), pid);
        }
        status
    }

    fn tell(mut pipe: &PipeWriter) {
        pipe.write_all(b".").expect("tell");
    }

    fn wait(mut pipe: &PipeReader) {
        pipe.read_exact(&mut [0]).expect("the other one is gone");
    }

    /// A client whose process was given a mapping of the heap, and can open the lock file alone.
    struct Given {
        client: Client,
        context: ContextId,
        _liveness: Liveness,
    }

    impl Given {
        fn new(mapping: &Mapping, lock: &KeptFile, path: &Path) -> Self {
            let (file, _) = lock.reopen().expect("open the lock file again");
            let liveness = Liveness::begin(lock, file).expect("lock a byte");
            let boot_id = process::boot_id().expect("boot id");
            // SAFETY: the mapping is a heap's, and stays.
            let heap = unsafe { Heap::attach(mapping.base(), mapping.len(), boot_id) }.expect("a heap");
            let client = register(heap, &liveness, path).expect("register");
            let context = client.claim_context(process::thread_id()).expect("a context");
            Self { client, context, _liveness: liveness }
        }

        fn exchange(&self, old: &[u8], new: &[u8]) {
            let mut buf = [0; 100];
            // SAFETY: the context is this thread's, and all pointers are to slices.
            let (got, stored) = unsafe {
                let mut session = self.client.session(self.context);
                let got = session.get(In::new(KEY), Out::new(&mut buf));
                (got, session.store(Mode::Set, In::new(KEY), In::new(new), 0, 0))
            };
            assert_eq!(&buf[..got.expect("get").info.value_len], old);
            stored.expect("set");
        }

        fn reap(&self) -> u32 {
            // SAFETY: as above.
            unsafe { self.client.session(self.context) }.reap().expect("reap")
        }
    }

    fn become_nobody() {
        // SAFETY: only this process, a forked child, changes.
        let gone = unsafe { libc::setgroups(0, std::ptr::null()) | libc::setgid(NOBODY) | libc::setuid(NOBODY) };
        assert_eq!(gone, 0);
    }

    fn is_alive(cache: &Cache, pid: libc::pid_t) -> bool {
        let clients = cache.clients().expect("clients");
        clients.iter().find(|client| client.pid == pid as u32).expect("it is a client").alive
    }

    /// Root's process has the heap open. A child that has only the mapping drops its rights, registers, and forks a child that
    /// does the same; the latter sees the death of the former and recovers it, and root's sees both.
    #[test]
    fn a_process_that_cannot_open_the_heap_can_be_its_client() {
        if process::user() != 0 {
            eprintln!("left out: a launcher heap wants root to make it");
            return;
        }
        let dir = tempfile::Builder::new().prefix("plib-attach-").tempdir_in("/dev/shm").expect("a directory");
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("chmod");
        let path = dir.path().join("heap");
        let cache = Cache::create(&path, &CreateOptions::new(16 << 20)).expect("create");
        cache.set(KEY, b"root's", 0, 0).expect("set");
        let (file, metadata) = name::open_regular(&path, true).expect("open");
        let geometry = probe(&file, &metadata, &path).expect("a heap");
        // As a launcher's: its children inherit it.
        let mapping = Mapping::new(file.as_fd(), geometry.size as usize, None).expect("map");
        drop(file);
        let [(told, telling), (grandchild_told, grandchild_telling)] = [(); 2].map(|()| pipe().expect("a pipe"));
        let (go, going) = pipe().expect("a pipe");

        let child = fork(|| {
            become_nobody();
            let opened = Cache::open(&path).map(drop);
            assert!(matches!(opened, Err(Error::Permission { .. })), "{opened:?}");
            let inherited = cache.get(KEY);
            assert!(matches!(inherited, Err(Error::Permission { .. })), "{inherited:?}");
            let lock = lock_file::open(&path, 0, geometry.lock_id).expect("the lock file");
            let me = Given::new(&mapping, &lock, &path);
            me.exchange(b"root's", b"nobody's");
            let grandchild = fork(|| {
                let me = Given::new(&mapping, &lock, &path);
                me.exchange(b"nobody's", b"nobody's child's");
                tell(&grandchild_telling);
                wait(&go);
                assert_eq!(me.reap(), 1, "my parent is dead, and had a context");
                assert_eq!(me.reap(), 0, "nobody else is");
                tell(&grandchild_telling);
                std::thread::sleep(Duration::from_secs(60));
            });
            (&telling).write_all(&grandchild.to_le_bytes()).expect("tell");
            std::thread::sleep(Duration::from_secs(60));
        });
        // Only they tell: if one fails, it is heard.
        drop((telling, grandchild_telling));
        let mut number = [0; 4];
        (&told).read_exact(&mut number).expect("the grandchild's pid");
        let grandchild = libc::pid_t::from_le_bytes(number);
        wait(&grandchild_told);
        assert!(is_alive(&cache, child) && is_alive(&cache, grandchild));
        assert_eq!(cache.reap().expect("reap"), 0, "all are alive");
        assert!(libc::WIFSIGNALED(end(child, true)));
        assert!(!is_alive(&cache, child), "the child that goes on keeps its dead parent alive");
        assert!(is_alive(&cache, grandchild));
        tell(&going);
        wait(&grandchild_told);
        assert!(cache.clients().expect("clients").iter().all(|client| client.pid != child as u32));
        // SAFETY: it sleeps, so the pid is its own.
        assert_eq!(unsafe { libc::kill(grandchild, libc::SIGKILL) }, 0);
        let begin = std::time::Instant::now();
        // It is not ours to wait for.
        while is_alive(&cache, grandchild) {
            assert!(begin.elapsed() < Duration::from_secs(10), "a killed process seems alive");
            process::pause(Duration::from_millis(1));
        }
        assert_eq!(cache.reap().expect("reap"), 1);
        assert_eq!(cache.get(KEY).expect("get").expect("item").value, b"nobody's child's");
        assert_eq!(cache.clients().expect("clients").len(), 1);
        let found = cache.check().expect("check").findings;
        assert!(found.is_empty(), "{found:?}");
    }

    /// One that was stopped or killed on its way in, with its byte locked and no slot yet, is in nobody's way.
    #[test]
    fn who_has_not_come_in_yet_takes_no_slot_and_hides_no_death() {
        let dir = tempfile::Builder::new().prefix("plib-attach-").tempdir_in("/dev/shm").expect("a directory");
        for (name, mode) in [("beside", 0o600), ("inside", 0o660)] {
            let path = dir.path().join(name);
            let cache = Cache::create(&path, &CreateOptions::new(16 << 20).contexts(4).mode(mode)).expect("create");
            let record = Record::open(&path, Wanted::new(Isolation::None, Isolation::None).expect("no condition"))
                .expect("open");
            let undecided: Vec<_> = (0..100).map(|_| record.begin_to_live().expect("lock a byte")).collect();
            let others: Vec<_> = (0..3).map(|_| Cache::open(&path).expect("a slot is free")).collect();
            assert!(matches!(Cache::open(&path), Err(Error::Full { limit: 4, .. })));
            drop(others);
            let child = fork(|| {
                let cache = Cache::open(&path).expect("open");
                cache.set(KEY, b"child's", 0, 0).expect("set");
                std::process::abort();
            });
            assert!(libc::WIFSIGNALED(end(child, false)));
            assert!(!is_alive(&cache, child));
            assert_eq!(cache.reap().expect("reap"), 1);
            drop(undecided);
        }
    }
}
