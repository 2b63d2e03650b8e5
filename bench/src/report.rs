//! Files that results are written into, and documents that have a place for them between two markers.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};

/// Writes a file anew.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(file.write_all(text.as_bytes())?)
}

/// Replaces what a document has between two markers.
pub(crate) fn update(document: &Path, between: [&str; 2], text: &str) -> Result<()> {
    let before = std::fs::read_to_string(document)
        .with_context(|| format!("cannot read {}", document.display()))?;
    let after = replaced(&before, between, text)
        .with_context(|| format!("{} has no place marked {}", document.display(), between[0]))?;
    write(document, &after)
}

fn replaced(document: &str, [begin, end]: [&str; 2], text: &str) -> Option<String> {
    let (before, rest) = document.split_once(begin)?;
    let (_, after) = rest.split_once(end)?;
    Some(format!("{before}{begin}\n\n{text}\n{end}{after}"))
}

/// How busy the machine is, over one, five and fifteen minutes.
pub(crate) fn load_average() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_is_replaced() {
        let document = "before\n<b>\nold\n<e>\nafter\n";
        let expected = "before\n<b>\n\nnew\n\n<e>\nafter\n";
        let new = replaced(document, ["<b>", "<e>"], "new\n");
        assert_eq!(new.as_deref(), Some(expected));
        assert_eq!(replaced("without", ["<b>", "<e>"], "new"), None);
    }
}
