//! A report as tables for people.

use std::fmt::Write;

use crate::{
    capacity::Capacity,
    cells::Size,
    machine::Machine,
    processes::{Mix, Pair},
    report::Report,
    rounds::Rounds,
    syscalls::Calls,
    targets::{Side, Target},
    trips::{Latency, Trips},
};

/// Below this share of its core a measurement was disturbed.
const DISTURBED: f64 = 0.97;

/// A number of things with thousands separated, or in words where it is round.
pub fn count(number: u64) -> String {
    match number {
        0 => "0".into(),
        n if n.is_multiple_of(1_000_000) => format!("{} million", n / 1_000_000),
        n if n.is_multiple_of(1000) => format!("{} thousand", n / 1000),
        n => grouped(n),
    }
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// A table: the first column to the left, the others to the right.
struct Table(Vec<Vec<String>>);

impl Table {
    fn new(head: &[&str]) -> Self {
        Self(vec![head.iter().map(|&cell| cell.to_owned()).collect()])
    }

    fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.0.push(cells.into_iter().collect());
    }

    fn print(&self, text: &mut String) {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or(0);
        let width = |at: usize| self.0.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|at| width(at).unwrap_or(0)).collect();
        for row in &self.0 {
            let cells = row.iter().enumerate().map(|(at, cell)| {
                let width = widths[at];
                if at == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            let line = cells.collect::<Vec<_>>().join("  ");
            let _ = writeln!(text, "  {}", line.trim_end());
        }
        text.push('\n');
    }
}

/// The whole report.
pub fn print(report: &Report) -> String {
    let mut text = String::new();
    let figures = &report.figures;
    machine(&figures.machine, &mut text);
    for of_size in &figures.sizes {
        size(of_size, &mut text);
    }
    if let Some(of_trips) = &figures.trips {
        trips(of_trips, &mut text);
    }
    if !figures.capacity.is_empty() {
        capacity(&figures.capacity, &mut text);
    }
    if !figures.processes.is_empty() {
        processes(&figures.processes, &mut text);
    }
    if !figures.syscalls.is_empty() {
        syscalls(&figures.syscalls, &mut text);
    }
    if !report.targets.is_empty() {
        targets(report, &mut text);
    }
    let _ = writeln!(text, "Measured in {:.0} s.", figures.seconds);
    text
}

fn machine(machine: &Machine, text: &mut String) {
    let Machine { processor, cores, kernel, memory_available, shmem_huge_pages } = machine;
    let gigabytes = memory_available >> 30;
    let cores = cores.len();
    let _ = writeln!(
        text,
        "{processor}, {cores} cores, Linux {kernel}, {gigabytes} GiB of memory free, huge pages in shared memory: \
         {shmem_huge_pages}\n"
    );
}

fn ns(value: f64) -> String {
    match value {
        v if v.is_nan() => "-".into(),
        v if v < 99.95 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

fn spread(rounds: &Rounds) -> String {
    format!("{} .. {}", ns(rounds.min), ns(rounds.max))
}

fn size(size: &Size, text: &mut String) {
    let items = count(size.items);
    let _ = writeln!(
        text,
        "{items} items, one thread, 16-byte keys, 128-byte values, ns an operation (batch: a key), heap in {} pages",
        size.pages
    );
    let mut table =
        Table::new(&["", "plib", "rounds", "quick_cache", "rounds", "ratio", "byte-string keys", "rounds", "ratio"]);
    for cell in &size.cells {
        let mut row = vec![cell.operation.to_owned(), ns(cell.plib.median), spread(&cell.plib)];
        for quick in [&cell.quick_cache, &cell.quick_cache_bytes].into_iter().flatten() {
            row.extend([ns(quick.median), spread(quick), format!("{:.2}", cell.plib.median / quick.median)]);
        }
        table.row(row);
    }
    table.print(text);
    let huge = size.chase.huge_pages_ns.map_or_else(|| "not to be had".into(), |it| format!("{} ns", ns(it)));
    let _ = writeln!(
        text,
        "  A load that waits for the one before it, over as many items: {} ns (4 KiB pages), {huge} (2 MiB pages).\n  \
         Making a key and a stamp, taken off above: {} ns. quick_cache's batch is as many single gets.\n  \
         quick_cache has keys of 16 bytes known at compile time and stored in place; beside it, quick_cache with keys\n  \
         of any length in a box, which is what plib takes.",
        ns(size.chase.small_pages_ns),
        ns(size.key_ns)
    );
    disturbed(size.core_share, text);
    text.push('\n');
}

fn disturbed(share: f64, text: &mut String) {
    if share < DISTURBED {
        let percent = share * 100.0;
        let _ =
            writeln!(text, "  Disturbed: other programs ran too; the core was ours for {percent:.0} % of the time.");
    }
}

fn trips(trips: &Trips, text: &mut String) {
    let _ = writeln!(
        text,
        "{} keys, each operation of plib beside {}'s round trip, client and server on one core",
        count(trips.keys),
        trips.memcached
    );
    let mut table =
        Table::new(&["", "plib ns", "p50", "p99", "unix us", "p50", "p99", "TCP us", "p50", "p99", "unix p50 / plib"]);
    for trip in &trips.trips {
        let in_ns = |it: &Latency| [ns(it.mean), ns(it.p50), ns(it.p99)];
        let in_us = |it: &Latency| [it.mean, it.p50, it.p99].map(|value| format!("{:.2}", value / 1000.0));
        let ratio = format!("{:.0}", trip.unix.p50 / trip.plib.mean);
        let cells = [vec![trip.operation.to_owned()], in_ns(&trip.plib).into(), in_us(&trip.unix).into()];
        table.row(cells.into_iter().flatten().chain(in_us(&trip.tcp)).chain([ratio]));
    }
    table.print(text);
    let _ = writeln!(
        text,
        "  plib's percentiles come from single calls between two looks at the cycle counter ({} ns, taken off).\n",
        ns(trips.timer_ns)
    );
}

fn capacity(all: &[Capacity], text: &mut String) {
    let megabytes = all[0].bytes >> 20;
    let _ = writeln!(
        text,
        "Items held by {megabytes} MiB, 16-byte keys (a heap, index included; memcached -m {megabytes})"
    );
    let mut table = Table::new(&["value", "plib", "evicted", "memcached", "evicted", "plib / memcached"]);
    for it in all {
        let ratio = it.plib.items as f64 / it.memcached.items as f64;
        let numbers = [it.plib.items, it.plib.evictions, it.memcached.items, it.memcached.evictions].map(grouped);
        table.row([format!("{} B", it.value)].into_iter().chain(numbers).chain([format!("{ratio:.2}")]));
    }
    table.print(text);
}

fn processes(pairs: &[Pair], text: &mut String) {
    let _ = writeln!(text, "Two processes on two cores beside one, million operations a second");
    let mut table = Table::new(&["", "one", "two", "two / one"]);
    for pair in pairs {
        let mix = if pair.mix == Mix::Reads { "reads" } else { "50/50" };
        let keys = if pair.overlapping { "overlapping" } else { "disjoint" };
        let rates = [pair.one, pair.two].map(|rate| format!("{:.2}", rate / 1e6));
        table.row([format!("{mix}, {keys} keys")].into_iter().chain(rates).chain([format!("{:.2}", pair.ratio)]));
    }
    table.print(text);
    let share = pairs.iter().map(|pair| pair.core_share).fold(1.0, f64::min);
    disturbed(share, text);
    if share < DISTURBED {
        text.push('\n');
    }
}

fn syscalls(all: &[Calls], text: &mut String) {
    let _ = writeln!(text, "System calls, counted by strace");
    let mut table = Table::new(&["", "operations", "system calls"]);
    for it in all {
        table.row([it.operation.to_owned(), grouped(it.operations), grouped(it.system_calls)]);
    }
    table.print(text);
    for it in all {
        if let Some(first) = &it.first {
            let _ = writeln!(text, "  {} made: {first}\n", it.operation);
        }
    }
}

fn targets(report: &Report, text: &mut String) {
    let _ = writeln!(text, "Targets");
    let mut table = Table::new(&["", "figure", "", "limit", ""]);
    for Target { what, figure, limit, side, reached } in &report.targets {
        let side = match side {
            Side::AtMost => "<=",
            Side::Below => "<",
            Side::AtLeast => ">=",
        };
        let number = |value: f64| if value >= 10.0 { format!("{value:.0}") } else { format!("{value:.2}") };
        let verdict = if *reached { "reached" } else { "NOT REACHED" };
        table.row([what.clone(), number(*figure), side.into(), number(*limit), verdict.into()]);
    }
    table.print(text);
    let (all, missed) = (report.targets.len(), report.missed());
    let _ = writeln!(text, "{} of {all} targets reached{}", all - missed, if missed > 0 { "." } else { ": all." });
    if report.figures.settings.quick {
        let _ = writeln!(text, "A quick run shows that all works; its figures are not those of the full one.");
    }
}
