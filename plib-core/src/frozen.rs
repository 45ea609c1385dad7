//! Who holds something that others wait for, and whether he gets on.
//!
//! An owner is *frozen* if he is inside an operation, holds a bucket's lock, the right to reserve for a large value or a
//! superblock on the move, and does nothing for a time that the asker chooses: a process under SIGSTOP, in a frozen
//! cgroup or under a debugger, or a thread that is stuck in a signal handler. What a single look tells is a
//! [`Holding`] with a fingerprint; the same fingerprint at a later look says that the owner did not get on.
//!
//! The words are another process's and change while they are read. What is told was true of one owner: the fingerprint
//! is taken before and after, and a difference means that he is at work, which is all that matters then.

use crate::client::{Client, ContextMemory, ContextState, Owner};
use crate::heap::superblock::Use;
use crate::index::Lines;
use crate::mutant::{self, Mutant};
use crate::sync::Ordering;

/// What an op context inside an operation holds, and whose it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holding {
    /// The op context, from 1.
    pub context: u32,
    /// Its client's slot.
    pub slot: u32,
    /// The client's pid, in its own pid namespace.
    pub pid: u32,
    /// The inode of that namespace; 0 if it is not known.
    pub pid_namespace: u64,
    /// When the client started, in clock ticks after boot.
    pub start_time: u64,
    /// The thread at work, in its own pid namespace, if it is known.
    pub thread: Option<u32>,
    /// The buckets whose locks it holds.
    pub buckets: [Option<u32>; 2],
    /// Whether it holds the right to reserve memory for a large value.
    pub large: bool,
    /// The superblock whose use it is changing.
    pub superblock: Option<u32>,
    /// The superblocks in which it reads; they cannot change their use meanwhile, and nobody else is held up.
    pub reads: [Option<u32>; 2],
    /// Another after each step of the owner's.
    pub fingerprint: u64,
    owner: Owner,
}

impl Holding {
    /// Whether others may have to wait for it.
    pub fn holds_up(&self) -> bool {
        self.buckets.iter().any(Option::is_some)
            || self.large
            || self.superblock.is_some()
            || mutant::is(Mutant::HoldsNothing)
    }

    /// Its owner.
    pub(crate) fn owner(&self) -> Owner {
        self.owner
    }

    /// From words as `encode` makes them.
    pub(crate) fn decode(words: &[u64; HOLDING_WORDS]) -> Self {
        let [context, slot, pid, pid_namespace, start_time, thread, first, second, rest @ ..] = *words;
        let [large, superblock, read, also, fingerprint, owner] = rest;
        Self {
            context: context as u32,
            slot: slot as u32,
            pid: pid as u32,
            pid_namespace,
            start_time,
            thread: named(thread),
            buckets: [named(first), named(second)],
            large: large != 0,
            superblock: named(superblock),
            reads: [named(read), named(also)],
            fingerprint,
            owner: Owner(owner as u32),
        }
    }

    /// As words, in which 0 is nothing and an optional number is one more than it.
    pub(crate) fn encode(&self) -> [u64; HOLDING_WORDS] {
        let one_more = |number: Option<u32>| number.map_or(0, |n| u64::from(n) + 1);
        let Self { pid_namespace, start_time, fingerprint, .. } = *self;
        let [context, slot, pid, large] = [self.context, self.slot, self.pid, self.large.into()].map(u64::from);
        let [first, second] = self.buckets.map(one_more);
        let [read, also] = self.reads.map(one_more);
        let (thread, superblock) = (one_more(self.thread), one_more(self.superblock));
        let owner = u64::from(self.owner.0);
        let place = [context, slot, pid, pid_namespace, start_time, thread, first, second];
        let [a, b, c, d, e, f, g, h] = place;
        [a, b, c, d, e, f, g, h, large, superblock, read, also, fingerprint, owner]
    }
}

/// Words that a [`Holding`] takes between two sides of a gate.
pub(crate) const HOLDING_WORDS: usize = 14;

impl Client {
    /// What op context `number` (from 1) holds; None if it holds nothing, was just at work, or has a dead owner.
    pub fn holding(&self, number: u32) -> Option<Holding> {
        let heap = self.heap();
        let context = heap.context(number)?;
        let state = context.load();
        let fingerprint = fingerprint(context);
        if !state.is_busy() {
            return None;
        }
        let owner = state.owner(number);
        // Whose slot it is when these are read is compared last, by `is_dead`.
        let (pid, start_time, pid_namespace) = heap.client(state.slot())?.identity();
        let found = Holding {
            context: number,
            slot: state.slot(),
            pid,
            pid_namespace,
            start_time,
            thread: context.thread(state),
            buckets: self.buckets_locked(context, owner),
            large: heap.hot().large.0.load(Ordering::Acquire) == u64::from(owner.0),
            superblock: self.superblock_moved(context, owner),
            reads: context.hazards.words().map(named),
            fingerprint,
            owner,
        };
        let inside = found.holds_up() || found.reads.iter().any(Option::is_some);
        // The dead are no business of a sweeper's policy: whoever needs what they hold takes it.
        (inside && self.unchanged(context, state, fingerprint) && !self.is_dead(context, state)).then_some(found)
    }

    /// Whether the owner of what was found will never act again.
    pub fn is_gone(&self, holding: &Holding) -> bool {
        self.owner_is_dead(holding.owner)
    }

    /// Whether the owner is the same, and has not moved since.
    fn unchanged(&self, context: &ContextMemory, state: ContextState, before: u64) -> bool {
        context.load() == state && fingerprint(context) == before
    }

    /// The buckets that an intent names and whose control words bear the owner's name.
    fn buckets_locked(&self, context: &ContextMemory, owner: Owner) -> [Option<u32>; 2] {
        let intent = &context.intent;
        [&intent.bucket, &intent.other].map(|word| {
            let number = named(word.load(Ordering::Acquire))?;
            self.heap().bucket(number).is_some_and(|line| line.holder() == owner).then_some(number)
        })
    }

    /// The superblock that an intent names and whose state word says that it is the owner's.
    fn superblock_moved(&self, context: &ContextMemory, owner: Owner) -> Option<u32> {
        let s = named(context.intent.superblock.load(Ordering::Acquire))?;
        let state = self.heap().descriptor(s)?.state();
        let moving = matches!(state.usage(), Use::Draining(_) | Use::Converting);
        (moving && state.owner() == owner).then_some(s)
    }
}

fn fingerprint(context: &ContextMemory) -> u64 {
    if mutant::is(Mutant::BlindFingerprint) { 0 } else { context.fingerprint() }
}

/// What a word names that holds 1 + a number, or 0 for nothing.
fn named(word: u64) -> Option<u32> {
    word.checked_sub(1).map(|number| number as u32)
}
