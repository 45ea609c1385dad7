//! `report WHAT`: the program that is launched, and tells what it sees.

use crate::start::{PLACE, ROOTS_FILE, TEXT};
use std::fs;
use std::process::ExitCode;

pub fn main(arguments: &[String]) -> ExitCode {
    match arguments[0].as_str() {
        "all" => all(arguments),
        "status" => print!("{}", fs::read_to_string("/proc/self/status").expect("status")),
        "privileges" => privileges(),
        "page" => page(),
        "variable" => println!("{:?}", std::env::var(&arguments[1]).ok()),
        "exit" => return ExitCode::from(arguments[1].parse::<u8>().expect("a number")),
        "abort" => std::process::abort(),
        "children" => children(),
        "nothing" => {}
        "sleep" => std::thread::sleep(std::time::Duration::from_secs(60)),
        other => panic!("{other}?"),
    }
    ExitCode::SUCCESS
}

/// Everything that a launch must leave as it is, one line each.
fn all(arguments: &[String]) {
    println!("arguments {arguments:?}");
    println!("parent {}", std::os::unix::process::parent_id());
    println!("directory {:?}", std::env::current_dir().expect("cwd"));
    let mut variables: Vec<_> = std::env::vars().collect();
    variables.sort();
    println!("environment {variables:?}");
    let mut descriptors: Vec<_> = fs::read_dir("/proc/self/fd").expect("fd").flatten().map(|e| e.path()).collect();
    descriptors.sort();
    for descriptor in &descriptors {
        println!("descriptor {descriptor:?} {:?}", fs::read_link(descriptor).ok());
    }
    let status = fs::read_to_string("/proc/self/status").expect("status");
    let kept =
        ["Umask", "Uid", "Gid", "Groups", "TracerPid", "Threads", "SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt"];
    for line in status.lines().filter(|line| kept.iter().any(|name| line.starts_with(&format!("{name}:")))) {
        println!("{line}");
    }
    let stat = fs::read_to_string("/proc/self/stat").expect("stat");
    // Process group, session, terminal; not the numbers of this process.
    println!("group, session, terminal {:?}", stat.split(' ').skip(4).take(3).collect::<Vec<_>>());
    println!("limits {}", fs::read_to_string("/proc/self/limits").expect("limits"));
    // SAFETY: reads the auxiliary vector.
    println!("secure {}", unsafe { libc::getauxval(libc::AT_SECURE) });
    for line in fs::read_to_string("/proc/self/maps").expect("maps").lines() {
        let mut words = line.split_ascii_whitespace();
        let (protection, what) = (words.nth(1), words.nth(3));
        println!("mapping {protection:?} {what:?}");
    }
}

fn privileges() {
    let readable = fs::read(ROOTS_FILE).is_ok();
    // SAFETY: take numbers.
    let (root, dumpable) = unsafe { (libc::seteuid(0) == 0, libc::prctl(libc::PR_GET_DUMPABLE)) };
    println!("reads root's files: {readable}; can be root: {root}; dumpable: {dumpable}");
    print!("{}", fs::read_to_string("/proc/self/status").expect("status"));
}

fn page() {
    // SAFETY: the page is there if the work was done; else this is a fault, which the test sees.
    let bytes = unsafe { std::slice::from_raw_parts(PLACE as *const u8, TEXT.len()) };
    println!("{}", String::from_utf8_lossy(bytes));
    let maps = fs::read_to_string("/proc/self/maps").expect("maps");
    println!("{}", maps.lines().find(|line| line.starts_with(&format!("{PLACE:08x}"))).unwrap_or("no mapping"));
}

fn children() {
    std::thread::sleep(std::time::Duration::from_millis(200));
    // SAFETY: no status is asked for.
    let child = unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG | libc::__WALL) };
    println!("waitpid {child} {:?}", std::io::Error::last_os_error().raw_os_error());
}
