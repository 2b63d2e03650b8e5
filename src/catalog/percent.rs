//! Percent-encoding of paths and queries (RFC 3986, and the WHATWG URL standard for queries).

/// Decodes a segment of a path. `None`: it is not percent-encoded UTF-8.
pub(super) fn decode(text: &str) -> Option<String> {
    decode_bytes(text.bytes())
}

/// Decodes a part of a query, in which `+` is a space.
pub(super) fn decode_query(text: &str) -> Option<String> {
    decode_bytes(
        text.bytes()
            .map(|byte| if byte == b'+' { b' ' } else { byte }),
    )
}

fn decode_bytes(mut bytes: impl Iterator<Item = u8>) -> Option<String> {
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => digit(bytes.next()?)? << 4 | digit(bytes.next()?)?,
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

/// Encodes text as one segment of a path, or as a part of a query.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_encoding_is_refused() {
        for (text, expected) in [
            ("", Some("")),
            ("a%1Fb", Some("a\u{1f}b")),
            ("%41%6a", Some("Aj")),
            ("a+b", Some("a+b")),
            ("%C3%A9", Some("é")),
            ("%", None),
            ("%4", None),
            ("%4x", None),
            ("%+1", None),
            ("%C3", None),
            ("%FF", None),
        ] {
            assert_eq!(decode(text).as_deref(), expected, "{text}");
        }
        assert_eq!(decode_query("a+b%2B").as_deref(), Some("a b+"));
    }

    proptest! {
        #[test]
        fn what_is_encoded_comes_back(text in any::<String>()) {
            prop_assert_eq!(decode(&encode(&text)), Some(text.clone()));
            prop_assert_eq!(decode_query(&encode(&text)), Some(text));
        }
    }
}
