//! What happens behind the gate: the argument block is checked and copied, the operation is done, the answer goes out.

use super::call::{Answer, Attach, Block, Call, Operation, RESULTS, got_words, mode, words};
use super::entry::CONSTANTS;
use super::vault::Vault;
use super::visit::Reads;
use crate::batch::{DeleteRequest, GetRequest, SetRequest};
use crate::check::{CheckSummary, Finding};
use crate::client::{Op, Owner};
use crate::status::{Fault, Status};
use crate::user::{self, In, Out, Ranges};
use core::mem::{MaybeUninit, offset_of};

/// The gate's way in, on the stack of seat `number`.
pub(super) unsafe extern "sysv64" fn dispatch(vault: *const Vault, number: u32, block: *mut Block) {
    // SAFETY: the gate passes the address in its constants, of a mapping that stays.
    let vault: &'static Vault = unsafe { &*vault };
    // Each time: a child's vault was wiped.
    vault.ranges().set_own(CONSTANTS.region());
    vault.guard_launched(CONSTANTS.launched());
    if !vault.ranges().admit(block.cast(), size_of::<Block>()) {
        // Nowhere to say so.
        return;
    }
    let mut call = MaybeUninit::<Call>::uninit();
    // SAFETY: the block is outside of everything that the key guards. If it is not mapped the process ends here, holding nothing.
    let call = unsafe {
        user::copy(call.as_mut_ptr().cast(), block.cast::<u8>().add(offset_of!(Block, call)), size_of::<Call>());
        call.assume_init()
    };
    let answer = Work { vault, number, call }.answer();
    // SAFETY: as above.
    unsafe {
        user::copy(block.cast::<u8>().add(offset_of!(Block, answer)), (&raw const answer).cast(), size_of::<Answer>());
    }
}

/// Requests of a batch that are copied in at a time.
const PART: usize = 16;

/// One call.
struct Work {
    vault: &'static Vault,
    number: u32,
    call: Call,
}

impl Work {
    fn answer(&self) -> Answer {
        let Some(operation) = Operation::of(self.call.operation) else { return Answer::of(Status::Invalid) };
        match operation {
            Operation::Attach => self.attach(),
            Operation::Detach => self.vault.detach(self.call.heap, &CONSTANTS).map(|()| [0; RESULTS]).into(),
            _ => {
                let begun = self.vault.begin(self.number, self.call.heap);
                let answer = begun.and_then(|op| self.operate(operation, op)).into();
                self.vault.end(self.number);
                answer
            }
        }
    }

    fn attach(&self) -> Answer {
        let mut wanted = Attach::NONE;
        // SAFETY: any bytes are an `Attach`.
        if let Err(status) = unsafe { self.copy_in(self.call.input(0), &mut wanted) } {
            return Answer::of(status);
        }
        match self.vault.attach(self.call.heap, &wanted, &CONSTANTS) {
            Ok(()) => Answer::done([0; RESULTS]),
            Err(Fault { status, field, expected, found }) => {
                let words = [field.as_ptr() as u64, field.len() as u64, expected, found, 0];
                Answer { words, ..Answer::of(status) }
            }
        }
    }

    fn operate(&self, operation: Operation, op: Op<'static>) -> Result<[u64; RESULTS], Status> {
        let call = &self.call;
        let nothing = |()| [0; RESULTS];
        let exptime = |at| call.word(at) as i64;
        // SAFETY: of each: every pointer is compared with what the key guards, by the operation itself or right here, before it
        // is used. Memory that is not what the caller says ends the process, while nothing is locked.
        unsafe {
            match operation {
                Operation::Get => op.reading().get(call.input(0), call.output(2)).map(got_words),
                Operation::GetAndTouch => op.get_and_touch(call.input(0), exptime(4), call.output(2)).map(got_words),
                Operation::Store => {
                    let mode = mode(call.word(4), call.word(5)).ok_or(Status::Invalid)?;
                    let stored = op.store(mode, call.input(0), call.input(2), call.word(6) as u32, exptime(7));
                    stored.map(|cas| words([cas]))
                }
                Operation::Delete => op.delete(call.input(0), (call.word(2) != 0).then_some(call.word(3))).map(nothing),
                Operation::Arith => {
                    let initial = (call.word(4) != 0).then_some((call.word(5), exptime(6)));
                    let done = op.arith(call.input(0), call.word(2), call.word(3) != 0, initial);
                    done.map(|(number, cas)| words([number, cas]))
                }
                Operation::Touch => op.touch(call.input(0), exptime(2)).map(nothing),
                Operation::FlushAll => op.flush_all(exptime(0)).map(nothing),
                Operation::GetMany => self.parts(|part: &mut [GetRequest]| op.reading().get_many(part)),
                Operation::SetMany => self.parts(|part: &mut [SetRequest]| op.set_many(part)),
                Operation::DeleteMany => self.parts(|part: &mut [DeleteRequest]| op.delete_many(part)),
                Operation::Scan => self.scan(op),
                Operation::BucketOf => op.bucket_of(call.input(0)).map(|bucket| words([u64::from(bucket)])),
                Operation::Stats => self.copy_out(&op.stats()),
                Operation::ClassStats => self.copy_out(&op.class_stats(call.word(2) as usize).encode()),
                Operation::Reap => Ok(words([u64::from(op.reap())])),
                Operation::Check => self.check(op),
                Operation::ClientInfo => {
                    let info = op.client.client_info(call.word(2) as u32).ok_or(Status::NotFound)?;
                    self.copy_out(&info.encode())
                }
                Operation::Holding => {
                    let holding = op.client.holding(call.word(2) as u32).ok_or(Status::NotFound)?;
                    self.copy_out(&holding.encode())
                }
                Operation::StartReading => op.client.claim_reader().map(|reader| words([reader.into()])),
                Operation::StopReading => op.client.release_reader(call.word(0)).map(nothing),
                Operation::TellReads => {
                    let mut reads = MaybeUninit::<Reads>::uninit();
                    self.copy_in(call.input(0), &mut reads)?;
                    op.take_reads(reads.assume_init_ref()).map(nothing)
                }
                Operation::IsGone => Ok(words([u64::from(op.client.owner_is_dead(Owner(call.word(0) as u32)))])),
                Operation::Attach | Operation::Detach => Err(Status::Invalid),
            }
        }
    }

    fn ranges(&self) -> &'static Ranges {
        self.vault.ranges()
    }

    /// Copies a value in from memory that must hold exactly it.
    ///
    /// # Safety
    /// Any bytes are a `T`.
    unsafe fn copy_in<T>(&self, from: In, to: &mut T) -> Result<(), Status> {
        if from.len != size_of::<T>() || !self.ranges().admit(from.ptr, from.len) {
            return Err(Status::Invalid);
        }
        // SAFETY: outside of what the key guards, and as long as `to`.
        unsafe { user::copy((&raw mut *to).cast(), from.ptr, from.len) };
        Ok(())
    }

    /// Copies a value without padding out to the memory that the first two arguments name.
    fn copy_out<T>(&self, value: &T) -> Result<[u64; RESULTS], Status> {
        let to = self.call.output(0);
        if to.len != size_of::<T>() || !self.ranges().admit(to.ptr, to.len) {
            return Err(Status::Invalid);
        }
        // SAFETY: outside of what the key guards, and as long as the value.
        unsafe { user::copy(to.ptr, (&raw const *value).cast(), to.len) };
        Ok([0; RESULTS])
    }

    /// Does a batch part by part: requests are copied in, done, and copied back with their answers.
    fn parts<T: Copy>(&self, mut work: impl FnMut(&mut [T])) -> Result<[u64; RESULTS], Status> {
        let requests = self.call.output(0);
        let count = requests.len;
        let bytes = count.checked_mul(size_of::<T>()).ok_or(Status::Invalid)?;
        if !self.ranges().admit(requests.ptr, bytes) {
            return Err(Status::Invalid);
        }
        let mut part = [const { MaybeUninit::<T>::uninit() }; PART];
        let mut first = 0;
        while first < count {
            let n = (count - first).min(PART);
            // SAFETY: `first + n <= count`, so the range lies in what was admitted; requests are numbers and addresses, of
            // which any bytes are some.
            unsafe {
                let at = requests.ptr.add(first * size_of::<T>());
                user::copy(part.as_mut_ptr().cast(), at, n * size_of::<T>());
                work(core::slice::from_raw_parts_mut(part.as_mut_ptr().cast(), n));
                user::copy(at, part.as_ptr().cast(), n * size_of::<T>());
            }
            first += n;
        }
        Ok([0; RESULTS])
    }

    fn scan(&self, op: Op<'static>) -> Result<[u64; RESULTS], Status> {
        // SAFETY: both are compared with what the key guards by the scan.
        let found = unsafe { op.reading().scan(self.call.word(4), self.call.output(0), self.call.output(2))? };
        let scanned = found.ok_or(Status::NotFound)?;
        let [times, cas, value_len, copied, _] = got_words(scanned.got);
        Ok([times, cas, value_len, copied | (scanned.key_len as u64) << 1, scanned.next])
    }

    /// Findings go to an array of the caller's as they come (no lock is held then); the summary to a second one.
    fn check(&self, op: Op<'static>) -> Result<[u64; RESULTS], Status> {
        let Out { ptr, len: count } = self.call.output(2);
        let bytes = count.checked_mul(size_of::<RawFinding>()).ok_or(Status::Invalid)?;
        if !self.ranges().admit(ptr, bytes) {
            return Err(Status::Invalid);
        }
        let mut told = 0;
        let summary: CheckSummary = op.check(&mut |finding| {
            if told < count {
                let raw = RawFinding::new(finding);
                // SAFETY: `told < count`, so the place lies in what was admitted.
                unsafe {
                    let to = ptr.add(told * size_of::<RawFinding>());
                    user::copy(to, (&raw const raw).cast(), size_of::<RawFinding>());
                }
                told += 1;
            }
        });
        self.copy_out(&summary.encode())?;
        Ok(words([told as u64]))
    }
}

/// A finding with its kind as the address and length of a text that is part of the library.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct RawFinding {
    kind: [u64; 2],
    place: u64,
    detail: u64,
    severe: u64,
}

impl RawFinding {
    fn new(finding: Finding) -> Self {
        let Finding { kind, place, detail, severe } = finding;
        Self { kind: [kind.as_ptr() as u64, kind.len() as u64], place, detail, severe: u64::from(severe) }
    }

    /// # Safety
    /// It came from the gate as it is.
    pub(super) unsafe fn finding(self) -> Finding {
        let [at, len] = self.kind;
        // SAFETY: the caller says that these are a text's.
        let kind = unsafe { super::static_text(at, len) };
        Finding { kind, place: self.place, detail: self.detail, severe: self.severe != 0 }
    }
}
