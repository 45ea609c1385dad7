//! A small generator: the same seed gives the same choices, so that a failure can be run again.

/// Xorshift with a multiplier.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x2545_F491_4F6C_DD1D | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// A value size: mostly small, some up to a size class's end, a few of several fragments.
    pub fn size(&mut self, most: u64) -> usize {
        let bound = match self.below(100) {
            0..50 => 200,
            50..80 => 3_000,
            80..95 => 40_000,
            _ => 300_000,
        };
        self.below(bound.min(most) + 1) as usize
    }
}
