//! Another process: the one that a client slot of a heap speaks of, and no other.
//!
//! A pid alone is not enough: it is given again, and in another pid namespace it is somebody else's. So a process is
//! taken for a client only if its own number for itself, its pid namespace and its start time are the recorded ones and
//! it has the heap's file mapped as clients do. It is held by a descriptor of its directory in /proc before any of that is looked at:
//! what is read through the descriptor, and a signal that is sent through it, goes to that process or, once it has
//! ended, to nobody.
//!
//! What is recorded was written by the client itself. One that lies can name another client, but nobody who has not the heap
//! mapped for writing.

use crate::claim::enter;
use crate::error::Error;
use plib_core::Holding;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

/// What is recorded of a client, and the heap's file.
pub(crate) struct Wanted<'a> {
    /// Its pid, in its own namespace.
    pub pid: u32,
    /// Clock ticks after boot.
    pub start_time: u64,
    /// The inode of its pid namespace.
    pub pid_namespace: u64,
    /// What it must have mapped.
    pub file: &'a MappedFile,
}

/// A file as /proc/PID/maps names it. (Not as `stat` does: some file systems give other device numbers there.)
pub(crate) struct MappedFile(String);

impl MappedFile {
    /// The file that this process has mapped at `address`.
    pub fn at(address: usize) -> io::Result<Self> {
        let maps = fs::read_to_string("/proc/self/maps")?;
        let mut found = maps.lines().filter_map(Map::parse).filter(|map| map.range.contains(&address));
        found.next().map(|map| Self(map.file.to_owned())).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// A line of maps, proc(5): `start-end permissions offset device inode path`.
struct Map<'a> {
    range: std::ops::Range<usize>,
    /// Whether it is readable, writable and shared, and from the file's beginning: a client's mapping of a heap.
    is_clients: bool,
    /// `device inode`.
    file: &'a str,
}

impl<'a> Map<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.splitn(4, ' ');
        let (start, end) = words.next()?.split_once('-')?;
        let number = |text| usize::from_str_radix(text, 16).ok();
        let (permissions, offset) = (words.next()?, number(words.next()?)?);
        let rest = words.next()?;
        let device = rest.find(' ')? + 1;
        let inode = rest[device..].find(' ').map_or(rest.len(), |len| device + len);
        let is_clients = permissions == "rw-s" && offset == 0;
        Some(Self { range: number(start)?..number(end)?, is_clients, file: &rest[..inode] })
    }
}

/// A process, held by its directory in /proc.
#[derive(Debug)]
pub(crate) struct OtherProcess {
    directory: OwnedFd,
    /// Its number in this /proc.
    pid: u32,
}

/// What a thread does at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Activity {
    /// The kernel's letter for its state, proc(5): R runnable, S or D asleep, T stopped, t traced, ...
    pub state: char,
    /// Clock ticks of processor time so far.
    pub ticks: u64,
}

impl OtherProcess {
    /// Looks for a client's process. NotFound if no process in this /proc is surely it, PermissionDenied if one may be that
    /// may not be looked at.
    pub fn find(wanted: &Wanted<'_>) -> io::Result<Self> {
        if wanted.pid == 0 || wanted.start_time == 0 || wanted.pid_namespace == 0 {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut failure = io::ErrorKind::NotFound;
        // In most cases its number there is its number here.
        let numbers = std::iter::once(wanted.pid).chain(numbers_in("/proc"));
        for pid in numbers {
            match Self::open(pid).and_then(|process| process.is(wanted).map(|()| process)) {
                Ok(process) => return Ok(process),
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => failure = e.kind(),
                Err(_) => {}
            }
        }
        Err(failure.into())
    }

    fn open(pid: u32) -> io::Result<Self> {
        let flags = libc::O_DIRECTORY | libc::O_CLOEXEC;
        let directory = File::options().read(true).custom_flags(flags).open(format!("/proc/{pid}"))?;
        Ok(Self { directory: directory.into(), pid })
    }

    /// Compares what anybody may see first, so that a permission that is missing is only told of where it matters.
    fn is(&self, wanted: &Wanted<'_>) -> io::Result<()> {
        let same = |same: bool| if same { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) };
        let status = self.read("status")?;
        // /proc finds threads by their numbers as well, though it does not list them.
        same(innermost_id(&status) == Some(wanted.pid) && innermost(&status, "NStgid:") == Some(wanted.pid))?;
        same(Stat::parse(&self.read("stat")?).is_some_and(|stat| stat.start_time == wanted.start_time))?;
        same(fs::metadata(self.path("ns/pid"))?.ino() == wanted.pid_namespace)?;
        let maps = self.maps()?;
        same(maps.lines().filter_map(Map::parse).any(|map| map.is_clients && map.file == wanted.file.0))
    }

    /// Its mappings. All threads share them, and the first thread has none any more if it ended before the others.
    fn maps(&self) -> io::Result<String> {
        let of_first = self.read("maps");
        if of_first.as_ref().is_ok_and(|maps| !maps.is_empty()) {
            return of_first;
        }
        let tasks = self.path("task");
        let of_tasks = numbers_in(&tasks).map(|number| self.read(&format!("task/{number}/maps")));
        of_tasks.flatten().find(|maps| !maps.is_empty()).map_or(of_first, Ok)
    }

    fn path(&self, name: &str) -> String {
        format!("/proc/self/fd/{}/{name}", self.directory.as_raw_fd())
    }

    fn read(&self, name: &str) -> io::Result<String> {
        fs::read(self.path(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Its number in this /proc.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it is this very process.
    pub fn is_this(&self) -> bool {
        fs::read_link("/proc/self").is_ok_and(|link| link.to_str() == Some(&self.pid.to_string()))
    }

    /// The name of its program, up to 15 bytes.
    pub fn name(&self) -> String {
        self.read("comm").unwrap_or_default().trim_end_matches('\n').to_owned()
    }

    /// Who runs it.
    pub fn uid(&self) -> Option<u32> {
        let status = self.read("status").ok()?;
        field(&status, "Uid:")?.split_ascii_whitespace().next()?.parse().ok()
    }

    /// What one of its threads does, named as in its own pid namespace. If it is not known which (behind a gate nobody knows): what
    /// the one does that could run, without ticks, since they may be another's; else what the first does.
    pub fn activity(&self, thread: Option<u32>) -> Option<Activity> {
        let activity = |task: &str| {
            let stat = self.read(&format!("{task}stat")).ok()?;
            Stat::parse(&stat).map(|stat| Activity { state: stat.state, ticks: stat.ticks })
        };
        let name = |number: u32| format!("task/{number}/");
        let Some(id) = thread else {
            let tasks = self.path("task");
            let mut all = numbers_in(&tasks).filter_map(|number| activity(&name(number)));
            let runs = all.find(|activity| activity.state == 'R');
            return runs.map(|activity| Activity { ticks: 0, ..activity }).or_else(|| activity(""));
        };
        let is_it = |task: &String| innermost_id(&self.read(&format!("{task}status")).unwrap_or_default()) == Some(id);
        let task = std::iter::once(id).chain(numbers_in(&self.path("task"))).map(name).find(is_it)?;
        activity(&task)
    }

    /// SIGKILL.
    pub fn kill(&self) -> io::Result<()> {
        let nothing = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: takes a descriptor that is ours and numbers; no information goes with the signal. A directory of /proc is
        // as good as a pidfd here (pidfd_send_signal(2)).
        let sent = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.directory.as_raw_fd(), libc::SIGKILL, nothing, 0)
        };
        if sent == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// Finds the processes of owners. Of owners in their order, each process is looked for once.
pub(crate) struct Lookup {
    key: u64,
    /// The heap's file, once it was asked for.
    file: Option<MappedFile>,
    /// The last answer.
    last: Option<(Identity, io::Result<OtherProcess>)>,
}

/// What a client's slot says of its process: pid, start time and pid namespace.
pub(crate) type Identity = (u32, u64, u64);

impl Lookup {
    /// For the handle `key`.
    pub fn new(key: u64) -> Self {
        Self { key, file: None, last: None }
    }

    /// What owners are to be sorted by.
    pub fn order(holding: &Holding) -> Identity {
        (holding.pid, holding.start_time, holding.pid_namespace)
    }

    /// The process that an owner belongs to, as it says.
    pub fn process_of(&mut self, holding: &Holding) -> Result<&OtherProcess, &io::Error> {
        let identity = Self::order(holding);
        let found = match self.last.take().filter(|(last, _)| *last == identity) {
            Some((_, found)) => found,
            None => self.find(holding),
        };
        self.last.insert((identity, found)).1.as_ref()
    }

    fn find(&mut self, holding: &Holding) -> io::Result<OtherProcess> {
        if self.file.is_none() {
            // Mapped for as long as the operation lasts.
            let inside = enter(self.key).map_err(|refused| io::Error::other(Error::from(refused)))?;
            self.file = Some(MappedFile::at(inside.base())?);
        }
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let Holding { pid, start_time, pid_namespace, .. } = *holding;
        OtherProcess::find(&Wanted { pid, start_time, pid_namespace, file })
    }
}

/// The names in a folder that are numbers.
fn numbers_in(folder: &str) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The rest of the line of proc(5) status that starts with `name`.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name))
}

/// The id of a process or thread in its own pid namespace, from its `status`.
fn innermost_id(status: &str) -> Option<u32> {
    innermost(status, "NSpid:")
}

/// The last of the numbers, from the outermost pid namespace to its own, in a line of `status`.
fn innermost(status: &str, name: &str) -> Option<u32> {
    field(status, name)?.split_ascii_whitespace().next_back()?.parse().ok()
}

/// The fields of proc(5) stat that are of use.
pub(crate) struct Stat {
    pub state: char,
    pub ticks: u64,
    pub start_time: u64,
}

impl Stat {
    /// The name in field 2 may hold blanks and parentheses, so fields are counted from its last ')'.
    pub fn parse(text: &str) -> Option<Self> {
        let (_, after_name) = text.rsplit_once(')')?;
        let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
        let number = |place: usize| fields.get(place - 3)?.parse::<u64>().ok();
        let state = fields.first()?.chars().next()?;
        Some(Self { state, ticks: number(14)? + number(15)?, start_time: number(22)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc_are_read() {
        let map =
            Map::parse("7f0000000000-7f0001000000 rw-s 00000000 00:19 1234                /dev/shm/plib/a b").unwrap();
        assert_eq!((map.range, map.file), (0x7f00_0000_0000..0x7f00_0100_0000, "00:19 1234"));
        assert!(map.is_clients);
        for other in ["r--s 00000000", "rw-p 00000000", "rw-s 00001000", "---s 00000000", "rwxs 00000000"] {
            assert!(!Map::parse(&format!("1000-2000 {other} 00:19 1234 /a")).unwrap().is_clients, "{other}");
        }
        assert_eq!(Map::parse("00400000-00401000 r--p 00000000 00:00 0").unwrap().file, "00:00 0");
        let stat = "7 (a ) b) T 1 2 3 4 5 6 7 8 9 10 300 21 13 14 15 16 17 18 4711 20";
        let stat = Stat::parse(stat).unwrap();
        assert_eq!((stat.state, stat.ticks, stat.start_time), ('T', 321, 4711));
        assert_eq!(innermost_id("Name:\tx\nNSpid:\t4000\t12\t1\n"), Some(1));
        assert!(Map::parse("").is_none() && Stat::parse("7 (x)").is_none() && innermost_id("").is_none());
    }

    fn me(file: &MappedFile) -> Wanted<'_> {
        Wanted {
            pid: std::process::id(),
            start_time: crate::process::start_time(),
            pid_namespace: crate::process::pid_namespace(),
            file,
        }
    }

    /// A file of one page, mapped as a heap is.
    fn mapped(prot: i32, flags: i32) -> (tempfile::NamedTempFile, MappedFile) {
        let file = tempfile::NamedTempFile::new().expect("a file");
        file.as_file().set_len(4096).expect("a page");
        // SAFETY: a new mapping of a file of ours, which nobody touches and which stays.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), 4096, prot, flags, file.as_raw_fd(), 0) };
        assert_ne!(at, libc::MAP_FAILED);
        (file, MappedFile::at(at as usize).expect("mapped"))
    }

    #[test]
    fn a_process_is_found_only_if_all_is_as_recorded() {
        let both = libc::PROT_READ | libc::PROT_WRITE;
        let (_kept, file) = mapped(both, libc::MAP_SHARED);
        let found = OtherProcess::find(&me(&file)).expect("this process");
        assert!(found.is_this() && found.pid() == std::process::id() && found.uid().is_some());
        assert!(found.activity(Some(crate::process::thread_id())).is_some_and(|a| a.state == 'R'));
        assert!(found.activity(Some(1)).is_none());
        // Some thread of this process runs: this one.
        assert_eq!(found.activity(None), Some(Activity { state: 'R', ticks: 0 }));
        let other = MappedFile("00:00 77".into());
        // One who looks at the heap's file, or has a copy of it in memory, is no client.
        let (_kept, read_only) = mapped(libc::PROT_READ, libc::MAP_SHARED);
        let (_kept, private) = mapped(both, libc::MAP_PRIVATE);
        // A test runs in a thread of its own, which started in the same tick as the process or later.
        let thread = crate::process::thread_id();
        let stat = fs::read_to_string(format!("/proc/{thread}/stat")).expect("this thread");
        let start_time = Stat::parse(&stat).expect("fields").start_time;
        assert_ne!(thread, me(&file).pid);
        let wrong = [
            Wanted { pid: thread, start_time, ..me(&file) },
            Wanted { pid: i32::MAX as u32, ..me(&file) },
            Wanted { start_time: me(&file).start_time + 1, ..me(&file) },
            Wanted { pid_namespace: me(&file).pid_namespace + 1, ..me(&file) },
            Wanted { file: &other, ..me(&file) },
            Wanted { file: &read_only, ..me(&file) },
            Wanted { file: &private, ..me(&file) },
            Wanted { pid: 0, ..me(&file) },
            Wanted { pid: 1, ..me(&file) },
            Wanted { pid_namespace: 0, ..me(&file) },
        ];
        for wanted in wrong {
            assert_eq!(OtherProcess::find(&wanted).unwrap_err().kind(), io::ErrorKind::NotFound);
        }
    }
}
