//! Golden files: bytes of persisted formats as they were once written.

use std::path::PathBuf;

fn path(name: &str) -> PathBuf {
    PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/formats/golden"
    ))
    .join(name)
}

/// The bytes of a golden file, which the code must be able to read for ever.
///
/// # Panics
/// If there is no such file.
#[expect(
    clippy::disallowed_methods,
    reason = "golden files are part of the source tree, not of the disk under test"
)]
pub fn golden(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap_or_else(|error| panic!("golden file {name}: {error}"))
}

/// Checks that the code still writes exactly the bytes of a golden file.
///
/// With `GOLDEN_FILES=write` in the environment it writes the file if it does not exist yet. An
/// existing file is never changed: a new version of a format gets a new file.
///
/// # Panics
/// If the bytes differ.
#[expect(
    clippy::disallowed_methods,
    reason = "golden files are part of the source tree, not of the disk under test"
)]
pub fn check_golden(name: &str, written: &[u8]) {
    let path = path(name);
    if std::env::var_os("GOLDEN_FILES").is_some_and(|value| value == "write") && !path.exists() {
        std::fs::write(&path, written)
            .unwrap_or_else(|error| panic!("golden file {name}: {error}"));
    }
    let expected = golden(name);
    let same = written.iter().zip(&expected).take_while(|(a, b)| a == b);
    assert!(
        written == expected,
        "{name} is written differently now: {} bytes instead of {}, the first difference at {}",
        written.len(),
        expected.len(),
        same.count(),
    );
}
