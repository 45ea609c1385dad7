//! Peers take turns, and the median of their rounds counts: a noisy machine then disturbs all alike.

use serde::Serialize;

use crate::failure::Result;

/// The rounds of one peer in one cell, in nanoseconds an operation.
#[derive(Clone, Debug, Serialize)]
pub struct Rounds {
    /// The middle one.
    pub median: f64,
    /// The best one.
    pub min: f64,
    /// The worst one.
    pub max: f64,
}

impl Rounds {
    /// Takes the rounds together.
    pub fn of(mut samples: Vec<f64>) -> Self {
        assert!(!samples.is_empty(), "no round was run");
        samples.sort_by(f64::total_cmp);
        let middle = samples.len() / 2;
        let median =
            if samples.len() % 2 == 1 { samples[middle] } else { f64::midpoint(samples[middle - 1], samples[middle]) };
        Self { median, min: samples[0], max: samples[samples.len() - 1] }
    }
}

/// One round of one peer; gives nanoseconds an operation.
pub type Round<'a> = Box<dyn FnMut() -> Result<f64> + 'a>;

/// Runs `rounds` rounds of every peer in turn.
pub fn interleave(rounds: usize, peers: &mut [Round<'_>]) -> Result<Vec<Rounds>> {
    let mut samples = vec![Vec::with_capacity(rounds); peers.len()];
    for _ in 0..rounds {
        for (peer, samples) in peers.iter_mut().zip(&mut samples) {
            samples.push(peer()?);
        }
    }
    Ok(samples.into_iter().map(Rounds::of).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_take_turns() {
        let log = std::cell::RefCell::new(Vec::new());
        let peer = |name: char| -> Round<'_> {
            let log = &log;
            Box::new(move || {
                log.borrow_mut().push(name);
                Ok(log.borrow().len() as f64)
            })
        };
        let rounds = interleave(3, &mut [peer('a'), peer('b')]).expect("no peer fails");
        assert_eq!(log.borrow().iter().collect::<String>(), "ababab");
        assert_eq!((rounds[0].median, rounds[1].median), (3.0, 4.0));
        assert_eq!((rounds[0].min, rounds[0].max), (1.0, 5.0));
    }
}
