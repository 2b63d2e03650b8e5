//! Row groups of tables whose checksums are right and whose content is anything.
//!
//! Input: 0, then the pages of a row group as `frazil_table::forge` takes them; or 1, then the CBOR
//! of its index.
#![no_main]

use frazil_table::forge;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    match data.split_first() {
        Some((0, pages)) => drop(forge::read_pages(pages)),
        Some((1, cbor)) => forge::read_index(cbor),
        _ => {}
    }
});
