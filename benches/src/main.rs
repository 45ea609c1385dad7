//! `plib-bench`: the command line of the measurements.

use std::{fs, process::ExitCode};

use clap::Parser;
use plib_bench::{
    capacity, cells,
    failure::{Failure, Result},
    heap::Folder,
    machine::{Machine, pin},
    processes,
    progress::Progress,
    report::{Figures, Report},
    settings::{Arguments, Part, Role, Settings},
    syscalls, text, trips,
};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match &arguments.role {
        Some(Role::Worker(worker)) => processes::work(worker).map(|()| ExitCode::SUCCESS),
        Some(Role::Marked(marked)) => syscalls::run_marked(marked).map(|()| ExitCode::SUCCESS),
        None => run(&arguments),
    };
    outcome.unwrap_or_else(|failure| {
        eprintln!("plib-bench: {failure}");
        ExitCode::FAILURE
    })
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    let settings = Settings::of(arguments);
    let progress = Progress::new(!arguments.quiet);
    let machine = Machine::look()?;
    let folder = Folder::create()?;
    let report = Report::of(measure(settings, machine, &folder, &progress)?);
    let json = serde_json::to_string_pretty(&report).map_err(Failure::during("cannot make JSON"))?;
    if let Some(path) = &arguments.save {
        fs::write(path, &json).map_err(Failure::during(path.display()))?;
    }
    if arguments.json {
        println!("{json}");
    } else {
        print!("{}", text::print(&report));
    }
    let missed = arguments.strict && report.missed() > 0;
    Ok(if missed { ExitCode::from(3) } else { ExitCode::SUCCESS })
}

/// Runs the parts that were asked for.
fn measure(settings: Settings, machine: Machine, folder: &Folder, progress: &Progress) -> Result<Figures> {
    let wants = |part| settings.parts.contains(&part);
    let (mut sizes, mut trips, mut capacity) = (Vec::new(), None, Vec::new());
    let (mut processes, mut syscalls) = (Vec::new(), Vec::new());
    // strace and two processes first: they must not inherit this process's pinning.
    if wants(Part::Syscalls) {
        syscalls = syscalls::measure(&settings, folder, progress)?;
    }
    if wants(Part::Processes) {
        processes = processes::measure(&settings, folder, &machine, progress)?.unwrap_or_default();
    }
    pin(machine.core()).map_err(Failure::during("cannot pin this process"))?;
    if wants(Part::Cells) {
        for &items in &settings.items {
            sizes.push(cells::measure(&settings, folder, items, progress)?);
        }
    }
    if wants(Part::Trips) {
        trips = Some(trips::measure(&settings, folder, &machine, progress)?);
    }
    if wants(Part::Capacity) {
        capacity = capacity::measure(&settings, folder, &machine, progress)?;
    }
    let seconds = progress.seconds();
    Ok(Figures { machine, settings, sizes, trips, capacity, processes, syscalls, seconds })
}
