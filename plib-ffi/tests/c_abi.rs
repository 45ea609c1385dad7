//! The C ABI as a C program sees it: each of `tests/c/*.c` is compiled against the committed header and the built
//! library, and run on heaps of its own.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, OnceLock};
use tempfile::TempDir;

/// A compiled C program with the library beside it.
struct Program {
    dir: TempDir,
    path: PathBuf,
}

fn library() -> PathBuf {
    let exe = std::env::current_exe().expect("this test's path");
    let library = exe.with_file_name("libplib.so");
    assert!(library.exists(), "{} is missing: cargo builds it with this test", library.display());
    library
}

/// The library as it is shipped: with panic = "abort". Tests are built to unwind, and such a library ends the process where a thread
/// ends inside a call; so it is built once more, by the profile that is there for this, in the same target folder.
fn shipped_library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        // .../target/debug/deps/c_abi-0123456789abcdef
        let exe = std::env::current_exe().expect("this test's path");
        let target = exe.ancestors().nth(3).expect("the target folder");
        let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--locked", "--offline", "--profile", "abort", "--lib", "--manifest-path"]);
        build.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).arg("--target-dir").arg(target);
        succeeded("cargo build --profile abort", &build.output().expect("run cargo"));
        target.join("abort/libplib.so")
    })
}

fn succeeded(what: &str, output: &Output) {
    assert!(
        output.status.success(),
        "{what}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

impl Program {
    fn compile(name: &str) -> Self {
        Self::compile_with(name, &library())
    }

    fn compile_with(name: &str, library: &Path) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let dir = tempfile::Builder::new().prefix("plib-c-").tempdir_in("/dev/shm").expect("a directory");
        symlink(library, dir.path().join("libplib.so.0")).expect("the library's soname");
        let path = dir.path().join(name);
        let output = Command::new("gcc")
            .args(["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread", "-I"])
            .arg(root.join("include"))
            .arg(root.join("tests/c").join(format!("{name}.c")))
            .arg("-o")
            .arg(&path)
            .arg(dir.path().join("libplib.so.0"))
            .output()
            .expect("gcc must be installed for this test");
        succeeded("gcc", &output);
        Self { dir, path }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        self.prepare(&mut command);
        command.arg(self.heap());
        command
    }

    fn prepare(&self, command: &mut Command) {
        command.env("LD_LIBRARY_PATH", self.dir.path()).env_remove("PLIB_ISOLATION").env("PLIB_DIR", self.dir.path());
    }

    fn heap(&self) -> PathBuf {
        self.dir.path().join("heap")
    }

    fn run(&self) {
        let output = self.command().output().expect("run");
        succeeded(&self.path.display().to_string(), &output);
    }

    /// Runs a program that says what it did.
    fn run_and_report(&self) {
        let mut command = self.command();
        let output = command.output().expect("run");
        succeeded(&self.path.display().to_string(), &output);
        // Past the capture of test output, so that an empty test is seen.
        let _ = std::io::stderr().write_all(&output.stderr);
    }
}

/// One after the other: each keeps two processors busy, and says how long others had to wait.
fn interrupted(name: &str) {
    static TURN: Mutex<()> = Mutex::new(());
    let program = Program::compile_with(name, shipped_library());
    let _turn = TURN.lock();
    program.run_and_report();
}

#[test]
fn every_function_does_what_the_header_says() {
    Program::compile("operations").run();
}

#[test]
fn bad_arguments_get_their_own_status_and_change_nothing() {
    Program::compile("bad_arguments").run();
}

#[test]
fn a_key_that_changes_while_it_is_copied_is_stored_as_one_key() {
    Program::compile("key_changes").run();
}

#[test]
fn handles_are_checked_and_closing_waits_for_calls() {
    Program::compile("handles").run();
}

#[test]
fn any_number_of_threads_share_a_handle() {
    Program::compile("threads").run();
}

#[test]
fn children_of_fork_are_clients_of_their_own() {
    Program::compile("forks").run();
}

#[test]
fn signal_handlers_may_use_the_cache() {
    Program::compile("signals").run();
}

#[test]
fn nobody_waits_for_who_allocates_or_maps() {
    Program::compile("short_lock").run_and_report();
}

#[test]
fn a_handler_may_jump_out_of_a_call_at_every_instruction() {
    interrupted("jump_out");
}

#[test]
fn a_handler_may_use_the_cache_at_every_instruction() {
    interrupted("in_handler");
}

#[test]
fn a_thread_may_end_inside_a_call_at_every_instruction() {
    interrupted("thread_ends");
}

#[test]
fn a_handlers_child_does_not_go_on_with_its_parents_call() {
    interrupted("forks_inside");
}

#[test]
fn nothing_stays_locked_when_opening_or_beginning_is_interrupted() {
    interrupted("opening");
}

#[test]
fn a_process_may_end_while_its_threads_are_inside() {
    interrupted("process_ends");
}

#[test]
fn the_environment_can_ask_for_isolation() {
    let program = Program::compile("operations");
    let keys = plib::ProtectionKeys::detect().on().is_some();
    for (wanted, works) in [("none", true), ("", true), ("guarded", keys), ("sealed", false), ("nonsense", false)] {
        let output = program.command().env("PLIB_ISOLATION", wanted).output().expect("run");
        assert_eq!(output.status.success(), works, "PLIB_ISOLATION={wanted}: {output:?}");
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(works || words.contains("PLIB_ISOLATION"), "{words}");
        let _ = fs::remove_file(program.heap());
    }
}

#[test]
fn only_plib_symbols_are_exported() {
    let output = Command::new("nm").args(["-D", "--defined-only"]).arg(library()).output().expect("nm (binutils)");
    succeeded("nm", &output);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut exported: Vec<&str> = text.lines().filter_map(|line| line.split_ascii_whitespace().next_back()).collect();
    exported.sort_unstable();
    let header = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("include/plib.h")).expect("plib.h");
    let mut declared: Vec<&str> = header
        .lines()
        .filter(|line| !line.starts_with("//") && !line.starts_with("typedef") && !line.starts_with(' '))
        .filter_map(|line| line.split_once('(')?.0.rsplit([' ', '*']).next())
        .filter(|name| name.starts_with("plib_"))
        .collect();
    // These stand in the place of the C library's while heaps are guarded (src/signals.rs).
    declared.extend([
        "sigaction",
        "signal",
        "bsd_signal",
        "ssignal",
        "__sysv_signal",
        "sysv_signal",
        "sigset",
        "siginterrupt",
    ]);
    declared.sort_unstable();
    assert_eq!(exported, declared);
    let dynamic = Command::new("readelf").arg("-d").arg(library()).output().expect("readelf (binutils)");
    let dynamic = String::from_utf8_lossy(&dynamic.stdout).into_owned();
    assert!(dynamic.contains("[libplib.so.0]") && dynamic.contains("NODELETE"), "{dynamic}");
}

#[test]
fn the_fast_path_makes_no_system_call() {
    let program = Program::compile("fast_path");
    let trace = program.dir.path().join("trace");
    let mut strace = Command::new("strace");
    program.prepare(&mut strace);
    let output = strace.arg("-f").arg("-o").arg(&trace).arg(&program.path).arg(program.heap()).output();
    let output = output.expect("strace must be installed for this test (package strace)");
    succeeded("strace", &output);
    let text = fs::read_to_string(&trace).expect("the trace");
    // The program marks each loop by writes to no file: write(-1, "begin get", 9).
    let (mut inside, mut loops) = (None, 0);
    for line in text.lines() {
        let mark = line.split_once("write(-1, \"").and_then(|(_, rest)| rest.split_once('"')).map(|(mark, _)| mark);
        match (mark.and_then(|mark| mark.split_once(' ')), inside) {
            (Some(("begin", name)), None) => inside = Some(name),
            (Some(("end", name)), Some(begun)) => {
                assert_eq!(name, begun);
                inside = None;
                loops += 1;
            }
            (_, Some(name)) => panic!("a system call in the loop of {name}: {line}"),
            _ => {}
        }
    }
    assert_eq!(loops, 12, "{text}");
}
