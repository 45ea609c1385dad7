//! memcached as a peer: a server of this run's own, and a lean client of its text protocol.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::{net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    failure::{Failure, Result},
    key::{KEY, Key},
    machine::pin,
    op::{Actor, Op, Step},
    value::{VALUE, has_stamp, put_stamp, template},
};

/// How long an answer may take before the run fails.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where counters begin.
const COUNTER: &[u8] = b"1000000000";

/// How to reach a server.
pub enum Address {
    /// A unix socket.
    Unix(PathBuf),
    /// A port of 127.0.0.1.
    Tcp(u16),
}

impl Address {
    /// A port that is free now.
    pub fn free_port() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(Failure::during("cannot listen on 127.0.0.1"))?;
        let address = listener.local_addr().map_err(Failure::during("cannot ask for the port"))?;
        Ok(Address::Tcp(address.port()))
    }
}

/// A memcached that ends with this, and with this process however it ends.
pub struct Server {
    child: Child,
    address: Address,
}

impl Server {
    /// Starts one with `megabytes` of memory and one worker thread, pinned to a core.
    pub fn start(address: Address, megabytes: u64, core: usize) -> Result<Self> {
        let mut command = Command::new("memcached");
        command.args(["-t", "1", "-m", &megabytes.to_string()]);
        match &address {
            Address::Unix(path) => command.arg("-s").arg(path),
            Address::Tcp(port) => command.args(["-l", "127.0.0.1", "-U", "0", "-p", &port.to_string()]),
        };
        // SAFETY: takes no arguments and cannot fail.
        if unsafe { libc::geteuid() } == 0 {
            command.args(["-u", "root"]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
        // SAFETY: both calls are single system calls, which a child may make between fork and exec.
        unsafe {
            command.pre_exec(move || {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                pin(core)
            });
        }
        let child = command.spawn().map_err(Failure::during("cannot start memcached (scripts/setup installs it)"))?;
        let mut server = Self { child, address };
        server.wait()?;
        Ok(server)
    }

    /// Waits until it answers.
    fn wait(&mut self) -> Result<()> {
        let start = Instant::now();
        while self.connect().is_err() {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(Failure::new(format!("memcached ended at once: {status}")));
            }
            if start.elapsed() > PATIENCE {
                return Err(Failure::new("memcached does not answer"));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// A new connection.
    pub fn connect(&self) -> Result<Client> {
        let stream: Box<dyn Stream> = match &self.address {
            Address::Unix(path) => Box::new(unix(path)?),
            Address::Tcp(port) => Box::new(tcp(*port)?),
        };
        Ok(Client::new(stream))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It holds nothing that must be saved; the socket's folder is removed by its owner.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The version of the memcached that is installed.
pub fn version() -> Result<String> {
    let output = Command::new("memcached")
        .arg("-V")
        .output()
        .map_err(Failure::during("cannot run memcached (scripts/setup installs it)"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn unix(path: &Path) -> Result<UnixStream> {
    let stream = UnixStream::connect(path).map_err(Failure::during(path.display()))?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(Failure::during("unix socket"))?;
    Ok(stream)
}

fn tcp(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port)).map_err(Failure::during("TCP"))?;
    stream.set_nodelay(true).map_err(Failure::during("TCP"))?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(Failure::during("TCP"))?;
    Ok(stream)
}

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

/// One connection and its two buffers.
pub struct Client {
    stream: Box<dyn Stream>,
    out: Vec<u8>,
    reply: Vec<u8>,
    len: usize,
    value: Vec<u8>,
    cas: HashMap<u64, u64>,
}

impl Client {
    fn new(stream: Box<dyn Stream>) -> Self {
        let (out, reply) = (Vec::with_capacity(1 << 17), vec![0; 1 << 16]);
        Self { stream, out, reply, len: 0, value: template(VALUE), cas: HashMap::new() }
    }

    /// Sends what is in the buffer and reads until the reply ends with `end`.
    fn trip(&mut self, end: &[u8]) -> Result<()> {
        self.send()?;
        self.len = 0;
        loop {
            let free = self.reply.get_mut(self.len..).filter(|free| !free.is_empty());
            let free = free.ok_or_else(|| Failure::new("memcached's reply is longer than expected"))?;
            let count = self.stream.read(free).map_err(Failure::during("reading from memcached"))?;
            if count == 0 {
                return Err(Failure::new("memcached closed the connection"));
            }
            self.len += count;
            let reply = &self.reply[..self.len];
            if reply.ends_with(end) {
                return Ok(());
            }
            if reply.ends_with(b"ERROR\r\n") || reply.starts_with(b"SERVER_ERROR") {
                return Err(self.unexpected());
            }
        }
    }

    fn send(&mut self) -> Result<()> {
        self.stream.write_all(&self.out).map_err(Failure::during("writing to memcached"))?;
        self.out.clear();
        Ok(())
    }

    /// Sends a command whose reply must be exactly `reply`.
    fn expect(&mut self, reply: &[u8]) -> Result<()> {
        self.trip(b"\r\n")?;
        if &self.reply[..self.len] == reply { Ok(()) } else { Err(self.unexpected()) }
    }

    #[cold]
    fn unexpected(&self) -> Failure {
        let start = &self.reply[..self.len.min(60)];
        Failure::new(format!("memcached's reply is not the one expected: {}", start.escape_ascii()))
    }

    fn words(&mut self, words: &[&[u8]]) {
        for word in words {
            self.out.extend_from_slice(word);
        }
    }

    /// `verb key 0 0 length [cas]` and the item's value.
    fn put_store(&mut self, verb: &[u8], item: u64, key: &Key, cas: &[u8]) {
        put_stamp(&mut self.value, item);
        self.words(&[verb, b" ", key, b" 0 0 128", cas, b"\r\n"]);
        self.out.extend_from_slice(&self.value);
        self.out.extend_from_slice(b"\r\n");
    }

    /// Reads one `VALUE` at `from` of the reply, checks it and gives the place after it.
    fn check_value(&self, from: usize, item: u64, key: &Key) -> Result<usize> {
        let reply = &self.reply[from..self.len];
        let head = b"VALUE ".len() + KEY + b" 0 128\r\n".len();
        let good = reply.len() >= head + VALUE + 2
            && reply.starts_with(b"VALUE ")
            && reply[6..].starts_with(key)
            && reply[6 + KEY..].starts_with(b" 0 128\r\n")
            && has_stamp(&reply[head..], item);
        if good { Ok(from + head + VALUE + 2) } else { Err(self.unexpected()) }
    }

    /// Sets many items of `len` bytes without waiting for replies.
    pub fn fill(&mut self, items: std::ops::Range<u64>, len: usize) -> Result<()> {
        let mut value = template(len);
        for item in items {
            put_stamp(&mut value, item);
            let length = len.to_string();
            self.words(&[
                b"set ",
                &crate::key::key(item),
                b" 0 0 ",
                length.as_bytes(),
                b" noreply\r\n",
                &value,
                b"\r\n",
            ]);
            if self.out.len() >= 1 << 16 {
                self.send()?;
            }
        }
        self.send()
    }

    /// The general statistics.
    pub fn stats(&mut self) -> Result<HashMap<String, u64>> {
        self.words(&[b"stats\r\n"]);
        self.trip(b"END\r\n")?;
        let text = String::from_utf8_lossy(&self.reply[..self.len]);
        let fields = text.lines().filter_map(|line| {
            let (name, value) = line.strip_prefix("STAT ")?.split_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Ok(fields.collect())
    }

    /// Whether an item is there with the right bytes; used to see that what is counted can be read.
    pub fn holds(&mut self, item: u64, len: usize) -> Result<bool> {
        self.words(&[b"get ", &crate::key::key(item), b"\r\n"]);
        self.trip(b"END\r\n")?;
        let reply = &self.reply[..self.len];
        let start = reply.iter().position(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        Ok(reply.len() > start + len && crate::value::is_right(&reply[start..start + len], len, item))
    }
}

impl Actor for Client {
    fn one(&mut self, op: Op, item: u64, key: &Key) -> Result<()> {
        match op {
            Op::Get | Op::Gat => {
                let verb: &[u8] = if op == Op::Get { b"get " } else { b"gat 0 " };
                self.words(&[verb, key, b"\r\n"]);
                self.trip(b"END\r\n")?;
                self.check_value(0, item, key).map(drop)
            }
            Op::Set | Op::Add | Op::Replace => {
                self.put_store(op.name().as_bytes(), item, key, b"");
                self.expect(b"STORED\r\n")
            }
            Op::Append | Op::Prepend => {
                self.words(&[op.name().as_bytes(), b" ", key, b" 0 0 16\r\n", key, b"\r\n"]);
                self.expect(b"STORED\r\n")
            }
            Op::Cas => {
                let cas = self.cas.get(&item).copied().unwrap_or_default();
                self.put_store(b"cas", item, key, format!(" {cas}").as_bytes());
                self.expect(b"STORED\r\n")
            }
            Op::Delete => {
                self.words(&[b"delete ", key, b"\r\n"]);
                self.expect(b"DELETED\r\n")
            }
            Op::Incr | Op::Decr => {
                self.words(&[op.name().as_bytes(), b" ", key, b" 1\r\n"]);
                self.trip(b"\r\n")?;
                if self.reply[0].is_ascii_digit() { Ok(()) } else { Err(self.unexpected()) }
            }
            Op::Touch => {
                self.words(&[b"touch ", key, b" 0\r\n"]);
                self.expect(b"TOUCHED\r\n")
            }
            Op::Batch => Err(Failure::new("a batch needs its keys")),
        }
    }

    fn batch(&mut self, items: &[u64], keys: &[Key]) -> Result<()> {
        self.words(&[b"get"]);
        for key in keys {
            self.words(&[b" ", key]);
        }
        self.words(&[b"\r\n"]);
        self.trip(b"END\r\n")?;
        let mut at = 0;
        for (&item, key) in items.iter().zip(keys) {
            at = self.check_value(at, item, key)?;
        }
        Ok(())
    }

    fn step(&mut self, step: Step, item: u64, key: &Key) -> Result<()> {
        match step {
            Step::Nothing => Ok(()),
            Step::Set => self.one(Op::Set, item, key),
            Step::Delete => self.one(Op::Delete, item, key),
            Step::LearnCas => {
                self.words(&[b"gets ", key, b"\r\n"]);
                self.trip(b"END\r\n")?;
                let line = String::from_utf8_lossy(&self.reply[..self.len.min(80)]).into_owned();
                let cas = line.lines().next().and_then(|line| line.rsplit(' ').next()?.parse().ok());
                self.cas.insert(item, cas.ok_or_else(|| self.unexpected())?);
                Ok(())
            }
        }
    }

    fn set_counter(&mut self, key: &Key) -> Result<()> {
        self.words(&[b"set ", key, b" 0 0 10\r\n", COUNTER, b"\r\n"]);
        self.expect(b"STORED\r\n")
    }
}
