//! Random command sequences through every front, each reply judged by the abstract model.

mod support;

use std::cell::Cell;

use plib::Cache;
use plib_model::strategy::{Shape, commands};
use plib_model::{Checker, Command, Front, Limits, run};
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use support::front::{c::CFront, core::CoreFront, remote, rust::RustFront};
use support::heap::TestHeap;
use support::{report, scaled};

/// How a front is made on a new heap.
type Make = fn(&TestHeap, Limits) -> Box<dyn Front>;

/// Room for every item of a sequence: nothing may ever be missing.
const AMPLE: (u64, u32) = (32 << 20, 300_000);
/// Much less than the sequences store: items may be missing, as far as evictions were counted.
const TIGHT: (u64, u32) = (8 << 20, 2 << 20);

/// The sequences of one front; `cases` of them.
fn suite(name: &str, make: Make, (size, item_size_max): (u64, u32), cases: u64) {
    let limits = Limits::new(item_size_max as usize);
    let tight = (size, item_size_max) == TIGHT;
    let shape = if tight { Shape::heavy(limits) } else { Shape::new(limits) };
    // Short of memory, a sequence first has to fill the heap.
    let len = if tight { 60..160 } else { 20..120 };
    let config = Config {
        cases: cases as u32,
        failure_persistence: None,
        max_shrink_iters: 4_000,
        max_shrink_time: 60_000,
        ..Config::default()
    };
    let (judged, lost) = (Cell::new(0), Cell::new(0));
    let verdict = TestRunner::new(config).run(&commands(shape, len), |commands| {
        let checker = sequence(make, size, limits, &commands)?;
        judged.set(judged.get() + checker.judged);
        lost.set(lost.get() + checker.lost());
        Ok(())
    });
    if let Err(failure) = verdict {
        panic!("{name}: {failure}");
    }
    let (judged, lost) = (judged.get(), lost.get());
    report(format_args!("{name}: {cases} sequences, {judged} replies judged, {lost} items evicted"));
    assert!(judged > cases * 20, "too little was done");
    assert_eq!(lost > 0, tight, "evictions only, and surely, where memory is short");
}

fn sequence(make: Make, size: u64, limits: Limits, commands: &[Command]) -> Result<Checker, TestCaseError> {
    let heap = TestHeap::with_item_max(size, limits.item_size_max as u32);
    let mut front = make(&heap, limits);
    let mut checker = Checker::new(limits);
    run(&mut *front, &mut checker, commands).map_err(TestCaseError::fail)?;
    Ok(checker)
}

fn rust(heap: &TestHeap, limits: Limits) -> Box<dyn Front> {
    Box::new(RustFront::new(heap.cache.clone(), limits.item_size_max))
}

/// The same heap, opened a second time in one process: another mapping, another client.
fn rust_opened_twice(heap: &TestHeap, limits: Limits) -> Box<dyn Front> {
    let second = Cache::open(&heap.path).expect("open");
    Box::new(RustFront::new(second, limits.item_size_max))
}

fn core(heap: &TestHeap, limits: Limits) -> Box<dyn Front> {
    Box::new(CoreFront::open(&heap.path, limits.item_size_max))
}

fn c(heap: &TestHeap, limits: Limits) -> Box<dyn Front> {
    Box::new(CFront::open(heap.path_text(), limits.item_size_max))
}

fn processes(heap: &TestHeap, limits: Limits) -> Box<dyn Front> {
    let local = RustFront::new(heap.cache.clone(), limits.item_size_max);
    Box::new(remote::RemoteFront::new(local, heap.path_text(), limits.item_size_max, 2))
}

#[test]
#[ignore = "entry point of the child processes"]
fn child() {
    support::child::enter(&[(remote::ROLE, remote::serve)]);
}

#[test]
fn rust_api_follows_the_model() {
    suite("Rust API", rust, AMPLE, scaled(64, 5000));
}

#[test]
fn rust_api_follows_the_model_when_memory_is_short() {
    suite("Rust API, little memory", rust, TIGHT, scaled(16, 2000));
}

#[test]
fn a_second_handle_follows_the_model() {
    suite("second handle", rust_opened_twice, AMPLE, scaled(24, 2000));
}

#[test]
fn core_follows_the_model() {
    suite("core", core, AMPLE, scaled(64, 5000));
}

#[test]
fn core_follows_the_model_when_memory_is_short() {
    suite("core, little memory", core, TIGHT, scaled(24, 2000));
}

#[test]
fn c_abi_follows_the_model() {
    suite("C ABI", c, AMPLE, scaled(64, 5000));
}

#[test]
fn c_abi_follows_the_model_when_memory_is_short() {
    suite("C ABI, little memory", c, TIGHT, scaled(16, 1000));
}

#[test]
fn three_processes_follow_the_model() {
    suite("three processes", processes, AMPLE, scaled(24, 1000));
}

#[test]
fn three_processes_follow_the_model_when_memory_is_short() {
    suite("three processes, little memory", processes, TIGHT, scaled(12, 500));
}
