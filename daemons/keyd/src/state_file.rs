//! Files of the state directory: written whole or not at all, readable by their owner only.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use zeroize::Zeroizing;

/// Larger files are no keys.
const LEN_MAX: u64 = 1024 * 1024;

/// Makes a directory that only its owner may enter, if it is not there.
///
/// # Errors
/// Those of the file system.
pub(crate) fn make_directory(path: &Path) -> io::Result<()> {
    // The start sequence made the state directory itself, and the sandbox closes what is above it.
    if path.is_dir() {
        return Ok(());
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(path)?;
    if let Some(parent) = path.parent() {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// Writes a file so that after a crash either all of it or nothing of it is there.
///
/// # Errors
/// Those of the file system.
pub(crate) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str()))
    else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no file name"));
    };
    let temporary = directory.join(format!(".{name}.new"));
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(directory)?.sync_all()
}

/// Removes a file for good; whether it was there.
///
/// # Errors
/// Those of the file system.
pub(crate) fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    if let Some(directory) = path.parent() {
        File::open(directory)?.sync_all()?;
    }
    Ok(true)
}

/// Reads a file with a secret; `None` if it is not there.
///
/// # Errors
/// Those of the file system, and files that are too large.
pub(crate) fn read(path: &Path) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let len = file.metadata()?.len();
    if len > LEN_MAX {
        return Err(io::Error::other("larger than 1 MiB: no key or certificate"));
    }
    // With its final capacity from the start: growing would leave copies behind.
    let mut content = Zeroizing::new(Vec::with_capacity(usize::try_from(len).unwrap_or(0) + 1));
    file.take(LEN_MAX).read_to_end(&mut content)?;
    Ok(Some(content))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn files_are_replaced_whole_and_are_private() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("inner");
        make_directory(&inner).unwrap();
        make_directory(&inner).unwrap();
        let path = inner.join("secret");
        // What a killed process left.
        fs::write(inner.join(".secret.new"), "half").unwrap();
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(read(&path).unwrap().unwrap().as_slice(), b"two");
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 1);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&inner)), (0o600, 0o700));
        assert!(remove(&path).unwrap());
        assert!(!remove(&path).unwrap());
        assert!(read(&path).unwrap().is_none());
    }
}
