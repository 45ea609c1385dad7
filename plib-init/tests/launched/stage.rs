//! The machine as the tests need it: two copies of plib, one of them set-uid, and heaps of root's.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The user who runs programs, and another.
pub const USER: u32 = 1000;
pub const OTHER: u32 = 1001;
/// Where heaps are by default.
pub const HEAPS: &str = "/dev/shm/plib";

static PLIB: OnceLock<PathBuf> = OnceLock::new();
const SET_UID: &str = "/tmp/set-uid/plib";

/// Installs the set-uid copy and makes the heaps.
pub fn prepare(plib: &str) {
    let path = std::path::absolute(plib).expect("plib");
    mode(&path, 0o755);
    fs::create_dir_all("/tmp/set-uid").expect("a directory");
    mode(Path::new("/tmp/set-uid"), 0o755);
    fs::copy(&path, SET_UID).expect("copy plib");
    mode(Path::new(SET_UID), 0o4755);
    PLIB.set(path).expect("once");
    for heap in ["a", "b"] {
        done(by_root(&["create", heap, "--size", "16m", "--contexts", "256"]));
    }
}

pub fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("chmod");
}

/// The file of a heap.
pub fn file(heap: &str) -> PathBuf {
    Path::new(HEAPS).join(heap)
}

/// This program.
pub fn own() -> String {
    std::env::current_exe().expect("own path").to_str().expect("text").to_owned()
}

/// The plib that is not set-uid.
pub fn plib() -> String {
    // In a role it comes by the environment.
    let path = PLIB.get().cloned().or_else(|| std::env::var_os("PLIB").map(PathBuf::from));
    path.expect("where plib is").to_str().expect("text").to_owned()
}

/// `plib` as root.
pub fn by_root(arguments: &[&str]) -> Command {
    let mut command = Command::new(plib());
    command.args(arguments).env_remove("PLIB_DIR");
    command
}

/// The set-uid `plib` as the user.
pub fn by_user(arguments: &[&str]) -> Command {
    let mut command = Command::new(SET_UID);
    command.args(arguments).uid(USER).gid(USER).env("PLIB", plib()).current_dir("/");
    command
}

/// `plib run` of the user's, of a program with this heap or these.
pub fn run(heaps: &[&str], program: &[&str]) -> Command {
    let named: Vec<&str> = heaps.iter().flat_map(|heap| ["--heap", *heap]).collect();
    by_user(&[&["run"], named.as_slice(), &["--"], program].concat())
}

/// The same of a role of this program.
pub fn play(heaps: &[&str], role: &[&str]) -> Command {
    run(heaps, &[&[own().as_str(), "role"], role].concat())
}

/// The role without a launcher, as the user.
pub fn unlaunched(role: &[&str]) -> Command {
    let mut command = Command::new(own());
    command.arg("role").args(role).uid(USER).gid(USER).env("PLIB", plib()).current_dir("/");
    command
}

/// What a command printed that must have ended well.
pub fn done(mut command: Command) -> String {
    let output = command.output().expect("run");
    assert!(output.status.success(), "{command:?}: {}", told(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Exit code and words of a command.
pub fn told(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// What a command said that must have ended with this code.
pub fn refusal(mut command: Command, code: i32) -> String {
    let output = command.output().expect("run");
    assert_eq!(output.status.code(), Some(code), "{command:?}: {}", told(&output));
    told(&output)
}

/// Nothing is wrong in a heap, and nobody holds anything.
pub fn is_whole(heap: &str) {
    let text = done(by_root(&["check", heap, "--json"]));
    assert!(text.contains("\"clean\":true"), "{text}");
}
