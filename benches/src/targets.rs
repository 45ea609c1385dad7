//! What was to be reached, and whether it was.

use serde::Serialize;

use crate::{
    capacity::Capacity,
    cells::Size,
    processes::{Mix, Pair},
    report::Figures,
    syscalls::Calls,
    trips::Trips,
};

/// From this many items on a cell counts as large: it does not fit any processor's cache.
const LARGE: u64 = 4_000_000;
/// Up to this many items it counts as small.
const SMALL: u64 = 10_000;

/// Which side of the limit is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// The figure must not be above the limit.
    AtMost,
    /// The figure must be below the limit.
    Below,
    /// The figure must not be below the limit.
    AtLeast,
}

/// One target.
#[derive(Clone, Debug, Serialize)]
pub struct Target {
    /// What is compared.
    pub what: String,
    /// The figure.
    pub figure: f64,
    /// Its limit.
    pub limit: f64,
    /// On which side of it the figure must be.
    pub side: Side,
    /// Whether it is.
    pub reached: bool,
}

impl Target {
    fn new(what: String, figure: f64, side: Side, limit: f64) -> Self {
        let reached = match side {
            Side::AtMost => figure <= limit,
            Side::Below => figure < limit,
            Side::AtLeast => figure >= limit,
        };
        Self { what, figure, limit, side, reached }
    }
}

/// All targets that the figures allow to judge.
pub fn judge(figures: &Figures) -> Vec<Target> {
    let mut targets = Vec::new();
    for size in &figures.sizes {
        of_size(size, &mut targets);
    }
    if let Some(trips) = &figures.trips {
        of_trips(trips, &mut targets);
    }
    targets.extend(figures.capacity.iter().map(of_capacity));
    targets.extend(figures.processes.iter().map(of_pair));
    if !figures.syscalls.is_empty() {
        targets.push(of_calls(&figures.syscalls));
    }
    targets
}

fn of_size(size: &Size, targets: &mut Vec<Target>) {
    let items = crate::text::count(size.items);
    let plib = |operation| size.cell(operation).map(|cell| cell.plib.median);
    let quick = |operation| size.cell(operation).and_then(|cell| cell.quick_cache.as_ref()).map(|it| it.median);
    let mut against = |what: String, figure: Option<f64>, peer: Option<f64>, side, limit| {
        if let (Some(figure), Some(peer)) = (figure, peer) {
            targets.push(Target::new(what, figure / peer, side, limit));
        }
    };
    let large = size.items >= LARGE;
    if large || size.items <= SMALL {
        let limit = if large { 0.5 } else { 1.0 };
        against(format!("{items}: get / quick_cache get"), plib("get"), quick("get"), Side::AtMost, limit);
    }
    if large {
        let what = format!("{items}: 16-key batch, per key / quick_cache get");
        against(what, plib("batch"), quick("batch"), Side::AtMost, 0.2);
    }
    against(format!("{items}: set / quick_cache insert"), plib("set"), quick("set"), Side::AtMost, 1.0);
    against(format!("{items}: delete / set"), plib("delete"), plib("set"), Side::Below, 1.0);
    against(format!("{items}: incr / set"), plib("incr"), plib("set"), Side::Below, 1.0);
}

/// memcached's median trip over plib's mean: the harder way to compare.
fn of_trips(trips: &Trips, targets: &mut Vec<Target>) {
    for trip in &trips.trips {
        let what = format!("memcached over unix socket / plib: {}", trip.operation);
        targets.push(Target::new(what, trip.unix.p50 / trip.plib.mean, Side::AtLeast, 50.0));
    }
}

fn of_capacity(capacity: &Capacity) -> Target {
    let what = format!("items held / memcached's, {}-byte values", capacity.value);
    let ratio = capacity.plib.items as f64 / capacity.memcached.items as f64;
    Target::new(what, ratio, Side::AtLeast, 1.0)
}

fn of_pair(pair: &Pair) -> Target {
    let keys = if pair.overlapping { "overlapping" } else { "disjoint" };
    let (mix, limit) = match pair.mix {
        Mix::Reads => ("reads", 1.8),
        Mix::Half => ("50/50", 1.6),
    };
    Target::new(format!("two processes / one: {mix}, {keys} keys"), pair.ratio, Side::AtLeast, limit)
}

fn of_calls(calls: &[Calls]) -> Target {
    let total: u64 = calls.iter().map(|calls| calls.system_calls).sum();
    let operations: u64 = calls.iter().map(|calls| calls.operations).sum();
    let what = format!("system calls in {} operations", crate::text::count(operations));
    Target::new(what, total as f64, Side::AtMost, 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_reached_on_its_side_of_the_limit() {
        let reached = |figure, side| Target::new(String::new(), figure, side, 1.0).reached;
        assert!(reached(1.0, Side::AtMost) && !reached(1.1, Side::AtMost));
        assert!(!reached(1.0, Side::Below) && reached(0.9, Side::Below));
        assert!(reached(1.0, Side::AtLeast) && !reached(0.9, Side::AtLeast));
    }
}
