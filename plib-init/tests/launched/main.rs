//! `plib run` on a machine with protection keys: what a program is given, and what it has not. Run by scripts/protection-test as
//! root; `plib` is the first argument.
//!
//! Each attack is shown to succeed first on a twin that lacks what is tested: a heap that others may open, a process that is not
//! protected.

mod attacks;
mod refusals;
mod role;
mod stage;
mod uses;

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::time::Instant;

type Test = (&'static str, fn());

const TESTS: &[Test] = &[
    ("uses::both_ways", uses::a_program_uses_a_heap_that_it_cannot_open),
    ("uses::commands", uses::commands_of_plib_work_in_it),
    ("uses::children", uses::a_hundred_children_use_the_cache),
    ("uses::killed", uses::children_killed_in_the_gate_hurt_nobody),
    ("uses::own_heaps", uses::heaps_of_its_own_and_signals_go_with_it),
    ("uses::removed", uses::a_heap_removed_meanwhile_stays_with_who_has_it),
    ("uses::executed", uses::a_program_that_it_executes_has_nothing),
    ("attacks::file", attacks::the_file_is_out_of_reach),
    ("attacks::proc", attacks::proc_gives_nothing_of_it),
    ("attacks::user", attacks::the_users_other_processes_get_nothing),
    ("attacks::dump", attacks::no_core_dump_has_it),
    ("attacks::memory", attacks::heap_and_vault_fault),
    ("attacks::sealed", attacks::mappings_stay_where_the_kernel_can_seal),
    ("attacks::deputy", attacks::the_gate_takes_no_pointer_to_a_heap_that_is_not_open),
    ("attacks::attach", attacks::the_gate_takes_no_heap_but_the_launchers),
    ("refusals::files", refusals::what_others_can_tamper_with_is_refused),
    ("refusals::arguments", refusals::arguments_beyond_the_users_rights_are_refused),
    ("refusals::aside", refusals::other_commands_of_a_set_uid_plib_are_the_users),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("role") => role::main(&arguments[1..]),
        Some(plib) => run(plib, arguments.get(1)),
        None => panic!("where is plib? scripts/protection-test says it"),
    }
}

fn run(plib: &str, wanted: Option<&String>) -> ExitCode {
    stage::prepare(plib);
    let tests: Vec<&Test> = TESTS.iter().filter(|(name, _)| wanted.is_none_or(|part| name.contains(part))).collect();
    let mut failed = Vec::new();
    for (name, test) in &tests {
        let begin = Instant::now();
        if catch_unwind(test).is_err() {
            failed.push(*name);
        }
        eprintln!("{name}: {:.1} s", begin.elapsed().as_secs_f64());
    }
    eprintln!("launched: {} of {} tests passed", tests.len() - failed.len(), tests.len());
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("launched: FAILED: {}", failed.join(", "));
    ExitCode::FAILURE
}
