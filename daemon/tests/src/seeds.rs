//! Histories that a seed draws, so that one which failed can be played again.

/// The seeds to try: so many, or as many as `ZONE_SEEDS` says, or the one that `ZONE_SEED` names.
pub fn seeds(usually: u64) -> std::ops::Range<u64> {
    let variable = |name| std::env::var(name).ok().and_then(|text: String| text.parse::<u64>().ok());
    match variable("ZONE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..variable("ZONE_SEEDS").unwrap_or(usually),
    }
}

/// Numbers that a seed makes (SplitMix64).
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// The same numbers for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below this one.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).expect("below a usize")
    }

    /// Whether it comes up, once in so many times.
    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}
