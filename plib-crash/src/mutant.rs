//! Planted bugs: each must be found by some unit, or the harness finds nothing.

use crate::team::{self, Manner};
use crate::unit::Unit;

/// The bug (plib-core's `mutant`), the unit that must find it, and after how many-th instructions it looks.
const PLANTED: &[(&str, &str, usize)] = &[
    ("forget-new", "kill:set-new", 1),
    ("forget-old", "kill:set-same-size", 1),
    ("forget-superblock", "kill:superblock-new", 1),
    ("free-early", "kill:set-same-size", 1),
    ("flags-late", "kill:set-same-size", 1),
    ("no-scrub", "kill:delete-shrinks", 1),
    ("no-take-over", "kill:delete", 4),
    ("split-scrubs-early", "kill:split-segment", 1),
    ("recover-blindly", "kill:set-new", 1),
    ("clear-first", "recover:set-same-size:reap", 5),
    ("take-from-living", "stop:set-same-size", 20),
    ("wait-forever", "stop:set-same-size", 20),
    ("readers-lock", "stop:set-same-size", 4),
];

/// Looks for each; false if one was not found, or if something is found where nothing is planted.
pub fn hunt(manner: Manner) -> Result<bool, String> {
    if !cfg!(feature = "mutants") {
        return Err("this build has no bugs to plant: build plib-crash with --features mutants".into());
    }
    let mut missed = 0;
    println!("{:20} {:30} {:>8} {:>8}  first finding", "planted", "unit", "points", "failed");
    for (name, unit, every) in PLANTED {
        // SAFETY: this program has no other thread at this time.
        unsafe { std::env::set_var("PLIB_MUTANT", name) };
        let unit = Unit::named(unit).ok_or_else(|| format!("no unit {unit}"))?;
        let manner = Manner { every: *every, jobs: 1, firsts: 3.min(manner.firsts) };
        let reports = team::run(vec![unit], manner, |_, _| {});
        for r in reports {
            missed += u32::from(r.failed == 0);
            let first = r.failures.first().map_or("NOT FOUND", |f| f.as_str());
            println!("{name:20} {:30} {:>8} {:>8}  {first}", r.unit, r.points, r.failed);
        }
    }
    let all = PLANTED.len();
    println!("{} of {all} planted bugs were found", all - missed as usize);
    Ok(missed == 0)
}
