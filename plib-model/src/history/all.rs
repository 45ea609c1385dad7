//! All keys of a heap: what no single key's history shows.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::event::{Answer, Event};
use super::search::{Explained, Rules, Unexplained, explain};

/// How the histories of a heap were explained.
#[derive(Clone, Copy, Default, Debug)]
pub struct Report {
    /// How many.
    pub histories: usize,
    /// The sums over all of them; of `configurations` the most.
    pub sum: Explained,
    /// Operations of the longest.
    pub longest: usize,
    /// Operations that began while another one on the key was open.
    pub overlaps: usize,
    /// How long the search took.
    pub took: Duration,
}

/// Explains the histories of all keys, by name, from an empty heap on. `evictions` is how many items the heap says that it
/// evicted at most; none if it had room for all.
pub fn explain_all(histories: &[(String, Vec<Event>)], evictions: u64) -> Result<Report, Unexplained> {
    let begin = Instant::now();
    let rules = Rules { start: None, evictions: evictions > 0, told: told(histories)? };
    seen_once(histories)?;
    let mut report = Report { histories: histories.len(), ..Report::default() };
    for (name, events) in histories {
        let explained = explain(events, &rules).map_err(|e| Unexplained(format!("key {name}: {e}")))?;
        let sum = &mut report.sum;
        sum.events += explained.events;
        sum.evictions += explained.evictions;
        sum.happened += explained.happened;
        sum.not_happened += explained.not_happened;
        sum.unseen += explained.unseen;
        sum.configurations = sum.configurations.max(explained.configurations);
        report.longest = report.longest.max(explained.events);
        report.overlaps += overlaps(events);
    }
    if report.sum.evictions > evictions {
        let text = format!("{} items vanished, but the heap evicted only {evictions}", report.sum.evictions);
        return Err(Unexplained(text));
    }
    report.took = begin.elapsed();
    Ok(report)
}

/// Every cas that a store was answered; an error if two were answered the same.
fn told(histories: &[(String, Vec<Event>)]) -> Result<HashSet<u64>, Unexplained> {
    let mut told = HashMap::new();
    for (name, event) in histories.iter().flat_map(|(name, events)| events.iter().map(move |event| (name, event))) {
        let Answer::Stored(cas) = event.answer else { continue };
        if cas != 0
            && let Some((other, before)) = told.insert(cas, (name, event))
        {
            let text = format!("cas {cas} was given twice: to key {other}: {before:?}\n and to key {name}: {event:?}");
            return Err(Unexplained(text));
        }
    }
    Ok(told.into_keys().collect())
}

/// One cas is one value of one key, whoever sees it.
fn seen_once(histories: &[(String, Vec<Event>)]) -> Result<(), Unexplained> {
    let mut seen = HashMap::new();
    for (name, event) in histories.iter().flat_map(|(name, events)| events.iter().map(move |event| (name, event))) {
        let Answer::Found(item) = event.answer else { continue };
        let (other, first) = *seen.entry(item.cas).or_insert((name, item));
        if (other, first.content, first.flags) != (name, item.content, item.flags) {
            let text = format!(
                "cas {} stands for two items: {first:?} of key {other}\n and, {event:?} of key {name}",
                item.cas
            );
            return Err(Unexplained(text));
        }
    }
    Ok(())
}

fn overlaps(events: &[Event]) -> usize {
    let mut times: Vec<_> = events.iter().map(|event| (event.start, event.end)).collect();
    times.sort_unstable();
    let mut last_end = 0;
    let began_early = |&&(start, end): &&(u64, u64)| {
        let early = start < last_end;
        last_end = last_end.max(end);
        early
    };
    times.iter().filter(began_early).count()
}
