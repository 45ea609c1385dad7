//! The core on a plain boxed arena, without files or other processes: what a single client sees.
#![cfg(not(loom))]
#![allow(missing_docs, clippy::undocumented_unsafe_blocks, reason = "a test; every pointer is of a local slice")]

use plib_core::layout::CreateParams;
use plib_core::user::{In, Out};
use plib_core::{Client, ClientParams, Heap, Mode, Session, Status};
use std::alloc::{Layout, alloc_zeroed, dealloc};

struct Arena {
    base: *mut u8,
    layout: Layout,
}

impl Arena {
    fn new(size: u64, item_size_max: u32) -> (Self, Heap) {
        let layout = Layout::from_size_align(size as usize, 1 << 16).unwrap();
        let base = unsafe { alloc_zeroed(layout) };
        let params = CreateParams {
            size,
            item_size_max,
            contexts: 0,
            secret: [1, 2, 3, 4],
            boot_id: [5, 6],
            created: 7,
            lock_id: [0; 2],
            readable: false,
        };
        unsafe { Heap::format(base, size as usize, &params).unwrap() };
        let heap = unsafe { Heap::attach(base, size as usize, [5, 6]).unwrap() };
        (Self { base, layout }, heap)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        unsafe { dealloc(self.base, self.layout) };
    }
}

fn client(heap: Heap) -> Client {
    Client::register(
        heap,
        ClientParams {
            slot: 0,
            lock_byte: 0,
            pid: std::process::id(),
            start_time: 0,
            pid_namespace: 0,
            lock_fd: -1,
            vdso: 0,
        },
    )
    .unwrap()
}

fn with(size: u64, item_size_max: u32, test: impl FnOnce(&mut Session<'_>)) {
    let (_arena, heap) = Arena::new(size, item_size_max);
    let client = client(heap);
    let id = client.claim_context(0).unwrap();
    let mut session = unsafe { client.session(id) };
    test(&mut session);
    assert_clean(&mut session);
}

fn assert_clean(s: &mut Session<'_>) {
    let mut findings = Vec::new();
    let sum = s.check(&mut |f| findings.push(f)).unwrap();
    assert!(findings.is_empty(), "{findings:?} {sum:?}");
    let stats = s.stats().unwrap();
    assert_eq!((stats.curr_items, stats.bytes), (sum.items, sum.bytes));
}

fn set(s: &mut Session<'_>, key: &[u8], value: &[u8]) -> Result<u64, Status> {
    unsafe { s.store(Mode::Set, In::new(key), In::new(value), 7, 0) }
}

fn get(s: &mut Session<'_>, key: &[u8]) -> Option<Vec<u8>> {
    let mut buf = vec![0; 64];
    loop {
        match unsafe { s.get(In::new(key), Out::new(&mut buf)) } {
            Ok(got) if got.copied => {
                buf.truncate(got.info.value_len);
                return Some(buf);
            }
            Ok(got) => buf.resize(got.info.value_len, 0),
            Err(Status::NotFound) => return None,
            Err(status) => panic!("{status:?}"),
        }
    }
}

fn value(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (seed.wrapping_mul(31) ^ i ^ (i >> 8)) as u8).collect()
}

#[test]
fn values_of_every_size_come_back() {
    with(64 << 20, 8 << 20, |s| {
        for len in (0..300).chain([
            1000,
            4096,
            32_000,
            32_735,
            32_736,
            40_000,
            57_400,
            65_519,
            65_520,
            70_000,
            1 << 20,
            5 << 20,
        ]) {
            let v = value(len, len);
            let key = format!("key-{len}");
            set(s, key.as_bytes(), &v).unwrap();
            assert_eq!(get(s, key.as_bytes()).as_ref(), Some(&v), "{len}");
        }
        assert_eq!(get(s, b"none"), None);
        assert_eq!(set(s, b"big", &vec![0; 8 << 20]), Err(Status::TooLarge));
        assert_eq!(set(s, b"", b""), Err(Status::Key));
        assert_eq!(set(s, &[1; 251], b""), Err(Status::Key));
        set(s, &[1; 250], b"x").unwrap();
        assert_eq!(get(s, &[1; 250]).unwrap(), b"x");
    });
}

#[test]
fn the_index_grows_and_forgets_nothing() {
    with(64 << 20, 1 << 20, |s| {
        for i in 0..200_000u32 {
            set(s, &i.to_le_bytes(), &i.to_be_bytes()).unwrap();
            if i % 1000 == 0 {
                for j in (0..i).step_by(997) {
                    assert_eq!(get(s, &j.to_le_bytes()).unwrap(), j.to_be_bytes());
                }
            }
        }
        for i in 0..200_000u32 {
            assert_eq!(get(s, &i.to_le_bytes()).unwrap(), i.to_be_bytes(), "{i}");
        }
        let stats = s.stats().unwrap();
        assert!(stats.buckets > 40_000 && stats.splits > 40_000, "{stats:?}");
        assert_clean(s);
        for i in 0..200_000u32 {
            unsafe { s.delete(In::new(&i.to_le_bytes()), None).unwrap() };
        }
        assert_eq!(s.stats().unwrap().curr_items, 0);
    });
}

#[test]
fn a_full_heap_evicts_and_changes_its_classes() {
    with(16 << 20, 1 << 20, |s| {
        for round in 0..20usize {
            for i in 0..60_000usize {
                set(s, format!("small-{round}-{i}").as_bytes(), &value(i, 50)).unwrap();
            }
            for i in 0..30usize {
                let v = value(i, (1 << 20) - 100);
                let key = format!("large-{round}-{i}");
                set(s, key.as_bytes(), &v).unwrap();
                assert_eq!(get(s, key.as_bytes()), Some(v));
            }
        }
        let stats = s.stats().unwrap();
        assert!(stats.evictions > 100_000 && stats.superblocks_moved > 100, "{stats:?}");
    });
}

#[test]
fn conditions_numbers_and_times() {
    with(16 << 20, 1 << 20, |s| unsafe {
        let (k, none) = (In::new(b"k"), In::new(b"none"));
        assert_eq!(s.store(Mode::Replace, k, In::new(b"1"), 0, 0), Err(Status::NotStored));
        let cas = s.store(Mode::Add, k, In::new(b"9"), 3, 0).unwrap();
        assert_eq!(s.store(Mode::Add, k, In::new(b"1"), 0, 0), Err(Status::NotStored));
        assert_eq!(s.store(Mode::Cas(cas + 999_999), k, In::new(b"1"), 0, 0), Err(Status::Exists));
        assert_eq!(s.store(Mode::Cas(cas), none, In::new(b"1"), 0, 0), Err(Status::NotFound));
        assert_eq!(s.arith(k, 1, false, None).unwrap().0, 10);
        assert_eq!(get(s, b"k").unwrap(), b"10");
        assert_eq!(s.arith(k, 1, true, None).unwrap().0, 9);
        assert_eq!(get(s, b"k").unwrap(), b"9 ");
        assert_eq!(s.arith(k, 100, true, None).unwrap().0, 0);
        assert_eq!(s.arith(k, u64::MAX, false, None).unwrap().0, u64::MAX);
        assert_eq!(s.arith(k, 2, false, None).unwrap().0, 1);
        assert_eq!(get(s, b"k").unwrap(), b"1                   ");
        s.store(Mode::Append, k, In::new(b"x"), 0, 0).unwrap();
        assert_eq!(get(s, b"k").unwrap(), b"1                   x");
        assert_eq!(s.arith(k, 1, false, None), Err(Status::NotNumeric));
        assert_eq!(s.arith(none, 1, false, None), Err(Status::NotFound));
        assert_eq!(s.arith(none, 1, false, Some((41, 0))).unwrap().0, 41);
        assert_eq!(s.arith(none, 1, false, Some((41, 0))).unwrap().0, 42);
        s.store(Mode::Prepend, k, In::new(b"<"), 0, 0).unwrap();
        let mut buf = [0; 64];
        let got = s.get(k, Out::new(&mut buf)).unwrap();
        assert_eq!((&buf[..got.info.value_len], got.info.flags), (&b"<1                   x"[..], 3));
        let got = s.get(k, Out { ptr: buf.as_mut_ptr(), len: 3 }).unwrap();
        assert!(!got.copied && got.info.value_len == 22);
        s.touch(k, -1).unwrap();
        assert_eq!(get(s, b"k"), None);
        assert_eq!(s.touch(k, 0), Err(Status::NotFound));
        s.store(Mode::Add, k, In::new(b"again"), 0, 100).unwrap();
        let got = s.get_and_touch(k, 0, Out::new(&mut buf)).unwrap();
        assert_eq!((got.info.value_len, got.info.expiry), (5, 0));
        s.flush_all(0).unwrap();
        assert_eq!(get(s, b"k"), None);
        set(s, b"k", b"new").unwrap();
        s.flush_all(1000).unwrap();
        assert_eq!(get(s, b"k").unwrap(), b"new");
    });
}

#[test]
fn append_moves_between_inline_and_large() {
    with(32 << 20, 4 << 20, |s| unsafe {
        let mut want = Vec::new();
        s.store(Mode::Set, In::new(b"k"), In::new(b""), 0, 0).unwrap();
        for i in 0..60 {
            let more = value(i, 1 + i * 997);
            if i % 2 == 0 {
                s.store(Mode::Append, In::new(b"k"), In::new(&more), 0, 0).unwrap();
                want.extend_from_slice(&more);
            } else {
                s.store(Mode::Prepend, In::new(b"k"), In::new(&more), 0, 0).unwrap();
                want.splice(0..0, more);
            }
            assert_eq!(get(s, b"k").unwrap(), want);
        }
    });
}

#[test]
fn a_scan_shows_every_item_once_while_the_index_grows() {
    with(64 << 20, 1 << 20, |s| unsafe {
        for i in 0..5_000u32 {
            set(s, &i.to_le_bytes(), &value(i as usize, 100)).unwrap();
        }
        let mut seen = vec![0; 5_000];
        let (mut cursor, mut key, mut buf) = (0, [0; 250], [0; 256]);
        let mut extra = 5_000u32;
        while let Some(item) = s.scan(cursor, Out::new(&mut key), Out::new(&mut buf)).unwrap() {
            let i = u32::from_le_bytes(key[..4].try_into().unwrap());
            if i < 5_000 {
                assert_eq!(&buf[..100], value(i as usize, 100));
                seen[i as usize] += 1;
            }
            cursor = item.next;
            if extra < 60_000 {
                for _ in 0..10 {
                    set(s, &extra.to_le_bytes(), b"x").unwrap();
                    extra += 1;
                }
            }
        }
        assert!(seen.iter().all(|n| *n == 1));
    });
}

#[test]
fn batches_answer_each_request() {
    use plib_core::{DeleteRequest, GetRequest, SetRequest};
    with(32 << 20, 1 << 20, |s| unsafe {
        let keys: Vec<String> = (0..100).map(|i| format!("key-{i}")).collect();
        let mut sets: Vec<SetRequest> = keys
            .iter()
            .map(|k| SetRequest {
                key: k.as_ptr(),
                key_len: k.len(),
                value: k.as_ptr(),
                value_len: k.len(),
                exptime: 0,
                cas: 0,
                flags: 5,
                status: 99,
            })
            .collect();
        sets[50].key_len = 0;
        s.set_many(&mut sets);
        assert!(sets.iter().enumerate().all(|(i, r)| r.status == if i == 50 { 5 } else { 0 }));
        let mut bufs = vec![[0u8; 8]; 100];
        let mut gets: Vec<GetRequest> = keys
            .iter()
            .zip(&mut bufs)
            .map(|(k, b)| GetRequest {
                key: k.as_ptr(),
                key_len: k.len(),
                buf: b.as_mut_ptr(),
                buf_len: b.len(),
                value_len: 0,
                cas: 0,
                flags: 0,
                expiry: 0,
                status: 99,
                pad: 0,
            })
            .collect();
        gets[7].buf_len = 2;
        s.get_many(&mut gets);
        for (i, r) in gets.iter().enumerate() {
            let want = match i {
                50 => Status::NotFound,
                7 => Status::TooSmall,
                _ => Status::Ok,
            };
            assert_eq!(r.status, want as u32, "{i}");
        }
        assert_eq!(&bufs[99][..6], b"key-99");
        let mut deletes: Vec<DeleteRequest> =
            keys.iter().map(|k| DeleteRequest { key: k.as_ptr(), key_len: k.len(), status: 99, pad: 0 }).collect();
        s.delete_many(&mut deletes);
        assert!(deletes.iter().enumerate().all(|(i, r)| r.status == u32::from(i == 50)));
    });
}

#[test]
fn pointers_into_the_heap_are_refused() {
    let (arena, heap) = Arena::new(16 << 20, 1 << 20);
    let client = client(heap);
    let id = client.claim_context(0).unwrap();
    let mut s = unsafe { client.session(id) };
    let inside = unsafe { arena.base.add(1 << 20) };
    let before = unsafe { arena.base.sub(4) };
    let mut buf = [0u8; 8];
    unsafe {
        s.store(Mode::Set, In::new(b"k"), In::new(b"v"), 0, 0).unwrap();
        for (ptr, len) in [(inside, 8), (before, 8), (std::ptr::null_mut(), 8), (inside, usize::MAX)] {
            let key = In { ptr, len: len.min(8) };
            assert_eq!(s.get(key, Out::new(&mut buf)), Err(Status::Invalid));
            assert_eq!(s.get(In::new(b"k"), Out { ptr, len }), Err(Status::Invalid));
            let stored = s.store(Mode::Set, In::new(b"k"), In { ptr, len }, 0, 0);
            assert_eq!(stored, Err(if len == usize::MAX { Status::TooLarge } else { Status::Invalid }));
            assert_eq!(s.delete(key, None), Err(Status::Invalid));
        }
    }
    assert_eq!(get(&mut s, b"k").unwrap(), b"v");
    assert_clean(&mut s);
}

#[test]
fn threads_share_a_client() {
    let (_arena, heap) = Arena::new(64 << 20, 1 << 20);
    let client = client(heap);
    std::thread::scope(|scope| {
        for t in 0..4usize {
            let client = &client;
            scope.spawn(move || {
                let id = client.claim_context(0).unwrap();
                let mut s = unsafe { client.session(id) };
                for i in 0..30_000usize {
                    let key = format!("key-{}", (i * 7 + t) % 500);
                    match i % 5 {
                        0 => drop(set(&mut s, key.as_bytes(), &value(i, i % 3000)).unwrap()),
                        1 => drop(unsafe { s.delete(In::new(key.as_bytes()), None) }),
                        2 => drop(set(&mut s, key.as_bytes(), &value(i, 40_000)).unwrap()),
                        _ => drop(get(&mut s, key.as_bytes())),
                    }
                    unsafe { s.arith(In::new(b"total"), 1, false, Some((1, 0))).unwrap() };
                }
                client.release_context(id, 0);
            });
        }
    });
    let id = client.claim_context(0).unwrap();
    let mut s = unsafe { client.session(id) };
    assert_eq!(get(&mut s, b"total").unwrap(), b"120000");
    assert_clean(&mut s);
}
