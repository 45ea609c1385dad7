//! The whole job: starts the roles as processes of their own, kills one, and judges what they tell.

use std::{
    io::Read,
    os::unix::process::CommandExt,
    path::Path,
    process::{self, Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use plib::{Cache, Stats};

use crate::{
    Folders,
    failure::{Failure, Result},
    files::Files,
    heaps::{OwnHeap, remove_on_signals},
    report::{JobReport, Killed, Phase, RoleReport},
};

/// The largest item that the heaps take: files of megabytes, as fragments.
const ITEM_SIZE_MAX: u64 = 16 << 20;
/// How much longer than it was told a role may take: it finishes a pass over all files.
const PATIENCE: Duration = Duration::from_secs(180);
/// Between two looks at the heap.
const LOOK: Duration = Duration::from_millis(100);
/// A cache that is full uses at least this part of its superblocks.
const FULL: f64 = 0.9;

/// The command line of the job.
#[derive(Args, Clone)]
pub struct JobArguments {
    /// Processes beside the loader: as many readers as writers.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(2..=64))]
    processes: u32,
    /// How long each of the two heaps is worked on.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Which process to kill on the way.
    #[arg(long, value_enum, default_value_t = Victim::Writer)]
    kill: Victim,
    #[command(flatten)]
    folders: Folders,
}

/// Who gets the SIGKILL.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Victim {
    Writer,
    Reader,
    None,
}

/// Runs both phases.
pub fn run(arguments: &JobArguments) -> Result<JobReport> {
    let start = Instant::now();
    remove_on_signals()?;
    let files = Files::find(&arguments.folders.folders)?;
    say(start, &format!("{} files, {} MiB", files.all.len(), files.bytes() >> 20));
    let all = heap_for(&files);
    let job = Job { arguments, files: &files, start };
    let phases = vec![
        job.phase("a heap that holds all files", all, false)?,
        job.phase("a heap a tenth of that size", (all / 10).max(32 << 20), true)?,
    ];
    Ok(JobReport {
        folders: arguments.folders.folders.clone(),
        files: files.all.len() as u64,
        bytes: files.bytes(),
        largest: files.largest(),
        hashed_keys: files.hashed,
        unreadable: files.unreadable,
        phases,
        seconds: start.elapsed().as_secs_f64(),
    })
}

fn say(start: Instant, what: &str) {
    eprintln!("[{:4} s] {what}", start.elapsed().as_secs());
}

/// Bytes of a heap that holds all files without evicting, with room for the old and the new of items that are
/// being replaced: classes are up to an eighth apart, and larger files end within a 64 KiB fragment.
fn heap_for(files: &Files) -> u64 {
    let item = |len: u64| if len > 32 << 10 { len + len / 8 + (64 << 10) } else { (len + 300) * 9 / 8 };
    let items: u64 = files.all.iter().map(|file| item(file.len)).sum();
    (items + items / 8 + (64 << 20) + 4 * files.largest()).next_multiple_of(2 << 20)
}

/// What both phases share.
struct Job<'a> {
    arguments: &'a JobArguments,
    files: &'a Files,
    start: Instant,
}

impl Job<'_> {
    fn phase(&self, name: &str, heap_bytes: u64, may_miss: bool) -> Result<Phase> {
        // A heap takes items up to a quarter of its superblocks, which are a little less than its size.
        let item_size_max = ITEM_SIZE_MAX.min(heap_bytes / 5) as u32;
        let id = process::id();
        let kind = if may_miss { "tenth" } else { "all" };
        let heap = OwnHeap::create(&format!("file-cache-{kind}-{id}"), heap_bytes, item_size_max)?;
        say(self.start, &format!("{name}: {} MiB; loading", heap_bytes >> 20));
        let loader = self.spawn("load", &heap.path, may_miss)?.report(PATIENCE)?;
        let loaded = heap.cache.stats()?;
        let (roles, killed, least_used) = self.work(&heap, may_miss)?;
        let stats = heap.cache.stats()?;
        say(self.start, &format!("{name}: checking the heap"));
        let check = heap.cache.check()?;
        let mut phase = Phase {
            name: name.to_owned(),
            heap: heap.path.clone(),
            heap_bytes,
            item_size_max,
            loader,
            roles,
            killed,
            items: stats.curr_items,
            item_bytes: stats.bytes,
            evictions: stats.evictions,
            least_used,
            findings: check.findings.iter().map(|finding| format!("{finding:?}")).collect(),
            wrong: Vec::new(),
        };
        phase.wrong = self.judge(&phase, &loaded, may_miss, check.severe);
        Ok(phase)
    }

    /// Readers and writers together, one of them killed half-way.
    fn work(&self, heap: &OwnHeap, may_miss: bool) -> Result<(Vec<RoleReport>, Option<Killed>, f64)> {
        let JobArguments { processes, seconds, kill, .. } = *self.arguments;
        say(self.start, &format!("{processes} processes read and write for {seconds} s"));
        let mut children = Vec::new();
        for at in 0..processes {
            children.push(self.spawn(if at % 2 == 0 { "read" } else { "write" }, &heap.path, may_miss)?);
        }
        let mut watch = Watch { cache: &heap.cache, least_used: 1.0 };
        // Roles list the files before they begin; the kill must hit one that is at work.
        watch.wait_for_work(Duration::from_secs_f64(seconds / 2.0))?;
        let victim = match kill {
            Victim::Writer => Some("write"),
            Victim::Reader => Some("read"),
            Victim::None => None,
        };
        let at = victim.and_then(|role| children.iter().position(|child| child.role == role));
        let killed = at.map(|at| children.remove(at).kill(&heap.cache, self.start)).transpose()?;
        let mut roles = Vec::new();
        let deadline = Instant::now() + Duration::from_secs_f64(seconds) + PATIENCE;
        for mut child in children {
            while !child.is_done()? {
                watch.look()?;
                if Instant::now() > deadline {
                    return Err(Failure::new(format!(
                        "the {} process {} does not end",
                        child.role,
                        child.process.id()
                    )));
                }
                thread::sleep(LOOK);
            }
            roles.push(child.report(PATIENCE)?);
        }
        let least_used = watch.least_used;
        let killed = killed.map(|(killed, before)| after_kill(killed, &before, &heap.cache)).transpose()?;
        Ok((roles, killed, least_used))
    }

    fn spawn(&self, role: &'static str, heap: &Path, may_miss: bool) -> Result<Role> {
        let program = std::env::current_exe().map_err(Failure::during("cannot find this program"))?;
        let mut command = Command::new(program);
        command.args(["--json", role, "--heap"]).arg(heap);
        command.args(["--seconds", &self.arguments.seconds.to_string()]);
        if may_miss {
            command.arg("--may-miss");
        }
        command.args(&self.arguments.folders.folders).stdout(Stdio::piped());
        // SAFETY: one system call, which a child may make between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let process = command.spawn().map_err(Failure::during("cannot start a process"))?;
        Ok(Role { role, process })
    }

    /// What is not as it must be.
    fn judge(&self, phase: &Phase, loaded: &Stats, may_miss: bool, severe: bool) -> Vec<String> {
        let mut wrong = Vec::new();
        for role in &phase.roles {
            wrong.extend(role.wrong.iter().map(|what| format!("{} {}: {what}", role.role, role.pid)));
        }
        let mut must = |good: bool, what: &str| {
            if !good {
                wrong.push(what.to_owned());
            }
        };
        must(!severe, "the check of the heap found damage");
        must(phase.roles.iter().any(|role| role.compared > 0), "nothing was compared with the disk");
        if let Some(killed) = &phase.killed {
            must(killed.gets_after > 0, "nobody read after the kill");
        }
        if may_miss {
            must(phase.evictions > 0, "nothing was evicted, though the heap cannot hold all files");
            must(phase.least_used >= FULL, "the cache did not stay full");
            let refused = phase.roles.iter().flat_map(|role| role.refused.values()).sum::<u64>();
            must(refused == 0, "sets were refused, though there was something to evict");
        } else {
            must(phase.evictions == 0, "items were evicted, though the heap has room for all files");
            must(loaded.curr_items == phase.loader.stored, "the heap does not count as many items as were stored");
            let passes = phase.roles.iter().map(|role| role.passes).sum::<u64>();
            must(passes > 0, "no reader compared all files");
            must(
                phase.loader.stored + phase.loader.too_large + phase.loader.changed == self.files.all.len() as u64,
                "not every file was loaded",
            );
        }
        wrong
    }
}

/// What happened after the kill.
fn after_kill(mut killed: Killed, before: &Stats, cache: &Cache) -> Result<Killed> {
    cache.reap()?;
    let now = cache.stats()?;
    killed.gets_after = now.cmd_get.saturating_sub(before.cmd_get);
    killed.sets_after = now.cmd_set.saturating_sub(before.cmd_set);
    killed.recovered_contexts = now.recovered_contexts.saturating_sub(before.recovered_contexts);
    Ok(killed)
}

/// Looks at the heap while others work on it.
struct Watch<'a> {
    cache: &'a Cache,
    least_used: f64,
}

impl Watch<'_> {
    fn look(&mut self) -> Result<Stats> {
        let stats = self.cache.stats()?;
        let used = 1.0 - stats.superblocks_free as f64 / stats.superblocks.max(1) as f64;
        self.least_used = self.least_used.min(used);
        Ok(stats)
    }

    /// Until somebody both reads and writes, and then for `time`.
    fn wait_for_work(&mut self, time: Duration) -> Result<()> {
        let first = self.look()?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = self.look()?;
            if now.cmd_get > first.cmd_get && now.cmd_set > first.cmd_set {
                break;
            }
            if Instant::now() > deadline {
                return Err(Failure::new("the processes do not begin to work"));
            }
            thread::sleep(LOOK);
        }
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.look()?;
            thread::sleep(LOOK);
        }
        Ok(())
    }
}

/// A process that was started; killed if it is not waited for.
struct Role {
    role: &'static str,
    process: Child,
}

impl Role {
    fn is_done(&mut self) -> Result<bool> {
        let status = self.process.try_wait().map_err(Failure::during("waiting for a process"))?;
        Ok(status.is_some())
    }

    /// Waits for the end and reads what the process tells.
    fn report(mut self, patience: Duration) -> Result<RoleReport> {
        let deadline = Instant::now() + patience;
        // A report is shorter than a pipe holds, so the process can end before it is read.
        while !self.is_done()? {
            if Instant::now() > deadline {
                return Err(Failure::new(format!("the {} process {} does not end", self.role, self.process.id())));
            }
            thread::sleep(Duration::from_millis(20));
        }
        let mut text = String::new();
        if let Some(mut output) = self.process.stdout.take() {
            output.read_to_string(&mut text).map_err(Failure::during("reading a report"))?;
        }
        serde_json::from_str(&text).map_err(Failure::during(format!("the {} process failed", self.role)))
    }

    /// SIGKILL, at whatever it is doing.
    fn kill(mut self, cache: &Cache, start: Instant) -> Result<(Killed, Stats)> {
        let pid = self.process.id() as i32;
        let alive = !self.is_done()?;
        self.process.kill().map_err(Failure::during("cannot kill"))?;
        self.process.wait().map_err(Failure::during("waiting for the killed"))?;
        if !alive {
            return Err(Failure::new(format!("the {} process {pid} ended before it was to be killed", self.role)));
        }
        say(start, &format!("killed the {} process {pid} with SIGKILL", self.role));
        let after_seconds = start.elapsed().as_secs_f64();
        let (gets_after, sets_after, recovered_contexts) = (0, 0, 0);
        let role = self.role.to_owned();
        Ok((Killed { role, pid, after_seconds, gets_after, sets_after, recovered_contexts }, cache.stats()?))
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // Has no effect on one that was waited for.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
