//! Random numbers from the system's generator.

/// A uniformly random number.
pub fn random() -> u64 {
    // A UUID of version 4 has six fixed bits, three in each half and at different places.
    let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
    high ^ low.rotate_left(32)
}
