//! Memory for children that depends on nothing the parent did before: what the parent's allocator has at hand changes from
//! try to try, and with it the way that an operation takes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator in the parent; in a child, one block after the other from a fixed room, and nothing is freed.
pub struct Arena {
    /// 1 + bytes given out; 0 in the parent.
    given: AtomicUsize,
    room: UnsafeCell<[u8; ROOM]>,
}

const ROOM: usize = 8 << 20;

// SAFETY: every byte of the room is given out once, by an atomic addition.
unsafe impl Sync for Arena {}

#[global_allocator]
static ARENA: Arena = Arena { given: AtomicUsize::new(0), room: UnsafeCell::new([0; ROOM]) };

/// From here on this process, a child, takes its memory from the room.
pub fn enter() {
    ARENA.given.store(1, Ordering::Relaxed);
}

// SAFETY: the parent's calls are the system allocator's. A child's blocks lie in the room, aligned, and never overlap.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if self.given.load(Ordering::Relaxed) == 0 {
            // SAFETY: passed on.
            return unsafe { System.alloc(layout) };
        }
        let from = self.given.fetch_add(layout.size() + layout.align(), Ordering::Relaxed);
        let start = self.room.get().cast::<u8>();
        let pad = (start as usize + from).next_multiple_of(layout.align()) - (start as usize + from);
        if from + pad + layout.size() > ROOM {
            return std::ptr::null_mut();
        }
        // SAFETY: inside the room, as just compared.
        unsafe { start.add(from + pad) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        if self.given.load(Ordering::Relaxed) == 0 {
            // SAFETY: passed on; the parent has only the system allocator's blocks.
            unsafe { System.dealloc(ptr, layout) }
        }
    }
}
