//! How long calls take.

use std::{collections::BTreeMap, time::Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Calls by operation.
#[derive(Default)]
pub struct Latencies(BTreeMap<&'static str, Histogram<u64>>);

impl Latencies {
    /// Calls, and remembers how long it took.
    pub fn time<T>(&mut self, operation: &'static str, call: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let outcome = call();
        let nanoseconds = start.elapsed().as_nanos() as u64;
        let histogram = self.0.entry(operation).or_insert_with(|| {
            // A nanosecond to a minute, three digits.
            Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are in order")
        });
        histogram.saturating_record(nanoseconds.max(1));
        outcome
    }

    /// What is reported of them.
    pub fn summary(&self) -> BTreeMap<String, Latency> {
        self.0.iter().map(|(&name, histogram)| (name.to_owned(), Latency::of(histogram))).collect()
    }
}

/// The calls of one operation, in nanoseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Latency {
    pub calls: u64,
    pub mean: f64,
    pub p50: u64,
    pub p99: u64,
    pub max: u64,
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            calls: histogram.len(),
            mean: histogram.mean(),
            p50: histogram.value_at_quantile(0.5),
            p99: histogram.value_at_quantile(0.99),
            max: histogram.max(),
        }
    }
}
