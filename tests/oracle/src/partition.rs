//! Which partition a generated line goes to: by its video, so that all copies of an id stay in one partition.

/// FNV-1a (64 bits) of the video id, modulo the number of partitions.
pub fn partition_of(video_id: &str, partitions: usize) -> usize {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let hash = video_id.bytes().fold(0xcbf2_9ce4_8422_2325, step);
    usize::try_from(hash % partitions as u64).expect("a remainder is less than a usize")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_vectors_hold() {
        // draft-eastlake-fnv: "" is cbf29ce484222325 and "foobar" is 85944171f73967e8.
        let modulus = 1 << 32;
        assert_eq!(partition_of("", modulus), 0x8422_2325);
        assert_eq!(partition_of("foobar", modulus), 0xf739_67e8);
    }
}
