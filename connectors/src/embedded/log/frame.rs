//! The bytes of one record in a segment. All numbers are little endian.
//!
//! | bytes | field |
//! |---|---|
//! | 4 | length: how many bytes follow the checksum, 20 + key + payload |
//! | 4 | CRC-32 (IEEE) of those bytes |
//! | 8 | offset |
//! | 8 | append time, ms since the epoch |
//! | 4 | key length, `u32::MAX` = no key |
//! | … | key |
//! | … | payload |
//!
//! A run of zeros, which a file system may leave at the end of a file after a power cut, is no frame: its length is too small.

/// The length field, bytes.
pub const LENGTH_BYTES: usize = 4;

/// What lies before key and payload, bytes.
pub const HEADER_BYTES: usize = 28;

/// Length and checksum, bytes: what the checksum does not cover.
const ENVELOPE_BYTES: usize = 8;

/// The greatest sum of a record's key and payload, bytes. Well over what is counted (1 MiB), so that an oversize
/// record reaches its dead letter, and small enough for a damaged length to be noticed before it is read.
pub const RECORD_BYTES_MAX: usize = 32 << 20;

const NO_KEY: u32 = u32::MAX;

/// One record, borrowed from its frame.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub offset: u64,
    pub append_ms: u64,
    pub key: Option<&'a [u8]>,
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// Appends the frame's bytes. Key and payload are at most [`RECORD_BYTES_MAX`].
    pub fn encode(&self, into: &mut Vec<u8>) {
        let key = self.key.unwrap_or_default();
        let length = HEADER_BYTES - ENVELOPE_BYTES + key.len() + self.payload.len();
        let start = into.len();
        into.reserve(ENVELOPE_BYTES + length);
        into.extend_from_slice(&(length as u32).to_le_bytes());
        into.extend_from_slice(&[0; 4]);
        into.extend_from_slice(&self.offset.to_le_bytes());
        into.extend_from_slice(&self.append_ms.to_le_bytes());
        into.extend_from_slice(&self.key.map_or(NO_KEY, |key| key.len() as u32).to_le_bytes());
        into.extend_from_slice(key);
        into.extend_from_slice(self.payload);
        let checksum = crc32fast::hash(&into[start + ENVELOPE_BYTES..]);
        into[start + LENGTH_BYTES..start + ENVELOPE_BYTES].copy_from_slice(&checksum.to_le_bytes());
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The size of the frame that starts here, by its length field; `None` where no frame has such a length.
pub fn size(bytes: &[u8]) -> Option<usize> {
    let size = ENVELOPE_BYTES + u32_at(bytes, 0)? as usize;
    (HEADER_BYTES..=HEADER_BYTES + RECORD_BYTES_MAX).contains(&size).then_some(size)
}

/// Reads the frame that is exactly these bytes; `None` where they are not what was once encoded.
pub fn decode(bytes: &[u8]) -> Option<Frame<'_>> {
    let covered = bytes.get(ENVELOPE_BYTES..)?;
    if crc32fast::hash(covered) != u32_at(bytes, LENGTH_BYTES)? {
        return None;
    }
    let body = bytes.get(HEADER_BYTES..)?;
    let (key, payload) = match u32_at(bytes, 24)? {
        NO_KEY => (None, body),
        key_bytes => {
            let (key, payload) = body.split_at_checked(key_bytes as usize)?;
            (Some(key), payload)
        }
    };
    Some(Frame { offset: u64_at(bytes, 8)?, append_ms: u64_at(bytes, 16)?, key, payload })
}

/// Whether a whole frame with an offset greater than `offset` starts anywhere in these bytes.
///
/// Tries every byte, but the checksum only where length and offset could be those of a frame.
pub fn any_behind(bytes: &[u8], offset: u64) -> bool {
    // Each frame takes a header at the least, so no more than these can follow.
    let greatest = offset.saturating_add((bytes.len() / HEADER_BYTES) as u64);
    (0..bytes.len()).any(|start| {
        let rest = &bytes[start..];
        let plausible = u64_at(rest, 8).is_some_and(|found| offset < found && found <= greatest);
        plausible && size(rest).and_then(|size| rest.get(..size)).and_then(decode).is_some()
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn encoded(frame: &Frame<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        bytes
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let bytes = encoded(&Frame { offset: 7, append_ms: 9, key: Some(b"k"), payload: b"pp" });
        let mut expected = vec![23, 0, 0, 0];
        expected.extend(crc32fast::hash(&bytes[8..]).to_le_bytes());
        expected.extend([7, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
        expected.extend(b"kpp");
        assert_eq!(bytes, expected);
    }

    #[test]
    fn no_key_is_not_an_empty_key() {
        for key in [None, Some(&b""[..]), Some(&b"key"[..])] {
            let frame = Frame { offset: u64::MAX, append_ms: u64::MAX, key, payload: b"" };
            let bytes = encoded(&frame);
            assert_eq!(size(&bytes), Some(bytes.len()));
            assert_eq!(decode(&bytes), Some(frame));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = encoded(&Frame { offset: 1, append_ms: 2, key: Some(b"key"), payload: b"payload" });
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let whole = size(&flipped).and_then(|size| flipped.get(..size));
            assert_eq!(whole.and_then(decode), None, "bit {bit}");
        }
        for end in 0..bytes.len() {
            assert_eq!(decode(&bytes[..end]), None, "cut at {end}");
        }
        assert_eq!(size(&[0; 64]), None);
    }

    #[test]
    fn a_frame_behind_garbage_is_found_by_its_greater_offset() {
        let mut bytes = vec![0xa5; 37];
        Frame { offset: 6, append_ms: 0, key: None, payload: b"x" }.encode(&mut bytes);
        assert!(any_behind(&bytes, 5));
        assert!(!any_behind(&bytes, 6));
        assert!(!any_behind(&bytes[..bytes.len() - 1], 5));
    }
}
