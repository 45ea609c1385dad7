//! The two processes of a launch, without protection keys: what the program is, what it keeps, what it has no longer, and what
//! happens when one of the two dies. For root; for others it is left out.
//!
//! The program of this test is three: without arguments it runs the tests, `start` launches a program as `plib run` does, but with work
//! of the test's own, and `report` is the program that is launched.

mod files;
mod natural;
mod privileges;
mod report;
mod start;
mod trouble;

use std::panic::catch_unwind;
use std::process::ExitCode;

type Test = (&'static str, fn());

const TESTS: &[Test] = &[
    ("files::refused", files::what_others_can_tamper_with_is_refused),
    ("files::accepted", files::a_heap_of_roots_alone_is_accepted),
    ("natural::the_same", natural::a_program_is_what_it_is_when_started_directly),
    ("natural::ends", natural::exit_status_and_signals_reach_the_parent),
    ("natural::not_started", natural::what_cannot_be_executed_says_so),
    ("natural::environment", natural::variables_are_set_and_searched_by),
    ("natural::work", natural::work_is_done_before_the_first_instruction),
    ("natural::no_child", natural::no_child_is_left_to_the_program),
    ("privileges::gone", privileges::no_privilege_is_left),
    ("privileges::set_uid", privileges::a_set_uid_file_launches_for_its_user),
    ("privileges::capabilities", privileges::so_does_a_file_with_capabilities),
    ("privileges::given_up", privileges::what_is_put_aside_can_be_given_up_for_good),
    ("privileges::without", privileges::without_privileges_it_is_refused),
    ("trouble::work_fails", trouble::a_call_that_fails_ends_the_program_with_its_name),
    ("trouble::signals", trouble::signals_meanwhile_are_not_lost),
    ("trouble::stopped", trouble::a_program_stopped_meanwhile_stays_stopped),
    ("trouble::killed", trouble::a_program_killed_meanwhile_takes_its_tracer_along),
    ("trouble::tracer_killed", trouble::a_tracer_killed_takes_its_program_along),
    ("trouble::attacked", trouble::nobody_of_the_same_user_gets_at_it_meanwhile),
    ("trouble::traced", trouble::a_process_that_is_traced_already_is_refused),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("start") => start::main(&arguments[1..]),
        Some("report") => report::main(&arguments[1..]),
        _ => run(&arguments),
    }
}

/// The tests whose names contain the argument, if there is one.
fn run(arguments: &[String]) -> ExitCode {
    // SAFETY: takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("launch: left out: these tests need root, since what they start gives privileges up");
        return ExitCode::SUCCESS;
    }
    let wanted = arguments.iter().find(|argument| !argument.starts_with('-'));
    let tests: Vec<&Test> = TESTS.iter().filter(|(name, _)| wanted.is_none_or(|part| name.contains(part))).collect();
    let failed: Vec<&str> =
        tests.iter().filter(|(_, test)| catch_unwind(test).is_err()).map(|(name, _)| *name).collect();
    eprintln!("launch: {} of {} tests passed", tests.len() - failed.len(), tests.len());
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("launch: FAILED: {}", failed.join(", "));
    ExitCode::FAILURE
}
