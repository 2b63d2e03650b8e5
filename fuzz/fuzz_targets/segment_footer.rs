//! The end of a segment, as it comes from the bucket.
//!
//! Input: flags, then the object. The flags ask for the footer's CRC and length to be repaired.
#![no_main]

use bytes::Bytes;
use frazil_core::segment::{Footer, FooterError, TAIL_LENGTH, open};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&[flags, cut], object)) = data.split_first_chunk() else {
        return;
    };
    let mut object = object.to_vec();
    if let Some(tail) = object.len().checked_sub(TAIL_LENGTH) {
        let (footer, tail) = object.split_at_mut(tail);
        if flags & 1 != 0 {
            tail[8..].copy_from_slice(b"FRZLSEGF");
        }
        let length = u32::from_be_bytes([tail[0], tail[1], tail[2], tail[3]]) as usize;
        if let Some(start) = footer.len().checked_sub(length)
            && flags & 2 != 0
        {
            tail[4..8].copy_from_slice(&crc32c::crc32c(&footer[start..]).to_be_bytes());
        }
    }
    let object = Bytes::from(object);
    let length = object.len() as u64;
    let whole = Footer::parse(&object, length);
    if let Ok(footer) = &whole {
        for extent in &footer.extents {
            let start = extent.start as usize;
            // Inside the object: slicing does not panic.
            let _ = extent.check(&object[start..start + extent.length as usize]);
        }
    }
    if let Ok((footer, extents)) = open(&object) {
        assert_eq!(footer.extents.len(), extents.len());
    }
    // An end of the object tells the same, or how much more it takes.
    let end = &object[object.len().min(usize::from(cut))..];
    match Footer::parse(end, length) {
        Err(FooterError::NeedMore { need }) => {
            assert!(need > end.len() && need <= object.len());
            let _ = Footer::parse(&object[object.len() - need..], length);
        }
        part => assert_eq!(part, whole),
    }
    let _ = Footer::parse(&object, length.wrapping_add(u64::from(flags)));
});
