use super::*;
use crate::env::testing::{check_golden, golden};

fn example(codec: Codec) -> Bytes {
    BatchBuilder::new()
        .codec(codec)
        .producer(1, 2, 3)
        .record_with(
            1_700_000_000_000,
            Some(b"key"),
            Some(b"value"),
            &[(b"header", Some(b"1")), (b"header", None)],
        )
        .record(1_700_000_000_001, None, None)
        .build()
}

#[test]
fn batches_are_told_apart() {
    let (a, b) = (example(Codec::None), example(Codec::Zstd));
    let joined = Bytes::from([&a[..], &b[..]].concat());
    let found: Vec<Bytes> = batches(&joined).map(|item| item.unwrap().1).collect();
    assert_eq!(found, [a.clone(), b]);
    let cut = joined.slice(..joined.len() - 1);
    let found: Vec<_> = batches(&cut).collect();
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].as_ref().unwrap().1, a);
    assert!(matches!(found[1], Err(HeaderError::Truncated { .. })));
    assert_eq!(batches(&Bytes::new()).count(), 0);
}

#[test]
fn golden_bytes_stay() {
    // What a compressor writes may change with its version, so only this one is compared.
    check_golden("batch-v2-none.bin", &example(Codec::None));
    let read = |name: &str| -> Vec<Record> {
        let bytes = Bytes::from(golden(name));
        let limits = Limits {
            now_ms: 1_700_000_000_000,
            ..Limits::default()
        };
        let validated = validate(&bytes, &limits).unwrap();
        let records = Records::of(&validated.header, &validated.batch).unwrap();
        records.map(Result::unwrap).collect()
    };
    let expected = read("batch-v2-none.bin");
    assert_eq!(expected.len(), 2);
    for name in ["gzip", "snappy", "lz4", "zstd"] {
        assert_eq!(read(&format!("batch-v2-{name}.bin")), expected, "{name}");
    }
}

#[test]
fn stamping_keeps_the_checksum() {
    let batch = example(Codec::None);
    let mut stamped = batch.to_vec();
    stamped[..16].copy_from_slice(&header::stamp(crate::Offset(77), batch.len() as u32, 5));
    let header = BatchHeader::parse(&stamped).unwrap();
    assert_eq!((header.base_offset, header.leader_epoch), (77, 5));
    assert_eq!(header.length as usize, batch.len());
    header.check_crc(&stamped).unwrap();
}
