//! The core with nothing above it: this file does by itself what an attaching process has to do.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use plib_core::user::{In, Out};
use plib_core::{Client, ClientParams, ContextId, Got, Heap, Mode, Session, Status};
use plib_core::{DeleteRequest, GetRequest, SetRequest};
use plib_model::{Arith, Command, Found, Front, Reply, Store, StoreMode, Token, Why};

/// A client registered by hand.
pub struct CoreFront {
    client: Client,
    context: ContextId,
    value_max: usize,
    /// Locks and queries the liveness bytes; open as long as the client.
    _liveness: [File; 2],
}

/// The id of the running system, as the header keeps it.
fn boot_id() -> [u64; 2] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("boot id");
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let half = |at: usize| u64::from_str_radix(&digits[at..at + 16], 16).expect("digits");
    [half(0), half(16)]
}

/// Maps the whole file at a multiple of 2 MiB.
fn map(file: &File, len: usize) -> *mut u8 {
    const ALIGN: usize = 2 << 20;
    // SAFETY: two new mappings: one that reserves addresses, one in the middle of it.
    unsafe {
        let none = std::ptr::null_mut();
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let room = libc::mmap(none, len + ALIGN, libc::PROT_NONE, flags, -1, 0);
        assert_ne!(room, libc::MAP_FAILED);
        let at = (room as usize).next_multiple_of(ALIGN) as *mut libc::c_void;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_FIXED;
        let mapped = libc::mmap(at, len, access, flags, file.as_raw_fd(), 0);
        assert_eq!(mapped, at, "{}", std::io::Error::last_os_error());
        mapped.cast()
    }
}

/// Locks a byte of its own by this open file; which.
fn lock_a_byte(file: &File) -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // Other processes count from elsewhere.
    let lock_byte = u64::from(std::process::id()) << 16 | NEXT.fetch_add(1, Ordering::Relaxed);
    // SAFETY: flock is plain data, and all its fields are set or may be zero.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_RDLCK as i16;
    lock.l_start = Heap::lock_offset(lock_byte) as i64;
    lock.l_len = 1;
    // SAFETY: `lock` lives through the call.
    assert_eq!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &lock) }, 0);
    lock_byte
}

/// Where the lock bytes are, and whether it is the heap file itself.
fn open_locks(path: &Path, heap: &Heap) -> File {
    let beside = heap.geometry().lock_id != [0; 2];
    let path = if beside { path.with_added_extension("lock") } else { path.to_path_buf() };
    File::open(path).expect("the file with the lock bytes")
}

impl CoreFront {
    pub fn open(path: &Path, value_max: usize) -> CoreFront {
        // SAFETY: a plain system call.
        let tid = unsafe { libc::gettid() } as u32;
        CoreFront::open_as(path, value_max, (std::process::id(), 1, 0), tid)
    }

    /// The same under an identity (pid, start time, pid namespace) that may be anybody's, and a thread id or 0.
    pub fn open_as(path: &Path, value_max: usize, (pid, start_time, pid_namespace): (u32, u64, u64), tid: u32) -> Self {
        let file = File::options().read(true).write(true).open(path).expect("open");
        let len = file.metadata().expect("metadata").len() as usize;
        // SAFETY: a mapping of the whole file, which stays.
        let heap = unsafe { Heap::attach(map(&file, len), len, boot_id()) };
        let heap = heap.unwrap_or_else(|fault| panic!("{fault:?}"));
        let (locks, liveness) = (open_locks(path, &heap), open_locks(path, &heap));
        let free = (0..heap.geometry().clients).find(|slot| !heap.slot_in_use(*slot));
        let params = ClientParams {
            slot: free.expect("a free client slot"),
            lock_byte: lock_a_byte(&locks),
            pid,
            start_time,
            pid_namespace,
            lock_fd: liveness.as_raw_fd(),
            vdso: 0,
        };
        let client = Client::register(heap, params).expect("register");
        let context = client.claim_context(tid).expect("a context");
        CoreFront { client, context, value_max, _liveness: [locks, liveness] }
    }

    /// What looks at the heap without being inside an operation.
    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn session(&self) -> Session<'_> {
        // SAFETY: one session at a time, by the thread that claimed the context.
        unsafe { self.client.session(self.context) }
    }

    /// Reads with the longest buffer there can be.
    fn read(
        &mut self,
        key: &[u8],
        room: usize,
        read: impl FnOnce(&mut Session<'_>, In, Out) -> Result<Got, Status>,
    ) -> Result<Reply, Why> {
        let mut buf = vec![0; room];
        let got = read(&mut self.session(), input(key), output(&mut buf)).map_err(why)?;
        match got.copied {
            true => Ok(Reply::Item(found(key, &got.info, buf))),
            false => Err(Why::TooSmall(got.info.value_len)),
        }
    }

    fn store(&mut self, s: &Store) -> Result<Reply, Why> {
        let value = s.value.bytes();
        let mode = match s.mode {
            StoreMode::Set => Mode::Set,
            StoreMode::Add => Mode::Add,
            StoreMode::Replace => Mode::Replace,
            StoreMode::Append => Mode::Append,
            StoreMode::Prepend => Mode::Prepend,
            StoreMode::Cas(Token::Exact(cas)) => Mode::Cas(cas),
            StoreMode::Cas(other) => panic!("{other:?} comes here as a number"),
        };
        // SAFETY: key and value are slices that live through the call.
        let stored = unsafe { self.session().store(mode, input(&s.key), input(&value), s.flags, s.exptime) };
        stored.map(Reply::Stored).map_err(why)
    }

    fn arith(&mut self, a: &Arith) -> Result<Reply, Why> {
        // SAFETY: the key is a slice that lives through the call.
        let done = unsafe { self.session().arith(input(&a.key), a.delta, a.decrement, a.initial) };
        done.map(|(number, _)| Reply::Number(number)).map_err(why)
    }

    fn get_many(&mut self, keys: &[Vec<u8>]) -> Reply {
        let mut bufs = vec![vec![0u8; self.value_max]; keys.len()];
        let requests = keys.iter().zip(&mut bufs).map(|(key, buf)| GetRequest {
            key: key.as_ptr(),
            key_len: key.len(),
            buf: buf.as_mut_ptr(),
            buf_len: buf.len(),
            value_len: 0,
            cas: 0,
            flags: 0,
            expiry: 0,
            status: u32::MAX,
            pad: 0,
        });
        let mut requests: Vec<_> = requests.collect();
        // SAFETY: keys and buffers live through the call, and no buffer is named twice.
        unsafe { self.session().get_many(&mut requests) };
        let replies = requests.iter().zip(keys).zip(bufs).map(|((request, key), buf)| {
            let info = plib_core::ItemInfo {
                flags: request.flags,
                expiry: request.expiry,
                cas: request.cas,
                value_len: request.value_len,
            };
            match refusal(request.status) {
                None => Reply::Item(found(key, &info, buf)),
                Some(why) => Reply::Refused(why),
            }
        });
        Reply::Many(replies.collect())
    }

    fn set_many(&mut self, items: &[(Vec<u8>, Vec<u8>)], flags: u32, exptime: i64) -> Reply {
        let requests = items.iter().map(|(key, value)| SetRequest {
            key: key.as_ptr(),
            key_len: key.len(),
            value: value.as_ptr(),
            value_len: value.len(),
            exptime,
            cas: 0,
            flags,
            status: u32::MAX,
        });
        let mut requests: Vec<_> = requests.collect();
        // SAFETY: keys and values live through the call.
        unsafe { self.session().set_many(&mut requests) };
        let reply = |request: &SetRequest| match refusal(request.status) {
            None => Reply::Stored(request.cas),
            Some(why) => Reply::Refused(why),
        };
        Reply::Many(requests.iter().map(reply).collect())
    }

    fn delete_many(&mut self, keys: &[Vec<u8>]) -> Reply {
        let requests =
            keys.iter().map(|key| DeleteRequest { key: key.as_ptr(), key_len: key.len(), status: u32::MAX, pad: 0 });
        let mut requests: Vec<_> = requests.collect();
        // SAFETY: the keys live through the call.
        unsafe { self.session().delete_many(&mut requests) };
        let reply = |r: &DeleteRequest| refusal(r.status).map_or(Reply::Done, Reply::Refused);
        Reply::Many(requests.iter().map(reply).collect())
    }

    fn scan(&mut self) -> Result<Reply, Why> {
        let (mut key, mut value) = ([0u8; 250], vec![0u8; self.value_max]);
        let (mut cursor, mut items) = (0, Vec::new());
        loop {
            let (key_out, value_out) = (output(&mut key), output(&mut value));
            // SAFETY: both buffers live through the call.
            let next = unsafe { self.session().scan(cursor, key_out, value_out) }.map_err(why)?;
            let Some(scanned) = next else { return Ok(Reply::Items(items)) };
            if !scanned.got.copied {
                return Err(Why::Other("a scanned value is longer than any can be".into()));
            }
            items.push(found(&key[..scanned.key_len], &scanned.got.info, value.clone()));
            cursor = scanned.next;
        }
    }

    fn try_execute(&mut self, command: &Command) -> Result<Reply, Why> {
        let (most, done) = (self.value_max, |()| Reply::Done);
        // SAFETY (all calls below): keys and buffers are slices that live through the call.
        match command {
            // SAFETY: see above.
            Command::Get(key) => self.read(key, most, |s, k, o| unsafe { s.get(k, o) }),
            // SAFETY: see above.
            Command::GetInto(key, room) => self.read(key, *room, |s, k, o| unsafe { s.get(k, o) }),
            Command::GetAndTouch(key, exptime) => {
                // SAFETY: see above.
                self.read(key, most, |s, k, o| unsafe { s.get_and_touch(k, *exptime, o) })
            }
            Command::Store(store) => self.store(store),
            Command::Delete(key, token) => {
                let cas = token.map(|token| match token {
                    Token::Exact(cas) => cas,
                    other => panic!("{other:?} comes here as a number"),
                });
                // SAFETY: see above.
                unsafe { self.session().delete(input(key), cas) }.map(done).map_err(why)
            }
            Command::Arith(arith) => self.arith(arith),
            Command::Touch(key, exptime) => {
                // SAFETY: see above.
                unsafe { self.session().touch(input(key), *exptime) }.map(done).map_err(why)
            }
            Command::FlushAll(delay) => self.session().flush_all(*delay).map(done).map_err(why),
            Command::GetMany(keys) => Ok(self.get_many(keys)),
            Command::SetMany(items, flags, exptime) => {
                let items: Vec<_> = items.iter().map(|(k, v)| (k.clone(), v.bytes())).collect();
                Ok(self.set_many(&items, *flags, *exptime))
            }
            Command::DeleteMany(keys) => Ok(self.delete_many(keys)),
            Command::Scan => self.scan(),
        }
    }
}

impl Front for CoreFront {
    fn execute(&mut self, command: &Command) -> Reply {
        self.try_execute(command).unwrap_or_else(Reply::Refused)
    }

    fn evictions(&mut self) -> u64 {
        self.session().stats().expect("not gated").evictions
    }

    fn faults(&mut self) -> Vec<String> {
        let mut severe = Vec::new();
        let checked = self.session().check(&mut |finding| {
            if finding.severe {
                severe.push(format!("{} at {} ({})", finding.kind, finding.place, finding.detail));
            }
        });
        checked.expect("not gated");
        severe
    }
}

fn input(bytes: &[u8]) -> In {
    In { ptr: bytes.as_ptr(), len: bytes.len() }
}

fn output(bytes: &mut [u8]) -> Out {
    Out { ptr: bytes.as_mut_ptr(), len: bytes.len() }
}

fn found(key: &[u8], info: &plib_core::ItemInfo, mut value: Vec<u8>) -> Found {
    value.truncate(info.value_len);
    Found { key: key.to_vec(), value, flags: info.flags, expiry: info.expiry, cas: info.cas }
}

/// The model's word for the status of a batch's member.
fn refusal(status: u32) -> Option<Why> {
    const ALL: [Status; 6] =
        [Status::NotFound, Status::Exists, Status::NotStored, Status::TooLarge, Status::Key, Status::NotNumeric];
    if status == Status::Ok as u32 {
        return None;
    }
    let known = ALL.into_iter().find(|known| *known as u32 == status);
    Some(known.map_or_else(|| Why::Other(format!("status {status}")), why))
}

/// The model's word for a status.
fn why(status: Status) -> Why {
    match status {
        Status::NotFound => Why::NotFound,
        Status::Exists => Why::Exists,
        Status::NotStored => Why::NotStored,
        Status::TooLarge => Why::TooLarge,
        Status::Key => Why::Key,
        Status::NotNumeric => Why::NotNumeric,
        other => Why::Other(format!("{other:?}")),
    }
}
