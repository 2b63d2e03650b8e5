//! The parquet crate reads every column of the same files and keeps nothing: what a reader of such
//! files can hope for.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use bytes::Bytes;
use parquet::column::reader::ColumnReader;
use parquet::file::reader::{FileReader, SerializedFileReader};

/// All data files below a directory.
pub(super) fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "parquet") {
                found.push(path);
            }
        }
    }
    Ok(found)
}

/// Rows of some files, and the processor time that reading them took, without their way from the
/// disk.
#[expect(
    clippy::disallowed_methods,
    reason = "the files are real, and nothing replaces them"
)]
pub(super) fn read_all(files: &[PathBuf]) -> Result<(u64, Duration)> {
    let mut rows = 0;
    let mut spent = Duration::ZERO;
    for path in files {
        let file = Bytes::from(std::fs::read(path)?);
        let before = processor_time();
        rows += read(file)?;
        spent += processor_time() - before;
    }
    Ok((rows, spent))
}

fn read(file: Bytes) -> Result<u64> {
    let reader = SerializedFileReader::new(file)?;
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group)?;
        for column in 0..group.num_columns() {
            macro_rules! read {
                ($reader:expr) => {{
                    let mut reader = $reader;
                    let (mut defs, mut reps, mut out) = (Vec::new(), Vec::new(), Vec::new());
                    loop {
                        out.clear();
                        defs.clear();
                        reps.clear();
                        let (rows, _, _) = reader.read_records(
                            1000,
                            Some(&mut defs),
                            Some(&mut reps),
                            &mut out,
                        )?;
                        if rows == 0 {
                            break;
                        }
                        black_box(&out);
                    }
                }};
            }
            match group.get_column_reader(column)? {
                ColumnReader::Int32ColumnReader(reader) => read!(reader),
                ColumnReader::Int64ColumnReader(reader) => read!(reader),
                ColumnReader::ByteArrayColumnReader(reader) => read!(reader),
                _ => bail!("a column of another type"),
            }
        }
    }
    Ok(reader.metadata().file_metadata().num_rows().unsigned_abs())
}

/// The processor time that this thread has used.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}
