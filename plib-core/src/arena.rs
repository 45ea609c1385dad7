//! A heap in plain memory, for unit tests.

extern crate std;

use crate::client::{Client, ClientParams};
use crate::heap::Heap;
use crate::layout::CreateParams;
use std::alloc::{Layout, alloc_zeroed, dealloc};

/// Contexts of the heap.
pub(crate) const CONTEXTS: u32 = 8;

/// The memory of a heap.
pub(crate) struct Arena {
    base: *mut u8,
    layout: Layout,
    pub heap: Heap,
}

impl Arena {
    pub fn new() -> Self {
        let params = CreateParams {
            size: 8 << 20,
            item_size_max: 1 << 20,
            contexts: CONTEXTS,
            secret: [1, 2, 3, 4],
            boot_id: [5, 6],
            created: 7,
            lock_id: [0; 2],
            readable: false,
        };
        let layout = Layout::from_size_align(params.size as usize, 1 << 16).unwrap();
        // SAFETY: fresh, zeroed, aligned memory of this size, which goes only with the arena.
        unsafe {
            let base = alloc_zeroed(layout);
            Heap::format(base, layout.size(), &params).unwrap();
            Self { base, layout, heap: Heap::attach(base, layout.size(), [5, 6]).unwrap() }
        }
    }

    pub fn client(&self, slot: u32) -> Client {
        Client::register(
            self.heap,
            ClientParams { slot, lock_byte: 0, pid: 1, pid_namespace: 0, start_time: 0, lock_fd: -1, vdso: 0 },
        )
        .unwrap()
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: as it was allocated.
        unsafe { dealloc(self.base, self.layout) };
    }
}

/// Stores an item of this key, and a value of `len` bytes.
pub(crate) fn set(client: &Client, id: crate::ContextId, key: &[u8], len: usize) {
    let value = std::vec![7; len];
    // SAFETY: the context is the caller's, and both are slices.
    let stored = unsafe {
        client.session(id).store(crate::Mode::Set, crate::user::In::new(key), crate::user::In::new(&value), 0, 0)
    };
    stored.unwrap();
}
