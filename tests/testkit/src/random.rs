//! Random numbers from a printed seed, so that a run can be repeated.

/// splitmix64: small, and sufficient to choose times and cases.
pub struct Random(u64);

impl Random {
    /// Seeds from `SESSIOND_TEST_SEED`; else always alike in the short form, which is to say whether a change
    /// broke something, and from the clock in the long one, which is to find new faults.
    pub fn of_campaign(what: &str) -> Self {
        let named = std::env::var_os("SESSIOND_TEST_SEED").is_some();
        let long = std::env::var_os("SESSIOND_TEST_LONG").is_some();
        if named || long { Self::from_clock(what) } else { Self(what.len() as u64) }
    }

    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Seeds from `SESSIOND_TEST_SEED`, or else from the clock, and says which seed it is.
    pub fn from_clock(what: &str) -> Self {
        let seed = std::env::var("SESSIOND_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64)
        });
        println!("{what}: SESSIOND_TEST_SEED={seed}");
        Self::new(seed)
    }

    /// Another source of its own, for another thread.
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }

    #[allow(clippy::should_implement_trait, reason = "it has no end")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform over `0..limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}
