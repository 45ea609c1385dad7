//! The C ABI as a C program sees it: declared here as `plib.h` declares it, linked from the library.

use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr::{null, null_mut};

use plib_model::{Arith, Command, Found, Front, Reply, Store, StoreMode, Token, Why};

#[repr(C)]
struct Handle {
    _opaque: [u8; 0],
}

#[repr(C)]
#[derive(Default)]
struct Item {
    cas: u64,
    flags: u32,
    expiry: u32,
}

#[repr(C)]
struct GetRequest {
    key: *const c_void,
    key_len: usize,
    buf: *mut c_void,
    buf_len: usize,
    value_len: usize,
    cas: u64,
    flags: u32,
    expiry: u32,
    status: u32,
    pad: u32,
}

#[repr(C)]
struct SetRequest {
    key: *const c_void,
    key_len: usize,
    value: *const c_void,
    value_len: usize,
    exptime: i64,
    cas: u64,
    flags: u32,
    status: u32,
}

#[repr(C)]
struct DeleteRequest {
    key: *const c_void,
    key_len: usize,
    status: u32,
    pad: u32,
}

#[repr(C)]
struct Entry {
    key: *const c_void,
    key_len: usize,
    value: *const c_void,
    value_len: usize,
    cas: u64,
    flags: u32,
    expiry: u32,
}

#[repr(C)]
struct Finding {
    kind: *const c_char,
    place: u64,
    detail: u64,
    severe: c_int,
}

type StoreFn = unsafe extern "C" fn(*mut Handle, *const c_void, usize, *const c_void, usize, u32, i64, *mut u64) -> u32;
type ArithFn = unsafe extern "C" fn(*mut Handle, *const c_void, usize, u64, *mut u64) -> u32;
type ArithInitFn = unsafe extern "C" fn(*mut Handle, *const c_void, usize, u64, u64, i64, *mut u64) -> u32;

#[rustfmt::skip]
unsafe extern "C" {
    fn plib_open(name: *const c_char, options: *const c_void, out: *mut *mut Handle) -> u32;
    fn plib_close(cache: *mut Handle);
    fn plib_last_error_message() -> *const c_char;
    fn plib_get(cache: *mut Handle, key: *const c_void, key_len: usize, buf: *mut c_void, buf_len: usize, value_len: *mut usize, info: *mut Item) -> u32;
    fn plib_gat(cache: *mut Handle, key: *const c_void, key_len: usize, exptime: i64, buf: *mut c_void, buf_len: usize, value_len: *mut usize, info: *mut Item) -> u32;
    fn plib_set(cache: *mut Handle, key: *const c_void, key_len: usize, value: *const c_void, value_len: usize, flags: u32, exptime: i64, cas: *mut u64) -> u32;
    fn plib_add(cache: *mut Handle, key: *const c_void, key_len: usize, value: *const c_void, value_len: usize, flags: u32, exptime: i64, cas: *mut u64) -> u32;
    fn plib_replace(cache: *mut Handle, key: *const c_void, key_len: usize, value: *const c_void, value_len: usize, flags: u32, exptime: i64, cas: *mut u64) -> u32;
    fn plib_append(cache: *mut Handle, key: *const c_void, key_len: usize, value: *const c_void, value_len: usize, flags: u32, exptime: i64, cas: *mut u64) -> u32;
    fn plib_prepend(cache: *mut Handle, key: *const c_void, key_len: usize, value: *const c_void, value_len: usize, flags: u32, exptime: i64, cas: *mut u64) -> u32;
    fn plib_cas(cache: *mut Handle, key: *const c_void, key_len: usize, value: *const c_void, value_len: usize, flags: u32, exptime: i64, cas: u64, out: *mut u64) -> u32;
    fn plib_delete(cache: *mut Handle, key: *const c_void, key_len: usize) -> u32;
    fn plib_delete_cas(cache: *mut Handle, key: *const c_void, key_len: usize, cas: u64) -> u32;
    fn plib_incr(cache: *mut Handle, key: *const c_void, key_len: usize, delta: u64, out: *mut u64) -> u32;
    fn plib_decr(cache: *mut Handle, key: *const c_void, key_len: usize, delta: u64, out: *mut u64) -> u32;
    fn plib_incr_init(cache: *mut Handle, key: *const c_void, key_len: usize, delta: u64, initial: u64, exptime: i64, out: *mut u64) -> u32;
    fn plib_decr_init(cache: *mut Handle, key: *const c_void, key_len: usize, delta: u64, initial: u64, exptime: i64, out: *mut u64) -> u32;
    fn plib_touch(cache: *mut Handle, key: *const c_void, key_len: usize, exptime: i64) -> u32;
    fn plib_flush_all(cache: *mut Handle, delay: i64) -> u32;
    fn plib_mget(cache: *mut Handle, first: *mut GetRequest, n: usize) -> u32;
    fn plib_mset(cache: *mut Handle, first: *mut SetRequest, n: usize) -> u32;
    fn plib_mdelete(cache: *mut Handle, first: *mut DeleteRequest, n: usize) -> u32;
    fn plib_scan(cache: *mut Handle, visit: extern "C" fn(*mut c_void, *const Entry) -> c_int, context: *mut c_void) -> u32;
    fn plib_stats(cache: *mut Handle, visit: extern "C" fn(*mut c_void, *const c_char, *const c_char), context: *mut c_void) -> u32;
    fn plib_check(cache: *mut Handle, visit: extern "C" fn(*mut c_void, *const Finding), context: *mut c_void, out: *mut c_void) -> u32;
}

/// A handle of the C ABI.
pub struct CFront {
    cache: *mut Handle,
    value_max: usize,
}

impl CFront {
    pub fn open(path: &str, value_max: usize) -> CFront {
        let name = CString::new(path).expect("a path");
        let mut cache = null_mut();
        // SAFETY: a C string, no options, a place for the handle.
        let status = unsafe { plib_open(name.as_ptr(), null(), &mut cache) };
        assert_eq!(status, 0, "{}", message());
        CFront { cache, value_max }
    }

    /// Calls plib_get or plib_gat with a buffer of `room` bytes.
    fn read(&mut self, key: &[u8], room: usize, exptime: Option<i64>) -> Result<Reply, Why> {
        let (mut buf, mut len, mut info) = (vec![0u8; room], usize::MAX, Item::default());
        let (to, out) = (buf.as_mut_ptr().cast(), &raw mut len);
        // SAFETY: key, buffer and outputs live through the call.
        let status = unsafe {
            match exptime {
                None => plib_get(self.cache, at(key), key.len(), to, room, out, &mut info),
                Some(t) => plib_gat(self.cache, at(key), key.len(), t, to, room, out, &mut info),
            }
        };
        match refusal(status, len) {
            Some(why) => Err(why),
            None => Ok(Reply::Item(found(key, buf, len, info))),
        }
    }

    fn store(&mut self, s: &Store) -> Result<Reply, Why> {
        let value = s.value.bytes();
        let (key, mut cas) = (&s.key[..], 0);
        let store: StoreFn = match s.mode {
            StoreMode::Set => plib_set,
            StoreMode::Add => plib_add,
            StoreMode::Replace => plib_replace,
            StoreMode::Append => plib_append,
            StoreMode::Prepend => plib_prepend,
            StoreMode::Cas(token) => {
                let (old, flags, exptime) = (exact(token), s.flags, s.exptime);
                let (from, len, out) = (at(&value), value.len(), &raw mut cas);
                // SAFETY: key, value and output live through the call.
                let status = unsafe { plib_cas(self.cache, at(key), key.len(), from, len, flags, exptime, old, out) };
                return outcome(status, Reply::Stored(cas));
            }
        };
        // SAFETY: key, value and output live through the call.
        let status = unsafe {
            let (from, len) = (at(&value), value.len());
            store(self.cache, at(key), key.len(), from, len, s.flags, s.exptime, &mut cas)
        };
        outcome(status, Reply::Stored(cas))
    }

    fn arith(&mut self, a: &Arith) -> Result<Reply, Why> {
        let (key, mut number) = (&a.key[..], 0);
        let plain: ArithFn = if a.decrement { plib_decr } else { plib_incr };
        let init: ArithInitFn = if a.decrement { plib_decr_init } else { plib_incr_init };
        // SAFETY: key and output live through the call.
        let status = unsafe {
            match a.initial {
                None => plain(self.cache, at(key), key.len(), a.delta, &mut number),
                Some((initial, exptime)) => {
                    let len = key.len();
                    init(self.cache, at(key), len, a.delta, initial, exptime, &mut number)
                }
            }
        };
        outcome(status, Reply::Number(number))
    }

    fn get_many(&mut self, keys: &[Vec<u8>]) -> Result<Reply, Why> {
        let mut bufs = vec![vec![0u8; self.value_max]; keys.len()];
        let requests = keys.iter().zip(&mut bufs).map(|(key, buf)| GetRequest {
            key: at(key),
            key_len: key.len(),
            buf: buf.as_mut_ptr().cast(),
            buf_len: buf.len(),
            value_len: 0,
            cas: 0,
            flags: 0,
            expiry: 0,
            status: u32::MAX,
            pad: 0,
        });
        let mut requests: Vec<_> = requests.collect();
        // SAFETY: requests, keys and buffers live through the call.
        let status = unsafe { plib_mget(self.cache, requests.as_mut_ptr(), requests.len()) };
        let replies = requests.into_iter().zip(keys).zip(bufs).map(|((request, key), buf)| {
            let GetRequest { cas, flags, expiry, value_len, status, .. } = request;
            match refusal(status, value_len) {
                None => Reply::Item(found(key, buf, value_len, Item { cas, flags, expiry })),
                Some(why) => Reply::Refused(why),
            }
        });
        outcome(status, Reply::Many(replies.collect()))
    }

    fn set_many(&mut self, items: &[(Vec<u8>, Vec<u8>)], flags: u32, exptime: i64) -> Result<Reply, Why> {
        let requests = items.iter().map(|(key, value)| SetRequest {
            key: at(key),
            key_len: key.len(),
            value: at(value),
            value_len: value.len(),
            exptime,
            cas: 0,
            flags,
            status: u32::MAX,
        });
        let mut requests: Vec<_> = requests.collect();
        // SAFETY: requests, keys and values live through the call.
        let status = unsafe { plib_mset(self.cache, requests.as_mut_ptr(), requests.len()) };
        let reply = |r: &SetRequest| match refusal(r.status, 0) {
            None => Reply::Stored(r.cas),
            Some(why) => Reply::Refused(why),
        };
        outcome(status, Reply::Many(requests.iter().map(reply).collect()))
    }

    fn delete_many(&mut self, keys: &[Vec<u8>]) -> Result<Reply, Why> {
        let requests =
            keys.iter().map(|key| DeleteRequest { key: at(key), key_len: key.len(), status: u32::MAX, pad: 0 });
        let mut requests: Vec<_> = requests.collect();
        // SAFETY: requests and keys live through the call.
        let status = unsafe { plib_mdelete(self.cache, requests.as_mut_ptr(), requests.len()) };
        let reply = |r: &DeleteRequest| refusal(r.status, 0).map_or(Reply::Done, Reply::Refused);
        outcome(status, Reply::Many(requests.iter().map(reply).collect()))
    }

    fn scan(&mut self) -> Result<Reply, Why> {
        extern "C" fn visit(context: *mut c_void, entry: *const Entry) -> c_int {
            // SAFETY: the context is the vector below; the entry is valid until we return.
            let (items, entry) = unsafe { (&mut *context.cast::<Vec<Found>>(), &*entry) };
            let bytes = |from: *const c_void, len| match len {
                0 => Vec::new(),
                // SAFETY: the library says that so many bytes are there.
                len => unsafe { std::slice::from_raw_parts(from.cast::<u8>(), len) }.to_vec(),
            };
            let (key, value) = (bytes(entry.key, entry.key_len), bytes(entry.value, entry.value_len));
            let Entry { flags, expiry, cas, .. } = *entry;
            items.push(Found { key, value, flags, expiry, cas });
            0
        }
        let mut items: Vec<Found> = Vec::new();
        // SAFETY: the vector lives through the call, and `visit` is its only user.
        let status = unsafe { plib_scan(self.cache, visit, (&raw mut items).cast()) };
        outcome(status, Reply::Items(items))
    }

    fn delete(&mut self, key: &[u8], token: Option<Token>) -> Result<Reply, Why> {
        // SAFETY: the key lives through the call.
        let status = unsafe {
            match token {
                None => plib_delete(self.cache, at(key), key.len()),
                Some(token) => plib_delete_cas(self.cache, at(key), key.len(), exact(token)),
            }
        };
        outcome(status, Reply::Done)
    }

    fn try_execute(&mut self, command: &Command) -> Result<Reply, Why> {
        match command {
            Command::Get(key) => self.read(key, self.value_max, None),
            Command::GetInto(key, room) => self.read(key, *room, None),
            Command::GetAndTouch(key, exptime) => self.read(key, self.value_max, Some(*exptime)),
            Command::Store(store) => self.store(store),
            Command::Delete(key, token) => self.delete(key, *token),
            Command::Arith(arith) => self.arith(arith),
            Command::Touch(key, exptime) => {
                // SAFETY: the key lives through the call.
                outcome(unsafe { plib_touch(self.cache, at(key), key.len(), *exptime) }, Reply::Done)
            }
            Command::FlushAll(delay) => {
                // SAFETY: takes a handle and a number.
                outcome(unsafe { plib_flush_all(self.cache, *delay) }, Reply::Done)
            }
            Command::GetMany(keys) => self.get_many(keys),
            Command::SetMany(items, flags, exptime) => {
                let items: Vec<_> = items.iter().map(|(k, v)| (k.clone(), v.bytes())).collect();
                self.set_many(&items, *flags, *exptime)
            }
            Command::DeleteMany(keys) => self.delete_many(keys),
            Command::Scan => self.scan(),
        }
    }
}

impl Drop for CFront {
    fn drop(&mut self) {
        // SAFETY: a handle from plib_open, closed once.
        unsafe { plib_close(self.cache) };
    }
}

impl Front for CFront {
    fn execute(&mut self, command: &Command) -> Reply {
        self.try_execute(command).unwrap_or_else(Reply::Refused)
    }

    fn evictions(&mut self) -> u64 {
        extern "C" fn visit(context: *mut c_void, name: *const c_char, value: *const c_char) {
            if text(name) == "evictions" {
                // SAFETY: the context is the number below.
                unsafe { *context.cast::<u64>() = text(value).parse().expect("a number") };
            }
        }
        let mut evictions = u64::MAX;
        // SAFETY: the number lives through the call.
        let status = unsafe { plib_stats(self.cache, visit, (&raw mut evictions).cast()) };
        assert!(status == 0 && evictions != u64::MAX, "no evictions among the stats");
        evictions
    }

    fn faults(&mut self) -> Vec<String> {
        extern "C" fn visit(context: *mut c_void, finding: *const Finding) {
            // SAFETY: the context is the vector below; the finding is valid until we return.
            let (faults, finding) = unsafe { (&mut *context.cast::<Vec<String>>(), &*finding) };
            if finding.severe != 0 {
                faults.push(format!("{} at {}", text(finding.kind), finding.place));
            }
        }
        let mut faults: Vec<String> = Vec::new();
        // SAFETY: the vector lives through the call; no counts are wanted.
        let status = unsafe { plib_check(self.cache, visit, (&raw mut faults).cast(), null_mut()) };
        assert_eq!(status != 0, !faults.is_empty(), "check: {}", message());
        faults
    }
}

/// What the last call had to say.
fn message() -> String {
    // SAFETY: takes nothing.
    text(unsafe { plib_last_error_message() })
}

fn text(from: *const c_char) -> String {
    // SAFETY: the library gives C strings.
    unsafe { std::ffi::CStr::from_ptr(from) }.to_string_lossy().into_owned()
}

fn at(bytes: &[u8]) -> *const c_void {
    bytes.as_ptr().cast()
}

fn exact(token: Token) -> u64 {
    match token {
        Token::Exact(cas) => cas,
        other => panic!("{other:?} comes here as a number"),
    }
}

fn found(key: &[u8], mut value: Vec<u8>, len: usize, info: Item) -> Found {
    value.truncate(len);
    let Item { flags, expiry, cas } = info;
    Found { key: key.to_vec(), value, flags, expiry, cas }
}

fn outcome(status: u32, reply: Reply) -> Result<Reply, Why> {
    refusal(status, 0).map_or(Ok(reply), Err)
}

/// The model's word for a status of `plib.h`.
fn refusal(status: u32, needed: usize) -> Option<Why> {
    Some(match status {
        0 => return None,
        1 => Why::NotFound,
        2 => Why::Exists,
        3 => Why::NotStored,
        4 => Why::TooLarge,
        5 => Why::Key,
        6 => Why::NotNumeric,
        8 => Why::TooSmall(needed),
        other => Why::Other(format!("status {other}: {}", message())),
    })
}
