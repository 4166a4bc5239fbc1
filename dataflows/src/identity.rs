//! Who is who: the identity of an event, and the key group that owns a video.

use serde::{Deserialize, Serialize};

use crate::{event::ID_BYTES_MAX, sip};

/// How many key groups there are. Fixed for ever: checkpoints are kept by group, so that any worker count resumes.
pub const KEY_GROUPS: usize = 128;

/// The part of the key space that a video belongs to, below [`KEY_GROUPS`].
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyGroup(pub u8);

impl KeyGroup {
    /// `xxh3_64(video id, seed 0) mod 128` (XXH3 as of xxHash 0.8; a stored format: never change it).
    pub fn of(video_id: &str) -> Self {
        Self((xxhash_rust::xxh3::xxh3_64(video_id.as_bytes()) % KEY_GROUPS as u64) as u8)
    }

    /// The worker that owns the group: the one rule by which dedup, counts, index and queries are routed.
    #[inline]
    pub fn owner(self, peers: usize) -> usize {
        usize::from(self.0) % peers
    }
}

/// The secret under which a history hashes its ids, so that nobody can choose ids that collide.
#[derive(Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdKey(pub [u64; 2]);

impl std::fmt::Debug for IdKey {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("IdKey(..)")
    }
}

/// An event's identity: SipHash-2-4-128 of `(video id, event id)` under the history's [`IdKey`].
///
/// Two of a billion ids meet with a chance below 2^-68; nobody without the key can make them meet.
pub type EventKey = [u64; 2];

impl IdKey {
    /// The identity of `event_id` under `video_id`, of [`ID_BYTES_MAX`] bytes each at most. The length of the first keeps the two
    /// apart.
    pub fn identify(&self, video_id: &str, event_id: &str) -> EventKey {
        Identifier::new(*self).identify(video_id, event_id)
    }
}

/// Finds identities, one after the other in the same memory.
pub struct Identifier {
    key: IdKey,
    text: sip::Buffer,
}

impl Identifier {
    /// By this key.
    pub fn new(key: IdKey) -> Self {
        Self { key, text: [0; _] }
    }

    /// As [`IdKey::identify`].
    #[inline]
    pub fn identify(&mut self, video_id: &str, event_id: &str) -> EventKey {
        const { assert!(2 * ID_BYTES_MAX < sip::TEXT_BYTES_MAX) };
        let (video, event) = (video_id.as_bytes(), event_id.as_bytes());
        let length = 1 + video.len() + event.len();
        self.text[0] = video.len() as u8;
        self.text[1..=video.len()].copy_from_slice(video);
        self.text[1 + video.len()..length].copy_from_slice(event);
        let hash = sip::sip128(self.key.0, &mut self.text, length);
        // Nobody is the identity that stands for a vacant place.
        if hash == [0, 0] { [0, 1] } else { hash }
    }
}

/// A user in 64 bits that are not zero: `xxh3_64(user id, seed 0)` (a stored format: never change it).
///
/// Under no secret, or the same events would be estimated differently when they are counted anew.
pub fn user_hash(user_id: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(user_id.as_bytes()).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_groups_are_a_stored_format_and_stay() {
        // XXH3_64("") is 2d06800538d394c2 and XXH3_64("a") e6c632b61e964e1f by the reference; none may ever change.
        let groups: Vec<u8> = ["", "a", "v0012345", "v0000001"].iter().map(|video| KeyGroup::of(video).0).collect();
        assert_eq!(groups, GROUPS_AS_STORED);
    }
    const GROUPS_AS_STORED: [u8; 4] = [66, 31, 109, 104];

    #[test]
    fn users_are_a_stored_format_and_stay() {
        assert_eq!(["", "a"].map(user_hash), [0x2d06_8005_38d3_94c2, 0xe6c6_32b6_1e96_4e1f]);
    }

    #[test]
    fn the_same_event_id_under_two_videos_is_two_events() {
        let key = IdKey([1, 2]);
        assert_ne!(key.identify("a", "bc"), key.identify("ab", "c"));
        assert_ne!(key.identify("a", "x"), key.identify("b", "x"));
        assert_eq!(key.identify("a", "x"), key.identify("a", "x"));
        assert_ne!(key.identify("a", "x"), IdKey([1, 3]).identify("a", "x"));
    }
}
