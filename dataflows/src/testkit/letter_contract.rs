//! What every [`LetterSink`] owes its caller.

use crate::{
    event::{Cause, Reason},
    letter::DeadLetter,
    port::{LetterSink, PartitionId, Version},
};

/// Offsets published under a generation and number.
type Publication<'a> = (u64, u64, &'a [u64]);

/// Panics unless the sinks that `open` gives, each fresh and empty, keep the contract. `published` gives the place of
/// every letter of a sink, one entry a letter, in any order.
pub fn check<S: LetterSink>(mut open: impl FnMut() -> S, published: impl Fn(&mut S) -> Vec<(PartitionId, u64)>) {
    // publications, in order | offsets that are there then
    let cases: [(&[Publication], &[u64]); 6] = [
        (&[], &[]),
        (&[(1, 1, &[])], &[]),
        (&[(1, 1, &[3, 4])], &[3, 4]),
        // A restart repeats the letters of its checkpoint.
        (&[(1, 1, &[3, 4]), (1, 1, &[3, 4])], &[3, 4]),
        (&[(1, 1, &[3, 4]), (1, 2, &[5]), (1, 2, &[5]), (2, 3, &[6])], &[3, 4, 5, 6]),
        // A version is skipped whole, whatever comes under it.
        (&[(1, 1, &[3]), (1, 1, &[3, 4])], &[3]),
    ];
    for (publications, expected) in cases {
        let mut sink = open();
        for (generation, number, offsets) in publications {
            let letters: Vec<DeadLetter> = offsets.iter().map(|offset| letter(*offset)).collect();
            let version = Version { generation: *generation, number: *number };
            sink.publish(version, &letters).expect("letters can be published");
        }
        let mut places = published(&mut sink);
        places.sort_unstable();
        let known = sink.published().expect("what is published can be read");
        assert_eq!(known, places.iter().copied().collect(), "after {publications:?}");
        let newest = publications.iter().rfind(|(.., offsets)| !offsets.is_empty());
        let newest = newest.map(|(generation, number, _)| Version { generation: *generation, number: *number });
        assert_eq!(sink.newest().expect("the newest version can be read"), newest, "after {publications:?}");
        let expected: Vec<(PartitionId, u64)> = expected.iter().map(|offset| (PartitionId(2), *offset)).collect();
        assert_eq!(places, expected, "after {publications:?}");
    }
}

/// A letter of the suite: partition 2, with what is awkward to carry.
fn letter(offset: u64) -> DeadLetter {
    DeadLetter {
        partition: PartitionId(2),
        offset,
        reason: if offset.is_multiple_of(2) { Reason::Late } else { Reason::Malformed(Cause::Utf8) },
        append_time: (offset != 3).then_some(1_767_225_600_000),
        key: (offset != 4).then(|| b"v\"1\n".to_vec()),
        headers: vec![("trace".to_owned(), Some(vec![0xfe])), ("empty".to_owned(), None)],
        payload: vec![0xff, b'{', b'\n', 0],
    }
}
