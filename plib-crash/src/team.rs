//! Runs units in processes of their own, a few at a time, each on a processor of its own.

use crate::report::Report;
use crate::unit::Unit;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};

/// What a worker tells.
#[derive(Serialize, Deserialize)]
pub enum Told {
    /// So many of so many points.
    Progress(u64, u64),
    /// The end.
    Done(Box<Report>),
}

impl Told {
    /// Tells the team's leader.
    pub fn send(&self) {
        let mut out = std::io::stdout().lock();
        let text = serde_json::to_string(self).unwrap_or_default();
        // A leader that is gone needs no answer.
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }
}

/// How the units are run.
#[derive(Clone, Copy)]
pub struct Manner {
    /// Processes at a time.
    pub jobs: usize,
    /// Kill or stop after every so many-th instruction.
    pub every: usize,
    /// First deaths of each recovery.
    pub firsts: usize,
}

fn start(unit: &Unit, cpu: usize, manner: Manner, folder: &Path) -> Result<Child, String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    Command::new(program)
        .args(["worker", &unit.to_string(), "--folder"])
        .arg(folder)
        .args(["--every", &manner.every.to_string(), "--firsts", &manner.firsts.to_string()])
        .args(["--cpu", &cpu.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())
}

/// Starts a worker and listens to it until its end. Its folder goes however it ends.
fn listen(place: usize, unit: Unit, manner: Manner, tell: &Sender<(usize, Unit, Told)>) {
    let lost = |how: String| Told::Done(Box::new(Report::of_lost(&unit, how)));
    let mut done = false;
    let end = crate::scratch().and_then(|folder| {
        let mut child = start(&unit, place, manner, folder.path())?;
        let lines = child.stdout.take().map(BufReader::new).into_iter().flat_map(BufReader::lines);
        for line in lines.map_while(Result::ok) {
            if let Ok(told) = serde_json::from_str::<Told>(&line) {
                done |= matches!(told, Told::Done(_));
                let _ = tell.send((place, unit, told));
            }
        }
        child.wait().map_err(|e| e.to_string())
    });
    if !done {
        let how = match end {
            Ok(status) => format!("the worker ended ({status}): a survivor hung or crashed"),
            Err(e) => format!("the worker cannot be started: {e}"),
        };
        let _ = tell.send((place, unit, lost(how)));
    }
}

/// Runs all units; `hear` gets what they tell.
pub fn run(units: Vec<Unit>, manner: Manner, mut hear: impl FnMut(&Unit, &Told)) -> Vec<Report> {
    let (tell, told): (Sender<_>, Receiver<(usize, Unit, Told)>) = channel();
    let mut left: VecDeque<Unit> = units.into();
    let mut reports = Vec::new();
    let mut busy = 0;
    let launch = |place: usize, unit: Unit| {
        let tell = tell.clone();
        std::thread::spawn(move || listen(place, unit, manner, &tell));
    };
    for place in 0..manner.jobs {
        if let Some(unit) = left.pop_front() {
            launch(place, unit);
            busy += 1;
        }
    }
    while busy > 0 {
        let Ok((place, unit, told)) = told.recv() else { break };
        hear(&unit, &told);
        if let Told::Done(report) = told {
            reports.push(*report);
            match left.pop_front() {
                Some(unit) => launch(place, unit),
                None => busy -= 1,
            }
        }
    }
    reports
}
