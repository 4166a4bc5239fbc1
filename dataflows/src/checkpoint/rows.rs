//! The codec of fixed-size checkpoint rows: abomonation, which copies their memory as it is.
//!
//! abomonation is unsound on foreign bytes (RUSTSEC-2021-0120), so it serves here alone, for plain rows without pointers
//! or padding, and decodes only what [`super::frame`] has verified to be the bytes that we wrote. The rows are
//! little-endian in memory, as the format wants; another machine does not build this.
#![allow(unsafe_code)]

use abomonation::Abomonation;

#[cfg(not(target_endian = "little"))]
compile_error!("checkpoint rows are little-endian in memory");

/// A remembered identity: id 16, minute 4, zero 4 bytes.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct IdRow {
    /// The identity.
    pub id: [u64; 2],
    /// Its window.
    pub minute: u32,
    /// Fills the row up.
    pub zero: u32,
}

/// A cell: count 8, series (its place among the group's names) 4, minute 4, unwritten (0 or 1) 4, zero 4 bytes.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct CellRow {
    /// How many events.
    pub count: u64,
    /// Which of the group's names.
    pub series: u32,
    /// Which window.
    pub minute: u32,
    /// 1 where the sink may not hold this yet.
    pub unwritten: u32,
    /// Fills the row up.
    pub zero: u32,
}

/// A row that is nothing but its bytes.
///
/// # Safety
///
/// The type is `repr(C)`, holds only integers, has no padding and an alignment of 8; every bit pattern is a value.
pub unsafe trait FixedRow: Abomonation + Copy {}

impl Abomonation for IdRow {}
impl Abomonation for CellRow {}

// SAFETY: 16 + 4 + 4 bytes of integers at an alignment of 8: no padding, any bits are a value.
unsafe impl FixedRow for IdRow {}
// SAFETY: 8 + 4 × 4 bytes of integers at an alignment of 8: no padding, any bits are a value.
unsafe impl FixedRow for CellRow {}

/// Appends the rows' bytes.
pub fn encode<R: FixedRow>(rows: impl Iterator<Item = R>, into: &mut Vec<u8>) {
    for row in rows {
        // SAFETY: `FixedRow` has no padding, so every byte that is copied is initialised; no pointer is followed.
        unsafe { abomonation::encode(&row, into) }.expect("memory takes what is written to it");
    }
}

/// Reads rows back from bytes whose checksum was verified; `None` unless they are whole rows.
pub fn decode<R: FixedRow>(bytes: &[u8]) -> Option<Vec<R>> {
    if !bytes.len().is_multiple_of(size_of::<R>()) {
        return None;
    }
    // abomonation gives references into the buffer: it must be aligned as the rows are.
    let mut aligned = vec![0_u64; bytes.len() / 8];
    // SAFETY: the buffer's bytes are initialised and its own; as many are viewed as it holds.
    let mut rest: &mut [u8] = unsafe { std::slice::from_raw_parts_mut(aligned.as_mut_ptr().cast(), bytes.len()) };
    rest.copy_from_slice(bytes);
    let mut rows = Vec::with_capacity(bytes.len() / size_of::<R>());
    while !rest.is_empty() {
        // SAFETY: `FixedRow` takes any bits as a value and follows no pointer; the buffer is aligned to 8, as is each
        // row in it, since their size is a multiple of 8; the length was checked to hold a whole row.
        let (row, behind) = unsafe { abomonation::decode::<R>(rest) }?;
        rows.push(*row);
        rest = behind;
    }
    Some(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The safe twin: what the format says, byte by byte.
    fn plain_ids(rows: &[IdRow]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for row in rows {
            bytes.extend(row.id[0].to_le_bytes());
            bytes.extend(row.id[1].to_le_bytes());
            bytes.extend(row.minute.to_le_bytes());
            bytes.extend(row.zero.to_le_bytes());
        }
        bytes
    }

    fn plain_cells(rows: &[CellRow]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for row in rows {
            bytes.extend(row.count.to_le_bytes());
            for word in [row.series, row.minute, row.unwritten, row.zero] {
                bytes.extend(word.to_le_bytes());
            }
        }
        bytes
    }

    proptest::proptest! {
        #[test]
        fn rows_are_stored_as_the_safe_twin_stores_them(ids in proptest::collection::vec((0..=u64::MAX, 0..=u64::MAX, 0..=u32::MAX), 0..40)) {
            let ids: Vec<IdRow> = ids.iter().map(|(a, b, minute)| IdRow { id: [*a, *b], minute: *minute, zero: 0 }).collect();
            let cells: Vec<CellRow> = ids
                .iter()
                .map(|row| CellRow { count: row.id[0], series: row.id[1] as u32, minute: row.minute, unwritten: row.minute % 2, zero: 0 })
                .collect();
            let mut bytes = Vec::new();
            encode(ids.iter().copied(), &mut bytes);
            proptest::prop_assert_eq!(&bytes, &plain_ids(&ids));
            proptest::prop_assert_eq!(decode::<IdRow>(&bytes), Some(ids));
            // At any alignment of the input:
            let mut bytes = vec![7];
            encode(cells.iter().copied(), &mut bytes);
            proptest::prop_assert_eq!(&bytes[1..], &plain_cells(&cells)[..]);
            proptest::prop_assert_eq!(decode::<CellRow>(&bytes[1..]), Some(cells));
        }
    }

    #[test]
    fn half_a_row_is_refused() {
        assert_eq!(decode::<IdRow>(&[0; 23]), None);
        assert_eq!(decode::<IdRow>(&[0; 48]).map(|rows| rows.len()), Some(2));
    }
}
