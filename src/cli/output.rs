//! Standard output: text, tables and JSON.

use std::io::{self, Write as _};

use serde::Serialize;

/// Writes text as it is.
pub(super) fn text(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Writes one JSON document over several lines.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut document = serde_json::to_string_pretty(value)?;
    document.push('\n');
    text(&document)
}

/// Rows under a heading, in columns as wide as their content.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(heading: &[&str]) -> Self {
        Self {
            rows: vec![heading.iter().map(ToString::to_string).collect()],
        }
    }

    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub(super) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths);
            let line: Vec<String> = cells
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            out.push_str(line.join("  ").trim_end());
            out.push('\n');
        }
        out
    }

    pub(super) fn print(&self) -> anyhow::Result<()> {
        text(&self.render())
    }
}

/// A dash for what is not there.
pub(super) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Bytes as JSON holds them: a string if they are UTF-8, else `{"base64": "…"}`.
pub(super) fn bytes_json(bytes: &[u8]) -> serde_json::Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => serde_json::json!(text),
        Err(_) => serde_json::json!({ "base64": base64(bytes) }),
    }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let index = (group >> (18 - 6 * i)) & 63;
            let padding = i > chunk.len();
            out.push(if padding {
                '='
            } else {
                char::from(ALPHABET[index as usize])
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_content() {
        let mut table = Table::new(&["TOPIC", "N"]);
        table.row(vec!["a".into(), "10".into()]);
        table.row(vec!["größere".into(), "-".into()]);
        assert_eq!(table.render(), "TOPIC    N\na        10\ngrößere  -\n");
    }

    #[test]
    fn bytes_that_are_no_text_become_base64() {
        // The vectors of RFC 4648 §10.
        for (bytes, expected) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), expected);
        }
        assert_eq!(bytes_json(b"text"), "text");
        assert_eq!(bytes_json(&[0xff, 0xfe])["base64"], "//4=");
    }
}
