//! What a launched program, and its user's other processes, cannot do. Not against a program that means harm: see docs/launcher.md.

use crate::role::{in_child, open};
use crate::stage::{USER, done, file, mode, play, unlaunched};
use plib::launch;
use plib_core::gate::{Attach, Entry, Gated};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A file of root's that everybody may open: what attacks on files succeed on.
const OPEN_TWIN: &str = "/dev/shm/plib/open";

fn make_open_twin() {
    fs::write(OPEN_TWIN, vec![7; 1 << 20]).expect("write");
    mode(Path::new(OPEN_TWIN), 0o666);
    fs::write("/proc/sys/fs/protected_hardlinks", "0").expect("allow links to others' files");
}

/// A place on a stack of calls, where stacks carry the key.
fn keyed_stack() -> Option<usize> {
    let [_, _, _, vault, _, _, _, region] = launch_words();
    (region as usize == launch::VAULT_SIZE).then_some(vault as usize + 0x1_f000)
}

/// Where the file is mapped here, by /proc/self/maps.
fn mappings_of(path: &Path) -> Vec<(usize, usize)> {
    let maps = fs::read_to_string("/proc/self/maps").expect("maps");
    let of_file = maps.lines().filter(|line| line.split_ascii_whitespace().nth(5) == path.to_str());
    of_file.map(|line| range_of(line).expect("a range")).collect()
}

fn range_of(line: &str) -> Option<(usize, usize)> {
    let (start, end) = line.split_once(' ')?.0.split_once('-')?;
    Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
}

/// The words of the first launch page.
fn launch_words() -> [u64; 8] {
    // SAFETY: a launched program has this page, readable.
    unsafe { *(launch::PLACE as *const [u64; 8]) }
}

pub fn the_file_is_out_of_reach() {
    make_open_twin();
    eprint!("attacks: {}", done(play(&["a"], &["file", "a"])));
}

/// Ways to get at a file: whether each succeeds.
type FileAttack = (&'static str, fn(&Path) -> bool);
const FILE_ATTACKS: [FileAttack; 6] = [
    ("read", |path| fs::File::open(path).is_ok()),
    ("write", |path| fs::OpenOptions::new().write(true).open(path).is_ok()),
    ("truncate", |path| fs::OpenOptions::new().write(true).truncate(true).open(path).is_ok()),
    ("map", |path| {
        let file = fs::OpenOptions::new().read(true).write(true).open(path);
        file.is_ok_and(|file| {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let file = std::os::fd::AsRawFd::as_raw_fd(&file);
            // SAFETY: a fresh mapping, of which nobody is told.
            unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, libc::MAP_SHARED, file, 0) != libc::MAP_FAILED }
        })
    }),
    ("link and open", |path| {
        let name = format!("/tmp/link-{}", std::process::id());
        let opened = fs::hard_link(path, &name).is_ok() && fs::File::open(&name).is_ok();
        let _ = fs::remove_file(name);
        opened
    }),
    ("change its mode", |path| {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).is_ok()
            || nix::unistd::chown(path, Some(nix::unistd::getuid()), None).is_ok()
    }),
];

pub fn reach_file(heap: &str) {
    drop(open(heap));
    let succeed =
        |path: &Path| FILE_ATTACKS.iter().filter(|(_, attack)| attack(path)).map(|(name, _)| *name).collect::<Vec<_>>();
    let against_open = succeed(Path::new(OPEN_TWIN));
    // Links go over to another file system nowhere, and nobody but its owner changes a file's mode: those have twins of their own.
    assert_eq!(against_open, ["read", "write", "truncate", "map"]);
    let own = PathBuf::from(format!("/tmp/own-{}", std::process::id()));
    fs::write(&own, "mine").expect("write");
    assert_eq!(succeed(&own).len(), FILE_ATTACKS.len(), "on a file of its own in the same file system");
    assert_eq!(succeed(&file(heap)), [""; 0]);
    println!("{} ways to a file, none to the heap's", FILE_ATTACKS.len());
}

pub fn proc_gives_nothing_of_it() {
    // The twin: a process that nothing protects, of the same user.
    let open = done(unlaunched(&["proc", "none"]));
    assert!(open.contains("/proc/self/mem true"), "{open}");
    eprint!("attacks: {}", done(play(&["a", "b"], &["proc", "a"])));
}

pub fn look_into_proc(heap: &str) {
    // SAFETY: takes a number.
    let dumpable = unsafe { libc::prctl(libc::PR_GET_DUMPABLE) };
    let memory = fs::OpenOptions::new().read(true).write(true).open("/proc/self/mem").is_ok();
    if heap == "none" {
        return println!("/proc/self/mem {memory}, dumpable {dumpable}");
    }
    // Before the library has opened anything: nothing was inherited.
    let descriptors = || {
        let all = fs::read_dir("/proc/self/fd").expect("fd").flatten().map(|entry| fs::read_link(entry.path()));
        all.flatten().filter(|to| to.starts_with("/dev/shm")).collect::<Vec<_>>()
    };
    assert!(descriptors().is_empty(), "{:?}", descriptors());
    drop(open(heap));
    assert!(descriptors().iter().all(|path| path.extension().is_some_and(|end| end == "lock")), "{:?}", descriptors());
    assert!(!memory && dumpable == 0);
    let mut tried = 0;
    for heap in ["a", "b"] {
        let [(start, end)] = mappings_of(&file(heap))[..] else { panic!("{heap} is mapped once") };
        let path = format!("/proc/self/map_files/{start:x}-{end:x}");
        assert!(fs::File::open(&path).is_err(), "{path}");
        tried += 1;
    }
    println!("/proc/self: mem refused, no descriptor of {tried} heaps, {tried} map_files refused");
}

/// A role that waits until its input ends, and says that it does.
fn waiting(mut command: Command) -> Child {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("run");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("stdout")).read_line(&mut line).expect("a line");
    assert_eq!(line, "waiting\n");
    child
}

pub fn wait(heap: &str) {
    let cache = open(heap);
    cache.set(b"k", b"v", 0, 0).expect("set");
    wait_for_input();
}

pub fn wait_for_input() {
    println!("waiting");
    std::io::stdout().flush().expect("flush");
    let _ = std::io::stdin().read(&mut [0]);
}

type ProcessAttack = (&'static str, fn(i32) -> bool);
const PROCESS_ATTACKS: [ProcessAttack; 6] = [
    ("ptrace", |pid| {
        // SAFETY: takes numbers; what was attached to is let go of when the attacker ends.
        unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) == 0 }
    }),
    ("process_vm_readv", |pid| {
        let mut byte = 0u8;
        // What every program has mapped: its own.
        let at = fs::read_to_string(format!("/proc/{pid}/maps")).ok().and_then(|maps| range_of(maps.lines().next()?));
        let local = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        let remote = libc::iovec { iov_base: at.unwrap_or((0x1000, 0)).0 as *mut _, iov_len: 1 };
        // SAFETY: writes to a byte of ours.
        unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) == 1 }
    }),
    ("/proc/PID/mem", |pid| fs::File::open(format!("/proc/{pid}/mem")).is_ok()),
    ("/proc/PID/maps", |pid| fs::read_to_string(format!("/proc/{pid}/maps")).is_ok_and(|text| !text.is_empty())),
    ("/proc/PID/fd", |pid| fs::read_link(format!("/proc/{pid}/fd/0")).is_ok()),
    ("pidfd_getfd", |pid| {
        // SAFETY: take numbers.
        unsafe {
            let process = libc::syscall(libc::SYS_pidfd_open, pid, 0);
            (0..300).any(|fd| libc::syscall(libc::SYS_pidfd_getfd, process, fd, 0) >= 0)
        }
    }),
];

/// Which attacks succeed, made by the user in a process of its own.
fn attacks_on(pid: u32) -> Vec<&'static str> {
    let succeeds = |attack: &fn(i32) -> bool| {
        in_child(|| {
            // SAFETY: take numbers.
            let user = unsafe { libc::setgroups(0, std::ptr::null()) | libc::setgid(USER) | libc::setuid(USER) };
            assert_eq!(user, 0);
            i32::from(attack(pid as i32))
        }) == 1
    };
    PROCESS_ATTACKS.iter().filter(|(_, attack)| succeeds(attack)).map(|(name, _)| *name).collect()
}

pub fn the_users_other_processes_get_nothing() {
    let mut twin = waiting(unlaunched(&["wait-alone"]));
    assert_eq!(attacks_on(twin.id()), PROCESS_ATTACKS.map(|(name, _)| name), "on a process that nothing protects");
    drop(twin.stdin.take());
    assert!(twin.wait().expect("wait").success());
    let mut launched = waiting(play(&["a"], &["wait", "a"]));
    assert_eq!(attacks_on(launched.id()), [""; 0]);
    drop(launched.stdin.take());
    assert!(launched.wait().expect("wait").success());
    eprintln!("attacks: {} by another process of the user", PROCESS_ATTACKS.len());
}

pub fn no_core_dump_has_it() {
    let _ = fs::create_dir("/tmp/cores");
    mode(Path::new("/tmp/cores"), 0o777);
    fs::write("/proc/sys/kernel/core_pattern", "/tmp/cores/core.%p").expect("core_pattern");
    let dumps_of = |mut command: Command| {
        // SAFETY: a system call on a value of ours, before the program is executed.
        unsafe {
            command.pre_exec(|| {
                let all = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
                libc::setrlimit(libc::RLIMIT_CORE, &raw const all);
                Ok(())
            });
        }
        let mut child = command.stderr(Stdio::null()).spawn().expect("run");
        assert_eq!(child.wait().expect("wait").signal(), Some(libc::SIGABRT));
        let core = format!("/tmp/cores/core.{}", child.id());
        let there = Path::new(&core).exists();
        let _ = fs::remove_file(core);
        there
    };
    assert!(dumps_of(unlaunched(&["abort-alone"])), "of a process that nothing protects");
    assert!(!dumps_of(play(&["a"], &["abort", "a"])));
    eprintln!("attacks: 1 core dump of a twin, none of the launched program");
}

pub fn abort(heap: &str) {
    let cache = open(heap);
    cache.set(b"secret", &[0x5e; 100], 0, 0).expect("set");
    std::process::abort();
}

pub fn heap_and_vault_fault() {
    eprint!("attacks: {}", done(play(&["a", "b"], &["memory", "a"])));
}

/// si_code of a fault that a key caused.
const SEGV_PKUERR: i32 = 4;

/// What a read or write of one byte in a child leads to: 0, or the code of its fault.
fn touching(at: usize, write: bool) -> i32 {
    extern "C" fn fault(_: i32, info: *const libc::siginfo_t, _: *const libc::c_void) {
        // SAFETY: the kernel's; and the end of the child.
        unsafe { libc::_exit((*info).si_code) }
    }
    in_child(|| {
        // SAFETY: a handler that ends the child; the access is what is tested.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = fault as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            libc::sigaction(libc::SIGSEGV, &raw const action, std::ptr::null_mut());
            let byte = (at as *mut u8).read_volatile();
            if write {
                (at as *mut u8).write_volatile(byte);
            }
        }
        0
    })
}

pub fn touch(heap: &str) {
    // Before anything is opened, while it is open, and afterwards; of both heaps, of which one never is opened.
    let places = || {
        let [.., vault] = *launch_words().first_chunk::<4>().expect("words");
        let heaps = ["a", "b"].map(|heap| mappings_of(&file(heap))[0]);
        let ends = heaps.iter().flat_map(|(start, end)| [*start, start + (end - start) / 2, end - 1]);
        let stack = keyed_stack();
        ends.chain([vault as usize, vault as usize + 0x3000]).chain(stack).collect::<Vec<_>>()
    };
    let mut faults = 0;
    let mut all_fault = || {
        for at in places() {
            for write in [false, true] {
                assert_eq!(touching(at, write), SEGV_PKUERR, "{at:x}");
                faults += 1;
            }
        }
    };
    all_fault();
    let cache = open(heap);
    cache.set(b"k", b"v", 0, 0).expect("set");
    all_fault();
    drop(cache);
    all_fault();
    // The twin: memory without a key; and what the program may read and not write.
    let word = [1u8; 64];
    assert_eq!((touching(word.as_ptr() as usize, true), touching(launch::PLACE, false)), (0, 0));
    assert_eq!(touching(launch::PLACE, true), 2, "the launch page can be written");
    println!("{faults} faults by the key, on two heaps and the vault");
}

pub fn mappings_stay_where_the_kernel_can_seal() {
    eprint!("attacks: {}", done(play(&["a"], &["unmap", "a"])));
}

type Change = (&'static str, fn(*mut libc::c_void, usize) -> bool);

/// Ways to change a mapping: whether each succeeds. Each in a child of its own, which ends after it.
const CHANGES: [Change; 4] = [
    ("munmap", |at, len| {
        // SAFETY: the child uses nothing of what was there any more.
        unsafe { libc::munmap(at, len) == 0 }
    }),
    ("mprotect", |at, len| {
        // SAFETY: as above.
        unsafe { libc::mprotect(at, len, libc::PROT_NONE) == 0 }
    }),
    ("mremap", |at, len| {
        // SAFETY: as above.
        unsafe { libc::mremap(at, len, 4096, libc::MREMAP_MAYMOVE) != libc::MAP_FAILED }
    }),
    ("mmap over it", |at, _| {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        // SAFETY: as above.
        unsafe { libc::mmap(at, 4096, libc::PROT_READ, flags, -1, 0) != libc::MAP_FAILED }
    }),
];

pub fn change_mappings(heap: &str) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("release");
    let mut numbers = release.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    let sealing = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 10);
    let [_, _, _, vault, image, sealed, ..] = launch_words();
    assert_eq!(sealed == 1, sealing, "{release}");
    let (start, end) = mappings_of(&file(heap))[0];
    // Parts of the vault and the image have protections of their own, and mremap wants one: so a page of each.
    let places = [
        ("heap", start, end - start),
        ("vault", vault as usize, 4096),
        ("image", image as usize, 4096),
        ("launch page", launch::PLACE, 4096),
    ];
    let mut tried = 0;
    for (what, at, len) in places {
        for (how, change) in CHANGES {
            let succeeds = in_child(|| i32::from(change(at as *mut _, len))) == 1;
            assert_eq!(succeeds, !sealing, "{how} of the {what} under {release}");
            tried += 1;
        }
    }
    let all = if sealing { "refused: sealed" } else { "possible: this kernel cannot seal" };
    println!("{tried} changes of mappings {all}");
}

pub fn the_gate_takes_no_pointer_to_a_heap_that_is_not_open() {
    eprint!("attacks: {}", done(play(&["a", "b"], &["deputy", "a", "b"])));
}

/// Keys and values that lie in a heap that this process has, but has not opened.
pub fn hand_in_pointers(heap: &str, other: &str) {
    let (start, end) = mappings_of(&file(other))[0];
    let [.., vault] = *launch_words().first_chunk::<4>().expect("words");
    let cache = open(heap);
    let mut refused = 0;
    let mut attack = || {
        for at in [start, start + 4096, end - 64, vault as usize].into_iter().chain(keyed_stack()) {
            // SAFETY: never read here: only addresses are handed in.
            let bytes = unsafe { std::slice::from_raw_parts(at as *const u8, 64) };
            assert!(cache.set(bytes, b"v", 0, 0).is_err() && cache.set(b"k", bytes, 0, 0).is_err(), "{at:x}");
            // SAFETY: as above.
            let buffer = unsafe { std::slice::from_raw_parts_mut(at as *mut u8, 64) };
            assert!(cache.get_into(b"there", buffer).is_err(), "{at:x}");
            refused += 3;
        }
    };
    cache.set(b"there", b"v", 0, 0).expect("set");
    attack();
    // In a child, whose vault knows nothing yet.
    assert_eq!(
        in_child(|| {
            attack();
            0
        }),
        0
    );
    println!("{refused} calls with pointers into a heap that is not open and the vault, as many in a child");
}

pub fn the_gate_takes_no_heap_but_the_launchers() {
    eprint!("attacks: {}", done(play(&["a"], &["attach", "a"])));
}

/// A client without a lock.
fn wanted(base: usize, len: usize) -> Attach {
    Attach {
        base,
        len,
        boot_id: [0; 2],
        start_time: 0,
        pid_namespace: 0,
        lock_byte: 0,
        pid: 0,
        slot: 0,
        lock_fd: -1,
        pad: 0,
    }
}

/// The gate by hand: memory of the program's own is handed in as a heap.
pub fn attach_another(heap: &str) {
    let [_, _, _, _, image, ..] = launch_words();
    // SAFETY: the gate of the image begins there.
    let entry = unsafe { std::mem::transmute::<usize, Entry>(image as usize + plib::image::enter()) };
    let (start, end) = mappings_of(&file(heap))[0];
    let len = 16 << 20;
    // SAFETY: fresh memory.
    let memory = unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        libc::mmap(std::ptr::null_mut(), 2 * len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
    };
    assert_ne!(memory, libc::MAP_FAILED);
    let forged = (memory as usize).next_multiple_of(1 << 21);
    let attach = |place: u32, base: usize, len: usize| {
        // SAFETY: an image that is mapped for good.
        let mut gated = unsafe { Gated::new(entry, place) };
        gated.attach(&wanted(base, len)).expect_err("no lock byte")
    };
    for (base, len) in [
        (forged, len),
        (start + (1 << 16), end - start - (1 << 16)),
        (start, end - start - (1 << 16)),
        (start, end - start + (1 << 16)),
    ] {
        for place in [0, 1] {
            let fault = attach(place, base, len);
            assert!(fault.field.starts_with("mapping's"), "{fault:?}");
        }
    }
    // The twin: the launcher's own gets further, to be refused for its client's lock.
    let fault = attach(0, start, end - start);
    assert!(!fault.field.starts_with("mapping's"), "{fault:?}");
    println!("8 mappings that are none of the launcher's");
}
