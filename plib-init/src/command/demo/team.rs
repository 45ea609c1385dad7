//! The children of the demo, seen from the parent.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::worker::Report;
use crate::error::CliError;

struct Member {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// The children; those still running are killed when this goes out of scope.
pub(super) struct Team {
    members: Vec<Member>,
    /// The number of the one that was killed.
    victim: u32,
}

fn failed(what: &str, e: impl std::fmt::Display) -> CliError {
    CliError::Demo(format!("{what}: {e}"))
}

impl Member {
    fn start(path: &Path, number: u32) -> Result<Self, CliError> {
        let program = std::env::current_exe().map_err(|e| failed("cannot find this program", e))?;
        let mut child = Command::new(program)
            .arg("demo-worker")
            .arg("--path")
            .arg(path)
            .arg("--number")
            .arg(number.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| failed("cannot start a process", e))?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(orders), Some(answers)) => Ok(Self { child, orders, answers: BufReader::new(answers) }),
            _ => Err(CliError::Demo("a process has no pipes".into())),
        }
    }

    fn tell(&mut self, order: &str) -> Result<(), CliError> {
        writeln!(self.orders, "{order}").map_err(|e| failed("cannot reach a process", e))
    }

    fn answer(&mut self) -> Result<Report, CliError> {
        let mut line = String::new();
        self.answers.read_line(&mut line).map_err(|e| failed("cannot hear a process", e))?;
        serde_json::from_str(&line).map_err(|_| CliError::Demo(format!("process {} ended early", self.child.id())))
    }
}

impl Team {
    /// Starts the children and waits until each has opened the heap.
    pub(super) fn start(path: &Path, processes: u32) -> Result<Self, CliError> {
        let mut team = Self { members: Vec::new(), victim: processes - 1 };
        for number in 0..processes {
            team.members.push(Member::start(path, number)?);
        }
        team.answers()?;
        Ok(team)
    }

    /// Gives all an order.
    pub(super) fn tell(&mut self, order: &str) -> Result<(), CliError> {
        self.members.iter_mut().try_for_each(|member| member.tell(order))
    }

    /// One answer of each.
    pub(super) fn answers(&mut self) -> Result<Vec<Report>, CliError> {
        self.members.iter_mut().map(Member::answer).collect()
    }

    /// An order to all, and their answers.
    pub(super) fn all(&mut self, order: &str) -> Result<Vec<Report>, CliError> {
        self.tell(order)?;
        self.answers()
    }

    /// The number of the child that `kill_one` kills.
    pub(super) fn victim(&self) -> u32 {
        self.victim
    }

    /// Kills the last child with SIGKILL and gives its pid.
    pub(super) fn kill_one(&mut self) -> Result<u32, CliError> {
        let mut member = self.members.pop().ok_or_else(|| CliError::Demo("nobody is left to kill".into()))?;
        let pid = member.child.id();
        // Rust's kill is SIGKILL on Unix.
        member.child.kill().and_then(|()| member.child.wait()).map_err(|e| failed("cannot kill a process", e))?;
        Ok(pid)
    }

    /// Closes the pipes, at which the children end, and waits for them.
    pub(super) fn finish(mut self) -> Result<(), CliError> {
        for Member { mut child, orders, answers } in self.members.drain(..) {
            drop((orders, answers));
            let status = child.wait().map_err(|e| failed("cannot wait for a process", e))?;
            if !status.success() {
                return Err(CliError::Demo(format!("process {} ended with {status}", child.id())));
            }
        }
        Ok(())
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        for member in &mut self.members {
            // Only after an error, which says more than a failed clean-up.
            let _ = member.child.kill();
            let _ = member.child.wait();
        }
    }
}
