//! Visits every item once in an order that no prefetcher knows, without a table.

/// An endless walk over the items `first .. first + count`; each pass visits every item exactly once.
#[derive(Clone, Debug)]
pub struct Order {
    first: u64,
    count: u64,
    mask: u64,
    shift: u32,
    counter: u64,
    seed: u64,
}

impl Order {
    /// A walk over `count` items that starts at `first`; other seeds give other orders.
    pub fn new(first: u64, count: u64, seed: u64) -> Self {
        assert!(count > 0, "an order needs at least one item");
        let mask = count.next_power_of_two().max(16) - 1;
        let shift = mask.count_ones() / 2;
        let seed = crate::key::mix(seed) & mask;
        Self { first, count, mask, shift, counter: 0, seed }
    }

    /// The next item. Steps of a bijection on the next power of two; numbers past the last item are skipped.
    #[inline]
    pub fn next_item(&mut self) -> u64 {
        loop {
            let mut x = self.counter ^ self.seed;
            self.counter = (self.counter + 1) & self.mask;
            x = (x ^ (x >> self.shift)).wrapping_mul(0x9e37_79b9_7f4a_7c15) & self.mask;
            x = (x ^ (x >> self.shift)).wrapping_mul(0xbf58_476d_1ce4_e5b9) & self.mask;
            x ^= x >> self.shift;
            if x < self.count {
                return self.first + x;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_visits_every_item_once() {
        for count in [1, 16, 17, 1000, 4096, 10_007] {
            let mut order = Order::new(5, count, 3);
            let mut seen: Vec<u64> = (0..count).map(|_| order.next_item()).collect();
            seen.sort_unstable();
            assert_eq!(seen, (5..5 + count).collect::<Vec<_>>());
        }
    }
}
