//! A directory of heaps of its own for each test, and the command in it.

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;

/// A PLIB_DIR that goes away with the test.
pub struct Place {
    dir: TempDir,
}

impl Place {
    /// An empty directory, in memory where there is /dev/shm.
    pub fn new() -> Self {
        let shm = Path::new("/dev/shm");
        let parent = if shm.is_dir() { shm.to_path_buf() } else { std::env::temp_dir() };
        Self { dir: TempDir::with_prefix_in("plib-cli-", parent).unwrap() }
    }

    /// A directory with the heap `h` in it, which the commands use.
    pub fn with_heap() -> Self {
        let place = Self::new();
        place.plib(&["create", "h", "--size", "16m"]).assert().success();
        place
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A file in the directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The command with this directory and the heap `h`; nothing else of the environment counts.
    pub fn plib(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_plib"));
        command.env_clear().env("PLIB_DIR", self.path()).env("PLIB_HEAP", "h").args(args);
        command
    }

    /// The exit code, stdout and stderr.
    pub fn outcome(&self, args: &[&str]) -> Outcome {
        Outcome::of(self.plib(args))
    }

    /// What the command says on stdout, which must be one JSON document, and its exit code.
    pub fn json(&self, args: &[&str]) -> (Value, i32) {
        let mut command = self.plib(args);
        let outcome = Outcome::of(command.arg("--json"));
        let parsed = serde_json::from_str(&outcome.stdout);
        (parsed.unwrap_or_else(|e| panic!("{args:?}: {e}: {outcome:?}")), outcome.code)
    }

    /// The error document on stderr.
    pub fn json_error(&self, args: &[&str]) -> Value {
        let mut command = self.plib(args);
        let outcome = Outcome::of(command.arg("--json"));
        assert_eq!(outcome.stdout, "", "{args:?}");
        let document: Value =
            serde_json::from_str(&outcome.stderr).unwrap_or_else(|e| panic!("{args:?}: {e}: {outcome:?}"));
        assert_eq!(document["error"]["exit"], outcome.code, "{args:?}");
        document["error"].clone()
    }
}

/// How a command ended.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    pub fn of(mut command: impl std::borrow::BorrowMut<Command>) -> Self {
        let output = command.borrow_mut().output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Fails with this exit code and names each of `words` on stderr.
    #[track_caller]
    pub fn refuses(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        words.iter().for_each(|word| assert!(self.stderr.contains(word), "'{word}' is not in {self:?}"));
    }
}
