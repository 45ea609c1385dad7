//! The reports as text for people.

use std::fmt::Write;

use crate::{
    latency::Latency,
    report::{JobReport, Killed, Phase, RoleReport},
};

/// The whole job.
pub fn job(report: &JobReport) -> String {
    let mut text = String::new();
    let folders: Vec<String> = report.folders.iter().map(|folder| folder.display().to_string()).collect();
    let _ = writeln!(
        text,
        "{} files of {}: {} together, 0 bytes to {}; {} keys hashed because their path is over 250 bytes, {} unreadable\n",
        grouped(report.files),
        folders.join(" "),
        size(report.bytes),
        size(report.largest),
        report.hashed_keys,
        report.unreadable
    );
    for of_phase in &report.phases {
        phase(of_phase, &mut text);
    }
    let verdict = if report.good() { "All as it must be." } else { "NOT as it must be, see above." };
    let _ = writeln!(text, "{verdict} {:.0} s.", report.seconds);
    text
}

fn phase(phase: &Phase, text: &mut String) {
    let Phase { name, heap_bytes, item_size_max, loader, .. } = phase;
    let _ = writeln!(text, "{name}: {}, items up to {}", size(*heap_bytes), size(u64::from(*item_size_max)));
    let _ = writeln!(
        text,
        "  loaded {} files in {:.1} s{}",
        grouped(loader.stored),
        loader.seconds,
        if loader.too_large > 0 {
            format!(" ({} larger than the heap takes)", loader.too_large)
        } else {
            String::new()
        }
    );
    if let Some(killed) = &phase.killed {
        kill(killed, text);
    }
    let compared: u64 = phase.roles.iter().map(|role| role.compared).sum();
    let bytes: u64 = phase.roles.iter().map(|role| role.compared_bytes).sum();
    let (hits, misses) = phase.roles.iter().fold((0, 0), |(h, m), role| (h + role.hits, m + role.misses));
    let _ = writeln!(
        text,
        "  compared {} items with the disk, {}, byte for byte: {}",
        grouped(compared),
        size(bytes),
        if phase.wrong.is_empty() { "all the same" } else { "see below" }
    );
    let rate = 100.0 * hits as f64 / (hits + misses).max(1) as f64;
    let _ = writeln!(text, "  hit rate {rate:.2} % ({} hits, {} misses)", grouped(hits), grouped(misses));
    let _ = writeln!(
        text,
        "  at the end {} items, {}; {} evicted; never less than {:.1} % of the superblocks in use",
        grouped(phase.items),
        size(phase.item_bytes),
        grouped(phase.evictions),
        phase.least_used * 100.0
    );
    let _ = writeln!(text, "  check of the whole heap: {}", findings(&phase.findings));
    for wrong in &phase.wrong {
        let _ = writeln!(text, "  WRONG: {wrong}");
    }
    text.push('\n');
    let mut all = vec![phase.loader.clone()];
    all.extend(phase.roles.iter().cloned());
    text.push_str(&roles(&all));
    text.push('\n');
}

fn findings(findings: &[String]) -> String {
    match findings {
        [] => "nothing found".into(),
        [first, ..] => format!("{} findings, the first: {first}", findings.len()),
    }
}

fn kill(killed: &Killed, text: &mut String) {
    let Killed { role, pid, gets_after, sets_after, recovered_contexts, .. } = killed;
    let _ = writeln!(
        text,
        "  killed the {role} process {pid} with SIGKILL; the others went on: {} gets and {} sets after it; \
         op contexts recovered: {recovered_contexts}",
        grouped(*gets_after),
        grouped(*sets_after)
    );
}

/// One line an operation and process.
pub fn roles(roles: &[RoleReport]) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "  {:<8} {:>8}  {:<4} {:>10} {:>9} {:>9} {:>9} {:>9}",
        "process", "pid", "", "calls", "mean us", "p50", "p99", "max"
    );
    for role in roles {
        for (operation, latency) in &role.latencies {
            let Latency { calls, mean, p50, p99, max } = latency;
            let us = |value: f64| format!("{:.2}", value / 1000.0);
            let _ = writeln!(
                text,
                "  {:<8} {:>8}  {operation:<4} {:>10} {:>9} {:>9} {:>9} {:>9}",
                role.role,
                role.pid,
                grouped(*calls),
                us(*mean),
                us(*p50 as f64),
                us(*p99 as f64),
                us(*max as f64)
            );
        }
        for (why, times) in &role.refused {
            let _ = writeln!(text, "  {:<8} {:>8}  refused {times} times: {why}", role.role, role.pid);
        }
        if role.changed > 0 {
            let _ = writeln!(text, "  {:<8} {:>8}  {} files changed on the disk", role.role, role.pid, role.changed);
        }
        for wrong in &role.wrong {
            let _ = writeln!(text, "  {:<8} {:>8}  WRONG: {wrong}", role.role, role.pid);
        }
    }
    text
}

fn size(bytes: u64) -> String {
    match bytes {
        b if b >= 10 << 30 => format!("{:.1} GiB", b as f64 / f64::from(1 << 30)),
        b if b >= 1 << 20 => format!("{:.1} MiB", b as f64 / f64::from(1 << 20)),
        b if b >= 1 << 10 => format!("{:.1} KiB", b as f64 / 1024.0),
        b => format!("{b} bytes"),
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
