//! Small files that are replaced as a whole: the vote, the identities of voter and gateway.
//!
//! ```text
//! magic [8] | crc u32 LE | payload …          crc is CRC-32C over the payload
//! ```
//!
//! Replacing is: write `<name>.tmp`, sync it, rename it over `<name>`, sync the directory. After a
//! crash at any step the file is the old or the new one, whole. A temporary file that a crash has
//! left is overwritten by the next replacement.

use std::io;
use std::path::Path;

use frazil_core::env::Disk;

use super::room::synced;
use crate::error::Corrupt;

/// The largest file that is read.
const BYTES_MAX: u64 = 64 * 1024;
const HEADER: usize = 12;

/// Replaces the file `name` in `dir`. Blocks; the new content is durable on return.
///
/// # Errors
/// Those of the disk. The file is the old or the new one then.
pub fn replace(
    disk: &dyn Disk,
    dir: &Path,
    name: &str,
    magic: [u8; 8],
    payload: &[u8],
) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    bytes.extend_from_slice(&magic);
    bytes.extend_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    bytes.extend_from_slice(payload);
    publish(disk, dir, name, &[&bytes])
}

/// Writes a new file under a temporary name and moves it to `name`. Blocks; durable on return. If it
/// fails, the temporary file takes no room, as far as that can be done.
pub(crate) fn publish(disk: &dyn Disk, dir: &Path, name: &str, parts: &[&[u8]]) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.tmp"));
    if let Err(error) = disk.remove(&temporary)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let written = write(disk, &temporary, parts);
    if let Err(error) = written {
        // The next one would remove it; but what is full should not stay so because of it.
        let _ = disk.remove(&temporary);
        return Err(error);
    }
    disk.rename(&temporary, &dir.join(name))?;
    synced(disk.sync_dir(dir))
}

fn write(disk: &dyn Disk, path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let file = disk.create(path)?;
    let mut offset = 0;
    for part in parts {
        file.write_all_at(part, offset)?;
        offset += part.len() as u64;
    }
    synced(file.sync_data())
}

/// The payload of the file `name` in `dir`; `None` if there is no such file. Blocks.
///
/// # Errors
/// Those of the disk, and `InvalidData` if it is not what [`replace`] wrote.
pub fn read(
    disk: &dyn Disk,
    dir: &Path,
    name: &str,
    magic: [u8; 8],
) -> io::Result<Option<Vec<u8>>> {
    let file = match disk.open(&dir.join(name)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = file.len()?;
    if length < HEADER as u64 || length > BYTES_MAX {
        return Err(Corrupt::new(format!("{name} has {length} bytes")).into());
    }
    let mut bytes = vec![0; length as usize];
    if file.read_at(&mut bytes, 0)? != bytes.len() {
        return Err(Corrupt::new(format!("{name} is shorter than its length")).into());
    }
    let payload = bytes.split_off(HEADER);
    if bytes[..8] != magic || bytes[8..] != crc32c::crc32c(&payload).to_le_bytes() {
        return Err(Corrupt::new(format!("{name} does not match its checksum")).into());
    }
    Ok(Some(payload))
}
