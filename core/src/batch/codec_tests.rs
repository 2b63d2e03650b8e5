use proptest::prelude::*;

use super::*;

const CODECS: [Codec; 4] = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

#[test]
fn the_limit_is_exact() {
    let data = vec![7u8; 200_000];
    for codec in CODECS {
        let packed = Bytes::from(compress(codec, &data).unwrap());
        assert_eq!(decompress(codec, &packed, data.len()).unwrap(), data);
        for cap in [data.len() - 1, 32 << 10, 1, 0] {
            let error = decompress(codec, &packed, cap).unwrap_err();
            let CodecError::TooLarge { cap: told } = error else {
                panic!("{codec:?} {cap}: {error}");
            };
            assert_eq!(told, cap);
        }
    }
    let plain = Bytes::from(data);
    assert_eq!(
        decompress(Codec::None, &plain, plain.len())
            .unwrap()
            .as_ptr(),
        plain.as_ptr()
    );
    assert!(decompress(Codec::None, &plain, 1).is_err());
}

#[test]
fn snappy_is_read_without_framing() {
    let data = b"some text, some text, some text".repeat(100);
    let raw = snap::raw::Encoder::new().compress_vec(&data).unwrap();
    assert_eq!(
        decompress(Codec::Snappy, &raw.into(), 1 << 20).unwrap(),
        data
    );
}

#[test]
fn nothing_compressed_is_nothing() {
    for codec in CODECS {
        let packed = Bytes::from(compress(codec, b"").unwrap());
        assert_eq!(
            decompress(codec, &packed, 10).unwrap(),
            &b""[..],
            "{codec:?}"
        );
    }
}

#[test]
fn a_size_that_is_only_claimed_is_refused() {
    // A raw snappy block that claims 4 GiB - 1, and a framed one that claims 2 MiB.
    let claim = Bytes::from_static(&[0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 0]);
    assert!(decompress(Codec::Snappy, &claim, 64 << 20).is_err());
    let mut framed = XERIAL_MAGIC.to_vec();
    framed.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 4, 0x80, 0x80, 0x80, 0x01]);
    let error = decompress(Codec::Snappy, &framed.into(), 64 << 20).unwrap_err();
    assert!(error.to_string().contains("claims"), "{error}");
}

#[test]
fn zstd_windows_are_limited() {
    let data = vec![1u8; 1 << 20];
    for (window, ok) in [(23, true), (24, false)] {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(window).unwrap();
        encoder.write_all(&data).unwrap();
        let packed = Bytes::from(encoder.finish().unwrap());
        assert_eq!(
            decompress(Codec::Zstd, &packed, 1 << 20).is_ok(),
            ok,
            "{window}"
        );
    }
}

#[test]
fn lz4_ends_with_its_frame() {
    let mut packed = compress(Codec::Lz4, b"some text").unwrap();
    packed.push(0);
    assert!(decompress(Codec::Lz4, &packed.into(), 100).is_err());
    let legacy = Bytes::from_static(&[0x02, 0x21, 0x4C, 0x18, 0, 0, 0, 0]);
    assert!(decompress(Codec::Lz4, &legacy, 100).is_err());
}

proptest! {
    #[test]
    fn what_was_compressed_is_decompressed(
        data in prop::collection::vec(any::<u8>(), 0..500),
        times in 1usize..300,
        codec in 0usize..4,
    ) {
        let data = data.repeat(times);
        let packed = Bytes::from(compress(CODECS[codec], &data).unwrap());
        prop_assert_eq!(decompress(CODECS[codec], &packed, data.len()).unwrap(), data);
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(
        junk in prop::collection::vec(any::<u8>(), 0..300),
        codec in 0usize..4,
        start in any::<bool>(),
    ) {
        let codec = CODECS[codec];
        let mut bytes = Vec::new();
        if start {
            bytes = compress(codec, b"a beginning that is right").unwrap();
            bytes.truncate(bytes.len() / 2);
        }
        bytes.extend_from_slice(&junk);
        if let Ok(out) = decompress(codec, &bytes.into(), 1 << 20) {
            prop_assert!(out.len() <= 1 << 20);
        }
    }
}
