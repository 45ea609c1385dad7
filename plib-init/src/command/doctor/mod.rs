//! `plib doctor`: what this machine offers, and what to change.

mod launcher;
pub(super) mod limits;
mod machine;
mod place;
mod trial;

use std::io::{self, Write};

use clap::Args;
use plib::ProtectionKeys;
use serde::Serialize;

use crate::context::Context;
use crate::error::{CliError, ExitKind};
use crate::output::Paint;
use crate::run::caller::Caller;

const EXAMPLES: &str = "\
Examples:
  plib doctor
  plib doctor --json | jq .isolation
  PLIB_DIR=/mnt/huge plib doctor

Exit code 0: plib works here (notes may say what would be better); 1: something stands in its way.";

/// The arguments of `plib doctor`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DoctorArgs {}

/// How much one finding matters.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Debug)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// plib works, and could do better.
    Note,
    /// plib does not work.
    Problem,
}

/// What was looked at and found.
#[derive(Serialize, Debug)]
pub(super) struct Check {
    what: &'static str,
    level: Level,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
}

impl Check {
    pub(super) fn ok(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, level: Level::Ok, found: found.into(), advice: None, command: None }
    }

    pub(super) fn note(what: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Note, advice: Some(advice.into()), ..Self::ok(what, found) }
    }

    pub(super) fn problem(what: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Problem, ..Self::note(what, found, advice) }
    }

    /// Adds the command that follows the advice.
    pub(super) fn fix(mut self, command: impl Into<String>) -> Self {
        self.command = Some(command.into());
        self
    }
}

/// One tier of isolation, and what this machine says of it.
#[derive(Serialize)]
struct Tier {
    tier: &'static str,
    machine: bool,
    release: bool,
    why: String,
}

#[derive(Serialize)]
struct Diagnosis {
    isolation: &'static str,
    works: bool,
    protection_keys: &'static str,
    tiers: Vec<Tier>,
    checks: Vec<Check>,
}

impl Diagnosis {
    fn new(caller: &Caller) -> Self {
        let mut checks = machine::checks();
        checks.push(launcher::check(caller));
        checks.extend(place::checks());
        checks.extend(limits::checks());
        let works = checks.iter().all(|c| c.level != Level::Problem);
        let keys = ProtectionKeys::detect();
        let protection_keys = match keys {
            ProtectionKeys::On(_) => "on",
            ProtectionKeys::Off => "off",
            ProtectionKeys::Absent => "absent",
        };
        let tiers = tiers(keys, machine::kernel_version(), machine::sealing().is_ok());
        // What opening a heap gives here when nobody asks for more or less.
        let isolation = if keys.on().is_some() { "guarded" } else { "none" };
        Self { isolation, works, protection_keys, tiers, checks }
    }
}

/// The isolation tiers (docs/design.md), what of each this machine would allow, and what is missing.
fn tiers(keys: ProtectionKeys, kernel: (u32, u32), sealing: bool) -> Vec<Tier> {
    let (major, minor) = machine::KERNEL_SEALED;
    let no_keys = (keys.on().is_none()).then(|| machine::describe(keys).to_owned());
    let old = (kernel < machine::KERNEL_SEALED).then(|| format!("needs Linux {major}.{minor} or newer"));
    let unsealed = (!sealing).then(|| "needs mseal(2)".to_owned());
    let tier = |tier, release, missing: Option<String>, else_why: &str| Tier {
        tier,
        machine: missing.is_none(),
        release,
        why: missing.unwrap_or_else(|| else_why.into()),
    };
    vec![
        Tier { tier: "none", machine: true, release: true, why: "programs that share a heap trust each other".into() },
        tier("guarded", true, no_keys.clone(), "what every program gets, but where PLIB_ISOLATION=none"),
        tier("sealed", false, no_keys.or(old).or(unsealed), "the machine could; this release cannot yet"),
    ]
}

/// Looks at everything and shows it.
pub(crate) fn run(context: &Context, _: &DoctorArgs, caller: &Caller) -> Result<ExitKind, CliError> {
    let diagnosis = Diagnosis::new(caller);
    context.output.answer(&diagnosis, |w, paint| write(w, paint, &diagnosis))?;
    Ok(if diagnosis.works { ExitKind::Done } else { ExitKind::No })
}

fn write(w: &mut dyn Write, paint: Paint, diagnosis: &Diagnosis) -> io::Result<()> {
    let width = diagnosis.checks.iter().map(|c| c.what.len()).max().unwrap_or(0);
    for check in &diagnosis.checks {
        let mark = match check.level {
            Level::Ok => paint.good("ok     "),
            Level::Note => paint.note("note   "),
            Level::Problem => paint.bad("PROBLEM"),
        };
        writeln!(w, "{mark}  {:<width$}  {}", check.what, check.found)?;
        if let Some(advice) = &check.advice {
            writeln!(w, "         {:<width$}  {advice}", "")?;
        }
        if let Some(command) = &check.command {
            writeln!(w, "         {:<width$}  $ {}", "", paint.bold(command))?;
        }
    }
    writeln!(w)?;
    for tier in &diagnosis.tiers {
        let had = tier.machine && tier.release;
        let mark = if had { paint.good("yes") } else { "no ".into() };
        writeln!(w, "isolation {:<8} {mark}  {}", tier.tier, tier.why)?;
    }
    let verdict = if diagnosis.works { paint.good("plib works here") } else { paint.bad("plib does not work here") };
    writeln!(w, "\n{verdict}; programs get isolation '{}' here", diagnosis.isolation)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(keys: ProtectionKeys, kernel: (u32, u32), sealing: bool) -> Vec<(bool, bool)> {
        tiers(keys, kernel, sealing).iter().map(|t| (t.machine, t.release)).collect()
    }

    #[test]
    fn without_keys_only_none_can_be_had() {
        for keys in [ProtectionKeys::Absent, ProtectionKeys::Off] {
            assert_eq!(allowed(keys, (6, 12), true), [(true, true), (false, true), (false, false)]);
            assert!(tiers(keys, (6, 12), true)[2].why.contains("PKU"));
        }
    }
}
