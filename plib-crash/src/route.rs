//! The way of an operation, instruction by instruction, and how to come to its n-th without taking every step.
//!
//! A single step costs a few microseconds on a real machine and some tens on a virtual one; an operation of n instructions
//! that is killed after each of them would take n * n / 2. Children of one parent that start from the same heap take the
//! same way. So it is recorded once, and the later ones *hop*: from instruction i a breakpoint leads straight to j if the
//! address of j does not come between. A loop costs two hops a round, and one that was left costs nothing. Where a child
//! is found elsewhere than the record says, it is stepped from the start.

use crate::tracee::{Tracee, Trouble, end};
use std::collections::HashMap;

/// The addresses of an operation's instructions, in order, and for each the one to come from.
pub struct Route {
    at: Vec<u64>,
    from: Vec<u32>,
}

/// What a step costs in hops: it is the slower kind of stop on a virtual machine.
const STEP: u32 = 2;
/// An operation that takes longer is not ended by this harness's patience.
const LONGEST: usize = 20_000_000;
const VDSO_LEN: u64 = 0x4000;

impl Route {
    /// Steps a child that stands at its operation to the operation's end.
    pub fn record(child: &mut Tracee) -> Result<Self, Trouble> {
        let mut at = Vec::new();
        let last = end as *const () as u64;
        loop {
            let address = child.at()?;
            at.push(address);
            if address == last {
                let from = ways(&at);
                return Ok(Self { at, from });
            }
            if at.len() > LONGEST {
                let found = format!("still inside after {LONGEST} instructions");
                return Err(Trouble::Unexpected { wanted: "end its operation", found });
            }
            child.step()?;
        }
    }

    /// How many instructions it has.
    pub fn len(&self) -> usize {
        self.at.len() - 1
    }

    /// Whether the instruction number `n` repeats the one before it: a round of a string instruction, which copies.
    pub fn is_round(&self, n: usize) -> bool {
        n > 0 && self.at[n] == self.at[n - 1]
    }

    /// Takes a child that stands at the operation's start to where it has done `n` instructions. False if it is found
    /// elsewhere.
    pub fn follow(&self, child: &mut Tracee, n: usize) -> Result<bool, Trouble> {
        let mut stops = vec![n];
        let mut first = n;
        while first > 0 {
            first = self.from[first] as usize;
            stops.push(first);
        }
        let mut here = 0;
        for to in stops.into_iter().rev().skip(1) {
            if to == here + 1 {
                child.step()?;
            } else {
                child.run_to(self.at[to])?;
            }
            here = to;
        }
        Ok(child.at()? == self.at[n])
    }
}

impl Route {
    /// The same step by step, wherever that leads.
    pub fn walk(&self, child: &mut Tracee, n: usize) -> Result<bool, Trouble> {
        child.walk(n).map(|()| true)
    }
}

/// For each instruction the cheapest one to come from: the one before it by a step, or by a breakpoint any since its
/// address came last.
fn ways(at: &[u64]) -> Vec<u32> {
    // SAFETY: reads the auxiliary vector. The kernel's own page takes no breakpoints.
    let vdso = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) };
    let mut from = vec![0u32; at.len()];
    let mut cost = vec![0u32; at.len()];
    let mut came: HashMap<u64, usize> = HashMap::new();
    // Candidates to come from: later ones are kept only as long as they are cheaper than all after them.
    let mut cheap: Vec<usize> = Vec::new();
    for j in 0..at.len() {
        let last = came.insert(at[j], j);
        if j > 0 {
            (from[j], cost[j]) = (j as u32 - 1, cost[j - 1] + STEP);
            let earliest = last.map_or(0, |i| i + 1);
            // A breakpoint stops a string instruction before its first round only.
            let stops = at[j].wrapping_sub(vdso) >= VDSO_LEN && at[j] != at[j - 1];
            let best = cheap.get(cheap.partition_point(|i| *i < earliest)).filter(|_| stops);
            if let Some(i) = best.filter(|i| cost[**i] + 1 < cost[j]) {
                (from[j], cost[j]) = (*i as u32, cost[*i] + 1);
            }
        }
        while cheap.last().is_some_and(|i| cost[*i] > cost[j]) {
            cheap.pop();
        }
        cheap.push(j);
    }
    from
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_never_passes_the_address_it_goes_to() {
        // A loop of three instructions, seven rounds of it, between others; a string instruction of four rounds.
        let mut at = vec![1, 2, 3];
        (0..7).for_each(|_| at.extend([10, 11, 12]));
        at.extend([4, 20, 20, 20, 20, 5]);
        let from = ways(&at);
        for j in 1..at.len() {
            let i = from[j] as usize;
            assert!(i < j && (i + 1 == j || at[i..j].iter().all(|a| *a != at[j])), "{j} from {i}");
        }
        // The last one has a way of its own, past the loop.
        assert_eq!(from[at.len() - 1], 0);
    }
}
