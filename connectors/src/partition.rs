//! Which partition a key belongs to, as Kafka's default partitioner decides it.
//!
//! Producers of any client then agree with the embedded log on where a video's events go. The hash is Kafka's
//! `Utils.murmur2`: MurmurHash2 by Austin Appleby, 32 bits, with the seed 0x9747b28c.

const SEED: u32 = 0x9747_b28c;
const MULTIPLIER: u32 = 0x5bd1_e995;

/// Kafka's `Utils.murmur2`.
pub fn murmur2(key: &[u8]) -> i32 {
    // Kafka hashes int lengths; a key of 4 GiB does not exist, so the cut is never seen.
    let mut hash = SEED ^ key.len() as u32;
    let (words, rest) = key.as_chunks::<4>();
    for word in words {
        let mut mixed = u32::from_le_bytes(*word).wrapping_mul(MULTIPLIER);
        mixed ^= mixed >> 24;
        hash = hash.wrapping_mul(MULTIPLIER) ^ mixed.wrapping_mul(MULTIPLIER);
    }
    if !rest.is_empty() {
        for (place, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * place);
        }
        hash = hash.wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    hash ^= hash >> 15;
    hash.cast_signed()
}

/// The partition of a key, out of `partitions`, which is not 0.
pub fn partition_of(key: &[u8], partitions: u32) -> u32 {
    assert!(0 < partitions, "a log has a partition");
    (murmur2(key) & i32::MAX).cast_unsigned() % partitions
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of Kafka's `UtilsTest.testMurmur2`.
    const KAFKA: [(&str, i32); 6] = [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ("abc", 479_470_107),
    ];

    #[test]
    fn the_hash_is_the_one_that_kafka_tests_for() {
        for (key, hash) in KAFKA {
            assert_eq!(murmur2(key.as_bytes()), hash, "{key}");
        }
    }

    #[test]
    fn a_negative_hash_loses_its_sign_before_the_division() {
        // -973932308 & 0x7fffffff = 1173551340
        assert_eq!(partition_of(b"21", 7), 1_173_551_340 % 7);
        assert_eq!(partition_of(b"abc", 7), 479_470_107 % 7);
        assert_eq!(partition_of(b"", 1), 0);
    }
}
